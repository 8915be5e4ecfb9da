"""When each word of an utterance is said: from a synthesizer's timings, a CTC model, or a TextGrid file.

    aligner = CTCAligner.from_pretrained("facebook/wav2vec2-base-960h")
    [words] = aligner.align(["clip.flac"], ["how are you"])   # [WordSpan("how", 0.31, 0.46), ...]

Shape letters: `B` batch, `F` frames, `V` vocabulary, `L` labels of a text, `N` = 2 L + 1 states of its trellis (blank,
label, blank, label, ..., blank).
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCTC, AutoProcessor, Wav2Vec2CTCTokenizer

from .audio_loading import AudioSource, load_audio

__all__ = ["CTCAligner", "WordSpan", "ctc_viterbi", "read_textgrid", "spans_of_timings", "word_groups"]

SILENCES = ("", "<eps>", "sil", "sp")


@dataclass(frozen=True)
class WordSpan:
    """A word, or several that cannot be parted with spaces between, from `start` to `end` in seconds."""

    word: str
    start: float
    end: float


def word_groups(spans: Iterable[WordSpan], shortest: float = 0.0) -> list[WordSpan]:
    """The spans with words that cannot be parted joined into one.

    Two neighbors are joined where the second begins before the first ends (words that share one event have the same
    start and end), or where either lasts no longer than `shortest` seconds (words without an event have no length).
    """
    groups: list[WordSpan] = []
    for span in spans:
        if groups and (span.start < groups[-1].end or min(_seconds(groups[-1]), _seconds(span)) <= shortest):
            last = groups.pop()
            span = WordSpan(f"{last.word} {span.word}", min(last.start, span.start), max(last.end, span.end))
        groups.append(span)
    return groups


def _seconds(span: WordSpan) -> float:
    return span.end - span.start


def spans_of_timings(words: Iterable[Sequence[Any]], phones: Iterable[Sequence[Any]] = ()) -> list[WordSpan]:
    """The columns `words` and `phones` of a spoken corpus, `[[label, start, end], ...]` in seconds, as spans.

    The synthesizer says some pairs of words ("in the") as one, and the corpus shares their time out by letters. Where
    phones are given, such a pair is told by its second word, which begins amid a phone, and becomes one span.
    """
    beginnings = {start for _, start, _ in phones}
    spans: list[WordSpan] = []
    for word, start, end in words:
        if spans and beginnings and start not in beginnings:
            first = spans.pop()
            word, start = f"{first.word} {word}", first.start
        spans.append(WordSpan(word, start, end))
    return spans


# --- CTC ---


@dataclass(frozen=True)
class CTCAligner:
    """Finds the words of known texts in clips, by any CTC model of transformers and its processor.

    A CTC model writes a letter down some time after it began and then says nothing until the next, so the frames
    between two words are shared out by halves, but no word reaches farther than `reach` seconds into them.

    frame_rate: frames a second of the model's output; measured where left out.
    """

    model: Any
    processor: Any
    reach: float = 0.1
    frame_rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.frame_rate:
            object.__setattr__(self, "frame_rate", self._measured_frame_rate())

    @classmethod
    def from_pretrained(cls, source: str, revision: str | None = None, device: Any = "cpu") -> CTCAligner:
        """The aligner that the CTC model, on `device`, and processor of a Hub id or a folder make."""
        model = AutoModelForCTC.from_pretrained(source, revision=revision).eval()
        return cls(model.to(device), AutoProcessor.from_pretrained(source, revision=revision))

    def align(
        self, clips: Sequence[AudioSource], texts: Sequence[str], batch_size: int = 32, strict: bool = True
    ) -> list[list[WordSpan]]:
        """The words of each text, as spaces part them, with their times in the clip.

        Letters are written as the model's vocabulary has them, large or small. A word of which it knows no letter
        (digits, for most models) has no length and stands where the word before it ends: `word_groups` joins the two.

        Args:
            batch_size: how many clips are aligned at once. They are heard one by one, for padding changes what some
                encoders say.
            strict: refuse a clip that cannot be aligned; else there are no words for it.

        Raises:
            ValueError: clips and texts differ in number; with `strict`, the model knows no letter of a text, or a clip
                has too few frames for its text. The message gives the text.
        """
        if len(clips) != len(texts):
            raise ValueError(f"there are {len(clips)} clips but {len(texts)} texts; give one text a clip")
        spans: list[list[WordSpan]] = []
        for first in range(0, len(clips), batch_size):
            batch = slice(first, first + batch_size)
            spans += self._align_batch(clips[batch], texts[batch], strict)
        return spans

    def _align_batch(self, clips: Sequence[AudioSource], texts: Sequence[str], strict: bool) -> list[list[WordSpan]]:
        labels, words_of_labels = zip(*(self._labels(text) for text in texts), strict=True)
        rate = self.processor.feature_extractor.sampling_rate
        heard = [self._scores(load_audio(clip, rate)) for clip in clips]
        frames, lengths = (torch.tensor([len(item) for item in items]) for items in (heard, labels))
        padded = pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in labels], batch_first=True)
        paths = ctc_viterbi(pad_sequence(heard, batch_first=True), frames, padded, lengths, self._blank)
        spans: list[list[WordSpan]] = []
        for path, count, text, words in zip(paths, frames.tolist(), texts, words_of_labels, strict=True):
            problem = None
            if not words:
                problem = f"the model knows no letter of the text '{text}'; write it as the model was trained on"
            elif path[0] < 0:
                problem = f"{count} frames are too few for the text '{text}'; is it what the clip says?"
            if problem and strict:
                raise ValueError(problem)
            spans.append([] if problem else self._spans(text.split(), words, path[:count].tolist()))
        return spans

    @property
    def _blank(self) -> int:
        return self.model.config.pad_token_id

    @torch.inference_mode()
    def _scores(self, samples: np.ndarray) -> torch.Tensor:
        """What the model says of one clip [S], on the CPU: [F, V]."""
        rate = self.processor.feature_extractor.sampling_rate
        inputs = self.processor(samples, sampling_rate=rate, return_tensors="pt").to(self.model.device)
        frames = self.model(**inputs).logits[0].float().cpu()
        # Some extractors fill up even a single clip, to a whole number of frames.
        mask = inputs.get("attention_mask")
        return frames[: int(mask.sum())] if mask is not None and mask.shape[1] == len(frames) else frames

    def _measured_frame_rate(self) -> float:
        """By how many frames a clip of three seconds is longer than one of one, for edges cost the same in both."""
        rate = self.processor.feature_extractor.sampling_rate
        noise = np.random.default_rng(0).normal(scale=0.1, size=3 * rate).astype(np.float32)
        return (len(self._scores(noise)) - len(self._scores(noise[:rate]))) / 2

    def _labels(self, text: str) -> tuple[list[int], list[int]]:
        """The ids of a text, and for each the number of its word, or -1 for a delimiter."""
        tokenizer = self.processor.tokenizer
        delimited = isinstance(tokenizer, Wav2Vec2CTCTokenizer)
        ids: list[int] = []
        words: list[int] = []
        for number, word in enumerate(text.split()):
            letters = self._letters(word)
            if ids and letters and delimited:
                ids.append(tokenizer.word_delimiter_token_id)
                words.append(-1)
            ids += letters
            words += [number] * len(letters)
        return ids, words

    def _letters(self, word: str) -> list[int]:
        """The ids of a word without unknown ones, in the case of which the vocabulary knows most."""
        tokenizer = self.processor.tokenizer
        written = [tokenizer(form, add_special_tokens=False).input_ids for form in (word, word.upper(), word.lower())]
        known = [[token for token in ids if token not in (tokenizer.unk_token_id, self._blank)] for ids in written]
        return max(known, key=len)

    def _spans(self, words: Sequence[str], words_of_labels: Sequence[int], path: Sequence[int]) -> list[WordSpan]:
        """The words' times by the path of a clip's frames, which gives some of them to each word with letters."""
        first: dict[int, int] = {}
        end: dict[int, int] = {}
        for frame, state in enumerate(path):
            if state % 2 and (number := words_of_labels[state // 2]) >= 0:
                first.setdefault(number, frame)
                end[number] = frame + 1
        farthest = self.reach * self.frame_rate
        ends_before, firsts_after = [0, *end.values()], [*first.values(), len(path)][1:]
        times: dict[int, tuple[float, float]] = {}
        for number, before, after in zip(first, ends_before, firsts_after, strict=False):
            begins = first[number] - min(farthest, (first[number] - before) / 2)
            times[number] = (begins, end[number] + min(farthest, (after - end[number]) / 2))
        spans, edge = [], 0.0
        for number, word in enumerate(words):
            begins, edge = times.get(number, (edge, edge))
            spans.append(WordSpan(word, begins / self.frame_rate, edge / self.frame_rate))
        return spans


def ctc_viterbi(
    scores: torch.Tensor, frames: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor, blank: int
) -> torch.Tensor:
    """The most probable CTC path of each text.

    Args:
        scores: [B, F, V], log-probabilities, or logits, for what differs between the two is the same for all paths.
        frames: [B], how many of the F frames are the clip's; what the others hold makes no difference.
        labels: [B, L], ids of the text, padded with any id.
        lengths: [B], how many of the L labels are the text's.
        blank: id of the blank.

    Returns:
        The state of each frame [B, F]: 2 i + 1 is label number i, even states are the blanks before, between and
        behind. It is -1 beyond a clip's frames, and all over a clip with too few of them for its text.
    """
    states = labels.new_full((len(labels), 2 * labels.shape[1] + 1), blank)  # [B, N]
    states[:, 1::2] = labels
    emitted = scores.gather(2, states[:, None].expand(-1, scores.shape[1], -1))  # [B, F, N]
    # Two labels that differ need no blank between them.
    direct = torch.zeros_like(states, dtype=torch.bool)
    direct[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    score = emitted[:, 0].clone()
    score[:, 2:] = -math.inf
    came = torch.zeros(emitted.shape, dtype=torch.uint8, device=emitted.device)  # from how many states below
    for frame in range(1, emitted.shape[1]):
        ways = torch.stack([score, _shifted(score, 1), _shifted(score, 2).masked_fill(~direct, -math.inf)])
        best, steps = ways.max(0)
        inside = (frame < frames)[:, None]
        came[:, frame] = steps * inside
        score = torch.where(inside, best + emitted[:, frame], score)
    return _traced_back(score, came, frames, lengths)


def _shifted(score: torch.Tensor, states: int) -> torch.Tensor:
    """What is known of the state so many below."""
    return torch.nn.functional.pad(score, (states, 0), value=-math.inf)[:, : score.shape[1]]


def _traced_back(score: torch.Tensor, came: torch.Tensor, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The best path [B, F] that ends in the last label or in the blank behind it."""
    last = torch.stack([2 * lengths, (2 * lengths - 1).clamp(min=0)], 1)  # [B, 2]
    ends = score.gather(1, last)
    state = last.gather(1, ends.argmax(1, keepdim=True))  # [B, 1]
    path = torch.empty(came.shape[:2], dtype=torch.long, device=came.device)
    for frame in reversed(range(came.shape[1])):
        path[:, frame] = state[:, 0]
        state = state - came[:, frame].gather(1, state)
    outside = torch.arange(came.shape[1], device=came.device) >= frames[:, None]
    return path.masked_fill(outside | ends.amax(1).isneginf()[:, None], -1)


