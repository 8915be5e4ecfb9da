"""The one generator of spoken corpora: what tests, training and tables of results use.

A recipe says which texts, how many, by which voices, with which seed. Its corpus is a folder with `audio/<id>.flac`
(16 kHz mono) and `metadata.jsonl`, made on first use and kept in a cache::

    folder = build_synthetic_corpus(RECIPES["commands-test"])

Each line of `metadata.jsonl` holds: id, audio (path below the folder), duration (seconds), speaker, accent, transcript
(lower-case words), kind, words and phones ([[label, start, end], ...] in seconds), and what the kind adds:

- command: intent ("action object location"), slots, phrasing ("seen" or "unseen") and translation (into the invented
  language);
- request: scenario, action, intent ("scenario_action") and entities ([{type, start, end}, ...], characters);
- statement: entities, raw_text (capitals, punctuation, digits) and raw_entities (characters of raw_text);
- opinion: sentiment;
- order: slots ({name: value}, null for an empty one);
- story (one sentence of one): translation;
- opening (the first sentence of a story): translation, facts (name, adjective, thing, place), question about it and
  answer_to_question, reply, and continuation (one of many);
- whole story (both sentences): opening and facts;
- question: answer and family;
- words (random word strings): nothing.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from . import espeak_synthesis
from .assistant_grammar import draw_request
from .command_grammar import draw_command
from .entity_grammar import draw_statement
from .espeak_synthesis import SAMPLING_RATE, EspeakError
from .invented_language import translate
from .opinion_grammar import draw_opinion
from .order_grammar import draw_order
from .question_grammar import draw_question
from .story_grammar import draw_story_sentence, draw_whole_story, draw_words
from .synthetic_voices import VOICE_SPLITS

GENERATOR_VERSION = 2

Record = dict[str, Any]


@dataclass(frozen=True)
class SyntheticCorpusRecipe:
    """What a corpus holds.

    Texts: `kind` (which grammar speaks, see this file's head) and, for commands, stories and questions, `phrasing`
    ("seen": those models are trained on, "unseen": those held out); `count` clips.
    Voices: `voices` ("train", "validation" or "test"). Requests and statements by test voices also speak of people,
    places and organizations that no other voice names.
    Reproduction: `seed`; `shard_size`, clips spoken by one fresh process, because the engine is deterministic only for
    the same sequence in a fresh process.
    """

    name: str
    kind: Literal[
        "command", "request", "statement", "opinion", "order", "story", "opening", "whole story", "question", "words"
    ]
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
    SyntheticCorpusRecipe("requests-train", "request", 2000, "train", seed=12),
    SyntheticCorpusRecipe("requests-train-synthetic", "request", 500, "train", seed=13),
    SyntheticCorpusRecipe("requests-validation", "request", 300, "validation", seed=14),
    SyntheticCorpusRecipe("requests-test", "request", 400, "test", seed=15),
    SyntheticCorpusRecipe("opinions-train", "opinion", 1600, "train", seed=16),
    SyntheticCorpusRecipe("opinions-validation", "opinion", 220, "validation", seed=17),
    SyntheticCorpusRecipe("opinions-test", "opinion", 440, "test", seed=18),
    SyntheticCorpusRecipe("statements-train", "statement", 1500, "train", seed=19),
    SyntheticCorpusRecipe("statements-validation", "statement", 200, "validation", seed=20),
    SyntheticCorpusRecipe("statements-test", "statement", 400, "test", seed=21),
    SyntheticCorpusRecipe("openings-train", "opening", 2000, "train", seed=22),
    SyntheticCorpusRecipe("openings-validation", "opening", 150, "validation", 23, "unseen"),
    SyntheticCorpusRecipe("openings-test", "opening", 200, "test", 24, "unseen"),
    SyntheticCorpusRecipe("questions-train", "question", 1500, "train", seed=25),
    SyntheticCorpusRecipe("questions-validation", "question", 150, "validation", 26, "unseen"),
    SyntheticCorpusRecipe("questions-test", "question", 300, "test", 27, "unseen"),
    SyntheticCorpusRecipe("orders-train", "order", 2000, "train", seed=28),
    SyntheticCorpusRecipe("orders-validation", "order", 150, "validation", seed=29),
    SyntheticCorpusRecipe("whole-stories-train", "whole story", 5000, "train", seed=30),
    SyntheticCorpusRecipe("whole-stories-validation", "whole story", 150, "validation", 31, "unseen"),
    SyntheticCorpusRecipe("whole-stories-test", "whole story", 300, "test", 32, "unseen"),
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
    target = Path(cache_directory or default_cache_directory()) / corpus_folder_name(recipe)
    if not target.is_dir():
        with appearing_when_complete(target) as unfinished:
            _generate(recipe, _items(recipe), unfinished)
    return target


def corpus_folder_name(recipe: SyntheticCorpusRecipe) -> str:
    """The recipe's name with a hash of everything that is asked of the engine."""
    asked = json.dumps([GENERATOR_VERSION, recipe.shard_size, _items(recipe)], sort_keys=True)
    return f"{recipe.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"


@contextmanager
def appearing_when_complete(target: Path) -> Iterator[Path]:
    """A folder to fill beside `target`, moved there at the end; after an error nothing is left of it.

    Where another process filled the same target meanwhile, that one stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        unfinished = Path(temporary) / target.name
        yield unfinished
        _move_into_place(unfinished, target)


def read_corpus(folder: str | Path) -> list[Record]:
    """The lines of a corpus folder's `metadata.jsonl`."""
    return [json.loads(line) for line in (Path(folder) / "metadata.jsonl").read_text().splitlines()]


def _items(recipe: SyntheticCorpusRecipe) -> list[dict[str, Record]]:
    return [_item(recipe, index) for index in range(recipe.count)]


def _item(recipe: SyntheticCorpusRecipe, index: int) -> dict[str, Record]:
    """What is asked of the engine for one clip, and what is known of the clip beforehand."""
    text, facts = _text(recipe, index)
    request = asdict(VOICE_SPLITS[recipe.voices].draw(text, recipe.seed, index))
    identifier = f"{recipe.name}-{index:05d}"
    accent, speaker = request["voice"].split("+")
    record = {"id": identifier, "audio": f"audio/{identifier}.flac", "speaker": speaker, "accent": accent}
    return {"request": {"id": identifier, **request}, "record": {**record, "transcript": text, **facts}}


def _text(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    text, facts = _DRAWS[recipe.kind](recipe, index)
    return text, {"kind": recipe.kind, **facts}


def _command(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    command = draw_command(recipe.seed, index, held_out=recipe.phrasing == "unseen")
    facts = {"intent": str(command.intent), "slots": asdict(command.intent), "phrasing": recipe.phrasing}
    return command.text, {**facts, "translation": translate(command.text)}


def _request(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    request = draw_request(recipe.seed, index, unseen_names=recipe.voices == "test")
    labels = {"scenario": request.scenario, "action": request.action, "intent": request.intent}
    return request.labeled.text, {**labels, "entities": request.labeled.entity_records()}


def _statement(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    statement = draw_statement(recipe.seed, index, unseen_names=recipe.voices == "test")
    raw = {"raw_text": statement.raw.text, "raw_entities": statement.raw.entity_records()}
    return statement.labeled.text, {"entities": statement.labeled.entity_records(), **raw}


def _opinion(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    opinion = draw_opinion(recipe.seed, index)
    return opinion.text, {"sentiment": opinion.sentiment}


def _order(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    order = draw_order(recipe.seed, index)
    return order.text, {"slots": order.slots}


def _story(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    sentence = draw_story_sentence(recipe.seed, index)
    return sentence, {"translation": translate(sentence)}


def _opening(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    story = draw_whole_story(recipe.seed, index, held_out=recipe.phrasing == "unseen")
    facts = {"translation": translate(story.opening), "facts": dict(story.facts)}
    asked = {"question": story.question, "answer_to_question": story.answer}
    return story.opening, {**facts, **asked, "reply": story.reply, "continuation": story.continuation}


def _whole_story(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    story = draw_whole_story(recipe.seed, index, held_out=recipe.phrasing == "unseen")
    return f"{story.opening} {story.continuation}", {"opening": story.opening, "facts": dict(story.facts)}


def _question(recipe: SyntheticCorpusRecipe, index: int) -> tuple[str, Record]:
    question = draw_question(recipe.seed, index, held_out=recipe.phrasing == "unseen")
    return question.text, {"answer": question.answer, "family": question.family}


_DRAWS: dict[str, Callable[[SyntheticCorpusRecipe, int], tuple[str, Record]]] = {
    "command": _command,
    "request": _request,
    "statement": _statement,
    "opinion": _opinion,
    "order": _order,
    "story": _story,
    "opening": _opening,
    "whole story": _whole_story,
    "question": _question,
    "words": lambda recipe, index: (draw_words(recipe.seed, index), {}),
}


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
