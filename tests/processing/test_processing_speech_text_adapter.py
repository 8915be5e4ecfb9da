"""Prompts, clips and answers in, model inputs out: counts at every length, labels, faults, saving, chat, pipeline."""

import json

import numpy as np
import pytest
import soundfile
import tiny_models
import torch
from speech_text_cases import ANSWERS, CLIPS, ENCODINGS, clip
from transformers import AutoProcessor, pipeline

from speechzoo import SpeechTextAdapterProcessor
from speechzoo.processing.audio_loading import AudioError

HOP = {"whisper": 160, "w2v-bert": 160}
CHAT = (
    "{%- for message in messages -%}<s> {{ message.role }} : {{ message.content }} </s> {% endfor -%}"
    "{%- if add_generation_prompt -%}<s> assistant : {% endif -%}"
)


def placeholders(processor, batch):
    return int((torch.as_tensor(batch["input_ids"]) == processor.audio_token_id).sum())


def speech_of(batch):
    return {name: batch[name] for name in ("input_features", "input_features_mask")}


# ---- lengths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize(("family", "encoding"), ENCODINGS)
@torch.no_grad()
def test_every_length_has_as_many_placeholders_as_embeddings(backbones, family, encoding, ratio):
    model, processor = backbones.shared(family, encoding=encoding, reduction_ratio=ratio)
    group = 320 * ratio
    lengths = {processor.minimum_samples + extra for extra in (0, 1, 2)}
    lengths |= {group * multiple + extra for multiple in (3, 4) for extra in (-161, -160, -1, 0, 1, 79, 80, 99, 160)}
    for samples in sorted(length for length in lengths if length >= processor.minimum_samples):
        batch = processor(processor.audio_token, clip(samples), return_tensors="pt")
        embeddings = model.model.get_audio_features(**speech_of(batch)).pooler_output
        assert placeholders(processor, batch) == len(embeddings) > 0, samples
        assert embeddings.isfinite().all()


@pytest.mark.parametrize("reduction", ["stack", "convolution", "average"])
@torch.no_grad()
def test_every_reduction_has_the_same_count(backbones, reduction):
    for ratio in (1, 2, 4, 8):
        model, processor = backbones.shared(reduction=reduction, reduction_ratio=ratio)
        clips = [clip(samples) for samples in range(320 * ratio + 90, 320 * ratio * 3 + 110, 331)]
        batch = processor([processor.audio_token] * len(clips), clips, return_tensors="pt")
        assert placeholders(processor, batch) == len(model.model.get_audio_features(**speech_of(batch)).pooler_output)


@pytest.mark.parametrize(("family", "encoding"), ENCODINGS)
@torch.no_grad()
def test_clips_around_the_shortest(backbones, family, encoding):
    """0, 1, hop - 1, hop, hop + 1 samples, and around the least the encoder takes: an answer or a clear error."""
    model, processor = backbones.shared(family, encoding=encoding)
    least, hop = processor.minimum_samples, HOP.get(family, 320)
    for samples in (0, 1, hop - 1, hop, hop + 1, least - 1, least, least + 1):
        if samples < least:
            with pytest.raises(AudioError, match=r"^clip 0: (there are no samples|\d+ samples are too few)"):
                processor(processor.prompt("asr"), clip(samples))
        else:
            batch = processor(processor.prompt("asr"), clip(samples), return_tensors="pt")
            assert model(**batch).logits.isfinite().all()
    if encoding == "clip":  # the least is not too much
        with pytest.raises((RuntimeError, ValueError)):
            frames = processor.frames(processor.extract(clip(least - 1))[1])
            raise ValueError("no frame came of it") if frames < 1 else AssertionError(f"{frames} frames came of it")


