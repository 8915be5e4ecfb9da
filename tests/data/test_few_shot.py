"""Nested subsets and episodes: what must hold for any corpus, and that nobody is given another corpus's ids."""

import json
import math
import random
from collections import Counter, defaultdict
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechzoo.data.few_shot import (
    draw_episodes,
    nested_subsets,
    read_episodes,
    read_subsets,
    select,
)

INTENTS = ["alarm_set", "iot_off", "news_query", "play_music", "qa_maths"]
FEATURES = {
    "id": Value("string"),
    "duration": Value("float64"),
    "speaker": Value("string"),
    "intent": ClassLabel(names=INTENTS),
    "text": Value("string"),
}
Rows = list[dict[str, Any]]


def corpus_of(rows: Rows, columns: tuple[str, ...] = ("id", "duration", "speaker", "intent")) -> Dataset:
    features = Features({name: FEATURES[name] for name in columns})
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns}, features=features)


def skewed(clips: int = 600) -> Rows:
    """Most clips are of one intent and by one speaker, as in real corpora."""
    lots = random.Random(1)
    intents = lots.choices(INTENTS, [60, 20, 10, 6, 4], k=clips)
    speakers = lots.choices("abcdefgh", [40, 20, 10, 10, 5, 5, 5, 5], k=clips)
    return [
        {"id": f"clip-{i:04d}", "duration": lots.uniform(1, 5), "speaker": speakers[i], "intent": intents[i]}
        for i in range(clips)
    ]


ids = st.lists(st.text("abcdefghij0123456789-", min_size=1, max_size=6), min_size=1, max_size=40, unique=True)


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    return [
        {
            "id": id,
            "duration": draw(st.floats(0.1, 20)),
            "speaker": draw(st.sampled_from(["ann", "bob", "cy", None])),
            "intent": draw(st.sampled_from([*INTENTS, None])),
        }
        for id in draw(ids)
    ]


quickly = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


# --- nested subsets ---


@quickly
@given(any_rows(), st.integers(0, 5), st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4), st.booleans())
def test_subsets_are_nested_fill_their_budget_and_forget_the_order_of_rows(rows, seed, shares, by_intent):
    labels = "intent" if by_intent else None
    usable = {row["id"]: row["duration"] for row in rows if labels is None or row["intent"] is not None}
    budgets = sorted({share * math.fsum(usable.values()) for share in shares})
    if not usable:
        return
    try:
        drawn = nested_subsets(corpus_of(rows), budgets, seed, labels)
    except ValueError as error:
        assert "no clip fits" in str(error) and budgets[0] < max(usable.values())
        return
    longest = max(usable.values())
    for budget in budgets:
        chosen = drawn.ids[budget]
        total = math.fsum(usable[id] for id in chosen)
        assert len(set(chosen)) == len(chosen)
        assert total == pytest.approx(drawn.seconds[budget])
        assert budget - longest < total + 1e-6 and total <= budget + 1e-6
    for small, large in pairwise(budgets):
        assert set(drawn.ids[small]) <= set(drawn.ids[large])
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert nested_subsets(corpus_of(shuffled), budgets, seed, labels) == drawn


def seconds_by(rows: Rows, chosen: list[str], key: str) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float, {row[key]: 0.0 for row in rows})
    for row in rows:
        totals[row[key]] += row["duration"] * (row["id"] in chosen)
    return totals


def spread(rows: Rows, chosen: list[str], key: str) -> float:
    """Seconds between the value of a column that was given most and the one that was given least."""
    totals = seconds_by(rows, chosen, key).values()
    return max(totals) - min(totals)


def random_spread(rows: Rows, budget: float, key: str) -> float:
    """The same of clips drawn without regard to anything, median of 21 draws."""

    def one(seed: int) -> float:
        chosen, total = [], 0.0
        for row in random.Random(seed).sample(rows, len(rows)):
            total += row["duration"]
            if total > budget:
                break
            chosen.append(row["id"])
        return spread(rows, chosen, key)

    return median(one(seed) for seed in range(21))


@pytest.mark.parametrize("seed", range(5))
def test_labels_come_out_equal_to_one_clip_and_speakers_better_than_at_random(seed):
    rows = skewed()
    drawn = nested_subsets(corpus_of(rows), [120, 240], seed, "intent")
    for budget, chosen in drawn.ids.items():
        assert spread(rows, chosen, "intent") <= 5  # the longest clip
        assert spread(rows, chosen, "intent") < random_spread(rows, budget, "intent") / 5
        assert spread(rows, chosen, "speaker") < random_spread(rows, budget, "speaker") / 3


