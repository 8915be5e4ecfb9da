"""Tables of results, and README blocks made from reports."""

import runpy
import sys
from pathlib import Path

import pytest

from speechzoo.evaluation.few_shot_harness import NOTHING
from speechzoo.evaluation.few_shot_report import FewShotReport, FewShotResult, FewShotSetting
from speechzoo.evaluation.report import Environment, Measurement, Report, write_report
from speechzoo.evaluation.sweep_report import SweepAxis, SweepReport, SweepValue
from speechzoo.hub_cards.result_tables import format_seconds, measurement_table, update_tables

SCRIPT = Path(__file__).parents[2] / "examples" / "update_readme.py"
README = """# Title

<!-- results:main -->
<!-- /results:main -->

Between.

<!-- results:human -->
old
<!-- /results:human -->
End.
"""


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def write_reports(folder: Path, accuracy: float = 0.9375) -> Path:
    environment = Environment("3.11", "Linux x86_64", "AMD EPYC", 2, True, 2, packages={"torch": "2.13.0"})
    intents = Measurement("intents", "accuracy", accuracy, 0.9, 0.96, items=480, speakers=12, chance=1 / 31)
    report = Report(
        "Main", "speech_text_adapter", "accelerate launch examples/train_adapter.py", environment=environment
    )
    main = Report(
        **{**vars(report), "measurements": [intents], "wall_seconds": {"a": 70.0, "b": 20.0}, "seeds": {"t": 3}}
    )
    write_report(folder / "main.json", main)
    write_report(
        folder / "human.json", Report("Human", "s", "python human.py", measurements=[Measurement("d", "wer", 0.5)])
    )
    return folder


def test_a_row_shows_number_interval_and_comparisons():
    table = measurement_table(
        [
            Measurement(
                "a|b", "wer", 0.12345, 0.1, 0.2, 1400, 12, "test", topline=0.01, note="first", resampled="speakers"
            ),
            Measurement("c", "accuracy", 1, items=1, chance=0.03226, note="second"),
            Measurement("d", "own_metric", 0.5, 0.4, 0.6, 3, 1, note="first"),
        ]
    )
    header, _, first, second, third, *notes = table.splitlines()
    assert cells(header) == ["measured", "metric", "value", "95 % interval", "chance", "topline", "items"]
    assert cells(first) == [
        *("a\\|b, test [1]", "WER (lower is better)", "**0.123**", "0.100 to 0.200", "\u2013", "0.010"),
        "1,400 clips of 12 speakers, resampled by speakers",
    ]
    assert cells(second) == ["c [2]", "accuracy", "**1.000**", "\u2013", "0.032", "\u2013", "1 clip"]
    assert cells(third)[0:2] == ["d [1]", "own metric"] and cells(third)[-1] == "3 clips of 1 speaker"
    assert [note for note in notes if note] == ["1. first", "2. second"]
    assert measurement_table([Measurement("e", "wer", 0.5)]).endswith("| **0.500** | \u2013 |  |")


def test_blocks_are_made_anew_and_the_rest_stays(tmp_path: Path):
    new = update_tables(README, write_reports(tmp_path), tmp_path)
    assert new.startswith("# Title\n\n<!-- results:main -->\n| measured |")
    assert "**0.938**" in new and "old" not in new
    assert (
        "`accelerate launch examples/train_adapter.py`; AMD EPYC, 2 cores, AVX512-bf16; 1 min 30 s in all; seeds t 3"
        in new
    )
    assert "<!-- /results:main -->\n\nBetween.\n\n<!-- results:human -->\n" in new
    assert new.endswith("<!-- /results:human -->\nEnd.\n")
    assert update_tables(new, tmp_path, tmp_path) == new


