"""What is published of a model, from memory and from a folder, and what is refused before anything is sent."""

import json
import shutil
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exported_cases import CHECKPOINTS
from huggingface_hub import HfApi, ModelCard
from loopback_hub import TOKEN
from safetensors.torch import load
from sutlm_cases import joint_model, joint_processor
from transformers import AutoProcessor
from typer.testing import CliRunner

from speechzoo import SpeechTextAdapterForConditionalGeneration, SUTLMForCausalLM, TextToUnitModel
from speechzoo.commands import application
from speechzoo.evaluation.report import Backbone, Corpus, Measurement, Report, read_report, write_report
from speechzoo.hub_cards import hub_upload, publishing
from speechzoo.hub_cards.code_closure import CodeExportError
from speechzoo.hub_cards.hub_upload import PublishingError
from speechzoo.hub_cards.publishing import publish, publish_folder
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_arguments import RunArguments

REPORT = Report("Tones", "speech_text_adapter", "train_adapter.py", measurements=[Measurement("tones", "wer", 0.25)])
ADAPTER = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}


@pytest.fixture(autouse=True)
def unverified(monkeypatch):
    """That exported code does the same elsewhere is seen in its own tests; here it is only asked for."""
    asked = []
    monkeypatch.setattr(publishing, "verify_code", asked.append)
    return asked


