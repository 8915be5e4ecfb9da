"""Fine-tuning SpeechLM and SpeechUT: new heads, what is frozen and when, the schedule, going on as before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from joint_slu_cases import recordings, save_pretrained
from transformers import AutoModel, AutoModelForCTC, AutoModelForSequenceClassification, AutoProcessor

from speechzoo.data.modality_batches import ModalityCollator, read_as
from speechzoo.evaluation.slue_entities import END, MARKS
from speechzoo.training.adapter_arguments import RunArguments
from speechzoo.training.adapter_training import train
from speechzoo.training.slu_finetuning import (
    describe_items,
    impossible_items,
    load_for_classes,
    load_for_letters,
    make_slu_trainer,
    slu_training_arguments,
    training_items,
    tri_stage,
    with_letters,
)
from speechzoo.training.slu_finetuning_arguments import SLUTaskArguments, SLUUpdateArguments

CLASSES = ("off", "on")


@pytest.fixture(scope="module", params=["speechlm", "speechut"])
def pretrained(request, tmp_path_factory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def speechlm(tmp_path_factory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp("pretrained"))


def update(**fields) -> SLUUpdateArguments:
    given = {"max_steps": 6, "batch_frames": 900, "batch_size": 3, "learning_rate": 1e-3, "warmup_steps": 1}
    return SLUUpdateArguments(**{**given, "hold_steps": 2, "head_only_steps": 2, "bf16": False, **fields})


def trainer_of(source, output, modalities=("text", "speech"), layers=-1, validation=False, **fields):
    torch.manual_seed(1)
    model, processor = load_for_classes(str(source), CLASSES, freeze_layers=layers)
    items = [item for modality in modalities for item in read_as(recordings(), modality, processor)]
    followed = {name: read_as(recordings(4), name, processor) for name in modalities} if validation else {}
    given, run = update(**fields), RunArguments(output_dir=output, save_steps=fields.get("max_steps", 6) // 2)
    arguments = slu_training_arguments(given, run, followed)
    return make_slu_trainer(model, ModalityCollator(processor, CLASSES), items, followed, given, arguments)


# --- the pre-trained model ---


def test_the_body_is_the_pretrained_one_and_the_head_is_new(pretrained):
    body = AutoModel.from_pretrained(pretrained).state_dict()
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model, _ = load_for_classes(str(pretrained), CLASSES, freeze_layers=1, layerdrop=0.25, mask_time_prob=0.5)
        assert all(torch.equal(body[name], value) for name, value in model.base_model.state_dict().items())
        weights.append(model.classifier[1].weight)
    assert not torch.equal(*weights)
    assert model.config.label2id == {"off": 0, "on": 1}
    assert (model.config.freeze_layers, model.config.layerdrop, model.config.mask_time_prob) == (1, 0.25, 0.5)
    with pytest.raises(ValueError, match=r"no field 'mask_tine_prob'"):
        load_for_classes(str(pretrained), CLASSES, mask_tine_prob=0.5)


def test_letters_of_the_answers_and_all_marks_can_be_written_and_read_again(pretrained, tmp_path):
    texts = ["the % café ] don 't", "voted on @ 5 may ]"]
    model, processor = load_for_letters(str(pretrained), texts, marks=[*MARKS.values(), END])
    assert model.ctc_head.out_proj.out_features == len(processor.tokenizer) == model.config.text_vocab_size
    assert not model.ctc_head.has_convolution
    for text in [*texts, " ".join([*MARKS.values(), END])]:
        ids = processor.letter_ids(text)
        assert processor.decode_letters(ids) == text
        with_blanks = [part for number in ids for part in (number, 0)]
        assert processor.decode_ctc(with_blanks) == text
    assert processor.unit_ids("heat on") == AutoProcessor.from_pretrained(pretrained).unit_ids("heat on")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = AutoModelForCTC.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert reader.letter_ids(texts[0]) == processor.letter_ids(texts[0])
    units = reader(text=["heat on"])
    torch.testing.assert_close(again(**units).logits, model.eval()(**units).logits)


def test_letters_that_are_known_stay_where_they_are(speechlm):
    processor = AutoProcessor.from_pretrained(speechlm)
    assert with_letters(processor, ["heat"]).tokenizer.get_vocab() == processor.tokenizer.get_vocab()


# --- what is trained on ---


@pytest.mark.parametrize(
    ("given", "counts"), [({}, (8, 8)), ({"speech_minutes": 0.02}, (6, 8)), ({"speech_choice": "balanced"}, (8, 8))]
)
def test_speech_is_as_much_as_is_asked_for_and_all_texts_are_there(speechlm, given, counts):
    processor, asked = AutoProcessor.from_pretrained(speechlm), SLUTaskArguments(**given)
    texts = recordings(audio=False)
    items = training_items(recordings(), texts, processor, asked, 4000, seed=0)
    facts = describe_items(items, frame_rate=400)
    assert facts["training_texts"] == counts[1] and abs(facts["training_speech_clips"] - counts[0]) <= 1
    assert facts["training_speech_minutes"] <= (asked.speech_minutes or 1)
    assert not describe_items(training_items([], texts, processor, asked, 4000, 0), 400)["training_speech_clips"]


def test_clips_that_ctc_cannot_learn_are_counted(speechlm):
    processor, [clip] = AutoProcessor.from_pretrained(speechlm), recordings(1)
    frames = read_as([clip], "speech", processor)[0].length
    answers = {"ab" * 5: 0, "a" * frames: 1, "ab" * (frames // 2 + 1): 1}  # a letter twice takes a blank between
    for answer, expected in answers.items():
        items = read_as([replace(clip, answer=answer)], "speech", processor)
        assert impossible_items(items, processor) == expected


# --- training ---


def test_the_schedule_has_three_stages():
    """30,000 updates in parts of 0.1, 0.4 and 0.5, down to 0.05."""
    scale = [tri_stage(step, 3000, 12000, 30000, 0.05) for step in range(30001)]
    assert scale[0] == 0.01 and scale[1500] == pytest.approx(0.505)
    assert scale[3000] == scale[9000] == scale[15000] == 1
    assert scale[22500] == pytest.approx(0.05**0.5) and scale[30000] == pytest.approx(0.05)
    assert np.all(np.diff(scale[:3001]) > 0) and np.all(np.diff(scale[15000:]) < 0)
    assert tri_stage(99999, 3000, 12000, 30000, 0.05) == pytest.approx(0.05)
    assert [tri_stage(step, 0, 0, 10, 0.1) for step in (0, 10)] == [1, pytest.approx(0.1)]


def test_contradicting_stages_are_refused():
    with pytest.raises(ValueError, match=r"are more than max_steps 6"):
        update(warmup_steps=5, hold_steps=2)
    with pytest.raises(ValueError, match=r"share of the peak"):
        update(final_scale=0.0)


def moved(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("layers", [-1, 0, 2])
def test_what_is_frozen_stays_and_all_else_moves(speechlm, tmp_path, layers):
    trainer = trainer_of(speechlm, tmp_path, layers=layers, head_only_steps=0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    train(trainer, resume=False)
    changed = moved(before, trainer.model)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    # Softmax takes no notice of a constant, and an unmasked model of its mask.
    assert trained - changed <= {"pooling.bias", "speechlm.masked_spec_embed"} | {
        name for name in trained if name.endswith("k_proj.bias")
    }
    assert changed <= trained
    shared = {name for name in changed if name.startswith("speechlm.unit_encoder.layers.")}
    assert {int(name.split(".")[3]) for name in shared} == set(range(max(layers, 0), 3))
    assert any(name.startswith("speechlm.encoder.") for name in changed) == (layers == -1)
    assert not any(name.startswith("speechlm.feature_extractor") for name in changed)


def test_the_head_is_alone_until_its_updates_are_over(speechlm, tmp_path):
    trainer, seen = trainer_of(speechlm, tmp_path, head_only_steps=3), []
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    body = [name for name in before if name.startswith("speechlm.")]
    step = trainer.training_step

    def watched(model, *rest, **more):
        trains = any(value.requires_grad for value in model.base_model.parameters())
        seen.append((trains, any(not torch.equal(before[name], model.state_dict()[name]) for name in body)))
        return step(model, *rest, **more)

    trainer.training_step = watched
    train(trainer, resume=False)
    assert seen == [(False, False)] * 3 + [(True, False), (True, True), (True, True)]
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    expected = [1e-3 * tri_stage(step, 1, 2, 6, 0.05) for step in range(6)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_a_run_on_texts_takes_no_speech(speechlm, tmp_path, monkeypatch):
    """And does not miss it: there is none to load."""
    trainer = trainer_of(speechlm, tmp_path, modalities=("text",))
    heard = []
    monkeypatch.setattr(trainer.model.base_model, "_hear", lambda *given: heard.append(given))
    train(trainer, resume=False)
    assert not heard and trainer.state.global_step == 6
    assert trainer.batches.probabilities == {"text": 1.0}


def test_an_interrupted_run_goes_on_to_the_same_weights(speechlm, tmp_path):
    """It is cut in the middle, after the head's updates, with dropout and masks drawn all the while."""
    fields = {"max_steps": 8, "head_only_steps": 2, "warmup_steps": 1, "hold_steps": 3}
    whole = trainer_of(speechlm, tmp_path, validation=True, evaluations=2, **fields)
    train(whole, resume=False)
    told = {name for entry in whole.state.log_history for name in entry if name.startswith("eval_")}
    assert {"eval_text_loss", "eval_speech_loss"} <= told
    kept = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert [path.name for path in kept] == ["checkpoint-8"]

    cut = trainer_of(speechlm, tmp_path / "cut", validation=True, evaluations=2, **fields)
    cut.add_callback(_stopping_after(4))
    train(cut, resume=False)
    assert cut.state.global_step == 4
    again = trainer_of(speechlm, tmp_path / "cut", validation=True, evaluations=2, **fields)
    train(again, resume=True)
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=0, atol=0, msg=name)


