"""Original checkpoints of SpeechLM and SpeechUT to models of this package: every tensor is accounted for.

Sizes come from the tensors; from the configuration comes what tensors do not show.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..configuration.configuration_speechlm import SpeechLMConfig
from ..configuration.configuration_speechut import SpeechUTConfig
from ..modeling.modeling_speechlm import SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel
from ..modeling.modeling_speechut import (
    SpeechUTForConditionalGeneration,
    SpeechUTForCTC,
    SpeechUTForPreTraining,
    SpeechUTModel,
)
from ..processing.feature_extraction_speechlm import SpeechLMFeatureExtractor
from ..processing.processing_speechlm import SpeechLMProcessor, letter_tokenizer
from ..processing.unit_vocabulary import AFTER, BEFORE
from .original_checkpoints import OriginalCheckpoint, convolutions, read_original

REPORT = "conversion_report.json"

# Original name: name here, inside the encoders.
LAYER = r"(encoder|unit_encoder)\.layers\.(\d+)\."
BODY = {
    r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)": r"feature_extractor.conv_layers.\1.conv.\2",
    r"feature_extractor\.conv_layers\.0\.2\.(weight|bias)": r"feature_extractor.conv_layers.0.layer_norm.\1",
    r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.(weight|bias)": r"feature_extractor.conv_layers.\1.layer_norm.\2",
    r"layer_norm\.(weight|bias)": r"feature_projection.layer_norm.\1",
    r"post_extract_proj\.(weight|bias)": r"feature_projection.projection.\1",
    r"encoder\.pos_conv\.0\.bias": "encoder.pos_conv_embed.conv.bias",
    r"encoder\.pos_conv\.0\.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    r"encoder\.pos_conv\.0\.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    r"mask_emb": "masked_spec_embed",
    r"(encoder|unit_encoder)\.layer_norm\.(weight|bias)": r"\1.layer_norm.\2",
    r"(encoder|unit_encoder)\.pos_emb\.pe_k\.weight": r"\1.relative_positions.pe_k.weight",
    LAYER + r"self_attn\.([qkv]|out)_proj\.(weight|bias)": r"\1.layers.\2.attention.\3_proj.\4",
    LAYER + r"self_attn_layer_norm\.(weight|bias)": r"\1.layers.\2.layer_norm.\3",
    LAYER + r"fc1\.(weight|bias)": r"\1.layers.\2.feed_forward.intermediate_dense.\3",
    LAYER + r"fc2\.(weight|bias)": r"\1.layers.\2.feed_forward.output_dense.\3",
    LAYER + r"final_layer_norm\.(weight|bias)": r"\1.layers.\2.final_layer_norm.\3",
    LAYER + r"norm_k\.(weight|bias)": r"\1.layers.\2.relative_layer_norm.\3",
    r"unit_encoder\.embed_(tokens|positions)\.weight": r"unit_encoder.embed_\1.weight",
    r"unit_encoder\.layernorm_embedding\.(weight|bias)": r"unit_encoder.layernorm_embedding.\1",
}
# The same outside of them.
HEADS = {
    r"unit_encoder_ctc_head\.1\.weight": "ctc_head.conv.weight",
    r"unit_encoder_ctc_head\.3\.2\.(weight|bias)": r"ctc_head.layer_norm.\1",
    r"unit_encoder_ctc_head\.5\.(weight|bias)": r"ctc_head.out_proj.\1",
    r"final_proj_list\.0\.(weight|bias)": r"unit_predictor.speech_proj.\1",
    r"final_proj_list\.1\.(weight|bias)": r"unit_predictor.unit_proj.\1",
    r"label_embs_list\.0": "unit_predictor.speech_label_embeddings",
    r"label_embs_list\.1": "unit_predictor.unit_label_embeddings",
    r"final_proj\.(weight|bias)": r"unit_predictor.speech_proj.\1",
    r"label_embs_concat": "unit_predictor.speech_label_embeddings",
    r"code_encoder_proj\.(weight|bias)": r"unit_predictor.unit_proj.\1",
    r"decoder\.embed_tokens\.weight": "decoder.embed_tokens.weight",
    r"decoder\.pos_emb\.pe_k\.weight": "decoder.relative_positions.pe_k.weight",
    r"decoder\.layers\.(\d+)\.(self_attn|encoder_attn)\.([qkv]|out)_proj\.(weight|bias)": (
        r"decoder.layers.\1.\2.\3_proj.\4"
    ),
    r"decoder\.layers\.(\d+)\.((?:self_attn|encoder_attn|final)_layer_norm|fc1|fc2)\.(weight|bias)": (
        r"decoder.layers.\1.\2.\3"
    ),
    r"decoder\.output_projection\.weight": "lm_head.weight",
}
# Of these, what predicts units in pre-training.
PREDICTOR = r"(final_proj(_list\.[01])?|code_encoder_proj)\.(weight|bias)|label_embs_(list\.[01]|concat)"
# What has no place here, and why.
DROPPED = {
    r"(unit_encoder|decoder)\.version": "bookkeeping of fairseq",
    r"decoder\.embed_positions\._float_tensor": "bookkeeping of fairseq; sinusoids are computed",
    r"decoder\.layers\.\d+\.norm_k\.(weight|bias)": "unused where a layer norm comes after its block",
}
NORM_K = "unused where a layer norm comes after its block"
# Fields of the original that are called otherwise here.
RENAMED_FIELDS = {
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "layerdrop",
    "dropout_input": "feat_proj_dropout",
    "layer_norm_first": "do_stable_layer_norm",
    "activation_fn": "hidden_act",
    "logit_temp": "logit_temperature",
    "feature_grad_mult": "feature_grad_mult",
    "label_rate": "label_rate",
    "mask_prob": "pretraining_mask_prob",
    "mask_length": "pretraining_mask_length",
    "mask_u2t": "mask_text",
}
# Fields that have to be so, for nothing else was released or is implemented; absent ones are.
FIXED_FIELDS = {
    "layer_type": "transformer",
    "attn_type": "",
    "pos_enc_type": "abs",
    "use_rel_pos_enc": True,
    "target_glu": False,
    "use_pred_unit": False,
    "l2_embedding": False,
    "mask_selection": "static",
    "no_mask_overlap": False,
    "mask_channel_prob": 0.0,
    "reset_decoder_embedding_config": True,
}
# The same under `text_transformer`, and below it after a dot.
FIXED_TEXT_FIELDS = {
    "no_scale_embedding": True,
    "adaptive_input": False,
    "no_cross_attention": False,
    "cross_self_attention": False,
    "encoder.learned_pos": True,
    "decoder.learned_pos": False,
    "decoder.normalize_before": False,
}
# Fields under `text_transformer` and of the speech encoder that are one field here.
SHARED_FIELDS = {
    "activation_fn": "activation_fn",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder.layerdrop": "encoder_layerdrop",
}
OTHER_FIELDS = {"conv_feature_layers", "mix_with_unit", "text_transformer"}


@dataclass
class Conversion:
    """A converted model and what became of every tensor.

    Args:
        renamed: original name to name here.
        dropped: original name to the reason.
        missing: what a cleaned checkpoint lacks, in words.
    """

    model: PreTrainedModel
    original: OriginalCheckpoint
    renamed: dict[str, str]
    dropped: dict[str, str]
    missing: list[str] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """What is written beside the model."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "class": type(self.model).__name__,
            "parameters": parameters,
            "tensors": len(self.renamed) + len(self.dropped),
            "renamed": self.renamed,
            "dropped": self.dropped,
            "missing": self.missing,
            # Sizes are those of the tensors, and what is left is of training.
            "fields_not_read": sorted(
                self.original.fields.keys() - RENAMED_FIELDS.keys() - FIXED_FIELDS.keys() - OTHER_FIELDS
            ),
        }


