"""Batches of one modality each: how often each is drawn, how much fits, the same again; and what they hold."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from joint_encoder_cases import TINY
from joint_slu_cases import PHONES, processor, recordings

from speechzoo import SpeechLMConfig
from speechzoo.data.labeled_recordings import LabeledRecording
from speechzoo.data.modality_batches import (
    ModalityBatches,
    ModalityCollator,
    ModalityItem,
    modality_probabilities,
    read_as,
    text_units,
)

CONFIG = SpeechLMConfig(**{**TINY, "unit_vocab_size": len(PHONES), "text_vocab_size": 33})


def items(speech: int, text: int) -> list[ModalityItem]:
    def some(modality, count):
        clips = [LabeledRecording(f"{modality}-{number}", "lit", "on") for number in range(count)]
        return [ModalityItem(clip, modality, 20 + number * 7 % 60) for number, clip in enumerate(clips)]

    return [*some("speech", speech), *some("text", text)]


def test_the_law_of_temperature():
    """The paper's shares, by hand: 345 clips of speech beside 5000 texts at T = 5."""
    probabilities = modality_probabilities({"speech": 345, "text": 5000}, 5)
    assert probabilities["speech"] == pytest.approx(345**0.2 / (345**0.2 + 5000**0.2), abs=1e-12)
    assert probabilities["speech"] == pytest.approx(0.369, abs=1e-3)
    assert modality_probabilities({"speech": 1, "text": 3}, 1) == {"speech": 0.25, "text": 0.75}
    assert modality_probabilities({"speech": 0, "text": 3}, 5) == {"text": 1.0}
    with pytest.raises(ValueError, match=r"temperature is 0"):
        modality_probabilities({"text": 3}, 0)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_batches_are_drawn_by_it_and_are_of_one_modality(temperature):
    rows, count = items(12, 120), 4000
    drawn = Counter()
    for batch in ModalityBatches(rows, count, capacity=400, temperature=temperature, seed=3):
        [modality] = {rows[place].modality for place in batch}
        drawn[modality] += 1
        assert max(rows[place].length for place in batch) * len(batch) <= 400
    share = modality_probabilities({"speech": 12, "text": 120}, temperature)["speech"]
    assert abs(drawn["speech"] - count * share) < 4 * np.sqrt(count * share * (1 - share))
    assert drawn.total() == count


def test_every_clip_comes_once_before_any_comes_again():
    rows = items(0, 50)
    batches = ModalityBatches(rows, 60, capacity=300, most_items=6)
    seen: list[int] = []
    for batch in batches:
        assert len(batch) <= 6 and len(set(batch)) == len(batch)
        seen += batch
    assert sorted(seen[:50]) == sorted(seen[50:100]) == list(range(50))
    assert seen[:50] != seen[50:100]


def test_the_same_seed_draws_the_same_batches_and_a_longer_run_begins_alike():
    rows = items(20, 40)
    first = list(ModalityBatches(rows, 30, 300, seed=1))
    assert first == list(ModalityBatches(rows, 30, 300, seed=1)) == list(ModalityBatches(rows, 90, 300, seed=1))[:30]
    assert first != list(ModalityBatches(rows, 30, 300, seed=2))


def test_what_makes_no_batch_is_told():
    with pytest.raises(ValueError, match=r"there is no clip"):
        ModalityBatches([], 5, 100)
    with pytest.raises(ValueError, match=r"a batch takes 30"):
        ModalityBatches(items(3, 3), 5, 30)


def test_items_have_the_lengths_of_the_models_frames():
    reader, clips = processor(CONFIG), recordings(4)
    heard, read = read_as(clips, "speech", reader), read_as(clips, "text", reader, seed=5)
    for item in heard:
        mask = reader(audio=item.recording.audio)["attention_mask"]
        assert item.length == (int(mask.sum()) - CONFIG.frame_kernel) // CONFIG.inputs_to_logits_ratio + 1
    assert [item.length for item in read] == [len(item.units) for item in read]
    with pytest.raises(ValueError, match=r"clip 'clip-0' has no audio"):
        read_as(recordings(1, audio=False), "speech", reader)
    with pytest.raises(ValueError, match=r"read as speech has \d+ frames and a batch takes 10"):
        read_as(clips, "speech", reader, most=10)


def test_clips_that_say_the_same_are_read_each_in_its_own_time():
    """As the recordings of a sentence differ; the clip and the seed decide, whatever else is read."""
    reader = processor(CONFIG)
    clips = [LabeledRecording(f"clip-{number}", "heat off lit", "off") for number in range(12)]
    read = read_as(clips, "text", reader, seed=5)
    assert len({item.units for item in read}) > 10
    assert [item.units for item in read_as(clips[7:], "text", reader, seed=5)] == [item.units for item in read[7:]]
    assert [text_units(one, reader, 5) for one in clips] == [item.units for item in read]
    assert text_units(clips[0], reader, 6) != text_units(clips[0], reader, 5)
    symbols = [reader.vocabulary.symbol(unit) for unit in read[0].units]
    said = [name for name, after in zip(symbols, [*symbols[1:], ""], strict=True) if name not in ("SIL", after)]
    assert said == ["HH", "IY", "T", "AO", "F", "L", "IY", "T"]


def test_batches_hold_what_the_processor_makes():
    reader, clips = processor(CONFIG), recordings(3)
    collate = ModalityCollator(reader, ("off", "on"))
    speech, text = (collate(read_as(clips, modality, reader)) for modality in ("speech", "text"))
    expected = reader(audio=[one.audio for one in clips])
    assert set(speech) == {"input_values", "attention_mask", "labels"}
    torch.testing.assert_close(speech["input_values"], expected["input_values"])
    assert set(text) == {"input_ids", "unit_attention_mask", "labels"}
    for row, mask, one in zip(text["input_ids"], text["unit_attention_mask"], clips, strict=True):
        units = text_units(one, reader)
        assert tuple(row[: len(units)].tolist()) == units and set(row[len(units) :].tolist()) <= {1}
        assert mask.tolist() == [number < len(units) for number in range(len(row))]
    assert speech["labels"].tolist() == text["labels"].tolist() == [1, 0, 1]
    letters = ModalityCollator(reader)(read_as(clips, "text", reader))["labels"]
    torch.testing.assert_close(letters, reader(labels=[one.answer for one in clips])["labels"])


def test_mixed_batches_and_unknown_labels_are_refused():
    reader, clips = processor(CONFIG), recordings(2)
    with pytest.raises(ValueError, match=r"mixes speech and text"):
        ModalityCollator(reader)([*read_as(clips, "text", reader), *read_as(clips, "speech", reader)])
    with pytest.raises(ValueError, match=r"clip 'clip-0' has the label 'on'"):
        ModalityCollator(reader, ("off",))(read_as(clips[:1], "text", reader))
    with pytest.raises(ValueError, match=r"clip 'clip-1' cannot be answered: the tokenizer has no letter '!'"):
        ModalityCollator(reader).labels([clips[0], replace(clips[1], answer="on!")])
