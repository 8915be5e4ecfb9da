"""The steps of pre-training a joint speech-text encoder: read corpora, label frames, assemble, start, train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForPreTraining, Trainer, TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..data.joint_pretraining_rows import (
    BatchSizes,
    LabeledClip,
    PlannedBatch,
    PretrainingCollator,
    PretrainingStream,
    is_read_alone,
)
from ..data.text_lines import read_texts
from ..modeling.modeling_joint_encoders import JointEncoderModel
from ..modeling.modeling_joint_pretraining import JointEncoderForPreTraining
from ..processing.phones import words_of
from ..processing.processing_speechlm import SpeechLMProcessor, letter_tokenizer
from .joint_pretraining_arguments import JointDataArguments, JointEncoderArguments, JointUpdateArguments
from .joint_pretraining_labels import FrameLabels, read_source
from .progress import use_live_progress

# What decides the speech encoder, and what a checkpoint's tensors do not all show.
SPEECH_FIELDS = (
    *("sampling_rate", "conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feat_extract_norm"),
    *("feat_extract_activation", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "hidden_size"),
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"),
    *("do_stable_layer_norm", "relative_position_distance"),
)
ABOVE = "unit_encoder."  # what is above the speech encoder


# --- corpora ---


@dataclass(frozen=True)
class JointCorpora:
    """Clips that are heard, texts that are read, and clips of validation and of the tests by name."""

    speech: list[LabeledClip]
    texts: list[str]
    validation: list[LabeledClip]
    tests: dict[str, list[LabeledClip]]

    @property
    def held_out_texts(self) -> list[str]:
        """What is said in validation and in the tests."""
        clips = [*self.validation, *(clip for clips in self.tests.values() for clip in clips)]
        return [clip.text for clip in clips if clip.text.strip()]


def read_joint_corpora(data: JointDataArguments, labels: FrameLabels) -> JointCorpora:
    """What `data` names. Of a corpus that is both heard and read, every clip is one of the two, unless all are both.

    Raises `ValueError` where a clip of a test is trained on, or its speaker is.
    """
    share = {source: data.text_share for source in data.speech_data if source in data.text_data}
    read = {source: labeled_clips(source, data, labels) for source in dict.fromkeys(data.speech_data)}
    texts: list[str] = []
    for source in data.text_data:
        if source in read:
            chosen = [clip for clip in read[source] if not share[source] or is_read_alone(clip.id, share[source])]
            texts += [clip.text for clip in chosen if clip.text.strip()]
        else:
            texts += read_texts(source, data.clips, words=data.text_words)
    corpora = JointCorpora(
        speech=[
            clip
            for source, clips in read.items()
            for clip in clips
            if not is_read_alone(clip.id, share.get(source, 0))
        ],
        texts=texts,
        validation=[clip for source in data.validation_data for clip in labeled_clips(source, data, labels)],
        tests={name: labeled_clips(source, data, labels) for name, source in data.test_data.items()},
    )
    refuse_leaks([clip for clips in read.values() for clip in clips], corpora, data.shared_speakers)
    return corpora


def labeled_clips(source: str, data: JointDataArguments, labels: FrameLabels) -> list[LabeledClip]:
    """The clips of a corpus that have labels, in its order."""
    rows, known = read_source(source, data), labels.of_frames[source]
    columns = {
        name: list(rows[name]) if name in rows.column_names else [""] * len(rows) for name in ("text", "speaker")
    }
    return [
        LabeledClip(name, rows, place, known[name], text or "", str(speaker or ""))
        for place, (name, text, speaker) in enumerate(zip(rows["id"], *columns.values(), strict=True))
        if name in known
    ]


def refuse_leaks(trained: Sequence[LabeledClip], corpora: JointCorpora, shared_speakers: bool) -> None:
    """Raises `ValueError` when validation or a test holds a clip that is trained on, or one of its speakers."""
    ids, speakers = {clip.id for clip in trained}, {clip.speaker for clip in trained if clip.speaker}
    for name, clips in {**corpora.tests, "validation": corpora.validation}.items():
        if shared := [clip.id for clip in clips if clip.id in ids]:
            raise ValueError(
                f"'{name}' shares {len(shared)} clips with the training data, first '{shared[0]}'; keep them apart, "
                f"for instance by source@split"
            )
        if not shared_speakers and (heard := sorted({clip.speaker for clip in clips} & speakers)):
            raise ValueError(
                f"'{name}' has {len(heard)} speakers who are trained on, first '{heard[0]}'; test others, or allow it "
                f"by --shared_speakers"
            )


def check_texts(processor: SpeechLMProcessor, texts: Iterable[str]) -> None:
    """Raises `ValueError` for a text without a word, or with a letter that the tokenizer lacks."""
    for text in texts:
        processor.letter_ids(text)
        if not words_of(text):
            raise ValueError(f"there is no word in the text {text[:80]!r}; leave it out")


# --- the model ---


def joint_config(arguments: JointEncoderArguments, **vocabularies: int) -> JointEncoderConfig:
    """The model's configuration; without `vocabularies` one that has the right rates and shapes alone.

    Raises `ValueError` for an unknown preset or field, and for a field of `shape` that has a flag of its own.
    """
    fields: dict[str, Any] = {"swap_prob": arguments.swap, **vocabularies}
    if taken := sorted(arguments.shape.keys() & {*fields, "unit_vocab_size", "text_vocab_size"}):
        raise ValueError(f"shape names '{taken[0]}', which is decided elsewhere; leave it out, or use --swap")
    return CONFIG_MAPPING[arguments.architecture].preset(arguments.preset, **arguments.shape, **fields)


def assemble_joint_encoder(
    arguments: JointEncoderArguments,
    labels: FrameLabels,
    seed: int,
    text_to_unit: str | None = None,
    text_to_unit_revision: str | None = None,
) -> tuple[JointEncoderForPreTraining, SpeechLMProcessor]:
    """A model and its processor. New weights follow `seed`; those of the speech encoder come from `start`, if any.

    Args:
        text_to_unit, text_to_unit_revision: the model that says texts in clusters, where units are clusters.
    """
    letters = letter_tokenizer()
    config = joint_config(arguments, unit_vocab_size=len(labels.vocabulary), text_vocab_size=len(letters))
    processor = SpeechLMProcessor.from_model_config(config, labels.units, letters, **labels.reading)
    if text_to_unit:
        processor.name_text_to_unit(text_to_unit, text_to_unit_revision)
    torch.manual_seed(seed)
    model = AutoModelForPreTraining.from_config(config)
    if arguments.start:
        start_from(model, arguments.start, arguments.start_revision)
    if config.feature_grad_mult == 0:
        model.base_model.feature_extractor.requires_grad_(False)
    return model, processor


def start_from(model: JointEncoderForPreTraining, source: str, revision: str | None = None) -> list[str]:
    """Gives the model the speech encoder of a pre-trained one, SpeechLM or SpeechUT; the names of its tensors.

    Args:
        source: folder or Hub id.

    Raises `ValueError` where the two differ in shape or rate.
    """
    other = AutoModel.from_pretrained(source, revision=revision)
    if not isinstance(other, JointEncoderModel):
        raise ValueError(f"the start '{source}' is a {type(other).__name__}; give a SpeechLM or a SpeechUT")
    for name in SPEECH_FIELDS:
        theirs, ours = getattr(other.config, name), getattr(model.config, name)
        if theirs != ours:
            raise ValueError(
                f"the start '{source}' has {name} {theirs}, and this model {ours}; set both alike in preset and shape"
            )
    tensors = {name: tensor for name, tensor in other.state_dict().items() if not name.startswith(ABOVE)}
    report = model.base_model.load_state_dict(tensors, strict=False)
    left = [name for name in report.missing_keys if not name.startswith(ABOVE)]
    if left or report.unexpected_keys:
        raise ValueError(f"the start '{source}' and this model do not share '{[*left, *report.unexpected_keys][0]}'")
    return sorted(tensors)


def batch_sizes(update: JointUpdateArguments, config: JointEncoderConfig) -> BatchSizes:
    """As asked, in labels and letters; units are masked in texts of their own where the loss has a weight for it."""
    return BatchSizes(
        labels=max(1, round(update.speech_seconds * config.label_rate)),
        letters=update.text_letters,
        unit_letters=update.text_letters if config.masked_unit_weight > 0 else 0,
    )


# --- training ---


class JointPreTrainer(Trainer):
    """A `Trainer` that also logs each part of the loss before its weight, and the shares of masked and swapped frames.

    Means over the batches since the last log, of this process; after `eval_` in validation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums: dict[str, Tensor] = {}  # "eval_unit_loss" -> [sum, batches]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        prefix = "" if model.training else "eval_"
        for name, value in loss_parts(outputs).items():
            entry = torch.stack([value.double().mean(), value.new_ones((), dtype=torch.double)])
            self._sums[prefix + name] = entry + self._sums.get(prefix + name, torch.zeros_like(entry))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        prefix = "eval_" if "eval_loss" in logs else ""
        if prefix or "loss" in logs:
            names = [name for name in self._sums if name.startswith("eval_") == bool(prefix)]
            for name in names:
                total, batches = self._sums.pop(name).tolist()
                logs[name] = total / batches
        super().log(logs, *args, **kwargs)


