"""Training: exact accumulation, what moves and what does not, interruptions that leave no trace."""

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from speech_text_cases import clip
from transformers import TrainerCallback

from speechzoo.data.corpora import task_examples
from speechzoo.data.speech_text_collator import SpeechTextCollator
from speechzoo.training.adapter_arguments import DataArguments, OptimizationArguments, OutputArguments
from speechzoo.training.adapter_training import (
    answer_field,
    make_trainer,
    optimizer_updates,
    read_examples,
    read_training_examples,
    refuse_shared_clips,
    train,
    training_arguments,
)

WORDS = ["turn", "on", "the", "lights", "heat", "up", "please", "bring"]


@pytest.fixture(scope="module")
def examples():
    """Eight clips whose answers have one to eight words."""
    rows = [
        {
            "id": f"clip-{index}",
            "audio": {"array": clip(3000 + 700 * index, index).tolist(), "sampling_rate": 16000},
            "text": " ".join(WORDS[: index + 1]),
            "duration": (3000 + 700 * index) / 16000,
        }
        for index in range(8)
    ]
    return task_examples(Dataset.from_list(rows), {"asr": "text"})


def trainer_of(model, processor, examples, folder, callbacks=(), **settings):
    chosen = {
        "max_steps": 3,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "bf16": False,
        "workers": 0,
        "training_arguments": {"disable_tqdm": True, "logging_steps": 1},
    }
    optimization = OptimizationArguments(**{**chosen, **settings})
    output = OutputArguments(output_dir=folder, save_steps=2)
    arguments = training_arguments(optimization, output, optimization.max_steps, evaluates=False)
    trainer = make_trainer(model, SpeechTextCollator(processor), examples, None, arguments)
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer


def losses(trainer):
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "t5"))]
)
def test_accumulation_is_exact(backbones, examples, tmp_path, family):
    """8 x 1, 4 x 2 and 1 x 8 clips of unequal answers make the same update."""
    results = []
    for batch_size, steps in ((8, 1), (4, 2), (1, 8)):
        model, processor = backbones.build("wav2vec2", family)
        # Plain gradient descent, for Adam divides the size of an error away.
        settings = {
            "disable_tqdm": True,
            "optim": "sgd",
            "logging_steps": 1,
            "max_grad_norm": 0.0,
            "save_strategy": "no",
        }
        trainer = trainer_of(
            model,
            processor,
            examples,
            tmp_path / str(batch_size),
            max_steps=1,
            batch_size=batch_size,
            accumulation_steps=steps,
            learning_rate=0.5,
            weight_decay=0.0,
            training_arguments=settings,
        )
        before = {name: weight.detach().clone() for name, weight in model.model.adapter.named_parameters()}
        train(trainer, resume=False)
        moved = {name: weight.detach() - before[name] for name, weight in model.model.adapter.named_parameters()}
        results.append((moved, losses(trainer)[1]))
    whole, loss = results[0]
    largest = max(change.abs().max() for change in whole.values())
    assert largest > 1e-3
    for moved, other_loss in results[1:]:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, change in moved.items():
            assert (change - whole[name]).abs().max() < 1e-4 * largest, name


