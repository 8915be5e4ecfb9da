"""Training of Seal: targets that the LLM writes, teachers that were kept, and what moves."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from speech_text_cases import ANSWERS, CLIPS

from speechzoo import SealProjectorForConditionalGeneration
from speechzoo.data.corpora import task_examples
from speechzoo.data.seal_collator import SealCollator
from speechzoo.data.teacher_distributions import TeacherStore
from speechzoo.data.written_answers import written_answers
from speechzoo.evaluation import teacher_divergence
from speechzoo.evaluation.teacher_divergence import divergence_measurements, teacher_divergences
from speechzoo.training import seal_training
from speechzoo.training.adapter_arguments import OptimizationArguments, OutputArguments
from speechzoo.training.adapter_training import make_trainer, train, training_arguments
from speechzoo.training.seal_arguments import AlignmentArguments, InContextArguments
from speechzoo.training.seal_training import (
    check_alignment,
    learned_examples,
    measured_examples,
    shown_transcripts,
    teacher_collator,
    with_demonstrated,
    with_written_targets,
)

PROMPTS = {"asr": "Say it again: {audio} Again:", "intent": "{audio} What is wanted?"}
SEAL = {"system": SealProjectorForConditionalGeneration, "prompts": PROMPTS}


@pytest.fixture(scope="module")
def examples():
    rows = [
        {"id": f"c{n}", "audio": {"array": CLIPS[n].tolist(), "sampling_rate": 16000}, "text": text, "intent": "x"}
        for n, text in enumerate(ANSWERS)
    ]
    return task_examples(Dataset.from_list(rows), {"asr": "text", "intent": "intent"})


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_llm_writes_what_it_says_of_the_transcript(backbones, examples, family):
    model, processor = backbones.build("wav2vec2", family, **SEAL)
    collator = SealCollator(processor)
    rows = with_written_targets(model, collator, examples, AlignmentArguments(answers=["intent"], answer_tokens=5))
    assert rows["target"][:4] == ANSWERS and rows["id"] == examples["id"]
    for row in rows.select(range(4, 8)):
        prompt = collator.teacher_prompt(row)
        assert prompt.count(row["transcript"]) == 1 and processor.audio_token not in prompt
        ids = processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        generated = model.model.language_model.generate(input_ids=ids, max_new_tokens=5, do_sample=False)
        assert processor.decode_answers(generated, ids) == [row["target"]]
    alone = examples.select(range(4))
    assert with_written_targets(model, collator, alone, AlignmentArguments(answers=["intent"]))["target"] == ANSWERS
    with pytest.raises(ValueError, match="prompt 'mt'; this processor has asr, intent"):
        with_written_targets(model, collator, examples, AlignmentArguments(answers=["mt"]))


def test_the_llm_writes_and_is_kept_where_it_will_be_trained(backbones, examples, tmp_path, monkeypatch):
    """That is the accelerator where there is one, though loading leaves a model in main memory."""
    model, processor = backbones.build(**SEAL)
    places = []

    def written(model, processor, prompts, length):
        places.append(model.device.type)
        return ["x"] * len(prompts)

    monkeypatch.setattr(seal_training, "PartialState", lambda: SimpleNamespace(device=torch.device("meta")))
    monkeypatch.setattr(seal_training, "TeacherStore", lambda *_: None)
    monkeypatch.setattr(seal_training, "keep_distributions", lambda *_: places.append(model.device.type))
    alignment, collator = AlignmentArguments(answers=["intent"], kept_tokens=4), SealCollator(processor)
    monkeypatch.setattr(seal_training, "written_answers", written)
    with_written_targets(model, collator, examples, alignment)
    model, _ = backbones.build(**SEAL)
    teacher_collator(model, collator, [examples], alignment, OptimizationArguments(cache_directory=tmp_path))
    assert places == ["meta", "meta"]


def test_what_cannot_be_asked_is_refused_before_training(backbones, examples):
    model, processor = backbones.build(**SEAL)
    silent = examples.remove_columns("transcript").add_column("transcript", [*ANSWERS, *ANSWERS[:3], ""])
    collator = SealCollator(processor)
    for ask, settings in ((learned_examples, {}), (measured_examples, {"objective": "psrt"})):
        with pytest.raises(ValueError, match="clip 'c3' has no transcript for the teacher to read"):
            ask(model, collator, silent, AlignmentArguments(**settings))
    assert len(learned_examples(model, collator, silent, AlignmentArguments("cross_entropy"))) == 8
    with pytest.raises(ValueError, match="'intent', which is no task; choose of asr"):
        check_alignment(AlignmentArguments(answers=["intent"]), {"asr": "text"})
    with pytest.raises(ValueError, match="leave first_token out"):
        check_alignment(AlignmentArguments("psrt", first_token=True), {"asr": "text"})


def test_a_teacher_that_reads_trained_tokens_is_not_kept(backbones, examples, tmp_path):
    prompts = {"asr": "<again> {audio}", "intent": "{audio}"}
    model, processor = backbones.build(**{**SEAL, "prompts": prompts}, new_tokens=["<again>"])
    optimization = OptimizationArguments(cache_directory=tmp_path)
    with pytest.raises(ValueError, match=r"new tokens .* run it live"):
        teacher_collator(model, SealCollator(processor), [examples], AlignmentArguments(kept_tokens=4), optimization)


def test_psrt_learns_transcripts_alone(backbones, examples):
    model, processor = backbones.build(**SEAL)
    alignment = AlignmentArguments(objective="psrt", answers=["intent"])
    rows = learned_examples(model, SealCollator(processor), examples, alignment)
    assert set(rows["task"]) == {"asr"} and rows["target"] == ANSWERS
    collator = teacher_collator(model, SealCollator(processor), [rows], alignment, OptimizationArguments())
    assert "teacher_labels" not in collator([rows[0]])
    with pytest.raises(ValueError, match="leave a prompt out"):
        learned_examples(
            model, SealCollator(processor), examples, AlignmentArguments("psrt", answers=["asr", "intent"])
        )


def test_a_prompt_without_weight_is_tested_and_not_learned(backbones, examples):
    model, processor = backbones.build(**SEAL)
    alignment = AlignmentArguments(answers=["intent"], weights={"intent": 0.0}, answer_tokens=3)
    learned = learned_examples(model, SealCollator(processor), examples, alignment)
    assert set(learned["task"]) == {"asr"} and learned["target"] == ANSWERS
    tested = with_written_targets(model, SealCollator(processor), examples, alignment)
    assert set(tested["task"]) == {"asr", "intent"}
    with pytest.raises(ValueError, match=r"leave one out of `weights`"):
        learned_examples(
            model, SealCollator(processor), examples, AlignmentArguments(weights={"asr": 0.0, "intent": 0.0})
        )


@pytest.mark.parametrize("first_token", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
@torch.no_grad()
def test_a_kept_teacher_gives_the_loss_of_a_live_one_and_runs_no_more(
    backbones, examples, tmp_path, family, first_token, monkeypatch
):
    model, processor = backbones.build("wav2vec2", family, **SEAL)
    live = SealCollator(processor, first_token=first_token)
    kept_tokens = model.config.vocab_size
    alignment = AlignmentArguments(kept_tokens=kept_tokens, first_token=first_token)
    optimization = OptimizationArguments(cache_directory=tmp_path)
    kept = teacher_collator(model, live, [examples], alignment, optimization)
    assert isinstance(kept.teachers, TeacherStore) and len(kept.teachers) == len(examples)
    rows = [examples[place] for place in (0, 5, 3, 6)]
    expected = model(**live(rows)).loss.item()
    monkeypatch.setattr(type(model), "_taught", None)
    monkeypatch.setattr(type(model), "teacher_distributions", None)
    assert model(**kept(rows)).loss.item() == pytest.approx(expected, rel=1e-4)
    again = teacher_collator(model, live, [examples], alignment, optimization)
    assert model(**again(rows)).loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_projector_alone_moves_and_comes_closer(backbones, examples, tmp_path):
    model, processor = backbones.build(**SEAL)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    settings = {"disable_tqdm": True, "logging_steps": 1}
    optimization = OptimizationArguments(
        max_steps=12, batch_size=8, learning_rate=3e-3, warmup_steps=0, bf16=False, training_arguments=settings
    )
    arguments = training_arguments(optimization, OutputArguments(output_dir=tmp_path), 12, evaluates=False)
    collator = SealCollator(processor)
    measured = [divergence_measurements("test", model, collator, examples)]
    trainer = make_trainer(model, collator, examples, None, arguments)
    train(trainer, resume=False)
    measured.append(divergence_measurements("test", model, collator, examples))
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if ".projector." in name}
    for first, last in zip(*measured, strict=True):
        assert first.name == last.name and last.value < first.value
    assert measured[1][0].name == "test: asr"


@pytest.mark.parametrize("first_token", [False, True])
def test_held_out_divergences_are_those_of_each_clip_alone(backbones, examples, monkeypatch, first_token):
    monkeypatch.setattr(teacher_divergence, "_BATCH", 3)
    model, processor = backbones.build(**SEAL)
    model.eval()
    collator = SealCollator(processor, first_token=first_token)
    sums, counts = teacher_divergences(model, SealCollator(processor, {"asr": 3.0}, first_token), examples)
    assert len(sums) == len(examples) and (max(counts) == 1) == first_token
    for example, total, count in zip(examples, sums, counts, strict=True):
        assert model(**collator([example])).loss.item() * count == pytest.approx(total, abs=1e-6)


def test_the_teacher_reads_demonstrations_and_answers_behind_them(backbones, examples, monkeypatch):
    def two_classes(model, processor, prompts, length):
        """As the LLM writes behind demonstrations, and two classes without, of which a random LLM knows none."""
        if " means " in prompts[0]:
            return written_answers(model, processor, prompts, length)
        return ["short" if len(prompt) % 2 else "long" for prompt in prompts]

    monkeypatch.setattr(seal_training, "written_answers", two_classes)
    prompts = {**PROMPTS, "shown": "{context}{audio} What is wanted?"}
    model, processor = backbones.build(**{**SEAL, "prompts": prompts})
    collator = SealCollator(processor)
    alignment = AlignmentArguments(answers=["intent"], answer_tokens=2)
    shown = InContextArguments({"shown": "intent"}, "{transcript} means {label}. ", demonstration_ways=2)
    said = Dataset.from_list(
        [{**row, "id": f"{row['id']}-{copy}", "transcript": row["transcript"] + " now" * copy}
         for row in examples for copy in range(3)]
    )  # fmt: skip
    rows = learned_examples(model, collator, said, alignment)
    transcripts = shown_transcripts(model, collator, said, alignment, shown)
    behind = with_demonstrated(model, collator, rows, said, alignment, shown, transcripts, seed=0)
    added = behind.select(range(len(rows), len(behind)))
    assert behind["target"][: len(rows)] == rows["target"] and len(added) and set(added["task"]) == {"shown"}
    for row in added:
        read = collator.teacher_prompt(row)
        assert row["context"] in read and read.index(row["context"]) < read.rindex(row["transcript"])
        ids = processor.tokenizer(read, add_special_tokens=False, return_tensors="pt").input_ids
        written = model.model.language_model.generate(input_ids=ids, max_new_tokens=2, do_sample=False)
        assert processor.decode_answers(written, ids) == [row["target"]]
    loss = model(**collator([added[0], behind[0]])).loss
    assert loss.isfinite() and loss > 0


@pytest.mark.parametrize(
    ("demonstrated", "settings", "message"),
    [
        ({"shown": "asr"}, {"answers": ["intent"]}, "name it in `answers`"),
        ({"asr": "intent"}, {"answers": ["intent"]}, "no prompt with {context}"),
        ({"shown": "intent"}, {"answers": ["intent"], "weights": {"shown": 0.0}}, "has the weight 0"),
        ({"shown": "intent"}, {"objective": "psrt", "answers": ["intent"]}, "psrt learns transcripts alone"),
    ],
    ids=str,
)
def test_demonstrations_that_cannot_be_meant(backbones, examples, demonstrated, settings, message):
    model, processor = backbones.build(**SEAL)
    shown, alignment = InContextArguments(demonstrated), AlignmentArguments(**settings)
    with pytest.raises(ValueError, match=message):
        shown_transcripts(model, SealCollator(processor), examples, alignment, shown)
