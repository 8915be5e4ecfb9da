"""The joint vocabulary: pieces as SentencePiece cuts them, exact round trips, text that stays text, saved folders."""

import copy
import json
import pickle
import random
import shutil

import numpy as np
import pytest
import sentencepiece
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_text_cases import clip
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from speechzoo import SpeechUnitModel, SpeechUnitProcessor, SUTLMConfig, SUTLMProcessor
from speechzoo.processing.audio_loading import AudioError
from speechzoo.processing.processing_sutlm import UNIT_PIECES_FILE
from speechzoo.processing.speech_units import Units, deduplicate, smooth
from speechzoo.processing.unit_text import BASIC_PLANE_CHARACTERS, UnitSegmenter
from speechzoo.training.training_tiny_language_model import train_tokenizer

UNITS = 50
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SIGNS = ["<U_EN>", "<T_EN>", "<U2T>", "<T2U>"]


def clips(count: int, seed: int = 0) -> list[list[int]]:
    """Few units, so that a string of them can be cut in many ways; most units are never said."""
    chance = random.Random(seed)
    words = [[chance.randrange(9) for _ in range(chance.randint(2, 5))] for _ in range(60)]
    return [[unit for _ in range(10) for unit in chance.choice(words)] for _ in range(count)]


def unigram() -> T5Tokenizer:
    """SentencePiece-like: Unigram over words with a mark where a space was, and its own normalization."""
    pieces = [("▁the", -2.0), ("▁light", -3.0), ("s", -4.0), ("▁", -3.5), *((letter, -5.0) for letter in LETTERS)]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *dict(pieces).items()], extra_ids=3)


def gpt2_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE that adds no space in front, and has one special token for everything, as GPT-2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


