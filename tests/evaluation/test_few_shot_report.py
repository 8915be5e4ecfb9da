"""Accuracies of a few-shot run, their intervals, and the page and plot made of them."""

from collections import Counter
from dataclasses import replace

import few_shot_cases
import numpy as np
import pytest
from few_shot_cases import CLASSES, LastShown, material

from speechzoo.evaluation import few_shot_plot
from speechzoo.evaluation.few_shot_harness import Cell, FewShotAnswer, FewShotGrid, FewShotRun, FewShotSystem
from speechzoo.evaluation.few_shot_page import few_shot_page
from speechzoo.evaluation.few_shot_plot import plot_few_shot
from speechzoo.evaluation.few_shot_report import (
    Comparison,
    FewShotReport,
    FewShotSetting,
    describe_material,
    few_shot_results,
    report_run,
    seeds_and_queries_interval,
)
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import read_report, write_report
from speechzoo.evaluation.sweep_report import student_interval

LOTS = np.random.default_rng(0)


# --- intervals ---


def test_of_one_seed_the_interval_is_the_bootstrap_over_queries():
    values = (LOTS.random(200) < 0.6).astype(float)
    found = seeds_and_queries_interval(values[None], resamples=4000)
    known = mean_interval(values)
    assert found.value == pytest.approx(known.value)
    assert (found.low, found.high) == (pytest.approx(known.low, abs=0.01), pytest.approx(known.high, abs=0.01))


@pytest.mark.parametrize("means", [(0.5, 0.7), (0.4, 0.5, 0.7), (0.2, 0.3, 0.3, 0.6, 0.9)])
def test_where_queries_agree_the_interval_is_students_over_seeds(means):
    values = np.repeat(np.array(means)[:, None], 50, axis=1)
    found, known = seeds_and_queries_interval(values, resamples=20_000), student_interval(means)
    assert found.value == pytest.approx(known.value)
    half = (known.high - known.low) / 2
    assert (found.low, found.high) == (
        pytest.approx(known.low, abs=0.06 * half),
        pytest.approx(known.high, abs=0.06 * half),
    )


def test_seeds_and_queries_both_widen_the_interval():
    right = (LOTS.random((3, 300)) < np.array([0.4, 0.6, 0.7])[:, None]).astype(float)
    both = seeds_and_queries_interval(right)
    queries = seeds_and_queries_interval(right.mean(0, keepdims=True))
    assert both.high - both.low > 2 * (queries.high - queries.low)


def test_speakers_are_resampled_with_all_of_theirs():
    """Of ten speakers who are always or never right, the queries of each say the same once more."""
    by_speaker = np.repeat([1.0, 0.0] * 5, 30)[None]
    speakers = [f"s{number // 30}" for number in range(300)]
    apart, together = seeds_and_queries_interval(by_speaker), seeds_and_queries_interval(by_speaker, speakers)
    assert together.high - together.low > 4 * (apart.high - apart.low)


@pytest.mark.slow
def test_the_interval_holds_the_true_accuracy():
    """Draws of demonstrations vary by 0.1, queries by their difficulty: at least 95 of 100, less chance."""
    held = 0
    for trial in range(300):
        lots = np.random.default_rng(trial)
        seeds, queries = 0.1 * lots.standard_normal((3, 1)), 0.2 * lots.standard_normal((1, 150))
        right = (lots.random((3, 150)) < 0.5 + seeds + queries).astype(float)
        interval = seeds_and_queries_interval(right, resamples=500, seed=trial)
        held += interval.low <= 0.5 <= interval.high
    assert held >= 300 * 0.93


# --- results ---


def answer(number: int, predicted: str | None, label: str = "", rule: str = "likelihood") -> FewShotAnswer:
    label = label or CLASSES[number % 5]
    return FewShotAnswer(f"q{number:03d}", f"s{number % 4}", label, 5, "heat", [], number == 0, {rule: predicted})


def cell(system: str, seed: int = 0, shots: int = 3, demonstrations: str = "speech", selection: str = "fixed") -> Cell:
    return Cell("FSC", system, demonstrations, selection, shots, seed)


def right_until(limit: int, count: int = 40) -> list[FewShotAnswer]:
    """Answers of which the first are right, and the others say "socks", which no query is."""
    return [answer(number, CLASSES[number % 5] if number < limit else "socks") for number in range(count)]


ANSWERS = {
    cell("text", 0, demonstrations="text"): right_until(36),
    cell("text", 1, demonstrations="text"): right_until(38),
    cell("cascade", 0): right_until(24),
    cell("cascade", 1): right_until(20),
    cell("seal", 0): right_until(28),
    cell("seal", 1): right_until(24),
    cell("seal", 0, 0, "none", "none"): right_until(8),
}
COMPARISON = Comparison(topline="text", cascade="cascade", baseline="cascade")


def setting(system: str, shots: int = 3, demonstrations: str = "speech", selection: str = "fixed") -> FewShotSetting:
    return FewShotSetting("FSC", system, demonstrations, selection, shots, "likelihood")


