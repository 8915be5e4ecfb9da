"""Which clips are shown: fixed draws, nearest neighbors, and the closed sets queries are asked among."""

import itertools
from collections import Counter

import few_shot_cases
import numpy as np
import pytest
from few_shot_cases import CLASSES, labeled, material

from speechzoo.evaluation.few_shot_demonstrations import Neighbors, fixed_demonstrations, query_groups

POOL = labeled("train", 25)
QUERIES = labeled("test", 10)
LOTS = np.random.default_rng(0)
EMBEDDINGS = {one.clip.id: LOTS.standard_normal(6) for one in (*POOL, *QUERIES)}


def ids(clips) -> list[str]:
    return [one.clip.id for one in clips]


# --- fixed draws ---


@pytest.mark.parametrize("shots", [1, 3, 5, 8, 25])
def test_draws_are_balanced_over_classes(shots):
    counts = Counter(one.label for one in fixed_demonstrations(POOL, shots, seed=0))
    numbers = [counts[label] for label in CLASSES]
    assert sum(numbers) == shots
    assert max(numbers) - min(numbers) <= 1


def test_a_class_of_few_clips_gives_all_it_has():
    few = [*labeled("rare", 1, ("heat",)), *labeled("often", 9, ("music", "shoes"))]
    counts = Counter(one.label for one in fixed_demonstrations(few, 9, seed=0))
    assert counts == {"heat": 1, "music": 4, "shoes": 4}


def test_draws_are_a_function_of_the_seed_and_not_of_the_order():
    drawn = {seed: ids(fixed_demonstrations(POOL, 5, seed)) for seed in range(6)}
    assert len({tuple(one) for one in drawn.values()}) == 6
    assert all(ids(fixed_demonstrations(POOL[::-1], 5, seed)) == one for seed, one in drawn.items())


def test_more_shots_show_the_same_clips_and_more():
    for seed in range(5):
        drawn = [set(ids(fixed_demonstrations(POOL, shots, seed))) for shots in (0, 1, 3, 5, 8)]
        assert all(few < many for few, many in itertools.pairwise(drawn))


def test_the_order_of_what_is_shown_does_not_follow_the_order_of_drawing():
    """Else the first class drawn would always be the farthest from the query."""
    firsts = {fixed_demonstrations(POOL, 5, seed)[0] == fixed_demonstrations(POOL, 1, seed)[0] for seed in range(30)}
    assert firsts == {True, False}


def test_shots_of_each_class():
    counts = Counter(one.label for one in fixed_demonstrations(POOL, 3, 0, CLASSES))
    assert counts == dict.fromkeys(CLASSES, 3)
    with pytest.raises(ValueError, match=r"class 'heat' has 5 clips, fewer than 6"):
        fixed_demonstrations(POOL, 6, 0, CLASSES)
    with pytest.raises(ValueError, match=r"class 'socks' has 0 clips"):
        fixed_demonstrations(POOL, 1, 0, [*CLASSES, "socks"])


def test_more_shots_than_clips_are_refused():
    with pytest.raises(ValueError, match=r"26 clips are to be shown, and there are 25"):
        fixed_demonstrations(POOL, 26, seed=0)


# --- neighbors ---


def brute_force(query, pool, shots):
    def cosine(one):
        first, second = EMBEDDINGS[one.clip.id], EMBEDDINGS[query.clip.id]
        return float(first @ second / (np.sqrt(first @ first) * np.sqrt(second @ second)))

    return [one.clip.id for one in sorted(pool, key=cosine)[-shots:]]


def test_neighbors_are_those_of_greatest_cosine_the_nearest_last():
    found = Neighbors(EMBEDDINGS).of(QUERIES, POOL, 4)
    assert [ids(one) for one in found] == [brute_force(query, POOL, 4) for query in QUERIES]


def test_the_length_of_an_embedding_does_not_matter():
    stretched = {name: vector * LOTS.uniform(0.1, 10) for name, vector in EMBEDDINGS.items()}
    assert Neighbors(stretched).of(QUERIES, POOL, 4) == Neighbors(EMBEDDINGS).of(QUERIES, POOL, 4)


