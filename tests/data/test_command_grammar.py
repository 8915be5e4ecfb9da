"""The texts: intents, phrasings, what is held out, and drawing by (seed, index)."""

from collections import Counter

from speechzoo.data.command_grammar import (
    commands,
    commands_held_out,
    commands_seen,
    draw_command,
    intents,
    phrasings,
)
from speechzoo.data.story_grammar import draw_story, draw_words, lexicon, words_of

# The table of Fluent Speech Commands, counted there by hand.
ACTIONS = {"activate": 6, "deactivate": 6, "increase": 5, "decrease": 5, "bring": 4, "change language": 5}


def test_the_table_of_intents():
    assert len(intents()) == len(set(intents())) == 31
    assert Counter(intent.action for intent in intents()) == ACTIONS
    assert Counter(intent.location for intent in intents()) == {"none": 19, "bedroom": 4, "kitchen": 4, "washroom": 4}


def test_every_intent_has_eight_phrasings_and_none_is_shared():
    texts = [command.text for command in commands()]
    assert len(texts) == len(set(texts)) >= 248
    assert min(len(group) for group in phrasings().values()) >= 8
    assert all(text == " ".join(text.lower().split()) and text.replace(" ", "").isalpha() for text in texts)


def test_phrasings_name_the_place_and_thing_they_are_about():
    for command in commands():
        rooms = {room for room in ("bedroom", "kitchen", "washroom") if room in command.text.split()}
        assert rooms == {command.intent.location} - {"none"}, command
        languages = {name for name in ("chinese", "english", "german", "korean") if name in command.text.split()}
        assert languages == ({command.intent.object} if command.intent.action == "change language" else set()) - {
            "none"
        }


def test_one_phrasing_of_each_intent_is_held_out():
    assert Counter(command.intent for command in commands_held_out()) == Counter(intents())
    assert not {command.text for command in commands_held_out()} & {command.text for command in commands_seen()}
    drawn = {draw_command(seed, index).text for seed in range(3) for index in range(1000)}
    assert drawn == {command.text for command in commands_seen()}
    held_out = [draw_command(0, index, held_out=True) for index in range(62)]
    assert Counter(command.intent for command in held_out) == dict.fromkeys(intents(), 2)
    assert {command.text for command in held_out} == {command.text for command in commands_held_out()}


def test_draws_depend_on_seed_and_index_alone():
    first = [draw_command(7, index) for index in range(50)]
    assert [draw_command(7, index) for index in reversed(range(50))] == first[::-1]
    assert [draw_command(8, index) for index in range(50)] != first
    assert draw_words(1, 2) == draw_words(1, 2) != draw_words(1, 3)


def test_words_of_texts_leave_out_what_templates_fill_in():
    assert words_of(["the {thing} of {name}", "of all"]) == ("all", "of", "the")


def test_intents_take_turns():
    drawn = Counter(draw_command(5, index).intent for index in range(31 * 4))
    assert set(drawn.values()) == {4} and len(drawn) == 31


def test_the_second_sentence_of_a_story_takes_up_the_first():
    for index in range(200):
        first, second = draw_story(0, index)
        assert "{" not in first + second
        assert set(first.split()) & set(second.split()) - {"the", "a", "at", "to", "of"}


def test_the_lexicon_covers_all_texts_and_the_digits():
    words = set(lexicon())
    texts = [command.text for command in commands()] + [str(intent) for intent in intents()]
    texts += [" ".join(draw_story(1, index)) for index in range(300)] + [draw_words(1, index) for index in range(300)]
    assert {word for text in texts for word in text.split()} <= words
    assert {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"} <= words
    drawn = Counter(word for index in range(2000) for word in draw_words(3, index).split())
    assert len(drawn) > 0.95 * len(words)
    assert {len(draw_words(3, index).split()) for index in range(300)} == set(range(1, 8))
