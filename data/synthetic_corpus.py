"""The one generator of spoken corpora: what tests, training and tables of results use.

A recipe says which texts, how many, by which voices, with which seed. Its corpus is a folder with `audio/<id>.flac`
(16 kHz mono) and `metadata.jsonl`, made on first use and kept in a cache::

    folder = build_synthetic_corpus(RECIPES["commands-test"])

Each line of `metadata.jsonl` holds: id, audio (path below the folder), duration (seconds), speaker, accent, transcript
(lower-case words), kind ("command", "story" or "words"), words and phones ([[label, start, end], ...] in seconds), and
for commands intent ("action object location"), slots and phrasing ("seen" or "unseen").
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from . import espeak_synthesis
from .command_grammar import draw_command
from .espeak_synthesis import SAMPLING_RATE, EspeakError
from .story_grammar import draw_story_sentence, draw_words
from .synthetic_voices import VOICE_SPLITS

GENERATOR_VERSION = 2

Record = dict[str, Any]


@dataclass(frozen=True)
class SyntheticCorpusRecipe:
    """What a corpus holds.

    Texts: `kind` ("command", "story": one sentence of a story, "words": random word strings) and, for commands,
    `phrasing` ("seen": those models are trained on, "unseen": the one per intent held out); `count` clips.
    Voices: `voices` ("train", "validation" or "test").
    Reproduction: `seed`; `shard_size`, clips spoken by one fresh process, because the engine is deterministic only for
    the same sequence in a fresh process.
    """

    name: str
    kind: Literal["command", "story", "words"]
    count: int
    voices: Literal["train", "validation", "test"]
    seed: int
    phrasing: Literal["seen", "unseen"] = "seen"
    shard_size: int = 250


def _recipes(*recipes: SyntheticCorpusRecipe) -> dict[str, SyntheticCorpusRecipe]:
    return {recipe.name: recipe for recipe in recipes}


RECIPES = _recipes(
    SyntheticCorpusRecipe("commands-train", "command", 2000, "train", seed=1),
    SyntheticCorpusRecipe("commands-validation", "command", 300, "validation", seed=2),
    SyntheticCorpusRecipe("commands-test", "command", 434, "test", seed=3),
    SyntheticCorpusRecipe("commands-validation-unseen-phrasings", "command", 155, "validation", 4, "unseen"),
    SyntheticCorpusRecipe("commands-test-unseen-phrasings", "command", 186, "test", 5, "unseen"),
    SyntheticCorpusRecipe("stories-train", "story", 2000, "train", seed=6),
    SyntheticCorpusRecipe("stories-validation", "story", 150, "validation", seed=7),
    SyntheticCorpusRecipe("stories-test", "story", 200, "test", seed=8),
    SyntheticCorpusRecipe("words-train", "words", 2000, "train", seed=9),
    SyntheticCorpusRecipe("words-validation", "words", 150, "validation", seed=10),
    SyntheticCorpusRecipe("words-test", "words", 200, "test", seed=11),
)


def default_cache_directory() -> Path:
    """`SPEECHZOO_CACHE` where set, else `~/.cache/speechzoo`."""
    return Path(os.environ.get("SPEECHZOO_CACHE") or Path.home() / ".cache" / "speechzoo")


def build_synthetic_corpus(recipe: SyntheticCorpusRecipe, cache_directory: str | Path | None = None) -> Path:
    """The folder of the recipe's corpus, generated behind a progress bar if the cache does not hold it yet.

    The folder's name ends in a hash of everything that is asked of the engine, so a changed recipe or grammar gets a
    folder of its own. It appears only when complete.

    Raises:
        EspeakError: if the synthesizer is not installed or refuses a request.
    """
    cache = Path(cache_directory or default_cache_directory())
    items = [_item(recipe, index) for index in range(recipe.count)]
    asked = json.dumps([GENERATOR_VERSION, recipe.shard_size, items], sort_keys=True)
    target = cache / f"{recipe.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{recipe.name}-") as temporary:
        unfinished = Path(temporary) / target.name
        _generate(recipe, items, unfinished)
        _move_into_place(unfinished, target)
    return target


def read_corpus(folder: str | Path) -> list[Record]:
    """The lines of a corpus folder's `metadata.jsonl`."""
    return [json.loads(line) for line in (Path(folder) / "metadata.jsonl").read_text().splitlines()]


