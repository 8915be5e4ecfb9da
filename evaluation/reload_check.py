"""Proof that a saved model, loaded in a fresh process, gives the outputs it gave before saving.

Run as a program it loads the folder and writes what the model says; `reloads_equal` runs it and compares.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

# Importing the package registers the Auto classes.
_PROGRAM = "import speechzoo; from speechzoo.evaluation.reload_check import main; main()"


@torch.no_grad()
def outputs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Logits [B, T, V] of a batch with labels, in evaluation mode and on the model's device, back in main memory."""
    model.eval()
    placed = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return model(**placed, return_logits=True).logits.contiguous().cpu()


def reloads_equal(
    model: Any, inputs: dict[str, Tensor], source: str | Path, auto_class: str = "AutoModelForMultimodalLM"
) -> bool:
    """Whether a fresh process that loads `source` with an Auto class gets the same logits, bit for bit.

    It computes on the device of `model`, for devices round differently.

    Raises `RuntimeError` with the process's last words if it fails, also when weights are reported missing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        given, told = Path(temporary) / "inputs.safetensors", Path(temporary) / "outputs.safetensors"
        save_file({name: tensor.cpu().contiguous() for name, tensor in inputs.items()}, given)
        settings = [str(torch.get_num_threads()), str(model.device), auto_class]
        command = [sys.executable, "-c", _PROGRAM, str(source), str(given), str(told), *settings]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"'{source}' does not load in a fresh process: {run.stderr.strip()[-2000:]}")
        return torch.equal(load_file(told)["logits"], outputs(model, inputs))


def main() -> None:
    source, given, told, threads, device, auto_class = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model, info = getattr(transformers, auto_class).from_pretrained(source, output_loading_info=True)
    problems = {name: sorted(keys) for name, keys in info.items() if keys}
    if problems:
        raise SystemExit(f"loading reports {problems}")
    save_file({"logits": outputs(model.to(device), load_file(given))}, told)
