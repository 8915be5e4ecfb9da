"""What SpeechLM and SpeechUT understand: by speech, text and hard units, in batches as alone; scores of intents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joint_slu_cases import recordings, save_pretrained
from sklearn.metrics import f1_score

from speechzoo.data.labeled_recordings import as_labeled
from speechzoo.data.modality_batches import read_as
from speechzoo.evaluation.joint_understanding import (
    TASKS,
    Listener,
    beam_search_of,
    best_texts,
    hard_units,
    load_unit_listener,
    validation_scores,
)
from speechzoo.evaluation.slue_entities import END, MARKS
from speechzoo.training.slu_finetuning import load_for_classes, load_for_letters

CLIPS = recordings()


@pytest.fixture(scope="module", params=["speechlm", "speechut"])
def source(request, tmp_path_factory):
    return save_pretrained(tmp_path_factory.mktemp("pretrained"), request.param)


@pytest.fixture(scope="module")
def pretrained(source):
    return load_unit_listener(str(source))


def test_a_checkpoint_that_predicts_no_units_hears_none(source, tmp_path):
    load_for_classes(str(source), ("off", "on"))[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"predicts no units, it lacks unit_predictor\..*want a checkpoint of pre-tr"):
        load_unit_listener(str(tmp_path))


@torch.no_grad()
def test_hard_units_are_the_likeliest_of_the_speech_encoders_head(source, pretrained):
    _, processor = load_for_classes(str(source), ("off", "on"))
    batch = hard_units(pretrained, **processor(audio=[one.audio for one in CLIPS]))
    vocabulary = processor.vocabulary
    for row, one in enumerate(CLIPS):
        output = pretrained.base_model(**processor(audio=one.audio))
        logits = pretrained.unit_predictor.speech_logits(output.speech_hidden_state)[0]
        names = [vocabulary.symbol(number) for number in range(len(vocabulary))]
        logits[:, [number for number, name in enumerate(names) if name not in vocabulary.symbols]] = -torch.inf
        frames = len(logits)
        assert batch["input_ids"][row, :frames].tolist() == logits.argmax(-1).tolist()
        assert set(batch["input_ids"][row, frames:].tolist()) <= {vocabulary.pad_id}
        assert batch["unit_attention_mask"][row].sum() == frames


@torch.no_grad()
@pytest.mark.parametrize("route", ["speech", "text", "hard units"])
def test_a_clip_is_understood_as_it_is_alone(source, pretrained, route):
    torch.manual_seed(0)
    model, processor = load_for_classes(str(source), ("off", "on"))
    for part in (model.classifier[1], model.classifier[4]):
        part.weight.mul_(20)
    listener = Listener(model, processor, pretrained, batch_size=3)
    together = {
        place: row
        for places, output in listener.outputs(CLIPS, route)
        for place, row in zip(places, output.logits, strict=True)
    }
    for place, one in enumerate(CLIPS):
        [(_, alone)] = listener.outputs([one], route)
        torch.testing.assert_close(together[place], alone.logits[0], atol=1e-4, rtol=0)
    names = [model.config.id2label[int(together[place].argmax())] for place in range(len(CLIPS))]
    assert listener.classes(CLIPS, route) == names
    if route == "hard units":
        units = hard_units(pretrained, **processor(audio=CLIPS[0].audio))
        torch.testing.assert_close(together[0], model(**units).logits[0], atol=1e-4, rtol=0)


def test_other_routes_are_refused(source):
    listener = Listener(*load_for_classes(str(source), ("off", "on")))
    with pytest.raises(ValueError, match=r"heard by the pre-training checkpoint"):
        listener.classes(CLIPS, "hard units")
    with pytest.raises(ValueError, match=r"no route 'sound'"):
        listener.classes(CLIPS, "sound")


def test_letters_are_decoded_with_and_without_words(source):
    answers = ["the % café ] voted", "on @ monday ] the vote"]
    model, processor = load_for_letters(str(source), answers, marks=[*MARKS.values(), END])
    letters = Listener(model, processor, batch_size=3).letters(CLIPS, "speech")
    texts = Listener(model, processor, batch_size=1).letters(CLIPS, "text")
    assert [len(row) for row in texts] == [item.length for item in read_as(CLIPS, "text", processor)]
    assert len(letters[0]) < len(letters[-1])
    search = beam_search_of(processor, answers, order=3, beam=20)
    spelled = np.full((2 * len(processor.letter_ids(answers[0])), len(processor.tokenizer)), -9.0)
    spelled[np.arange(0, len(spelled), 2), processor.letter_ids(answers[0])] = 0
    spelled[1::2, 0] = 0
    assert best_texts([spelled], processor) == [search.decode(spelled)] == answers[:1]
    known = {word for answer in answers for word in answer.split()}
    for row in letters[:2]:
        assert set(search.decode(row).split()) <= known


def test_intents_are_scored_beside_chance_and_majority():
    gold, given = as_labeled(recordings(8)), ["on", "off", "off", "off", "on", "on", "on", "off"]
    trained = ["on", "on", "off", "up"]
    first, macro = TASKS["intents"].measure("intents", gold, given, "hard units", trained, split="final test")
    wanted = [one.answer for one in gold]
    assert (first.name, first.metric, first.split) == ("intents: hard units", "accuracy", "final test")
    assert first.value == np.mean([one == other for one, other in zip(wanted, given, strict=True)])
    assert first.chance == 1 / 3 and first.majority == wanted.count("on") / 8
    assert (first.items, first.speakers, first.resampled) == (8, 3, "speakers")
    assert first.low <= first.value <= first.high
    assert macro.name == "intents: hard units, macro F1"
    assert macro.value == pytest.approx(f1_score(wanted, given, average="macro"))
    assert macro.majority == pytest.approx(f1_score(wanted, ["on"] * 8, average="macro", zero_division=0))


def test_chance_is_wrong_where_training_has_not_all_classes():
    """Little speech has some of them: who guesses among these misses all others."""
    [first, _] = TASKS["intents"].measure("intents", as_labeled(recordings(8)), ["on"] * 8, "speech", ["off", "up"])
    draws = np.random.default_rng(0).choice(["off", "up"], size=(4000, 8))
    expected = np.mean(draws == [one.answer for one in recordings(8)])
    assert first.chance == pytest.approx(expected, abs=0.01) and first.chance == 0.25


def test_validation_is_scored_by_macro_f1():
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 2, 1], [3, 0, 0]])
    scores = validation_scores(SimpleNamespace(predictions=logits, label_ids=np.array([0, 1, 2, 0])))
    assert scores == {"accuracy": 0.75, "f1": pytest.approx((1 + 2 / 3 + 0) / 3)}


def test_tasks_know_how_they_are_loaded():
    assert {name: (task.column, task.auto_class) for name, task in TASKS.items()} == {
        "sentiment": ("sentiment", "AutoModelForSequenceClassification"),
        "intents": ("intent", "AutoModelForSequenceClassification"),
        "entities": ("entities", "AutoModelForCTC"),
    }
