"""Episodes of a course: shapes and shares counted, labels and classes checked against the texts, nothing held out."""

import random
from collections import Counter

import pytest

from speechzoo.data.command_grammar import commands, commands_held_out, intents
from speechzoo.data.story_grammar import lexicon
from speechzoo.data.text_episodes import (
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
FIRST, LAST = ([draw_course_episode(COURSE, place, SEED, index) for index in range(COUNT)] for place in (0.0, 1.0))
CLASSES = {
    source: {text: name for name, texts in pool(source).items() for text in texts}
    for source in ("commands", "requests", "opinions")
}


def plain(episodes):
    return [episode for episode in episodes if not episode.named]


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
    named = [episode for episode in FIRST + LAST if episode.named]
    assert len(named) / (2 * COUNT) == pytest.approx(COURSE.named, abs=0.03)
    for episode in named:
        assert classes_of(episode) == list(episode.labels)
        assert not is_easy(episode)
    of_commands = [episode for episode in named if source_of(episode) == "commands"]
    assert share(e.labels[-1] not in e.labels[:-1] for e in of_commands) == pytest.approx(0.5, abs=0.1)
    assert all(e.labels[-1] in e.labels[:-1] for e in named if source_of(e) != "commands")


def test_the_course_grows_longer_and_harder():
    for episodes, longest, easy in ((FIRST, 2, 0.7), (LAST, 5, 0.2)):
        assert {shots_of(episode) for episode in episodes} == set(range(1, longest + 1))
        assert {len(set(episode.labels[:-1])) for episode in episodes} == {2, 3, 4}
        assert share(map(is_easy, plain(episodes))) == pytest.approx(easy, abs=0.05)
    assert COURSE.spread_at(0.39) == (0, 0) and COURSE.spread_at(0.4) == COURSE.spread


def test_texts_come_from_the_three_sources():
    drawn = Counter(map(source_of, FIRST))
    for source, expected in COURSE.sources.items():
        assert drawn[source] / COUNT == pytest.approx(expected, abs=0.04)


def test_the_order_gives_nothing_away():
    of_four = [e for e in plain(LAST) if len(set(e.labels)) == 4]
    for place in (0, -2):
        assert share(e.labels[-1] == e.labels[place] for e in of_four) == pytest.approx(0.25, abs=0.06)


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
    assert {word for label in labels for word in label.split()} == trained
    of_two = share(" " in e.labels[0] for e in plain(FIRST + LAST))
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


def test_the_mixture_is_of_episodes_from_first_to_last_and_keeps_the_tasks():
    mixture = in_context_mixture()
    drawn = [draw_task(mixture, 1000, SEED, index) for index in range(1000)]
    assert sum(mixture.shares.values()) == pytest.approx(1)
    for part in (drawn[:300], drawn[-300:]):
        assert share(isinstance(task, Episode) for task in part) == pytest.approx(0.8, abs=0.07)
    tasks = [task for task in drawn if not isinstance(task, Episode)]
    assert share(task.sign in ("<asr>", "<int>") for task in tasks) == pytest.approx(0.7, abs=0.1)
    assert drawn[7] == draw_task(mixture, 1000, SEED, 7) and mixture.spread_episodes(399, 1000) == (0, 0)
