"""Units of clips with durations in seconds, of any length and in any batch."""

import pytest
from pipeline_cases import CLIPS, save_units
from speech_text_cases import clip
from transformers import pipeline

from speechzoo.pipelines import pipelines_of
from speechzoo.processing.audio_loading import AudioError
from speechzoo.processing.processing_sutlm import PretrainedUnits


@pytest.fixture(scope="module")
def folder(backbones, tmp_path_factory):
    return save_units(backbones, tmp_path_factory.mktemp("units"))


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("speech-units", model=str(folder))


def test_units_are_those_that_a_joint_model_reads(folder, pipe):
    units = PretrainedUnits(str(folder))
    for one, found in zip(CLIPS, pipe(CLIPS, batch_size=2), strict=True):
        wanted = units.extract(one)
        assert found["units"] == wanted.units == pipe(one)["units"]
        assert found["durations"] == [frames / 50 for frames in wanted.durations]
        assert found["seconds"] == len(one) / 16000 and found["frame_rate"] == 50
        assert abs(found["seconds"] - sum(found["durations"])) < 2 / 50


def test_clips_of_any_length_are_joined_as_in_training(folder):
    pipe, units = pipeline("speech-units", model=str(folder)), PretrainedUnits(str(folder))
    pipe.processor.chunk_seconds = units.processor.chunk_seconds = 0.4
    long = [clip(30000, 1), CLIPS[1], clip(22222, 2)]
    assert [found["units"] for found in pipe(long, batch_size=3)] == [units.extract(one).units for one in long]


def test_what_is_no_use_is_refused(pipe, backbones):
    assert list(pipelines_of(pipe.model.config.from_pretrained(pipe.model.config.name_or_path))) == ["speech-units"]
    with pytest.raises(AudioError, match=r"^clip 1: 10 samples are too few"):
        pipe([CLIPS[0], CLIPS[0][:10]])
    with pytest.raises(ValueError, match=r"units are joined whatever a clip's length"):
        pipe(CLIPS[0], chunk_seconds=2)
    with pytest.raises(ValueError, match=r"this pipeline has no parameter 'labels'"):
        pipe(CLIPS[0], labels=["a"])
    model, processor = backbones.shared()
    with pytest.raises(ValueError, match=r"has no codebook of units"):
        pipeline("speech-units", model=model, processor=processor)
