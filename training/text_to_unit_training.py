"""The steps of training a text-to-unit model: read clips, align them with phones, train."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModel, AutoProcessor, Trainer, TrainingArguments

from ..configuration.configuration_text_to_unit import TextToUnitConfig
from ..data.phone_alignment import PhoneAligner
from ..data.speech_text_mixing import Utterance
from ..data.spoken_texts import SpokenText, TextAligner, TextToUnitCollator
from ..data.utterances import UtteranceReader
from ..modeling.modeling_text_to_unit import TextToUnitModel
from ..processing.letter_sounds import LetterSounds
from ..processing.lexicon import CMU, Lexicon
from ..processing.phones import PhoneReader
from ..processing.unit_vocabulary import UnitVocabulary
from .progress import use_live_progress
from .sutlm_training import reading_fields, refuse_shared_ids
from .text_to_unit_arguments import PhoneArguments, SpeechUnitArguments, TextToUnitArguments


@dataclass(frozen=True)
class SpokenCorpora:
    """Clips by the corpora they came from, as read and as aligned."""

    utterances: dict[str, list[Utterance]]
    spoken: dict[str, list[SpokenText]]

    def of(self, sources: Sequence[str]) -> list[SpokenText]:
        """The aligned clips of several corpora."""
        return [one for source in sources for one in self.spoken[source]]


def open_unit_reader(units: SpeechUnitArguments) -> UtteranceReader:
    """The unit model, on this process's device, and what finds words."""
    model = AutoModel.from_pretrained(units.unit_model, revision=units.unit_model_revision).eval()
    processor = AutoProcessor.from_pretrained(units.unit_model, revision=units.unit_model_revision)
    return UtteranceReader(model.to(PartialState().device), processor, **reading_fields(units))


def open_phone_reader(phones: PhoneArguments) -> PhoneReader:
    """Raises `ImportError` where the CMU lexicon is wanted and not installed."""
    lexicon = Lexicon.cmu() if phones.lexicon == CMU else Lexicon.read(phones.lexicon)
    return PhoneReader(lexicon, LetterSounds.shipped() if phones.sound_out else None)


def read_spoken_corpora(
    reader: UtteranceReader,
    phone_reader: PhoneReader,
    units: SpeechUnitArguments,
    phones: PhoneArguments,
    train: Sequence[str],
    others: Sequence[str],
    clips: int | None,
) -> tuple[SpokenCorpora, PhoneAligner]:
    """Every corpus, aligned by what was learned from those that are trained on.

    Raises `ValueError` where there is nothing to train on, or two corpora share an id.
    """
    if not train:
        raise ValueError("there is nothing to train on; name at least one corpus in train_data")
    utterances = {source: reader.read(source, clips, units.noise_db) for source in dict.fromkeys([*train, *others])}
    refuse_shared_ids(utterances)
    learned = [utterance for source in train for utterance in utterances[source]]
    texts = TextAligner(phone_reader, reader.frame_rate, phones.word_slack)
    aligner = texts.fit(learned, reader.clusters, phones.aligner_clips, phones.aligner_rounds)
    spoken = {source: texts.align(aligner, found) for source, found in utterances.items()}
    return SpokenCorpora(utterances, spoken), aligner


def assemble_text_to_unit(
    model: TextToUnitArguments, vocabulary: UnitVocabulary, clusters: int, frame_rate: float, seed: int
) -> TextToUnitModel:
    """An untrained model of these phones and clusters; its weights follow `seed`."""
    torch.manual_seed(seed)
    fields = {"phones": list(vocabulary.symbols), "clusters": clusters, "frame_rate": frame_rate}
    return TextToUnitModel(TextToUnitConfig.preset(model.preset, **{**fields, **model.shape}))


def make_text_to_unit_trainer(
    model: TextToUnitModel, train: Dataset, validation: Dataset | None, arguments: TrainingArguments
) -> Trainer:
    """A `Trainer` with live progress on one line."""
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=TextToUnitCollator(),
        train_dataset=train,
        eval_dataset=validation,
    )
    use_live_progress(trainer, sum(train["length"]) / len(train) / model.config.frame_rate)
    return trainer
