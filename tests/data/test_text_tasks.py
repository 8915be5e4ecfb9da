"""The text tasks: how often each comes and when, answers found in another way, and nothing held out among them."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from speechzoo.data.assistant_grammar import draw_request
from speechzoo.data.command_grammar import commands, commands_held_out, commands_seen, intents
from speechzoo.data.invented_language import translate
from speechzoo.data.opinion_grammar import draw_opinion
from speechzoo.data.question_grammar import draw_question
from speechzoo.data.story_grammar import content_words, draw_whole_story, lexicon
from speechzoo.data.text_episodes import LABELS, NEVER_IN_EPISODES, Episode
from speechzoo.data.text_tasks import (
    ANSWER,
    CONTINUATION,
    COPY,
    FILLER,
    INTENT,
    REPLY,
    TASKS,
    TRANSLATION,
    TextMixture,
    TextTask,
    draw_episode,
    draw_list,
    draw_task,
    vocabulary,
)

SIZE, SEED = 6000, 3
COURSE = [draw_task(TextMixture(), SIZE, SEED, index) for index in range(SIZE)]
FIRST = COURSE[: int(0.3 * SIZE)]
NUMBERED = [(index, task) for index, task in enumerate(COURSE) if isinstance(task, TextTask)][len(FIRST) :]
TASKS_DRAWN = [task for _, task in NUMBERED]
EPISODES = [draw_episode(SEED, index) for index in range(600)]

HELD_OUT = {command.text for command in commands_held_out()}
# Held-out commands that people also say to an assistant, in the grammar of requests.
ALSO_REQUESTS = {"turn the volume down", "turn off the lights in the bedroom"}
INTENT_OF = {command.text: str(command.intent) for command in commands()}


def task_name(task):
    if task.context:
        return {COPY: "listed words", ANSWER: "question about a story"}[task.sign]
    names = {COPY: "copy", INTENT: "intent", TRANSLATION: "translation", ANSWER: "question", REPLY: "reply"}
    return {**names, CONTINUATION: "continuation"}[task.sign]


def of(name):
    return [task for task in TASKS_DRAWN if task_name(task) == name]


def test_the_course_begins_with_random_words_alone():
    words = set(lexicon())
    assert {(task.sign, task.context, task.shown) for task in FIRST} == {(COPY, "", None)}
    assert all(task.text == task.answer and set(task.text.split()) <= words for task in FIRST)
    assert {len(task.text.split()) for task in FIRST} == set(range(2, 17))


def test_episodes_come_last():
    at = [index for index, task in enumerate(COURSE) if isinstance(task, Episode)]
    assert min(at) >= 0.6 * SIZE
    assert len(at) / (0.4 * SIZE) == pytest.approx(0.25, abs=0.03)


def test_tasks_have_their_shares():
    drawn = Counter(map(task_name, TASKS_DRAWN))
    shares = TextMixture().shares
    assert set(drawn) == set(shares) == set(TASKS) and sum(shares.values()) == pytest.approx(1)
    for name, share in shares.items():
        assert drawn[name] / len(TASKS_DRAWN) == pytest.approx(share, abs=0.03), name
    assert {task_name(draw_task(TextMixture(0, 0, 0, {"reply": 1}), 9, 0, index)) for index in range(9)} == {"reply"}


def test_answers_are_those_of_the_grammars():
    assert all(INTENT_OF[task.text] == task.answer for task in of("intent"))
    assert all(translate(task.text) == task.answer for task in of("translation"))
    assert all(task.text == task.answer for task in of("copy") + of("listed words"))
    for index, task in NUMBERED:
        name, story = task_name(task), draw_whole_story(SEED, index, held_out=False)
        if name == "question":
            question = draw_question(SEED, index)
            assert (task.text, task.answer) == (question.text, question.answer)
        elif name == "question about a story":
            assert (task.text, task.context, task.answer) == (story.opening, story.question, story.answer)
        elif name in ("reply", "continuation"):
            assert (task.text, task.answer) == (story.opening, getattr(story, name))


def test_texts_to_copy_are_of_every_kind():
    copied = [(index, task.text) for index, task in NUMBERED if task_name(task) == "copy"][:800]
    texts = [text for _, text in copied]
    known = set(vocabulary())
    assert sum(text in INTENT_OF for text in texts) / len(texts) == pytest.approx(0.1, abs=0.04)
    unknown = [text for text in texts if not set(text.split()) <= known]
    assert len(unknown) / len(texts) == pytest.approx(0.08, abs=0.03)
    assert max(len(text.split()) for text in unknown) <= 3
    requests = sum(text == draw_request(SEED, index).labeled.text for index, text in copied)
    opinions = sum(text == draw_opinion(SEED, index).text for index, text in copied)
    stories = sum(text in draw_story_of(index) for index, text in copied)
    drawn = [requests / len(copied), opinions / len(copied), stories / len(copied)]
    assert drawn == pytest.approx([0.1, 0.07, 0.2], abs=0.04)


def draw_story_of(index):
    story = draw_whole_story(SEED, index, held_out=False)
    return story.opening, story.continuation


def test_no_task_shows_a_held_out_command_with_its_intent_or_translation():
    answers = {translate(text) for text in HELD_OUT}
    assert not {task.answer for task in of("translation")} & answers
    assert not {task.text for task in TASKS_DRAWN if task.sign != COPY} & HELD_OUT
    assert {task.text for task in of("intent")} <= {command.text for command in commands_seen()}


def test_no_held_out_command_is_copied_or_in_an_episode_but_those_that_are_requests():
    copied = {task.text for task in FIRST + of("copy")}
    shown = {text for episode in EPISODES for text in episode.texts}
    assert (copied | shown) & HELD_OUT <= ALSO_REQUESTS
    said = {draw_request(1, index).labeled.text for index in range(3000)}
    assert said & HELD_OUT == ALSO_REQUESTS, "requests that models read as text"


def held_out_trio(text):
    """Whether the text speaks of a name, a thing and a place that together are held out."""
    places = []
    for kind in ("name", "thing", "place"):
        found = [number for number, word in enumerate(content_words()[kind]) if word in text.split()]
        if len(found) != 1:
            return False
        places += found
    return sum(places) % 7 == 0


def test_no_task_tells_of_a_held_out_story():
    told = [task for task in TASKS_DRAWN if task_name(task) not in ("intent", "question") and is_opening(task.text)]
    assert len(told) > 0.3 * len(TASKS_DRAWN)
    assert not [task for task in told if held_out_trio(task.text)]
    assert any(held_out_trio(draw_whole_story(0, index).opening) for index in range(60)), "the check itself"


def is_opening(text):
    """Its frame, into which random words do not fall."""
    return re.search(r"\b(found a|bought a|carried the|lost a|saw a|was left)\b.* the ", text) is not None


def test_gaps_are_listed_words_and_half_of_them():
    gaps = listed = right = 0
    facts = set().union(*content_words().values())
    for task in of("listed words"):
        names = task.context.split()
        assert len(set(names)) == 4 and set(names) <= facts
        for word, shown in zip(task.text.split(), task.shown.split(), strict=True):
            assert shown == word or (shown == FILLER and word in names)
            gaps, listed = gaps + (shown == FILLER), listed + (word in names)
        right += set(names) <= set(task.text.split())
    assert gaps / listed == pytest.approx(0.5, abs=0.05)
    assert right / len(of("listed words")) == pytest.approx(0.8, abs=0.06)
    assert all(task.shown is None for task in TASKS_DRAWN if task_name(task) != "listed words")


def test_a_wrong_list_names_other_words_of_the_same_kinds():
    for index in range(200):
        story = draw_whole_story(0, index)
        right, wrong = (draw_list(story, random.Random(index), right) for right in (True, False))
        assert sorted(right) == sorted(story.facts.values())
        assert not set(wrong) & set(story.opening.split())
        assert all(len(set(wrong) & set(words)) == 1 for words in content_words().values())


def classes_of(episode, index):
    """The class of each text, found in the grammar it is from."""
    if all(text in INTENT_OF for text in episode.texts) and not set(episode.texts) & ALSO_REQUESTS:
        return [INTENT_OF[text] for text in episode.texts]
    numbers = range(1000 * index, 1000 * index + 100)
    opinions = {o.text: o.sentiment for o in (draw_opinion(SEED, number) for number in numbers)}
    if set(episode.texts) <= set(opinions):
        return [opinions[text] for text in episode.texts]
    requests = (draw_request(SEED, number) for number in numbers)
    scenarios = {request.labeled.text: request.scenario for request in requests}
    return [scenarios[text] for text in episode.texts]


def test_in_an_episode_a_word_stands_for_a_class_and_the_last_is_explained():
    for index, episode in enumerate(EPISODES[:60]):
        pairs = set(zip(classes_of(episode, index), episode.labels, strict=True))
        assert len(pairs) == len({name for name, _ in pairs}) == len({word for _, word in pairs})
    for episode in EPISODES:
        *shown, last = episode.labels
        assert last in shown and set(shown) <= set(LABELS)
        assert 2 <= len(set(shown)) <= 4 and set(Counter(shown).values()) in ({1}, {2})


def test_labels_and_classes_vary():
    assert {label for episode in EPISODES for label in episode.labels} == set(LABELS)
    asked = Counter(episode.labels[-1] == episode.labels[0] for episode in EPISODES)
    assert 0.2 < asked[True] / len(EPISODES) < 0.55, "the place of the right example gives the answer away"
    of_commands = [episode for episode in EPISODES if set(episode.texts) <= set(INTENT_OF)]
    assert len(of_commands) / len(EPISODES) == pytest.approx(0.5, abs=0.07)
    again = sum(episode.texts[-1] in episode.texts[:-1] for episode in of_commands) / len(of_commands)
    assert again == pytest.approx(0.25, abs=0.08)


def test_no_label_begins_the_name_of_an_intent():
    assert not set(LABELS) & {str(intent).split()[0] for intent in intents()}


def test_intents_kept_from_episodes_are_in_those_alone_that_ask_for_them():
    kept = {text for text, intent in INTENT_OF.items() if intent in NEVER_IN_EPISODES} - ALSO_REQUESTS
    ordinary = EPISODES + [episode for episode in COURSE if isinstance(episode, Episode)]
    of_commands = [text for episode in ordinary if set(episode.texts) <= set(INTENT_OF) for text in episode.texts]
    assert len(of_commands) > 3000 and not set(of_commands) & kept
    for index in range(100):
        episode = draw_episode(SEED, index, 4, 2, unseen=True)
        assert set(episode.texts) <= kept - HELD_OUT and len(set(episode.labels)) == 4
        assert len(episode.texts) == len(set(episode.texts)) == 9


def test_ways_and_shots_are_kept_to():
    for index in range(100):
        episode = draw_episode(SEED, index, ways=3, shots=2)
        assert sorted(Counter(episode.labels[:-1]).values()) == [2, 2, 2]


def test_the_vocabulary_holds_all_words_but_those_of_random_letters():
    known = set(vocabulary())
    assert list(vocabulary()) == sorted(known)
    tasks = [task for task in TASKS_DRAWN if task_name(task) != "copy"]
    texts = [text for task in tasks for text in (task.text, task.answer, task.context)]
    texts += [text for episode in EPISODES for text in episode.texts]
    assert {word for text in texts for word in text.split()} <= known
    assert not any(word.startswith(("<", "{")) for word in known)


def test_draws_depend_on_seed_and_index_alone():
    again = [draw_task(TextMixture(), SIZE, SEED, index) for index in reversed(range(5000, 5100))]
    assert again[::-1] == COURSE[5000:5100]
    assert [draw_task(TextMixture(), SIZE, SEED + 1, index) for index in range(5000, 5100)] != COURSE[5000:5100]


PRINT_DRAWS = """
import hashlib
from data.invented_language import dictionary
from data.text_tasks import TextMixture, draw_episode, draw_task, vocabulary
drawn = [draw_task(TextMixture(), 300, 0, index) for index in range(300)]
drawn += [draw_episode(0, index, 4, 2, True) for index in range(50)]
print(hashlib.sha256(repr((vocabulary(), dictionary(), drawn)).encode()).hexdigest())
"""


def test_draws_do_not_depend_on_the_process():
    """Two processes whose hashes of strings differ."""
    root, digests = Path(__file__).parents[2], set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PRINT_DRAWS]
        digests.add(subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True).stdout)
    assert len(digests) == 1
