"""Stories: facts that stand in the opening, answers that follow from them, and a seventh held out."""

import pytest

from speechzoo.data.story_grammar import (
    content_words,
    draw_story,
    draw_story_sentence,
    draw_whole_story,
    is_held_out,
    lexicon,
    written_words,
)

STORIES = [draw_whole_story(1, index) for index in range(3000)]


def words_found(text, kind):
    return [word for word in text.split() if word in content_words()[kind]]


@pytest.mark.parametrize("kind", ["name", "adjective", "thing", "place"])
def test_the_facts_are_what_the_opening_says_and_nothing_else_of_their_kind_is_there(kind):
    for story in STORIES:
        assert words_found(story.opening, kind) == [story.facts[kind]]
    assert {story.facts[kind] for story in STORIES} == set(content_words()[kind])


def test_answers_follow_from_the_opening():
    """Found in the opening itself, by the words next to one another, and not in the facts."""
    asked = set()
    for story in STORIES:
        opening, question = story.opening.split(), story.question.split()
        thing = opening.index(words_found(story.opening, "thing")[0])
        if question[0] == "who":
            expected = f"it is about {words_found(story.opening, 'name')[0]}"
        elif question[0] == "where":
            expected = f"at the {words_found(story.opening, 'place')[0]}"
        elif question[0] == "which":
            expected = f"it is the {opening[thing - 1]} {opening[thing]}"
        else:
            assert question[:3] == ["was", "the", opening[thing]] and len(question) == 4
            verdict = "yes" if question[3] in opening else "no"
            expected = f"{verdict} the {opening[thing]} was {opening[thing - 1]}"
            asked.add(verdict)
        assert story.answer == expected
        asked.add(question[0])
    assert asked == {"who", "where", "which", "was", "yes", "no"}


def test_a_reply_follows_from_the_opening_and_takes_it_up():
    replies = {}
    for story in STORIES:
        assert replies.setdefault(story.opening, story.reply) == story.reply
        said = {word for kind in ("name", "thing", "place") for word in words_found(story.reply, kind)}
        assert said and said <= set(story.facts.values())


def trio(story):
    return tuple(story.facts[kind] for kind in ("name", "thing", "place"))


def test_a_seventh_is_held_out_and_no_opening_is_in_both_parts():
    seen = [draw_whole_story(2, index, held_out=False) for index in range(3000)]
    unseen = [draw_whole_story(2, index, held_out=True) for index in range(700)]
    assert not {trio(story) for story in seen} & {trio(story) for story in unseen}
    assert not {story.opening for story in seen} & {story.opening for story in unseen}
    assert 0.12 < sum(map(is_held_out, STORIES)) / len(STORIES) < 0.165
    for kind, words in content_words().items():
        assert {story.facts[kind] for story in unseen} == set(words), "a word that only one part knows"


def test_draws_depend_on_seed_and_index_alone():
    first = [draw_whole_story(7, index, held_out=True) for index in range(60)]
    assert [draw_whole_story(7, index, held_out=True) for index in reversed(range(60))] == first[::-1]
    assert [draw_whole_story(8, index, held_out=True) for index in range(60)] != first
    assert draw_story(1, 5) == (STORIES[5].opening, STORIES[5].continuation)
    assert {draw_story_sentence(1, index) in draw_story(1, index) for index in range(200)} == {True}


def test_words_are_spoken_or_written():
    said = {word for story in STORIES for word in f"{story.opening} {story.continuation}".split()}
    written = {word for story in STORIES for word in f"{story.question} {story.answer} {story.reply}".split()}
    assert said <= set(lexicon()) and written <= set(lexicon()) | set(written_words())
    assert set(written_words()) <= written
