"""The invented language: its order of words against sentences ordered by hand, and a dictionary that loses nothing."""

import re

import pytest

from speechzoo.data.command_grammar import commands, intents
from speechzoo.data.invented_language import dictionary, translate
from speechzoo.data.story_grammar import content_words, draw_story, lexicon

BY_HAND = {
    "anna bought a heavy coat at the market": "anna heavy coat market at bought",
    "on friday simon saw a old bottle behind the mountain": "on friday simon old bottle mountain behind saw",
    "the red hat of anna was left at the park": "red hat anna of left park at was",
    "maria asked david to bring the hat back to the mountain": "maria david to hat back mountain to asked bring",
    "so emma and ben painted the box together": "so emma and ben box together painted",
    "ben liked the old bottle very much": "ben old bottle very much liked",
    "turn on the lights in the kitchen": "on lights kitchen in turn",
    "lights off": "lights off",
    "the": "",
}
# Those of the stories, in which nothing else moves.
VERBS = "found bought carried lost saw was gave looked liked walked asked bring painted".split()
PREPOSITIONS = "near at to behind of for with in".split()

STORY_SENTENCES = [sentence for index in range(400) for sentence in draw_story(3, index)]


def back(translation):
    """Word by word into English, in the order of the translation."""
    english = {invented: word for word, invented in dictionary().items()}
    return [english[word] for word in translation.split()]


@pytest.mark.parametrize(("sentence", "order"), BY_HAND.items())
def test_the_order_of_words(sentence, order):
    assert back(translate(sentence)) == order.split()


def test_stories_are_put_in_order_as_by_rewriting():
    """Independent of the loop over words: the same rules as rewriting of the whole string."""
    moved = "|".join(VERBS + PREPOSITIONS)
    for sentence in STORY_SENTENCES:
        plain = re.sub(r"\b(a|the) ", "", sentence)
        swapped = re.sub(rf"\b({'|'.join(PREPOSITIONS)})\b((?: (?!(?:{moved})\b)\w+)*)", r"\2 \1", plain)
        last = re.findall(rf"\b(?:{'|'.join(VERBS)})\b", plain)
        assert back(translate(sentence)) == re.sub(rf"\b(?:{'|'.join(VERBS)})\b", "", swapped).split() + last


def test_the_dictionary_is_one_to_one_and_says_nothing_in_english():
    words = dictionary()
    assert set(words) == set(lexicon()) - {"a", "the"}
    assert len(set(words.values())) == len(words)
    names = set(content_words()["name"])
    assert {word for word, invented in words.items() if word == invented} == names
    assert not (set(words.values()) - names) & set(lexicon())
    syllables = re.compile(r"([bdfgklmnprstvz][aeiou]){2,3}")
    assert all(syllables.fullmatch(invented) for word, invented in words.items() if word not in names)


def test_every_command_intent_and_sentence_of_a_story_translates_and_loses_articles_alone():
    texts = [command.text for command in commands()] + [str(intent) for intent in intents()] + STORY_SENTENCES
    for text in texts:
        assert sorted(back(translate(text))) == sorted(word for word in text.split() if word not in ("a", "the"))


def test_commands_that_differ_translate_differently():
    """Otherwise the translation of a held-out phrasing would be learned from another phrasing."""
    assert len({translate(command.text) for command in commands()}) == len(commands())


def test_a_word_that_is_unknown_is_named():
    with pytest.raises(KeyError, match=r"xylophone"):
        translate("turn on the xylophone")
