"""The steps of training a joint language model of speech units and text: read, assemble, train.

Shapes: T tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, Trainer, TrainingArguments
from transformers.utils import logging

from ..configuration.configuration_sutlm import SUTLMConfig
from ..data.packed_batches import PackedCollator, PackedRows
from ..data.speech_text_mixing import (
    Alternation,
    Concatenation,
    MixedSequences,
    Mixture,
    SwitchesByCoin,
    SwitchesByLength,
    SwitchesBySpan,
    SwitchPoints,
    Utterance,
)
from ..data.synthetic_corpus import default_cache_directory
from ..data.text_lines import read_texts
from ..data.utterances import UtteranceReader
from ..modeling.modality_generation import KINDS
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from ..processing.unit_text import UnitSegmenter
from ..processing.word_alignment import CTCAligner
from .progress import use_live_progress
from .sutlm_arguments import (
    JointModelArguments,
    MixtureArguments,
    PretrainingArguments,
    ReadingArguments,
    UnitArguments,
)

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class JointData:
    """What sequences are made of: utterances of which units are read, utterances of which text is read too, texts."""

    speech: Sequence[Utterance]
    paired: Sequence[Utterance]
    text: Sequence[str]

    @property
    def utterances(self) -> dict[str, Utterance]:
        """Those of both kinds, by id."""
        return {utterance.id: utterance for utterance in (*self.speech, *self.paired)}


def open_reader(units: UnitArguments) -> UtteranceReader:
    """The unit model, on this process's device, and what finds words."""
    model = AutoModel.from_pretrained(units.unit_model, revision=units.unit_model_revision).eval()
    return UtteranceReader(
        model.to(PartialState().device),
        AutoProcessor.from_pretrained(units.unit_model, revision=units.unit_model_revision),
        **reading_fields(units),
    )


def reading_fields(reading: ReadingArguments) -> dict[str, Any]:
    """What an `UtteranceReader` is told beside its unit model."""
    device = PartialState().device
    return {
        "store_root": reading.store or default_cache_directory() / "features",
        "aligner": CTCAligner.from_pretrained(reading.aligner, device=device) if reading.aligner else None,
        "textgrids": reading.textgrids,
        "lowercase": reading.lowercase,
    }


def read_joint_data(reader: UtteranceReader, units: UnitArguments, mixture: MixtureArguments) -> JointData:
    """What `mixture` names to train on; a corpus that is named twice is read once. Kinds without weight are not read.

    Raises `ValueError` where a kind with a weight has no source.
    """
    paired = mixture.paired_data if mixture.paired else []
    speech = mixture.speech_data if mixture.speech else []
    # Only pairs need to know when words are said.
    read = {
        source: reader.read(source, mixture.clips, units.noise_db, words=source in paired)
        for source in dict.fromkeys([*speech, *paired])
    }
    refuse_shared_ids(read)
    for kind in ("speech", "paired", "text"):
        if getattr(mixture, kind) and not getattr(mixture, f"{kind}_data"):
            raise ValueError(f"'{kind}' has a weight and no source; name one in {kind}_data, or set --{kind} 0")
    sources = mixture.text_data if mixture.text else []
    texts = [text for source in sources for text in read_texts(source, mixture.clips, words=mixture.text_words)]
    return JointData(
        [utterance for source in speech for utterance in read[source]],
        usable_pairs([utterance for source in paired for utterance in read[source]], mixture.alternating),
        [text.lower() for text in texts] if units.lowercase else texts,
    )


def usable_pairs(utterances: Sequence[Utterance], alternating: float) -> list[Utterance]:
    """Those with all that CST (a text) and AST (times of words) need; a warning tells of the others.

    Args:
        alternating: share of AST among pairs.

    Raises `ValueError` where none is left of some.
    """
    kept = [one for one in utterances if (one.words or alternating == 0) and (one.text or alternating == 1)]
    if left := {one.id for one in utterances} - {one.id for one in kept}:
        told = f"{len(left)} of {len(utterances)} paired utterances lack a text or the times of its words"
        if not kept:
            raise ValueError(f"{told}; name an aligner or TextGrid files, or train on CST alone: --alternating 0")
        logger.warning(f"{told} and are left out of the pairs, first '{min(left)}'")
    return kept


