"""Reports of sweeps: numbers by hand, pairing by seed, what is missing; pages and plots made of the JSON alone."""

import dataclasses
import json
import math

import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from sweep_cases import INTENT, WER, stand_in

from speechzoo.evaluation.report import Backbone, Corpus, Measurement, Report, read_report, write_report
from speechzoo.evaluation.sweep_cells import Axis, Grid
from speechzoo.evaluation.sweep_plot import plot_sweep
from speechzoo.evaluation.sweep_records import CellFolder, CellRecord
from speechzoo.evaluation.sweep_report import (
    SweepReport,
    find_measurement,
    geometric_interval,
    report_grid,
    student_interval,
)
from speechzoo.evaluation.sweep_tables import summary_table, sweep_page

VALUES = {("0", 0): 0.50, ("0", 1): 0.51, ("0", 2): 0.54, ("2", 0): 0.70, ("2", 1): 0.74, ("2", 2): 0.75}
T_OF_2 = 4.302653  # Student's t with 2 degrees of freedom, 97.5 %, from a printed table


@pytest.fixture
def sweep(tmp_path):
    """A finished sweep of 2 depths and 3 seeds with made-up numbers."""
    sweep = stand_in(tmp_path, seeds=[0, 1, 2], title="Stand-in")
    for cell in sweep.cells:
        finish(sweep, cell, VALUES[cell.labels["depth"], cell.seed])
    return sweep


def finish(sweep, cell, value, code="abc", **changes):
    folder = CellFolder.of(sweep.folder, cell)
    folder.clear()
    rows = [
        Measurement(INTENT.name, "accuracy", value, 0.1, 0.9, items=40, speakers=4, resampled="speakers", chance=0.03),
        Measurement(WER.name, "wer", (1 - value) / 2, topline=0.0),
    ]
    write_report(folder.report, dataclasses.replace(Report("run", "stand_in", "x", measurements=rows), **changes))
    seconds = 10.0 + cell.seed
    times = (f"2026-01-0{cell.seed + 1}T00:00:00Z",) * 2
    record = CellRecord(cell.key, sweep.command(cell), 0, seconds, 2 * seconds, 10**9, 1, *times, code)
    folder.close(record, keep_output=False)


def value(report, measured, depth):
    return next(one for one in report.values if (one.measured, one.labels["depth"]) == (measured, depth))


def test_student_interval_by_hand():
    interval = student_interval([0.50, 0.51, 0.54])
    deviation = math.sqrt((0.05**2 + 0.02**2 + 0.07**2) / 9 / 2)  # of values that lie 5, 2 and 7 thirds of 0.01 off
    assert interval.value == pytest.approx(0.51666667)
    assert interval.high - interval.value == pytest.approx(T_OF_2 * deviation / math.sqrt(3), rel=1e-6)
    assert interval.value - interval.low == pytest.approx(0.05171, abs=1e-5)
    assert interval.units == 3
    assert student_interval([0.5]) == dataclasses.replace(interval, value=0.5, low=None, high=None, units=1)
    with pytest.raises(ValueError, match="at least one value"):
        student_interval([])


def test_means_are_over_seeds_and_intervals_of_runs_are_not_mixed_in(sweep):
    report = report_grid(sweep, "depth", "command")
    shallow = value(report, "intent accuracy", "0")
    assert shallow.mean == pytest.approx(0.51666667)
    assert (shallow.low, shallow.high) == pytest.approx((0.51666667 - 0.05171, 0.51666667 + 0.05171), abs=1e-5)
    assert [(seed.seed, seed.value, seed.low, seed.high, seed.resampled) for seed in shallow.seeds] == [
        (0, 0.50, 0.1, 0.9, "speakers"),
        (1, 0.51, 0.1, 0.9, "speakers"),
        (2, 0.54, 0.1, 0.9, "speakers"),
    ]
    assert (shallow.chance, shallow.topline, shallow.items, shallow.speakers) == (0.03, None, 40, 4)
    assert value(report, "WER", "2").topline == 0.0
    assert report.date == "2026-01-03T00:00:00Z"


def test_differences_are_paired_by_seed(sweep):
    report = report_grid(sweep, "depth", "command")
    (accuracy, wer) = report.differences
    assert (accuracy.labels, accuracy.baseline) == ({"depth": "0"}, {"depth": "2"})
    assert accuracy.differences == pytest.approx({"0": -0.20, "1": -0.23, "2": -0.21})
    deviation = math.sqrt((0.04**2 + 0.05**2 + 0.01**2) / 9 / 2)
    assert accuracy.mean == pytest.approx(-0.21333333)
    assert accuracy.high == pytest.approx(-0.21333333 + T_OF_2 * deviation / math.sqrt(3), abs=1e-6)
    assert wer.mean == pytest.approx(0.21333333 / 2)