def convert(model_type: str, source: Path, out: Path, configuration: Path | None = None) -> Conversion:
    """Writes a model, its processor and a report of every tensor to the folder `out`.

    The processor has the checkpoint's dictionaries. Without them, or where text is not written in letters, there is a
    feature extractor alone.

    Args:
        model_type: "speechlm" or "speechut".
        source: a `.pt` of fairseq (pre-trained, fine-tuned or cleaned), or `.safetensors` with the original names.
        configuration: JSON with the original's fields, see `read_original`.

    Raises `ValueError` for a tensor or field that is not understood, and for tensors that do not make up a model.
    """
    conversion = converted(model_type, read_original(source, configuration))
    processor = _processor(conversion)
    conversion.model.save_pretrained(out)
    processor.save_pretrained(out)
    if isinstance(processor, SpeechLMFeatureExtractor):
        conversion.missing.append(_lacking(conversion.original))
    (out / REPORT).write_text(json.dumps(conversion.report(), indent=1))
    return conversion


def converted(model_type: str, original: OriginalCheckpoint) -> Conversion:
    """The model in memory; raises as `convert` does."""
    if model_type not in CONFIGURATIONS:
        raise ValueError(f"there is no conversion of '{model_type}'; choose one of {', '.join(CONFIGURATIONS)}")
    unused = _unused_predictor(original)
    tensors = {name: tensor for name, tensor in original.tensors.items() if name not in unused}
    config = CONFIGURATIONS[model_type](tensors, original.fields)
    renamed, dropped = account_for(replace(original, tensors=tensors), config, model_type)
    state = {new: tensors[old].float() for old, new in renamed.items()}
    model = _model_class(model_type, state)(config)
    _load(model, state)
    return Conversion(model.eval(), original, renamed, dict(sorted((dropped | unused).items())), _missing(config))