@pytest.mark.parametrize("seed", range(5))
def test_without_labels_speakers_come_out_equal_to_one_clip(seed):
    rows = skewed()
    drawn = nested_subsets(corpus_of(rows), [120, 240], seed)
    for budget, chosen in drawn.ids.items():
        assert spread(rows, chosen, "speaker") <= 5 < random_spread(rows, budget, "speaker") / 5


def test_a_label_whose_clips_are_used_up_leaves_the_rest_to_the_others():
    rows = skewed()
    rare = seconds_by(rows, [row["id"] for row in rows], "intent")
    budget = 5 * min(rare.values()) + 20
    totals = seconds_by(rows, nested_subsets(corpus_of(rows), [budget], 0, "intent").ids[budget], "intent")
    least = min(rare, key=rare.__getitem__)
    assert totals[least] == pytest.approx(rare[least])
    others = [seconds for name, seconds in totals.items() if name != least]
    assert min(others) > rare[least] and max(others) - min(others) <= 5


def test_the_seed_decides():
    corpus = corpus_of(skewed())
    first, again, other = (nested_subsets(corpus, [60], seed, "intent").ids[60] for seed in (0, 0, 1))
    assert first == again and set(first) != set(other)


def test_the_choice_stays_the_same_over_versions():
    rows = [{"id": f"{i}", "duration": 1.0, "speaker": "ab"[i % 2], "intent": INTENTS[i % 3]} for i in range(12)]
    assert nested_subsets(corpus_of(rows), [4], 7, "intent").ids[4] == PINNED_SUBSET
    episode = draw_episodes(corpus_of(rows), "intent", 2, 1, 1, 1, 7).episodes[0]
    assert (episode.support, episode.query) == PINNED_EPISODE


def test_a_corpus_without_speakers_or_with_text_labels_is_fine():
    rows = [{**row, "intent": INTENTS.index(row["intent"])} for row in skewed(50)]
    corpus = corpus_of(rows, ("id", "duration", "intent"))
    as_text = corpus.cast_column("intent", Value("string"))
    assert nested_subsets(corpus, [30], 0, "intent").seconds[30] <= 30
    assert len(nested_subsets(as_text, [30], 0, "intent").ids[30]) > 5


@pytest.mark.parametrize(
    ("change", "arguments", "match"),
    [
        ({}, {"seconds": [1e6]}, r"the corpus has \d+\.\d s of clips; 1e\+06 s are not there"),
        ({}, {"seconds": [0]}, "give numbers of seconds above 0"),
        ({}, {"seconds": []}, "give numbers of seconds above 0"),
        ({}, {"seconds": [0.5]}, r"no clip fits into 0\.5 s; the first has"),
        ({}, {"seconds": [60], "labels": "mood"}, "no column 'mood'; the corpus has id, duration, speaker, intent"),
        ({"duration": None}, {"seconds": [60]}, "clip 'clip-0003' has the duration None"),
        ({"duration": math.nan}, {"seconds": [60]}, "clip 'clip-0003' has the duration nan"),
        ({"id": "clip-0001"}, {"seconds": [60]}, "two clips have the id 'clip-0001'"),
    ],
)
def test_what_cannot_be_drawn_is_named(change, arguments, match):
    rows = skewed(50)
    rows[3] |= change
    with pytest.raises(ValueError, match=match):
        nested_subsets(corpus_of(rows), **arguments)


def test_a_stream_is_refused():
    with pytest.raises(ValueError, match=r"IterableDataset.*without streaming"):
        nested_subsets(corpus_of(skewed(9)).to_iterable_dataset(), [5])  # type: ignore[arg-type]


# --- episodes ---


