"""What a checkpoint holds, what comes back from it, and what is refused."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import tiny_models
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from speech_text_cases import Backbones, labeled
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq, GenerationConfig

from speechzoo import SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterModel
from speechzoo.evaluation import reload_check
from speechzoo.evaluation.adapter_report import count_parameters

PAIRS = [("wav2vec2", "llama"), ("whisper", "qwen3"), ("hubert", "gpt2"), ("wavlm", "mt5"), ("w2v-bert", "t5")]
PAIRS += [("wav2vec2", "bart"), ("wav2vec2", "gemma3"), ("wav2vec2", "opt")]


@torch.no_grad()
def logits(model, processor):
    return model.eval()(**labeled(processor), return_logits=True).logits


def saved(folder):
    return load_file(folder / "model.safetensors")


def no_problems(info):
    assert not any(info.values()), info


@pytest.mark.parametrize(("encoder", "family"), PAIRS)
def test_a_checkpoint_is_the_adapter_and_comes_back_whole(backbones, tmp_path, encoder, family):
    model, processor = backbones.build(encoder, family)
    model.save_pretrained(tmp_path)
    expected = {f"model.adapter.{name}": tensor for name, tensor in model.model.adapter.state_dict().items()}
    assert saved(tmp_path).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved(tmp_path).items())
    assert model.config.audio_model_id and count_parameters(model).trainable == sum(
        map(torch.numel, expected.values())
    )
    for auto in (AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        no_problems(info)
        assert type(loaded) is SpeechTextAdapterForConditionalGeneration and not loaded.training
        assert torch.equal(logits(loaded, processor), logits(model, processor))
        frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
        assert frozen == {name for name, _ in loaded.named_parameters() if ".adapter." not in name}


def test_a_checkpoint_in_shards_comes_back_whole(backbones, tmp_path):
    model, processor = backbones.build()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists() and len([*tmp_path.glob("model-*.safetensors")]) > 1
    loaded, info = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    no_problems(info)
    assert torch.equal(logits(loaded, processor), logits(model, processor))
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)


def test_saving_changes_nothing_and_works_twice(backbones, tmp_path):
    model, processor = backbones.build()
    before = logits(model, processor)
    for folder in ("one", "two"):
        model.save_pretrained(tmp_path / folder)
        model.save_pretrained(tmp_path / f"{folder}-whole", save_backbones=True)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    assert model.config.audio_model_id is not None and torch.equal(logits(model, processor), before)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "three")
    assert saved(tmp_path / "three").keys() == saved(tmp_path / "one").keys()


def test_the_headless_model_has_the_same_parts(backbones, tmp_path):
    model, _ = backbones.build("wav2vec2", "llama")
    model.save_pretrained(tmp_path / "headed")
    headless, info = AutoModel.from_pretrained(tmp_path / "headed", output_loading_info=True)
    no_problems(info)
    assert type(headless) is SpeechTextAdapterModel
    expected = model.model.state_dict()
    assert headless.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in headless.state_dict().items())
    headless.save_pretrained(tmp_path / "headless")
    assert all(name.startswith("adapter.") for name in saved(tmp_path / "headless"))
    back, info = AutoModelForMultimodalLM.from_pretrained(tmp_path / "headless", output_loading_info=True)
    no_problems(info)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.state_dict().items())


@pytest.mark.parametrize("family", ["llama", "qwen3", "mt5", "t5"])  # tied and not
def test_a_self_contained_checkpoint_needs_nothing_else(tmp_path, family):
    made = Backbones(tmp_path / "backbones")
    model, processor = made.build("wav2vec2", family)
    expected = logits(model, processor)
    model.save_pretrained(tmp_path / "whole", save_backbones=True)
    model.save_pretrained(tmp_path / "adapter")
    shutil.move(tmp_path / "backbones", tmp_path / "moved")
    loaded, info = AutoModelForMultimodalLM.from_pretrained(tmp_path / "whole", output_loading_info=True)
    no_problems(info)
    assert loaded.config.audio_model_id is None and loaded.config.text_model_id is None
    assert torch.equal(logits(loaded, processor), expected)
    assert {name.split(".")[1] for name, weight in loaded.named_parameters() if weight.requires_grad} == {"adapter"}
    loaded.save_pretrained(tmp_path / "again")
    assert saved(tmp_path / "again").keys() == saved(tmp_path / "whole").keys()
    with pytest.raises(FileNotFoundError, match=r"is not here; .* from_pretrained\(\.\.\., audio_model_id='FOLDER'\)"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter")
    half = {"audio_model_id": str(tmp_path / "moved/wav2vec2")}
    with pytest.raises(FileNotFoundError, match=rf"{family}' is not here; .* text_model_id='FOLDER'"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter", **half)
    moved = {"audio_model_id": str(tmp_path / "moved/wav2vec2"), "text_model_id": str(tmp_path / "moved" / family)}
    found = AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter", **moved)
    assert torch.equal(logits(found, processor), expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mt5"])
def test_a_self_contained_checkpoint_comes_back_without_its_head_and_with_it_again(backbones, tmp_path, family):
    """Both the model and the LLM inside have their parts under "model.", of which one alone is a prefix to drop."""
    model, processor = backbones.build("wav2vec2", family)
    model.save_pretrained(tmp_path / "headed", save_backbones=True)
    headless, info = AutoModel.from_pretrained(tmp_path / "headed", output_loading_info=True)
    no_problems(info)
    expected = model.model.state_dict()
    assert headless.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in headless.state_dict().items())
    headless.save_pretrained(tmp_path / "headless", save_backbones=True)
    again, info = AutoModel.from_pretrained(tmp_path / "headless", output_loading_info=True)
    no_problems(info)
    back, info = AutoModelForMultimodalLM.from_pretrained(tmp_path / "headless", output_loading_info=True)
    no_problems(info)
    assert torch.equal(logits(back, processor), logits(model, processor))
    assert {name for name, part in again.named_parameters() if part.requires_grad} == {
        name for name, part in headless.named_parameters() if part.requires_grad
    }


def test_what_is_unfrozen_is_saved_and_restored(backbones, tmp_path):
    patterns = [r"audio_tower\.encoder\.layers\.1\.", r"language_model\.model\.norm"]
    model, processor = backbones.build(unfrozen=patterns)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    model.save_pretrained(tmp_path)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert saved(tmp_path).keys() == trained
    others = {name for name in trained if ".adapter." not in name}
    assert all("layers.1." in name or name.endswith("model.norm.weight") for name in others)
    assert len(others) > 10
    loaded, info = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    no_problems(info)
    assert torch.equal(logits(loaded, processor), logits(model, processor))
    assert {name for name, weight in loaded.named_parameters() if weight.requires_grad} == saved(tmp_path).keys()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "opt", "gemma3", "t5", "mt5", "bart"])
def test_a_whole_llm_that_was_trained_comes_back(backbones, tmp_path, family):
    """Tied embeddings, and names that transformers would write in an older form."""
    model, processor = backbones.build("hubert", family, unfrozen=["language_model"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".language_model." in name:
                parameter.mul_(1.1)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    no_problems(info)
    assert torch.equal(logits(loaded, processor), logits(model, processor))
    assert not torch.equal(logits(loaded, processor), logits(backbones.build("hubert", family)[0], processor))


def test_a_pattern_that_matches_nothing_is_refused(backbones):
    with pytest.raises(ValueError, match="unfrozen pattern 'audio_towr' matches no parameter"):
        backbones.build(unfrozen=["audio_towr"])


def test_training_that_would_be_lost_is_refused(backbones, tmp_path):
    model, _ = backbones.build()
    name = "model.language_model.model.norm.weight"
    model.get_parameter(name).requires_grad_(True)
    with pytest.raises(ValueError, match=rf"'{name}' requires gradients, but the configuration calls it frozen"):
        model.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole", save_backbones=True)
    assert name in saved(tmp_path / "whole")


def test_a_backbone_that_changed_is_refused(tmp_path):
    made = Backbones(tmp_path / "backbones")
    model, _ = made.build()
    model.save_pretrained(tmp_path / "adapter")
    weights = made.language_model("llama") / "model.safetensors"
    spoiled = bytearray(weights.read_bytes())
    spoiled[-3] ^= 1
    weights.write_bytes(spoiled)
    with pytest.raises(ValueError, match="are not those this checkpoint was trained on"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter")
    assert AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter", text_model_revision=None)


def test_a_backbone_without_all_its_weights_is_refused(tmp_path):
    made = Backbones(tmp_path / "backbones")
    weights = made.language_model("llama") / "model.safetensors"
    from safetensors.torch import save_file

    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of LlamaForCausalLM, first 'model.layers.1.mlp.up_proj"):
        made.build()


@pytest.mark.parametrize("family", ["llama", "mt5"])
def test_half_precision_backbones_keep_the_adapter_in_float32(backbones, tmp_path, family):
    model, processor = backbones.build("wav2vec2", family, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    for either in (model, AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)):
        assert {weight.dtype for weight in either.model.adapter.parameters()} == {torch.float32}
        assert {weight.dtype for weight in either.model.language_model.parameters()} == {torch.bfloat16}
        assert either(**labeled(processor)).loss.dtype == torch.float32
    assert {tensor.dtype for tensor in saved(tmp_path).values()} == {torch.float32}
    assert torch.equal(logits(AutoModelForMultimodalLM.from_pretrained(tmp_path), processor), logits(model, processor))


def test_a_device_map_and_a_copy_say_the_same(backbones, tmp_path):
    model, processor = backbones.build("hubert")
    model.save_pretrained(tmp_path)
    expected = logits(model, processor)
    assert torch.equal(logits(copy.deepcopy(model), processor), expected)
    assert torch.equal(
        logits(AutoModelForMultimodalLM.from_pretrained(tmp_path, device_map="cpu"), processor), expected
    )


def test_the_llms_generation_settings_come_along(tmp_path):
    made = Backbones(tmp_path / "backbones")
    settings = GenerationConfig.from_pretrained(made.language_model("llama"))
    settings.eos_token_id, settings.max_new_tokens = [2, 7], 3
    settings.save_pretrained(made.language_model("llama"))
    model, _ = made.build()
    assert model.generation_config.eos_token_id == [2, 7]
    model.generation_config.max_new_tokens = 5
    model.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole", save_backbones=True)
    for folder in ("adapter", "whole"):
        loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path / folder)
        assert (loaded.generation_config.eos_token_id, loaded.generation_config.max_new_tokens) == ([2, 7], 5)


def test_an_encoder_decoder_starts_as_its_generation_settings_say(backbones, tmp_path):
    model, processor = backbones.build("wav2vec2", "bart")
    model.generation_config.forced_bos_token_id = 9
    model.save_pretrained(tmp_path)
    batch = processor(processor.prompt("asr"), labeled(processor)["input_features"][0].numpy(), return_tensors="pt")
    for either in (model, AutoModelForMultimodalLM.from_pretrained(tmp_path)):
        assert either.generate(**batch, max_new_tokens=4)[0, 1] == 9


def test_lora_on_the_llm_and_the_adapter_by_peft(backbones, tmp_path):
    model, processor = backbones.build()
    config = LoraConfig(
        target_modules=r"model\.language_model\..*\.(q_proj|v_proj)",
        modules_to_save=["adapter"],
        init_lora_weights=False,
    )
    tuned = get_peft_model(model, config)
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name or "modules_to_save" in name for name in trained)
    tuned(**labeled(processor)).loss.backward()
    assert all(tuned.get_parameter(name).grad.abs().sum() > 0 for name in trained if "lora_" in name)
    expected = logits(tuned, processor)
    tuned.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(backbones.build()[0], tmp_path)
    assert torch.equal(logits(loaded, processor), expected)
    assert not torch.equal(expected, logits(backbones.build()[0], processor))


def test_lora_on_the_encoder_gets_gradients(backbones):
    model, processor = backbones.build()
    tuned = get_peft_model(model, LoraConfig(target_modules=r"model\.audio_tower\..*\.(q_proj|v_proj)"))
    tuned.train()
    tuned(**labeled(processor)).loss.backward()
    grown = [weight.grad for name, weight in tuned.named_parameters() if "lora_B" in name]
    assert grown and all(gradient.abs().sum() > 0 for gradient in grown)


def test_the_reload_check_notices_other_weights(backbones, tmp_path, monkeypatch):
    """That it agrees with equal ones, and that the process is a fresh one, is seen in the test of the training script.

    Here its program runs in this process.
    """

    def run(command, **settings):
        monkeypatch.setattr(sys, "argv", command[2:])
        reload_check.main()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(reload_check.subprocess, "run", run)
    model, processor = backbones.build()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        model.model.adapter.output_shift[0] += 1e-3
    assert not reload_check.reloads_equal(model, dict(labeled(processor)), tmp_path)
    with torch.no_grad():
        model.model.adapter.output_shift.copy_(saved(tmp_path)["model.adapter.output_shift"])
    assert reload_check.reloads_equal(model, dict(labeled(processor)), tmp_path)


# ---- configuration -------------------------------------------------------------------------------------------------


def test_a_configuration_comes_back(backbones, tmp_path):
    model, _ = backbones.build("whisper", "gemma2", encoding="window", reduction="average", reduction_ratio=8)
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SpeechTextAdapterConfig
    assert {**loaded.to_dict(), "_name_or_path": None} == {**model.config.to_dict(), "_name_or_path": None}
    assert (loaded.reduction, loaded.reduction_ratio, loaded.encoding) == ("average", 8, "window")
    assert loaded.audio_config.model_type == "whisper" and loaded.text_config.final_logit_softcapping == 2.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("reductoin", "stack", "has no field 'reductoin'; did you mean 'reduction'"),
        ("reduction", "pooling", "choose one of discard, stack, convolution, average"),
        ("reduction_ratio", 3, "choose 1, 2, 4 or 8"),
        ("encoding", "whole", "choose one of clip, window"),
        ("adapter_layers", -1, "adapter_layers is -1; give at least 0"),
        ("adapter_heads", 0, "adapter_heads is 0; give at least 1"),
        ("frame_stride", 0, "frame_stride is 0; give at least 1"),
    ],
)
def test_a_wrong_field_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=message):
        SpeechTextAdapterConfig(**{field: value})
    with pytest.raises(ValueError, match="random_phase belongs to reduction 'discard'"):
        SpeechTextAdapterConfig(reduction="stack", random_phase=True)


def test_an_unknown_key_in_a_saved_configuration_is_an_error(backbones, tmp_path):
    backbones.shared()[0].config.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "adapter_hads": 4}))
    with pytest.raises(ValueError, match="has no field 'adapter_hads'; did you mean 'adapter_heads'"):
        AutoConfig.from_pretrained(tmp_path)


def test_an_llm_that_is_not_trained_has_no_dropout(backbones):
    for family, rate in (("gpt2", "resid_pdrop"), ("bart", "dropout"), ("t5", "dropout_rate")):
        assert getattr(tiny_models.LANGUAGE_MODELS[family](), rate) > 0
        assert getattr(backbones.shared("wav2vec2", family)[0].config.text_config, rate) == 0
    model, _ = backbones.build("wav2vec2", "gpt2", unfrozen=["language_model"])
    assert model.config.text_config.resid_pdrop > 0