def _processor(conversion: Conversion) -> SpeechLMProcessor | SpeechLMFeatureExtractor:
    """With the checkpoint's dictionaries; without them, or with pieces for letters, what speech alone needs."""
    config, original = conversion.model.config, conversion.original
    units, letters = _between_special(original.units), _between_special(original.letters)
    if units is None or letters is None or any(len(letter) > 1 for letter in letters):
        return SpeechLMFeatureExtractor(original.normalize, sampling_rate=config.sampling_rate)
    return SpeechLMProcessor.from_model_config(config, units, letter_tokenizer(letters), normalize=original.normalize)


def _lacking(original: OriginalCheckpoint) -> str:
    if original.units is None or original.letters is None:
        return "the dictionaries of units and letters: give their files to SpeechLMProcessor"
    return (
        "a tokenizer of pieces: the dictionary's text is no single letters, and SpeechLMProcessor writes those alone"
    )


def _between_special(symbols: list[str] | None) -> list[str] | None:
    """A dictionary without `<s> <pad> </s> <unk>` and `<mask>`. Raises `ValueError` where they are not in place."""
    if symbols is None:
        return None
    first, last = len(BEFORE), len(symbols) - len(AFTER)
    if (*symbols[:first], *symbols[last:]) != (*BEFORE, *AFTER):
        raise ValueError(
            f"a dictionary of the checkpoint begins with {symbols[:first]} and ends with {symbols[last:]}; "
            f"{[*BEFORE]} and {[*AFTER]} are understood"
        )
    return symbols[first:last]


# ---- tensors -------------------------------------------------------------------------------------------------------


def account_for(
    original: OriginalCheckpoint, config: JointEncoderConfig, model_type: str
) -> tuple[dict[str, str], dict[str, str]]:
    """New names of all tensors that are kept, and reasons for those that are not.

    Raises `ValueError` for an unknown tensor, and for a copy that is not what it is a copy of.
    """
    renamed: dict[str, str] = {}
    dropped = _copies(original)
    for name in original.tensors.keys() - dropped.keys():
        if (reason := _reason_to_drop(name, config)) is not None:
            dropped[name] = reason
        elif (new := new_name(name, model_type)) is not None:
            renamed[name] = new
    unknown = sorted(original.tensors.keys() - renamed.keys() - dropped.keys())
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors are no part of {model_type}: {', '.join(unknown[:8])}; is it another model?"
        )
    return dict(sorted(renamed.items())), dict(sorted(dropped.items()))