@pytest.mark.parametrize("encoding", ["clip", "window"])
@torch.no_grad()
def test_clips_around_the_window(backbones, encoding):
    model, processor = backbones.shared("whisper", encoding=encoding, reduction_ratio=1)
    window = processor.window_samples
    assert window == 32000
    counts = {}
    for samples in (window - 1, window, window + 1, window + 200, window + 201, 2 * window):
        batch = processor(processor.audio_token, clip(samples), return_tensors="pt")
        counts[samples] = (len(batch["input_features"]), placeholders(processor, batch))
        assert counts[samples][1] == len(model.model.get_audio_features(**speech_of(batch)).pooler_output)
    # What is left of a chunk is dropped where no frame comes of it.
    assert counts == {31999: (1, 100), 32000: (1, 100), 32001: (1, 100), 32200: (1, 100), 32201: (2, 101)} | {
        64000: (2, 200)
    }


def test_chunks_of_a_chosen_length(backbones):
    _, processor = backbones.build()
    processor.chunk_seconds = 0.5
    batch = processor(processor.prompt("asr"), clip(20000), return_tensors="pt")
    assert batch["input_features_mask"].sum(-1).tolist() == [8000, 8000, 4000]


@pytest.mark.parametrize("family", ["wav2vec2", "w2v-bert"])
def test_chunks_of_which_no_frame_comes_are_refused(backbones, family):
    model, processor = backbones.shared(family)
    shortest = processor.minimum_samples / 16000
    chunked = SpeechTextAdapterProcessor.from_model_config(model.config, chunk_seconds=shortest)
    assert len(chunked.chunks(clip(9000))) == 9000 // processor.minimum_samples
    with pytest.raises(ValueError, match=rf"chunk_seconds is .* no frame; give at least {shortest:.4f}"):
        SpeechTextAdapterProcessor.from_model_config(model.config, chunk_seconds=shortest - 1 / 16000)


def test_a_limit_on_the_length_names_the_clip(backbones, tmp_path):
    _, processor = backbones.build()
    processor.max_audio_seconds = 1.0
    soundfile.write(tmp_path / "long.flac", clip(16001), 16000)
    assert processor(processor.prompt("asr"), clip(16000))
    for source, name in (
        (str(tmp_path / "long.flac"), "long.flac"),
        ({"path": str(tmp_path / "long.flac"), "bytes": None}, "long.flac"),
        (clip(16001), "clip 1"),
    ):
        with pytest.raises(AudioError, match=rf"{name}: 1.00 s is longer than max_audio_seconds=1.0"):
            processor([processor.prompt("asr")] * 2, [clip(9000), source])
        with pytest.raises(AudioError, match="longer than max_audio_seconds"):
            processor.apply_chat_template(processor.messages("asr", source), tokenize=True, return_dict=True)


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "empty.flac").write_bytes(b"")
    soundfile.write(folder / "whole.flac", clip(16000), 16000)
    whole = (folder / "whole.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    not_a_number = clip(16000)
    not_a_number[77] = np.nan
    return {
        "empty.flac: the file is empty": str(folder / "empty.flac"),
        "truncated.flac: the file is truncated": str(folder / "truncated.flac"),
        "missing.flac: there is no such file": str(folder / "missing.flac"),
        "are NaN or infinite, the first is number 77": not_a_number,
    }


@pytest.mark.parametrize("through", ["call", "chat"])
@pytest.mark.parametrize("which", range(4))
def test_faulty_audio_is_one_clear_error(backbones, faulty, which, through):
    _, processor = backbones.shared()
    message, source = list(faulty.items())[which]
    with pytest.raises(AudioError, match=message):
        if through == "call":
            processor(processor.prompt("asr"), source)
        else:
            processor.apply_chat_template(processor.messages("asr", source), tokenize=True, return_dict=True)


def test_stereo_at_8_khz_is_what_it_sounds_like(backbones, tmp_path):
    _, processor = backbones.shared()
    time = np.arange(16000) / 16000
    tone = (0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone[::2] * 1.5, tone[::2] * 0.5], 1), 8000, subtype="FLOAT")
    expected = processor(processor.prompt("asr"), tone)["input_features"][0]
    for batch in (
        processor(processor.prompt("asr"), str(tmp_path / "stereo.wav")),
        processor.apply_chat_template(
            processor.messages("asr", str(tmp_path / "stereo.wav")), tokenize=True, return_dict=True
        ),
        processor(processor.prompt("asr"), {"array": tone[::2], "sampling_rate": 8000}),
        processor(processor.prompt("asr"), tone[::2], sampling_rate=8000),
    ):
        got = np.asarray(batch["input_features"][0])
        assert len(got) == 16000
        assert np.abs(got - expected)[400:-400].max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(("text", "clips"), [("{}", 2), ("{} {}", 1), ("turn on", 1), ("{}", 0)])
