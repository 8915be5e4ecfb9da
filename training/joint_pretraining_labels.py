"""The units of a pre-training, from one of three sources: what frames are labeled with and how texts are read as them.

labels = LABELINGS["timings"](arguments, units, data, config)
labels.of_frames["synthetic:stories-train"]["stories-train-00007"]   # ids [L]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..data.frame_labels import LabelClock, Labels
from ..data.spoken_phones import SpokenClip, duration_fields, spoken_inventory, spoken_lexicon
from ..data.timed_labels import timed_labels
from ..data.utterances import read_recordings
from ..processing.lexicon import CMU, Lexicon
from ..processing.unit_vocabulary import UnitVocabulary
from .joint_pretraining_arguments import FrameLabelArguments, JointDataArguments
from .text_to_unit_arguments import SpeechUnitArguments
from .text_to_unit_training import open_phone_reader, open_unit_reader, read_spoken_corpora

SPOKEN = "spoken"


@dataclass(frozen=True)
class FrameLabels:
    """Labels of frames, and what a processor needs to read texts as the same units.

    Args:
        units: names of the units, without special ones.
        of_frames: corpus -> id of a clip -> ids [L] at the model's `label_rate`.
        reading: fields of the processor.
    """

    units: Sequence[str]
    of_frames: Mapping[str, Mapping[str, Labels]]
    reading: dict[str, Any] = field(default_factory=dict)

    @property
    def vocabulary(self) -> UnitVocabulary:
        return UnitVocabulary(self.units)


Labeling = Callable[
    [FrameLabelArguments, SpeechUnitArguments, JointDataArguments, JointEncoderConfig],
    FrameLabels,
]


def labeled_sources(data: JointDataArguments) -> list[str]:
    """Corpora whose frames are labeled. Raises `ValueError` where there is nothing to train on."""
    if not data.speech_data:
        raise ValueError("there is nothing to train on; name at least one corpus in speech_data")
    return list(dict.fromkeys([*data.speech_data, *data.validation_data, *data.test_data.values()]))


def read_source(source: str, data: JointDataArguments) -> Dataset:
    """As many of its recordings as are wanted."""
    return read_recordings(source, data.clips if source in data.speech_data else data.test_clips)


def _by_timings(
    labels: FrameLabelArguments, units: SpeechUnitArguments, data: JointDataArguments, config: JointEncoderConfig
) -> FrameLabels:
    """Phones with times that the corpora have; texts by the words and durations of the training corpora.

    Raises `ValueError` for a corpus without them.
    """
    spoken = {source: _spoken_clips(source, read_source(source, data)) for source in labeled_sources(data)}
    learned = [clip for source in data.speech_data for clip in spoken[source].values()]
    more = [clip for source in labels.lexicon_data for clip in _spoken_clips(source, read_recordings(source)).values()]
    lexicon = spoken_lexicon([*learned, *more]) if labels.lexicon == SPOKEN else _opened(labels)
    names = spoken_inventory(Lexicon.cmu() if isinstance(lexicon, str) else lexicon, learned)
    vocabulary, clock = UnitVocabulary(names), LabelClock.of(config)
    of_frames = {
        source: {name: clock.phones(clip.phones, clip.seconds, vocabulary) for name, clip in clips.items()}
        for source, clips in spoken.items()
    }
    law = duration_fields(learned, config.frame_rate, config.max_unit_positions or None)
    return FrameLabels(names, of_frames, {"lexicon": lexicon, "sound_out": False, **law})


def _spoken_clips(source: str, rows: Dataset) -> dict[str, SpokenClip]:
    phones, words = timed_labels(source, "phones"), timed_labels(source, "words")
    if lacking := [name for name in rows["id"] if name not in phones]:
        raise ValueError(
            f"'{source}' has no phones with times for {len(lacking)} clips, first '{lacking[0]}'; write them to its "
            f"metadata.jsonl as phones, or choose --labels alignment or units"
        )
    return {
        name: SpokenClip(words.get(name, ()), phones[name], seconds)
        for name, seconds in zip(rows["id"], rows["duration"], strict=True)
    }


def _by_alignment(
    labels: FrameLabelArguments, units: SpeechUnitArguments, data: JointDataArguments, config: JointEncoderConfig
) -> FrameLabels:
    """Phones of texts, aligned with the units of a unit model; texts by the same lexicon.

    Clips that cannot be aligned have no labels.
    """
    lexicon = _opened(labels)
    reader, phone_reader = open_unit_reader(units), open_phone_reader(labels)
    tested = [source for source in labeled_sources(data) if source not in data.speech_data]
    limits = [limit for limit in (data.clips, data.test_clips) if limit]
    clips = max(limits) if len(limits) == 2 else None
    corpora, _ = read_spoken_corpora(reader, phone_reader, units, labels, data.speech_data, tested, clips)
    vocabulary, clock = UnitVocabulary.phones(labels.phone_positions), LabelClock.of(config)
    of_frames = {
        source: {one.id: clock.units(one.aligned.frame_ids(vocabulary), reader.frame_rate) for one in spoken}
        for source, spoken in corpora.spoken.items()
    }
    law = {"durations": {"most": config.max_unit_positions}} if config.max_unit_positions else {}
    reading = {"lexicon": lexicon, "sound_out": labels.sound_out, **law}
    return FrameLabels(vocabulary.symbols, of_frames, reading)


def _by_units(
    labels: FrameLabelArguments, units: SpeechUnitArguments, data: JointDataArguments, config: JointEncoderConfig
) -> FrameLabels:
    """Units of a unit model; texts through a text-to-unit model, which is named to the processor later."""
    lexicon = _opened(labels)
    reader = open_unit_reader(units)
    vocabulary, clock = UnitVocabulary.clusters(reader.clusters), LabelClock.of(config)
    first = vocabulary.id("0")
    of_frames = {}
    for source in labeled_sources(data):
        limit = data.clips if source in data.speech_data else data.test_clips
        found = reader.read(source, limit, words=False)
        of_frames[source] = {
            one.id: clock.units([first + unit for unit in one.units.expanded()], reader.frame_rate) for one in found
        }
    reading = {"lexicon": lexicon, "sound_out": labels.sound_out}
    return FrameLabels(vocabulary.symbols, of_frames, reading)


def _opened(labels: FrameLabelArguments) -> Lexicon | str:
    """What a processor takes. Raises `ValueError` where only timings could make the lexicon."""
    if labels.lexicon == SPOKEN:
        raise ValueError(f"labels '{labels.labels}' know no spoken lexicon; give --lexicon cmudict, or a file")
    return CMU if labels.lexicon == CMU else Lexicon.read(labels.lexicon)


LABELINGS: Mapping[str, Labeling] = {"timings": _by_timings, "alignment": _by_alignment, "units": _by_units}
