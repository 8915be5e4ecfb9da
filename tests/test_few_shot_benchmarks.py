"""Benchmarks of shared caches and kept teachers at toy size: all sides agree, and what is reported was measured."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import Qwen3Config

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import cached_features
import kept_teacher
import label_caches

from speechzoo.evaluation.report import read_report

TOY = label_caches.BenchmarkArguments(
    shots=2, labels=4, demonstration_tokens=6, query_tokens=5, label_tokens=[1, 3], queries=3, rows=8, width=16,
    layers=2, heads=2, vocabulary=50, rounds=2, device="cpu",
)  # fmt: skip


def test_shared_caches_are_measured_against_both_ways_without(monkeypatch, tmp_path):
    arguments = replace(TOY, output=tmp_path / "report.json")
    monkeypatch.setattr(label_caches, "parse_arguments", lambda *_: (arguments,))
    score, read = label_caches.label_scores, []

    def recording(reader, prompts, labels, **options):
        read.append(options)
        return score(reader, prompts, labels, **options)

    monkeypatch.setattr(label_caches, "label_scores", recording)
    label_caches.main()
    report = read_report(tmp_path / "report.json")
    rows = {one.name: one for one in report.measurements}
    assert read == [{"share_caches": False, "rows": 1}, {"share_caches": False, "rows": 8}, {"rows": 8}] * 3
    # (4 labels of 12 + 5 tokens, and 8 of their own) x 3, over 12 + 3 x (5 + 8)
    assert rows["against one forward a label"].topline == pytest.approx(3 * (4 * 17 + 8) / (12 + 3 * 13))
    assert rows["against many labels a forward"].value > 0
    assert 0 < rows["largest difference of summed scores"].value < 1e-5
    assert rows["ways to score whose predictions differ"].value == 0


def test_demonstrations_are_shared_and_labels_differ():
    prompts, labels = label_caches.drawn(TOY)
    assert len(prompts) == 3 and len({prompt.demonstrations for prompt in prompts}) == 1
    assert [len(part.split()) for part in prompts[0].demonstrations] == [6, 6]
    assert len(set(labels)) == 4 and [len(label.split()) for label in labels] == [1, 3, 1, 3]


@pytest.mark.slow
def test_a_kept_teacher_is_measured_against_a_live_one_that_gives_the_same_loss(monkeypatch, tmp_path):
    def toy(*_, **fields):
        return Qwen3Config(**{**fields, "num_hidden_layers": 1, "vocab_size": 5000})

    def hears(collator, examples):
        batch = collate(collator, examples)
        assert (batch["encoder_frames_mask"].sum(-1) > 20).all()
        return batch

    collate = kept_teacher.SealCollator.__call__
    arguments = kept_teacher.BenchmarkArguments(
        tiny_clips=6, tiny_batch_size=3, clips=2, batch_size=2, rounds=2, device="cpu", output=tmp_path / "report.json"
    )
    monkeypatch.setattr(kept_teacher, "parse_arguments", lambda *_: (arguments,))
    monkeypatch.setattr(cached_features, "Qwen3Config", toy)
    monkeypatch.setattr(kept_teacher.SealCollator, "__call__", hears)
    kept_teacher.main()
    rows = {one.name: one for one in read_report(tmp_path / "report.json").measurements}
    assert rows["tiny zoo: epoch with a kept teacher over a live one"].value > 0
    assert 0 < rows["tiny zoo: largest difference of losses"].value < 0.01
