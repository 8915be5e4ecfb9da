"""Make the checkpoints of tests/published anew: one of every system as this version saves it, without its weights.

    python tests/make_published.py && python examples/check_published.py --record

They stand for what was published once, so make them anew only where a published checkpoint may change.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from exported_cases import CHECKPOINTS
from speech_text_cases import Backbones

from speechzoo import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor
from speechzoo.hub_cards.recorded_loss import forget_weights

PUBLISHED = Path(__file__).parent / "published"
FORGOTTEN = ("_name_or_path", "audio_weights", "codebook_hash")
# The systems, those with backbones self-contained.
ALONE = {
    "seal_projector": "seal_alone",
    "speech_text_adapter": "adapter_alone",
    "speech_units": "units_alone",
    "speechlm": "speechlm_labels",
    "speechut": "speechut_writer",
    "sutlm": "sutlm",
    "text_to_unit": "text_to_unit",
}


def main() -> None:
    shutil.rmtree(PUBLISHED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        backbones = Backbones(Path(temporary))
        for name, case in ALONE.items():
            CHECKPOINTS[case](backbones, PUBLISHED / name)
    save_adapter_of_the_tiny_zoo(PUBLISHED / "speech_text_adapter_of_the_tiny_zoo")
    for folder in sorted(PUBLISHED.iterdir()):
        forget_weights(folder)
        forget_origin(folder / "config.json")


def save_adapter_of_the_tiny_zoo(folder: Path) -> None:
    """One that names its backbones, and leaves them where they are."""
    torch.manual_seed(0)
    parts = [f"examples/tiny_zoo/{name}" for name in ("speech_encoder", "in_context_language_model")]
    model = SpeechTextAdapterForConditionalGeneration.from_backbones(*parts, adapter_layers=1, adapter_width=32)
    told = {"prompts": {"asr": "{audio}<asr>"}, "audio_token": "<audio>"}
    processor = SpeechTextAdapterProcessor.from_model_config(model.config, **told)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def forget_origin(path: Path) -> None:
    """Where backbones were, and hashes of weights that are no longer there."""

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        named = {name: value for name, value in values.items() if name not in FORGOTTEN}
        return {name: kept(value) if isinstance(value, dict) else value for name, value in named.items()}

    path.write_text(json.dumps(kept(json.loads(path.read_text())), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
