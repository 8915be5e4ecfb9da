"""Reports: what is written is plain, sorted and read back; what is unknown is refused."""

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from speechzoo.evaluation.intervals import Interval
from speechzoo.evaluation.report import (
    Backbone,
    Corpus,
    Environment,
    Example,
    HistoryPoint,
    Measurement,
    Parameters,
    Report,
    environment,
    read_report,
    training_history,
    write_report,
)


def full_report() -> Report:
    return Report(
        title="Tiny adapter",
        system="speech_text_adapter",
        command="accelerate launch examples/train_adapter.py --seed 3",
        seeds={"training": 3, "bootstrap": 0},
        environment=environment(),
        measurements=[
            Measurement("commands", "wer", 0.125, 0.1, 0.15, items=400, speakers=12, split="final test", topline=0.01),
            Measurement("one clip", "accuracy", 1.0, items=1),
        ],
        examples=[Example("turn it on", "turn it \u00fcn")],
        history=[HistoryPoint(10, 2.5, 1e-3, 4.0), HistoryPoint(20, evaluation={"loss": 1.5})],
        wall_seconds={"training": 61.2, "evaluation": 10.0},
        parameters=Parameters(250, 1000),
        limits=["Synthetic voices only."],
        corpora=[Corpus("synthetic", "training", clips=3000, hours=1.5, speakers=20, license="apache-2.0")],
        backbones=[Backbone("speech encoder", "org/encoder", "abc", "mit", 1000)],
        settings={"adapter": {"layers": 2}, "betas": [0.9, 0.98]},
        language=["en"],
    )


def write_changed(path: Path, change: Any) -> Path:
    write_report(path, full_report())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_reads_back_what_was_written(tmp_path: Path):
    written = write_report(tmp_path / "new" / "report.json", full_report())
    read = read_report(tmp_path / "new" / "report.json")
    assert read == written
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", read.date)


def test_layout_is_sorted_plain_and_the_same_each_time(tmp_path: Path):
    report = write_report(tmp_path / "a.json", full_report())
    write_report(tmp_path / "b.json", report)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert text == (tmp_path / "b.json").read_text(encoding="utf-8")
    assert text == json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert content["schema_version"] == 1
    assert content["parameters"] == {"trainable": 250, "total": 1000, "share": 0.25}
    assert content["history"] == [
        {"learning_rate": 0.001, "loss": 2.5, "seconds": 4.0, "step": 10},
        {"evaluation": {"loss": 1.5}, "step": 20},
    ]
    assert "low" not in content["measurements"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(titel="x"), "unknown key 'titel'"),
        (lambda content: content["measurements"][1].update(hi=1), r"measurements \[1\]unknown key 'hi'"),
        (lambda content: content["environment"].update(host="x"), "environment unknown key 'host'"),
        (lambda content: content["measurements"][0].pop("value"), "'value'"),
        (lambda content: content.pop("title"), "'title'"),
        (lambda content: content.update(schema_version=2), "schema_version 2"),
        (lambda content: content.pop("schema_version"), "schema_version None"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, change: Any, message: str):
    path = write_changed(tmp_path / "report.json", change)
    with pytest.raises(ValueError, match=message) as error:
        read_report(path)
    assert "report.json" in str(error.value)


def test_numbers_that_json_lacks_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="nan"):
        write_report(tmp_path / "r.json", Report("t", "s", "c", measurements=[Measurement("a", "wer", float("nan"))]))
    with pytest.raises(TypeError):
        write_report(tmp_path / "r.json", Report("t", "s", "c", settings={"model": object()}))
    assert not (tmp_path / "r.json").exists()


def test_measurement_of_an_interval():
    measurement = Measurement.of(
        "all", "accuracy", Interval(0.9, 0.8, 0.95, 12), items=480, speakers=12, chance=1 / 31
    )
    assert (measurement.value, measurement.low, measurement.high) == (0.9, 0.8, 0.95)
    assert (measurement.items, measurement.speakers, measurement.chance) == (480, 12, 1 / 31)


def test_environment_tells_versions_and_no_names_of_hosts_or_folders(tmp_path: Path):
    found = environment()
    assert found.packages["torch"] == version("torch") and found.packages["transformers"] == version("transformers")
    assert found.torch_threads == torch.get_num_threads() and found.cores >= 1
    text = json.dumps(found.packages) + found.platform + found.cpu + found.hardware
    assert platform.node() not in text and str(Path.home()) + "/" not in text


def test_hardware_in_words():
    machine = Environment("3.11", "Linux x86_64", "AMD EPYC", 2, True, 2)
    assert machine.hardware == "AMD EPYC, 2 cores, AVX512-bf16"
    assert Environment("3.11", "x", "CPU", 1, False, 2).hardware == "CPU, 1 core"
    assert Environment("3.11", "x", "CPU", 1, False, 2, "NVIDIA H200", 4).hardware == "4 x NVIDIA H200"


def test_history_joins_the_entries_of_a_step():
    log_history = [
        {"loss": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 0.1, "step": 10, "seconds": 3.0},
        {
            "eval_loss": 1.5,
            "eval_wer": 0.5,
            "eval_runtime": 9.0,
            "eval_steps_per_second": 1,
            "step": 10,
            "seconds": 12.0,
        },
        {"loss": 1.0, "learning_rate": 0.0, "step": 20},
        {"train_runtime": 30.0, "train_loss": 1.5, "step": 20},
        {"train_runtime": 30.0, "step": 30},
    ]
    assert training_history(log_history) == [
        HistoryPoint(10, 2.0, 1e-3, 3.0, {"loss": 1.5, "wer": 0.5}),
        HistoryPoint(20, 1.0, 0.0, None, {}),
    ]