TEXT_TOKENIZERS = {
    "byte-level": train_tokenizer,
    "gpt2": gpt2_like,
    "unigram": unigram,
    "words": tiny_models.tokenizer,
}
# What each can write and read again: the first takes a space in front for its own.
TEXTS = {
    "byte-level": st.text().filter(lambda text: not text.startswith(" ")),
    "gpt2": st.text(),
    "unigram": st.lists(st.text(LETTERS, min_size=1), min_size=1).map(" ".join),
    "words": st.lists(st.sampled_from(tiny_models.WORDS), min_size=1).map(" ".join),
}
UNIT_LISTS = st.lists(st.integers(0, UNITS - 1), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def segmenter():
    return UnitSegmenter.train(clips(150), UNITS, pieces=120)


@pytest.fixture(scope="module", params=TEXT_TOKENIZERS)
def family(request, segmenter, tmp_path_factory):
    """Name, text tokenizer, processor, and the folder it is saved in beside a model's configuration."""
    text_tokenizer = TEXT_TOKENIZERS[request.param]()
    processor = SUTLMProcessor(text_tokenizer, segmenter)
    folder = tmp_path_factory.mktemp(request.param)
    config = SUTLMConfig.preset("tiny", vocab_size=processor.vocab_size, **processor.config_fields)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return request.param, text_tokenizer, processor, folder


@pytest.fixture(scope="module")
def processor(segmenter):
    return SUTLMProcessor(train_tokenizer(), segmenter)


# ---- the vocabulary ------------------------------------------------------------------------------------------------


def test_ids_are_text_then_signs_then_pieces(family, segmenter):
    _, text_tokenizer, processor, _ = family
    size = len(text_tokenizer)
    tokens = processor.tokenizer.convert_ids_to_tokens(range(processor.vocab_size))
    assert tokens[:size] == text_tokenizer.convert_ids_to_tokens(range(size))
    assert tokens[size:] == SIGNS + segmenter.pieces
    assert len(set(tokens)) == len(tokens), "two ids of one token"
    assert [processor.token(sign) for sign in SIGNS] == list(range(size, size + 4))
    assert processor.unit_token_range == range(size + 4, processor.vocab_size)


def test_pieces_and_signs_keep_spaces_and_skip_normalizers(family):
    _, _, processor, folder = family
    added = AutoTokenizer.from_pretrained(folder).added_tokens_decoder
    ours = [added[token] for token in range(processor.token("<U_EN>"), processor.vocab_size)]
    assert not any(token.normalized or token.lstrip or token.rstrip or token.single_word for token in ours)
    assert [token.special for token in ours] == [True] * 4 + [False] * (len(ours) - 4)


def test_the_text_tokenizer_stays_as_it_was(segmenter):
    text_tokenizer = train_tokenizer()
    SUTLMProcessor(text_tokenizer, segmenter)
    assert len(text_tokenizer) == len(train_tokenizer())


def test_a_configuration_takes_the_fields(family):
    _, _, processor, folder = family
    config = SUTLMConfig.from_pretrained(folder)
    assert config.unit_tokens == processor.unit_token_range
    assert (config.unit_start_token_id, config.text_start_token_id) == (
        processor.token("<U_EN>"),
        processor.token("<T_EN>"),
    )
    assert (config.unit_to_text_token_id, config.text_to_unit_token_id) == (
        processor.token("<U2T>"),
        processor.token("<T2U>"),
    )
    assert (config.eos_token_id, config.vocab_size) == (processor.eos_token_id, processor.vocab_size)


def test_auto_tokenizer_alone_decodes_every_id(family, segmenter):
    """With the configuration of a model in the folder, whose type it need not know."""
    _, text_tokenizer, processor, folder = family
    config = json.loads((folder / "config.json").read_text())
    for model_type in ("sutlm", "sutlm_of_tomorrow"):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(tokenizer) == processor.vocab_size
        for place, token in enumerate(processor.unit_token_range):
            assert tokenizer.decode([token]) == tokenizer.decode([token], skip_special_tokens=True)
            assert tokenizer.decode([token]) == segmenter.pieces[place]
        for token in range(len(text_tokenizer)):
            assert tokenizer.decode([token]) == text_tokenizer.decode([token])
        assert [tokenizer.decode([processor.token(sign)]) for sign in SIGNS] == SIGNS
        assert tokenizer.decode([processor.token(sign) for sign in SIGNS], skip_special_tokens=True) == ""
    (folder / "config.json").write_text(json.dumps(config))


# ---- units ---------------------------------------------------------------------------------------------------------


def test_unit_tokens_are_the_pieces_of_sentencepiece(family):
    _, _, processor, folder = family
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / UNIT_PIECES_FILE))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chance = random.Random(3)
    for units in [*clips(40, seed=5), *([chance.randrange(12) for _ in range(60)] for _ in range(40))]:
        string = "".join(chr(0xE000 + unit) for unit in units)
        tokens = processor.unit_tokens(units)
        assert tokenizer.convert_ids_to_tokens(tokens) == reference.encode(string, out_type=str)
        assert "".join(tokenizer.convert_ids_to_tokens(tokens)) == string


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_spans_come_back(family, data):
    name, _, processor, _ = family
    span = UNIT_LISTS.map(lambda units: ("speech", units)) | TEXTS[name].filter(len).map(lambda text: ("text", text))
    spans = data.draw(st.lists(span, max_size=5))
    mode = data.draw(st.fixed_dictionaries({"alternating": st.booleans(), "end": st.booleans()}))
    assert processor.spans(processor.sequence(spans, **mode)) == spans


def test_signs_mark_what_comes(processor):
    speech, text, token = ("speech", [1, 2, 3]), ("text", "lights"), processor.token
    units, words = processor.unit_tokens([1, 2, 3]), processor.text_tokens("lights")
    u, t, end = token("<U_EN>"), token("<T_EN>"), processor.eos_token_id
    assert processor.sequence([speech], end=True) == [u, *units, end]
    assert processor.sequence([speech, text]) == [u, *units, t, *words]
    assert processor.sequence([text, speech], alternating=True) == [t, *words, token("<T2U>"), *units]
    assert processor.sequence([speech, text], alternating=True) == [u, *units, token("<U2T>"), *words]
    assert processor.sequence([speech], continue_with="speech") == [u, *units]
    assert processor.sequence([speech], continue_with="text") == [u, *units, t]
    assert processor.sequence([speech], True, continue_with="text") == [u, *units, token("<U2T>")]
    assert processor.sequence([], continue_with="speech") == [u]


