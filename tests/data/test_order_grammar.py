"""Spoken orders: what is said is what the slots hold."""

from collections import Counter
from itertools import pairwise

import pytest

from speechzoo.data.corpora import load_corpus
from speechzoo.data.order_grammar import VALUES, draw_order

ORDERS = [draw_order(0, index) for index in range(2000)]


def test_orders_are_reproduced_and_vary():
    assert ORDERS[:50] == [draw_order(0, index) for index in range(50)]
    assert len({order.text for order in ORDERS}) > 1900
    assert draw_order(1, 0) != draw_order(0, 0)


def test_every_value_is_said_and_nothing_else():
    for order in ORDERS:
        left = f" {order.text} "
        for value in sorted(filter(None, order.slots.values()), key=len, reverse=True):
            assert f" {value} " in left, "values stand in the text as they are"
            left = left.replace(f" {value} ", "  ", 1)
        assert not set(left.split()) & {word for values in VALUES.values() for v in values for word in v.split()} - {
            "a"
        }


def test_slots_are_filled_every_second_time():
    filled = Counter(name for order in ORDERS for name, value in order.slots.items() if value)
    assert filled["coffeeDrink"] == 2000
    assert all(900 < filled[name] < 1100 for name in VALUES if name != "coffeeDrink")
    assert {name: {order.slots[name] for order in ORDERS} - {None} for name in VALUES} == {
        name: set(values) for name, values in VALUES.items()
    }


def test_articles():
    for order in ORDERS:
        words = order.text.split()
        for article, word in pairwise(words):
            if article == "an":
                assert word[0] in "aei"


def test_values_are_those_of_the_people(test_data):
    corpus = load_corpus(test_data / "data" / "speech_to_intent", check_audio=False)
    said = {name: {slots[name] for slots in corpus["slots"]} - {None} for name in VALUES}
    assert all(said[name] <= set(VALUES[name]) for name in VALUES)
    assert set(corpus.features["slots"]) == set(VALUES)


@pytest.mark.parametrize("index", range(3))
def test_slots_are_in_the_order_of_the_values(index):
    assert list(draw_order(5, index).slots) == list(VALUES)