def loss_parts(outputs: Any) -> dict[str, Tensor]:
    """Losses by name, and what share of frames was masked and swapped."""
    parts = {name: value.detach() for name, value in outputs.items() if name.endswith("_loss")}
    if "frame_attention_mask" in outputs:
        frames = outputs["frame_attention_mask"].sum()
        parts["feature_penalty_loss"] = outputs["feature_penalty"].detach()
        parts |= {f"{what}_share": outputs[f"{what}_frames"] / frames for what in ("masked", "swapped")}
    return parts


def make_joint_pretrainer(
    model: JointEncoderForPreTraining,
    processor: SpeechLMProcessor,
    train: PretrainingStream,
    validation: Sequence[PlannedBatch] | None,
    arguments: TrainingArguments,
) -> JointPreTrainer:
    """Trains on batches that are planned already.

    The trainer is not told of the processor: it would take the tokenizer's padding, CTC's blank, for the model's.
    """
    trainer = JointPreTrainer(
        model=model,
        # The stream has its own order, and a list of batches no lengths.
        args=dataclasses.replace(arguments, train_sampling_strategy="random"),
        data_collator=PretrainingCollator(processor, model.config),
        train_dataset=train,
        eval_dataset=None if validation is None else list(validation),
    )
    use_live_progress(trainer, items="batches")
    return trainer
