"""What transformers' `Trainer` uploads of models of the zoo."""

import json
from types import SimpleNamespace

import pytest
import torch
from exported_cases import CHECKPOINTS
from huggingface_hub import HfApi
from sutlm_cases import joint_model, joint_processor
from transformers import AutoProcessor, Trainer, TrainingArguments

from speechzoo.hub_cards.code_export import export_code
from speechzoo.hub_cards.trainer_pushing import CodeGoesAlong
from speechzoo.modeling.auto_classes import AutoModelAsSaved
from speechzoo.pipelines import pipelines_of


def begin(folder, model, processor):
    args = SimpleNamespace(push_to_hub=True, should_save=True, output_dir=folder, hub_model_id="org/a", hub_token=None)
    CodeGoesAlong().on_train_begin(args, None, None, model=model, processing_class=processor)


def collated(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_a_trainer_pushes_code_with_every_checkpoint(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.trainer.hf_api", HfApi, raising=False)  # keeps a client of its own, for one Hub
    steps = {"max_steps": 1, "save_steps": 1, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    args = TrainingArguments(str(tmp_path / "run"), push_to_hub=True, hub_model_id="org/joint", **steps)
    processor = joint_processor()
    model, row = joint_model("llama", processor), {"input_ids": [3, 4, 5], "labels": [3, 4, 5]}
    given = {"train_dataset": [row] * 8, "processing_class": processor, "data_collator": collated}
    trainer = Trainer(model, args, callbacks=[CodeGoesAlong()], **given)
    trainer.train()
    trainer._finish_current_push()
    during = hub.files("org/joint")
    trainer.push_to_hub()
    assert len(hub.repository("org/joint").commits) == 3, "the first one, that of the step, and the last"
    model.push_to_hub("org/other")
    processor.push_to_hub("org/other")
    wanted = hub.files("org/other")
    for files in (during, hub.files("org/joint")):
        assert all(files[name] == wanted[name] for name in wanted if name.endswith(".py"))
        for name in ("config.json", "processor_config.json"):
            told, known = json.loads(files[name]), json.loads(wanted[name])
            assert known["auto_map"] and told["auto_map"] == known["auto_map"]
            assert told.get("custom_pipelines") == known.get("custom_pipelines")


@pytest.mark.parametrize("name", ["speechlm", "text_to_unit", "sutlm"])
def test_what_is_saved_later_names_what_an_export_names(tmp_path, name):
    start, run, later = (tmp_path / part for part in ("start", "run", "later"))
    CHECKPOINTS[name](None, start)
    model = AutoModelAsSaved.from_pretrained(start)
    processor = AutoProcessor.from_pretrained(start) if (start / "processor_config.json").is_file() else None
    begin(run, model, processor)
    for part in filter(None, (model, processor)):
        part.save_pretrained(later)
    export_code(start, pipelines_of(model.config))
    assert {file.name for file in start.glob("*.py")} == {file.name for file in run.glob("*.py")}
    for file in later.glob("*config.json"):
        told, wanted = (json.loads((folder / file.name).read_text()) for folder in (later, start))
        for read in (lambda values: values, lambda values: values.get("feature_extractor", {})):
            for field in ("auto_map", "custom_pipelines"):
                assert read(told).get(field) == read(wanted).get(field), file.name


def test_folders_that_others_do_not_have_are_refused_before_training(hub, backbones, tmp_path):
    with pytest.raises(ValueError, match=r"audio_model_id in config\.json is '.*wav2vec2.*', a folder that others"):
        begin(tmp_path, *backbones.build("wav2vec2", "llama"))