# ---- text ----------------------------------------------------------------------------------------------------------


def test_text_is_tokenized_as_by_the_text_tokenizer(family):
    _, text_tokenizer, processor, _ = family
    for text in ("the lights", " turn  on the light ", "the", "kitchen's", "", "Ünïcode 你好 😀\n"):
        assert processor.text_tokens(text) == text_tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ["byte-level", "gpt2"])
@pytest.mark.parametrize("text", ["a \ue001\ue002 b", "\uf8ff", "<U_EN> a <T2U>", "</s><s> a", "a <|endoftext|>"])
def test_text_never_becomes_anything_else(segmenter, name, text):
    """Icon fonts put private-use characters into web pages; others write about special tokens."""
    processor = SUTLMProcessor(TEXT_TOKENIZERS[name](), segmenter)
    tokens = processor.text_tokens(text)
    assert processor.spans(tokens) == [("text", text)]
    assert not set(tokens) & {*processor.unit_token_range, *processor.tokenizer.all_special_ids}


def test_unknown_characters_stay_unknown_text(segmenter):
    processor = SUTLMProcessor(unigram(), segmenter)
    assert processor.spans(processor.text_tokens("the \ue001")) == [("text", "the <unk>")]


def test_special_tokens_that_cannot_be_spelled_are_refused(segmenter):
    processor = SUTLMProcessor(unigram(), segmenter)
    with pytest.raises(ValueError, match=r"^a text holds '</s>'.* remove it from: 'the </s> light'"):
        processor.text_tokens("the </s> light")


# ---- batches -------------------------------------------------------------------------------------------------------


