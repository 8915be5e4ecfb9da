"""In-context rows: what is asked was in no training, and readers of known skill score what they must."""

import pytest

from speechzoo.data.command_grammar import commands, commands_held_out, commands_seen, intents
from speechzoo.data.text_episodes import NEVER_IN_EPISODES, label_words, pool
from speechzoo.data.text_task_dataset import PromptEncoder
from speechzoo.data.text_tasks import LABELS
from speechzoo.evaluation import in_context_evaluation
from speechzoo.evaluation.in_context_evaluation import in_context_tests, measure_in_context_learning
from speechzoo.training.training_tiny_language_model import train_tokenizer

TESTS = in_context_tests()
HELD_OUT = {command.text for command in commands_held_out()}
INTENT_OF = {command.text: str(command.intent) for command in commands()}


def of(part):
    return [test for name, test in TESTS.items() if part in name]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def test_every_shape_is_asked_for():
    for kind in ("unseen phrasings", "unseen intents"):
        for ways in (2, 4):
            for shots in (1, 3, 5):
                (name,) = [name for name in TESTS if name.startswith(f"{ways} classes, {shots} shot") and
                           name.endswith(f": {kind}")]  # fmt: skip
                episode = TESTS[name].draw(0)
                assert len(episode.texts) == ways * shots + 1 and len(set(episode.labels)) == ways
                assert TESTS[name].chance == 1 / ways


def test_what_is_asked_was_in_no_training():
    requests = {text for texts in pool("requests").values() for text in texts}
    for test in of("unseen phrasings"):
        for index in range(40):
            *shown, last = test.draw(index).texts
            assert last in HELD_OUT and not HELD_OUT & set(shown) and last not in requests
            assert not {INTENT_OF[text] for text in (*shown, last)} & set(NEVER_IN_EPISODES)
    for test in of("unseen intents"):
        for index in range(40):
            texts = test.draw(index).texts
            assert {INTENT_OF[text] for text in texts} <= set(NEVER_IN_EPISODES)
            assert set(texts) <= {command.text for command in commands_seen()} and len(set(texts)) == len(texts)
    for source in ("requests", "opinions"):
        (test,) = of(f"of new {source}")
        known = {text for texts in pool(source).values() for text in texts}
        assert not {test.draw(index).texts[-1] for index in range(40)} & known


def test_labels_are_those_that_the_name_says():
    for name, test in TESTS.items():
        words = {word for index in range(20) for label in test.draw(index).labels for word in label.split()}
        if not test.named:
            assert words <= set(label_words(held_out="new words" in name))
            assert {len(test.draw(index).labels[0].split()) for index in range(20)} == {1 + ("two words" in name)}
    (named,) = of("by name")
    assert named.chance == 1 / len(intents())
    for index in range(40):
        episode = named.draw(index)
        assert [INTENT_OF[text] for text in episode.texts] == list(episode.labels)
        assert episode.labels[-1] not in episode.labels[:-1]


def test_prompts_end_where_the_label_begins(tokenizer):
    encoder = PromptEncoder(tokenizer)
    for test in TESTS.values():
        episode, prompt = test.draw(3), tokenizer.decode(test.prompt(encoder, 3))
        assert prompt.endswith("<int>") and prompt.count("<int>") == len(episode.texts)
        *shown, last = prompt.removesuffix("<int>").split("<int>")
        assert ("<audio>" in last) == (test.spread != "none")
        assert ("<audio>" in "".join(shown)) == (test.spread == "all")


def reader_of_classes(tokenizer):
    """Answers with the label of a text of the same class, which it looks up in the grammar of commands."""

    def complete(_model, _tokenizer, prompts, max_new_tokens):
        assert max_new_tokens == 2, "the label and its end"
        return [answer(tokenizer.decode(prompt).removeprefix("<s>").split("<int>")[:-1]) for prompt in prompts]

    def answer(parts):
        first, *others = parts
        labels, texts = zip(*(part.split(maxsplit=1) for part in others), strict=True)
        *classes, asked = (INTENT_OF[text.strip()] for text in (first, *texts))
        return labels[classes.index(asked)]

    return complete


def test_a_reader_of_classes_is_always_right_and_a_guesser_at_chance(tokenizer, monkeypatch):
    tests = {name: TESTS[name] for name in ("4 classes, 3 shots of each: unseen phrasings",)}
    monkeypatch.setattr(in_context_evaluation, "complete", reader_of_classes(tokenizer))
    (perfect,) = measure_in_context_learning(None, tokenizer, 60, tests)
    assert perfect.value == 1.0 and perfect.items == 60 and perfect.chance == 0.25

    (test,), values = tests.values(), []
    for number in range(4):  # always the same of the four labels, in alphabetical order
        guesses = [sorted(set(test.draw(index).labels))[number] for index in range(400)]
        monkeypatch.setattr(in_context_evaluation, "complete", lambda *_, given=guesses, **__: given)
        (guessed,) = measure_in_context_learning(None, tokenizer, 400, tests)
        values.append(guessed.value)
    assert sum(values) == pytest.approx(1.0) and max(values) < 0.33
    asked = {test.draw(index).texts[-1] for index in range(400)}
    assert guessed.resampled == f"{len(asked)} texts" and len(asked) < 31


def test_labels_of_the_course_before_are_never_new():
    assert not set(LABELS) & set(label_words(held_out=True))
