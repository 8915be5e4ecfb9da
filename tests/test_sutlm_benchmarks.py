"""The benchmarks of SUTLM at toy size: both sides do the same work, and what is reported was measured."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import loss_memory
import packed_training
import unit_layers
from peak_memory import MIB, PeakMemory, in_fresh_process

from speechzoo.evaluation.report import read_report

PACKED = packed_training.BenchmarkArguments(
    rows=2, row_tokens=300, tokens_per_second=8.0, vocabulary=80, units=30, layers=2, width=16, heads=2, steps=1,
    rounds=1, device="cpu",
)  # fmt: skip
LOSS = loss_memory.BenchmarkArguments(
    tokens=1024, rows=2, vocabulary=16_384, units=5000, widths=[8], repetitions=1, device="cpu"
)
UNITS = unit_layers.BenchmarkArguments(
    layers=[1], whole=2, width=32, heads=2, clips=1, seconds=0.5, rounds=2, compared_clips=4, shortest=0.2,
    longest=0.6, batch_sizes=[4], clusters=12, device="cpu",
)  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a benchmark's `main` with arguments of its own, and reads its report; without other processes."""

    def go(module, arguments, other_process=lambda function, *words: function(*words)):
        arguments = replace(arguments, output=tmp_path / "report.json")
        monkeypatch.setattr(module, "parse_arguments", lambda *_: (arguments,))
        monkeypatch.setattr(module, "in_fresh_process", other_process, raising=False)
        module.main()
        return read_report(tmp_path / "report.json")

    return go


# ---- memory --------------------------------------------------------------------------------------------------------


def test_the_peak_is_seen_though_it_has_passed():
    with PeakMemory("cpu") as peak:
        held = np.ones(100 * MIB, dtype=np.uint8)
        held.sum()
        del held
    assert 95 * MIB < peak.most - peak.before < 130 * MIB


def test_a_fresh_process_is_another_one():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_the_losses_are_equal_and_all_logits_at_once_show_in_the_peak():
    logits = LOSS.tokens * LOSS.vocabulary * 4
    full, *chunked = (loss_memory.loss_run(side, 8, LOSS) for side in loss_memory.SIDES)
    assert full.loss > 1 and all(abs(one.loss - full.loss) < 1e-5 for one in chunked)
    assert full.peak > 1.5 * logits and all(one.peak < full.peak / 2 for one in chunked)


def test_gradients_are_not_counted():
    """Wide and few tokens: the gradient of the head is nearly all there is, and autograd copies it once."""
    small = replace(LOSS, tokens=32, vocabulary=8192)
    one = loss_memory.loss_run("chunked, one sum", 2048, small)
    assert one.peak < 1.5 * 8192 * 2048 * 4


def test_memory_is_reported_for_every_width(run):
    report = run(loss_memory, replace(LOSS, widths=[4, 8], tokens=256, vocabulary=2048, units=500))
    assert [one.metric for one in report.measurements] == [*["MiB"] * 3, *["ratio"] * 2, "nats"] * 2


# ---- packing -------------------------------------------------------------------------------------------------------


def test_lengths_are_log_normal_within_their_bounds():
    stream = packed_training.sequences(replace(PACKED, tokens_per_second=100.0))
    seconds = np.array([len(next(stream)["input_ids"]) / 100 for _ in range(3000)])
    assert seconds.min() >= 1 and 34 < seconds.max() <= 35
    assert abs(np.median(seconds) - 12) < 0.7
    assert abs(np.log(seconds).std() - 0.5) < 0.05


def test_both_layouts_hold_the_same_sequences():
    for batch in packed_training.draw_batches(PACKED):
        packed, padded = (packed_training.collate(layout, batch) for layout in ("packed", "padded"))
        assert packed["input_ids"].shape[0] == PACKED.rows and packed["input_ids"].shape[1] <= PACKED.row_tokens
        inside = padded["attention_mask"].bool()
        assert int(inside.sum()) == packed_training.count_tokens(batch)
        assert (padded["labels"][inside] == padded["input_ids"][inside]).all() and (
            padded["labels"][~inside] < 0
        ).all()
        assert not inside.all() and packed["input_ids"].numel() < inside.numel()
        begins = packed["position_ids"] == 0
        assert int(begins.sum()) >= len(padded["input_ids"])