def test_accuracies_stand_beside_what_they_are_compared_with():
    results, _, _ = few_shot_results(ANSWERS, COMPARISON)
    found = {one.setting: one for one in results}[setting("seal")]
    assert found.value == pytest.approx(26 / 40)
    assert [(one.seed, one.value) for one in found.seeds] == [(0, 28 / 40), (1, 24 / 40)]
    assert (found.chance, found.majority) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found.topline, found.cascade) == (pytest.approx(37 / 40), pytest.approx(22 / 40))
    assert (found.items, found.speakers, found.same_text) == (40, 4, pytest.approx(1 / 40))
    assert found.low < found.value < found.high


def test_queries_whose_words_no_demonstration_says_are_counted_by_themselves():
    """Of seed 0 the words of the first are shown, which is right; of seed 1 those of the last two, which are wrong."""
    rows = {seed: right_until(24) for seed in (0, 1)}
    rows[1] = [replace(one, same_text=number >= 38) for number, one in enumerate(rows[1])]
    ((found,), _, _) = few_shot_results({cell("seal", seed): one for seed, one in rows.items()}, Comparison())
    assert found.same_text == pytest.approx(3 / 80)
    assert found.other_text == pytest.approx(47 / 77)
    shown = [replace(one, same_text=True) for one in rows[0]]
    ((found,), _, _) = few_shot_results({cell("seal"): shown}, Comparison())
    assert (found.same_text, found.other_text) == (1.0, None)


def test_bounds_of_an_accuracy_stay_within_what_it_can_be():
    perfect = {cell("text", seed): right_until(limit) for seed, limit in enumerate((40, 40, 30))}
    ((found,), _, _) = few_shot_results(perfect, Comparison())
    assert found.high == 1.0
    assert found.low >= 0.0


def test_a_difference_is_of_the_same_queries_under_the_same_seeds():
    _, differences, _ = few_shot_results(ANSWERS, COMPARISON)
    assert [one.setting for one in differences] == [setting("seal")]
    assert differences[0].value == pytest.approx(4 / 40)
    alike = {cell(system, seed): right_until(20 + 8 * seed) for system in ("cascade", "seal") for seed in (0, 1)}
    _, (none,), _ = few_shot_results(alike, Comparison(baseline="cascade"))
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


def test_confusions_and_classes_count_all_seeds():
    _, _, details = few_shot_results(ANSWERS, COMPARISON)
    detail = {one.setting: one for one in details}[setting("seal")]
    pairs = Counter((one.label, one.predicted["likelihood"]) for seed in (0, 1) for one in ANSWERS[cell("seal", seed)])
    assert {(label, answer): n for label, row in detail.confusion.items() for answer, n in row.items()} == pairs
    heat = next(one for one in detail.classes if one.name == "heat")
    assert heat.items == 16
    assert heat.precision == 1.0
    assert heat.recall == pytest.approx(pairs["heat", "heat"] / 16)
    assert heat.f1 == pytest.approx(2 * heat.recall / (1 + heat.recall))


def test_no_label_is_an_answer_of_its_own_and_no_class():
    strict = {cell("seal"): [answer(number, None if number % 2 else CLASSES[number % 5]) for number in range(10)]}
    (result,), _, (detail,) = few_shot_results(strict, Comparison())
    assert result.value == 0.5
    assert sum(row.get("no label", 0) for row in detail.confusion.values()) == 5
    assert {one.name for one in detail.classes} == set(CLASSES)


def test_seeds_that_were_asked_other_queries_are_refused():
    with pytest.raises(ValueError, match=r"were asked different queries"):
        few_shot_results({cell("seal", 0): right_until(3), cell("seal", 1): right_until(3, 39)}, Comparison())


@pytest.mark.parametrize("fields", [{"rule": "trie"}, {"topline": "gold"}, {"baseline": "PSRT"}])
def test_a_comparison_with_nothing_is_refused(fields):
    with pytest.raises(ValueError, match=r"there is no (rule|system) '(trie|gold|PSRT)'"):
        few_shot_results(ANSWERS, Comparison(**fields))


# --- report, page, plot ---


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FewShotReport:
    folder = tmp_path_factory.mktemp("few_shot")
    systems = {
        name: FewShotSystem({"name": name}, LastShown, demonstrations=kinds)
        for name, kinds in (("gold text", ("text",)), ("seal", ("speech", "text")))
    }
    tasks = {"FSC": few_shot_cases.task(), "pairs | of two": few_shot_cases.task(ways=2)}
    run = FewShotRun(folder, tasks, dict.fromkeys(tasks, material()), systems, FewShotGrid((0, 1, 3)))
    run.run()
    run.path(run.cells()[-1]).unlink()
    made = report_run(
        run, Comparison(topline="gold text"), title="Few shots", system="test", command="python x", seeds={"a": 0}
    )
    write_report(folder / "report.json", made)
    return read_report(folder / "report.json", FewShotReport)


