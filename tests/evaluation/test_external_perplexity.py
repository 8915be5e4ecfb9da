"""PELM against sums by hand, what stands beside it, that a copying model is exposed, and that nothing is dropped."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sutlm_cases import joint_model, joint_processor

from speechzoo.evaluation.external_perplexity import (
    COPIED,
    TRUE_TEXT,
    TRUE_UNITS,
    JudgedSystem,
    JudgedText,
    external_perplexity,
    perplexity_measurements,
)
from speechzoo.evaluation.prompted_pairs import PromptedPair
from speechzoo.evaluation.report import Report, read_report, write_report
from speechzoo.evaluation.speech_text_continuations import Sampling
from speechzoo.evaluation.text_judge import Surprise
from speechzoo.evaluation.unit_transcriber import UnitTranscriber

PAIRS = [
    PromptedPair("a", {"speech": [3, 1], "text": "turn on the lights"}, {"speech": [1, 5], "text": "please bring me"}),
    PromptedPair("b", {"speech": [9, 2, 6], "text": "heat up"}, {"speech": [5, 3, 5], "text": "the kitchen"}),
    PromptedPair("c", {"speech": [7, 8], "text": "the bedroom"}, {"speech": [4, 7], "text": "down please"}),
]
SAMPLING = Sampling(text_tokens=6, unit_tokens=5, samples=2, glue="start")


class PromptLover:
    """A judge with the metric's defect: a word is likely where the prompt or the text so far has it, and unlikely
    elsewhere. Its tokens are words."""

    def __init__(self):
        self.judged = []

    def score(self, prompts, continuations):
        self.judged += zip(prompts, continuations, strict=True)
        return [self._surprise(*texts) for texts in zip(prompts, continuations, strict=True)]

    def _surprise(self, prompt, continuation):
        words, known = (prompt + continuation).split(), len(prompt.split())
        chances = [0.5 if word in words[:place] else 0.01 for place, word in enumerate(words)][known:]
        return Surprise(-sum(map(math.log, chances)), len(chances))


@pytest.fixture(scope="module")
def processor():
    return joint_processor()


@pytest.fixture(scope="module")
def model(processor):
    return joint_model("gpt2", processor)


@pytest.fixture(scope="module")
def transcriber(processor):
    return UnitTranscriber(joint_model("llama", processor), processor, most_tokens=5)


@pytest.fixture(scope="module")
def judge():
    return PromptLover()


@pytest.fixture(scope="module")
def systems(model, processor, transcriber, judge):
    return {
        system.name: system for system in external_perplexity(model, processor, judge, PAIRS, transcriber, SAMPLING)
    }


def rows_of(systems, **facts):
    return {(row.name, row.metric): row for row in perplexity_measurements(list(systems), **facts)}


def test_all_conditions_and_what_they_are_compared_with_are_judged(systems, transcriber):
    assert list(systems) == ["u2u", "u2t", "t2u", "t2t", TRUE_UNITS, TRUE_TEXT, COPIED]
    prompts = [pair.prompt["text"] for pair in PAIRS]
    assert all(system.prompts == prompts for system in systems.values())
    for name in ("u2u", "u2t", "t2u", "t2t"):
        assert [len(samples) for samples in systems[name].samples] == [2, 2, 2]
        assert len({sample.text for samples in systems[name].samples for sample in samples}) > 2
    written = transcriber.transcribe([pair.continuation["speech"] for pair in PAIRS])
    assert [sample.text for (sample,) in systems[TRUE_UNITS].samples] == [f" {text}" for text in written]
    assert [s.text for (s,) in systems[TRUE_TEXT].samples] == [f" {pair.continuation['text']}" for pair in PAIRS]
    assert [sample.text for (sample,) in systems[COPIED].samples] == [f" {prompt}" for prompt in prompts]


def test_the_judge_reads_every_continuation_after_the_text_of_its_own_prompt(systems, judge):
    judged = [
        (prompt, sample.text)
        for system in systems.values()
        for prompt, samples in zip(system.prompts, system.samples, strict=True)
        for sample in samples
    ]
    assert judge.judged == judged
    for system in systems.values():
        for prompt, samples in zip(system.prompts, system.samples, strict=True):
            assert all(sample.surprise == judge._surprise(prompt, sample.text) for sample in samples)


def test_batches_change_nothing(systems, model, processor, transcriber):
    alone = external_perplexity(
        model, processor, PromptLover(), PAIRS, transcriber, dataclasses.replace(SAMPLING, batch_size=1)
    )
    assert alone == list(systems.values())


def test_values_are_those_of_all_tokens_with_intervals_by_prompts(systems):
    rows = rows_of(systems.values(), dataset="commands", split="test")
    for name, system in systems.items():
        sums = np.array(
            [
                [sum(sample.surprise.nats for sample in row), sum(sample.surprise.tokens for sample in row)]
                for row in system.samples
            ]
        )
        row = rows[name, "pelm"]
        assert row.value == pytest.approx(math.exp(sums[:, 0].sum() / sums[:, 1].sum()))
        each = np.exp(sums[:, 0] / sums[:, 1])
        assert each.min() - 1e-9 <= row.low <= row.value <= row.high <= each.max() + 1e-9
        assert (row.items, row.resampled, row.dataset, row.split) == (3, "items", "commands", "test")
    assert rows["t2u", "pelm"].topline == rows["u2u", "pelm"].topline == rows[TRUE_UNITS, "pelm"].value
    assert rows["u2t", "pelm"].topline == rows["t2t", "pelm"].topline == rows[TRUE_TEXT, "pelm"].value
    assert rows[COPIED, "pelm"].topline is None


def test_copying_the_prompt_is_exposed(systems):
    """It beats the truth by PELM, and only the measures beside it tell."""
    rows = rows_of(systems.values())
    assert rows[COPIED, "pelm"].value == pytest.approx(2)
    assert rows[TRUE_TEXT, "pelm"].value > 10
    assert rows[COPIED, "prompt_overlap"].value == rows[COPIED, "longest_common_run"].value == 1
    assert rows[TRUE_TEXT, "prompt_overlap"].value == 0 and rows[TRUE_TEXT, "longest_common_run"].value == 0


def test_a_model_that_says_one_word_again_and_again_is_exposed(model, processor, monkeypatch):
    word = torch.arange(processor.vocab_size) == processor.tokenizer.convert_tokens_to_ids("lights")
    monkeypatch.setattr(model, "_logits", lambda hidden_states: 100.0 * word.expand(*hidden_states.shape[:2], -1))
    systems = external_perplexity(model, processor, PromptLover(), PAIRS[:1], None, SAMPLING, ["t2t"])
    assert [sample.text for sample in systems[0].samples[0]] == [" lights" * 6] * 2
    rows = rows_of(systems)
    assert rows["t2t", "pelm"].value == pytest.approx(2) and rows["t2t", "pelm"].low is None
    assert [rows["t2t", metric].value for metric in ("auto_bleu", "self_bleu", "vert")] == pytest.approx([1, 1, 1])
    assert rows["t2t", "prompt_overlap"].value == 0
    assert rows["t2t", "longest_common_run"].value == pytest.approx(1 / 6)
    assert rows["t2t", "unfinished_share"].value == 1
    assert "2 were stopped at the most tokens" in rows["t2t", "pelm"].note


def said(*texts, nats=1.0):
    return [JudgedText(text, Surprise(nats * len(text.split()), len(text.split()))) for text in texts]


def test_empty_continuations_are_counted():
    system = JudgedSystem("t2t", ["a b", "c d"], [said(" a b c", ""), said("", " d")])
    rows = rows_of([system])
    assert rows["t2t", "empty_share"].value == 0.5 and rows["t2t", "unfinished_share"].value == 0
    assert rows["t2t", "pelm"].value == pytest.approx(math.e)
    assert rows["t2t", "pelm"].note == "topline: true text; 2 of 4 continuations are empty and in no other value"
    assert rows["t2t", "prompt_overlap"].value == 1 / 2  # ab of ab and bc; d alone is no pair
    assert rows["t2t", "longest_common_run"].value == 3 / 4
    assert ("t2t", "self_bleu") not in rows, "no prompt has two to compare"


def test_a_model_that_says_nothing_at_all_has_a_row_that_says_so(tmp_path):
    rows = perplexity_measurements([JudgedSystem("u2t", ["a", "b"], [said(""), said("")])])
    assert {row.metric: row.value for row in rows} == {"empty_share": 1, "unfinished_share": 0}
    assert all("all continuations are empty" in row.note for row in rows)
    write_report(tmp_path / "report.json", Report("title", "sutlm", "command", measurements=rows))
    assert read_report(tmp_path / "report.json").measurements == rows


def test_repetition_is_the_mean_over_continuations_or_a_ratio_of_sums():
    system = JudgedSystem("t2t", ["a b c", "d"], [said(" a b x", " a b x"), said(" d d", " e f")])
    rows = rows_of([system])
    assert rows["t2t", "prompt_overlap"].value == pytest.approx(2 / 6)
    assert rows["t2t", "longest_common_run"].value == pytest.approx((2 + 2 + 1 + 0) / 10)
    assert rows["t2t", "auto_bleu"].value == pytest.approx(0)  # dd: its word occurs twice, its pair once
    assert rows["t2t", "self_bleu"].value == pytest.approx((1 + 1 + 0 + 0) / 4)
    single = {row.metric: row for row in perplexity_measurements([system], order=1)}
    assert single["prompt_overlap"].value == pytest.approx((2 + 2 + 2 + 0) / 10)


def test_what_cannot_be_measured_is_refused(model, processor, transcriber):
    judge = PromptLover()
    with pytest.raises(ValueError, match="'u2u' ends in units; give a transcriber"):
        external_perplexity(model, processor, judge, PAIRS)
    with pytest.raises(ValueError, match="no condition 't2s'; choose u2u, u2t, t2u, t2t"):
        external_perplexity(model, processor, judge, PAIRS, transcriber, conditions=["t2s"])
    silent = PromptedPair("mute", {"speech": [], "text": "turn"}, {"speech": [1], "text": "on"})
    with pytest.raises(ValueError, match="the prompt of 'mute' has no speech"):
        external_perplexity(model, processor, judge, [silent], transcriber, conditions=["u2t"])
