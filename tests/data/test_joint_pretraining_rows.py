"""Batches of unpaired speech and text: their sizes, what they depend on, and what is refused."""

from itertools import islice

import numpy as np
import pytest
import torch
from datasets import Dataset

from speechzoo import SpeechLMConfig, SpeechLMProcessor
from speechzoo.data.joint_pretraining_rows import (
    BatchSizes,
    LabeledClip,
    PlannedBatch,
    PretrainingCollator,
    PretrainingStream,
    ReadText,
    batches_by_size,
    is_read_alone,
    validation_batches,
)
from speechzoo.processing.lexicon import Lexicon

UNITS = ["SIL", "SPN", "A", "B"]
CONFIG = SpeechLMConfig.preset("tiny", unit_vocab_size=9, max_unit_positions=60)
LEXICON = Lexicon({"ab": "AB", "ba": "BA"})
SECONDS = (0.5, 0.3, 0.9, 0.62, 0.31, 0.88)


def processor() -> SpeechLMProcessor:
    return SpeechLMProcessor.from_model_config(CONFIG, UNITS, lexicon=LEXICON, sound_out=False)


@pytest.fixture(scope="module")
def clips() -> list[LabeledClip]:
    """Noise of several lengths, labeled at 50 a second."""
    random = np.random.default_rng(0)
    noise = [0.1 * random.standard_normal(int(16000 * seconds)) for seconds in SECONDS]
    rows = Dataset.from_dict({"audio": [{"array": clip.tolist(), "sampling_rate": 16000} for clip in noise]})
    frames = [(len(clip) - 400) // 320 + 1 for clip in noise]
    labels = [random.integers(4, 8, count).astype(np.int32) for count in frames]
    return [LabeledClip(f"c{place}", rows, place, labels[place], "ab ba") for place in range(len(SECONDS))]


def ids(batch: PlannedBatch) -> list[str]:
    return [clip.id for clip in batch.clips]


@pytest.mark.parametrize("key", [None, "a"])
def test_batches_hold_every_row_once_and_no_more_than_is_allowed(key):
    sizes = [*np.random.default_rng(1).integers(1, 90, 500).tolist(), 250]
    batches = batches_by_size(sizes, 200, key)
    assert sorted(place for batch in batches for place in batch) == list(range(501))
    padded = [len(batch) * max(sizes[place] for place in batch) for batch in batches]
    assert sorted(padded)[-2] <= 200 and [500] in batches, "a row that is too long is alone"
    assert sum(sizes) / sum(padded) > 0.9, "like sizes are together"
    assert batches == batches_by_size(sizes, 200, key)
    assert (batches == batches_by_size(sizes, 200, "b")) is False


def test_the_stream_depends_on_the_seed_alone_and_goes_on_anywhere(clips):
    sizes = BatchSizes(labels=60, letters=12, unit_letters=6)
    texts = ["ab ba", "ba", "ab", "ba ab ba"]

    def first(seed: int, count: int = 30) -> list[PlannedBatch]:
        return list(islice(PretrainingStream(clips, texts, sizes, seed), count))

    assert first(0) == first(0) != first(1)
    resumed = iter(PretrainingStream(clips, texts, sizes, 0))
    assert list(islice(resumed, 12, 30)) == first(0)[12:]
    heard = [name for batch in first(0) for name in ids(batch)]
    epochs = [heard[start : start + 6] for start in range(0, len(heard) - 5, 6)]
    assert all(sorted(epoch) == [f"c{place}" for place in range(6)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "each epoch has its own order"
    read = [one for batch in first(0) for one in batch.texts]
    seeds = {text: [one.seed for one in read if one.text == text] for text in texts}
    assert all(len(drawn) == len(set(drawn)) for drawn in seeds.values()), "durations are drawn anew in each epoch"
    assert [batch.texts for batch in first(0)] != [batch.unit_texts for batch in first(0)]


def test_a_stream_without_anything_to_take_is_refused(clips):
    with pytest.raises(ValueError, match=r"no clips to train on; name a corpus in speech_data"):
        PretrainingStream([], [], BatchSizes(60), 0)
    with pytest.raises(ValueError, match=r"no texts to train on; name some in text_data, or set text_letters 0"):
        PretrainingStream(clips, [], BatchSizes(60, 10), 0)
    assert next(iter(PretrainingStream(clips, [], BatchSizes(60), 0))).texts == ()


def test_a_share_of_clips_is_read_and_not_heard():
    names = [f"clip-{number}" for number in range(2000)]
    shares = [[name for name in names if is_read_alone(name, share)] for share in (0.0, 0.3, 0.5, 1.0)]
    assert [len(chosen) for chosen in shares[::3]] == [0, 2000]
    assert abs(len(shares[1]) / 2000 - 0.3) < 0.03 and set(shares[1]) < set(shares[2])


def test_a_batch_is_padded_under_masks(clips):
    plan = PlannedBatch((clips[0], clips[2]), (ReadText("ab", 3), ReadText("ba ab", 4)), (ReadText("ba", 5),))
    batch = PretrainingCollator(processor(), CONFIG)([plan, PlannedBatch((clips[4],))])
    assert batch["attention_mask"].sum(-1).tolist() == [int(16000 * SECONDS[place]) for place in (0, 2, 4)]
    for row, place in enumerate((0, 2, 4)):
        kept = batch["labels"][row]
        assert kept[kept >= 0].tolist() == clips[place].labels.tolist()
    units = [processor().unit_ids(one.text, one.seed) for one in plan.texts]
    for row, mask, expected in zip(batch["input_ids"], batch["unit_attention_mask"], units, strict=True):
        assert row[mask.bool()].tolist() == expected and (row[~mask.bool()] == 1).all()
    spelled = batch["text_labels"]
    assert [row[row >= 0].tolist() for row in spelled] == [
        processor().letter_ids(t.text, end=True) for t in plan.texts
    ]
    assert batch["unit_text_ids"][0].tolist() == processor().unit_ids("ba", 5)


@pytest.mark.parametrize("rate", [25, 100])
def test_labels_of_another_rate_are_refused(clips, rate):
    one = clips[2]
    wrong = one.labels[::2] if rate == 25 else np.repeat(one.labels, 2)
    plan = PlannedBatch((clips[0], LabeledClip("odd", one.rows, one.place, wrong)))
    with pytest.raises(ValueError, match=rf"clip 'odd' has {len(wrong)} labels, and its 0.90 s are 44 at 50 a second"):
        PretrainingCollator(processor(), CONFIG)([plan])


def test_a_few_labels_less_are_taken(clips):
    short = LabeledClip("short", clips[2].rows, 2, clips[2].labels[:-3])
    assert PretrainingCollator(processor(), CONFIG)([PlannedBatch((short,))])["labels"].shape == (1, 41)


def test_a_text_beyond_the_positions_is_refused():
    """The law of durations knows no limit here, as a text-to-unit model knows none."""
    plan = PlannedBatch(texts=(ReadText("ab " * 30),))
    with pytest.raises(ValueError, match=r"units, and the model has 60 positions; cut texts by text_words"):
        PretrainingCollator(processor(), CONFIG)([plan])


def test_validation_has_every_clip_once_beside_its_own_text(clips):
    batches = validation_batches(clips, BatchSizes(labels=60, letters=12))
    assert sorted(name for batch in batches for name in ids(batch)) == [f"c{place}" for place in range(6)]
    assert all(len(batch.texts) == len(batch.clips) and not batch.unit_texts for batch in batches)
    assert not validation_batches(clips, BatchSizes(labels=60))[0].texts
    assert torch.is_tensor(PretrainingCollator(processor(), CONFIG)(batches[:1])["text_labels"])
