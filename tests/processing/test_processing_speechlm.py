"""The processor of SpeechLM and SpeechUT: audio or text in, letters in and out, saved and restored."""

import json

import numpy as np
import pytest
import torch
from speech_text_cases import clip
from transformers import AutoProcessor

from speechzoo import SpeechLMConfig, SpeechLMProcessor, SpeechUTConfig, TextToUnitConfig, TextToUnitModel
from speechzoo.processing import processing_speechlm
from speechzoo.processing.audio_loading import AudioError
from speechzoo.processing.feature_extraction_speechlm import SpeechLMFeatureExtractor
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.phones import DurationLaw, PhoneReader
from speechzoo.processing.processing_speechlm import LETTERS, letter_tokenizer
from speechzoo.processing.unit_vocabulary import UnitVocabulary

LEXICON = Lexicon({"how": ("HH", "AW1"), "are": ("AA1", "R"), "you": ("Y", "UW1")})
PHONES = UnitVocabulary.phones()
TEXTS = ["how are you", "you", "are how are you you"]


def processor(normalize: bool = False, **fields) -> SpeechLMProcessor:
    extractor = SpeechLMFeatureExtractor(do_normalize=normalize)
    return SpeechLMProcessor(extractor, letter_tokenizer(), **{"units": PHONES.symbols, "lexicon": LEXICON, **fields})


def rows(batch, name: str, mask: str) -> list[list]:
    """Each row without its padding."""
    return [row[kept.bool()].tolist() for row, kept in zip(batch[name], batch[mask], strict=True)]


# --- speech ---


def test_speech_is_padded_and_nothing_else():
    clips = [clip(16000, seed=1), clip(9000, seed=2)]
    batch = processor()(audio=clips)
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, 16000)
    assert batch["attention_mask"].sum(1).tolist() == [16000, 9000]
    for row, samples in zip(batch["input_values"], clips, strict=True):
        np.testing.assert_array_equal(row[: len(samples)].numpy(), samples)
        assert not row[len(samples) :].any()


def test_normalized_speech_has_the_originals_statistics_before_padding():
    quiet = 1e-3 * clip(9000, seed=2) + 0.01
    batch = processor(normalize=True)(audio=[clip(16000, seed=1), quiet])
    exact = quiet.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(((exact - exact.mean()) ** 2).sum() / len(exact) + 1e-5)
    np.testing.assert_allclose(batch["input_values"][1, :9000].numpy(), exact, atol=1e-5)
    assert not batch["input_values"][1, 9000:].any()
    alone = processor(normalize=True)(audio=quiet)
    np.testing.assert_array_equal(batch["input_values"][1, :9000].numpy(), alone["input_values"][0].numpy())
    layer_norm = torch.nn.functional.layer_norm(torch.tensor(quiet), (9000,))
    torch.testing.assert_close(alone["input_values"][0], layer_norm, atol=1e-4, rtol=0)


def test_the_extractor_by_itself_normalizes_padded_batches_alike():
    extractor, clips = SpeechLMFeatureExtractor(do_normalize=True), [clip(16000, seed=1), clip(9000, seed=2)]
    padded = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    torch.testing.assert_close(padded["input_values"], processor(normalize=True)(audio=clips)["input_values"])
    extractor.padding_side = "left"
    left = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    torch.testing.assert_close(left["input_values"][1, 7000:], padded["input_values"][1, :9000])


def test_unusable_speech_is_told():
    with pytest.raises(AudioError, match=r"second: 300 samples are too few; this encoder needs 400"):
        processor()(audio=[clip(16000), clip(300)], names=["first", "second"])
    with pytest.raises(AudioError, match=r"longer than max_audio_seconds=0.5"):
        processor(max_audio_seconds=0.5)(audio=clip(16000))


# --- units of text ---


def test_phones_are_repeated_as_the_law_says():
    one, text = processor(), "how are you"
    groups = PhoneReader(LEXICON).read(text, seed=5)
    symbols = [name for group in groups for name in PHONES.phones_of_word(group)]
    frames = DurationLaw().draw(symbols, text, 5)
    expected = [PHONES.id(name) for name, often in zip(symbols, frames, strict=True) for _ in range(often)]
    assert rows(one(text=text, seed=5), "input_ids", "unit_attention_mask") == [expected]
    assert expected[0] == PHONES.id("SIL") == 5 and PHONES.id("HH_B") in expected and PHONES.id("UW1_E") in expected


@pytest.mark.parametrize("seed", [0, 7])
def test_units_do_not_depend_on_the_batch(seed):
    together = processor()(text=TEXTS, seed=seed)
    alone = [processor()(text=text, seed=seed)["input_ids"][0].tolist() for text in TEXTS]
    assert rows(together, "input_ids", "unit_attention_mask") == alone
    assert (together["input_ids"][together["unit_attention_mask"] == 0] == 1).all()
    assert together["unit_attention_mask"].dtype == torch.int64