@quickly
@given(any_rows(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 5), st.booleans())
def test_episodes_have_what_was_asked_for_and_nothing_twice(rows, ways, shots, queries, seed, disjoint):
    if disjoint:  # a clip whose speaker is unknown would be refused
        rows = [{**row, "speaker": row["speaker"] or "dee"} for row in rows]
    by_id = {row["id"]: row for row in rows}
    corpus = corpus_of(rows)

    def draw(corpus: Dataset, episodes: int) -> Any:
        return draw_episodes(
            corpus, "intent", ways, shots, queries, episodes, seed, speaker_disjoint=disjoint, leave_out_small=True
        )

    try:
        drawn = draw(corpus, 3)
    except ValueError:
        counts = Counter(row["intent"] for row in rows if row["intent"])
        enough = [name for name, count in counts.items() if count >= shots + queries]
        assert len(enough) < ways or disjoint
        return
    for episode in drawn.episodes:
        assert list(episode.support) == list(episode.query) and len(episode.support) == ways
        for part, number in ((episode.support, shots), (episode.query, queries)):
            assert all(len(ids) == number for ids in part.values())
            assert all(by_id[id]["intent"] == name for name, ids in part.items() for id in ids)
        support = [id for ids in episode.support.values() for id in ids]
        query = [id for ids in episode.query.values() for id in ids]
        assert len({*support, *query}) == len(support) + len(query)
        if disjoint:
            assert not {by_id[id]["speaker"] for id in support} & {by_id[id]["speaker"] for id in query}
    assert draw(corpus_of(random.Random(seed).sample(rows, len(rows))), 3) == drawn
    assert draw(corpus, 2).episodes == drawn.episodes[:2]


def test_every_class_and_clip_has_its_turn():
    rows = skewed(200)
    drawn = draw_episodes(corpus_of(rows), "intent", 2, 1, 1, 400, 0)
    classes = Counter(name for episode in drawn.episodes for name in episode.support)
    assert set(classes) == set(INTENTS)
    assert min(classes.values()) > 400 * 2 / 5 / 2  # without regard to size: about 160 each
    of_one = {row["id"] for row in rows if row["intent"] == "qa_maths"}
    assert {id for e in drawn.episodes for id in e.support.get("qa_maths", [])} == of_one


def test_zero_ways_are_all_classes():
    drawn = draw_episodes(corpus_of(skewed()), "intent", 0, 2, 3, 1)
    assert sorted(drawn.episodes[0].support) == INTENTS
    assert drawn.made_from.settings["ways"] == 5


def few() -> Rows:
    """Three classes; 'qa_maths' has two clips, 'iot_off' four by one speaker."""
    rows = [("alarm_set", "ann"), ("alarm_set", "bob")] * 3 + [("iot_off", "cy")] * 4 + [("qa_maths", "ann")] * 2
    return [{"id": f"{i:02d}", "duration": 1.0, "speaker": s, "intent": n} for i, (n, s) in enumerate(rows)]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            {"ways": 2, "shots": 2, "queries": 1},
            r"1 of 3 classes .* fewer than 2 \+ 1 clips: 'qa_maths' 2",
        ),
        (
            {"ways": 3, "shots": 2, "queries": 1, "leave_out_small": True},
            "2 classes with enough clips; 3 ways",
        ),
        ({"ways": 3, "shots": 1, "queries": 1, "speaker_disjoint": True}, "'iot_off' has 4 clips, all by one speaker"),
        ({"ways": 1, "shots": 0, "queries": 1}, "shots is 0; give at least 1"),
        ({"ways": 1, "shots": 1, "queries": -1}, "queries is -1"),
        ({"ways": 1, "shots": 1, "queries": 1, "label": "mood"}, "no column 'mood'"),
    ],
)
def test_what_cannot_be_an_episode_is_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        draw_episodes(corpus_of(few()), **{"label": "intent", "episodes": 1, **arguments})


def test_classes_left_out_are_listed():
    drawn = draw_episodes(corpus_of(few()), "intent", 2, 2, 1, 1, leave_out_small=True)
    assert drawn.made_from.settings["left_out"] == {"qa_maths": 2}


def test_speakers_that_cannot_be_divided_are_explained():
    rows = [row for row in few() if row["intent"] == "alarm_set"]
    with pytest.raises(ValueError, match=r"no division of 2 speakers leaves 4 clips .* 'alarm_set' has 6 clips by 2"):
        draw_episodes(corpus_of(rows), "intent", 1, 4, 2, 1, speaker_disjoint=True)
    rows[0]["speaker"] = None
    with pytest.raises(ValueError, match="clip '00' has no speaker"):
        draw_episodes(corpus_of(rows), "intent", 1, 1, 1, 1, speaker_disjoint=True)