def test_the_block_of_a_sweep_shows_means_over_seeds(tmp_path: Path):
    report = SweepReport(
        title="Sweep",
        system="s",
        command="python examples/sweep.py x.yaml",
        axes=[SweepAxis("depth", "depth", ["0", "2"])],
        values=[
            SweepValue({"depth": "0"}, "WER", 0.25, 0.2, 0.3, topline=0.01),
            SweepValue({"depth": "2"}, "WER", 0.125, None, None),
        ],
    )
    write_report(tmp_path / "sweeps" / "grid.json", report)
    text = "<!-- sweep:grid -->\nold\n<!-- /sweep:grid -->\n"
    lines = update_tables(text, tmp_path, tmp_path / "sweeps").splitlines()
    assert cells(lines[1]) == ["measured", "depth", "mean", "95 % interval over seeds", "topline"]
    assert cells(lines[3]) == ["WER", "0", "**0.250**", "0.200 to 0.300", "0.010"]
    assert cells(lines[4]) == ["WER", "2", "**0.125**", "\u2013", "\u2013"]
    assert lines[6].startswith("`python examples/sweep.py x.yaml`") and lines[-1] == "<!-- /sweep:grid -->"


def test_the_block_of_a_few_shot_run_shows_a_table_for_each_task(tmp_path: Path):
    def result(task: str, shots: int, rule: str = "likelihood") -> FewShotResult:
        shown = (NOTHING, NOTHING) if shots == 0 else ("text", "drawn")
        setting = FewShotSetting(task, "gold", *shown, shots, rule)
        return FewShotResult(setting, 0.25 * shots, 0.0, 1.0, items=8, chance=0.125, majority=0.375)

    results = [*(result(task, shots) for task in ("intents", "slots") for shots in (0, 3)), result("slots", 3, "trie")]
    report = FewShotReport("Few", "s", "python examples/evaluate_few_shot.py", rule="likelihood", results=results)
    write_report(tmp_path / "sweeps" / "few.json", report)
    text = "<!-- few_shot:few -->\n<!-- /few_shot:few -->\n"
    lines = update_tables(text, tmp_path, tmp_path / "sweeps").splitlines()
    tables = [number for number, line in enumerate(lines) if line.startswith("| system")]
    assert [lines[number - 2].split(":")[0] for number in tables] == ["intents", "slots"]
    assert all("0.125" in lines[number - 2] and "0.375" in lines[number - 2] for number in tables)
    row = ["gold", "text", "drawn", "0.000 [0.000, 1.000]", "0.750 [0.000, 1.000]"]
    assert all(cells(lines[number + 2]) == row for number in tables)
    assert lines[-2].startswith("`python examples/evaluate_few_shot.py`")


def test_text_without_blocks_stays(tmp_path: Path):
    assert update_tables("# Nothing\n", tmp_path, tmp_path) == "# Nothing\n"


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results:main -->\n",
        "<!-- /results:main -->\n",
        "<!-- results:main -->\n<!-- /results:other -->\n",
        "<!-- results:main -->\n<!-- /sweep:main -->\n",
        "<!-- results:main -->\n<!-- results:human -->\n<!-- /results:human -->\n<!-- /results:main -->\n",
    ],
)
def test_marks_without_partner_are_refused(tmp_path: Path, text: str):
    write_reports(tmp_path)
    with pytest.raises(ValueError, match=r"block 'results:(main|human)'"):
        update_tables(text, tmp_path, tmp_path)


def test_a_block_without_report_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"'results:main'.*main\.json"):
        update_tables(README, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (320, "5 min 20 s"), (11220.2, "3 h 7 min")]
)
def test_durations(seconds: float, expected: str):
    assert format_seconds(seconds) == expected


def test_script_writes_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(SCRIPT))["main"]

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["update_readme.py", "--pages", "README.md", *words])
        return main()

    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert run() == 2 and "main.json" in capsys.readouterr().err
    write_reports(tmp_path / "results")
    assert run("--check") == 1 and "stale" in capsys.readouterr().err
    assert readme.read_text() == README, "--check changes nothing"
    assert run() == 0
    assert run("--check") == 0
    write_reports(tmp_path / "results", accuracy=0.5)
    assert run("--check") == 1