def test_unknown_words_are_told_once(monkeypatch):
    one, told = processor(), []
    monkeypatch.setattr(processing_speechlm.logger, "warning", told.append)
    for text in ("how are you", "how zorp", "zorp you", "zorp blick"):
        one(text=text)
    assert [line.split(":")[0] for line in told] == [
        "1 of 2 words are not in the lexicon, first 'zorp'",
        "2 of 2 words are not in the lexicon, first 'zorp'",
    ]
    assert PHONES.id("SPN_S") in processor(sound_out=False).unit_ids("zorp")


def test_a_dictionary_of_another_order_gives_other_ids():
    turned = processor(units=PHONES.symbols[::-1])
    names = [PHONES.symbol(number) for number in processor().unit_ids("how are you")]
    assert [turned.vocabulary.symbol(number) for number in turned.unit_ids("how are you")] == names


def text_to_unit(clusters: int = 9, **fields) -> TextToUnitModel:
    torch.manual_seed(0)
    phones = PhoneReader(LEXICON).inventory
    shape = {"hidden_size": 16, "intermediate_size": 16, "initializer_range": 0.5}
    return TextToUnitModel(TextToUnitConfig.preset("tiny", phones=phones, clusters=clusters, **{**shape, **fields}))


@pytest.fixture(scope="module")
def text_to_unit_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_to_unit")
    text_to_unit().save_pretrained(folder)
    return str(folder)


def test_a_text_to_unit_model_says_texts_in_clusters(text_to_unit_folder, tmp_path):
    one = processor(units=[str(unit) for unit in range(9)], silence_probability=1.0, sound_out=False)
    one.name_text_to_unit(text_to_unit_folder)
    batch = one(text=TEXTS)
    phones = [["SIL", "HH", "AW", "SIL", "AA", "R", "SIL", "Y", "UW", "SIL"]]
    numbers = torch.tensor([[PhoneReader(LEXICON).inventory.index(name) for name in phones[0]]])
    [said] = text_to_unit().eval().generate(numbers)
    expected = rows(batch, "input_ids", "unit_attention_mask")
    assert expected[0] == [4 + unit for unit in said.units]
    assert [one.unit_ids(text) for text in TEXTS] == expected
    one.save_pretrained(tmp_path)
    again = SpeechLMProcessor.from_pretrained(tmp_path)
    assert again.text_to_unit_id == text_to_unit_folder and again.text_facts == one.text_facts
    assert [again.unit_ids(text) for text in TEXTS] == expected


def test_a_text_to_unit_model_of_other_units_is_refused(text_to_unit_folder):
    with pytest.raises(ValueError, match=r"says 9 clusters, and the 364 units here begin with '<eps>'"):
        processor().name_text_to_unit(text_to_unit_folder)
    with pytest.raises(ValueError, match=r"name a text-to-unit model"):
        processor(units=["0", "1"])(text="how are you")
    with pytest.raises(FileNotFoundError, match=r"text-to-unit model '/gone/away' is not here; set text_to_unit_id"):
        processor(units=["0", "1"], text_to_unit_id="/gone/away")(text="how are you")


def test_facts_tell_apart_what_gives_other_units():
    changes = [{}, {"silence_probability": 0.5}, {"sound_out": False}, {"durations": {"most": 99}}]
    changes += [{"lexicon": Lexicon({"how": ("HH",)})}, {"units": PHONES.symbols[::-1]}]
    facts = [json.dumps(processor(**change).text_facts) for change in changes]
    assert len(set(facts)) == len(changes) and json.dumps(processor().text_facts) == facts[0]


# --- letters ---


def test_letters_have_the_ids_of_the_originals():
    tokenizer = letter_tokenizer()
    assert len(LETTERS) == 28 and len(tokenizer) == 33
    names = ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "T", "Z", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4, 5, 6, 31, 32]
    assert tokenizer.pad_token_id == 0, "what CTC calls blank"


def test_labels_are_letters_and_every_word_is_closed():
    one = processor()
    batch = one(labels=["How are", "don't"])
    ids = [[number for number in row if number >= 0] for row in batch["labels"].tolist()]
    assert [one.tokenizer.convert_ids_to_tokens(row) for row in ids] == [[*"HOW|ARE|"], [*"DON'T|"]]
    assert batch["labels"][1, 6:].tolist() == [-100, -100]
    assert one(labels="how", end=True)["labels"].tolist()[0][-1] == 2
    assert one.decode_letters(batch["labels"][0]) == "how are"