@pytest.fixture
def trained(backbones, tmp_path):
    """A folder as a training script leaves it, with what should not go."""
    folder = tmp_path / "trained"
    CHECKPOINTS["adapter"](backbones, folder)
    write_report(folder / "report.json", REPORT)
    (folder / "README.md").write_text("# of the run\n")
    (folder / "learning_curve.png").write_bytes(b"\x89PNG")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "notes.txt").write_text("private")
    (folder / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    shutil.copyfile(folder / "model.safetensors", folder / "checkpoints" / "checkpoint-2" / "model.safetensors")
    return folder


@pytest.fixture
def small(tmp_path):
    """Of a model that names no other."""
    folder = tmp_path / "small"
    CHECKPOINTS["text_to_unit"](None, folder)
    return folder


def changing(hub):
    return [line for line in hub.requests if not line.startswith(("GET", "HEAD"))]


# ---- what goes -----------------------------------------------------------------------------------------------------


def test_a_folder_is_one_commit_of_what_others_need(hub, trained, unverified, tmp_path):
    publication = publish_folder(trained, "org/tones", tag="v1")
    repository, files = hub.repository("org/tones"), hub.files("org/tones")
    assert [commit.title for commit in repository.commits.values()] == [
        "initial commit",
        "Publish the model with its processor, code, card and report",
    ]
    assert repository.private and publication.private and repository.references["v1"] == repository.at("main").id
    assert publication.commit_url.endswith(repository.at("main").id) and len(unverified) == 1
    others = {name for name in files if not name.endswith(".py")} - {".gitattributes"}
    assert others >= ADAPTER | {"report.json", "README.md", "learning_curve.png"}
    assert not others & {"training_args.bin", "notes.txt"} and not any("/" in name for name in files)
    assert {"modeling_speech_text_adapter.py", "processing_speech_text_adapter.py"} <= files.keys()
    assert publication.sizes == {name: len(data) for name, data in files.items() if name != ".gitattributes"}
    assert not [name for name, data in files.items() if str(tmp_path).encode() in data], "a path of this machine"


def test_neither_report_nor_card_tells_folders_of_this_machine(hub, small):
    report = Report(
        "Said in units",
        "text_to_unit",
        "train_text_to_unit.py --data /home/me/slue --layer 2",
        measurements=[Measurement("units", "accuracy", 0.5, dataset="slue_voxceleb:/home/me/slue")],
        corpora=[Corpus("slue_voxceleb:/home/me/slue@train", "training", 3)],
        settings={"data": "/home/me/slue", "layer": 2},
    )
    write_report(small / "report.json", report)
    publish_folder(small, "org/t2u")
    files = hub.files("org/t2u")
    assert not [name for name, data in files.items() if b"/home/me" in data]
    told, card = json.loads(files["report.json"]), ModelCard(files["README.md"].decode())
    assert told["command"] == "train_text_to_unit.py --data slue --layer 2" and told["settings"]["layer"] == 2
    assert card.data.eval_results[0].metric_args["command"] == told["command"]
    assert read_report(small / "report.json").command == report.command


def test_backbones_of_this_disk_go_along_and_report_and_card_say_so(hub, backbones, trained):
    publish_folder(trained, "org/tones")
    files = hub.files("org/tones")
    assert json.loads(files["config.json"])["text_model_id"] is None
    whole = SpeechTextAdapterForConditionalGeneration.from_pretrained(trained).state_dict()
    saved = load(files["model.safetensors"])
    assert {name.split(".")[1] for name in saved} == {"adapter", "audio_tower", "language_model"}
    assert all(torch.equal(whole[name], tensor) for name, tensor in saved.items())
    assert json.loads(files["report.json"])["self_contained"] is True
    assert not read_report(trained / "report.json").self_contained
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results[0].metric_value == 0.25
    assert "org/tones" in card.text and "trust_remote_code=True" in card.text and "of the run" not in card.text


def test_backbones_of_the_hub_stay_named_and_the_model_is_not_loaded(hub, trained, monkeypatch):
    for backbone in ("org/hubert", "org/llama"):
        HfApi().create_repo(backbone)
    rename_backbones(trained, "org/hubert", "org/llama")
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    publish_folder(trained, "org/tones")
    files = hub.files("org/tones")
    assert json.loads(files["config.json"])["text_model_id"] == "org/llama"
    assert files["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    assert json.loads(files["report.json"])["self_contained"] is False


def rename_backbones(folder: Path, audio: str, text: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"audio_model_id": audio, "text_model_id": text}
    config |= {"audio_model_revision": "1" * 40, "text_model_revision": "2" * 40}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_in_memory_goes_with_its_report(hub, tmp_path):
    processor = joint_processor()
    model = joint_model("llama", processor)
    (tmp_path / "plot.png").write_bytes(b"\x89PNG")
    publication = publish(
        model, processor, "org/joint", [tmp_path / "plot.png"], Report("J", "sutlm", "run"), private=False
    )
    assert publication.private is False and not hub.repository("org/joint").private
    assert {"plot.png", "report.json", "README.md", "modeling_sutlm.py"} <= hub.files("org/joint").keys()
    saved = load(hub.files("org/joint")["model.safetensors"])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.items())


def test_shards_replace_the_one_file_of_before_and_the_other_way_round(hub, small):
    publish_folder(small, "org/t2u")
    others = ["LICENSE", "model_of_before/model.safetensors", "models.safetensors"]
    for name in others:
        HfApi().upload_file(path_or_fileobj=b"by hand", path_in_repo=name, repo_id="org/t2u")
    model = TextToUnitModel.from_pretrained(small)
    shutil.rmtree(small)
    model.save_pretrained(small, max_shard_size="100KB")
    publish_folder(small, "org/t2u")
    weights = [name for name in hub.files("org/t2u") if "safetensors" in name and name not in others]
    assert "model.safetensors" not in weights and "model.safetensors.index.json" in weights and len(weights) > 3
    shutil.rmtree(small)
    CHECKPOINTS["text_to_unit"](None, small)
    publish_folder(small, "org/t2u")
    weights = [name for name in hub.files("org/t2u") if "safetensors" in name and name not in others]
    assert weights == ["model.safetensors"] and set(others) <= hub.files("org/t2u").keys()


def test_what_a_person_wrote_on_the_card_goes_only_when_told_to(hub, small):
    def published(*options: str):
        return CliRunner().invoke(application, ["publish", str(small), "org/t2u", "--no_verify", *options])

    write_report(small / "report.json", replace(REPORT, system="text_to_unit"))
    assert published().exit_code == published().exit_code == 0, "nobody touched the card"
    edit_card(hub)
    edited, before = hub.files("org/t2u"), changing(hub)
    told = published()
    assert told.exit_code == 2 and "card of 'org/t2u'; pass --edited_card keep, or replace" in told.output
    assert changing(hub) == before
    (small / "plot.png").write_bytes(b"\x89PNG")
    assert published("--edited_card", "keep").exit_code == 0
    assert hub.files("org/t2u")["README.md"] == edited["README.md"] and "plot.png" in hub.files("org/t2u")
    assert published("--edited_card", "replace").exit_code == 0
    assert "By hand." not in card_there(hub).text and card_there(hub).data.eval_results


def test_no_report_of_earlier_weights_stays(hub, small):
    write_report(small / "report.json", replace(REPORT, system="text_to_unit"))
    publish_folder(small, "org/t2u")
    (small / "report.json").unlink()
    (small / "README.md").write_text("# By hand\n")
    publish_folder(small, "org/t2u")
    assert hub.files("org/t2u")["README.md"] == b"# By hand\n" and "report.json" not in hub.files("org/t2u")


def test_a_card_without_a_run_has_the_command_that_published_it(hub, small):
    def command() -> str:
        return json.loads(hub.files("org/t2u")["report.json"])["command"]

    assert CliRunner().invoke(application, ["publish", str(small), "org/t2u", "--no_verify"]).exit_code == 0
    assert command() == "speechzoo publish small org/t2u" and f"\n{command()}\n" in card_there(hub).text
    publish_folder(small, "org/t2u", save_backbones=True)
    assert command() == "speechzoo publish small org/t2u --save_backbones"
    model = TextToUnitModel.from_pretrained(small)
    publish(model, None, "org/t2u")
    assert command() == 'publish(model, processor, "org/t2u")'
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.push_to_hub("org/t2u")
    assert command() == 'model.push_to_hub("org/t2u")'


# ---- what does not -------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_all_and_sends_nothing(hub, trained, unverified):
    command = ["publish", str(trained), "org/tones", "--dry_run", "--tag", "v1"]
    told = CliRunner().invoke(application, command)
    assert told.exit_code == 0, told.output
    assert not hub.requests and not unverified
    publication = publish_folder(trained, "org/tones")
    assert told.stdout.splitlines() == [*publication.listing.splitlines(), "nothing was sent"]
    assert publication.listing.splitlines()[1].endswith("  model.safetensors")


def test_code_that_does_not_work_elsewhere_is_not_sent(hub, small, monkeypatch):
    def refuse(folder):
        raise CodeExportError("it says something else there")

    monkeypatch.setattr(publishing, "verify_code", refuse)
    with pytest.raises(CodeExportError, match="it says something else there"):
        publish_folder(small, "org/t2u")
    assert not changing(hub)
    publish_folder(small, "org/t2u", verify=False)
    assert hub.files("org/t2u")


def test_a_failed_publication_leaves_nothing(hub, small):
    hub.fail("POST /api/models/org/t2u/commit/", "error", status=400, times=9)
    told = CliRunner().invoke(application, ["publish", str(small), "org/t2u", "--no_verify"])
    assert told.exit_code == 2 and "speechzoo publish: nothing was published to 'org/t2u'" in told.output
    assert not hub.repositories and "Traceback" not in told.output


@pytest.mark.parametrize(
    ("missing", "match"),
    [("config.json", "there is no config.json"), ("model.safetensors", "there is no model.safetensors")],
)
def test_a_folder_without_a_model_is_refused(small, missing, match):
    (small / missing).unlink()
    told = CliRunner().invoke(application, ["publish", str(small), "org/t2u"])
    assert told.exit_code == 2 and match in told.output


def test_a_backbone_that_is_gone_is_refused(trained):
    rename_backbones(trained, "/gone/hubert", "org/llama")
    with pytest.raises(FileNotFoundError, match="the backbone folder '/gone/hubert' is not here"):
        publish_folder(trained, "org/tones")


def test_folders_that_are_gone_are_refused_though_they_are_called_as_repositories_are(hub, trained, tmp_path):
    rename_backbones(trained, "output/hubert", "org/llama")
    told = CliRunner().invoke(application, ["publish", str(trained), "org/tones"])
    assert told.exit_code == 2
    assert "audio_model_id in config.json is 'output/hubert', which is neither a folder here nor" in told.output
    processor = joint_processor()
    processor.unit_model_id = "output/units"
    with pytest.raises(ValueError, match=r"unit_model_id in processor_config\.json is 'output/units', which"):
        processor.push_to_hub("org/joint")
    hub.fail("GET /api/models/output/units", "error", status=403, times=9)
    with pytest.raises(PublishingError, match="nothing was published to 'org/joint': 403 Forbidden"):
        processor.push_to_hub("org/joint")
    assert not changing(hub)
    joint_model("llama", processor).save_pretrained(tmp_path / "joint")
    processor.save_pretrained(tmp_path / "joint")
    assert publish_folder(tmp_path / "joint", "org/joint", dry_run=True).sizes, "without the Hub, nobody knows"


def test_names_that_are_none_are_refused(small):
    for name in ("t2u", "a/b/c"):
        with pytest.raises(ValueError, match="is no Hub id; write it as ORGANIZATION/NAME"):
            publish_folder(small, name)
    told = CliRunner().invoke(application, ["publish", str(small), "org/x", "--name", "unit_model_id"])
    assert told.exit_code == 2 and "write it as FIELD=ID" in told.output
    with pytest.raises(ValueError, match="there is no processor"):
        publish_folder(small, "org/t2u", names={"unit_model_id": "org/units"})


def test_a_processor_that_names_a_folder_is_refused_until_it_names_a_hub_id(hub, tmp_path):
    folder, units = tmp_path / "joint", tmp_path / "units"
    units.mkdir()
    processor = joint_processor()
    processor.unit_model_id = str(units)
    joint_model("llama", processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"unit_model_id .* is '.*units', a folder .* --name unit_model_id=ORGANIZ"):
        publish_folder(folder, "org/joint")
    with pytest.raises(ValueError, match="has no 'unit_model'; it has unit_model_id"):
        publish_folder(folder, "org/joint", names={"unit_model": "org/units"})
    assert not hub.requests
    HfApi().create_repo("org/units", private=True)
    publish_folder(folder, "org/joint", names={"unit_model_id": "org/units"})
    assert json.loads(hub.files("org/joint")["processor_config.json"])["unit_model_id"] == "org/units"


def test_a_picture_that_the_report_names_has_to_come_along(small):
    report = Report("Said in units", "text_to_unit", "train_text_to_unit.py", learning_curve="curve.png")
    write_report(small / "report.json", report)
    with pytest.raises(ValueError, match=r"names the picture 'curve\.png', which is not beside it"):
        publish_folder(small, "org/t2u", dry_run=True)
    (small / "curve.png").write_bytes(b"\x89PNG")
    assert "curve.png" in publish_folder(small, "org/t2u", dry_run=True).sizes


@pytest.mark.parametrize("reported", [True, False])
def test_a_card_calls_the_unit_model_as_the_published_processor_does(hub, tmp_path, reported):
    HfApi().create_repo("org/units")
    processor = joint_processor()
    joint_model("llama", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    if reported:
        units = Backbone("speech units", "units_of_the_run", "2" * 40, license="mit", on_hub=False)
        write_report(tmp_path / "report.json", Report("J", "sutlm", "run", backbones=[units]))
    names = {"unit_model_id": "org/units", "unit_model_revision": "1" * 40}
    publish_folder(tmp_path, "org/joint", names=names)
    files = hub.files("org/joint")
    card = ModelCard(files["README.md"].decode())
    license = "mit" if reported else "see its card"
    units = "[org/units](https://huggingface.co/org/units)"
    assert f"| speech units | {units} | `{'1' * 40}` | {license} | no, frozen |" in card.text
    assert card.data.base_model == ["org/units"] and "units_of_the_run" not in files["report.json"].decode()
    joint_model("llama", processor).push_to_hub("org/alone")
    assert "by the model that its processor names" in hub.files("org/alone")["README.md"].decode()


def test_a_name_goes_with_the_revision_that_is_there(hub, tmp_path):
    processor = joint_processor()
    processor.unit_model_id, processor.unit_model_revision = "me/units", "1" * 40
    for units in ("me/units", "org/units"):
        HfApi().create_repo(units)
    joint_model("llama", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'org/none', which is neither a folder here nor a model on the Hub"):
        publish_folder(tmp_path, "org/joint", names={"unit_model_id": "org/none"})
    newest = hub.repository("org/units").at("main").id
    for names, revision in (
        ({"unit_model_id": "me/units"}, "1" * 40),
        ({"unit_model_id": "org/units"}, newest),
        ({"unit_model_revision": "2" * 40, "unit_model_id": "org/units"}, "2" * 40),
    ):
        publish_folder(tmp_path, "org/joint", names=names)
        told = json.loads(hub.files("org/joint")["processor_config.json"])
        assert (told["unit_model_id"], told.get("unit_model_revision")) == (names["unit_model_id"], revision)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_publishes_what_it_wrote(hub, small, unverified, capsys):
    output = RunArguments(small, push_to_hub="org/t2u", private=False, verify=False)
    finish_run(Report("Said in units", "text_to_unit", "train_text_to_unit.py"), output)
    assert {"model.safetensors", "report.json", "README.md", "modeling_text_to_unit.py"} <= hub.files("org/t2u").keys()
    assert not hub.repository("org/t2u").private and not unverified
    assert f"published: {hub.url}/org/t2u/commit/" in capsys.readouterr().out
    hub.fail("POST /api/models/org/t2u/commit/", "error", status=403)
    report = Report("Said otherwise", "text_to_unit", "train_text_to_unit.py")
    with pytest.raises(SystemExit, match=rf"403 Forbidden.*\n.*publish it later: speechzoo publish {small} org/t2u"):
        finish_run(report, output)


# ---- push_to_hub ---------------------------------------------------------------------------------------------------


def test_push_to_hub_takes_code_along(hub, tmp_path):
    processor = joint_processor()
    model = joint_model("llama", processor)
    commit = model.push_to_hub("joint", tags=["mine"], commit_message="The model")
    files = hub.files("org/joint")
    assert commit.oid == hub.repository("org/joint").at("main").id and hub.repository("org/joint").private
    assert "modeling_sutlm.SUTLMForCausalLM" in json.loads(files["config.json"])["auto_map"].values()
    card = ModelCard(files["README.md"].decode())
    assert "mine" in card.data.tags and "sutlm" in card.data.tags and "org/joint" in card.text
    assert card.data.license == "unknown" and json.loads(files["report.json"])["system"] == "sutlm"
    processor.push_to_hub("org/joint")
    files = hub.files("org/joint")
    auto_map = json.loads(files["processor_config.json"])["auto_map"]
    assert auto_map == {"AutoProcessor": "processing_sutlm.SUTLMProcessor"} and "processing_sutlm.py" in files
    titles = [commit.title for commit in hub.repository("org/joint").commits.values()]
    assert titles == ["initial commit", "The model", "Upload processor"]
    here = tmp_path / "there"
    for name, data in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(data)
    assert type(AutoProcessor.from_pretrained(here)) is type(processor)
    loaded = SUTLMForCausalLM.from_pretrained(here).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


def test_saving_pushes_the_same(hub, backbones, tmp_path):
    model, processor = backbones.build("wav2vec2", "llama")
    model.save_pretrained(tmp_path / "tones", push_to_hub=True, commit_message="The model")
    processor.save_pretrained(tmp_path / "tones", push_to_hub=True, repo_id="org/tones")
    pushed = hub.repository("org/tones")
    titles = [commit.title for commit in pushed.commits.values()]
    assert pushed.private and titles == ["initial commit", "The model", "Upload processor"]
    assert {"modeling_speech_text_adapter.py", "README.md", "processor_config.json"} <= hub.files("org/tones").keys()
    assert not list((tmp_path / "tones").glob("*.py"))
    model.save_pretrained(tmp_path / "other", push_to_hub=True, is_main_process=False)
    assert ("model", "org/other") not in hub.repositories


def test_push_to_hub_keeps_a_card_and_does_as_it_is_told(hub, backbones):
    model, processor = backbones.build("wav2vec2", "llama")
    model.push_to_hub("org/tones", private=False, max_shard_size="20KB")
    assert not hub.repository("org/tones").private
    files = hub.files("org/tones")
    assert "model.safetensors" not in files and "model.safetensors.index.json" in files
    assert json.loads(files["config.json"])["audio_model_id"] is None, "its backbones are folders of this disk"
    card = ModelCard(files["README.md"].decode())
    card.text += "\nBy hand.\n"
    HfApi().upload_file(path_or_fileobj=str(card).encode(), path_in_repo="README.md", repo_id="org/tones")
    model.push_to_hub("org/tones", tags=["again"], revision="draft")
    kept = ModelCard(hub.files("org/tones", revision="draft")["README.md"].decode())
    assert "By hand." in kept.text and kept.data.tags == [*card.data.tags, "again"]
    assert "model.safetensors" in hub.files("org/tones", revision="draft")
    assert "model.safetensors" not in hub.files("org/tones")
    with pytest.raises(ValueError, match="'org/tones' is there and public"):
        processor.push_to_hub("org/tones", private=True)


def test_results_on_the_hub_are_those_of_its_weights(hub, small, caplog):
    write_report(small / "report.json", replace(REPORT, system="text_to_unit", license="mit", language=["en"]))
    publish_folder(small, "org/t2u")
    model = TextToUnitModel.from_pretrained(small)
    model.push_to_hub("org/t2u", tags=["mine"])
    data = card_there(hub).data
    assert "mine" in data.tags and data.eval_results[0].metric_value == 0.25, "the weights are the same"
    assert json.loads(hub.files("org/t2u")["report.json"])["measurements"]
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.push_to_hub("org/t2u")
    data = card_there(hub).data
    assert "mine" in data.tags and not data.eval_results and not caplog.messages
    assert (data.license, data.language) == ("mit", ["en"])
    assert "measurements" not in json.loads(hub.files("org/t2u")["report.json"])
    edit_card(hub)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.push_to_hub("org/t2u")
    assert "By hand." in card_there(hub).text and "'org/t2u' keeps its card" in caplog.text
    assert "report.json" not in hub.files("org/t2u")


def card_there(hub) -> ModelCard:
    return ModelCard(hub.files("org/t2u")["README.md"].decode())


def edit_card(hub) -> None:
    edited = hub.files("org/t2u")["README.md"] + b"\nBy hand.\n"
    HfApi().upload_file(path_or_fileobj=edited, path_in_repo="README.md", repo_id="org/t2u")


@pytest.mark.parametrize("fault", [{"kind": "unheard"}, {"kind": "error", "status": 503}])
def test_a_card_that_cannot_be_asked_for_once_is_kept(hub, small, monkeypatch, fault):
    """The client calls silence by the name of what is not there."""
    monkeypatch.setattr(hub_upload.time, "sleep", lambda seconds: None)
    model = TextToUnitModel.from_pretrained(small)
    model.push_to_hub("org/t2u")
    HfApi().upload_file(path_or_fileobj=b"# By hand\n", path_in_repo="README.md", repo_id="org/t2u")
    hub.fail("HEAD /org/t2u/resolve/", **fault)
    model.push_to_hub("org/t2u", tags=["mine"])
    assert hub.faults[0].times == 0, "nothing failed"
    card = ModelCard(hub.files("org/t2u")["README.md"].decode())
    assert "# By hand" in card.content and card.data.tags == ["mine"]
    hub.fail("HEAD /org/t2u/resolve/", "error", times=99)
    commits = len(hub.repository("org/t2u").commits)
    with pytest.raises(PublishingError, match="nothing was published to 'org/t2u'"):
        model.push_to_hub("org/t2u")
    assert len(hub.repository("org/t2u").commits) == commits


def test_whose_repository_it_is_is_asked_patiently_and_without_telling_the_token(hub, small, monkeypatch):
    monkeypatch.setattr(hub_upload.time, "sleep", lambda seconds: None)
    model = TextToUnitModel.from_pretrained(small)
    hub.fail("GET /api/whoami", "error", status=503)
    model.push_to_hub("t2u", token=f"{TOKEN}\n")  # as files end
    assert hub.files("org/t2u")
    hub.fail("GET /api/whoami", "error", status=403, headers={"X-Error-Message": "not for {token}"})
    with pytest.raises(PublishingError) as caught:
        model.push_to_hub("t2u", token=TOKEN)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
