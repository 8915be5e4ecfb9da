"""The ready configurations for real backbones, each run with the same architectures at toy size."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import yaml

from speechzoo import SealProjectorForConditionalGeneration
from speechzoo.data.seal_collator import SealCollator
from speechzoo.data.speech_text_collator import SpeechTextCollator
from speechzoo.processing.audio_loading import save_audio
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    OutputArguments,
)
from speechzoo.training.adapter_training import (
    assemble,
    assemble_system,
    make_trainer,
    read_examples,
    train,
    training_arguments,
)
from speechzoo.training.command_line import parse_arguments
from speechzoo.training.seal_arguments import AlignmentArguments, SealOutputArguments, SealProjectorArguments
from speechzoo.training.seal_training import learned_examples, teacher_collator

CONFIGURATIONS = Path(__file__).parents[1] / "examples" / "configs"
GROUPS = (BackboneArguments, AdapterArguments, DataArguments, OptimizationArguments, OutputArguments)
# What each Hub id is, in the names of tests/tiny_models.py.
FAMILIES = {
    "openai/whisper-small": "whisper",
    "openai/whisper-large-v3": "whisper",
    "openai/whisper-large-v2": "whisper",
    "facebook/hubert-base-ls960": "hubert",
    "microsoft/phi-2": "phi",
    "microsoft/Phi-3-mini-4k-instruct": "phi3",
    "Qwen/Qwen3-0.6B": "qwen3",
    "bigscience/mt0-small": "mt5",
    "bigscience/mt0-xxl-mt": "mt5",
}
TINY = ("tiny_zoo.yaml", "tiny_mixture.yaml")
SEAL_GROUPS = (
    BackboneArguments,
    SealProjectorArguments,
    AlignmentArguments,
    DataArguments,
    OptimizationArguments,
    SealOutputArguments,
)


def _is_real(path: Path) -> bool:
    """Whether its backbones come from the Hub; the others use this repository's own."""
    backbone = yaml.safe_load(path.read_text()).get("backbone", {})
    return not backbone.get("audio_model", "examples/").startswith("examples/")


SEAL = sorted(path.name for path in CONFIGURATIONS.glob("seal_*.yaml") if _is_real(path))
REAL = sorted({path.name for path in CONFIGURATIONS.glob("*.yaml") if _is_real(path)} - set(SEAL))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips with the columns that the configurations rename."""
    folder = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    lines = []
    for index in range(8):
        samples = 0.1 * generator.standard_normal(8000 + 2000 * index).astype(np.float32)
        save_audio(folder / f"{index}.flac", np.clip(samples, -1, 1))
        line = {"audio": f"{index}.flac", "text": "turn on the lights", "speaker_id": index % 2, "split": "train"}
        line |= {"sentence": line["text"], "translation": "mach das Licht an", "client_id": str(index % 2)}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three spoken questions with a text beside the speech."""
    folder = tmp_path_factory.mktemp("conversations")
    save_audio(folder / "0.flac", np.full(8000, 0.1, dtype=np.float32))
    question = [{"type": "text", "text": "Be brief."}, {"type": "audio", "path": "0.flac"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Paris."}]
    line = json.dumps({"messages": messages, "split": "train"})
    (folder / "metadata.jsonl").write_text("\n".join([line] * 3))
    return folder


@pytest.mark.parametrize("name", REAL)
def test_ready_configuration_trains_at_toy_size(
    name: str, tmp_path: Path, recordings: Path, conversations: Path
) -> None:
    backbones, adapter, data, optimization, output = parse_arguments(
        "", *GROUPS, argv=["--config", str(CONFIGURATIONS / name)]
    )
    encoder = tiny_models.save_encoder(FAMILIES[backbones.audio_model], tmp_path / "encoder")
    language_model = tiny_models.save_language_model(FAMILIES[backbones.text_model], tmp_path / "language_model")
    backbones = dataclasses.replace(backbones, audio_model=str(encoder), text_model=str(language_model))
    adapter = dataclasses.replace(adapter, adapter_width=32, adapter_heads=4)
    torch.manual_seed(0)
    model, processor = assemble(backbones, adapter, data)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    sources = [recordings, conversations] if "instruction" in data.tasks else [recordings]
    examples = read_examples([f"{source}@train" for source in sources], data)
    assert {*examples["task"]} == {*data.tasks} == {*data.prompts} == {*data.metrics}
    optimization = dataclasses.replace(optimization, max_steps=2, batch_size=4, workers=0, warmup_steps=0)
    output = dataclasses.replace(output, output_dir=tmp_path / "output", save_steps=0)
    arguments = training_arguments(optimization, output, updates=2, evaluates=False)
    trainer = make_trainer(model, SpeechTextCollator(processor), examples, None, arguments)
    train(trainer, resume=False)

    moved = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert moved == {key for key in before if key.startswith("model.adapter.")}
    assert model.config.encoding == adapter.encoding and model.config.reduction == adapter.reduction
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.isfinite(losses).all()
    generated = model.generate(
        **processor([processor.prompt("asr")], [str(recordings / "0.flac")], return_tensors="pt"), max_new_tokens=3
    )
    assert generated.shape[0] == 1


@pytest.mark.parametrize("name", SEAL)
def test_ready_configuration_of_seal_trains_at_toy_size(name: str, tmp_path: Path, recordings: Path) -> None:
    groups = parse_arguments("", *SEAL_GROUPS, argv=["--config", str(CONFIGURATIONS / name)])
    backbones, projector, alignment, data, optimization, output = groups
    encoder = tiny_models.save_encoder(FAMILIES[backbones.audio_model], tmp_path / "encoder")
    language_model = tiny_models.save_language_model(FAMILIES[backbones.text_model], tmp_path / "language_model")
    backbones = dataclasses.replace(backbones, audio_model=str(encoder), text_model=str(language_model))
    torch.manual_seed(0)
    fields = {**dataclasses.asdict(projector), "divergence": alignment.divergence}
    model, processor = assemble_system(SealProjectorForConditionalGeneration, backbones, data, **fields)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    optimization = dataclasses.replace(
        optimization, max_steps=2, batch_size=4, workers=0, warmup_steps=0, cache_directory=tmp_path
    )
    collator = SealCollator(processor, alignment.weights, alignment.first_token)
    examples = learned_examples(model, collator, read_examples([f"{recordings}@train"], data), alignment)
    collator = teacher_collator(model, collator, [examples], alignment, optimization)
    output = dataclasses.replace(output, output_dir=tmp_path / "output", save_steps=0)
    trainer = make_trainer(
        model, collator, examples, None, training_arguments(optimization, output, updates=2, evaluates=False)
    )
    train(trainer, resume=False)
    moved = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert moved == {key for key in before if key.startswith("model.projector.")}
    assert model.config.projector == projector.projector and model.config.encoding == projector.encoding


@pytest.mark.parametrize("name", TINY)
def test_tiny_configurations_are_complete(name: str) -> None:
    """They need nothing that the repository does not hold or make."""
    backbones, _, data, _, _ = parse_arguments("", *GROUPS, argv=["--config", str(CONFIGURATIONS / name)])
    root = CONFIGURATIONS.parents[1]
    assert (root / backbones.audio_model / "model.safetensors").is_file()
    assert (root / backbones.text_model / "model.safetensors").is_file()
    sources = [*data.train_data, *data.validation_data, *data.test_data.values()]
    assert all(source.startswith("synthetic:") for source in sources)