def test_ctc_merges_repetitions_and_drops_blanks():
    one = processor()
    number = {name: one.tokenizer.convert_tokens_to_ids(name) for name in "HELO|"}
    frames = [0, number["H"], number["H"], 0, number["E"], number["L"], number["L"], 0, number["L"], number["O"], 0]
    assert one.decode_ctc([*frames, number["|"], 2, 1, 32, number["H"]]) == "hello h"
    assert one.tokenizer.decode(frames) == "hello", "transformers' pipelines agree"


def test_entity_markers_are_letters():
    tokenizer = letter_tokenizer([*LETTERS, *"%]@"])
    one = SpeechLMProcessor(SpeechLMFeatureExtractor(), tokenizer, PHONES.symbols, LEXICON)
    text = "the % united kingdom ] voted @ thursday ]"
    assert one.decode_letters(one.letter_ids(text)) == text
    assert tokenizer.convert_tokens_to_ids(["%", "<mask>"]) == [32, 35]


@pytest.mark.parametrize(
    ("letters", "told"),
    [
        ("AB", r"'\|' must be there once"),
        ("|AA", r"'A' must be there once"),
        (["|", "AB"], r"'AB' must be there once"),
    ],
)
def test_letters_that_cannot_be_are_refused(letters, told):
    with pytest.raises(ValueError, match=told):
        letter_tokenizer(letters)


def test_errors_say_what_to_do():
    one = processor()
    with pytest.raises(ValueError, match=r"the tokenizer has no letter '5'; write the text 'at 5' without it"):
        one(labels="at 5")
    with pytest.raises(ValueError, match=r"a batch is of one of the two"):
        one(audio=clip(16000), text="how")
    with pytest.raises(ValueError, match=r"there is nothing to read"):
        one()
    for nothing in ({"text": []}, {"audio": []}, {"text": "how", "labels": []}):
        with pytest.raises(ValueError, match=r"an empty list was given"):
            one(**nothing)
    with pytest.raises(ValueError, match=r"give one text of labels for each"):
        one(text=TEXTS, labels="how")
    with pytest.raises(ValueError, match=r"no word in the text '\?'"):
        one(text=["how", "?"])
    with pytest.raises(ValueError, match=r"there is no lexicon 'cmu'"):
        processor(lexicon="cmu")


# --- saving and loading ---


@pytest.mark.parametrize("config", [SpeechLMConfig.preset("tiny", unit_vocab_size=369), None])
def test_auto_processor_restores_everything(config, tmp_path):
    config = config or SpeechUTConfig.preset("tiny", unit_vocab_size=369)
    fields = {"lexicon": LEXICON, "silence_probability": 0.5, "durations": {"phone": [4.0, 1.0]}, "sound_out": False}
    one = SpeechLMProcessor.from_model_config(config, PHONES.symbols, normalize=True, **fields)
    config.save_pretrained(tmp_path)
    one.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is SpeechLMProcessor and again.to_dict() == one.to_dict()
    assert type(again.feature_extractor) is SpeechLMFeatureExtractor
    assert dict(again.lexicon) == dict(LEXICON)
    assert again.tokenizer.get_vocab() == one.tokenizer.get_vocab()
    for given in ({"text": TEXTS}, {"audio": clip(9000)}, {"labels": TEXTS}):
        before, after = one(**given), again(**given)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_cmu_lexicon_is_named_and_not_saved(tmp_path):
    processor(lexicon="cmudict").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["lexicon"] == "cmudict" and not (tmp_path / "lexicon.txt").exists()
    assert SpeechLMProcessor.from_pretrained(tmp_path).unit_ids("hello")[0] == PHONES.id("SIL")
    (tmp_path / "processor_config.json").write_text(json.dumps({**saved, "lexikon": "x"}))
    with pytest.raises(ValueError, match=r"unknown keys: lexikon"):
        SpeechLMProcessor.from_pretrained(tmp_path)


def test_a_model_of_other_sizes_is_refused():
    config = SpeechLMConfig.preset("tiny", unit_vocab_size=505)
    with pytest.raises(ValueError, match=r"the model has unit_vocab_size 505 and the processor 369"):
        SpeechLMProcessor.from_model_config(config, PHONES.symbols, lexicon=LEXICON)
    one = SpeechLMProcessor.from_model_config(config, map(str, range(500)), lexicon=LEXICON)
    assert (one.frame_kernel, one.frame_stride) == (400, 320)
    assert not one.feature_extractor.do_normalize
    large = SpeechLMConfig.preset("large-p")
    assert SpeechLMProcessor.from_model_config(large, PHONES.symbols).feature_extractor.do_normalize