@pytest.mark.parametrize("unfrozen", [None, [r"audio_tower\.encoder\.layers\.1\."], ["audio_tower", "language_model"]])
def test_what_should_move_moves_and_nothing_else(backbones, examples, tmp_path, unfrozen):
    model, processor = backbones.build("hubert", "qwen3", unfrozen=unfrozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert (unfrozen is None) == all(".adapter." in name for name in trained)
    train(trainer_of(model, processor, examples, tmp_path), resume=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    unused = {name for name in trained if name.endswith("masked_spec_embed")}  # in use where SpecAugment draws a span
    assert changed - unused == trained - unused
    assert model.model.audio_tower.training == (unfrozen is not None)


@pytest.mark.parametrize(
    ("family", "fields"),
    [("llama", {"random_phase": True, "adapter_dropout": 0.2}), pytest.param("mt5", {}, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(backbones, examples, tmp_path, family, fields):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    def run(folder, callbacks=(), resume=False):
        model, processor = backbones.build("wav2vec2", family, **fields)
        trainer = trainer_of(model, processor, examples, tmp_path / folder, callbacks, max_steps=6, batch_size=3)
        train(trainer, resume)
        return model, losses(trainer)

    whole, expected = run("whole")
    run("broken", [Interrupt()])
    (checkpoint,) = (tmp_path / "broken" / "checkpoints").glob("checkpoint-*")
    assert checkpoint.name in ("checkpoint-2", "checkpoint-3")
    assert all(".adapter." in name for name in load_file(checkpoint / "model.safetensors"))
    resumed, continued = run("broken", resume=True)
    assert continued == expected and len(expected) == 6
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


def test_a_trained_llm_is_resumed_too(backbones, examples, tmp_path):
    """Trainer loads a checkpoint by names; those of an unfrozen LLM must be the model's."""
    model, processor = backbones.build("wav2vec2", "llama", unfrozen=["language_model"])
    train(trainer_of(model, processor, examples, tmp_path, max_steps=2), resume=False)
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other, _ = backbones.build("wav2vec2", "llama", unfrozen=["language_model"])
    trainer = trainer_of(other, processor, examples, tmp_path, max_steps=2)
    train(trainer, resume=True)  # nothing is left to do but to load
    assert all(torch.equal(tensor, trained[name]) for name, tensor in other.state_dict().items())


def test_resuming_from_nothing_is_an_error(backbones, examples, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    trainer = trainer_of(*backbones.shared(), examples, tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint; train with --save_steps first"):
        train(trainer, resume=True)


def test_epochs_become_updates():
    settings = OptimizationArguments(epochs=3, batch_size=4, accumulation_steps=2)
    assert optimizer_updates(80, settings) == 30
    assert optimizer_updates(80, settings, processes=2) == 15
    assert optimizer_updates(1, settings) == 1
    assert optimizer_updates(80, OptimizationArguments(max_steps=7)) == 7


def test_corpora_are_mixed_in_proportion_and_share_no_clip(corpus_folder):
    data = DataArguments(tasks={"asr": "text", "intent": "intent"})
    examples = read_examples([f"{corpus_folder}@train", f"{corpus_folder}@test"], data)
    assert {task: examples["task"].count(task) for task in ("asr", "intent")} == {"asr": 8, "intent": 5}
    with pytest.raises(ValueError, match="has none of the columns mood that tasks name"):
        read_examples([str(corpus_folder)], DataArguments(tasks={"mood": "mood"}))


def test_training_without_examples_of_a_task_is_refused(corpus_folder):
    tasks = {"asr": "text", "intent": "intent"}
    with pytest.raises(ValueError, match="name at least one corpus in train_data"):
        read_training_examples(DataArguments(tasks=tasks))
    data = DataArguments(tasks=tasks, train_data=[f"{corpus_folder}@train"])
    assert {*read_training_examples(data)["task"]} == {"asr", "intent"}
    data.tasks = {**tasks, "mood": "feeling"}
    with pytest.raises(ValueError, match="no training corpus has the column 'feeling' of task 'mood'"):
        read_training_examples(data)


def test_clips_of_training_in_a_test_are_refused(corpus_folder):
    data = DataArguments()
    parts = {split: read_examples([f"{corpus_folder}@{split}"], data) for split in ("train", "test")}
    whole = read_examples([str(corpus_folder)], data)
    refuse_shared_clips(parts["train"], {"tones": parts["test"]})
    with pytest.raises(ValueError, match="test 'all' shares 6 clips with the training data, first 'c0'; keep them"):
        refuse_shared_clips(parts["train"], {"tones": parts["test"], "all": whole})


def test_two_corpora_with_the_same_clip_ids_are_refused(corpus_folder, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("audio", "metadata.jsonl"):
        (tmp_path / "other" / name).symlink_to(corpus_folder / name)
    with pytest.raises(ValueError, match="both have a clip"):
        read_examples([str(corpus_folder), str(tmp_path / "other")], DataArguments())
    assert len(read_examples([str(corpus_folder)] * 2, DataArguments())) == 16  # the same one twice is meant


def test_what_answers_mean_is_told_by_the_corpus(corpus_folder):
    data = DataArguments(train_data=[f"{corpus_folder}@train"], tasks={"asr": "text", "intent": "intent", "o": "text"})
    data.prompts = dict.fromkeys(data.tasks, "{audio}")
    examples = read_training_examples(data)
    assert answer_field(data, examples) is None
    data.answer_forms = {"intent": "labels", "o": ["drink", "size"]}
    answers = answer_field(data, examples)
    assert answers == {"intent": {"labels": ["bring", "heat", "lights", "turn"]}, "o": {"slots": ["drink", "size"]}}
    data.answer_forms = {"mood": "labels"}
    with pytest.raises(ValueError, match=r"answer_forms describes 'mood', which is no task; choose of asr, intent, o"):
        answer_field(data, examples)
    data.answer_forms = {"intent": "label"}
    with pytest.raises(ValueError, match=r"answer_forms of 'intent' is 'label'; write `labels`"):
        answer_field(data, examples)


def test_a_token_is_kept_out_of_the_report(tmp_path):
    given = OptimizationArguments(training_arguments={"hub_token": "hf_secret"})
    with pytest.raises(ValueError, match=r"training_arguments has hub_token, .* set HF_TOKEN instead") as caught:
        training_arguments(given, OutputArguments(output_dir=tmp_path), 1, evaluates=False)
    assert "hf_secret" not in str(caught.value)