def test_pairs_share_seeds_only(sweep):
    for number in (1, 3):
        (sweep.folder / "cells" / sweep.cells[number].key[:16] / "cell.json").unlink()
    report = report_grid(sweep, "depth", "command")
    assert report.missing == ["depth 0, seed 1: has not run", "depth 2, seed 0: has not run"]
    assert [seed.seed for seed in value(report, "intent accuracy", "0").seeds] == [0, 2]
    assert report.differences[0].differences == pytest.approx({"2": -0.21})
    assert "Not in: depth 0, seed 1: has not run." in sweep_page(report)


def test_a_baseline_names_some_axes_and_others_stay(tmp_path):
    axes = {"depth": Axis([0, 2]), "width": Axis([8, 16])}
    sweep = stand_in(tmp_path, grids={"both": Grid(axes, "", [{"depth": "2"}])}, seeds=[0])
    for number, cell in enumerate(sweep.cells):
        finish(sweep, cell, 0.1 * number)
    pairs = [(one.labels, one.baseline, round(one.mean, 6)) for one in report_grid(sweep, "both", "").differences[:2]]
    assert pairs == [
        ({"depth": "0", "width": "8"}, {"depth": "2", "width": "8"}, -0.2),
        ({"depth": "0", "width": "16"}, {"depth": "2", "width": "16"}, -0.2),
    ]


def test_costs_and_commands_of_every_run_are_kept(sweep):
    cell = report_grid(sweep, "depth", "command").cells[1]
    assert [(run.seed, run.wall_seconds, run.cpu_seconds) for run in cell.runs] == [
        (0, 10.0, 20.0),
        (1, 11.0, 22.0),
        (2, 12.0, 24.0),
    ]
    assert cell.settings == {"max_steps": 5, "depth": 2}
    assert cell.runs[1].command.endswith("stand_in.py --max_steps=5 --depth=2 --seed=1")


def test_runs_under_different_conditions_are_told(sweep):
    assert report_grid(sweep, "depth", "").limits == []
    finish(sweep, sweep.cells[0], 0.5, code="def", limits=["Four people."])
    told = ["Four people.", "The runs used 2 different versions of this package's code."]
    assert report_grid(sweep, "depth", "").limits == told


def test_what_any_run_was_made_of_is_told_once(sweep):
    corpora = [[Corpus("heard", "training", clips)] for clips in (20, 20, 50)]
    for cell, system, used in zip(sweep.cells, ["speechlm", "speechlm", "speechut"], corpora, strict=False):
        finish(sweep, cell, 0.5, system=system, backbones=[Backbone("joint encoder", system)], corpora=used)
    report = report_grid(sweep, "depth", "")
    assert [one.clips for one in report.corpora] == [20, 50]
    assert [one.id for one in report.backbones] == ["speechlm", "speechut"]
    assert report.system == "speechlm, speechut, stand_in"


def test_no_report_of_nothing(tmp_path):
    assert report_grid(stand_in(tmp_path), "depth", "") is None


def test_a_measurement_is_found_or_what_is_there_is_named():
    rows = [Measurement("a", "wer", 0.1, split="one"), Measurement("a", "wer", 0.2, split="two")]
    report = Report("t", "s", "c", measurements=rows)
    with pytest.raises(ValueError, match=r"does not report 'b'.*'a' \(wer\)"):
        find_measurement(report, dataclasses.replace(WER, name="b"), "depth 0")
    with pytest.raises(ValueError, match="2 times; name the split"):
        find_measurement(report, dataclasses.replace(WER, name="a"), "depth 0")
    assert find_measurement(report, dataclasses.replace(WER, name="a", split="two"), "").value == 0.2


def test_the_file_holds_all_of_the_report(sweep, tmp_path):
    report = report_grid(sweep, "depth", "command")
    path = tmp_path / "depth.json"
    write_report(path, report)
    assert read_report(path, SweepReport) == report
    first = path.read_bytes()
    write_report(path, report_grid(sweep, "depth", "command"))
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match="unknown key"):
        read_report(path)


