"""examples/sweep.py whole: from a YAML file to report, page and plot."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from sweep_cases import SCRIPT

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_script", ROOT / "examples" / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    """Runs the script on a sweep of the stand-in with some flags; gives its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger.jsonl"))
    (tmp_path / "ledger.jsonl").touch()
    (tmp_path / "stand_in.py").write_text(SCRIPT)
    content = {
        "title": "Stand-in",
        "script": "stand_in.py",
        "folder": "cells",
        "results": "results",
        "seeds": [0, 1],
        "budget": {"max_steps": 5},
        "measurements": [{"name": "commands: intent", "metric": "accuracy"}],
        "grids": {
            "stand_in_depth": {"axes": {"depth": {"values": [0, 2]}}, "baselines": [{"depth": "2"}]},
            "stand_in_width": {"axes": {"width": {"values": [8]}}},
        },
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["examples/sweep.py", "sweep.yaml", *words])
        return script.main()

    return run


def runs(tmp_path) -> int:
    return len((tmp_path / "ledger.jsonl").read_text().splitlines())


def test_a_sweep_leaves_report_page_and_plot_of_each_grid(run, tmp_path):
    assert run() == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        *(f"stand_in_depth.{suffix}" for suffix in ("json", "md", "png")),
        *(f"stand_in_width.{suffix}" for suffix in ("json", "md")),  # one cell: nothing to plot
    ]
    assert ".png" not in (tmp_path / "results" / "stand_in_width.md").read_text()
    report = json.loads((tmp_path / "results" / "stand_in_depth.json").read_text())
    assert report["command"] == "python examples/sweep.py sweep.yaml"
    assert [value["mean"] for value in report["values"]] == pytest.approx([0.505, 0.705])
    assert report["cells"][1]["trained_parameters"] == 207
    page = (tmp_path / "results" / "stand_in_depth.md").read_text()
    assert "python stand_in.py --max_steps=5 --depth=2 --seed=0" in page
    before = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert run("--only", "depth=2") == 0
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert runs(tmp_path) == 6


def test_only_some_cells_and_a_dry_run(run, tmp_path, capsys):
    assert run("--only", "depth=2", "seed=1", "--dry_run") == 0
    shown = capsys.readouterr().out
    assert "waiting  stand_in_depth: depth 2, seed 1" in shown
    assert "1 cells, 1 different runs, 0 of them done" in shown
    assert runs(tmp_path) == 0 and not (tmp_path / "cells").exists()
    assert run("--only", "depth=2", "seed=1") == 0
    report = json.loads((tmp_path / "results" / "stand_in_depth.json").read_text())
    assert len(report["cells"]) == 1 and len(report["missing"]) == 3
    assert not (tmp_path / "results" / "stand_in_width.json").exists()
    assert run("--only", "depth=7") == 2
    assert "choose of" in capsys.readouterr().err


def test_failures_end_with_status_1_and_results_of_the_rest(run, tmp_path, capsys):
    assert run("--settings", '{"break_at": 1}') == 1
    assert "3 cells failed: depth 0, seed 1; depth 2, seed 1; width 8, seed 1" in capsys.readouterr().err
    report = json.loads((tmp_path / "results" / "stand_in_depth.json").read_text())
    assert report["missing"] == ["depth 0, seed 1: failed", "depth 2, seed 1: failed"]


def test_too_many_processes_are_refused(run, capsys):
    assert run("--processes", "4000") == 2
    assert "4000 processes of 1 threads need 4000 cores" in capsys.readouterr().err