def refuse_shared_ids(read: Mapping[str, Sequence[Utterance]]) -> None:
    """Raises `ValueError` when two corpora have a clip of one id, for clips are known by their ids."""
    owner: dict[str, str] = {}
    for source, utterances in read.items():
        for utterance in utterances:
            if owner.setdefault(utterance.id, source) != source:
                raise ValueError(
                    f"'{owner[utterance.id]}' and '{source}' both have a clip '{utterance.id}'; give each its own id"
                )


def refuse_shared_utterances(
    data: JointData, tests: Mapping[str, Sequence[Utterance]], texts_too: bool = True
) -> None:
    """Raises `ValueError` when a test holds the id of a clip that is trained on, or, with `texts_too`, its text."""
    known = set(data.text) | {utterance.text for utterance in data.utterances.values() if utterance.text}
    texts = known if texts_too else set()
    for name, utterances in tests.items():
        shared = [utterance.id for utterance in utterances if utterance.id in data.utterances]
        shared += [utterance.id for utterance in utterances if utterance.text in texts]
        if shared:
            raise ValueError(
                f"test '{name}' shares {len(shared)} clips or texts with the training data, first '{shared[0]}'; "
                f"keep them apart, for instance by source@split; --shared_texts allows the same texts in other clips"
            )


def read_validation_data(reader: UtteranceReader, units: UnitArguments, mixture: MixtureArguments) -> JointData | None:
    """Utterances and their texts to follow the loss on; `None` where no source is named."""
    found = [
        utterance
        for source in mixture.validation_data
        for utterance in reader.read(source, mixture.clips, units.noise_db)
    ]
    pairs = usable_pairs(found, mixture.alternating) if mixture.paired else []
    return JointData(found, pairs, [utterance.text for utterance in found if utterance.text]) if found else None


def train_segmenter(units: UnitArguments, data: JointData, clusters: int) -> UnitSegmenter:
    """Pieces over the units of what is trained on; raw units where none are asked for."""
    if not units.unit_pieces:
        return UnitSegmenter.raw(clusters)
    corpus = [utterance.units.units for utterance in data.utterances.values()]
    return UnitSegmenter.train(corpus, clusters, units.unit_pieces, units.piece_algorithm)


def assemble_joint_model(
    language_model: JointModelArguments, units: UnitArguments, data: JointData, clusters: int, seed: int
) -> tuple[SUTLMForCausalLM, SUTLMProcessor]:
    """A joint model and its processor, which names the unit model. New weights follow `seed`."""
    source, revision = language_model.text_model, language_model.text_model_revision
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    processor = SUTLMProcessor(tokenizer, train_segmenter(units, data, clusters))
    processor.name_unit_model(units.unit_model, units.unit_model_revision)
    torch.manual_seed(seed)
    if language_model.from_scratch:
        return _from_scratch(language_model, processor), processor
    model = SUTLMForCausalLM.from_text_model(
        source,
        new_rows=language_model.new_rows,
        seed=seed,
        revision=revision,
        dtype=language_model.dtype,
        **_fields(language_model, processor),
    )
    return model, processor


def _fields(language_model: JointModelArguments, processor: SUTLMProcessor) -> dict[str, Any]:
    """What the configuration says beside the architecture."""
    return {**processor.config_fields, "trained_rows": language_model.trained_rows}


