"""Episodes of a course: shapes and shares counted, labels and classes checked against the texts, nothing held out."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from speechzoo.data.command_grammar import commands, commands_held_out, intents
from speechzoo.data.story_grammar import lexicon
from speechzoo.data.text_episodes import (
    FIRST_LABELS,
    LABELS,
    NEVER_IN_EPISODES,
    Episode,
    EpisodeCourse,
    commands_by_intent,
    draw_course_episode,
    draw_labels,
    draw_named_episode,
    draw_pooled_episode,
    label_words,
    pool,
)
from speechzoo.data.text_tasks import draw_task, in_context_mixture

COURSE, SEED, COUNT = EpisodeCourse(), 5, 1500
FIRST, LAST = ([draw_course_episode(COURSE, place, SEED, index) for index in range(COUNT)] for place in (0.3, 0.9))
CLASSES = {
    source: {text: name for name, texts in pool(source).items() for text in texts}
    for source in ("commands", "requests", "opinions")
}


def plain(episodes):
    return [episode for episode in episodes if not episode.named]


def sequences(episodes):
    return [episode for episode in episodes if episode.asked == "all"]


def source_of(episode):
    """Some commands are requests too, but hardly all of an episode."""
    return next(source for source, classes in CLASSES.items() if set(episode.texts) <= set(classes))


def classes_of(episode):
    classes = CLASSES[source_of(episode)]
    return [classes[text] for text in episode.texts]


def is_easy(episode):
    return episode.texts[-1] in episode.texts[:-1]


def shots_of(episode):
    (shots,) = set(Counter(episode.labels[:-1]).values())
    return shots


def share(values):
    values = list(values)
    return sum(values) / len(values)


def test_a_label_stands_for_one_class_and_the_last_is_explained():
    for episode in plain(FIRST + LAST):
        pairs = set(zip(classes_of(episode), episode.labels, strict=True))
        assert len(pairs) == len({name for name, _ in pairs}) == len({label for _, label in pairs})
        assert episode.labels[-1] in episode.labels[:-1]


def test_named_episodes_say_the_names_of_their_classes():
    of_commands = [e for e in LAST if source_of(e) == "commands" and e.asked != "all"]
    named = [episode for episode in LAST if episode.asked == "last"]
    assert len(named) / len(of_commands) == pytest.approx(COURSE.named, abs=0.04)
    for episode in named:
        assert episode in of_commands and classes_of(episode) == list(episode.labels) and not is_easy(episode)
    assert share(e.labels[-1] not in e.labels[:-1] for e in named) == pytest.approx(0.5, abs=0.13)


def test_sequences_name_each_of_their_texts():
    for episodes, expected in zip((FIRST, LAST), COURSE.sequences, strict=True):
        found = sequences(episodes)
        assert len(found) / COUNT == pytest.approx(expected, abs=0.04)
        assert {len(episode.texts) for episode in found} == set(range(2, COURSE.longest_sequence + 1))
        assert all(classes_of(episode) == list(episode.labels) for episode in found)
        assert {source_of(episode) for episode in found} == set(COURSE.sources)


def test_the_first_part_is_short_and_easy_and_of_commands_alone():
    assert {source_of(episode) for episode in plain(FIRST)} == {"commands"}
    assert plain(FIRST) == [episode for episode in FIRST if episode.asked != "all"]
    assert {label for episode in plain(FIRST) for label in episode.labels} == set(FIRST_LABELS)
    assert not COURSE.is_first(COURSE.first_part) and COURSE.is_first(COURSE.first_part - 0.01)
    for episodes, longest, easy in ((FIRST, 2, 0.5), (LAST, 5, 0.25)):
        shown = [episode for episode in episodes if episode.asked != "all"]
        assert {shots_of(episode) for episode in shown} == set(range(1, longest + 1))
        assert {len(set(episode.labels[:-1])) for episode in shown} == {2, 3, 4}
        assert share(map(is_easy, plain(episodes))) == pytest.approx(easy, abs=0.05)


def test_the_second_part_draws_from_the_three_sources():
    drawn = Counter(map(source_of, LAST))
    for source, expected in COURSE.sources.items():
        assert drawn[source] / COUNT == pytest.approx(expected, abs=0.04)


def test_texts_are_spread_out_in_the_second_part():
    rng = random.Random(0)
    short, long = ([COURSE.draw_spread(0.9, count, rng) for _ in range(4000)] for count in (9, 10))
    for spread in short, long:
        assert share(any(texts) for texts in spread) == pytest.approx(sum(COURSE.spread), abs=0.03)
        assert all(texts[-1] for texts in spread if any(texts))
        assert {sum(texts) for texts in spread} == ({0, 1, 9} if spread is short else {0, 1})
    assert share(map(all, short)) == pytest.approx(COURSE.spread[1], abs=0.02)
    assert not any(map(any, [COURSE.draw_spread(0.5, 9, rng) for _ in range(200)]))


def test_the_order_gives_nothing_away():
    of_four = [e for e in plain(FIRST + LAST) if len(set(e.labels)) == 4]
    for place in (0, -2):
        assert share(e.labels[-1] == e.labels[place] for e in of_four) == pytest.approx(0.25, abs=0.06)
    of_many = [episode.labels[:-1] for episode in of_four if shots_of(episode) > 1]
    changes = (sum(one != following for one, following in pairwise(labels)) for labels in of_many)
    assert share(count == 3 for count in changes) < 0.1, "classes stand together"


def test_no_episode_shows_what_is_held_out():
    shown = {text for episode in FIRST + LAST for text in episode.texts}
    never = {command.text for command in commands() if str(command.intent) in NEVER_IN_EPISODES}
    requested = {text for texts in pool("requests").values() for text in texts}
    assert not shown & {command.text for command in commands_held_out()}
    assert not (shown - requested) & never
    assert not set(pool("commands")) & set(NEVER_IN_EPISODES) and len(pool("commands")) == 26
    assert not {label for episode in FIRST + LAST for label in episode.labels} & set(NEVER_IN_EPISODES)


def test_label_words_are_ordinary_and_some_are_kept_for_tests():
    trained, kept = set(label_words()), set(label_words(held_out=True))
    assert not trained & kept and trained | kept < set(lexicon()) and len(kept) > 25
    assert not kept & set(LABELS)
    assert not (trained | kept) & {str(intent).split()[0] for intent in intents()}
    labels = {label for episode in plain(FIRST + LAST) for label in episode.labels}
    assert {word for label in labels for word in label.split()} == trained | set(FIRST_LABELS)
    of_two = share(" " in e.labels[0] for e in plain(LAST))
    assert of_two == pytest.approx(COURSE.two_words, abs=0.03)


def test_labels_share_no_word():
    for index in range(50):
        labels = draw_labels(4, random.Random(index), words=2)
        assert len({word for label in labels for word in label.split()}) == 8


def test_an_episode_of_two_pools_asks_for_one_and_shows_the_other():
    held_out = commands_by_intent(commands_held_out())
    for index in range(100):
        episode = draw_pooled_episode(pool("commands"), held_out, LABELS[:4], 3, random.Random(index))
        *shown, last = episode.texts
        assert sorted(Counter(episode.labels[:-1]).values()) == [3] * 4 and len(set(shown)) == 12
        assert {text for texts in held_out.values() for text in texts} & set(episode.texts) == {last}
        named = draw_named_episode(pool("commands"), held_out, 4, 1, random.Random(index), elsewhere=True)
        assert (named.labels[-1], named.texts[-1]) in {(name, text) for name, (text,) in held_out.items()}
        assert named.labels[-1] not in named.labels[:-1]


def test_episodes_come_last_in_the_mixture_and_two_tasks_before_and_among_them():
    mixture = in_context_mixture()
    drawn = [draw_task(mixture, 1000, SEED, index) for index in range(1000)]
    assert sum(mixture.shares.values()) == pytest.approx(1)
    assert not any(isinstance(task, Episode) for task in drawn[:500])
    assert share(isinstance(task, Episode) for task in drawn[500:]) == pytest.approx(0.85, abs=0.06)
    tasks = [task for task in drawn if not isinstance(task, Episode)]
    assert {task.sign for task in tasks[:120]} == {"<asr>"}
    assert share(task.sign == "<int>" for task in tasks[120:]) == pytest.approx(0.3, abs=0.07)
    assert all(task.sign in ("<asr>", "<int>") for task in tasks)
    assert drawn[7] == draw_task(mixture, 1000, SEED, 7)
