"""Questions: one right answer each, checked where it can be computed otherwise, and a fifth kept from training."""

from collections import defaultdict

import pytest

from speechzoo.data.question_grammar import draw_question, is_held_out, question_words

QUESTIONS = [draw_question(1, index) for index in range(20_000)]
NUMBERS = "zero one two three four five six seven eight nine".split()


@pytest.fixture(scope="module")
def answers():
    """The answers by the question's text, of each family."""
    found = defaultdict(lambda: defaultdict(set))
    for question in QUESTIONS:
        found[question.family][question.text].add(question.answer)
    return found


def test_every_question_has_one_answer(answers):
    families = {"numbers", "opposites", "colors", "places", "kinds", "saying again"}
    assert set(answers) == families
    texts = [text for family in families for text in answers[family]]
    assert len(texts) == len(set(texts)), "a question of two families"
    assert all(len(given) == 1 for family in families for given in answers[family].values())
    assert all(text == " ".join(text.split()) and text.replace(" ", "").isalpha() for text in texts)


def test_numbers_follow_one_another(answers):
    for text, (answer,) in answers["numbers"].items():
        step = {"after": 1, "before": -1}[text.split()[-2]]
        assert NUMBERS.index(answer) - NUMBERS.index(text.split()[-1]) == step
    assert len(answers["numbers"]) == 2 * 2 * 8


def test_words_are_said_again(answers):
    for text, (answer,) in answers["saying again"].items():
        words = text.removeprefix("say ").removesuffix(" two times").split(" and then ")
        assert answer.split() == words * (3 - len(words)) and len(answer.split()) == 2


def test_a_kind_is_affirmed_or_put_right(answers):
    """What is said of a word agrees over all questions about it, and "no" never affirms what was asked."""
    kinds = {}
    for text, (answer,) in answers["kinds"].items():
        word, asked = text.removeprefix("is ").split(" ", 1)
        verdict, statement = answer.split(" ", 1)
        assert kinds.setdefault(word, statement.removeprefix(f"{word} is ")) in answer
        assert (verdict == "yes") == (asked == kinds[word]) and verdict in ("yes", "no")
    assert kinds["zebra"] == "an animal" and kinds["kitchen"] == "a room" and kinds["coat"] == "something to wear"


def test_two_ways_to_ask_for_one_fact_get_one_answer(answers):
    for family in ("opposites", "colors", "places"):
        of_word = defaultdict(set)
        for text, given in answers[family].items():
            of_word[text.split()[-1]] |= given
        assert all(len(given) == 1 for given in of_word.values()), family
        assert len(answers[family]) == 2 * len(of_word)


def test_a_fifth_is_held_out_and_the_splits_are_disjoint():
    seen = {draw_question(5, index, held_out=False).text for index in range(2000)}
    unseen = {draw_question(5, index, held_out=True).text for index in range(500)}
    assert not seen & unseen
    every = {question.text: question for question in QUESTIONS}
    assert 0.17 < sum(map(is_held_out, every.values())) / len(every) < 0.23
    assert all(is_held_out(every[text]) for text in unseen & set(every))
    assert len({draw_question(5, index, held_out=True).family for index in range(500)}) == 6


def test_draws_depend_on_seed_and_index_alone():
    first = [draw_question(7, index) for index in range(60)]
    assert [draw_question(7, index) for index in reversed(range(60))] == first[::-1]
    assert [draw_question(8, index) for index in range(60)] != first


def test_the_words_are_those_of_all_questions_and_answers():
    drawn = {word for question in QUESTIONS for word in f"{question.text} {question.answer}".split()}
    assert set(question_words()) == drawn
