"""Pipelines as remote code: in a process without the package they say what they say here."""

import json
from pathlib import Path

import pytest
from exported_cases import CHECKPOINTS
from pipeline_cases import CLIPS, UNDERSTANDING, near, save_units
from transformers import AutoConfig, pipeline

from speechzoo.hub_cards.code_closure import CodeExportError
from speechzoo.hub_cards.code_export import export_code
from speechzoo.hub_cards.code_verification import run_without_package
from speechzoo.pipelines import pipelines_of
from speechzoo.pipelines.pipeline_tasks import PIPELINES
from speechzoo.processing.audio_loading import save_audio

ELSEWHERE = """
import json, sys
from transformers import pipeline

found = {}
for name, task, folder, unit_model, given in json.loads(sys.argv[1]):
    pipe = pipeline(task, model=folder, trust_remote_code=True)
    if unit_model:
        pipe.processor.name_unit_model(unit_model, trust_remote_code=True)
    results = pipe(sys.argv[2:], batch_size=2, **given)
    found[f"{name} {task}"] = [type(pipe).__module__, type(pipe.model).__module__, results]
print(json.dumps(found))
"""
ANY_TO_ANY = """
import json, sys
from transformers import pipeline

pipe = pipeline("any-to-any", model=sys.argv[1], trust_remote_code=True)
found = pipe(json.loads(sys.argv[2]), return_full_text=False, do_sample=False, max_new_tokens=4)
print(json.dumps([type(pipe.model).__module__, type(pipe.processor).__module__, found[0]["generated_text"]]))
"""
SHORT = {"max_new_tokens": 4}
GIVEN = {
    "adapter speech-understanding": {"task": "order", **SHORT},
    "text of units speech-understanding": SHORT,
    "adapter speech-instruction": {"instruction": "lights {audio}", **SHORT},
    "seal_alone speech-instruction": {"labels": ["lights on", "heat up"]},
}


@pytest.fixture(scope="module")
def folders(backbones, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    saves = {**UNDERSTANDING, "seal_alone": CHECKPOINTS["seal_alone"]}
    folders = {name: place / name.replace(" ", "_") for name in saves}
    for name, save in saves.items():
        save(backbones, folders[name])
    folders["units"] = save_units(backbones, place / "units")
    export_code(folders["classes of units"] / "units")
    for folder in folders.values():
        export_code(folder, pipelines_of(AutoConfig.from_pretrained(folder)))
    return folders


@pytest.mark.slow
def test_pipelines_say_the_same_without_the_package(folders, tmp_path):
    """The unit model that a joint language model names is a repository of its own, and is trusted for itself."""
    paths = [str(tmp_path / f"{number}.flac") for number in range(len(CLIPS))]
    for path, one in zip(paths, CLIPS, strict=True):
        save_audio(path, one / 2)
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    asked = []
    for name, folder in folders.items():
        unit_model = str(folders["classes of units"] / "units") if name.endswith("of units") else None
        for task in pipelines_of(AutoConfig.from_pretrained(folder)):
            asked.append((name, task, str(folder), unit_model, GIVEN.get(f"{name} {task}", {})))
    found = json.loads(run_without_package(script, json.dumps(asked), *paths).splitlines()[-1])
    assert {task for _, task, *_ in asked} == set(PIPELINES)
    for name, task, folder, _, given in asked:
        code, model_code, results = found[f"{name} {task}"]
        assert code.startswith("transformers_modules.") and code.endswith(f".pipeline_{task.replace('-', '_')}")
        assert model_code.startswith("transformers_modules.")
        assert near(results, pipeline(task, model=folder)(paths, batch_size=2, **given)), name


@pytest.mark.slow
def test_any_to_any_of_transformers_says_the_same_without_the_package(folders, tmp_path):
    save_audio(tmp_path / "clip.flac", CLIPS[0] / 2)
    content = [{"type": "text", "text": "transcribe "}, {"type": "audio", "path": str(tmp_path / "clip.flac")}]
    chat = json.dumps([{"role": "user", "content": content}])
    (tmp_path / "elsewhere.py").write_text(ANY_TO_ANY)
    try:
        printed = run_without_package(tmp_path / "elsewhere.py", str(folders["adapter"]), chat)
    except CodeExportError as error:  # older versions of transformers ask for librosa, whatever is heard
        if "librosa" not in str(error):
            raise
        pytest.skip(str(error))
    model_code, processor_code, text = json.loads(printed.splitlines()[-1])
    assert model_code.startswith("transformers_modules.") and processor_code.startswith("transformers_modules.")
    pipe = pipeline("speech-understanding", model=str(folders["adapter"]))
    assert text.strip() == pipe(str(tmp_path / "clip.flac"), task="asr", **SHORT)["text"] != ""


@pytest.mark.slow
def test_the_head_that_was_saved_is_named(folders):
    def autos(name: str) -> set[str]:
        entries = json.loads((folders[name] / "config.json").read_text())["custom_pipelines"]
        assert {entry["type"] for entry in entries.values()} == {"multimodal"}
        return {auto for entry in entries.values() for auto in entry["pt"]}

    assert autos("letters of speech") == {"AutoModelForCTC"}
    assert autos("classes of speech") == {"AutoModelForAudioClassification", "AutoModelForSequenceClassification"}
    assert autos("text of units") == {"AutoModelForCausalLM"}
    assert autos("units") == {"AutoModel"}
    assert autos("adapter") == {"AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq"}


@pytest.mark.slow
def test_a_checkpoint_ships_the_code_of_its_own_model_alone(folders):
    modules = {name: {path.stem for path in folder.glob("*.py")} for name, folder in folders.items()}
    assert "modeling_speechlm" not in modules["adapter"] and "modeling_sutlm" not in modules["adapter"]
    assert "modeling_sutlm" in modules["text of units"] and "modeling_speech_bridge" not in modules["text of units"]
    assert not modules["units"] & {"understanding_readers", "modality_generation"}


@pytest.mark.slow
def test_what_the_package_saves_again_names_no_code_that_is_not_there(backbones, tmp_path):
    UNDERSTANDING["classes of speech"](backbones, tmp_path / "first")
    export_code(tmp_path / "first", pipelines_of(AutoConfig.from_pretrained(tmp_path / "first")))
    values = json.loads((tmp_path / "first" / "config.json").read_text())
    autos = ["AutoModelForAudioClassification", "AutoModelForSequenceClassification"]
    assert values["custom_pipelines"]["speech-understanding"]["pt"] == autos
    model = pipeline("speech-understanding", model=str(tmp_path / "first")).model
    model.save_pretrained(tmp_path / "second")
    assert "custom_pipelines" not in json.loads((tmp_path / "second" / "config.json").read_text())
