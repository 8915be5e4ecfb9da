"""The texts of a corpus in synthesized voices: what is trained on in place of recordings, as a baseline.

folder = synthesize_corpus(load_corpus("slue_voxceleb:DIR", "train", audio=False), "output/spoken", ["en-us"])
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from . import espeak_synthesis
from .audio_folder import METADATA
from .espeak_synthesis import SAMPLING_RATE, EspeakError
from .synthetic_corpus import appearing_when_complete

__all__ = ["SYNTHESIZED", "synthesize_corpus"]

# Before every id, so that clips are not taken for the recordings of the same texts.
SYNTHESIZED = "synthesized-"

_OURS = ("id", "audio", "duration", "speaker", "accent", "words", "phones")


def synthesize_corpus(rows: Dataset, folder: str | Path, voices: Sequence[str] = ("en-us",), rate: int = 160) -> Path:
    """Speaks every text and writes it, with its labels, as a folder that `load_corpus` reads.

    Args:
        rows: with columns `id` and `text`; labels and whatever else they hold are kept, recordings are not.
        folder: appears when it is complete. One that is there already is left as it is.
        voices: of espeak-ng, in turn; one without a variant, such as "en-us", is in no split of the tiny corpora.
        rate: words a minute.

    Raises:
        ValueError: a text is missing. EspeakError: the synthesizer is not installed, or cannot say a text.
    """
    target = Path(folder)
    if target.is_dir():
        return target
    lines = [_line(row, rows, number, voices) for number, row in enumerate(rows)]
    with appearing_when_complete(target) as unfinished:
        (unfinished / "audio").mkdir(parents=True)
        spoken = dict(_spoken(lines, unfinished, rate))
        if len(spoken) < len(lines):
            raise EspeakError(f"speech synthesis stopped after {len(spoken)} of {len(lines)} texts")
        told = [json.dumps({**line, **spoken[str(number)]}) for number, line in enumerate(lines)]
        (unfinished / METADATA).write_text("\n".join(told) + "\n", encoding="utf-8")
    return target


def _line(row: dict[str, Any], rows: Dataset, number: int, voices: Sequence[str]) -> dict[str, Any]:
    if not (row.get("text") or "").strip():
        raise ValueError(f"clip '{row['id']}' has no text to say; leave it out")
    kept = {column: value for column, value in row.items() if column not in _OURS and value is not None}
    for column, feature in rows.features.items():
        if isinstance(feature, ClassLabel) and column in kept:
            kept[column] = feature.names[kept[column]]
    speaker = voices[number % len(voices)]
    facts = {"id": f"{SYNTHESIZED}{row['id']}", "audio": f"audio/{number}.flac", "speaker": speaker}
    return {**facts, **kept}


def _spoken(lines: Sequence[dict[str, Any]], folder: Path, rate: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Length and timings by number, from a process of its own, in which the engine always says the same."""
    asked = [
        {"id": str(number), "text": line["text"], "voice": line["speaker"], "rate": rate}
        for number, line in enumerate(lines)
    ]
    requests = folder / "requests.jsonl"
    requests.write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    command = [sys.executable, espeak_synthesis.__file__, str(requests), str(folder / "audio")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise EspeakError(f"speech synthesis failed: {done.stderr.strip().splitlines()[-1]}")
    requests.unlink()
    for line in done.stdout.splitlines():
        told = json.loads(line)
        seconds = round(told["samples"] / SAMPLING_RATE, 4)
        yield told["id"], {"duration": seconds, "words": told["words"], "phones": told["phones"]}
