"""Repetition of the prompt, of a text itself, and among samples, against counts by hand."""

import math

import pytest

from speechzoo.evaluation.repetition import auto_bleu, copied_ngrams, longest_common_run, self_bleu


def test_ngrams_of_the_prompt_are_counted():
    prompt = "the red cat sat on the mat".split()
    assert copied_ngrams("the red dog sat on it".split(), prompt, 2) == (2, 5)  # the red, sat on
    assert copied_ngrams("the red dog sat on it".split(), prompt, 1) == (4, 6)
    assert copied_ngrams(prompt, prompt, 3) == (5, 5)
    assert copied_ngrams(["the"], prompt, 2) == (0, 0)


def test_the_longest_common_run_need_not_be_at_the_start():
    prompt = "the red cat sat on the mat".split()
    assert longest_common_run("a dog sat on the sofa on the mat".split(), prompt) == 3
    assert longest_common_run("nobody".split(), prompt) == 0
    assert longest_common_run([], prompt) == 0
    long = [f"word{number % 7}" for number in range(300)]  # of frequent words too
    assert longest_common_run(long, long) == 300


def test_auto_bleu_counts_what_occurs_again():
    assert auto_bleu("a b c d".split()) == 0
    assert auto_bleu("a a a a".split()) == 1
    # words: a b a b c -> 4 of 5; pairs: ab ba ab bc -> 2 of 4
    assert auto_bleu("a b a b c".split()) == pytest.approx(math.sqrt(4 / 5 * 2 / 4))
    assert auto_bleu(["a"]) == 0 and auto_bleu([]) == 0


def test_self_bleu_compares_with_all_others():
    same, other = "a b c d".split(), "e f g h".split()
    assert self_bleu([same, same]) == pytest.approx([1, 1])
    assert self_bleu([same, other]) == pytest.approx([0, 0])
    # 3 of 4 words and 2 of 3 pairs are in one of the others
    assert self_bleu(["a b c x".split(), same, other])[0] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    assert self_bleu([["a"], ["a"]]) == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="two or more"):
        self_bleu([same])
