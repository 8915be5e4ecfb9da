"""Readers put speech, text or units where a clip stands, and the same tokens around it as in training."""

import pytest
import torch
from speech_text_cases import CLIPS
from sutlm_cases import joint_model, joint_processor
from tiny_models import tokenizer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from speechzoo import SealProjectorForConditionalGeneration, SpeechTextAdapterForConditionalGeneration
from speechzoo.data.encoded_speech import StoredEncoder
from speechzoo.evaluation.prompt_readers import (
    Clip,
    FewShotPrompt,
    SpeechPromptReader,
    TextPromptReader,
    UnitPromptReader,
    label_tokens,
    read_whole,
)

SPOKEN = [Clip(f"clip {number}", text, CLIPS[number]) for number, text in enumerate(("lights on", "heat up", "off"))]
WRITTEN = Clip("clip 0", "lights on")
PARTS = [
    ("<s> turn ", SPOKEN[0], " lights ", WRITTEN, " please ", SPOKEN[1]),
    (SPOKEN[2], " bring ", SPOKEN[0], SPOKEN[1], " up"),
    ("me ", WRITTEN),
    (),
]


@pytest.fixture
def text_reader(backbones):
    folder = backbones.language_model("llama")
    return TextPromptReader(AutoModelForCausalLM.from_pretrained(folder), tokenizer())


@torch.no_grad()
def merged(model, processor, part) -> torch.Tensor:
    """What the model makes of a part whose text and clips its processor prepares, alone in a batch."""
    spoken = [one for one in part if isinstance(one, Clip) and one.is_spoken]
    texts = [one if isinstance(one, str) else processor.audio_token if one.is_spoken else one.text for one in part]
    inputs = processor("".join(texts), [clip.audio for clip in spoken] or None, return_tensors="pt")
    inputs.pop("attention_mask")
    return model.model.merge(inputs.pop("input_ids"), None, **inputs)[0]


@pytest.mark.parametrize(
    ("system", "batch_size"),
    [
        (SpeechTextAdapterForConditionalGeneration, 1),
        (SpeechTextAdapterForConditionalGeneration, 8),
        (SealProjectorForConditionalGeneration, 8),
    ],
)
def test_speech_is_merged_as_by_the_model_itself(backbones, system, batch_size):
    model, processor = backbones.build(system=system)
    found = SpeechPromptReader(model, processor, batch_size=batch_size).embed(PARTS)
    for part, embeddings in zip(PARTS[:3], found, strict=False):
        torch.testing.assert_close(embeddings, merged(model, processor, part), rtol=0, atol=1e-5)
    assert found[3].shape == (0, found[0].shape[1])


def test_clips_are_heard_once_and_forgotten_when_there_are_many(backbones, monkeypatch):
    model, processor = backbones.build()
    reader, heard = SpeechPromptReader(model, processor, remembered=2), []
    encode = reader._encoded
    monkeypatch.setattr(reader, "_encoded", lambda clips: heard.extend(clip.id for clip in clips) or encode(clips))
    first = reader.embed(PARTS)
    assert heard == ["clip 0", "clip 1", "clip 2"]
    reader.embed([(SPOKEN[1], SPOKEN[2])])
    assert len(heard) == 3
    torch.testing.assert_close(reader.embed(PARTS)[0], first[0], rtol=0, atol=1e-5)
    assert heard[3:] == ["clip 0"]


def test_what_a_store_keeps_of_clips_is_heard_as_they_are_and_encoded_once(backbones, tmp_path, monkeypatch):
    model, processor = backbones.build()
    expected = SpeechPromptReader(model, processor).embed(PARTS)
    encode, encoded = type(model.model).encode_audio, []
    monkeypatch.setattr(
        type(model.model),
        "encode_audio",
        lambda self, **features: encoded.append(len(features["input_features"])) or encode(self, **features),
    )
    for shard, batches in ((2, [2, 1]), (8, [1])):  # of three clips two were written, the third was lost
        encoder = StoredEncoder(model, processor, tmp_path, shard_clips=shard)
        reader = SpeechPromptReader(model, processor, batch_size=2, remembered=0, encoder=encoder)
        for _ in range(2):
            for found, wanted in zip(reader.embed(PARTS), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        assert encoded == batches
        encoded.clear()


def test_speech_is_brought_to_the_precision_of_the_text(backbones):
    model, processor = backbones.build()
    model.model.language_model.bfloat16()
    (found,) = SpeechPromptReader(model, processor).embed(PARTS[:1])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, merged(model, processor, PARTS[0]), rtol=0.02, atol=1e-3)


def test_a_placeholder_in_a_text_is_refused(backbones):
    model, processor = backbones.shared()
    with pytest.raises(ValueError, match=r"a text holds <\|audio\|>, which stands for clips"):
        SpeechPromptReader(model, processor).embed([("turn <|audio|>", SPOKEN[0])])


def test_text_without_audio_is_the_same_to_speech_and_text(backbones):
    model, processor = backbones.shared()
    plain = TextPromptReader(model.model.language_model, processor.tokenizer)
    speech = SpeechPromptReader(model, processor)
    torch.testing.assert_close(speech.embed(PARTS[2:3]), plain.embed(PARTS[2:3]), rtol=0, atol=0)


