"""Instructions about clips: named, free, in rows, over long clips; and transformers' own pipelines with messages."""

import pytest
from pipeline_cases import CLIPS, near
from speech_text_cases import clip
from sutlm_cases import joint_model, joint_processor
from transformers import AutoModelForCausalLM, TextStreamer, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from speechzoo import SealProjectorForConditionalGeneration
from speechzoo.hub_cards.code_export import export_code
from speechzoo.pipelines import pipelines_of
from speechzoo.processing.audio_loading import save_audio

TASK = "speech-instruction"
SHORT = {"max_new_tokens": 5}


@pytest.fixture(scope="module")
def folder(backbones, tmp_path_factory):
    """With the code that the Hub would have: here no code of it is to run, and none asks for trust."""
    folder = tmp_path_factory.mktemp("seal")
    prompts = {"asr": "transcribe {audio}"}
    model, processor = backbones.build(
        "whisper", "qwen3", system=SealProjectorForConditionalGeneration, prompts=prompts
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    export_code(folder, pipelines_of(model.config.from_pretrained(folder)))
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(TASK, model=str(folder), **SHORT)


def test_code_in_the_folder_asks_for_no_trust(folder, pipe):
    assert '"custom_pipelines"' in (folder / "config.json").read_text()
    assert type(pipe) is PIPELINE_REGISTRY.supported_tasks[TASK]["impl"]
    assert all(type(part).__module__.startswith("speechzoo.") for part in (pipe, pipe.model, pipe.processor))


def test_an_instruction_is_put_around_the_speech(pipe):
    processor = pipe.processor
    batch = processor([processor.prompt("asr")], [CLIPS[0]], return_tensors="pt")
    said = processor.decode_answers(pipe.model.generate(**batch, **SHORT, do_sample=False), batch["input_ids"])
    same = [pipe(CLIPS[0]), pipe(CLIPS[0], prompt="asr"), pipe(CLIPS[0], instruction="transcribe {audio}")]
    same += [pipe(CLIPS[0], instruction="transcribe"), pipe({"audio": CLIPS[0], "instruction": "transcribe "})]
    assert all(near(one, same[0]) for one in same) and same[0]["text"] == said[0]
    other = pipe(CLIPS[0], instruction="{audio} bring me the lights")
    assert not near(other["score"], same[0]["score"])


def test_an_answer_that_is_cut_off_is_told(pipe, caplog):
    end = pipe.processor.tokenizer.eos_token_id
    row = {"audio": CLIPS[0], "id": "morning"}
    pipe(row, instruction="transcribe", forced_eos_token_id=end)
    assert not caplog.messages
    pipe(row, instruction="transcribe", suppress_tokens=[end])
    assert [one[:7] for one in caplog.messages] == ["morning"] and "max_new_tokens" in caplog.text


def test_rows_bring_instructions_of_their_own(pipe):
    asked = ["heat up", "transcribe", "heat up", None]
    rows = [{"audio": one, "instruction": text} for one, text in zip([*CLIPS, CLIPS[0]], asked, strict=True)]
    del rows[3]["instruction"]
    alone = [pipe(row["audio"], instruction=row.get("instruction", "bring {audio}")) for row in rows]
    assert near(pipe(rows, batch_size=4, instruction="bring {audio}"), alone)
    assert not near(alone[0], alone[3])


def test_a_clip_longer_than_the_window_is_heard_whole(pipe):
    """The processor cuts it at the encoder's window of two seconds, and the model reads all embeddings."""
    long = clip(70000, 4)
    assert "chunks" not in pipe(long) and not near(pipe(long), pipe(long[:40000]))
    chunked = pipe(long, chunk_seconds=2.0)
    assert chunked["text"] == " ".join(chunk["text"] for chunk in chunked["chunks"] if chunk["text"])
    assert len(chunked["chunks"]) > 2


def test_among_labels_the_answer_is_one_of_them(folder):
    found = pipeline(TASK, model=str(folder))(CLIPS[0], instruction="which {audio}", labels=["on", "off"])
    assert set(found["scores"]) == {"on", "off"} and near(sum(found["scores"].values()), 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instruction": "a", "prompt": "asr"}, r"give one of the two"),
        ({"instruction": "{audio} or {audio}"}, r"holds 2 \{audio\}; write one"),
        ({"instruction": "<|audio|> {audio}"}, r"2 <\|audio\|> for 1 clips"),
        ({"prompt": "mt"}, r"there is no prompt 'mt'"),
    ],
)
def test_instructions_that_cannot_be_followed_are_refused(pipe, given, message):
    with pytest.raises(ValueError, match=message):
        pipe(CLIPS[0], **given)


def test_several_prompts_want_a_choice(backbones):
    model, processor = backbones.build(prompts={"a": "{audio}", "b": "on {audio}"})
    with pytest.raises(ValueError, match=r"give an instruction, or one of this model's prompts: a, b"):
        pipeline(TASK, model=model, processor=processor)(CLIPS[0])


# ---- transformers' own ---------------------------------------------------------------------------------------------


def any_to_any(folder):
    try:
        return pipeline("any-to-any", model=str(folder))
    except ImportError as error:  # older versions of transformers ask for librosa, whatever is heard
        if "librosa" not in str(error):
            raise
        pytest.skip(str(error))


def chat_about(path):
    content = [{"type": "text", "text": "transcribe "}, {"type": "audio", "path": str(path)}]
    return [{"role": "user", "content": content}]


def test_any_to_any_takes_messages_with_speech(folder, pipe, tmp_path):
    save_audio(tmp_path / "clip.flac", CLIPS[0] / 2)
    found = any_to_any(folder)(chat_about(tmp_path / "clip.flac"), return_full_text=False, do_sample=False, **SHORT)
    assert found[0]["generated_text"].strip() == pipe(str(tmp_path / "clip.flac"))["text"]


def test_any_to_any_writes_by_an_encoder_decoder(backbones, tmp_path):
    model, processor = backbones.build("wav2vec2", "t5", prompts={"asr": "transcribe {audio}"})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pipe, found, wanted = any_to_any(tmp_path), [], []
    for number in (0, 2):
        path = tmp_path / f"{number}.flac"
        save_audio(path, CLIPS[number] / 2)
        found += pipe(chat_about(path), return_full_text=False, do_sample=False, **SHORT)
        batch = processor([processor.prompt("asr")], [str(path)], return_tensors="pt")
        wanted += processor.decode_answers(model.generate(**batch, do_sample=False, **SHORT), batch["input_ids"])
    assert [one["generated_text"].strip() for one in found] == wanted and len(set(wanted)) == 2


def test_text_generation_streams_what_it_returns(tmp_path, capsys):
    processor = joint_processor()
    joint_model("llama", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pipe = pipeline("text-generation", model=str(tmp_path))
    streamer = TextStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
    found = pipe("turn on the", streamer=streamer, return_full_text=False, do_sample=False, **SHORT)
    assert capsys.readouterr().out.split() == found[0]["generated_text"].split() != []


def test_text_generation_goes_on_in_text(tmp_path):
    processor = joint_processor()
    joint_model("llama", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = pipeline("text-generation", model=str(tmp_path))("turn on the", do_sample=False, **SHORT)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = processor.tokenizer("turn on the", return_tensors="pt")
    said = model.generate(**prompt, do_sample=False, **SHORT)
    new = processor.tokenizer.decode(said[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert found[0]["generated_text"].removeprefix("turn on the").split() == new.split() != []