def test_page_and_plot_come_from_the_file_alone(sweep, tmp_path):
    path = tmp_path / "depth.json"
    write_report(path, report_grid(sweep, "depth", "python examples/sweep.py x.yaml"))
    content = json.loads(path.read_text())
    content["values"][0]["mean"] = 0.512
    path.write_text(json.dumps(content))
    report = read_report(path, SweepReport)
    page = sweep_page(report, "depth.png")
    assert "| 0 | **0.512** | 0.465 to 0.568 | 0.500 0.510 0.540 | 0.030 |" in page
    assert "| 2 | **0.730** | 0.664 to 0.796 | 0.700 0.740 0.750 | 0.030 |" in page
    assert "| 0 | 2 | **-0.213** | -0.251 to -0.175 | -0.200 -0.230 -0.210 |" in page
    assert "| 0 | 3 | 22.0 | 11.0 | 1.00 |" in page
    assert "python examples/sweep.py x.yaml" in page and "![Stand-in: Depth](depth.png)" in page
    assert "Means over 3 seeds, every run with the budget max_steps 5." in page

    plot_sweep(tmp_path / "depth.png", report)
    plot_sweep(tmp_path / "again.png", report)
    assert (tmp_path / "depth.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert imread(tmp_path / "depth.png").std() > 0.05
    content["values"][0]["mean"] = 0.55
    path.write_text(json.dumps(content))
    plot_sweep(tmp_path / "again.png", read_report(path, SweepReport))
    assert (tmp_path / "depth.png").read_bytes() != (tmp_path / "again.png").read_bytes()
    with pytest.raises(ValueError, match="needs a finished cell"):
        plot_sweep(tmp_path / "none.png", dataclasses.replace(report, values=[]))


@pytest.mark.parametrize("scale", ["category", "linear", "log"])
def test_plots_of_two_axes_and_one_seed(tmp_path, scale):
    axes = {"ratio": Axis([1, 2, 4], scale=scale), "kind": Axis(["stack", "discard"], title="reduction")}
    sweep = stand_in(tmp_path, grids={"both": Grid(axes)}, seeds=[0], measurements=[WER, INTENT])
    for number, cell in enumerate(sweep.cells):
        finish(sweep, cell, 0.1 + 0.1 * number)
    report = report_grid(sweep, "both", "")
    assert all(one.low is None for one in report.values)
    plot_sweep(tmp_path / "both.png", report)
    assert imread(tmp_path / "both.png").std() > 0.05
    assert "| 1 | stack | **0.100** | \u2013 | 0.100 |" in sweep_page(report)


def test_means_and_intervals_are_what_is_drawn(sweep, tmp_path, monkeypatch):
    drawn = []

    def record(panel, across, up, yerr, plain=Axes.errorbar, **style):
        drawn.append((across, up, yerr))
        return plain(panel, across, up, yerr=yerr, **style)

    monkeypatch.setattr(Axes, "errorbar", record)
    plot_sweep(tmp_path / "depth.png", report_grid(sweep, "depth", ""))
    (across, up, (below, above)), _ = drawn
    assert across == [0, 1]
    assert up == pytest.approx([0.51666667, 0.73])
    assert below == pytest.approx(above) and below[0] == pytest.approx(0.05171, abs=1e-5)


def test_geometric_means_are_of_logarithms_and_differences_are_factors(tmp_path):
    factors = dataclasses.replace(WER, mean="geometric")
    marked = dataclasses.replace(INTENT, title="a | <T_EN>")
    sweep = stand_in(tmp_path, measurements=[marked, factors], seeds=[0, 1, 2])
    for cell in sweep.cells:
        # Word error rates of 0.01, 0.1 and 1, ten times as much at depth 0.
        wer = 10.0 ** (cell.seed - 2) * (10 if cell.labels["depth"] == "0" else 1)
        finish(sweep, cell, 1 - 2 * wer)
    report = report_grid(sweep, "depth", "command")
    deep = value(report, "WER", "2")
    assert deep.mean == pytest.approx(0.1)
    spread = 10 ** (T_OF_2 / math.sqrt(3))  # the logarithms to base 10 deviate by 1
    assert (deep.low, deep.high) == pytest.approx((0.1 / spread, 0.1 * spread), rel=1e-6)
    factor = report.differences[1]
    assert factor.differences == pytest.approx({"0": 10, "1": 10, "2": 10})
    assert (factor.mean, factor.low, factor.high) == pytest.approx((10, 10, 10))
    page = sweep_page(report)
    assert "| depth | divided by | mean factor |" in page
    assert "| depth | minus | mean difference |" in page
    assert "| 2 | **0.100** | 0.000328 to 30.489 | 0.010 0.100 1.000 | 0.000 |" in page
    assert "Means of wer are geometric" in page
    assert "| a \\| &lt;T_EN> | 2 |" in summary_table(report)


def test_there_is_no_geometric_mean_of_nothing():
    with pytest.raises(ValueError, match="0 has no logarithm; take the arithmetic mean"):
        geometric_interval([1.0, 0.0])
