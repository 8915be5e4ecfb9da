"""Times of words of a corpus: those of the aligner, kept, and none for clips that cannot be aligned."""

import json
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from transformers import Wav2Vec2Processor as Processor

from speechzoo.data.aligned_words import align_corpus
from speechzoo.processing.word_alignment import CTCAligner

LETTERS = ["<pad>", "<unk>", "|", *"abcdefgh"]
TEXTS = ["a bad cab", "bee", "20 21", "a head " * 30, "fed"]


@pytest.fixture(scope="module")
def aligner(tmp_path_factory):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_dim=[8] * 7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=1, vocab_size=len(LETTERS),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("letters") / "vocab.json"
    path.write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    tokenizer = Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None)
    return CTCAligner(Wav2Vec2ForCTC(config).eval(), Processor(Wav2Vec2FeatureExtractor(), tokenizer))


def corpus(texts):
    rng = np.random.default_rng(0)
    audio = [0.1 * rng.standard_normal(16_000).astype(np.float32) for _ in texts]
    return Dataset.from_dict({"id": [f"c{n}" for n in range(len(texts))], "audio": audio, "text": texts})


def no_more(*_, **__):
    raise AssertionError("what is kept was aligned again")


def test_words_are_those_of_the_aligner_and_computed_once(aligner, tmp_path, monkeypatch):
    rows = corpus([TEXTS[0], TEXTS[1], TEXTS[4]])
    expected = dict(
        zip(rows["id"], aligner.align([np.float32(clip) for clip in rows["audio"]], rows["text"]), strict=True)
    )
    assert align_corpus(aligner, rows, tmp_path) == expected
    monkeypatch.setattr(CTCAligner, "align", no_more)
    assert align_corpus(aligner, rows, tmp_path) == expected
    with pytest.raises(AssertionError, match="again"):  # the same recording with another text is another question
        align_corpus(aligner, rows.map(lambda row: {"text": "a bag"}), tmp_path)


def test_clips_that_cannot_be_aligned_have_no_words_and_are_named_once(aligner, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    rows = corpus(TEXTS)
    for _ in range(2):
        caplog.clear()
        words = align_corpus(aligner, rows, tmp_path)
        assert [" ".join(span.word for span in words[name]) for name in rows["id"]] == [*TEXTS[:2], "", "", "fed"]
        assert "2 of 5 clips" in caplog.text and "'c2'" in caplog.text