def test_neighbors_do_not_depend_on_order_or_company():
    alone = [Neighbors(EMBEDDINGS).of([query], POOL[::-1], 3)[0] for query in QUERIES]
    assert alone == Neighbors(EMBEDDINGS).of(QUERIES, POOL, 3)


def test_of_equals_the_first_by_id_is_nearer():
    same = {one.clip.id: np.full(6, 0.3) for one in (*POOL, *QUERIES)}
    assert ids(Neighbors(same).of(QUERIES, POOL[::-1], 3)[0]) == ["train002", "train001", "train000"]


def test_neighbors_of_each_class():
    for query, found in zip(QUERIES, Neighbors(EMBEDDINGS).of(QUERIES, POOL, 2, CLASSES), strict=True):
        assert Counter(one.label for one in found) == dict.fromkeys(CLASSES, 2)
        expected = {id for label in CLASSES for id in brute_force(query, [p for p in POOL if p.label == label], 2)}
        assert set(ids(found)) == expected
        assert ids(found) == [id for id in brute_force(query, POOL, len(POOL)) if id in expected]


def test_a_query_is_never_shown_to_itself():
    for query, found in zip(POOL, Neighbors(EMBEDDINGS).of(POOL, POOL, 24), strict=True):
        assert query.clip.id not in ids(found)


def test_the_same_words_may_be_passed_over():
    twins = labeled("train", 25)
    embeddings = {one.clip.id: np.ones(2) for one in twins}
    query = few_shot_cases.LabeledClip(few_shot_cases.Clip("q", twins[0].clip.text), "heat")
    embeddings["q"] = np.ones(2)
    assert ids(Neighbors(embeddings).of([query], twins, 1)[0]) == ["train000"]
    assert ids(Neighbors(embeddings, other_texts=True).of([query], twins, 1)[0]) == ["train001"]


def test_neighbors_name_what_is_missing():
    with pytest.raises(ValueError, match=r"clip 'test000' has 25 neighbors, fewer than 26"):
        Neighbors(EMBEDDINGS).of(QUERIES, POOL, 26)
    with pytest.raises(ValueError, match=r"clip 'test000' has 0 neighbors of 'socks', fewer than 1"):
        Neighbors(EMBEDDINGS).of(QUERIES, POOL, 1, [*CLASSES, "socks"])
    with pytest.raises(ValueError, match=r"clip 'test000' has no embedding"):
        Neighbors({one.clip.id: np.ones(2) for one in POOL}).of(QUERIES, POOL, 1)
    assert Neighbors({}).of(QUERIES, POOL, 0) == [[]] * 10


# --- closed sets ---


def test_without_ways_there_is_one_group_of_all():
    (group,) = query_groups(few_shot_cases.task(), material(), seed=0)
    assert group.classes == group.words == CLASSES
    assert (len(group.pool), len(group.queries)) == (25, 20)


@pytest.mark.parametrize("ways", [2, 3, 4, 5])
def test_ways_ask_every_query_once_among_its_own_class_and_others(ways):
    groups = query_groups(few_shot_cases.task(ways=ways), material(), seed=1)
    assert sorted(one.clip.id for group in groups for one in group.queries) == ids(labeled("test", 20))
    for group in groups:
        assert len(set(group.classes)) == ways
        assert {one.label for one in group.queries} <= set(group.classes)
        assert {one.label for one in group.pool} == set(group.classes)


def test_the_division_depends_on_the_seed_alone():
    divisions = [
        [group.classes for group in query_groups(few_shot_cases.task(ways=2), material(), s)] for s in (0, 0, 1, 2)
    ]
    assert divisions[0] == divisions[1]
    assert len({str(one) for one in divisions}) > 1


def test_symbols_stand_for_classes_and_are_drawn_anew():
    symbols = ["red", "blue", "river", "anna"]
    task = few_shot_cases.task(ways=2, symbols=symbols)
    groups = [group for seed in range(4) for group in query_groups(task, material(), seed)]
    for group in groups:
        assert len(set(group.words)) == 2
        assert set(group.words) <= set(symbols)
        assert [group.words_of(label) for label in group.classes] == list(group.words)
    assert len({group.words for group in groups}) > 3