def _stopping_after(step):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == step

    return Stop()


def test_what_was_trained_is_saved_and_read_again(speechlm, tmp_path):
    """The tokenizer's padding is CTC's blank, which must not become the model's padding."""
    trainer = trainer_of(speechlm, tmp_path, layers=0)
    train(trainer, resume=False)
    assert trainer.model.config.pad_token_id == 1
    trainer.model.save_pretrained(tmp_path / "tuned")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").eval()
    units = AutoProcessor.from_pretrained(speechlm)(text=["heat on", "off"])
    torch.testing.assert_close(again(**units).logits, trainer.model.eval()(**units).logits, rtol=0, atol=0)
    assert not again.speechlm.encoder.layers[0].attention.q_proj.weight.requires_grad


def test_the_loss_falls(speechlm, tmp_path):
    fields = {"max_steps": 40, "learning_rate": 3e-3, "warmup_steps": 4, "hold_steps": 20, "head_only_steps": 0}
    trainer = trainer_of(speechlm, tmp_path, modalities=("text",), **fields)
    train(trainer, resume=False)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


# --- the weights that are kept ---


@pytest.mark.parametrize(
    ("followed", "asked", "expected"),
    [
        (["text", "speech"], "eval_{modality}_f1", "eval_speech_f1"),
        (["text"], "eval_{modality}_f1", "eval_text_f1"),
        (["text", "speech"], "text_loss", "eval_text_loss"),
    ],
)
def test_the_best_weights_are_those_by_speech_where_it_is_followed(followed, asked, expected, tmp_path):
    given = update(training_arguments={"metric_for_best_model": asked})
    found = slu_training_arguments(given, RunArguments(output_dir=tmp_path), followed)
    assert found.metric_for_best_model == expected
    assert given.training_arguments == {"metric_for_best_model": asked}


@pytest.mark.parametrize(
    ("followed", "there"), [(["text"], "text"), ([], "nothing")], ids=["text alone", "no validation"]
)
def test_a_metric_that_no_validation_measures_is_refused_before_training(followed, there, tmp_path):
    given = update(training_arguments={"metric_for_best_model": "eval_speech_f1"})
    with pytest.raises(ValueError, match=rf"is 'eval_speech_f1', and validation is of {there}; ask for 'eval_\{{mod"):
        slu_training_arguments(given, RunArguments(output_dir=tmp_path), followed)
