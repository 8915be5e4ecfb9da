"""Exported code in a process without the package: every model class loads, runs, and says what it says here."""

import filecmp
import json
import shutil
from pathlib import Path

import pytest
import torch
from exported_cases import CHECKPOINTS, PHONES
from safetensors.torch import load_file

from speechzoo import SpeechLMProcessor, TextToUnitConfig, TextToUnitModel
from speechzoo.hub_cards.code_export import CodeExportError, export_code
from speechzoo.hub_cards.code_verification import Verification, run_without_package, verify_code

SPEECH_TEXT = {"AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq"}
LABELS = {"AutoModelForAudioClassification", "AutoModelForSequenceClassification"}
# Auto classes that give the class whose weights were saved; models that are not here have no head.
HEADS: dict[str, set[str]] = {
    **{f"{model}{kind}": SPEECH_TEXT for model in ("adapter", "seal") for kind in ("", "_alone", "_lora")},
    "sutlm": {"AutoModelForCausalLM"},
    "sutlm_labels": {"AutoModelForSequenceClassification"},
    **{f"{model}_pretraining": {"AutoModelForPreTraining"} for model in ("speechlm", "speechut")},
    **{f"{model}_ctc": {"AutoModelForCTC"} for model in ("speechlm", "speechut")},
    **{f"{model}_labels": LABELS for model in ("speechlm", "speechut")},
    "speechut_writer": {"AutoModelForSpeechSeq2Seq"},
}
GENERATING = {*SPEECH_TEXT, "AutoModelForCausalLM"}


def saved(backbones, name: str, folder: Path) -> Path:
    CHECKPOINTS[name](backbones, folder)
    export_code(folder)
    return folder


@pytest.fixture(scope="module")
def folders(backbones, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: saved(backbones, name, place / name) for name in CHECKPOINTS}


@pytest.fixture(scope="module")
def verified(folders) -> dict[str, Verification]:
    """All of them in one process, for what takes time is to import the libraries."""
    return dict(zip(folders, verify_code(*folders.values()), strict=True))


@pytest.mark.slow
def test_a_model_works_without_the_package(backbones, tmp_path):
    folder = saved(backbones, "speechlm_labels", tmp_path / "speech-lm.v1")
    (verification,) = verify_code(folder)
    processing = {"AutoConfig", "AutoFeatureExtractor", "AutoModel", "AutoProcessor"}
    assert set(verification.classes) == processing | LABELS
    prefix = "transformers_modules.speech_hyphen_lm_dot_v1."
    assert all(name.startswith(prefix) for name in verification.classes.values())
    logits = [verification.outputs[f"{auto}.{kind}.logits"] for auto in LABELS for kind in ("speech", "text")]
    assert all(one.shape == (2, 2) and one.isfinite().all() for one in logits)
    assert len(torch.cat(logits).unique()) > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_model_works_without_the_package(folders, verified, name):
    classes, outputs = verified[name].classes, verified[name].outputs
    processor = set() if name == "text_to_unit" else {"AutoProcessor"}
    extractor = {"AutoFeatureExtractor"} if name.startswith(("speechlm", "speechut")) else set()
    assert set(classes) == {"AutoConfig", "AutoModel"} | processor | extractor | HEADS.get(name, set())
    assert all(member.startswith(f"transformers_modules.{name}.") for member in classes.values())
    for auto in {"AutoModel"} | HEADS.get(name, set()):
        said = {output: value for output, value in outputs.items() if output.startswith(f"{auto}.")}
        assert said and any(len(value.unique()) > 3 for value in said.values()), "a constant would be equal too"
        generated = [output for output in said if output.endswith((".generated", ".said"))]
        assert bool(generated) == (auto in GENERATING or name == "text_to_unit")
    config = json.loads((folders[name] / "config.json").read_text())
    assert name not in HEADS or config["architectures"][0] in str(classes)


@pytest.mark.slow
def test_code_or_weights_that_differ_are_found(folders, tmp_path):
    """The folder's own code runs, not this package's; and its outputs are looked at."""
    folder = tmp_path / "other"
    shutil.copytree(folders["speechlm_labels"], folder)
    pooling = folder / "modeling_attention_pooling.py"
    pooling.write_text(
        pooling.read_text()
        + "\n_pooled = attention_pooled\n\n\ndef attention_pooled(*given):\n    return 2 * _pooled(*given)\n"
    )
    with pytest.raises(
        CodeExportError, match=r"'AutoModelForAudioClassification\.speech\.logits' of the exported code"
    ):
        verify_code(folder)
    pooling.write_text("import speechzoo\n")
    with pytest.raises(CodeExportError, match=r"failed without speechzoo:(?s:.)*No module named 'speechzoo'"):
        verify_code(folder)