def test_a_clip_is_read_as_its_text_or_its_transcript(text_reader):
    def read(reader, *part):
        return reader.embed([part])[0]

    cascade = TextPromptReader(text_reader.language_model, text_reader.tokenizer, {"clip 0": "heat me"})
    assert (text_reader.name, cascade.name) == ("text", "cascade")
    torch.testing.assert_close(read(text_reader, "turn ", SPOKEN[0]), read(text_reader, "turn lights on"))
    torch.testing.assert_close(read(cascade, "turn ", SPOKEN[0]), read(text_reader, "turn heat me"))
    torch.testing.assert_close(read(cascade, "turn ", WRITTEN), read(text_reader, "turn lights on"))
    torch.testing.assert_close(
        read(text_reader, "tu", "rn", SPOKEN[0], WRITTEN, "<s>"), read(text_reader, "turn lights on lights on<s>")
    )
    with pytest.raises(ValueError, match=r"clip 'clip 1' has no transcript; make them for every clip"):
        read(cascade, SPOKEN[1])


@pytest.mark.parametrize(
    ("glue", "to_units", "to_text"), [("start", "<U_EN>", "<T_EN>"), ("switch", "<T2U>", "<U2T>")]
)
def test_units_stand_between_marks(glue, to_units, to_text):
    processor = joint_processor()
    model = joint_model("llama", processor)
    reader = UnitPromptReader(model, processor, {"clip 0": [3, 1, 4]}, glue=glue)

    def expected(*tokens):
        words = processor.tokenizer.get_vocab()
        ids = [processor.unit_tokens([one])[0] if isinstance(one, int) else words[one] for one in tokens]
        return model.model.embed(torch.tensor(ids))

    units = (to_units, 3, 1, 4)
    found = reader.embed([("turn ", "on", SPOKEN[0], "lights", WRITTEN), ("heat", SPOKEN[0]), ()])
    torch.testing.assert_close(found[0], expected("<T_EN>", "turn", "on", *units, to_text, "lights", "lights", "on"))
    torch.testing.assert_close(found[1], expected("<T_EN>", "heat", *units, to_text))
    assert len(found[2]) == 0
    with pytest.raises(ValueError, match=r"clip 'clip 1' has no units"):
        reader.embed([(SPOKEN[1],)])
    with pytest.raises(ValueError, match=r"there is no glue 'tape'; choose switch or start"):
        UnitPromptReader(model, processor, {}, glue="tape")


def test_a_whole_prompt_is_its_parts(text_reader):
    prompts = [FewShotPrompt(("turn ", WRITTEN), ("heat", " up")), FewShotPrompt((), ("me",))]
    whole, alone = read_whole(text_reader, prompts)
    torch.testing.assert_close(whole, text_reader.embed([("turn lights on heat up",)])[0])
    torch.testing.assert_close(alone, text_reader.embed([("me",)])[0])
    with pytest.raises(ValueError, match=r"a prompt has no query"):
        FewShotPrompt(("turn",), ())


def test_clips_are_equal_by_what_is_read_of_them():
    assert Clip("a", "on", CLIPS[0]) == Clip("a", "on", CLIPS[0].copy()) and Clip("clip 0", "lights on") == WRITTEN
    assert len({SPOKEN[0], WRITTEN, Clip("clip 0", "lights off"), Clip("b", "lights on"), SPOKEN[0]}) == 4


def spacing_tokenizer() -> PreTrainedTokenizerFast:
    """As of Llama 2: it writes a space before every text, in front of those that are there."""
    words = ["<unk>", "</s>", "\u2581", "\u2581Intent:", "\u2581heat", "\u2581up", "heat", "\u2581:"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581[^\u2581]*"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def test_labels_are_tokenized_behind_the_query(text_reader):
    reader = TextPromptReader(text_reader.language_model, spacing_tokenizer())
    prompts = [FewShotPrompt((), ("heat up", WRITTEN, " Intent", ":"))]
    assert reader.answer_tokens(" heat") == [2, 4]  # alone it has two spaces
    assert label_tokens(reader, prompts, [" heat", " heat up"]) == [[4], [4, 5]]
    with pytest.raises(ValueError, match=r"labels are other tokens behind ' Intent:' than behind ''"):
        label_tokens(reader, [*prompts, FewShotPrompt((), (WRITTEN,))], [" heat"])


@pytest.mark.parametrize(
    ("labels", "needle"),
    [
        ((), r"there are no labels, or one of them has no tokens"),
        (("heat", ""), r"there are no labels, or one of them has no tokens: 'heat', ''"),
        (("heat", "lamp", "volume"), r"labels are the same tokens to 'text': 'lamp' 'volume'; choose words"),
        (("heat", "heat"), r"labels are the same tokens to 'text': one that is repeated"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(text_reader, labels, needle):
    with pytest.raises(ValueError, match=needle):
        label_tokens(text_reader, [FewShotPrompt((), ("turn",))], labels)
