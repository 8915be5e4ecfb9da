"""The runner of sweeps with a script of milliseconds: what runs, what never runs again, what failures and kills do."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from sweep_cases import stand_in

from speechzoo.evaluation.sweep_cells import Axis, Grid
from speechzoo.evaluation.sweep_records import CellFolder
from speechzoo.evaluation.sweep_runner import SweepError, SweepRunner, divide_cores

ROOT = Path(__file__).parents[2]
needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores and Linux"
)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Reads what every run of the stand-in wrote down."""
    path = tmp_path / "ledger.jsonl"
    path.touch()
    monkeypatch.setenv("LEDGER", str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def run(sweep, **how):
    """Runs all cells; gives the names of failed ones and what was shown."""
    stream = io.StringIO()
    failed = SweepRunner(sweep, stream=stream, **how).run(sweep.cells)
    return [cell.name for cell in failed], stream.getvalue()


def folders(sweep):
    return [CellFolder.of(sweep.folder, cell) for cell in sweep.cells]


def test_every_cell_runs_once_with_its_settings(tmp_path, ledger):
    sweep = stand_in(tmp_path)
    failed, shown = run(sweep)
    assert failed == []
    assert [(run["depth"], run["seed"], run["max_steps"]) for run in ledger()] == [
        (depth, seed, "5") for depth in ("0", "2") for seed in ("0", "1")
    ]
    assert shown.splitlines()[-1] == "4/4 cells done, 0 running, 0 failed"
    for cell, folder in zip(sweep.cells, folders(sweep), strict=True):
        record = folder.record()
        assert folder.state() == "done"
        assert record.key == cell.key
        assert 0 < record.cpu_seconds < 60 and record.wall_seconds > 0 and record.peak_memory_bytes > 1e6
        assert sorted(path.name for path in folder.path.iterdir()) == ["cell.json", "log.txt", "report.json"]


def test_output_is_kept_on_request(tmp_path, ledger):
    sweep = stand_in(tmp_path, seeds=[0])
    run(sweep, keep_output=True)
    assert [(folder.output / "checkpoint.bin").read_text() for folder in folders(sweep)] == ["weights", "weights"]


def test_finished_cells_never_run_again_and_changed_ones_do(tmp_path, ledger):
    run(stand_in(tmp_path))
    run(stand_in(tmp_path))
    assert len(ledger()) == 4
    run(stand_in(tmp_path, seeds=[0, 1, 2]))
    assert [run["seed"] for run in ledger()[4:]] == ["2", "2"]
    run(stand_in(tmp_path, budget={"max_steps": 6}))
    assert [run["max_steps"] for run in ledger()[6:]] == ["6"] * 4
    script = tmp_path / "stand_in.py"
    script.write_text(script.read_text() + "\n# changed")
    run(stand_in(tmp_path))
    assert len(ledger()) == 14


def test_a_cell_of_two_grids_runs_once(tmp_path, ledger):
    grids = {"depth": Grid({"depth": Axis([0, 2])}), "width": Grid({"width": Axis([8, 16])})}
    run(stand_in(tmp_path, grids=grids, settings={"depth": 2, "width": 8}, seeds=[0]))
    assert len(ledger()) == 3


def test_a_failure_is_reported_and_stops_no_other(tmp_path, ledger):
    sweep = stand_in(tmp_path, settings={"break_at": 0})
    failed, shown = run(sweep)
    assert failed == ["depth 0, seed 0", "depth 2, seed 0"]
    assert "exit status 1" in shown and "    reading data\n    no such corpus" in shown
    assert "2/4 cells done, 0 running, 2 failed" in shown
    assert len(ledger()) == 4

    failed, shown = run(sweep)
    assert len(failed) == 2 and len(ledger()) == 4, "a failed cell does not run again unasked"
    assert "--retry_failed" in shown and "no such corpus" in shown
    failed, _ = run(sweep, retry_failed=True)
    assert len(failed) == 2 and [run["seed"] for run in ledger()[4:]] == ["0", "0"]


def test_a_script_without_a_report_has_failed(tmp_path, ledger):
    failed, shown = run(stand_in(tmp_path, settings={"silent": 1}, seeds=[0]))
    assert len(failed) == 2 and "wrote no results_file" in shown


def test_a_killed_cell_runs_anew(tmp_path, ledger):
    sweep = stand_in(tmp_path, settings={"kill_at": 1})
    failed, shown = run(sweep)
    assert failed == ["depth 0, seed 1", "depth 2, seed 1"] and "killed by SIGKILL" in shown
    run(sweep)
    assert [run["seed"] for run in ledger()[4:]] == ["1", "1"]


def test_what_an_unfinished_run_left_is_cleared(tmp_path, ledger):
    sweep = stand_in(tmp_path, settings={"silent": 1}, seeds=[0])
    for folder in folders(sweep):
        folder.clear()
        folder.report.write_text("{}")
    failed, _ = run(sweep)
    assert len(failed) == 2, "the report of an unfinished run was taken for that of the new one"


def test_one_runner_in_a_folder(tmp_path, ledger):
    sweep = stand_in(tmp_path)
    sweep.folder.mkdir()
    with FileLock(sweep.folder / "sweep.lock"), pytest.raises(SweepError, match="another runner works in"):
        run(sweep)
    assert ledger() == []


@needs_two_cores
def test_parallel_equals_serial_and_cells_keep_to_their_cores(tmp_path, ledger):
    sweep = stand_in(tmp_path, settings={"seconds": 1.0})
    run(sweep, processes=2)
    parallel = [folder.report.read_text() for folder in folders(sweep)]
    runs = ledger()
    assert runs[1]["begun"] - runs[0]["begun"] < 1.0, "the second cell waited for the first"
    assert runs[2]["begun"] - runs[0]["begun"] > 1.0, "three cells ran at once"
    assert all(len(run["cores"]) == 1 and run["threads"] == "1" for run in runs)
    assert len({tuple(run["cores"]) for run in runs}) == 2

    serial = stand_in(tmp_path, settings={"seconds": 1.0}, folder=tmp_path / "serial")
    run(serial, threads_per_process=2)
    assert [folder.report.read_text() for folder in folders(serial)] == parallel
    assert all(len(run["cores"]) == 2 and run["threads"] == "2" for run in ledger()[4:])


def test_cores_are_not_shared():
    with pytest.raises(SweepError, match=r"need \d+ cores"):
        divide_cores(1000, 2)
    with pytest.raises(SweepError, match="at least 1"):
        divide_cores(0, 1)


def test_ctrl_c_stops_the_cells_first(tmp_path, ledger, monkeypatch):
    monkeypatch.setenv("SECONDS_OF_SEED_0", "60")

    def terminate():
        wait_until(ledger)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    sweep = stand_in(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(sweep)
    assert not is_alive(ledger()[0]["pid"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert [folder.state() for folder in folders(sweep)] == ["waiting"] * 4


RUNNER = """
import sys
sys.path.append({tests!r})
from pathlib import Path
from sweep_cases import stand_in
from speechzoo.evaluation.sweep_runner import SweepRunner
sweep = stand_in(Path({folder!r}))
SweepRunner(sweep).run(sweep.cells)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the cells of a killed runner run on")
def test_cells_end_with_a_killed_runner_and_the_next_one_continues(tmp_path, ledger, monkeypatch):
    monkeypatch.setenv("SECONDS_OF_SEED_1", "60")
    code = RUNNER.format(tests=str(ROOT / "tests"), folder=str(tmp_path))
    runner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(ledger()) == 2, seconds=60)
    runner.kill()
    runner.wait()
    wait_until(lambda: not is_alive(ledger()[1]["pid"]), seconds=10)

    monkeypatch.delenv("SECONDS_OF_SEED_1")
    sweep = stand_in(tmp_path)
    assert [folder.state() for folder in folders(sweep)] == ["done", "waiting", "waiting", "waiting"]
    assert run(sweep)[0] == []
    assert [(run["depth"], run["seed"]) for run in ledger()[2:]] == [("0", "1"), ("2", "0"), ("2", "1")]


def is_alive(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
