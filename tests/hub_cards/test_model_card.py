"""Model cards: what huggingface_hub reads back, and what a person reads."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load

from speechzoo.evaluation.report import (
    Backbone,
    Corpus,
    Environment,
    Example,
    Measurement,
    Parameters,
    Report,
    write_report,
)
from speechzoo.hub_cards.model_card import render_model_card, write_model_card


@pytest.fixture
def report() -> Report:
    packages = {"torch": "2.13.0", "transformers": "5.23.0"}
    return Report(
        title="An adapter: tiny",
        description="It transcribes spoken commands.",
        system="speech_text_adapter",
        command="accelerate launch examples/train_adapter.py --seed 3",
        seeds={"training": 3},
        date="2026-01-02T03:04:05Z",
        environment=Environment("3.11.7", "Linux x86_64", "AMD EPYC", 2, True, 2, packages=packages),
        measurements=[
            Measurement(
                "commands", "wer", 0.125, 0.1, 0.15, 400, 12, "final test", dataset="synthetic", topline=0.0125
            ),
            Measurement("unseen phrases", "wer", 0.25, 0.2, 0.3, 100, 12, "final test", dataset="synthetic"),
            Measurement("intents", "accuracy", 0.9375, items=400, dataset="synthetic", chance=0.032, majority=0.0625),
        ],
        examples=[Example("turn it on", "turn it | on\nnow")],
        wall_seconds={"training": 61.2, "evaluation": 10.0},
        parameters=Parameters(1_250_000, 125_000_000),
        limits=["Synthetic voices only.", "English only."],
        corpora=[Corpus("synthetic", "training", clips=3000, hours=1.5, speakers=20, license="apache-2.0")],
        backbones=[
            Backbone("speech encoder", "org/encoder", "0123abc", "mit"),
            Backbone("language model", "tiny_zoo/language_model", on_hub=False, frozen=False),
        ],
        paper="2310.00230",
        language=["en"],
        tags=["tiny"],
        learning_curve="learning_curve.png",
    )


def test_front_matter_reads_back_as_it_was_measured(report: Report, tmp_path: Path):
    write_report(tmp_path / "report.json", report)
    path = write_model_card(tmp_path, "someone/an-adapter")
    data = ModelCard.load(path).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "any-to-any")
    assert data.base_model == ["org/encoder"], "a folder is not a model of the Hub"
    assert data.tags == ["speechzoo", "speech_text_adapter", "arxiv:2310.00230", "tiny"]
    assert (data.language, data.metrics, data.model_name) == (["en"], ["accuracy", "wer"], "an-adapter")
    read = [(r.metric_type, r.metric_name, r.metric_value, r.task_type, r.dataset_name) for r in data.eval_results]
    assert read == [
        ("wer", "commands", 0.125, "automatic-speech-recognition", "synthetic"),
        ("wer", "unseen phrases", 0.25, "automatic-speech-recognition", "synthetic"),
        ("accuracy", "intents", 0.9375, "audio-classification", "synthetic"),
    ]
    assert data.eval_results[0].metric_args["interval_95"] == [0.1, 0.15]
    assert data.eval_results[2].metric_args == {"items": 400, "chance": 0.032, "majority": 0.0625}
    assert metadata_load(path)["model-index"][0]["name"] == "an-adapter"


def test_a_person_finds_every_fact(report: Report):
    card = render_model_card(report, "someone/an-adapter")
    for fact in (
        *("# An adapter: tiny", "It transcribes spoken commands.", "1,250,000 of 125,000,000 parameters (1.00 %)"),
        *("**0.125** | 0.100 to 0.150", "0.013", "0.062", "![", "(learning_curve.png)", "- English only."),
        *("| turn it on | turn it \\| on now |", "| synthetic | training | 3,000 | 1.50 | 20 | apache-2.0 |"),
        "| speech encoder | [org/encoder](https://huggingface.co/org/encoder) | `0123abc` | mit | no, frozen |",
        "| language model | tiny_zoo/language_model | \u2013 | not stated | yes |",
        *("accelerate launch examples/train_adapter.py --seed 3\n", "AMD EPYC, 2 cores, AVX512-bf16", "torch 2.13.0"),
        *("1 min 11 s in all (evaluation 10 s, training 1 min 1 s)", "training 3", "2026-01-02T03:04:05Z"),
    ):
        assert fact in card, fact
    assert "\n\n\n" not in card and "{{" not in card


def test_tables_are_whole(report: Report):
    tables = re.findall(r"(?:^\|.*\n)+", render_model_card(report, "a/b"), flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_snippet_is_python_and_names_the_model(report: Report):
    code = re.search(r"```python\n(.*?)```", render_model_card(report, "someone/an-adapter"), re.DOTALL)[1]
    tree = ast.parse(code)
    imported = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [name.name for node in imported for name in node.names] == [
        *("speechzoo", "AutoModelForMultimodalLM", "AutoProcessor")
    ]
    import transformers

    assert all(getattr(transformers, name.name) for name in imported[1].names)
    assert code.count('from_pretrained("someone/an-adapter")') == 2


def test_the_same_report_gives_the_same_card(report: Report):
    assert render_model_card(report, "a/b") == render_model_card(report, "a/b")


def test_a_bare_report_gives_a_card_that_owns_up(tmp_path: Path):
    path = write_model_card(tmp_path, "a/b", Report("Bare", "speech_text_adapter", "python train.py"))
    card = ModelCard.load(path)
    assert card.data.eval_results is None and card.data.model_name is None
    assert "measured nothing" in card.text and "stated no limits" in card.text and "names no corpus" in card.text


def test_text_that_yaml_would_misread_survives(report: Report):
    tricky = replace(report.measurements[0], name="yes: no # {x}", split="1.0")
    data = ModelCard(render_model_card(replace(report, measurements=[tricky]), "a/b")).data
    assert (data.eval_results[0].metric_name, data.eval_results[0].dataset_split) == ("yes: no # {x}", "1.0")