def test_a_wrong_number_of_clips_is_an_error(backbones, text, clips):
    _, processor = backbones.shared()
    prompt = text.replace("{}", processor.audio_token)
    with pytest.raises(ValueError, match=r"audio|clips|placeholder"):
        processor(prompt, [clip(9000)] * clips or None)
    with pytest.raises(ValueError, match=r"audio|clips|placeholder"):
        processor(prompt, [clip(9000)] * clips or None, targets="heat up")


def test_a_wrong_number_of_encoded_clips_is_an_error(backbones):
    _, processor = backbones.shared()
    frames = [np.zeros((9, 32), dtype=np.float32)]
    with pytest.raises(ValueError, match=r"the prompts hold 1 <\|audio\|> for 2 clips; give one clip for each"):
        processor(processor.prompt("asr"), targets="heat up", encoder_frames=[frames, frames])


def test_tasks_and_their_clips_are_checked(backbones):
    _, processor = backbones.shared()
    with pytest.raises(ValueError, match="there is no prompt 'translate'; this processor has asr"):
        processor.messages("translate", clip(9000))
    with pytest.raises(ValueError, match="takes 1 clips, 2 were given"):
        processor.messages("asr", clip(9000), clip(9000))
    with pytest.raises(ValueError, match="2 targets were given for 1 prompts"):
        processor(processor.prompt("asr"), clip(9000), targets=["heat up", "lights"])
    with pytest.raises(ValueError, match="padding_side is 'middle'"):
        processor(processor.prompt("asr"), clip(9000), targets=["heat up"], padding_side="middle")


# ---- prompts and labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_of_a_causal_llm_are_the_answer_and_its_end(backbones, side):
    _, processor = backbones.shared("wav2vec2", "llama")
    prompts = [processor.prompt("asr"), "turn " + processor.prompt("asr")]
    batch = processor(prompts, CLIPS[:2], targets=ANSWERS[:2], padding_side=side, return_tensors="pt")
    prompt_tokens = processor(prompts, CLIPS[:2], padding_side="right", return_tensors="pt")
    for row in range(2):
        answer = [*processor.tokenizer(ANSWERS[row], add_special_tokens=False)["input_ids"], 2]
        seen = batch["attention_mask"][row].bool()
        prompt = prompt_tokens["input_ids"][row][prompt_tokens["attention_mask"][row].bool()].tolist()
        assert batch["input_ids"][row][seen].tolist() == prompt + answer
        assert batch["labels"][row][seen].tolist() == [-100] * len(prompt) + answer
        assert (batch["labels"][row][~seen] == -100).all() and (batch["input_ids"][row][~seen] == 0).all()
    short = batch["attention_mask"][1]
    assert short[-1 if side == "left" else 0] == 1 and short[0 if side == "left" else -1] == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_of_an_encoder_decoder_are_a_sequence_of_their_own(backbones, side):
    _, processor = backbones.shared("wav2vec2", "t5")
    batch = processor(
        [processor.prompt("asr")] * 2, CLIPS[:2], targets=ANSWERS[:2], padding_side=side, return_tensors="pt"
    )
    expected = [[*processor.tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in ANSWERS[:2]]
    assert batch["labels"].tolist() == [expected[0], expected[1] + [-100] * 2]
    alone = processor(processor.prompt("asr"), CLIPS[0], return_tensors="pt")
    assert batch["input_ids"][0].tolist() == alone["input_ids"][0].tolist()
    assert alone["input_ids"][0, -1] == 2  # the prompt ends as in pre-training


def test_speech_stands_anywhere_and_several_times(backbones):
    _, processor = backbones.build(prompts={"both": "turn {audio} off {audio} lights"})
    text = processor.prompt("both")
    assert text == "<s>turn <|audio|> off <|audio|> lights"
    batch = processor(text, [clip(5123), clip(9000)])
    counts = [processor.embeddings(processor.frames(samples)) for samples in (5123, 9000)]
    words = processor.tokenizer.get_vocab()
    audio = processor.audio_token_id
    assert batch["input_ids"][0] == [
        *(1, words["turn"], *[audio] * counts[0], words["off"], *[audio] * counts[1], words["lights"])
    ]
    message = processor.messages("both", "a.wav", "b.wav")[0]["content"]
    assert [item.get("audio") or item["text"] for item in message] == ["turn ", "a.wav", " off ", "b.wav", " lights"]


def test_prompts_to_generate_end_together(backbones):
    """A causal LLM's are padded on the left whatever its tokenizer says; an encoder-decoder's on the right."""
    for family, column in (("llama", -1), ("t5", 0)):
        _, processor = backbones.shared("wav2vec2", family)
        texts = [processor.prompt("asr"), "turn " + processor.prompt("asr")]
        mask = processor(texts, CLIPS[:2], return_tensors="pt")["attention_mask"]
        assert mask[:, column].all() and not mask[:, -1 - column].all()


def test_a_tokenizer_without_padding_pads_with_its_end(backbones, tmp_path):
    _, processor = backbones.shared()
    tokenizer = tiny_models.tokenizer()
    tokenizer.pad_token = None
    bare = SpeechTextAdapterProcessor(processor.feature_extractor, tokenizer)
    batch = bare([bare.prompt("asr"), "turn " + bare.prompt("asr")], CLIPS[:2], return_tensors="pt")
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 2).all()
    learned = bare([bare.prompt("asr")] * 2, CLIPS[:2], targets=ANSWERS[:2], return_tensors="pt")
    assert (learned["labels"] == 2).sum() == 2  # the ends of the answers; padding is not one


