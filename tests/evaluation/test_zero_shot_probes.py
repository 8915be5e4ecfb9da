"""Zero-shot probes: what is counted, what lists hold, what a model reads, and the report over seeds."""

import json
import random
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats
from speech_text_cases import ANSWERS, write_corpus

from speechzoo.data.corpora import load_corpus
from speechzoo.data.story_grammar import content_words, draw_whole_story
from speechzoo.evaluation.adapter_evaluation import Decoding
from speechzoo.evaluation.intervals import ratio_interval
from speechzoo.evaluation.probe_report import made_up_by_references, probe_page, report_probes, sources_by_seed
from speechzoo.evaluation.report import Corpus, Measurement, Report, read_report, write_report
from speechzoo.evaluation.sweep_report import SweepReport
from speechzoo.evaluation.word_error_rate import count_word_errors
from speechzoo.evaluation.zero_shot_probes import (
    SCORES,
    Probe,
    ProbedClips,
    answer_probe,
    check_probes,
    measure_probe,
    others,
    refuse_trained_texts,
    story_content_words,
    with_word_lists,
)
from speechzoo.hub_cards.result_tables import sweep_block
from speechzoo.training.command_line import parse_arguments

SCRIPT = Path(__file__).parents[2] / "examples" / "zero_shot_probes.py"
CONFIGURATION = SCRIPT.parent / "configs" / "zero_shot_probes.yaml"


def stories(count: int = 40) -> Dataset:
    """What is known of spoken stories, without their audio."""
    rows = []
    for index in range(count):
        story = draw_whole_story(99, index)
        row = {"id": f"s{index}", "audio": "", "text": story.opening, "speaker": f"v{index % 3}"}
        row |= {"facts": dict(story.facts), "question": story.question, "answer_to_question": story.answer}
        rows.append(row | {"reply": story.reply, "continuation": story.continuation})
    return Dataset.from_list(rows)


def clips_of(said: list[str], **facts) -> ProbedClips:
    empty = [set()] * len(said)
    given = {"references": said, "speakers": [], "listed": empty, "distractors": empty, "topic": empty}
    return ProbedClips(said=said, **{**given, "content": set(), **facts})


def counted(score: str, clips: ProbedClips, answers: list[str]) -> list[tuple[int, int]]:
    return [(int(above), int(below)) for above, below in zip(*SCORES[score].count(clips, answers), strict=True)]


# ---- scores ----


def test_listed_words_are_wrong_when_substituted_or_deleted():
    listed = {"anna", "red", "ball", "park", "zebra"}  # the zebra was not said, so it does not count
    answers = [
        "Anna found a red ball near the park.",
        "anna found a ball near a park park",  # red is lost; what is no listed word or too much does not count
        "hanna found a red wall near the dark",
        "",
    ]
    said = ["anna found a red ball near the park"] * len(answers)
    clips = clips_of(said, listed=[listed] * len(answers))
    assert counted("listed_words", clips, answers) == [(0, 4), (1, 4), (3, 4), (4, 4)]


def minimal_losses(said: tuple[str, ...], answer: tuple[str, ...], listed: set[str]) -> set[tuple[int, int]]:
    """Every pair of errors and lost listed words of all alignments, by trying all of them."""
    if not said or not answer:
        return {(len(said) + len(answer), sum(word in listed for word in said))}
    first, lost = said[0], int(said[0] in listed)
    hit = int(first == answer[0])
    ways = {
        (errors + 1 - hit, losses + lost * (1 - hit))
        for errors, losses in minimal_losses(said[1:], answer[1:], listed)
    }
    ways |= {(errors + 1, losses + lost) for errors, losses in minimal_losses(said[1:], answer, listed)}
    return ways | {(errors + 1, losses) for errors, losses in minimal_losses(said, answer[1:], listed)}


def test_listed_words_are_lost_as_in_a_minimal_alignment():
    rng = random.Random(0)
    for _ in range(150):
        said, answer = (rng.choices("abcd", k=rng.randint(1, 5)) for _ in range(2))
        listed = set(rng.sample("abcd", 2))
        ways = minimal_losses(tuple(said), tuple(answer), listed)
        best = min(errors for errors, _ in ways)
        clips = clips_of([" ".join(said)], listed=[listed])
        ((lost, spoken),) = counted("listed_words", clips, [" ".join(answer)])
        assert (best, lost) in ways and spoken == sum(word in listed for word in said)
        everything = counted("listed_words", clips_of([" ".join(said)], listed=[{*"abcd"}]), [" ".join(answer)])
        errors = count_word_errors([" ".join(said)], [" ".join(answer)])
        assert everything[0][0] == errors.substitutions[0] + errors.deletions[0]