def _from_scratch(language_model: JointModelArguments, processor: SUTLMProcessor) -> SUTLMForCausalLM:
    fields = _fields(language_model, processor)
    if language_model.preset:
        config = SUTLMConfig.preset(language_model.preset, vocab_size=processor.vocab_size, **fields)
    else:
        text_config = AutoConfig.from_pretrained(
            language_model.text_model, revision=language_model.text_model_revision
        )
        text_config.vocab_size = processor.vocab_size
        config = SUTLMConfig(text_config=text_config, **fields)
    return SUTLMForCausalLM(config)


# --- sequences ---


def sequences_of(
    processor: SUTLMProcessor, data: JointData, mixture: MixtureArguments, frame_rate: float, seed: int
) -> MixedSequences:
    """Sequences mixed as `mixture` says. Raises `ValueError` for a kind with a weight that has no items."""
    mixed = Mixture(
        mixture.speech,
        mixture.paired,
        mixture.text,
        mixture.alternating,
        Concatenation(mixture.speech_first),
        Alternation(switches=_switches(mixture), speech_first=mixture.speech_first),
    )
    parts = mixed.parts(speech=data.speech, paired=data.paired, text=data.text, frame_rate=frame_rate)
    return MixedSequences(processor, parts, seed)


def _switches(mixture: MixtureArguments) -> SwitchPoints:
    policies: dict[str, SwitchPoints] = {
        "by_length": SwitchesByLength(mixture.groups_per_switch),
        "by_span": SwitchesBySpan(mixture.shortest_span, mixture.longest_span),
        "by_coin": SwitchesByCoin(mixture.switch_probability),
    }
    return policies[mixture.switches]


# --- training ---


class JointTrainer(Trainer):
    """A `Trainer` that also logs the loss and perplexity of speech and of text, in nats a token.

    `speech_loss`, `speech_perplexity`, `text_loss`, `text_perplexity`, and the same after `eval_`: means over the
    tokens since the last log, of this process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums: dict[str, Tensor] = {}  # "eval_speech" -> [loss, tokens]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        prefix = "" if model.training else "eval_"
        for kind in KINDS[:2]:
            tokens = outputs[f"{kind}_tokens"].double()  # a value for each device where they share a process
            nats = outputs[f"{kind}_loss"].nan_to_num().double() * tokens
            sums = torch.stack([nats.sum(), tokens.sum()])
            self._sums[prefix + kind] = sums + self._sums.get(prefix + kind, torch.zeros_like(sums))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        prefix = "eval_" if "eval_loss" in logs else ""
        if prefix or "loss" in logs:
            logs |= self._by_modality(prefix)
        super().log(logs, *args, **kwargs)

    def _by_modality(self, prefix: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for kind in KINDS[:2]:
            total, tokens = self._sums.pop(prefix + kind, torch.zeros(2)).tolist()
            if tokens:
                loss = torch.tensor(total / tokens)
                figures |= {f"{prefix}{kind}_loss": loss.item(), f"{prefix}{kind}_perplexity": loss.exp().item()}
        return figures


def make_joint_trainer(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    train: MixedSequences,
    validation: MixedSequences | None,
    pretraining: PretrainingArguments,
    arguments: TrainingArguments,
) -> JointTrainer:
    """Trains on rows that sequences share, packed while they are read."""
    pad = processor.tokenizer.pad_token_id or 0
    rows = partial(PackedRows, capacity=pretraining.row_tokens)
    trainer = JointTrainer(
        model=model,
        args=arguments,
        data_collator=PackedCollator(pad_token_id=pad),
        train_dataset=rows(train.stream),
        eval_dataset=None
        if validation is None
        else list(rows(lambda: map(validation.__getitem__, range(len(validation))))),
        processing_class=processor,
    )
    use_live_progress(trainer, items="rows")
    return trainer


def facts_of(processor: SUTLMProcessor, data: JointData) -> Mapping[str, int]:
    """What a report says of the vocabulary and of the data."""
    return {
        "unit_pieces": len(processor.segmenter),
        "vocabulary": processor.vocab_size,
        "utterances": len(data.utterances),
        "texts": len(data.text),
    }