def new_name(name: str, model_type: str) -> str | None:
    """`None` for a name that is not known."""
    for prefix, names in ((f"{model_type}.", BODY), ("", HEADS)):
        for pattern, replacement in names.items():
            if match := re.fullmatch(pattern, name):
                return prefix + match.expand(replacement)
    return None


def _reason_to_drop(name: str, config: JointEncoderConfig) -> str | None:
    for pattern, reason in DROPPED.items():
        if re.fullmatch(pattern, name):
            return reason
    post_norm = {"encoder": not config.do_stable_layer_norm, "unit_encoder": not config.unit_pre_norm}
    return NORM_K if ".norm_k." in name and post_norm.get(name.split(".")[0], False) else None


def _unused_predictor(original: OriginalCheckpoint) -> dict[str, str]:
    """Tensors of the prediction of units where it cannot be used, with the reason: fairseq saves them all the same."""
    predictor = [name for name in original.tensors if re.fullmatch(PREDICTOR, name)]
    if original.fine_tuned:
        return dict.fromkeys(predictor, "predicts units in pre-training; this checkpoint is fine-tuned")
    if not any(name.startswith("label_embs") for name in predictor):
        return dict.fromkeys(predictor, "predicts units by label embeddings, which this cleaned checkpoint lacks")
    return {}


def _copies(original: OriginalCheckpoint) -> dict[str, str]:
    """Tensors that are there twice, each checked to be the same."""
    dropped = {}
    if {"unit_embed_tokens.weight", "unit_encoder.embed_tokens.weight"} <= original.tensors.keys():
        _same("unit_embed_tokens.weight", original.tensors, "unit_encoder.embed_tokens.weight", original.tensors)
        dropped["unit_embed_tokens.weight"] = "the same as unit_encoder.embed_tokens.weight"
    for name in original.copies:
        _same(name, original.copies, name, original.tensors)
        dropped[f"copy of {name}"] = "the fine-tuned checkpoint holds the CTC head twice"
    return dropped


def _same(name: str, tensors: dict[str, Tensor], other: str, others: dict[str, Tensor]) -> None:
    if other not in others or not torch.equal(tensors[name], others[other]):
        raise ValueError(f"the copy '{name}' differs from '{other}'; the checkpoint is not what it should be")