# --- TextGrid ---

# What Praat itself reads, long form or short: texts, numbers and flags that stand free. The rest is for people.
_TEXTGRID_ITEM = re.compile(r'!.*|"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|(<\w+>)')


def read_textgrid(path: str | Path, tier: str = "words", silences: Collection[str] = SILENCES) -> list[WordSpan]:
    """The intervals of a tier of a TextGrid file, long form or short, such as the Montreal Forced Aligner writes.

    Args:
        tier: its name; where there are several speakers, the aligner writes "anna - words".
        silences: texts of intervals that are left out.

    Raises:
        ValueError: the file is no TextGrid, is damaged, or has no tier of intervals with this name.
    """
    items = _textgrid_items(Path(path).read_bytes())
    if len(items) < 2 or not str(items[0]).startswith("ooTextFile") or items[1] != "TextGrid":
        raise ValueError(f"'{path}' is no TextGrid; such a file begins with: File type = \"ooTextFile\"")
    try:
        tiers = _textgrid_tiers(iter(items[4:]))
    except (StopIteration, ValueError):
        raise ValueError(f"the TextGrid '{path}' is damaged or cut short; write it again") from None
    if tier not in tiers:
        raise ValueError(f"'{path}' has no tier of intervals '{tier}'; it has: {', '.join(tiers) or 'none'}")
    return [span for span in tiers[tier] if span.word not in silences]


def _textgrid_items(content: bytes) -> list[str | float]:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    items: list[str | float] = []
    for match in _TEXTGRID_ITEM.finditer(content.decode("utf-16" if wide else "utf-8-sig", errors="replace")):
        text, number, flag = match.groups()
        if number or flag:
            items.append(float(number) if number else flag)
        elif text is not None:
            items.append(text.replace('""', '"'))
    return items


def _textgrid_tiers(items: Iterator[str | float]) -> dict[str, list[WordSpan]]:
    """The intervals of each tier of intervals. `items` begin behind the times of the whole."""
    tiers = {}
    for _ in range(int(next(items)) if next(items) == "<exists>" else 0):
        kind, name, _start, _end, count = next(items), next(items), next(items), next(items), int(next(items))
        if kind == "IntervalTier":
            tiers[str(name)] = [_interval(items) for _ in range(count)]
        else:  # points: a time and a mark each
            for _ in range(2 * count):
                next(items)
    return tiers


def _interval(items: Iterator[str | float]) -> WordSpan:
    start, end, text = float(next(items)), float(next(items)), str(next(items))
    return WordSpan(text.strip(), start, end)