def test_a_report_is_read_as_it_was_written(report):
    systems = {one.setting.system for one in report.results}
    assert systems == {"gold text", "seal"}
    assert report.details[0].classes[0].name in CLASSES
    assert report.settings["tasks"]["FSC"]["template"]["query"] == few_shot_cases.TEMPLATE.query
    assert report.settings["tasks"]["FSC"]["classes"] == list(CLASSES)
    assert len(report.missing) == 1
    assert {one.metric for one in report.measurements} == {"accuracy"}


def test_the_page_says_what_was_resampled_and_how_unlike_queries_fare(report):
    assert "over queries and 1 seed" in few_shot_page(report)
    assert "where no demonstration says it" not in few_shot_page(report)
    told = replace(
        report,
        results=[replace(one, same_text=0.25 * (one.setting.shots > 1), other_text=0.375) for one in report.results],
        settings={**report.settings, "comparison": {"resampled": "speakers"}},
    )
    page = few_shot_page(told)
    assert "over speakers and 1 seed" in page
    assert "| where no demonstration says it (share of queries) | shown as | chosen by | 3 shots |" in page
    assert "| seal | text | fixed | 0.375 (0.75) |" in page


def test_the_page_says_what_shots_and_words_mean(report):
    page = few_shot_page(report)
    assert page.count("Each query is asked among 2 of 5 classes.") == 1
    assert "Shots are counted by class" not in page
    drawn = {**report.settings["tasks"]["FSC"], "shots_of": "class", "symbols": ["red"] * 5}
    told = few_shot_page(
        replace(report, settings={**report.settings, "tasks": {**report.settings["tasks"], "FSC": drawn}})
    )
    assert told.count("Shots are counted by class: so many of each are shown. Classes go by words drawn anew") == 1


def test_systems_that_have_not_answered_yet_are_compared_with_nothing(tmp_path):
    systems = {name: FewShotSystem({"name": name}, LastShown) for name in ("seal", "PSRT")}
    run = FewShotRun(tmp_path, {"FSC": few_shot_cases.task()}, {"FSC": material()}, systems, FewShotGrid((0, 1)))
    replace(run, systems={"seal": systems["seal"]}).run()
    facts = {"title": "", "system": "", "command": ""}
    made = report_run(run, Comparison(topline="seal", baseline="PSRT"), **facts)
    assert made.differences == []
    assert made.settings["comparison"]["topline"] == "seal"
    assert any("psrt" in name for name in made.missing)
    with pytest.raises(ValueError, match=r"there is no system 'Seal'"):
        report_run(run, Comparison(topline="Seal"), **facts)


def test_the_page_shows_every_line_with_every_number_of_shots(report):
    page = few_shot_page(report)
    assert "## FSC" in page
    assert "| system | shown as | chosen by | 0 shots | 1 shot | 3 shots |" in page
    for result in report.results:
        if result.setting.rule == report.rule:
            assert f"{result.value:.3f} [{result.low:.3f}, {result.high:.3f}]" in page
    assert page.count("| seal | text | fixed |") >= 2
    assert "| seal | none | none |" not in page
    assert "Chance 0.200" in page
    assert f"Not run yet: {report.missing[0]}." in page
    assert "<details>" in page


def test_the_plot_is_a_panel_for_each_task_and_always_the_same(report, tmp_path):
    paths = [tmp_path / name for name in ("one.png", "two.png")]
    for path in paths:
        plot_few_shot(path, report)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"needs a finished cell"):
        plot_few_shot(tmp_path / "none.png", FewShotReport("", "", ""))


def test_the_plot_has_a_row_for_each_choice_of_demonstrations(report, tmp_path, monkeypatch):
    """Gold text is shown text alone, so its line stands in the row of speech as well."""
    drawn = []
    monkeypatch.setattr(few_shot_plot, "_draw", lambda panel, task, results, lines: drawn.append((task, lines)))
    plot_few_shot(tmp_path / "one.png", report)
    gold = ("gold text", "text", "fixed")
    assert [task for task, _ in drawn] == ["FSC", "pairs | of two"] * 2
    assert drawn[0][1] == [gold, ("seal", "speech", "fixed")]
    assert drawn[2][1] == [gold, ("seal", "text", "fixed")]


def test_nothing_finished_is_no_report(tmp_path):
    run = FewShotRun(tmp_path, {"FSC": few_shot_cases.task()}, {"FSC": material()}, {}, FewShotGrid())
    with pytest.raises(ValueError, match=r"holds no finished cell"):
        report_run(run, Comparison(), title="", system="", command="")


def test_corpora_say_how_many_speakers_are_in_both():
    shown, asked = describe_material(few_shot_cases.task(), material())
    assert (shown.clips, shown.speakers, asked.clips, asked.speakers) == (25, 3, 20, 3)
    assert asked.note.startswith("0 of the speakers")
