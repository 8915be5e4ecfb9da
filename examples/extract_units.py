"""Write the units of corpora to the feature store, once, on any number of processes.

    python examples/extract_units.py --unit_model output/units --corpora synthetic:stories-train
    torchrun --nproc_per_node 4 examples/extract_units.py --unit_model output/units --corpora /data/librispeech

What the store holds is not extracted again, so an interrupted run continues when started again.
"""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModel, AutoProcessor

import speechzoo  # noqa: F401  makes its models known to transformers
from speechzoo.data.corpora import load_corpus
from speechzoo.data.extracted_units import extract_corpus, open_unit_store
from speechzoo.data.synthetic_corpus import default_cache_directory
from speechzoo.training.adapter_arguments import option
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import parse_arguments


@dataclass
class ExtractionArguments:
    """Unit model, corpora and store."""

    unit_model: str = field(metadata={"help": "trained unit model: folder or Hub id"})
    corpora: list[str] = field(metadata={"help": "corpora; source@split picks a split"})
    store: Path | None = option(None, "folder of the feature store; in the cache by default")
    clips: int | None = option(None, "so many clips of each corpus, the first")
    batch_size: int = option(16, "clips in a batch, of nearly one length")
    workers: int = option(0, "processes that load audio, for each process")
    shard_clips: int = option(512, "clips in a file of the store; what an interruption may lose")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", ExtractionArguments)
    processes = use_all_cores()
    state = PartialState(cpu=not torch.cuda.is_available())
    model = AutoModel.from_pretrained(arguments.unit_model).eval().to(state.device)
    processor = AutoProcessor.from_pretrained(arguments.unit_model)
    store = open_unit_store(arguments.store or default_cache_directory() / "features", model, processor)
    for source in arguments.corpora:
        name, _, split = source.partition("@")
        rows = load_corpus(name, split or None, audio=True)
        rows = rows.select(range(min(arguments.clips or len(rows), len(rows))))
        done = extract_corpus(
            model, processor, rows, store, arguments.batch_size, arguments.workers, arguments.shard_clips
        )
        factor = done.real_time_factor
        speed = "nothing was left to do" if factor is None else f"real-time factor {factor:.4f} ({1 / factor:.0f} x)"
        print(
            f"{source}, process {state.process_index + 1} of {processes}: {done.clips} of {len(done.keys)} clips, "
            f"{done.audio_seconds:.1f} s of audio in {done.seconds:.1f} s; {speed}"
        )
        state.wait_for_everyone()
        store.refresh()
    if state.is_main_process:
        print(f"{len(store)} clips are in {store.folder}")


if __name__ == "__main__":
    main()
