"""Original checkpoints: what they hold is not run, every tensor is accounted for, and the model is the same."""

import argparse
import json
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, List  # noqa: UP035  pickles of the two kinds of list differ

import numpy
import pytest
import torch
from joint_encoder_cases import MODELS, STYLES, recorded
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor
from typer.testing import CliRunner

from speechzoo.commands import application
from speechzoo.hub_cards.original_checkpoints import convolutions, read_original
from speechzoo.hub_cards.original_conversion import REPORT, convert
from speechzoo.modeling.modeling_speechlm import SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel
from speechzoo.modeling.modeling_speechut import SpeechUTForConditionalGeneration, SpeechUTForPreTraining

CLASSES = {"speechlm": SpeechLMForPreTraining, "speechut": SpeechUTForPreTraining}
PREFIXES = {"speechlm": ("w2v_encoder.w2v_model.", "w2v_encoder."), "speechut": ("encoder.w2v_model.", "encoder.")}

UNITS = ["<s>", "<pad>", "</s>", "<unk>", *(str(number) for number in range(26)), "<mask>"]
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", *"|ETAONIHSRD", "<mask>"]


def folder_of(test_data: Path, model_type: str, style: str = "base") -> Path:
    folder = test_data / "parity" / f"{model_type}_tiny"
    return folder if style == "base" else folder / style


# ---- a training checkpoint with the classes of libraries that are not there ----------------------------------------