def test_speakers_are_divided_where_only_one_division_is_possible():
    """Of four speakers, support of five clips a class needs exactly the two with three and two."""
    said = {"ann": 3, "bob": 2, "cy": 4, "dee": 1}
    pairs = [(name, speaker) for speaker, number in said.items() for name in INTENTS[:2] for _ in range(number)]
    rows = [{"id": f"{i:02d}", "duration": 1.0, "speaker": s, "intent": n} for i, (n, s) in enumerate(pairs)]
    sides = [{"ann", "bob"}, {"cy", "dee"}]
    for seed in range(20):
        for episode in draw_episodes(corpus_of(rows), "intent", 2, 5, 5, 3, seed, speaker_disjoint=True).episodes:
            support, query = (
                {rows[int(id)]["speaker"] for ids in part.values() for id in ids}
                for part in (episode.support, episode.query)
            )
            assert support in sides and query in sides and support != query


def recorded_often(clips: int = 600, sentences: int = 20) -> Rows:
    """As SLURP: every sentence was said many times, by several speakers."""
    rows = [{**row, "intent": INTENTS[i % 5]} for i, row in enumerate(skewed(clips))]
    lots = random.Random(2)
    for i, row in enumerate(rows):
        row["text"] = f"{lots.choice(['Turn', ' turn'])} on  {i % sentences}"
    return rows


WITH_TEXT = ("id", "duration", "speaker", "intent", "text")


@pytest.mark.parametrize("speaker_disjoint", [False, True])
def test_text_disjoint_episodes_share_no_sentence(speaker_disjoint):
    rows = recorded_often()
    by_id = {row["id"]: (row["text"].lower().strip(), row["speaker"], row["intent"]) for row in rows}

    def shared(column: int, **options: bool) -> int:
        drawn = draw_episodes(
            corpus_of(rows, WITH_TEXT), "intent", 3, 3, 5, 20, speaker_disjoint=speaker_disjoint, **options
        )
        number = 0
        for episode in drawn.episodes:
            sides = [[id for ids in part.values() for id in ids] for part in (episode.support, episode.query)]
            assert [len(side) for side in sides] == [9, 15]
            assert all(by_id[id][2] == name for name, ids in episode.query.items() for id in ids)
            support, query = ({by_id[id][column] for id in side} for side in sides)
            number += bool(support & query)
        return number

    assert shared(0) > 15 and shared(0, text_disjoint=True) == 0
    assert (shared(1, text_disjoint=True) == 0) == speaker_disjoint


def test_texts_that_cannot_be_kept_apart_are_explained():
    rows = [{**row, "text": row["intent"]} for row in few()]

    def draw(rows: Rows, columns: tuple[str, ...] = WITH_TEXT) -> Any:
        return draw_episodes(corpus_of(rows, columns), "intent", 1, 1, 1, 1, text_disjoint=True)

    with pytest.raises(ValueError, match="clips, all of one text"):
        draw(rows)
    with pytest.raises(ValueError, match="clip '00' has no text"):
        draw([{**rows[0], "text": None}, *rows[1:]])
    with pytest.raises(ValueError, match="no column 'text', so texts cannot be kept apart"):
        draw(rows, WITH_TEXT[:-1])


# --- saved ids ---


def test_subsets_come_back_from_a_file_and_apply_to_their_corpus_alone(tmp_path):
    rows = skewed(100)
    corpus = corpus_of(rows)
    drawn = nested_subsets(corpus, [30, 60], 3, "intent", name="mine")
    drawn.save(tmp_path / "deep" / "subsets.json")
    back = read_subsets(tmp_path / "deep" / "subsets.json")
    assert back == drawn
    assert back.made_from.corpus == "mine" and back.made_from.seed == 3 and back.made_from.clips == 100
    assert back.made_from.settings == {"seconds": [30, 60], "labels": "intent"}
    assert back.of(corpus, 30)["id"][:] == drawn.ids[30]
    assert back.of(corpus_of(rows[::-1]), 60)["id"][:] == drawn.ids[60]
    with pytest.raises(ValueError, match="made from 100 clips of 'mine', and these 99 clips are others"):
        back.of(corpus_of(rows[1:]), 30)
    with pytest.raises(ValueError, match="these 100 clips are others"):
        back.of(corpus_of([*rows[1:], {**rows[0], "id": "another"}]), 30)
    with pytest.raises(ValueError, match=r"no subset of 45 s; there are 30\.0, 60\.0"):
        back.of(corpus, 45)