def test_a_placeholder_that_is_a_word_already_keeps_its_id(backbones):
    _, processor = backbones.shared()
    tokenizer = tiny_models.tokenizer()
    known = SpeechTextAdapterProcessor(processor.feature_extractor, tokenizer, audio_token="shoes")
    assert known.audio_token_id == tiny_models.tokenizer().convert_tokens_to_ids("shoes")
    batch = known(known.prompt("asr"), clip(9000))
    assert batch["input_ids"][0].count(known.audio_token_id) == known.embeddings(known.frames(9000)) > 1


def test_answers_leave_out_the_prompt_of_a_causal_llm_alone(backbones):
    generated = torch.tensor([[1, 9, 9, 4, 5, 2, 0]])
    for family, answer in (("llama", "turn on"), ("t5", "kitchen kitchen turn on")):
        _, processor = backbones.shared("wav2vec2", family)
        words = processor.tokenizer.get_vocab()
        generated[0, 1:3] = words["kitchen"]
        assert processor.decode_answers(generated, torch.tensor([[1, 9, 9]])) == [answer]


# ---- chat ----------------------------------------------------------------------------------------------------------


def with_chat_template(backbones, template=CHAT):
    _, processor = backbones.shared()
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = template
    return SpeechTextAdapterProcessor(processor.feature_extractor, tokenizer, prompts={"asr": "speech {audio} please"})


