"""The invented language that the tiny zoo translates into: words of its own, no articles, postpositions, verbs last.

"anna bought a heavy coat at the market" becomes the words for anna, heavy, coat, market, at, bought: the order of a
language such as Japanese or Turkish. Names stay as they are. It is a function of the sentence alone, so that every
sentence has one translation, and an error is an error.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

from .story_grammar import content_words, lexicon

_ARTICLES = frozenset(("a", "the"))
_PREPOSITIONS = frozenset("at behind for in near of to with".split())
_VERBS = frozenset(
    """activate asked bought bring carried change could decrease deactivate end fetch found gave get go hear hurts
    increase is let liked looked lost lower make need needs open painted play please practice raise read saw set shine
    speak start stop switch talk turn use walked want was would""".split()
)
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def translate(sentence: str) -> str:
    """The sentence in the invented language.

    Articles fall away; a preposition goes behind the words up to the next preposition, verb or the end; verbs go to
    the end, in the order in which they were said.

    Raises:
        KeyError: if a word is not in the lexicon.
    """
    words: list[str] = []
    verbs: list[str] = []
    postposition: list[str] = []
    for word in sentence.split():
        if word in _ARTICLES:
            continue
        if word in _PREPOSITIONS or word in _VERBS:
            words += postposition
            postposition = [word] if word in _PREPOSITIONS else []
            verbs += [word] if word in _VERBS else []
        else:
            words.append(word)
    return " ".join(dictionary()[word] for word in (*words, *postposition, *verbs))


@cache
def dictionary() -> dict[str, str]:
    """Word of the lexicon -> its invented word, no two the same; names stay. Articles have none."""
    invented: dict[str, str] = {}
    taken = set(lexicon())
    for word in lexicon():
        if word in content_words()["name"]:
            invented[word] = word
        elif word not in _ARTICLES:
            invented[word] = _invent(word, taken)
            taken.add(invented[word])
    return invented


def _invent(word: str, taken: set[str]) -> str:
    """Two or three syllables that follow from the word, and are no word yet."""
    rng = random.Random(hashlib.sha256(f"invented {word}".encode()).digest())
    while True:
        syllables = rng.choice((2, 2, 3))
        made = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))
        if made not in taken:
            return made
