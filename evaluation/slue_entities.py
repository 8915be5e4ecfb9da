"""SLUE's named entities as text: marks, BIO tags, the toolkit's preparation, raw and combined tags.

Entities are pairs of tag and phrase. Systems that hear speech write them into the text: a mark opens an entity and `]`
closes it, `we met in % south sudan ] today`. Facts from asappresearch/slue-toolkit.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..data.tables import shown
from ..processing.entity_marks import marked_spans, unmarked
from .word_error_rate import normalize_slue

Entity: TypeAlias = tuple[str, str]  # tag, phrase

MARKS: Mapping[str, str] = {
    "CARDINAL": "!",
    "DATE": "@",
    "EVENT": "#",
    "FAC": "$",
    "GPE": "%",
    "LANGUAGE": "^",
    "LAW": "&",
    "LOC": "*",
    "MONEY": "(",
    "NORP": ")",
    "ORDINAL": "~",
    "ORG": "`",
    "PERCENT": "{",
    "PERSON": "}",
    "PRODUCT": "[",
    "QUANTITY": "<",
    "TIME": ">",
    "WORK_OF_ART": "?",
}
END = "]"
# Raw tags that are absent here are dropped.
COMBINED: Mapping[str, str] = {
    **dict.fromkeys(("DATE", "TIME"), "WHEN"),
    **dict.fromkeys(("CARDINAL", "ORDINAL", "QUANTITY", "MONEY", "PERCENT"), "QUANT"),
    **dict.fromkeys(("GPE", "LOC"), "PLACE"),
    **{tag: tag for tag in ("NORP", "ORG", "LAW", "PERSON")},
}


def parse_tagged(tagged: str) -> list[Entity]:
    """The entities of a text with marks, in order, by the rules of `marked_spans`."""
    words = tagged.split()
    return [(tag, " ".join(words[place] for place in places)) for tag, places in marked_spans(words, MARKS, END)]


def tagged_words(tagged: str) -> str:
    """A text with marks without them: what a recognizer heard, for its word error rate."""
    return " ".join(unmarked(tagged.split(), MARKS, END))


def write_tagged(text: str, entities: Sequence[Entity]) -> str:
    """The words of `text` with marks around `entities`, so that `parse_tagged` gives them back.

    Entities come in the order of the text, each where its phrase first fits behind the one before it. Raises
    `ValueError` for an unknown tag and for a phrase that does not fit.
    """
    return tagged_of(bio_tags(text, entities))


def tagged_of(bio: Sequence[tuple[str, str]]) -> str:
    """The text with marks of words and their BIO tags."""
    parts: list[str] = []
    for place, (word, label) in enumerate(bio):
        if label[0] == "B":
            parts.append(MARKS[label[2:]])
        parts.append(word)
        following = bio[place + 1][1] if place + 1 < len(bio) else "O"
        if label != "O" and following[0] != "I":
            parts.append(END)
    return " ".join(parts)


def bio_tags(text: str, entities: Sequence[Entity]) -> list[tuple[str, str]]:
    """Every word with B-tag where an entity begins, I-tag inside one and O elsewhere; errors as `write_tagged`."""
    words = text.split()
    labels = ["O"] * len(words)
    start = 0
    for tag, phrase in entities:
        if tag not in MARKS:
            raise ValueError(unknown_tag(tag))
        length = len(phrase.split())
        places = range(start, len(words) - length + 1)
        found = next((place for place in places if words[place : place + length] == phrase.split()), None)
        if found is None or not length:
            raise ValueError(f"{shown(text)} has no {shown(phrase)} behind word {start}; give entities in their order")
        labels[found : found + length] = [f"B-{tag}"] + [f"I-{tag}"] * (length - 1)
        start = found + length
    return list(zip(words, labels, strict=True))


def prepare_entities(normalized_text: str, spans: Sequence[tuple[str, int, int]]) -> list[tuple[str, str]]:
    """Words and BIO tags as the toolkit prepares them from `normalized_text` and its (tag, first character, length).

    . , ! ? ; go, and words part at apostrophes, those of the entity's phrase too (see `normalize_slue`). Raises
    `ValueError` for an unknown tag and for a span that is empty, leaves the text or overlaps the one before it.
    """
    tagged: list[tuple[str, str]] = []
    position = 0
    for tag, start, length in sorted(spans, key=lambda span: span[1]):
        end = start + length
        if tag not in MARKS:
            raise ValueError(unknown_tag(tag))
        phrase = (
            normalize_slue(normalized_text[start:end]).split()
            if position <= start < end <= len(normalized_text)
            else []
        )
        if not phrase:
            raise ValueError(f"the span {[tag, start, length]} fits no words of {shown(normalized_text)}")
        tagged += [(word, "O") for word in normalize_slue(normalized_text[position:start]).split()]
        tagged += [(word, f"{'I' if number else 'B'}-{tag}") for number, word in enumerate(phrase)]
        position = end
    return tagged + [(word, "O") for word in normalize_slue(normalized_text[position:]).split()]


def entities_of_tags(tagged: Sequence[tuple[str, str]]) -> list[Entity]:
    """Pairs of tag and phrase from BIO tags."""
    entities: list[Entity] = []
    for word, label in tagged:
        if label[0] == "B":
            entities.append((label[2:], word))
        elif label[0] == "I":
            entities[-1] = (label[2:], f"{entities[-1][1]} {word}")
    return entities


def unknown_tag(tag: object) -> str:
    """What an error says of a tag."""
    return f"there is no tag {shown(tag)}; the tags are {', '.join(MARKS)}"


def combine_tags(entities: Sequence[Entity]) -> list[Entity]:
    """With the 7 combined tags; entities of the 5 raw tags that they leave out are dropped."""
    return [(COMBINED[tag], phrase) for tag, phrase in entities if tag in COMBINED]