def test_hallucinations_are_content_words_that_were_never_said():
    said = ["anna found a red ball near the park", "ben lost a new hat", "clara saw a cup"]
    clips = clips_of(said, content=story_content_words())
    answers = [
        "no the ball was red red, Anna",  # all said; words of no content do not count
        "ben gave the hat to oscar and oscar liked it",  # oscar twice
        "it was there",
    ]
    assert counted("hallucination", clips, answers) == [(0, 4), (2, 4), (0, 0)]
    # What the prompt put into its mouth was not said: `blue` stood in the question, say.
    assert counted("hallucination", clips_of(said[:1], content={"blue"}), ["yes the ball was blue"]) == [(1, 1)]
    assert measure_probe("probe", "hallucination", clips, ["it was there"] * 3, answers) is None


def test_distractors_topic_and_right_answers():
    clips = clips_of(
        ["anna saw a cup", "ben lost a hat"],
        distractors=[{"oscar", "plate"}, {"emma", "drum"}],
        topic=[{"anna", "cup"}, {"ben", "hat"}],
        references=["at the park", "it is about ben"],
    )
    assert counted("distractors", clips, ["oscar saw oscar", "emma had a drum"]) == [(1, 2), (2, 2)]
    assert counted("on_topic", clips, ["then anna slept", "then anna slept"]) == [(1, 1), (0, 1)]
    assert counted("accuracy", clips, ["At the park!", "it is about"]) == [(1, 1), (0, 1)]
    assert counted("wer", clips, ["at a park", "it is about ben too"]) == [(1, 3), (1, 4)]


def test_a_measurement_has_its_interval_chance_and_topline():
    references = [f"word{index}" for index in range(12)]
    speakers = [f"v{index % 4}" for index in range(12)]
    answers = references[:8] + ["nothing"] * 4
    clips = clips_of(references, speakers=speakers)
    row = measure_probe("probe", "accuracy", clips, answers, references)
    by_speaker = ratio_interval([answer != "nothing" for answer in answers], [1] * 12, speakers)
    assert (row.value, row.low, row.high) == (by_speaker.value, by_speaker.low, by_speaker.high)
    assert (row.items, row.speakers, row.resampled) == (12, 4, "speakers")
    assert row.chance == 0 and row.topline == 1  # no other clip's answer is right
    alone = measure_probe("probe", "accuracy", clips_of(["a"]), ["a"], ["b"])
    assert (alone.value, alone.chance, alone.topline, alone.resampled) == (1, None, 0, "items")


@pytest.mark.parametrize("count", [2, 3, 50])
def test_every_answer_goes_to_another_clip(count):
    answers = [str(index) for index in range(count)]
    given = others(answers)
    assert sorted(given) == sorted(answers) and given == others(answers)
    assert all(one != other for one, other in zip(given, answers, strict=True))


# ---- lists and checks ----


def test_lists_hold_what_was_said_and_distractors_what_was_not():
    corpus = with_word_lists(stories())
    kind_of = {word: kind for kind, words in content_words().items() for word in words}
    assert len(kind_of) == sum(map(len, content_words().values())), "a word of two kinds could be said after all"
    for row in corpus:
        listed, distractors = row["listed"].split(), row["distractors"].split()
        assert sorted(listed) == sorted(row["facts"].values()) and {*listed} <= {*row["text"].split()}
        assert not {*distractors} & {*row["text"].split()}
        assert sorted(map(kind_of.get, distractors)) == sorted(map(kind_of.get, listed)) == sorted(content_words())
    orders = {tuple(map(kind_of.get, row["listed"].split())) for row in corpus}
    assert len(orders) > 10, "the order of a list must not tell the kinds"
    assert len({*corpus["distractors"]}) > 30


def test_lists_depend_on_the_clip_alone():
    corpus = stories()
    some = with_word_lists(corpus.select([7, 3]))
    whole = with_word_lists(corpus)
    for column in ("listed", "distractors"):
        assert list(some[column]) == [whole[column][7], whole[column][3]]
    own = corpus.add_column("listed", ["mine"] * len(corpus))
    assert set(with_word_lists(own)["listed"]) == {"mine"}
    other = Dataset.from_list([{"id": "a", "text": "paris", "facts": {"city": "paris"}}])
    with pytest.raises(ValueError, match=r"kind 'city', of which no other words are known"):
        with_word_lists(other)


