"""Decoding with words: n-grams against their definition, the search against all alignments there are."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from speechzoo.evaluation.ctc_beam_search import BeamSearch
from speechzoo.evaluation.word_ngrams import BEGIN, END_OF_TEXT, UNKNOWN, WordNGrams

TEXTS = ["the % united kingdom ] voted", "the % france ] voted on @ monday ]", "on @ monday ]", "the % france ]"]
LETTERS = {1: "A", 2: "B", 3: "|"}  # 0 is the blank, 4 no letter


# --- the language model ---


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one(order):
    model = WordNGrams.train(TEXTS, order)
    words = [*model.words, END_OF_TEXT, UNKNOWN]
    histories = [(), (BEGIN,), (BEGIN, "the"), ("the", "%"), ("%", "france", "]"), ("never", "heard"), ("]", "vote")]
    for history in histories:
        assert sum(model.probability(word, history) for word in words) == pytest.approx(1, abs=1e-12)
        assert min(model.probability(word, history) for word in words) > 0


def test_bigrams_are_kneser_and_neys():
    """The formula, by loops over the texts."""
    model, counts = WordNGrams.train(TEXTS, 2), Counter()
    for text in TEXTS:
        words = [BEGIN, *text.split(), END_OF_TEXT]
        counts.update(itertools.pairwise(words))
    before = defaultdict(set)
    for first, second in counts:
        before[second].add(first)

    def discount(values):
        ones, twos = (sum(value == times for value in values) for times in (1, 2))
        return ones / (ones + 2 * twos)

    kinds, of_pairs = len(counts), discount(counts.values())
    of_words = discount([len(firsts) for firsts in before.values()])
    vocabulary = {word for text in TEXTS for word in text.split()}

    def single(word):
        kept = max(len(before[word]) - of_words, 0) if word in before else 0
        return (kept + of_words * len([one for one in before if before[one]]) / (len(vocabulary) + 2)) / kinds

    for history in (BEGIN, "the", "]"):
        total = sum(count for (first, _), count in counts.items() if first == history)
        different = sum(first == history for first, _ in counts)
        for word in [*vocabulary, END_OF_TEXT, UNKNOWN]:
            expected = (max(counts[history, word] - of_pairs, 0) + of_pairs * different * single(word)) / total
            assert model.probability(word, (history,)) == pytest.approx(expected, rel=1e-12)


def test_a_history_that_was_seen_decides_and_another_does_not():
    model = WordNGrams.train(TEXTS, 4)
    assert model.probability("]", ("the", "%", "france")) > 0.5 > model.probability("]", ("never", "heard"))
    assert model.probability("]", ("never", "heard")) == model.probability("]")
    with pytest.raises(ValueError, match=r"no word to count"):
        WordNGrams.train([""])


# --- the search ---


def collapsed(path):
    return "".join(LETTERS.get(number, "?") for number, _ in itertools.groupby(path) if number)


def all_texts(log_probs):
    """Every text and the sum over its alignments."""
    sums = defaultdict(lambda: -np.inf)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        text = collapsed(path)
        if "?" not in text:
            found = sum(frame[number] for frame, number in zip(log_probs, path, strict=True))
            sums[text] = np.logaddexp(sums[text], found)
    return sums


def best_by_definition(log_probs, search, words):
    model, best = search.language_model, ("", -np.inf)
    for text, score in all_texts(log_probs).items():
        *spelled, rest = text.lower().split("|")
        if rest or (spelled and (not all(spelled) or (words is not None and set(spelled) - words))):
            continue
        history = [BEGIN]
        for word in [*spelled, END_OF_TEXT]:
            known = word if word in (*model.words, END_OF_TEXT) else UNKNOWN
            score += search.lm_weight * model.log10(known, history[-model.order + 1 :])
            history.append(word)
        score += search.word_score * len(spelled)
        if score > best[1]:
            best = (" ".join(spelled), score)
    return best


@pytest.mark.parametrize("open_vocabulary", [False, True])
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (2.0, 1.0), (0.7, 3.0)])
def test_a_wide_beam_finds_the_best_of_all_alignments(weight, bonus, open_vocabulary):
    model = WordNGrams.train(["a ab", "ab ab b", "b a a"], 3)
    fields = {"lm_weight": weight, "word_score": bonus, "open_vocabulary": open_vocabulary}
    search = BeamSearch(LETTERS, model, beam=4000, **fields)
    found = set()
    for seed in range(4):
        logits = 1.5 * np.random.default_rng(seed).standard_normal((5, 5))
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        text, score = best_by_definition(log_probs, search, None if open_vocabulary else set(model.words))
        assert search.search(log_probs) == (text, pytest.approx(score, abs=1e-9))
        found.add(text)
    assert len(found) > 1


def spelled(text, doubt=0.0):
    """Frames that say the text, every letter between blanks; `doubt` of A and B being each other."""
    rows = []
    for letter in "".join(f"{word}|" for word in text.split()).upper():
        share = dict.fromkeys(range(5), 0.0001) | {0: 2e-4}
        share[{"A": 1, "B": 2, "|": 3}[letter]] += 1 - doubt
        share[{"A": 2, "B": 1, "|": 3}[letter]] += doubt
        rows += [list(share.values()), [0.99, 0.0025, 0.0025, 0.0025, 0.0025]]
    frames = np.array(rows)
    return np.log(frames / frames.sum(1, keepdims=True))


def test_the_language_model_settles_what_is_doubtful_and_the_lexicon_what_is_written():
    model = WordNGrams.train(["aa bb aa bb aa bb"] * 3, 3)
    heard = spelled("aa ab aa", doubt=0.3)
    assert BeamSearch(LETTERS, model, beam=30).decode(heard) == "aa bb aa"
    assert BeamSearch(LETTERS, model, beam=30, lm_weight=0.0, open_vocabulary=True).decode(heard) == "aa ab aa"
    assert BeamSearch(LETTERS, model, beam=30).decode(spelled("bb bb aa")) == "bb bb aa"


def test_what_cannot_be_searched_is_told():
    model = WordNGrams.train(["a c"], 2)
    with pytest.raises(ValueError, match=r"no letters spell the word 'c'"):
        BeamSearch(LETTERS, model).decode(spelled("a"))
    with pytest.raises(ValueError, match=r"must be '\|'"):
        BeamSearch({1: "A"}, model)
