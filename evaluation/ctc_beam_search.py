"""CTC decoding with words: a prefix beam search over a lexicon and an n-gram language model.

    search = BeamSearch(letters, language_model, beam=500)
    search.decode(logits.log_softmax(-1).numpy())

Ours because nothing that is kept up installs beside NumPy 2 and without torchaudio: pyctcdecode wants NumPy 1 and
flashlight-text ends at Python 3.11, both untouched since 2023 and 2024; KenLM comes without wheels, and none of them
estimates a model. A prefix is scored by the sum over its alignments; the original search takes the best alignment.

Shapes: F frames, V letters of the tokenizer, N prefixes of the beam, P prefixes ever kept, W nodes of the lexicon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .word_ngrams import BEGIN, END_OF_TEXT, UNKNOWN, WordNGrams

__all__ = ["BeamSearch"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
_SPACE = "|"
_ROOT, _OUTSIDE, _NONE = 0, 1, -1


@dataclass(frozen=True)
class BeamSearch:
    """Finds the text with the highest log P(text by CTC) + `lm_weight` log10 P(text) + `word_score` words.

    Args:
        letters: the letter of each id by id; "|" ends a word. Ids that are no letter are left out.
        language_model: of words, entity marks being words; its words are the lexicon.
        blank: id of CTC's blank.
        beam: prefixes that are kept after each frame.
        lm_weight, word_score: as in the paper's decoding; that the weight is of logarithms to base 10, as KenLM's are,
            is our reading.
        open_vocabulary: also writes words that the lexicon lacks, which the model sees as `<unk>`. The original search
            does not.
        capitals: whether ids spell capitals where the language model has small letters.

    Raises `ValueError` where no id ends a word, or a word of the language model cannot be spelled.
    """

    letters: Mapping[int, str]
    language_model: WordNGrams
    blank: int = 0
    beam: int = 500
    lm_weight: float = 2.0
    word_score: float = 1.0
    open_vocabulary: bool = False
    capitals: bool = True

    def __post_init__(self) -> None:
        if _SPACE not in self.letters.values():
            raise ValueError(f"no letter ends a word; one of them must be '{_SPACE}'")
        if self.beam < 1:
            raise ValueError(f"the beam is {self.beam}; give at least 1")

    @cached_property
    def ids(self) -> dict[str, int]:
        return {letter: number for number, letter in self.letters.items()}

    @cached_property
    def space(self) -> int:
        return self.ids[_SPACE]

    @cached_property
    def lexicon(self) -> "_Lexicon":
        return _Lexicon(self)

    def decode(self, log_probs: npt.ArrayLike) -> str:
        """The text of frames [F, V], natural logarithms of probabilities; words in the language model's letters."""
        return self.search(log_probs)[0]

    def search(self, log_probs: npt.ArrayLike) -> tuple[str, float]:
        """The text and its score. Where no prefix of the beam ends with a word, what it ends with is left out."""
        frames = np.asarray(log_probs, dtype=np.float64)
        prefixes = _Prefixes(self, frames.shape[1])
        beam, blank, letter = np.zeros(1, np.int64), np.zeros(1), np.full(1, -np.inf)
        for frame in frames:
            beam, blank, letter = self._advance(prefixes, frame, beam, blank, letter)
        scores = np.logaddexp(blank, letter) + prefixes.bonus[beam]
        whole = prefixes.node[beam] == _ROOT
        scores = np.where(whole, scores, scores - np.inf) if whole.any() else scores
        scores = scores + [prefixes.bonus_of_end(prefix) for prefix in beam.tolist()]
        best = int(scores.argmax())
        return " ".join(prefixes.words[beam[best]]), float(scores[best])

    def _advance(
        self, prefixes: "_Prefixes", frame: Floats, beam: Places, blank: Floats, letter: Floats
    ) -> tuple[Places, Floats, Floats]:
        """One frame [V]. `blank` and `letter` [N]: log probability of a prefix whose alignment ends in either."""
        total, last, rows = np.logaddexp(blank, letter), prefixes.last[beam], np.arange(len(beam))
        extended = total[:, None] + frame  # [N, V]
        written = last != _NONE
        extended[rows[written], last[written]] = blank[written] + frame[last[written]]  # a letter twice wants a blank
        extended[~prefixes.allowed(beam)] = -np.inf
        blank, letter = total + frame[self.blank], np.where(written, letter + frame[last], -np.inf)
        # A prefix of the beam that another one of the beam extends to.
        above = prefixes.places(beam)[prefixes.parent[beam]]
        merged = (above != _NONE) & written
        letter[merged] = np.logaddexp(letter[merged], extended[above[merged], last[merged]])
        extended[above[merged], last[merged]] = -np.inf

        bonus = prefixes.bonus[beam]
        ending = np.logaddexp(blank, letter) + bonus
        new = extended + bonus[:, None] + prefixes.bonus_of_leaving(beam)
        new[:, self.space] = extended[:, self.space] + prefixes.bonus_of_space(beam)
        scores = np.concatenate([ending, new.ravel()])
        kept = np.argpartition(-scores, self.beam)[: self.beam] if len(scores) > self.beam else np.arange(len(scores))
        kept = kept[scores[kept] > -np.inf]
        stays, (row, added) = kept[kept < len(beam)], np.divmod(kept[kept >= len(beam)] - len(beam), len(frame))
        return (
            np.concatenate([beam[stays], prefixes.extend(beam[row], added)]),
            np.concatenate([blank[stays], np.full(len(row), -np.inf)]),
            np.concatenate([letter[stays], extended[row, added]]),
        )


