"""Model cards: what huggingface_hub reads back, and what a person reads."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
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
from speechzoo.hub_cards.card_seal import without_seal
from speechzoo.hub_cards.model_card import (
    card_data,
    known_license,
    render_model_card,
    without_folders,
    without_folders_of_the_run,
    write_model_card,
)
from speechzoo.hub_cards.saved_model import SavedModel, read_saved_model

ROOT = Path(__file__).parents[2]
ADAPTER = SavedModel("AutoModelForMultimodalLM")


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a saved adapter, of which a card needs no more than its configuration's names."""
    names = {"model_type": "speech_text_adapter", "architectures": ["SpeechTextAdapterForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(names))
    return tmp_path


def test_front_matter_reads_back_as_it_was_measured(report: Report, folder: Path):
    write_report(folder / "report.json", report)
    path = write_model_card(folder, "someone/an-adapter")
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
    run = {"seeds": {"training": 3}, "command": "accelerate launch examples/train_adapter.py --seed 3"}
    assert data.eval_results[2].metric_args == {"items": 400, "chance": 0.032, "majority": 0.0625, **run}
    assert metadata_load(path)["model-index"][0]["name"] == "an-adapter"
    assert "&id" not in path.read_text(), "the Hub's reader knows no anchors of YAML"


def test_a_seal_tells_whether_a_card_is_as_it_was_rendered(report: Report):
    card = render_model_card(report, "a/b", ADAPTER)
    plain = without_seal(card)
    assert plain is not None and len(card.splitlines()) == len(plain.splitlines()) + 1
    assert ModelCard(card).text == ModelCard(plain).text, "the seal is no part of what people read"
    for edited in (plain, card + "\n", card.replace("apache-2.0", "mit"), card.replace("0.125", "0.025"), "# Mine\n"):
        assert edited != card and without_seal(edited) is None


REPORTS = sorted([*(ROOT / "results").glob("*.json"), *(ROOT / "benchmarks" / "results").glob("*.json")])


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_what_the_project_measured_survives_the_metadata(path: Path):
    """Every number, interval, chance, seed and command of every report that lies here."""
    content = json.loads(path.read_text())
    names = {field.name for field in fields(Report)}
    (_, report) = content.pop("schema_version"), {name: value for name, value in content.items() if name in names}
    report["measurements"] = [Measurement(**row) for row in report.get("measurements", [])]
    report["corpora"] = [Corpus(**row) for row in report.get("corpora", [])]
    kept = Report(**{**report, "backbones": [], "license": "apache-2.0"})
    data = ModelCard(f"---\n{card_data(kept, 'a/b').to_yaml()}\n---\n").data
    read = [(one.metric_name, one.metric_type, one.metric_value, one.dataset_split) for one in data.eval_results or []]
    measured = [(one.name, one.metric, one.value, one.split or None) for one in kept.measurements]
    assert sorted(read, key=repr) == sorted(measured, key=repr)
    for name in ("chance", "majority", "topline"):
        given = [one.metric_args[name] for one in data.eval_results or [] if name in one.metric_args]
        assert sorted(given) == sorted(v for one in kept.measurements if (v := getattr(one, name)) is not None)
    bounds = [one.metric_args["interval_95"] for one in data.eval_results or [] if "interval_95" in one.metric_args]
    assert sorted(bounds) == sorted([one.low, one.high] for one in kept.measurements if one.low is not None)
    for one in data.eval_results or []:
        assert one.metric_args["command"] == kept.command and one.metric_args.get("seeds", {}) == kept.seeds


def test_a_person_finds_every_fact(report: Report):
    card = render_model_card(report, "someone/an-adapter", ADAPTER)
    for fact in (
        *("# An adapter: tiny", "It transcribes spoken commands.", "1,250,000 of 125,000,000 parameters (1.00 %)"),
        *("**0.125** | 0.100 to 0.150", "0.013", "0.062", "![", "(learning_curve.png)", "- English only."),
        *("| turn it on | turn it \\| on now |", "| synthetic | training | 3,000 | 1.50 | 20 | apache-2.0 |"),
        "| speech encoder | [org/encoder](https://huggingface.co/org/encoder) | `0123abc` | mit | no, frozen |",
        "| language model | tiny_zoo/language_model | \u2013 | not stated | yes |",
        *("accelerate launch examples/train_adapter.py --seed 3\n", "AMD EPYC, 2 cores, AVX512-bf16", "torch 2.13.0"),
        "AVX512-bf16 (Linux x86_64, 2 torch threads)",
        *("1 min 11 s in all (evaluation 10 s, training 1 min 1 s)", "training 3", "2026-01-02T03:04:05Z"),
    ):
        assert fact in card, fact
    assert "\n\n\n" not in card and "{{" not in card


def test_one_is_singular(report: Report):
    assert report.environment
    one = replace(report, environment=replace(report.environment, torch_threads=1))
    assert "(Linux x86_64, 1 torch thread)" in render_model_card(one, "a/b", ADAPTER)


def test_tables_are_whole(report: Report):
    tables = re.findall(r"(?:^\|.*\n)+", render_model_card(report, "a/b", ADAPTER), flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_the_same_report_gives_the_same_card(report: Report):
    assert render_model_card(report, "a/b", ADAPTER) == render_model_card(report, "a/b", ADAPTER)


def test_a_bare_report_gives_a_card_that_owns_up(folder: Path):
    path = write_model_card(folder, "a/b", Report("Bare", "speech_text_adapter", "python train.py"))
    card = ModelCard.load(path)
    assert card.data.eval_results is None and card.data.model_name is None
    assert "measured nothing" in card.text and "stated no limits" in card.text and "names no corpus" in card.text


@pytest.mark.parametrize("self_contained", [True, False])
@pytest.mark.parametrize("system", ["speech_text_adapter", "seal_projector"])
def test_a_backbone_that_was_tuned_is_nowhere_called_frozen(report: Report, system, self_contained):
    tuned = [replace(backbone, frozen=False) for backbone in report.backbones]
    of_system = replace(report, system=system, backbones=tuned, self_contained=self_contained)
    card = render_model_card(of_system, "a/b", ADAPTER)
    where = "The backbones are in this repository too." if self_contained else "is loaded from where the configuration"
    assert where in card and "stay frozen unless the table of backbones says otherwise" in card
    assert not [name for name in ("frozen backbones", "frozen language model", "no, frozen") if name in card]


@pytest.mark.parametrize("name", ["tiny_zoo", "tiny_mixture"])
def test_what_a_configuration_says_of_its_model_holds_with_lora(name):
    """Flags may tune what it leaves frozen."""
    settings = yaml.safe_load((ROOT / "examples" / "configs" / f"{name}.yaml").read_text())
    assert "frozen" not in settings["output"]["card_description"]


def test_text_that_yaml_would_misread_survives(report: Report):
    tricky = replace(report.measurements[0], name="yes: no # {x}", split="1.0")
    data = ModelCard(render_model_card(replace(report, measurements=[tricky]), "a/b", ADAPTER)).data
    assert (data.eval_results[0].metric_name, data.eval_results[0].dataset_split) == ("yes: no # {x}", "1.0")


def test_signs_in_what_was_said_are_shown(report: Report):
    said = replace(report, examples=[Example("<T_EN> a*b*", "c\\|`d` <unk>", "asr")])
    assert r"| asr | \<T_EN> a\*b\* | c\\\|\`d\` \<unk> |" in render_model_card(said, "a/b", ADAPTER)


def test_a_pipeline_is_told_which_of_several_tasks(report: Report):
    several = replace(report, prompts={"asr": "write {audio}", "intent": "what {audio}"})
    piped = replace(ADAPTER, carries_code=True, pipelines=["speech-understanding"])
    assert '("recording.wav", task="asr"))' in render_model_card(several, "a/b", piped)
    both = replace(piped, tasks=["intent", "order"])
    assert '("recording.wav", task="intent"))' in render_model_card(several, "a/b", both)
    assert '("recording.wav"))' in render_model_card(several, "a/b", replace(piped, tasks=["intent"]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("train.py --data /home/me/clips/a.csv --out=~/b/c d/e ../f", "train.py --data a.csv --out=c d/e ../f"),
        ("slue:/data/slue@train, slurp", "slue:slue@train, slurp"),
        ("train.py --data https://example.org/a/b", "train.py --data https://example.org/a/b"),
    ],
)
def test_folders_are_kept_to_oneself_and_addresses_are_not(given, told):
    assert without_folders(given) == told


def test_pictures_and_licenses_of_known_corpora_are_shown(report: Report):
    corpora = [Corpus("slurp@train, slue_voxceleb:/data@train", "training", 3), Corpus("mine", "final test", 2)]
    card = render_model_card(replace(report, corpora=corpora, plots={"layers.png": "By layer"}), "a/b", ADAPTER)
    assert "![By layer](layers.png)" in card and "(learning_curve.png)" in card
    assert (
        "| 3 | \u2013 | \u2013 | CC BY-NC 4.0, CC BY 4.0 |" in card and "| 2 | \u2013 | \u2013 | not stated |" in card
    )
    assert known_license("synthetic:stories-test").startswith("Apache-2.0") and known_license("elsewhere") == ""


def test_no_folder_of_the_machine_is_told(report: Report):
    corpora = [Corpus("/home/me/recordings@train, slurp:~/corpora/slurp@train, org/set, output/x", "training", 3)]
    tested = replace(report.measurements[0], dataset="slurp:/home/me/slurp@test")
    card = render_model_card(replace(report, corpora=corpora, measurements=[tested]), "a/b", ADAPTER)
    assert "| recordings@train, slurp:slurp@train, org/set, output/x | training | 3 |" in card
    assert ModelCard(card).data.eval_results[0].dataset_name == "slurp:slurp@test" and "/me/" not in card


def test_no_folder_is_told_of_a_run_at_any_depth(report: Report):
    settings = {"speech_data": ["/home/me/slue@train"], "layer": 2, "test_data": {"a/b": "slurp:~/c/slurp@test"}}
    local = Backbone("speech units", "/home/me/units", on_hub=False)
    told = without_folders_of_the_run(replace(report, settings=settings, backbones=[*report.backbones, local]))
    assert told.settings == {"speech_data": ["slue@train"], "layer": 2, "test_data": {"a/b": "slurp:slurp@test"}}
    assert [one.id for one in told.backbones] == ["org/encoder", "tiny_zoo/language_model", "units"]


def test_items_are_clips_where_there_is_speech(report: Report):
    texts = [Corpus("generated text", "training", clips=3000)]
    assert "400 clips of 12 speakers" in render_model_card(report, "a/b", ADAPTER)
    assert "400 items of 12 speakers" in render_model_card(replace(report, corpora=texts), "a/b", ADAPTER)


def test_a_folder_without_a_model_gets_no_card(report: Report, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config\.json; save the model first"):
        write_model_card(tmp_path, "a/b", report)
    assert not (tmp_path / "README.md").exists()


def test_a_class_that_no_auto_class_gives_is_named(report: Report, folder: Path):
    (folder / "config.json").write_text(json.dumps({"model_type": "sutlm", "architectures": ["SUTLMForNothing"]}))
    with pytest.raises(ValueError, match=r"SUTLMForNothing, which no Auto class gives"):
        write_model_card(folder, "a/b", report)


def test_what_a_configuration_asks_for_is_needed(folder: Path):
    (folder / "modeling_x.py").write_text("import torch\n\n\ndef tune():\n    import peft\n")
    values = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoConfig": "x.X"}}
    for lora, needed, optional in ((None, ["torch"], ["peft"]), (["q_proj"], ["peft", "torch"], [])):
        (folder / "config.json").write_text(json.dumps({**values, "lora_modules": lora}))
        saved = read_saved_model(folder)
        assert (saved.requirements, saved.optional) == (needed, optional)


def test_a_license_that_the_hub_does_not_know_is_refused(report: Report):
    with pytest.raises(ValueError, match=r"'Apache 2' is no license the Hub knows"):
        render_model_card(replace(report, license="Apache 2"), "a/b", ADAPTER)
