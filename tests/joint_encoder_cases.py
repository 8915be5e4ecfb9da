"""The recorded originals of SpeechLM and SpeechUT beside what is converted from them, and tiny random models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from speechzoo.hub_cards.original_checkpoints import OriginalCheckpoint, read_original
from speechzoo.hub_cards.original_conversion import Conversion, converted

STYLES = ["base", "large_style"]
MODELS = ["speechlm", "speechut"]

TINY: dict[str, Any] = {
    "conv_dim": [16] * 4,
    "conv_kernel": [10, 3, 3, 2],
    "conv_stride": [5, 2, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "relative_position_distance": 20,
    "unit_encoder_layers": 3,
    "unit_attention_heads": 4,
    "unit_intermediate_size": 40,
    "max_unit_positions": 150,
    "unit_vocab_size": 31,
    "text_vocab_size": 16,
    "final_dim": 24,
    "label_rate": 400.0,
}
TINY_DECODER: dict[str, Any] = {
    "decoder_layers": 2,
    "decoder_hidden_size": 24,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 56,
    "decoder_relative_distance": 6,
}
LARGE_STYLE: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "unit_pre_norm": True}


@dataclass
class Recorded:
    """One folder of recorded tensors and the model that was converted from its weights."""

    folder: Path
    original: OriginalCheckpoint
    conversion: Conversion
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @property
    def model(self) -> PreTrainedModel:
        return self.conversion.model

    def speech(self) -> dict[str, Tensor]:
        """The padded batch."""
        return {
            "input_values": self.inputs["speech.source"],
            "attention_mask": (~self.inputs["speech.padding_mask"]).long(),
        }

    def padded_as_the_original(self, original_padding: bool = True) -> PreTrainedModel:
        """The same weights with that padding rule."""
        config = type(self.model.config).from_dict(
            {**self.model.config.to_dict(), "original_padding": original_padding}
        )
        model = type(self.model)(config).eval()
        model.load_state_dict(self.model.state_dict())
        return model


def recorded(test_data: Path, model_type: str, style: str) -> Recorded:
    folder = test_data / "parity" / f"{model_type}_tiny"
    folder = folder if style == "base" else folder / style
    original = read_original(folder / "original_state_dict.safetensors", folder / "config.json")
    return Recorded(
        folder,
        original,
        converted(model_type, original),
        load_file(folder / "inputs.safetensors"),
        load_file(folder / "outputs.safetensors"),
    )


class Watched:
    """What went into and came out of modules during a forward pass, by their names."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        for name in names:
            model.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            self.inputs[name] = args[0]
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return keep


def random_model(model_class: Any, **fields: Any) -> Any:
    """A tiny model whose weights are scaled up, so that what a frame attends to shows."""
    torch.manual_seed(0)
    config_class = model_class.config_class
    decoder = TINY_DECODER if config_class.model_type == "speechut" else {}
    model = model_class(config_class(**{**TINY, **decoder, **fields}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
    return model.eval()


def clips(*samples: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(count, generator=generator) for count in samples]


def padded(rows: list[Tensor], more: int = 0, value: float = 0.0) -> dict[str, Tensor]:
    """Clips in one batch, with `more` samples of padding of that value."""
    size = max(map(len, rows)) + more
    values = torch.stack([nn.functional.pad(row, (0, size - len(row)), value=value) for row in rows])
    mask = torch.stack([(torch.arange(size) < len(row)).long() for row in rows])
    return {"input_values": values, "attention_mask": mask}
