"""Slots as text and back, and folds that keep groups together."""

import pytest

from speechzoo.data.slot_texts import read_slots, write_slots

NAMES = ("drink", "size", "sugar")


@pytest.mark.parametrize(
    "slots",
    [{}, {"drink": "iced mocha"}, {"sugar": "a little bit of sugar"}, {"drink": "latte", "size": "s", "sugar": "x y"}],
)
def test_there_and_back(slots):
    assert read_slots(write_slots(slots, NAMES), NAMES) == slots


def test_order_is_that_of_the_names_and_empty_slots_are_said():
    assert write_slots({"sugar": "brown sugar", "drink": "mocha", "size": None}, NAMES) == "mocha, none, brown sugar"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("mocha", {"drink": "mocha"}),
        (" mocha ,none,,", {"drink": "mocha"}),
        ("none, none, sugar, milk, milk", {"sugar": "sugar"}),
        ("mocha latte none", {"drink": "mocha latte none"}),
    ],
)
def test_what_a_model_wrote_wrongly_is_read_as_far_as_it_goes(text, expected):
    assert read_slots(text, NAMES) == expected


def test_what_could_not_be_read_back_is_refused():
    with pytest.raises(ValueError, match="no slot 'milk'"):
        write_slots({"milk": "soy"}, NAMES)
    for value in ("soy, hot", "none", " "):
        with pytest.raises(ValueError, match="slot 'size' holds"):
            write_slots({"size": value}, NAMES)