def _fake(module: str, name: str) -> type:
    """A class that a pickle names as `module.name`."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


@pytest.fixture
def libraries():
    before = set(sys.modules)
    yield {
        "dictionary": _fake("fairseq.data.dictionary", "Dictionary"),
        "container": _fake("omegaconf.dictconfig", "DictConfig"),
        "list": _fake("omegaconf.listconfig", "ListConfig"),
        "leaf": _fake("omegaconf.nodes", "AnyNode"),
        "metadata": _fake("omegaconf.base", "ContainerMetadata"),
    }
    for name in set(sys.modules) - before:
        del sys.modules[name]


def made(kind: type, **state: Any) -> Any:
    instance = kind()
    instance.__dict__.update(state)
    return instance


def as_omegaconf(value: Any, libraries: dict[str, type]) -> Any:
    """As omegaconf pickles it: nodes with `_content` or `_val`, the types of their fields, and links to parents."""
    kinds = {"ref_type": List[str], "object_type": type(None), "element_type": int, "key_type": str}  # noqa: UP006
    typed = made(libraries["metadata"], **kinds, resolver_cache=defaultdict(dict))
    if isinstance(value, dict):
        content = {key: as_omegaconf(entry, libraries) for key, entry in value.items()}
        node = made(libraries["container"], _content=content, _metadata=typed)
        for entry in content.values():
            entry._parent = node
        return node
    if isinstance(value, list):
        return made(libraries["list"], _content=[as_omegaconf(entry, libraries) for entry in value], _metadata=typed)
    return made(libraries["leaf"], _val=value, _metadata=typed, _parent=None)


def training_checkpoint(folder: Path, libraries: dict[str, type], **tensors: torch.Tensor) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    task = {"normalize": config["normalize_audio"], "labels": ["phn"], "label_rate": config["model"]["label_rate"]}
    cfg = {"model": config["model"] | {"label_rate": "${task.label_rate}"}, "task": task}
    return {
        "args": None,
        "cfg": as_omegaconf(cfg, libraries),
        "model": OrderedDict({**load_file(folder / "original_state_dict.safetensors"), **tensors}),
        "criterion": None,
        "task_state": {
            "text_dictionary": made(libraries["dictionary"], symbols=LETTERS, indices={"<s>": 0}),
            "text_src_dictionary": made(libraries["dictionary"], symbols=UNITS),
        },
        "extra_state": {"namespace": argparse.Namespace(seed=1), "epoch": 3},
        "last_optimizer_state": {"exp_avg": torch.zeros(3)},
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model_type", MODELS)
def test_a_training_checkpoint_becomes_the_same_model(model_type, style, test_data, libraries, tmp_path):
    """From the pickle of fairseq to a folder, and from there to what the recorded weights say."""
    torch.save(training_checkpoint(folder_of(test_data, model_type, style), libraries), tmp_path / "original.pt")
    for name in [name for name in sys.modules if name.startswith(("fairseq", "omegaconf"))]:
        del sys.modules[name]
    conversion = convert(model_type, tmp_path / "original.pt", tmp_path / "out")
    model = CLASSES[model_type].from_pretrained(tmp_path / "out")
    expected = recorded(test_data, model_type, style)
    assert model.state_dict().keys() == expected.model.state_dict().keys()
    with torch.no_grad():
        output = model.base_model(expected.inputs["speech_nopad.source"])
    states = expected.outputs["speech_nopad.unit_encoder.last_hidden_state"]
    torch.testing.assert_close(output.last_hidden_state, states, rtol=0, atol=1e-4)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.units == UNITS[4:-1] and conversion.missing == []
    assert model.config.label_rate == expected.model.config.label_rate
    assert processor.letter_ids("eta")[:3] == [5, 6, 7]
    assert processor.feature_extractor.do_normalize == (style == "large_style")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model_type", MODELS)
def test_every_tensor_is_in_the_report(model_type, style, test_data, tmp_path):
    folder = folder_of(test_data, model_type, style)
    source, configuration = folder / "original_state_dict.safetensors", folder / "config.json"
    conversion = convert(model_type, source, tmp_path, configuration)
    report, tensors = json.loads((tmp_path / REPORT).read_text()), load_file(source)
    assert tensors.keys() == report["renamed"].keys() | report["dropped"].keys()
    assert not report["renamed"].keys() & report["dropped"].keys()
    assert {"encoder_layers", "dropout_features"} <= set(report["fields_not_read"])
    assert not {"dropout", "layer_type", "text_transformer"} & set(report["fields_not_read"])
    written = conversion.model.state_dict()
    assert set(report["renamed"].values()) == written.keys()
    for old, new in report["renamed"].items():
        assert torch.equal(tensors[old], written[new]), old
    for name, reason in report["dropped"].items():
        assert reason and (".norm_k." in name or name.endswith((".version", "_float_tensor", "embed_tokens.weight")))


def test_a_dictionary_of_another_model_is_refused(test_data, libraries, tmp_path):
    content = training_checkpoint(folder_of(test_data, "speechlm"), libraries)
    for symbols, message in (
        (UNITS[:-2] + UNITS[-1:], r"unit_vocab_size 31 and the processor 30"),
        (["A"] * 9, r"begins"),
    ):
        content["task_state"]["text_src_dictionary"].symbols = symbols
        torch.save(content, tmp_path / "original.pt", _use_new_zipfile_serialization=False)  # and the older format
        with pytest.raises(ValueError, match=message):
            convert("speechlm", tmp_path / "original.pt", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_fine_tuned_checkpoint_loses_its_prefix_and_its_copy(test_data, libraries, tmp_path):
    for model_type, (prefix, outer) in PREFIXES.items():
        folder = folder_of(test_data, model_type)
        content = training_checkpoint(folder, libraries)
        config = json.loads((folder / "config.json").read_text())
        arguments = {"w2v_args": {"model": config["model"], "task": {"normalize": True}}, "dropout": 0.0}
        content["cfg"] = {"model": arguments, "task": {}}
        heads = ("unit_encoder_ctc_head.",)
        inner = content["model"]  # with the heads of pre-training, which the original leaves in
        content["model"] = {prefix + name: value for name, value in inner.items()}
        content["model"] |= {
            name.replace(heads[0], f"{outer}proj."): value for name, value in inner.items() if name.startswith(heads)
        }
        torch.save(content, tmp_path / "tuned.pt")
        conversion = convert(model_type, tmp_path / "tuned.pt", tmp_path / model_type)
        wanted = SpeechLMForCTC if model_type == "speechlm" else SpeechUTForConditionalGeneration
        assert type(conversion.model) is wanted and conversion.original.normalize
        assert sum(name.startswith("copy of") for name in conversion.dropped) == 5
        heads_of_pretraining = {name for name in inner if name.startswith(("final_proj", "label_embs", "code_enc"))}
        assert len(heads_of_pretraining) >= 5
        assert all("this checkpoint is fine-tuned" in conversion.dropped[name] for name in heads_of_pretraining)
        assert (tmp_path / model_type / "generation_config.json").is_file() == (model_type == "speechut")
        content["model"][f"{outer}proj.5.bias"] = torch.ones(16)
        torch.save(content, tmp_path / "tuned.pt")
        with pytest.raises(ValueError, match=r"copy 'unit_encoder_ctc_head.5.bias' differs"):
            convert(model_type, tmp_path / "tuned.pt", tmp_path / model_type)


def test_a_cleaned_checkpoint_takes_speech_alone(test_data, tmp_path):
    folder = folder_of(test_data, "speechlm")
    tensors = load_file(folder / "original_state_dict.safetensors")
    gone = ("unit_embed_tokens", "unit_encoder.embed_tokens", "label_embs", "unit_encoder_ctc_head")
    kept = {name: value for name, value in tensors.items() if not name.startswith(gone)}
    config = json.loads((folder / "config.json").read_text())
    torch.save({"cfg": {"model": config["model"], "task": {"normalize": False}}, "model": kept}, tmp_path / "c.pt")
    conversion = convert("speechlm", tmp_path / "c.pt", tmp_path / "out")
    assert "no text" in conversion.missing[0]
    assert all("cleaned" in conversion.dropped[name] for name in kept if name.startswith("final_proj_list"))
    model, reference = SpeechLMModel.from_pretrained(tmp_path / "out"), recorded(test_data, "speechlm", "base")
    with torch.no_grad():
        states = model(reference.inputs["speech_nopad.source"]).last_hidden_state
    expected = reference.outputs["speech_nopad.unit_encoder.last_hidden_state"]
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"no table of units"):
        model(input_ids=torch.tensor([[5]]))


# ---- what is refused -----------------------------------------------------------------------------------------------


class Runs:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (exec, ("import pathlib; pathlib.Path('ran').touch()",), r"builtins\.exec"),
        (getattr, ([], "append"), r"builtins\.getattr"),
        (torch.save, (torch.zeros(1), "ran"), r"torch\.serialization\.save"),
        (pickle.loads, (b"",), r"pickle\.loads"),
    ],
)
def test_a_checkpoint_that_would_run_something_is_refused(function, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "cfg": Runs(function, *arguments)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=rf"bad\.pt is refused: it asks for {named}"):
        read_original(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


class Writes(torch.nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + 1


def test_a_program_of_torchscript_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    path = tmp_path / "program.pt"
    torch.jit.script(Writes()).save(path)
    loaded = []
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: loaded.append(1))
    with pytest.raises(ValueError, match=r"program\.pt is refused: it is a TorchScript program"):
        read_original(path)
    assert not loaded


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 damaged"])
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.pt is refused"):
        read_original(tmp_path / "damaged.pt")


def test_other_functions_of_allowed_packages_do_nothing(tmp_path, monkeypatch):
    """A stand-in keeps what it was called with, whatever the name promises."""
    monkeypatch.chdir(tmp_path)
    configuration = {"model": {"a": Runs(numpy.save, "ran.npy", 1)}, "task": {"normalize": True}}
    torch.save({"model": {}, "cfg": configuration}, tmp_path / "odd.pt")
    original = read_original(tmp_path / "odd.pt")
    assert not (tmp_path / "ran.npy").exists() and original.fields == {"a": ["ran.npy", 1]}
    assert original.normalize


def test_a_file_has_to_say_whether_audio_is_normalized(tmp_path):
    torch.save({"model": {}, "cfg": {"model": {"a": 1}}}, tmp_path / "silent.pt")
    with pytest.raises(ValueError, match=r"does not say whether audio is normalized"):
        read_original(tmp_path / "silent.pt")
    (tmp_path / "given.json").write_text('{"task": {"normalize": false}}')
    assert not read_original(tmp_path / "silent.pt", tmp_path / "given.json").normalize


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strange.weight": torch.zeros(1)}, r"1 tensors are no part of speechlm: strange.weight"),
        ({"unit_embed_tokens.weight": torch.zeros(31, 32)}, r"copy 'unit_embed_tokens.weight' differs"),
        ({"encoder.layers.1.fc1.bias": None}, r"do not make up a SpeechLMForPreTraining.*layers.1.*intermediate"),
        ({"encoder.layers.1.fc1.bias": torch.zeros(3)}, r"size mismatch"),
        ({"unit_encoder_ctc_head.1.weight": torch.zeros(32, 32, 4)}, r"kernel is 4, by which it strides 2"),
        ({"final_proj_list.0.weight": torch.zeros(32, 32)}, r"final_dim is the width of the encoders, 32"),
    ],
)
def test_tensors_that_make_no_model_are_refused(change, message, test_data, tmp_path):
    folder = folder_of(test_data, "speechlm")
    tensors = load_file(folder / "original_state_dict.safetensors") | change
    save_file({name: value for name, value in tensors.items() if value is not None}, tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        convert("speechlm", tmp_path / "t.safetensors", tmp_path / "out", folder / "config.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_pred_unit": True}, r"use_pred_unit = True; only False"),
        ({"use_rel_pos_enc": False}, r"use_rel_pos_enc = False; only True"),
        ({"reset_decoder_embedding_config": False}, r"reset_decoder_embedding_config = False; only True"),
        ({"text_transformer": {"activation_fn": "relu"}}, r"'gelu' and text_transformer.activation_fn = 'relu'; both"),
        (
            {"text_transformer": {"encoder": {"layerdrop": 0.5}}},
            r"= 0.1 and text_transformer.encoder.layerdrop = 0.5;",
        ),
        (
            {"text_transformer": {"decoder": {"normalize_before": True}}},
            r"decoder.normalize_before = True; only False",
        ),
        ({"text_transformer": {"no_scale_embedding": False}}, r"no_scale_embedding = False; only True"),
        ({"layer_norm_first": None}, r"lacks 'layer_norm_first'"),
        ({"conv_feature_layers": "[(16,10,5)] * 4"}, r"convolution 1 is not the \(16, 10, 5\)"),
        ({"conv_feature_layers": "__import__('os')"}, r"the form \[\(512,10,5\)\]"),
    ],
)
def test_configurations_that_are_not_followed_are_refused(change, message, test_data, tmp_path):
    folder = folder_of(test_data, "speechlm")
    config = json.loads((folder / "config.json").read_text())
    config["model"] = {name: value for name, value in (config["model"] | change).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        convert("speechlm", folder / "original_state_dict.safetensors", tmp_path, tmp_path / "config.json")


def test_files_that_are_no_checkpoint_are_refused(test_data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at"):
        read_original(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"no state dict under 'model'"):
        read_original(tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"does not hold the configuration"):
        read_original(folder_of(test_data, "speechlm") / "original_state_dict.safetensors")
    with pytest.raises(ValueError, match=r"no conversion of 'hubert'"):
        folder = folder_of(test_data, "speechlm")
        convert("hubert", folder / "original_state_dict.safetensors", tmp_path, folder / "config.json")


def test_convolutions_are_read_without_evaluating():
    assert convolutions("[(512,10,5)] + [(512, 3,2)] * 4+[(512,2,2)]*2") == [
        (512, 10, 5),
        *[(512, 3, 2)] * 4,
        *[(512, 2, 2)] * 2,
    ]


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_converts_and_tells(test_data, tmp_path):
    folder = folder_of(test_data, "speechut")
    arguments = ["convert", "speechut", str(folder / "original_state_dict.safetensors"), str(tmp_path / "out")]
    done = CliRunner().invoke(application, [*arguments, "--configuration", str(folder / "config.json")])
    assert done.exit_code == 0, done.output
    assert "SpeechUTForPreTraining" in done.output and "tensors renamed" in done.output
    assert SpeechUTForPreTraining.from_pretrained(tmp_path / "out").config.decoder_layers == 2
    failed = CliRunner().invoke(application, arguments)
    assert failed.exit_code == 2 and "does not hold the configuration" in failed.output