def test_losses_agree_and_one_that_looks_across_sequences_does_not():
    models, batches = packed_training.build_models(PACKED), packed_training.draw_batches(PACKED)
    with torch.no_grad():
        for model in models.values():  # small weights attend to everything alike
            for parameter in {id(one): one for one in model.parameters()}.values():
                parameter.mul_(4)
    assert packed_training.largest_difference(models, batches, PACKED) < 1e-5
    models["full logits"].config.use_cache = True
    assert packed_training.largest_difference(models, batches, PACKED) > 1e-4


@pytest.mark.slow
def test_speeds_and_peaks_are_reported_for_every_side(run):
    report = run(packed_training, PACKED, other_process=lambda function, side, arguments: 5 * MIB)
    assert packed_training.peak_of_training(packed_training.BASELINE, PACKED) > 0
    by_metric = {metric: [one for one in report.measurements if one.metric == metric] for metric in
                 ("tokens per second", "speedup", "MiB")}  # fmt: skip
    assert [len(found) for found in by_metric.values()] == [4, 3, 4]
    speeds = {one.name: one.value for one in by_metric["tokens per second"]}
    for one in by_metric["speedup"]:
        ours, theirs = one.name.split(", over ")
        assert one.value == pytest.approx(speeds[ours] / speeds[theirs])
    shares = [report.settings[f"share of positions that are no padding, {layout}"] for layout in ("padded", "packed")]
    assert shares[0] < shares[1] <= 1


def test_only_the_steps_after_the_first_are_timed(monkeypatch):
    """Of three steps that end 2 s apart the last two count, in 4 s."""
    batches = packed_training.draw_batches(replace(PACKED, steps=2))
    model = packed_training.build_models(PACKED)["chunked loss"]
    before = model.lm_head.weight.clone()
    monkeypatch.setattr(packed_training, "StepClock", EvenSteps)
    speed = packed_training.train(model, "packed", batches, PACKED)
    assert speed == pytest.approx(sum(map(packed_training.count_tokens, batches[1:])) / 4)
    assert not torch.equal(model.lm_head.weight, before)


class EvenSteps(packed_training.StepClock):
    def on_step_end(self, *arguments, **keywords):
        self.times.append(2.0 * len(self.times))


# ---- layers --------------------------------------------------------------------------------------------------------


def test_costs_are_compared_with_the_whole_encoder():
    seconds = {1: [1.0, 2.0], 2: [4.0, 8.0]}
    found = {one.name: one.value for one in unit_layers.costs(seconds, replace(UNITS, clips=2, seconds=5.0))}
    assert found == pytest.approx({"layers 1 to 1": 0.15, "layers 1 to 2": 0.6, "layers 1 to 1 over 1 to 2": 0.25})


def test_layers_are_reported_and_a_unit_that_changes_in_a_batch_is_noticed(run, monkeypatch):
    report = run(unit_layers, UNITS)
    equal = report.measurements[-1]
    assert (equal.value, equal.items) == (1.0, 4) and not equal.note.endswith(" 1 different units")
    model = unit_layers.unit_model(1, UNITS)
    assert len(unit_layers.unit_model(2, UNITS).audio_tower.encoder.layers) == 2
    assert len(model.audio_tower.encoder.layers) == 1
    real = model.extract

    def shifted(features, mask):
        units = real(features, mask)
        return [[(units[0][0] + 1) % UNITS.clusters, *units[0][1:]], *units[1:]] if len(units) > 1 else units

    monkeypatch.setattr(model, "extract", shifted)
    assert unit_layers.equality(model, UNITS).value == 0.75