def test_a_template_made_for_text_learns_where_audio_goes(backbones):
    processor = with_chat_template(backbones)
    assert processor.prompt("asr") == "<s> user : speech <|audio|> please </s> <s> assistant : "
    chat = [
        {"role": "system", "content": "turn on"},
        {"role": "user", "content": [{"type": "audio", "audio": clip(9000)}, {"type": "text", "text": " lights "}]},
        {"role": "assistant", "content": "heat up"},
        {"role": "user", "content": [{"type": "audio", "audio": clip(5123)}]},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == (
        "<s> system : turn on </s> <s> user : <|audio|> lights  </s> <s> assistant : heat up </s> "
        "<s> user : <|audio|> </s> <s> assistant : "
    )
    batch = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    direct = processor(text, [clip(9000), clip(5123)])
    assert batch["input_ids"] == direct["input_ids"]
    assert np.array_equal(batch["input_features"], direct["input_features"])


def test_an_llm_that_can_think_first_answers_at_once_unless_asked(backbones):
    """What begins with thoughts would be taught, compared and generated in place of the answer."""
    processor = with_chat_template(
        backbones, CHAT + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    assert processor.prompt("asr") == "<s> user : speech <|audio|> please </s> <s> assistant : <think></think>"
    chat = processor.messages("asr", clip(9000))
    thoughtful = processor.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=True)
    assert thoughtful == "<s> user : speech <|audio|> please </s> <s> assistant : "


def test_a_batch_of_chats(backbones):
    processor = with_chat_template(backbones)
    chats = [processor.messages("asr", samples) for samples in CLIPS[:2]]
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = processor.apply_chat_template(chats, **settings)
    direct = processor([processor.prompt("asr")] * 2, CLIPS[:2], return_tensors="pt")
    assert batch.keys() == direct.keys() and all(torch.equal(batch[name], direct[name]) for name in direct)


def test_audio_without_a_source_is_an_error(backbones):
    _, processor = backbones.shared()
    chat = [{"role": "user", "content": [{"type": "audio"}]}]
    with pytest.raises(AudioError, match="holds audio without a source; give one of audio, path, url"):
        processor.apply_chat_template(chat, tokenize=True, return_dict=True)


# ---- saving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "encoding"), [("whisper", "window"), ("w2v-bert", "clip"), ("hubert", "clip")])
def test_a_saved_processor_does_the_same(backbones, tmp_path, family, encoding):
    _, processor = backbones.build(
        family, encoding=encoding, reduction_ratio=2, prompts={"asr": "speech {audio}", "intent": "{audio} please"}
    )
    processor.max_audio_seconds, processor.chunk_seconds = 9.5, 1.5
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is SpeechTextAdapterProcessor
    for name in (
        *("prompts", "audio_token", "audio_token_id", "frame_kernel", "frame_stride", "reduction_ratio", "encoding"),
        *("chunk_seconds", "max_audio_seconds", "is_encoder_decoder", "chat_template", "time_axis", "minimum_samples"),
    ):
        assert getattr(loaded, name) == getattr(processor, name), name
    for task in ("asr", "intent"):
        assert loaded.prompt(task) == processor.prompt(task)
    before = processor([processor.prompt("intent")] * 4, CLIPS, targets=ANSWERS, return_tensors="pt")
    after = loaded([loaded.prompt("intent")] * 4, CLIPS, targets=ANSWERS, return_tensors="pt")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_saved_names_no_folder_of_this_machine(backbones, tmp_path):
    _, processor = backbones.build()
    processor.save_pretrained(tmp_path)
    for file in tmp_path.glob("*.json"):
        assert str(backbones.folder) not in file.read_text(), file.name
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == (
        "SpeechTextAdapterProcessor"
    )


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_pipeline_answers_chat_messages(backbones, tmp_path, family):
    model, processor = backbones.build("wav2vec2", family)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "clip.flac", CLIPS[0], 16000)
    pipe = pipeline("any-to-any", model=str(tmp_path / "model"), device="cpu")
    messages = processor.messages("asr", str(tmp_path / "clip.flac"))
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "suppress_tokens": [0, 1, 2, 3]}
    batch = processor(processor.prompt("asr"), str(tmp_path / "clip.flac"), return_tensors="pt")
    expected = processor.decode_answers(model.generate(**batch, **settings), batch["input_ids"])[0]
    assert len(expected.split()) == 4
    (answer,) = pipe(text=messages, return_full_text=False, generate_kwargs={**settings})
    assert answer["generated_text"].strip() == expected
    (whole,) = pipe(text=messages, generate_kwargs={**settings})
    assert whole["generated_text"][0] == messages[0]
    assert whole["generated_text"][-1]["content"].strip() == expected