@pytest.mark.slow
def test_without_trust_nothing_is_loaded(folders, tmp_path):
    script = tmp_path / "untrusting.py"
    script.write_text(f"from transformers import AutoModel\nAutoModel.from_pretrained({str(folders['sutlm'])!r})\n")
    with pytest.raises(CodeExportError, match=r"trust_remote_code=True"):
        run_without_package(script)


RESAVE = """
import sys
import transformers
for name, head in (("adapter", "AutoModelForMultimodalLM"), ("speechlm_labels", "AutoModelForSequenceClassification")):
    for auto in (head, "AutoProcessor"):
        loaded = getattr(transformers, auto).from_pretrained(f"{sys.argv[1]}/{name}", trust_remote_code=True)
        loaded.save_pretrained(f"{sys.argv[2]}/{name}")
"""


@pytest.mark.slow
def test_what_was_loaded_elsewhere_is_saved_with_its_code(folders, tmp_path):
    script, names = tmp_path / "resave.py", ("adapter", "speechlm_labels")
    script.write_text(RESAVE)
    run_without_package(script, str(folders["adapter"].parent), str(tmp_path))
    pairs = [(folders[name], tmp_path / name) for name in names]
    for source, target in pairs:
        modules = sorted(path.name for path in source.glob("*.py"))
        assert sorted(path.name for path in target.glob("*.py")) == modules
        assert filecmp.cmpfiles(source, target, modules, shallow=False)[0] == modules
    found = verify_code(*(folder for pair in pairs for folder in pair))
    for before, after in zip(found[::2], found[1::2], strict=True):
        assert after.classes.keys() == before.classes.keys() and after.outputs.keys() == before.outputs.keys()
        assert all(torch.equal(value, before.outputs[name]) for name, value in after.outputs.items())


NAMED = """
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoProcessor
speech, text_to_unit, output = sys.argv[1:]
processor = AutoProcessor.from_pretrained(speech, trust_remote_code=True)
processor.name_text_to_unit(text_to_unit, trust_remote_code=True)
save_file({"units": processor(text="zoo")["input_ids"]}, output)
"""


@pytest.mark.slow
def test_a_model_that_a_processor_names_is_trusted_for_itself(backbones, folders, tmp_path):
    """One trusted repository does not make another trusted: who names a text-to-unit model says so."""
    torch.manual_seed(0)
    config = TextToUnitConfig.preset("tiny", phones=tuple(PHONES.symbols), clusters=24)
    TextToUnitModel(config).save_pretrained(tmp_path / "t2u")
    export_code(tmp_path / "t2u")
    script, output = tmp_path / "named.py", tmp_path / "units.safetensors"
    script.write_text(NAMED)
    run_without_package(script, str(folders["speechlm_ctc"]), str(tmp_path / "t2u"), str(output))
    processor = SpeechLMProcessor.from_pretrained(folders["speechlm_ctc"])
    processor.name_text_to_unit(str(tmp_path / "t2u"))
    assert torch.equal(load_file(output)["units"], processor(text="zoo")["input_ids"])


PUBLISHED = """
import sys
from huggingface_hub import HfApi
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, AutoProcessor
HfApi().create_repo("zoo/classifier")
HfApi().upload_folder(repo_id="zoo/classifier", folder_path=sys.argv[1])
for auto in (AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, AutoProcessor):
    loaded = type(auto.from_pretrained("zoo/classifier", trust_remote_code=True))
    print(loaded.__module__, loaded.__name__)
"""


@pytest.mark.slow
def test_a_published_model_loads_from_the_hub(folders, loopback_hub, monkeypatch, tmp_path):
    """There transformers fetches each module by itself, and checks the libraries of each."""
    for name, value in loopback_hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "published.py"
    script.write_text(PUBLISHED)
    lines = run_without_package(script, str(folders["speechlm_labels"])).splitlines()
    names = ["FeatureExtractor", "Model", "ForSequenceClassification", "Processor"]
    assert [line.split()[1] for line in lines] == [f"SpeechLM{name}" for name in names]
    assert all(line.startswith("transformers_modules.zoo.classifier.") for line in lines)