def test_rows_of_a_batch_are_the_sequences(processor):
    units = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 1, 2]]
    texts = ["turn on the lights", "heat up"]
    batch = processor(texts, units, end=True, return_tensors="pt")
    for row in range(2):
        tokens = processor.sequence([("speech", units[row]), ("text", texts[row])], end=True)
        kept = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][kept].tolist() == tokens
        assert kept.sum() == len(tokens) and kept[-1], "padding comes first"
        assert (batch["input_ids"][row][~kept] == processor.tokenizer.pad_token_id).all()
    right = processor(texts, units, padding_side="right", return_tensors="pt")
    assert right["attention_mask"][:, 0].all()
    assert processor(units=units[0])["input_ids"] == [processor.sequence([("speech", units[0])])]
    assert processor(units=Units(units[0], [1, 2, 3]))["input_ids"] == processor(units=np.array(units[0]))["input_ids"]
    assert processor(units=torch.tensor(units[0]))["input_ids"] == processor(units=units[:1])["input_ids"]
    assert processor("heat up", continue_with="speech")["input_ids"][0][-1] == processor.token("<U_EN>")
    rows = [[("text", "heat"), ("speech", [1])], [("speech", [2])]]
    spans = processor(spans=rows, alternating=True, padding=False)["input_ids"]
    assert spans == [processor.sequence(row, alternating=True) for row in rows]
    fixed = processor(texts, padding="max_length", max_length=40, return_tensors="pt")
    assert fixed["input_ids"].shape == (2, 40)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"nothing to read"),
        ({"text": ["a", "b"], "units": [[1]]}, r"1 clips came with 2 texts"),
        ({"units": [1], "audio": np.zeros(9)}, r"one of the two"),
        ({"units": [1], "spans": [[("speech", [1])]]}, r"write these as spans"),
        ({"units": [1, UNITS]}, r"has unit 50, and the units are 0 to 49"),
        ({"audio": np.zeros(16000)}, r"names no unit model; call name_unit_model"),
        ({"spans": [[("noise", [1])]]}, r"of 'noise'; choose speech"),
        ({"text": "a", "continue_with": "noise"}, r"choose speech or text"),
    ],
)
def test_inputs_that_make_no_sense(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_unknown_names_and_ids_are_refused(processor):
    with pytest.raises(ValueError, match=r"no sign '<U>'"):
        processor.token("<U>")
    for token in (-1, processor.vocab_size):
        with pytest.raises(ValueError, match=rf"no token {token}"):
            processor.spans([token])
    with pytest.raises(TypeError):
        processor("a", unit=[1])


# ---- saving --------------------------------------------------------------------------------------------------------


def test_a_saved_folder_encodes_alike(family):
    _, _, processor, folder = family
    rows = [[("speech", units), ("text", "the light")] for units in clips(5, seed=9)]
    expected = processor(spans=rows, alternating=True, end=True)["input_ids"]
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is SUTLMProcessor
    for other in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert other(spans=rows, alternating=True, end=True)["input_ids"] == expected
        assert other.config_fields == processor.config_fields
    loaded.save_pretrained(folder / "again")
    for name in ("tokenizer.json", "processor_config.json", UNIT_PIECES_FILE):
        assert (folder / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_folders_that_were_tampered_with(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    UnitSegmenter.train(clips(150, seed=1), UNITS, pieces=120).save(tmp_path / UNIT_PIECES_FILE)
    with pytest.raises(ValueError, match=r"extended for others|in another order"):
        SUTLMProcessor.from_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / UNIT_PIECES_FILE).write_bytes(UnitSegmenter.raw(UNITS).model)
    with pytest.raises(ValueError, match=r"another order"):  # the units are pieces there too, but not side by side
        SUTLMProcessor.from_pretrained(tmp_path)
    (tmp_path / UNIT_PIECES_FILE).unlink()
    with pytest.raises(OSError, match=UNIT_PIECES_FILE):
        SUTLMProcessor.from_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps(processor.to_dict() | {"unit_model": "x"}))
    with pytest.raises(ValueError, match="unknown keys: unit_model"):
        SUTLMProcessor.from_pretrained(tmp_path)


def test_text_tokenizers_that_do_not_fit(segmenter):
    own = train_tokenizer()
    own.add_tokens(["\ue003"])
    with pytest.raises(ValueError, match=r"token U\+E003 .*offset=6400"):
        SUTLMProcessor(own, segmenter)
    moved = UnitSegmenter.train(clips(150), UNITS, pieces=120, offset=BASIC_PLANE_CHARACTERS)
    processor = SUTLMProcessor(own, moved)
    assert processor.spans(processor.sequence([("speech", [3]), ("text", "\ue003")])) == [
        ("speech", [3]),
        ("text", "\ue003"),
    ]
    endless = train_tokenizer()
    endless.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        SUTLMProcessor(endless, segmenter)
    with pytest.raises(ValueError, match=r"dict has no tokenizer\.json"):
        SUTLMProcessor({}, segmenter)


# ---- audio ---------------------------------------------------------------------------------------------------------


class LoudnessUnits:
    """A unit model for which a unit is how loud a tenth of a second is."""

    clusters = UNITS

    def __init__(self, hash: str = "loudness") -> None:
        self.hash, self.heard = hash, []

    def extract(self, audio, sampling_rate=None, name=None):
        self.heard.append((sampling_rate, name))
        levels = [int(UNITS * min(0.99, abs(part).mean() * 3)) for part in np.split(np.asarray(audio), 10)]
        units = [unit for place, unit in enumerate(levels) if place == 0 or unit != levels[place - 1]]
        return Units(units, [1] * len(units))


def test_audio_goes_through_the_unit_model(segmenter):
    processor = SUTLMProcessor(train_tokenizer(), segmenter)
    extractor = LoudnessUnits()
    processor.use_units_of(extractor)
    sounds = [clip(16000, seed) for seed in range(3)]
    batch = processor(audio=sounds, text=["heat up"] * 3, sampling_rate=16000)
    assert batch == processor(units=[extractor.extract(sound) for sound in sounds], text=["heat up"] * 3)
    assert extractor.heard[:3] == [(16000, "clip 0"), (16000, "clip 1"), (16000, "clip 2")]
    assert processor(audio=sounds[0])["input_ids"] == processor(spans=[[("audio", sounds[0])]])["input_ids"]


def test_another_unit_model_is_refused(segmenter):
    processor = SUTLMProcessor(train_tokenizer(), segmenter, unit_model_id="units", unit_model_hash="loudness")
    processor.use_units_of(LoudnessUnits())
    with pytest.raises(ValueError, match=r"hash pitch and this processor was made for loudness \('units'\)"):
        processor.use_units_of(LoudnessUnits("pitch"))
    wide = LoudnessUnits()
    wide.clusters = UNITS + 1
    with pytest.raises(ValueError, match=r"51 units and the pieces are of 50"):
        processor.use_units_of(wide)


@pytest.fixture(scope="module")
def unit_model(backbones, tmp_path_factory):
    """The folder of a tiny unit model whose codebook is made of frames of noise."""
    folder = tmp_path_factory.mktemp("units")
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), layer=1, clusters=UNITS, smoothing=3)
    model_processor = SpeechUnitProcessor.from_model_config(model.config, chunk_seconds=0.8)
    frames, _ = model.encode(**model_processor([clip(12000, 5), clip(12000, 6)]))
    centroids = frames.flatten(0, 1)[:UNITS].clone()
    centroids[5:] += 1000  # few units are ever said, so that smoothing has something to smooth
    model.set_codebook(centroids)
    model.save_pretrained(folder)
    model_processor.save_pretrained(folder)
    return folder


