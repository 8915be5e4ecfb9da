"""What the configurations of SpeechLM and SpeechUT share: a speech encoder below an encoder of units and speech."""

import math
from typing import Any, ClassVar, Literal

from transformers import PreTrainedConfig

from .answer_forms import answer_forms
from .strict_keys import refuse_unknown_keys

# Released sizes, and one for tests and demonstrations.
TINY: dict[str, Any] = {
    "conv_dim": (64,) * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "unit_encoder_layers": 2,
    "unit_attention_heads": 4,
    "unit_intermediate_size": 256,
    "max_unit_positions": 1500,
    "final_dim": 64,
}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "feature_grad_mult": 1.0,
    "unit_encoder_layers": 12,
    "unit_attention_heads": 16,
    "unit_intermediate_size": 4096,
}


class JointEncoderConfig(PreTrainedConfig):
    """Fields of `SpeechLMConfig` and `SpeechUTConfig`; the defaults are those of the Base models.

    > The speech encoder; names and meanings are those of `HubertConfig`

    conv_dim, conv_kernel, conv_stride, conv_bias, feat_extract_norm, feat_extract_activation, feat_proj_dropout,
    num_conv_pos_embeddings, num_conv_pos_embedding_groups, hidden_size, num_hidden_layers, num_attention_heads,
    intermediate_size, hidden_act, hidden_dropout, attention_dropout, activation_dropout, layerdrop, layer_norm_eps,
    do_stable_layer_norm (a layer norm before each block instead of after it).
    sampling_rate (`int`, defaults to 16000): samples a second.
    relative_position_distance (`int`, defaults to 160): distances beyond it count as it, in both encoders.

    > The unit encoder, which both modalities pass; its width is `hidden_size`

    unit_encoder_layers, unit_attention_heads, unit_intermediate_size (`int`): its shape.
    unit_pre_norm (`bool`, defaults to `False`): a layer norm before each block instead of after it.
    unit_embedding_norm (`bool`, defaults to `True`): a layer norm of its input.
    max_unit_positions (`int`, defaults to 3000): learned absolute positions; later ones share the last. 0 for none.

    > Vocabularies

    unit_vocab_size (`int`): units (phones or clusters), special ones included. 0 builds a model without a way in for
        text, as cleaned checkpoints of the original hold it.
    text_vocab_size (`int`): letters or tokens, special ones included; `vocab_size` is another name for it.
    bos_token_id, pad_token_id, eos_token_id (`int`): of both vocabularies.
    ctc_blank_token_id (`int`, defaults to 0): the blank of CTC, which is `<s>`.

    > Padding

    original_padding (`bool`, defaults to `False`):
        `False` makes every clip what it is alone, in any batch. `True` does as the original does with a padded batch:
        padding enters the group norm, and a frame counts unless all its samples are padding.

    > Heads

    ctc_conv_kernel (`int`, defaults to 2): width of the convolution of the CTC head. Where it is even, the logits
        have one step more than there are frames. 0 makes the head one linear layer.
    final_dropout (`float`): inside the CTC head.
    num_labels (`int`), classifier_dropout (`float`, defaults to 0.2): of the classifier.

    > Fine-tuning

    freeze_layers (`int`, defaults to -1): -1 trains all but the convolutions; 0 freezes everything below the unit
        encoder's layers; k freezes the bottom k of these too. Our reading: from 1 on their table of relative
        positions is frozen as well, for the frozen layers would change with it.
    apply_spec_augment, mask_time_prob, mask_time_length, mask_time_min_masks, mask_feature_prob, mask_feature_length,
        mask_feature_min_masks: as in `HubertConfig`, of speech alone, drawn as fairseq does, so that all rows of a
            batch have as much masked as the row with the least; the defaults mask nothing.

    > Pre-training

    final_dim (`int`), logit_temperature (`float`): of the cosines between states and label embeddings.
    label_rate (`float`): frame labels a second.
    pretraining_mask_prob, pretraining_mask_length, pretraining_mask_min: spans that are masked.
    swap_prob, swap_length, swap_min: spans whose frames, where not masked, become the embedding of their label.
    feature_grad_mult (`float`): factor on the gradient of the convolutions; 0 does not train them, which is faster.
    feature_penalty_weight, text_ctc_weight, masked_unit_weight (`float`): of the terms of the loss.
    heard_weight (`float`, defaults to 0.0): of predicting frames that are not masked, those that are swapped among
        them, so that the states of a unit and of its sound must end alike; 0 in the originals, above it for models
        that train shortly.
    mask_text (`bool`): whether the units of a text are masked too.

    > What its answers mean

    answers (`dict[str, dict]`, *optional*): task -> the form of what a fine-tuned model says, see `answer_forms`.

    Raises `ValueError` for unknown keys and for values that contradict each other.
    """

    attribute_map = {"vocab_size": "text_vocab_size"}
    keys_to_ignore_at_inference = [
        *("past_key_values", "conv_features", "frame_attention_mask", "frame_labels", "mask_time_indices"),
        *(f"{what}_hidden_state" for what in ("last", "speech", "text", "encoder_last")),
    ]

    # What transformers' HuBERT classes ask for, and no model here does otherwise.
    feat_proj_layer_norm: ClassVar[bool] = True

    conv_dim: list[int] | tuple[int, ...] = (512,) * 7
    conv_kernel: list[int] | tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: list[int] | tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: Literal["group", "layer"] = "group"
    feat_extract_activation: str = "gelu"
    feat_proj_dropout: float = 0.1
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layerdrop: float = 0.1
    layer_norm_eps: float = 1e-5
    do_stable_layer_norm: bool = False
    sampling_rate: int = 16000
    relative_position_distance: int = 160

    unit_encoder_layers: int = 6
    unit_attention_heads: int = 8
    unit_intermediate_size: int = 3072
    unit_pre_norm: bool = False
    unit_embedding_norm: bool = True
    max_unit_positions: int = 3000

    unit_vocab_size: int = 505
    text_vocab_size: int = 33
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    ctc_blank_token_id: int = 0

    original_padding: bool = False

    ctc_conv_kernel: int = 2
    final_dropout: float = 0.1
    classifier_dropout: float = 0.2

    freeze_layers: int = -1
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.0
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 64
    mask_feature_min_masks: int = 0

    final_dim: int = 256
    logit_temperature: float = 0.1
    label_rate: float = 50.0
    pretraining_mask_prob: float = 0.8
    pretraining_mask_length: int = 10
    pretraining_mask_min: int = 2
    swap_prob: float = 0.4
    swap_length: int = 5
    swap_min: int = 2
    feature_grad_mult: float = 0.1
    feature_penalty_weight: float = 10.0
    text_ctc_weight: float = 0.1
    masked_unit_weight: float = 0.0
    heard_weight: float = 0.0
    mask_text: bool = True

    answers: dict[str, Any] | None = None

    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        for name in ("conv_dim", "conv_kernel", "conv_stride"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)
        self._check_values()

    @property
    def num_feat_extract_layers(self) -> int:
        return len(self.conv_dim)

    @property
    def all_layers(self) -> int:
        """Layers that speech passes: those of the speech encoder and of the unit encoder."""
        return self.num_hidden_layers + self.unit_encoder_layers

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples of a frame."""
        return math.prod(self.conv_stride)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.inputs_to_logits_ratio

    @property
    def frame_kernel(self) -> int:
        """Samples that the first frame needs; `F = (S - frame_kernel) // inputs_to_logits_ratio + 1`."""
        reach = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            reach = (reach - 1) * stride + kernel
        return reach

    def _check_values(self) -> None:
        answer_forms(self.answers)
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise ValueError("conv_dim, conv_kernel and conv_stride differ in length; give one entry a convolution")
        for name in ("num_attention_heads", "unit_attention_heads"):
            if self.hidden_size % getattr(self, name):
                raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {name} {getattr(self, name)}")
        if not -1 <= self.freeze_layers <= self.unit_encoder_layers:
            raise ValueError(f"freeze_layers is {self.freeze_layers}; choose -1 to {self.unit_encoder_layers}")
        if self.label_rate < self.frame_rate:
            raise ValueError(
                f"label_rate is {self.label_rate}, less than the {self.frame_rate} frames a second; repeat the labels"
            )
        if self.pad_token_id is None:
            raise ValueError("pad_token_id is None; units are padded with it, give it a number")

    @property
    def padding(self) -> int:
        """`pad_token_id`, which is a number here."""
        assert self.pad_token_id is not None  # refused above
        return self.pad_token_id


def preset_fields(name: str, presets: dict[str, dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a named preset, replaced by `fields`. Raises `ValueError` for another name."""
    if name not in presets:
        raise ValueError(f"there is no preset '{name}'; choose one of {', '.join(presets)}")
    return {**presets[name], **fields}


__all__ = ["JointEncoderConfig"]