def test_what_cannot_be_probed_is_refused():
    corpus = with_word_lists(stories(5))
    reads = "{context}{audio}"
    for probe, message in (
        (Probe("{audio}", ["wer"], reference="summary"), r"needs column 'summary'; there are id, audio, text"),
        (Probe("{audio}", ["wer"], baseline="none"), r"has the baseline 'none'; choose p"),
        (Probe(reads, ["wer"], context="text"), r"reads, as context of clip 's0', what it is asked for"),
        (Probe(reads, ["accuracy"], "reply", context="reply"), r"what it is asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            check_probes({"p": probe}, corpus)
    empty = corpus.select(range(2)).map(lambda row: {"reply": ""})
    with pytest.raises(ValueError, match=r"clip 's0' has no 'reply' or no text"):
        check_probes({"p": Probe("{audio}", ["accuracy"], "reply")}, empty)
    for words in ({"scores": ["blue"]}, {"context": "listed"}, {"topic": ["name"]}, {"scores": ["on_topic"]}):
        with pytest.raises(ValueError, match=r"choose wer|is filled by a column|belong together"):
            Probe("{audio}", **{"scores": ["wer"], **words})
    with pytest.raises(ValueError, match=r"the score 'listed_words' needs the column 'listed'"):
        ProbedClips.of(stories(2), Probe("{audio}", ["listed_words"]), set())


def test_trained_texts_are_refused():
    corpus = stories(4)
    refuse_trained_texts(corpus, "other", ["something else"])
    with pytest.raises(ValueError, match=r"of clip 's2' is in 'mine', which was trained on"):
        refuse_trained_texts(corpus, "mine", ["something else", corpus["text"][2].upper() + "!"])


def test_the_ready_configuration_fits_the_stories():
    arguments = runpy.run_path(str(SCRIPT))["ProbingArguments"]
    (given,) = parse_arguments("", arguments, argv=["--config", str(CONFIGURATION), "--model", "somewhere"])
    corpus = with_word_lists(stories())
    check_probes(given.probes, corpus)
    clips = {name: ProbedClips.of(corpus, probe, story_content_words()) for name, probe in given.probes.items()}
    for name, probe in given.probes.items():
        for score in probe.scores:
            row = measure_probe(name, score, clips[name], list(corpus[probe.reference]), [])
            # Good replies and continuations hold words that were not said, and only they.
            invents = score == "hallucination" and probe.reference in ("reply", "continuation")
            assert (row.value > 0) if invents else row.value == (score in ("accuracy", "on_topic")), (name, score)
    made_up = made_up_by_references(clips, given.probes)
    assert [sentence.split("'")[1] for sentence in made_up] == ["dialog", "speech continuation"]


# ---- asking a model ----

PROBES = {
    "plain": Probe("speech {audio}", ["wer", "listed_words", "hallucination"]),
    "list": Probe("{context} speech {audio}", ["wer", "listed_words"], context="listed", baseline="plain"),
    "question": Probe("{context} {audio}", ["accuracy"], "answer", context="question"),
}


@pytest.fixture(scope="module")
def probed_folder(tmp_path_factory) -> Path:
    """Eight sines with lists and questions."""
    folder = write_corpus(tmp_path_factory.mktemp("probed"))
    lines = []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        row |= {"id": f"probed {row['id']}", "listed": row["transcript"].split()[0], "distractors": "shoes"}
        lines.append(json.dumps(row | {"question": "turn the heat up", "answer": "lights off", "context": "my shoes"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def system(backbones):
    return backbones.build("wav2vec2", "llama", prompts={"asr": "speech {audio}"})


def test_a_probe_reads_its_context_and_never_its_reference(system, probed_folder):
    model, processor = system
    corpus, decoding = load_corpus(probed_folder), Decoding(4, 5)
    answers = {name: answer_probe(model, processor, corpus, name, probe, decoding) for name, probe in PROBES.items()}
    assert processor.prompts == {"asr": "speech {audio}"}, "the model's own prompts stay"
    blind = corpus.map(lambda row: {"answer": "bring me my shoes", "context": "please"})
    probe = PROBES["question"]
    assert answer_probe(model, processor, blind, "question", probe, decoding) == answers["question"]
    other = corpus.map(lambda row: {"question": "transcribe speech please", "listed": "bedroom"})
    changed = answer_probe(model, processor, other, "question", probe, decoding)
    assert all(one != other for one, other in zip(changed, answers["question"], strict=True))
    assert answer_probe(model, processor, other, "plain", PROBES["plain"], decoding) == answers["plain"]
    assert len({*answers["plain"][1]}) == len(ANSWERS), "gold answers depend on the text"


def test_the_report_is_over_seeds_with_paired_differences(tmp_path):
    values = {0: (0.4, 0.3), 1: (0.5, 0.2), 7: (0.6, 0.25)}
    measured = {
        seed: {
            ("plain", "wer"): Measurement("plain", "wer", plain, items=8, chance=0.9, topline=0.1),
            ("list", "wer"): Measurement("list", "wer", listed, 0.1, 0.9, items=8, resampled="speakers"),
            ("plain", "listed_words"): Measurement("plain", "listed_words", 0.5),
            ("list", "listed_words"): Measurement("list", "listed_words", 0.5),
            ("plain", "hallucination"): None if seed else Measurement("plain", "hallucination", 0.75),
            ("question", "accuracy"): None,
        }
        for seed, (plain, listed) in values.items()
    }
    report = report_probes(PROBES, measured, {"asr": "speech {audio}"}, title="T", system="s", command="python x")
    write_report(tmp_path / "report.json", report)
    report = read_report(tmp_path / "report.json", SweepReport)
    found = {(value.labels["probe"], value.measured): value for value in report.values}
    plain = found["plain", SCORES["wer"].title]
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([0.4, 0.5, 0.6]))
    assert (plain.mean, plain.low, plain.high) == pytest.approx((0.5, low, high))
    assert [(one.seed, one.value) for one in plain.seeds] == [(0, 0.4), (1, 0.5), (7, 0.6)]
    assert (plain.chance, plain.topline, plain.items) == (0.9, 0.1, 8)
    assert found["list", SCORES["wer"].title].seeds[0].resampled == "speakers"
    assert len(found["plain", SCORES["hallucination"].title].seeds) == 1
    assert not [key for key in found if key[0] == "question"], "nothing is said of what no seed defines"
    gains = {one.measured: one.differences for one in report.differences if one.labels == {"probe": "list"}}
    assert gains[SCORES["wer"].title] == pytest.approx({"0": -0.1, "1": -0.3, "7": -0.35})
    assert "'plain' with seeds 1, 7 hold nothing to count" in report.limits[0]
    page = probe_page(report)
    assert "| plain | `speech {audio}` | nothing | text | yes, as asr |" in page
    assert "| list | plain | **-0.250** |" in page and "python x" in page
    assert "| plain | **0.500** |" in sweep_block(report)


def test_the_seed_and_the_training_data_stand_beside_a_model(tmp_path):
    trained = Corpus("synthetic:a, synthetic:b", "training", 10)
    for name, seed in (("first", 2), ("second", 0), ("third", 2)):
        write_report(
            tmp_path / name / "report.json", Report("T", "s", "c", seeds={"training": seed}, corpora=[trained])
        )
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    assert list(sources_by_seed([first, second], ["synthetic:b", "synthetic:a"]).items()) == [(0, second), (2, first)]
    assert sources_by_seed(["a/b", "c/d"], []) == {0: "a/b", 1: "c/d"}, "without reports they are counted"
    with pytest.raises(ValueError, match=r"was trained on 'synthetic:b', which train_data does not name; add it"):
        sources_by_seed([first], ["synthetic:a"])
    with pytest.raises(ValueError, match=r"both have the seed 2; give one model for each"):
        sources_by_seed([first, third], ["synthetic:a", "synthetic:b"])


def test_the_script_writes_report_and_page(system, probed_folder, corpus_folder, tmp_path, monkeypatch, capsys):
    model, processor = system
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_report(folder / "report.json", Report("T", "s", "c", seeds={"training": seed}))
    written = {name: vars(probe) for name, probe in PROBES.items()}
    (tmp_path / "probes.yaml").write_text(json.dumps({"data": str(probed_folder), "probes": written}))
    words = ["--config", tmp_path / "probes.yaml", "--results_file", tmp_path / "out" / "zero.json", "--batch_size", 8]
    words += ["--max_new_tokens", 3, "--content_words", "lights", "shoes", "--limit", 6, "--model"]
    words += [tmp_path / "seed1", tmp_path / "seed0"]

    def run(*more) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [*words, *more])])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    run()
    report = read_report(tmp_path / "out" / "zero.json", SweepReport)
    assert list(report.seeds.values()) == [0, 1] and all(value.items == 6 for value in report.values)
    assert {one.measured for one in report.differences} == {SCORES["wer"].title, SCORES["listed_words"].title}
    assert np.ptp([seed.value for seed in report.values[0].seeds]) == 0, "the same weights answer alike"
    assert (tmp_path / "out" / "zero.md").read_text().startswith("# Zero-shot probes")
    assert "  wanted  turn on the lights" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"which was trained on; probe other texts"):
        run("--train_data", corpus_folder)
