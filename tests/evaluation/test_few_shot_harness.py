"""Cells of the few-shot harness: what is run, what is kept, and that an interrupted run goes on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import few_shot_cases
import numpy as np
import pytest
from few_shot_cases import CLASSES, LastShown, labeled, material

from speechzoo.evaluation.few_shot_demonstrations import fixed_demonstrations
from speechzoo.evaluation.few_shot_harness import (
    Cell,
    FewShotGrid,
    FewShotRun,
    FewShotSystem,
    NeighborSource,
    read_answers,
)
from speechzoo.evaluation.few_shot_tasks import Clip, FewShotMaterial, PromptTemplate

MATERIAL = material()
QUERIES = {one.clip.id: one for one in MATERIAL.parts[0].queries}
POOL = {one.clip.id: one for one in MATERIAL.parts[0].pool}


def vectors(material: FewShotMaterial) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(len(name) + sum(name.encode())).standard_normal(4) for name in material.clips}


@pytest.fixture
def scorer() -> LastShown:
    return LastShown()


@pytest.fixture
def loads() -> list[str]:
    """What systems were loaded, in order."""
    return []


@pytest.fixture
def run(tmp_path: Path, scorer: LastShown, loads: list[str]) -> FewShotRun:
    def load(name: str) -> LastShown:
        loads.append(name)
        return scorer

    systems = {name: FewShotSystem({"name": name}, partial(load, name)) for name in ("first", "second")}
    grid = FewShotGrid((0, 3), (0, 1), {"kate": NeighborSource({"of": "test"}, vectors)})
    return FewShotRun(tmp_path / "cells", {"FSC": few_shot_cases.task()}, {"FSC": MATERIAL}, systems, grid)


def test_the_grid_is_all_combinations_once(run):
    mine = [cell for cell in run.cells() if cell.system == "first"]
    assert {(one.demonstrations, one.selection, one.shots, one.seed) for one in mine} == {
        ("none", "none", 0, 0),
        *(("speech", "fixed", 3, seed) for seed in (0, 1)),
        *(("text", "fixed", 3, seed) for seed in (0, 1)),
        ("speech", "kate", 3, 0),
        ("text", "kate", 3, 0),
    }
    assert len(run.cells()) == 14


def test_a_seed_counts_wherever_it_decides(run):
    drawn = replace(run, tasks={"FSC": few_shot_cases.task(ways=2)})
    assert sum(cell.shots == 0 for cell in drawn.cells()) == 4
    assert sum(cell.selection == "kate" for cell in drawn.cells()) == 8


def test_a_run_answers_every_query_of_every_cell(run, scorer):
    run.run()
    assert run.missing() == []
    assert len(scorer.prompts) == 14 * 20
    for cell, answers in run.answers().items():
        assert [one.id for one in answers] == sorted(QUERIES)
        for one in answers:
            assert (one.label, one.speaker) == (QUERIES[one.id].label, QUERIES[one.id].speaker)
            assert len(one.shown) == cell.shots
            assert one.candidates == 5
            last = POOL[one.shown[-1]].label if one.shown else CLASSES[0]
            assert one.predicted == {"likelihood": last, "exact": None}


def test_fixed_draws_are_shared_and_neighbors_are_not(run):
    run.run()
    shown = {
        (cell.selection, cell.seed): {tuple(one.shown) for one in answers}
        for cell, answers in run.answers().items()
        if cell.shots and cell.demonstrations == "speech"
    }
    for seed in (0, 1):
        drawn = fixed_demonstrations(MATERIAL.parts[0].pool, 3, seed)
        assert shown["fixed", seed] == {tuple(one.clip.id for one in drawn)}
    assert len(shown["kate", 0]) > 1


def test_what_is_shown_as_text_has_no_sound_and_the_query_keeps_its_own(run, scorer):
    run.run()
    for prompt in scorer.prompts:
        clips = [one for one in prompt.demonstrations if isinstance(one, Clip)]
        assert len({one.is_spoken for one in clips}) <= 1
        assert all(one.is_spoken for one in prompt.query if isinstance(one, Clip))
    kinds = [clip.is_spoken for prompt in scorer.prompts for clip in prompt.demonstrations if isinstance(clip, Clip)]
    assert sum(kinds) * 2 == len(kinds)


def test_each_seed_may_have_a_model_of_its_own(run, loads, scorer):
    def load(name: str) -> LastShown:
        loads.append(name)
        return scorer

    own = {seed: FewShotSystem({"name": f"seed {seed}"}, partial(load, f"seed {seed}")) for seed in (0, 1)}
    seeded = replace(run, systems={"trained": replace(own[0], of_seeds=own), "first": run.systems["first"]})
    mine = [cell for cell in seeded.cells() if cell.system == "trained"]
    assert {(cell.selection, cell.seed) for cell in mine if not cell.shots} == {("none", 0), ("none", 1)}
    assert sum(cell.selection == "kate" for cell in mine) == 4
    assert len(seeded.cells()) == 10 + 7
    seeded.run()
    assert loads == ["seed 0", "seed 1", "first"]
    other = replace(own[1], facts={"name": "trained again"})
    again = replace(
        seeded, systems={"trained": replace(own[0], of_seeds={**own, 1: other}), "first": run.systems["first"]}
    )
    assert {cell.seed for cell in again.missing()} == {1}


# --- resuming ---


def test_a_finished_run_loads_nothing(run, loads, scorer):
    run.run()
    assert loads == ["first", "second"]
    run.run()
    assert loads == ["first", "second"]
    assert len(scorer.prompts) == 14 * 20


def test_a_run_goes_on_where_it_was_interrupted(run, loads, tmp_path):
    calls: list[int] = []

    class Failing(LastShown):
        def __call__(self, prompts, labels, ending):
            calls.append(len(prompts))
            if len(calls) == 4:
                raise KeyboardInterrupt
            return super().__call__(prompts, labels, ending)

    whole = replace(run, folder=tmp_path / "whole")
    whole.run()
    broken = replace(run, systems={**run.systems, "first": FewShotSystem({"name": "first"}, Failing)})
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    assert len(run.missing()) == 11
    assert not list(run.folder.glob("*.unfinished"))
    run.run()
    assert run.answers() == whole.answers()


def test_other_settings_are_other_files(run):
    cell = run.cells()[0]
    shorter = PromptTemplate("{clip}:", "{clip}: {label}\n")
    others = [
        replace(run, tasks={"FSC": few_shot_cases.task(template=shorter)}),
        replace(run, tasks={"FSC": few_shot_cases.task(words={"heat": "warm"})}),
        replace(run, materials={"FSC": material(asked=21)}),
        replace(run, systems={**run.systems, "first": replace(run.systems["first"], facts={"name": "retrained"})}),
        replace(run, systems={**run.systems, "first": replace(run.systems["first"], template=shorter)}),
    ]
    paths = [one.path(cell) for one in (run, *others)]
    assert len(set(paths)) == len(paths)
    kate = next(one for one in run.cells() if one.selection == "kate")
    other = {"kate": NeighborSource({"of": "another"}, vectors)}
    assert run.path(kate) != replace(run, grid=replace(run.grid, neighbors=other)).path(kate)
    assert run.path(cell) == replace(run, grid=replace(run.grid, neighbors=other)).path(cell)


def test_titles_and_order_of_clips_change_no_file(run):
    cell = run.cells()[1]
    part = MATERIAL.parts[0]
    turned = FewShotMaterial(MATERIAL.classes, (replace(part, pool=part.pool[::-1], queries=part.queries[::-1]),))
    assert replace(run, materials={"FSC": turned}).path(cell) == run.path(cell)


def test_a_file_is_a_line_a_query(run):
    run.run()
    path = run.path(run.cells()[1])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 20
    assert lines[0].keys() >= {"id", "label", "shown", "predicted"}
    assert [one.id for one in read_answers(path)] == [line["id"] for line in lines]
    assert path.name.startswith("fsc--first--speech--fixed--3_shots--seed_0--")


# --- what does not matter, and what must be there ---


def test_the_order_of_queries_and_clips_changes_no_prediction(run, tmp_path):
    part = MATERIAL.parts[0]
    turned = FewShotMaterial(MATERIAL.classes, (replace(part, pool=part.pool[::-1], queries=part.queries[::-1]),))
    other = replace(run, folder=tmp_path / "turned", materials={"FSC": turned})
    run.run()
    other.run()
    assert other.answers() == run.answers()


def test_ways_and_symbols_are_told_by_classes(run, scorer):
    task = few_shot_cases.task(ways=2, symbols=["red", "blue", "river"], shots_of="class")
    drawn = replace(run, tasks={"FSC": task})
    drawn.run()
    for cell, answers in drawn.answers().items():
        assert sorted(one.id for one in answers) == sorted(QUERIES)
        for one in answers:
            assert one.candidates == 2
            assert len(one.shown) == 2 * cell.shots
            assert one.predicted["likelihood"] in CLASSES
            if one.shown:
                assert one.predicted["likelihood"] == POOL[one.shown[-1]].label
    words = {text for prompt in scorer.prompts for text in prompt.demonstrations if isinstance(text, str)}
    assert not [text for text in words if any(label in text for label in CLASSES)]


def test_the_majority_is_that_of_the_clips_to_show(run):
    few = labeled("rare", 3, ("heat",)) + labeled("often", 9, ("music", "shoes"))
    part = replace(MATERIAL.parts[0], pool=few)
    skewed = replace(run, materials={"FSC": FewShotMaterial(CLASSES, (part,))})
    skewed.run()
    assert {one.majority for answers in skewed.answers().values() for one in answers} == {"music"}


def test_a_demonstration_of_the_same_words_is_noted(run):
    twin = few_shot_cases.LabeledClip(replace(labeled("test", 1)[0].clip, id="train999"), "heat")
    part = replace(MATERIAL.parts[0], pool=(twin,) * 1 + labeled("train", 2))
    few = replace(run, materials={"FSC": FewShotMaterial(CLASSES, (part,))})
    few.run()
    noted = [one.id for one in few.answers()[Cell("FSC", "first", "speech", "fixed", 3, 0)] if one.same_text]
    assert noted == ["test000"]


def test_what_is_to_be_heard_must_have_sound(run):
    silent = few_shot_cases.LabeledClip(Clip("silent", "no sound"), "heat")
    part = MATERIAL.parts[0]
    asked = replace(run, materials={"FSC": FewShotMaterial(CLASSES, (replace(part, queries=(silent,)),))})
    with pytest.raises(ValueError, match=r"clip 'silent' has no audio"):
        asked.run()
    shown = replace(run, materials={"FSC": FewShotMaterial(CLASSES, (replace(part, pool=(silent,) * 3),))})
    with pytest.raises(ValueError, match=r"clip 'silent' has no audio"):
        shown.run()
    reading = {name: replace(one, hears=False) for name, one in run.systems.items()}
    replace(asked, systems=reading).run()


@pytest.mark.parametrize("fields", [{"shots": ()}, {"seeds": ()}, {"shots": (-1,)}, {"fixed": False}])
def test_a_grid_of_nothing_is_refused(fields):
    with pytest.raises(ValueError, match=r"at least one of each|nothing says which clips"):
        FewShotGrid(**fields)
