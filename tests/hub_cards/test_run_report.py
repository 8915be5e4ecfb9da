"""How runs end: what lies beside a model, and what beside a test of one."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load

from speechzoo.evaluation import adapter_report
from speechzoo.evaluation.adapter_report import describe_backbone
from speechzoo.evaluation.report import Corpus, HistoryPoint, Measurement, Report, read_report
from speechzoo.hub_cards.run_report import finish_run, write_results
from speechzoo.training.adapter_arguments import RunArguments

SUTLM = {"model_type": "sutlm", "architectures": ["SUTLMForCausalLM"]}


@pytest.fixture
def report() -> Report:
    return Report(
        title="A run",
        system="sutlm",
        command="python train.py",
        seeds={"training": 1},
        measurements=[Measurement("stories: u2t", "retrieval_accuracy", 0.75, 0.5, 0.9, items=4, chance=0.5)],
        history=[HistoryPoint(1, loss=2.0), HistoryPoint(2, loss=1.0)],
        corpora=[Corpus("synthetic:stories-train", "training", 4, 0.1)],
        learning_curve="learning_curve.png",
    )


def test_a_saved_model_gets_a_card_with_the_numbers_of_the_report(report: Report, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(SUTLM))
    told = {"card_license": "cc-by-4.0", "card_language": ["de"]}
    finish_run(report, RunArguments(output_dir=tmp_path, results_file=tmp_path / "copy.json", **told))
    assert read_report(tmp_path / "copy.json") == read_report(tmp_path / "report.json")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["de"])
    [row] = card.data.eval_results
    assert (row.metric_value, row.metric_args["chance"], row.metric_args["seeds"]) == (0.75, 0.5, {"training": 1})
    assert f'from_pretrained("{tmp_path}")' in card.text and "(learning_curve.png)" in card.text
    assert metadata_load(tmp_path / "README.md")["model-index"][0]["name"] == tmp_path.name
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"card_license": "Apache 2"}, "'Apache 2' is no license the Hub knows"),
        ({"card_language": ["en", "German"]}, "'German' is no code of a language"),
    ],
)
def test_what_no_card_may_have_is_refused_before_the_run(told, match):
    with pytest.raises(ValueError, match=match):
        RunArguments(**told)
    RunArguments(card_license="llama3.2", card_language=["zh-Hant"])


def test_a_run_that_saves_no_model_gets_none(report: Report, tmp_path: Path):
    write_results(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "learning_curve.png"}


def test_a_missed_bar_ends_the_run_after_its_card(report: Report, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(SUTLM))
    with pytest.raises(SystemExit, match=r"stories: u2t: retrieval_accuracy 0\.750 misses the bar of 0\.8"):
        finish_run(report, RunArguments(output_dir=tmp_path, check={"stories: u2t": 0.8}))
    assert (tmp_path / "README.md").is_file()


def test_a_folder_is_described_by_its_name_and_its_card(tmp_path: Path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    part = describe_backbone("speech encoder", str(tmp_path), "0123", frozen=False)
    assert (part.id, part.revision, part.license, part.on_hub) == (tmp_path.name, "0123", "mit", False)


def test_a_model_of_the_hub_is_described_by_its_commit_and_its_card(monkeypatch, tmp_path: Path):
    """As the cache has it; out of reach of the Hub, the license is left open."""
    snapshot = tmp_path / "snapshots" / "89ab"
    snapshot.mkdir(parents=True)
    monkeypatch.setattr(adapter_report, "try_to_load_from_cache", lambda *_, **__: str(snapshot / "config.json"))
    part = describe_backbone("speech encoder", "org/encoder")
    assert (part.id, part.revision, part.license, part.on_hub) == ("org/encoder", "89ab", "", True)
    (snapshot / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    monkeypatch.setattr(adapter_report, "hf_hub_download", lambda *_, **__: str(snapshot / "README.md"))
    assert describe_backbone("speech encoder", "org/encoder").license == "cc-by-4.0"
