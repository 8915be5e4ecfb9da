"""Forms of answers: what a configuration may say of them."""

import pytest

from speechzoo import SpeechLMConfig, SUTLMConfig
from speechzoo.configuration.answer_forms import AnswerForm, answer_forms


def test_forms_are_read_from_a_configuration(tmp_path):
    answers = {"entities": {"marks": {"GPE": "%"}, "end": "]", "glue": "switch"}, "mood": {"labels": ["good", "bad"]}}
    SUTLMConfig(answers=answers).save_pretrained(tmp_path)
    forms = answer_forms(SUTLMConfig.from_pretrained(tmp_path).answers)
    assert forms["entities"] == AnswerForm(marks={"GPE": "%"}, end="]", glue="switch")
    assert forms["mood"].labels == ("good", "bad")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"label": ["a"]}, r"answers of 'x': there is no 'label'; choose of labels, slots"),
        ({"labels": ["a"], "slots": ["b"]}, r"labels and slots are given"),
        ({"slots": ["b", "b"]}, r"one of the slots is there twice"),
        ({"marks": {"A": "%"}, "end": "%"}, r"give each entity and the end a word of its own"),
        ({"marks": {"A": "%"}}, r"a word of its own"),
        ({"marks": {"A": "two words"}, "end": "]"}, r"a word of its own"),
        ({"glue": "none"}, r"glue is 'none'"),
    ],
)
def test_what_cannot_be_read_is_refused(form, message):
    with pytest.raises(ValueError, match=message):
        SpeechLMConfig(answers={"x": form})