def _item(recipe: SyntheticCorpusRecipe, index: int) -> dict[str, Record]:
    """What is asked of the engine for one clip, and what is known of the clip beforehand."""
    text, facts = _text(recipe, index)
    request = asdict(VOICE_SPLITS[recipe.voices].draw(text, recipe.seed, index))
    identifier = f"{recipe.name}-{index:05d}"
    accent, speaker = request["voice"].split("+")
    record = {"id": identifier, "audio": f"audio/{identifier}.flac", "speaker": speaker, "accent": accent}
    return {"request": {"id": identifier, **request}, "record": {**record, "transcript": text, **facts}}


def _text(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    if recipe.kind == "command":
        command = draw_command(recipe.seed, index, held_out=recipe.phrasing == "unseen")
        facts = {"intent": str(command.intent), "slots": asdict(command.intent), "phrasing": recipe.phrasing}
        return command.text, {"kind": "command", **facts}
    draw = {"story": draw_story_sentence, "words": draw_words}[recipe.kind]
    return draw(recipe.seed, index), {"kind": recipe.kind}


def _generate(recipe: SyntheticCorpusRecipe, items: list[dict[str, Record]], folder: Path) -> None:
    audio_folder = folder / "audio"
    audio_folder.mkdir(parents=True)
    requests = [item["request"] for item in items]
    shards = [requests[start : start + recipe.shard_size] for start in range(0, len(requests), recipe.shard_size)]
    spoken: dict[str, Record] = {}
    with (
        tqdm(total=recipe.count, desc=f"speaking {recipe.name}", unit="clip") as progress,
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
    ):
        for shard in pool.map(lambda requests: _speak_shard(requests, audio_folder, progress.update), shards):
            spoken |= shard
    with open(folder / "metadata.jsonl", "w") as metadata:
        for item in items:
            metadata.write(json.dumps({**item["record"], **spoken[item["record"]["id"]]}) + "\n")


def _speak_shard(requests: list[Record], audio_folder: Path, advance: Callable[[int], Any]) -> dict[str, Record]:
    """Speak a shard in a fresh process; durations and timings by clip."""
    with tempfile.TemporaryDirectory() as temporary:
        requests_file, errors_file = Path(temporary) / "requests.jsonl", Path(temporary) / "errors"
        requests_file.write_text("\n".join(json.dumps(request) for request in requests))
        command = [sys.executable, espeak_synthesis.__file__, str(requests_file), str(audio_folder)]
        with (
            open(errors_file, "w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            spoken = dict(_read_timings(process.stdout or (), advance))
        if process.returncode != 0 or len(spoken) != len(requests):
            reason = errors_file.read_text().strip().splitlines() or [f"exit code {process.returncode}"]
            raise EspeakError(f"Speech synthesis stopped after {len(spoken)} of {len(requests)} clips: {reason[-1]}")
    return spoken


def _read_timings(lines: Any, advance: Callable[[int], Any]) -> Iterator[tuple[str, Record]]:
    for line in lines:
        timings = json.loads(line)
        rounded = {
            name: [[label, round(start, 3), round(end, 3)] for label, start, end in timings[name]]
            for name in ("words", "phones")
        }
        advance(1)
        yield timings["id"], {"duration": round(timings["samples"] / SAMPLING_RATE, 4), **rounded}


def _move_into_place(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster and made the same
            raise
        shutil.rmtree(unfinished)