class _Lexicon:
    """The words of a language model as a tree of letters: `children` [W, V], -1 where no word goes on; `word` [W]."""

    def __init__(self, search: BeamSearch) -> None:
        width = max(search.letters) + 1
        self.word: list[str | None] = [None, UNKNOWN if search.open_vocabulary else None]
        children = [[_NONE] * width, [_NONE] * width]
        for word in search.language_model.words:
            node = _ROOT
            for letter in word.upper() if search.capitals else word:
                if letter not in search.ids or letter == _SPACE:
                    raise ValueError(f"no letters spell the word '{word}' of the language model")
                number = search.ids[letter]
                if children[node][number] == _NONE:
                    children[node][number] = len(children)
                    children.append([_NONE] * width)
                    self.word.append(UNKNOWN if search.open_vocabulary else None)
                node = children[node][number]
            self.word[node] = word
        self.children = np.array(children)
        if search.open_vocabulary:
            others = sorted(set(search.letters) - {search.space})
            block = self.children[:, others]
            self.children[:, others] = np.where(block == _NONE, _OUTSIDE, block)


class _Prefixes:
    """All prefixes that were ever kept, and those that end one of them with a word: arrays [P] that grow.

    parent, last: the prefix without its last letter, and that letter. node: in the lexicon. bonus: what the language
    model gives for the words. unknown: what it would give for an unknown one next. ended: the prefix with its word
    ended, where it may end. words: the whole ones.
    """

    def __init__(self, search: BeamSearch, width: int) -> None:
        self.search, self.model, self.tree = search, search.language_model, search.lexicon
        self.parent, self.last, self.ended = np.full(1, _NONE), np.full(1, _NONE), np.full(1, _NONE)
        self.node, self.bonus = np.full(1, _ROOT), np.zeros(1)
        self.words: list[tuple[str, ...]] = [()]
        self._longer: dict[tuple[int, int], int] = {}
        self._known: dict[tuple[tuple[str, ...], str], float] = {}
        self.unknown = self._gains([UNKNOWN], [()])
        missing = max(0, width - self.tree.children.shape[1])
        self.reachable = np.pad(self.tree.children, ((0, 0), (0, missing)), constant_values=_NONE)

    def allowed(self, beam: Places) -> npt.NDArray[np.bool_]:
        """Which letters may follow, [N, V]."""
        allowed = self.reachable[self.node[beam]] != _NONE
        allowed[:, self.search.space] = self.ended[beam] != _NONE
        return allowed

    def places(self, beam: Places) -> Places:
        """Where each prefix stands in the beam, [P + 1]; -1 for those that do not, and for no prefix, the last."""
        places = np.full(len(self.parent) + 1, _NONE)
        places[beam] = np.arange(len(beam))
        return places

    def bonus_of_space(self, beam: Places) -> Floats:
        """The bonus of each prefix once its word has ended; any value where it cannot."""
        return self.bonus[self.ended[beam]]

    def bonus_of_leaving(self, beam: Places) -> Floats:
        """What each letter costs with which a word leaves the lexicon, [N, V]: the unknown word's price, at once.

        Paid at the word's end, it would let words that never end crowd the beam.
        """
        nodes = self.node[beam]
        leaves = (self.reachable[nodes] == _OUTSIDE) & (nodes != _OUTSIDE)[:, None]
        return leaves * self.unknown[beam][:, None]

    def bonus_of_end(self, prefix: int) -> float:
        return self.search.lm_weight * self._log10(END_OF_TEXT, self.words[prefix])

    def extend(self, parents: Places, letters: Places) -> Places:
        """The prefixes with one letter more, [N]; new ones get the word's end behind them where one may end."""
        keys = list(zip(parents.tolist(), letters.tolist(), strict=True))
        new = np.array([place for place, key in enumerate(keys) if key not in self._longer], dtype=np.int64)
        nodes = self.reachable[self.node[parents[new]], letters[new]]
        leaves = (nodes == _OUTSIDE) & (self.node[parents[new]] != _OUTSIDE)
        bonus, unknown = self.bonus[parents[new]], self.unknown[parents[new]]
        self._add(parents[new], letters[new], nodes, bonus + leaves * unknown, unknown)
        self.words += [self.words[parent] for parent in parents[new].tolist()]
        found = np.array([self._longer[key] for key in keys], dtype=np.int64)
        self._end_words([place for place in found[new].tolist() if self.tree.word[self.node[place]] is not None])
        return found

    def _end_words(self, prefixes: list[int]) -> None:
        words = [self.tree.word[self.node[prefix]] or UNKNOWN for prefix in prefixes]
        parents, ends = np.array(prefixes, dtype=np.int64), np.arange(len(prefixes)) + len(self.parent)
        histories = [self.words[prefix] for prefix in prefixes]
        gains = self._gains(words, histories) * (self.node[parents] != _OUTSIDE)  # paid when it left the lexicon
        for prefix, word in zip(prefixes, words, strict=True):
            self.words.append((*self.words[prefix], self._spelled(prefix) if word == UNKNOWN else word))
        unknown = self._gains([UNKNOWN] * len(ends), self.words[len(self.parent) :])
        space, root = np.full_like(parents, self.search.space), np.full_like(parents, _ROOT)
        self._add(parents, space, root, self.bonus[parents] + gains, unknown)
        self.ended[parents] = ends

    def _gains(self, words: Sequence[str], histories: Sequence[tuple[str, ...]]) -> Floats:
        """What each word adds to the bonus behind its history."""
        found = [self._log10(word, history) for word, history in zip(words, histories, strict=True)]
        return self.search.lm_weight * np.array(found) + self.search.word_score

    def _add(self, parents: Places, letters: Places, nodes: Places, bonus: Floats, unknown: Floats) -> None:
        for place, key in enumerate(zip(parents.tolist(), letters.tolist(), strict=True), start=len(self.parent)):
            self._longer[key] = place
        self.parent, self.last = np.concatenate([self.parent, parents]), np.concatenate([self.last, letters])
        self.node, self.bonus = np.concatenate([self.node, nodes]), np.concatenate([self.bonus, bonus])
        self.unknown = np.concatenate([self.unknown, unknown])
        self.ended = np.concatenate([self.ended, np.full(len(parents), _NONE)])

    def _spelled(self, prefix: int) -> str:
        letters: list[str] = []
        while self.node[prefix] != _ROOT:
            letters.append(self.search.letters[int(self.last[prefix])])
            prefix = int(self.parent[prefix])
        word = "".join(reversed(letters))
        return word.lower() if self.search.capitals else word

    def _log10(self, word: str, before: tuple[str, ...]) -> float:
        """Each is computed once: histories recur from prefix to prefix."""
        history = (BEGIN, *before)[-(self.model.order - 1) :] if self.model.order > 1 else ()
        key = (history, word)
        if key not in self._known:
            self._known[key] = self.model.log10(word, history)
        return self._known[key]