def test_a_folder_names_its_unit_model(segmenter, unit_model, tmp_path):
    """`AutoProcessor` and `AutoModel` of that one folder take a waveform."""
    made = SUTLMProcessor(train_tokenizer(), segmenter)
    made.name_unit_model(str(unit_model))
    config = SUTLMConfig.preset("tiny", vocab_size=made.vocab_size, **made.config_fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert (saved["unit_model_id"], len(saved["unit_model_hash"])) == (str(unit_model), 64)

    model, processor = AutoModelForCausalLM.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    sounds = [clip(9000, 1), clip(28123, 2)]  # the second is cut into three chunks
    batch = processor(audio=sounds, continue_with="text", return_tensors="pt")
    assert model(**batch).logits.shape == (*batch["input_ids"].shape, made.vocab_size)

    said = processor.spans(batch["input_ids"][1].tolist())
    encoder, frames = SpeechUnitModel.from_pretrained(unit_model), SpeechUnitProcessor.from_pretrained(unit_model)
    chunks = [sounds[1][start : start + 12800] for start in range(0, 28123, 12800)]
    expected = [unit for chunk in chunks for unit in encoder.extract(**frames(chunk))[0]]
    assert said == [("speech", deduplicate(smooth(expected, 3)).units)]
    assert expected != smooth(expected, 3)


def test_a_unit_model_that_changed_is_refused(segmenter, unit_model, tmp_path):
    """Its smoothing does not change its weights, and does change its units."""
    folder = tmp_path / "units"
    shutil.copytree(unit_model, folder)
    processor = SUTLMProcessor(train_tokenizer(), segmenter)
    processor.name_unit_model(str(folder))
    processor.save_pretrained(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"smoothing": 5}))
    with pytest.raises(ValueError, match=r"which gives other units; load that one"):
        SUTLMProcessor.from_pretrained(tmp_path)(audio=clip(16000))


def test_faults_of_audio_name_the_clip(segmenter, unit_model):
    processor = SUTLMProcessor(train_tokenizer(), segmenter)
    processor.name_unit_model(str(unit_model))
    with pytest.raises(AudioError, match=r"^clip 1: there are no samples"):
        processor(audio=[clip(16000), np.zeros(0)])
    with pytest.raises(AudioError, match=r"^missing\.flac: there is no such file"):
        processor(audio="missing.flac")


def test_a_unit_model_that_is_gone(segmenter, tmp_path):
    gone = SUTLMProcessor(train_tokenizer(), segmenter, unit_model_id=str(tmp_path / "gone"))
    assert gone("heat up")["input_ids"], "it is not looked for before there is audio"
    with pytest.raises(FileNotFoundError, match=r"gone' is not here; set unit_model_id"):
        gone(audio=clip(16000))
