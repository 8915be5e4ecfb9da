"""The shipped models: standard checkpoint folders of the promised sizes that still do what their cards say."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForPreTraining,
    AutoProcessor,
    AutoTokenizer,
)

from speechzoo.data.command_grammar import commands_seen
from speechzoo.data.synthetic_corpus import RECIPES
from speechzoo.data.text_task_dataset import PromptEncoder
from speechzoo.data.text_tasks import COPY, INTENT, vocabulary
from speechzoo.evaluation.in_context_evaluation import in_context_tests, measure_in_context_learning
from speechzoo.evaluation.report import read_report
from speechzoo.evaluation.tiny_zoo_evaluation import (
    complete,
    measure_language_model,
    measure_speech_encoder,
    measure_tasks,
)
from speechzoo.hub_cards.model_card import render_model_card
from speechzoo.hub_cards.saved_model import read_saved_model
from speechzoo.hub_cards.tiny_zoo_card import render_tiny_zoo_card
from speechzoo.training.joint_pretraining import joint_config, start_from
from speechzoo.training.joint_pretraining_arguments import JointEncoderArguments

ROOT = Path(__file__).parents[1]
TINY_ZOO = ROOT / "examples" / "tiny_zoo"
ENCODER, LANGUAGE_MODEL = TINY_ZOO / "speech_encoder", TINY_ZOO / "language_model"
IN_CONTEXT = TINY_ZOO / "in_context_language_model"
FOLDERS = (ENCODER, LANGUAGE_MODEL, IN_CONTEXT)
UNITS, JOINT_START = TINY_ZOO / "speech_units", TINY_ZOO / "joint_speech_encoder"
MEGABYTE = 1_000_000
# What the language model must do at least: shares of exactly right answers, of 40 texts of a task.
AT_LEAST = {
    "copy random words": 0.75,
    "copy stories": 0.95,
    "copy trained phrasings": 0.95,
    "copy trained phrasings, spread out": 0.7,
    "intent of trained phrasings": 0.95,
    "intent of held-out phrasings": 0.5,
    "translate stories": 0.95,
    "answer trained questions": 0.95,
    "answer about stories": 0.7,
    "reply to stories": 0.9,
}
# And the one that learns in context: shares of right labels, of 60 episodes.
LABELED_AT_LEAST = {
    "2 classes, 3 shots of each: unseen phrasings": 0.9,
    "4 classes, 3 shots of each: unseen phrasings": 0.85,
    "4 classes, 3 shots of each: unseen intents": 0.65,
    "4 classes, 3 shots of each: unseen phrasings, new words as labels": 0.8,
    "4 classes, 3 shots of each: scenarios of new requests": 0.7,
    "3 classes, 3 shots of each: sentiments of new opinions": 0.45,
}


@pytest.fixture(scope="module")
def language_model():
    return AutoModelForCausalLM.from_pretrained(LANGUAGE_MODEL), AutoTokenizer.from_pretrained(LANGUAGE_MODEL)


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_checkpoints_are_small_enough_to_ship():
    sizes = [folder_size(folder) for folder in (*FOLDERS, UNITS, JOINT_START)]
    assert max(sizes) <= 8 * MEGABYTE and sum(sizes) <= 20 * MEGABYTE


@pytest.mark.parametrize("folder", [*FOLDERS, UNITS, JOINT_START], ids=lambda folder: folder.name)
def test_the_folders_name_no_machine(folder):
    for path in [*folder.glob("*.json"), *folder.glob("*.md")]:
        text = path.read_text()
        assert not re.search(r"(?<![\w.<])/(home|root|tmp|work|usr)/", text), path
        # The unit model names its encoder, by its place in this repository.
        assert {*re.findall(r'_name_or_path": "(.*?)"', text)} <= {"examples/tiny_zoo/speech_encoder"}, path


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_is_that_of_the_report(folder):
    report = read_report(folder / "training_report.json")
    assert (folder / "README.md").read_text() == render_tiny_zoo_card(folder)
    assert report.measurements and report.limits and report.command and report.environment


@pytest.mark.parametrize("folder", [UNITS, JOINT_START], ids=lambda folder: folder.name)
def test_the_card_is_that_of_the_run(folder):
    report = read_report(folder / "report.json")
    card = render_model_card(report, f"examples/tiny_zoo/{folder.name}", read_saved_model(folder))
    assert (folder / "README.md").read_text() == card


def test_joint_encoders_start_from_the_shipped_one():
    for name in ("speechlm_tiny_zoo", "speechlm_units_tiny_zoo", "speechut_tiny_zoo"):
        asked = yaml.safe_load((ROOT / "examples" / "configs" / f"{name}.yaml").read_text())["joint_encoder"]
        assert ROOT / asked["start"] == JOINT_START
        config = joint_config(JointEncoderArguments(**asked))
        assert start_from(AutoModelForPreTraining.from_config(config), str(JOINT_START))


@pytest.mark.parametrize(
    ("auto_class", "folder"),
    [(AutoModelForCTC, ENCODER), (AutoModelForCausalLM, LANGUAGE_MODEL), (AutoModelForCausalLM, IN_CONTEXT)],
    ids=["ctc", "lm", "in-context lm"],
)
def test_loading_finds_every_tensor_and_computes_in_float32(auto_class, folder):
    model, loading = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert AutoModel.from_pretrained(folder).config.model_type == model.config.model_type


def test_the_encoder_transcribes_voices_it_never_heard(tmp_path):
    model, processor = AutoModelForCTC.from_pretrained(ENCODER), AutoProcessor.from_pretrained(ENCODER)
    recipe = replace(RECIPES["commands-test"], name="fresh", count=60, seed=77)
    measurement = measure_speech_encoder(model, processor, recipe, tmp_path)
    reported = read_report(ENCODER / "training_report.json").measurements
    expected = next(item.value for item in reported if item.name == "commands-test")
    assert measurement.items == 60 and measurement.value < max(2 * expected, expected + 0.08)


def test_words_but_those_with_an_apostrophe_are_whole_pieces_and_nothing_is_unknown(language_model):
    _, tokenizer = language_model
    pieces = {word: len(tokenizer.encode(word, add_special_tokens=False)) for word in vocabulary()}
    assert {word for word, count in pieces.items() if count > 1} == {word for word in pieces if "'" in word}
    text = "turn on the zxyqv, naïve 東京"
    tokens = tokenizer.encode(text)
    assert tokens[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_special_tokens_are_set_everywhere(language_model):
    model, tokenizer = language_model
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = {getattr(part, name) for part in (model.config, model.generation_config, tokenizer)}
        assert len(ids) == 1 and None not in ids
    signs = ["<audio>", "<asr>", "<int>", "<mt>", "<ans>", "<dlg>", "<con>", "<ctx>"]
    assert tokenizer.convert_tokens_to_ids(signs) == list(range(4, 12))
    for sign in signs:
        assert tokenizer.encode(f"turn on {sign} turn on") == tokenizer.encode(f"turn on{sign}turn on")


@pytest.mark.slow
def test_the_language_model_does_its_tasks(language_model):
    results = {item.name: item.value for item in measure_language_model(*language_model, count=40)}
    assert {name: results[name] for name, least in AT_LEAST.items() if results[name] < least} == {}


def test_the_report_measures_the_same_tasks():
    reported = {item.name: item.value for item in read_report(LANGUAGE_MODEL / "training_report.json").measurements}
    assert {name: reported[name] for name, least in AT_LEAST.items() if reported[name] < least} == {}


@pytest.mark.slow
def test_one_language_model_learns_from_examples_and_copies_and_names_intents():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(IN_CONTEXT), AutoTokenizer.from_pretrained(IN_CONTEXT)
    tests = {name: test for name, test in in_context_tests().items() if name in LABELED_AT_LEAST}
    results = {item.name: item.value for item in measure_in_context_learning(model, tokenizer, 60, tests)}
    assert {name: results[name] for name, least in LABELED_AT_LEAST.items() if results[name] < least} == {}
    tasks = measure_tasks(model, tokenizer, 40, ("copy", "intent"), (False,))
    assert {item.name: item.value for item in tasks if item.value < 0.85} == {}


def test_long_prompts_do_not_disturb_the_language_model(language_model):
    """As many places before the task's sign as speech takes; the copies of a few commands repeat or lose a word."""
    model, tokenizer = language_model
    encoder, filler = PromptEncoder(tokenizer), tokenizer.convert_tokens_to_ids("<audio>")
    asked = commands_seen()[::6]

    def answers(sign):
        prompts = []
        for bos, *source, task in (encoder.prompt(command.text, sign) for command in asked):
            spread = [*[filler] * 4, *(token for word in source for token in (*[word] * 3, *[filler] * 4))]
            prompts.append([bos, *spread, task])
        return complete(model, tokenizer, prompts)

    named = [answer == str(command.intent) for answer, command in zip(answers(INTENT), asked, strict=True)]
    copied = [answer == command.text for answer, command in zip(answers(COPY), asked, strict=True)]
    assert sum(named) >= 0.95 * len(asked) and sum(copied) >= 0.75 * len(asked)


def test_the_report_says_what_the_training_used():
    settings = json.loads((ENCODER / "training_report.json").read_text())["settings"]
    config = json.loads((ENCODER / "config.json").read_text())
    assert settings["hidden_size"] == config["hidden_size"]
    assert settings["position_type"] == config["position_embeddings_type"]
