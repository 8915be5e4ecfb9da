"""Words with their probabilities, from planted tokens and letters whose answers are known by hand."""

import math

import pytest
import torch
from joint_slu_cases import PHONES

from speechzoo import SpeechLMProcessor
from speechzoo.configuration.answer_forms import AnswerForm
from speechzoo.evaluation.slue_entities import END, MARKS, parse_tagged, tagged_words
from speechzoo.pipelines.written_words import Word, Written, written_letters, written_tokens
from speechzoo.processing.feature_extraction_speechlm import SpeechLMFeatureExtractor
from speechzoo.processing.processing_speechlm import LETTERS, letter_tokenizer

ENTITIES = AnswerForm(marks={"GPE": "%"}, end="]")


def words(text: str, *probabilities: float) -> list[Word]:
    """A token a word."""
    given = probabilities or (0.5,) * len(text.split())
    return [Word(word, (math.log(p),)) for word, p in zip(text.split(), given, strict=True)]


def test_an_entity_is_as_likely_as_its_words_and_marks():
    found = Written(words("met in % south sudan ]", 1, 1, 0.9, 0.8, 0.7, 0.6), (math.log(0.5),)).read(ENTITIES)
    (entity,) = found["entities"]
    assert entity.pop("score") == pytest.approx((0.9 * 0.8 * 0.7 * 0.6) ** 0.25)
    assert entity == {"label": "GPE", "text": "south sudan"} and found["text"] == "met in south sudan"
    assert found["score"] == pytest.approx((0.9 * 0.8 * 0.7 * 0.6 * 0.5) ** (1 / 7))


@pytest.mark.parametrize(
    "tagged",
    ["% a ] b } c d ]", "% a } b ] c ]", "a ] % ] } b", "% % a ]", "", "% a", "~ % a ] ] } x y z ] @ b"],
)
def test_entities_are_those_of_the_scorer(tagged):
    form = AnswerForm(marks=MARKS, end=END)
    found = Written(words(tagged)).read(form)
    assert [(one["label"], one["text"]) for one in found["entities"]] == parse_tagged(tagged)
    assert found["text"] == tagged_words(tagged)


def test_values_of_slots_are_told_by_the_separators_before_them():
    form = AnswerForm(slots=("drink", "milk", "size"))
    found = Written(words("iced mocha, none, very large, more", 0.9, 0.4, 1, 0.8, 0.2, 1)).read(form)
    drink, size = found["slots"]
    assert drink == {"label": "drink", "text": "iced mocha", "score": pytest.approx(0.6)}
    assert size == {"label": "size", "text": "very large", "score": pytest.approx(0.4)}


def test_values_without_a_space_between_share_their_word():
    form = AnswerForm(slots=("drink", "milk", "size"))
    drink, milk, size = Written(words("mocha,oat very , large", 0.9, 0.4, 1, 0.5)).read(form)["slots"]
    assert drink == {"label": "drink", "text": "mocha", "score": pytest.approx(0.9)}
    assert milk == {"label": "milk", "text": "oat very", "score": pytest.approx(0.6)}
    assert size == {"label": "size", "text": "large", "score": pytest.approx(0.5)}


def test_a_token_belongs_to_the_word_that_it_ends_in():
    pieces = {1: "me", 2: "t ", 3: "in", 4: " su", 5: "dan", 9: "</s>"}
    written = written_tokens([1, 2, 3, 4, 5, 9, 3], [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0], {9}, _joined(pieces))
    assert [(word.text, word.log_probs) for word in written.words] == [
        ("met", (-1, -2)),
        ("in", (-3,)),
        ("sudan", (-4, -5)),
    ]
    assert written.end == (-6,)
    assert written_tokens([9, 9], [-1.0, -7.0], {9}, _joined(pieces)).read(AnswerForm()) == {
        "text": "",
        "score": pytest.approx(math.exp(-1)),
    }


def _joined(pieces):
    return lambda tokens: "".join(pieces[token] for token in tokens)


@pytest.fixture(scope="module")
def processor():
    return SpeechLMProcessor(
        SpeechLMFeatureExtractor(), letter_tokenizer(LETTERS + "%]"), PHONES.symbols, lexicon=None
    )


def test_letters_make_words_as_the_decoder_does(processor):
    ids = processor.tokenizer.get_vocab()
    frames = [*"%%|", "<s>", *"SSU", "<s>", *"UU|]|", "</s>", *"OO"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(frames), len(ids), generator=generator)
    for step, name in enumerate(frames):
        logits[step, ids[name]] = 4.0 + 0.1 * step
    written = written_letters(logits, processor)
    assert [word.text for word in written.words] == ["%", "suu", "]", "o"]
    assert " ".join(word.text for word in written.words) == processor.decode_ctc(logits.argmax(-1).tolist())
    best = logits.double().log_softmax(-1).amax(-1)
    spelled = [best[4:6].max(), best[6], best[8:10].max()]
    assert written.words[1].log_probs == pytest.approx([float(one) for one in spelled], abs=1e-5)
    (entity,) = written.read(ENTITIES)["entities"]
    whole = [best[:2].max(), *spelled, best[11]]
    assert entity["score"] == pytest.approx(float(torch.stack(whole).mean().exp()), abs=1e-6)


def test_random_letters_are_those_of_the_decoder(processor):
    for seed in range(20):
        logits = 3 * torch.randn(60, len(processor.tokenizer), generator=torch.Generator().manual_seed(seed))
        found = " ".join(word.text for word in written_letters(logits, processor).words)
        assert found == processor.decode_ctc(logits.argmax(-1).tolist())