def _load(model: PreTrainedModel, state: dict[str, Tensor]) -> None:
    """Strictly, save that a tied table may be there once."""
    if model.config.tie_word_embeddings and "decoder.embed_tokens.weight" in state:
        state.setdefault("lm_head.weight", state["decoder.embed_tokens.weight"])
    try:
        model.load_state_dict({name.removeprefix(_prefix(model)): value for name, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"the tensors do not make up a {type(model).__name__}: {error}") from error


def _prefix(model: PreTrainedModel) -> str:
    return f"{model.base_model_prefix}." if model.base_model is model else ""


def _model_class(model_type: str, state: dict[str, Tensor]) -> type[PreTrainedModel]:
    """The class that has a place for every tensor."""
    parts = {name.split(".")[0] for name in state}
    generates = model_type == "speechut" and "decoder" in parts
    if "unit_predictor" in parts:
        return SpeechLMForPreTraining if model_type == "speechlm" else SpeechUTForPreTraining
    if generates:
        return SpeechUTForConditionalGeneration
    if "ctc_head" in parts:
        return SpeechLMForCTC if model_type == "speechlm" else SpeechUTForCTC
    return SpeechLMModel if model_type == "speechlm" else SpeechUTModel


def _missing(config: JointEncoderConfig) -> list[str]:
    if config.unit_vocab_size:
        return []
    return ["the table of units: this is a cleaned checkpoint, which takes speech and no text"]


# ---- configurations ------------------------------------------------------------------------------------------------


def encoder_fields(tensors: dict[str, Tensor], fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of both configurations. Raises `ValueError` for a field that the models here cannot follow."""
    _check_fields(fields)
    speech, units = _stack_fields(tensors, "encoder"), _stack_fields(tensors, "unit_encoder")
    if speech["distance"] != units["distance"] or speech["width"] != units["width"]:
        raise ValueError("the two encoders differ in width or in their relative positions; both are shared here")
    swaps = fields.get("mix_with_unit", False)
    return {
        **{new: fields[old] for old, new in RENAMED_FIELDS.items() if fields.get(old) is not None},
        **_front_end_fields(tensors, fields, speech["width"]),
        "hidden_size": speech["width"],
        "num_hidden_layers": speech["layers"],
        "num_attention_heads": speech["heads"],
        "intermediate_size": speech["intermediate"],
        "relative_position_distance": speech["distance"],
        "unit_encoder_layers": units["layers"],
        "unit_attention_heads": units["heads"],
        "unit_intermediate_size": units["intermediate"],
        "unit_pre_norm": "unit_encoder.layer_norm.weight" in tensors,
        "unit_embedding_norm": "unit_encoder.layernorm_embedding.weight" in tensors,
        "max_unit_positions": max(_rows(tensors, "unit_encoder.embed_positions.weight") - 2, 0),
        "unit_vocab_size": _rows(tensors, "unit_encoder.embed_tokens.weight"),
        **_head_fields(tensors),
        "swap_prob": fields.get("mask_prob", 0.8) / 2 if swaps else 0.0,
        "swap_length": max(fields.get("mask_length", 10) // 2, 1),
    }


def _check_fields(fields: dict[str, Any]) -> None:
    text = fields.get("text_transformer", {})
    fixed = [(name, fields.get(name, value), value) for name, value in FIXED_FIELDS.items()]
    fixed += [
        (f"text_transformer.{name}", _inner(text, name, value), value) for name, value in FIXED_TEXT_FIELDS.items()
    ]
    for name, found, value in fixed:
        if found != value:
            raise ValueError(f"the original has {name} = {found!r}; only {value!r} is implemented")
    for inner, name in SHARED_FIELDS.items():
        of_speech = fields.get(name)
        if of_speech is not None and (of_text := _inner(text, inner, of_speech)) != of_speech:
            raise ValueError(
                f"the original has {name} = {of_speech!r} and text_transformer.{inner} = {of_text!r}; both encoders "
                f"share it here"
            )
    for name in ("layer_norm_first", "conv_feature_layers"):
        if name not in fields:
            raise ValueError(f"the original's configuration lacks '{name}', which its tensors do not tell; add it")


def _inner(fields: dict[str, Any], path: str, default: Any) -> Any:
    """The field at a path with dots, or `default`."""
    *outer, name = path.split(".")
    for part in outer:
        fields = fields.get(part, {})
    return fields.get(name, default)


def _stack_fields(tensors: dict[str, Tensor], stack: str) -> dict[str, int]:
    """Sizes of one encoder."""
    numbers = [int(match[1]) for name in tensors if (match := re.match(rf"{stack}\.layers\.(\d+)\.", name))]
    table = tensors.get(f"{stack}.pos_emb.pe_k.weight")
    if not numbers or table is None:
        raise ValueError(f"the checkpoint has no layers '{stack}.layers.*' with relative positions")
    intermediate, width = tensors[f"{stack}.layers.0.fc1.weight"].shape
    heads = width // table.shape[1]
    return {
        "layers": max(numbers) + 1,
        "width": width,
        "intermediate": intermediate,
        "heads": heads,
        "distance": len(table) // 2,
    }


def _front_end_fields(tensors: dict[str, Tensor], fields: dict[str, Any], width: int) -> dict[str, Any]:
    layers = convolutions(fields["conv_feature_layers"])
    weights = [tensors.get(f"feature_extractor.conv_layers.{number}.0.weight") for number in range(len(layers))]
    for number, (weight, layer) in enumerate(zip(weights, layers, strict=True)):
        if weight is None or (weight.shape[0], weight.shape[2]) != layer[:2]:
            raise ValueError(f"convolution {number} is not the {layer} that conv_feature_layers tells")
    position = tensors["encoder.pos_conv.0.weight_v"]
    return {
        "conv_dim": [layer[0] for layer in layers],
        "conv_kernel": [layer[1] for layer in layers],
        "conv_stride": [layer[2] for layer in layers],
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in tensors,
        "feat_extract_norm": "layer" if "feature_extractor.conv_layers.0.2.1.weight" in tensors else "group",
        "num_conv_pos_embeddings": position.shape[2],
        "num_conv_pos_embedding_groups": width // position.shape[1],
    }


def _head_fields(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of heads that are there. Raises `ValueError` for sizes by which the original would do something else."""
    found: dict[str, Any] = {}
    if "unit_encoder_ctc_head.1.weight" in tensors:
        found["ctc_conv_kernel"] = kernel = tensors["unit_encoder_ctc_head.1.weight"].shape[2]
        if kernel // 2 != 1:
            raise ValueError(
                f"the CTC head's kernel is {kernel}, by which it strides {kernel // 2}; only 1 is implemented"
            )
        found["text_vocab_size"] = _rows(tensors, "unit_encoder_ctc_head.5.weight")
    elif "final_proj.weight" in tensors or "final_proj_list.0.weight" in tensors:
        found["text_ctc_weight"] = 0.0
    for name in ("final_proj.weight", "final_proj_list.0.weight"):
        if name in tensors:
            found["final_dim"], width = tensors[name].shape
            if found["final_dim"] == width:
                raise ValueError(
                    f"final_dim is the width of the encoders, {width}; how that ties tables is not implemented"
                )
    return found


def _rows(tensors: dict[str, Tensor], name: str) -> int:
    return len(tensors[name]) if name in tensors else 0


def speechlm_config(tensors: dict[str, Tensor], fields: dict[str, Any]) -> SpeechLMConfig:
    return SpeechLMConfig(**encoder_fields(tensors, fields))


def speechut_config(tensors: dict[str, Tensor], fields: dict[str, Any]) -> SpeechUTConfig:
    found = encoder_fields(tensors, fields)
    if "decoder.embed_tokens.weight" not in tensors:
        return SpeechUTConfig(**found)
    text = fields.get("text_transformer", {})
    decoder = tensors["decoder.embed_tokens.weight"]
    table = tensors["decoder.pos_emb.pe_k.weight"]
    has_ctc = "unit_encoder_ctc_head.1.weight" in tensors
    numbers = [int(match[1]) for name in tensors if (match := re.match(r"decoder\.layers\.(\d+)\.", name))]
    return SpeechUTConfig(
        **found
        | {
            "text_vocab_size": len(decoder),
            "decoder_layers": max(numbers) + 1,
            "decoder_hidden_size": decoder.shape[1],
            "decoder_ffn_dim": _rows(tensors, "decoder.layers.0.fc1.weight"),
            "decoder_attention_heads": decoder.shape[1] // table.shape[1],
            "decoder_relative_distance": len(table) // 2,
            "decoder_layerdrop": _inner(text, "decoder.layerdrop", 0.1),
            "tie_word_embeddings": bool(text.get("share_decoder_input_output_embed", False)),
            # Translation is pre-trained without CTC, and its decoder counts in full.
            "decoder_weight": 0.1 if has_ctc else 1.0,
            "joint_ctc_weight": 0.5 if has_ctc else 0.0,
        }
    )


CONFIGURATIONS: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], JointEncoderConfig]] = {
    "speechlm": speechlm_config,
    "speechut": speechut_config,
}


__all__ = ["Conversion", "convert", "converted"]