def test_episodes_come_back_from_a_file_and_apply_to_their_corpus_alone(tmp_path):
    rows = skewed(100)
    drawn = draw_episodes(corpus_of(rows), "intent", 2, 1, 2, 3, 5)
    drawn.save(tmp_path / "episodes.json")
    back = read_episodes(tmp_path / "episodes.json")
    assert back == drawn
    support, query = back.of(corpus_of(rows), 1)
    assert support["id"][:] == [id for ids in drawn.episodes[1].support.values() for id in ids]
    assert len(query) == 4 and support.features["intent"].names == INTENTS
    with pytest.raises(ValueError, match="are others"):
        back.of(corpus_of(rows[:-1]), 0)


def test_other_labels_are_another_corpus():
    rows = skewed(100)
    changed = corpus_of([*rows[1:], {**rows[0], "intent": "qa_maths" if rows[0]["intent"] != "qa_maths" else None}])
    with pytest.raises(ValueError, match="clips are others, or their intent is another"):
        nested_subsets(corpus_of(rows), [30], labels="intent").of(changed, 30)
    with pytest.raises(ValueError, match="clips are others, or their intent is another"):
        draw_episodes(corpus_of(rows), "intent", 2, 1, 1, 1).of(changed, 0)
    assert len(nested_subsets(corpus_of(rows), [30]).of(changed, 30))  # chosen without regard to labels


def test_the_format_of_rows_makes_no_difference_and_numbers_are_no_ids():
    corpus = corpus_of(skewed(60))
    drawn = nested_subsets(corpus, [20], labels="intent")
    assert nested_subsets(corpus.with_format("torch"), [20], labels="intent") == drawn
    assert len(drawn.of(corpus.with_format("torch"), 20)) == len(drawn.ids[20])
    numbered = corpus.remove_columns("id").add_column("id", list(range(60)))
    for draw in (lambda: nested_subsets(numbered, [20]), lambda: select(numbered, ["1"])):
        with pytest.raises(ValueError, match=r"the id 0 is no text; .*cast_column\('id', Value\('string'\)\)"):
            draw()


HEAD = '"made_from": {"corpus": "", "split": "", "clips": 1, "fingerprint": "", "seed": 0'


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"subsets": []}',
        '{"episodes": [], "made_from": {"nothing": 1}}',
        f'{{{HEAD}}}, "subsets": [{{"ids": []}}], "episodes": [{{"support": {{}}}}]}}',
        f'{{{HEAD}}}, "subsets": [1], "episodes": [1]}}',
        f'{{{HEAD}}}, "subsets": 1, "episodes": 1}}',
        f'{{{HEAD}}}, "subsets": [{{"budget": 1, "seconds": 1, "ids": [1]}}], '
        '"episodes": [{"support": [], "query": {}}]}',
        f'{{{HEAD}}}, "subsets": [{{"budget": 1, "seconds": null, "ids": []}}], '
        '"episodes": [{"support": {"a": "b"}, "query": {}}]}',
        f'{{{HEAD}, "settings": []}}, "subsets": [], "episodes": []}}',
    ],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    for read in (read_subsets, read_episodes):
        with pytest.raises(ValueError, match=r"file\.json holds no saved"):
            read(tmp_path / "file.json")


def test_a_saved_file_is_plain_json_with_the_facts(tmp_path):
    nested_subsets(corpus_of(skewed(60)), [20]).save(tmp_path / "subsets.json")
    content = json.loads((tmp_path / "subsets.json").read_text())
    assert set(content["made_from"]) == {"corpus", "split", "clips", "fingerprint", "seed", "settings"}
    assert content["subsets"][0]["budget"] == 20


def test_selecting_keeps_the_order_and_names_what_is_missing():
    corpus = corpus_of(few())
    assert select(corpus, ["05", "01", "11"])["id"][:] == ["05", "01", "11"]
    with pytest.raises(ValueError, match=r"7 of 8 ids are not in the corpus: 'a', 'b', 'c', 'd', 'e' and 2 more"):
        select(corpus, ["01", *"abcdefg"])


PINNED_SUBSET = ["3", "4", "11", "0"]
PINNED_EPISODE = ({"alarm_set": ["3"], "iot_off": ["10"]}, {"alarm_set": ["6"], "iot_off": ["7"]})
