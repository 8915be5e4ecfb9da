"""The tiny zoo's speech encoder: a small w2v-BERT 2.0 architecture trained with CTC over characters at 50 Hz."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import (
    SeamlessM4TFeatureExtractor,
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..data.augmentation import vary_speech
from ..data.espeak_synthesis import SAMPLING_RATE
from ..data.synthetic_corpus import RECIPES, SyntheticCorpusRecipe, build_synthetic_corpus, read_corpus

CHARACTERS = ("<pad>", "<unk>", "|", "'", *"abcdefghijklmnopqrstuvwxyz")

Example = dict[str, Any]


@dataclass(frozen=True)
class SpeechEncoderSettings:
    """Size: `hidden_size`, `layers`, `heads`, `intermediate_size`, `convolution_kernel`, `position_type`,
    `initializer_range`.
    Data: numbers of clips `commands`, `stories` and `words`.
    Training: `rounds`, each of `steps` with a cosine decay from `learning_rate`; `batch_size` (clips), `seed`.
    """

    hidden_size: int = 192
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 512
    convolution_kernel: int = 15
    position_type: str = "rotary"
    initializer_range: float = 0.02
    commands: int = 3000
    stories: int = 3000
    words: int = 5000
    rounds: int = 2
    steps: int = 3300
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    seed: int = 0


def new_processor() -> Wav2Vec2BertProcessor:
    """Log-mel of 80 bins stacked to 50 Hz beside a character tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.json"
        vocabulary.write_text(json.dumps({character: index for index, character in enumerate(CHARACTERS)}))
        tokenizer = Wav2Vec2CTCTokenizer(
            str(vocabulary), bos_token=None, eos_token=None, unk_token="<unk>", pad_token="<pad>", do_lower_case=False
        )
    return Wav2Vec2BertProcessor(feature_extractor=SeamlessM4TFeatureExtractor(), tokenizer=tokenizer)


def new_speech_encoder(settings: SpeechEncoderSettings) -> Wav2Vec2BertForCTC:
    """An untrained encoder with its CTC head."""
    torch.manual_seed(settings.seed)
    config = Wav2Vec2BertConfig(
        vocab_size=len(CHARACTERS),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.intermediate_size,
        conv_depthwise_kernel_size=settings.convolution_kernel,
        position_embeddings_type=settings.position_type,
        feature_projection_input_dim=160,
        hidden_dropout=0.05,
        activation_dropout=0.05,
        attention_dropout=0.05,
        feat_proj_dropout=0.0,
        final_dropout=0.05,
        layerdrop=0.0,
        initializer_range=settings.initializer_range,
        apply_spec_augment=False,  # the collator masks mel bins and frames; the model has no trained mask embedding
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Wav2Vec2BertForCTC(config)


def training_recipes(settings: SpeechEncoderSettings) -> list[SyntheticCorpusRecipe]:
    """Corpora of training voices, larger than and apart from those of the same kinds that adapters train on."""
    counts = {"commands-train": settings.commands, "stories-train": settings.stories, "words-train": settings.words}
    return [
        replace(RECIPES[name], name=f"encoder-{name}", count=count, seed=1000 + 10 * settings.seed + number)
        for number, (name, count) in enumerate(counts.items())
        if count
    ]


def read_examples(
    folder: Path, processor: Wav2Vec2BertProcessor, variation_seed: int | None = None, count: int | None = None
) -> list[Example]:
    """Features [F, 160] (float16 numpy) and character ids of a corpus's clips, varied where a seed is given."""
    records = read_corpus(folder)[:count]
    examples = []
    for number, record in enumerate(tqdm(records, desc=f"features of {folder.name}", unit="clip")):
        samples, _ = soundfile.read(folder / record["audio"], dtype="float32")
        if variation_seed is not None:
            samples = vary_speech(samples, np.random.default_rng([variation_seed, number]))
        features = processor.feature_extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="np")
        examples.append(
            {
                "input_features": features["input_features"][0].astype(np.float16),
                "labels": processor.tokenizer(record["transcript"]).input_ids,
                "length": features["input_features"].shape[1],
            }
        )
    return examples


@dataclass(frozen=True)
class SpeechCollator:
    """Pads features and labels; with `mask`, hides two bands of mel bins and two stretches of frames in each clip."""

    mask: bool = False

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        features = [torch.from_numpy(example["input_features"]).float() for example in examples]
        if self.mask:
            features = [_mask_bands_and_frames(clip) for clip in features]
        labels = [torch.tensor(example["labels"]) for example in examples]
        lengths = torch.tensor([len(clip) for clip in features])
        padded = pad_sequence(features, batch_first=True)  # [B, F, 160]
        return {
            "input_features": padded,
            "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long(),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }


def _mask_bands_and_frames(features: torch.Tensor) -> torch.Tensor:
    """Zero (the mean, as features are normalized) up to 12 of 80 mel bins and up to 5 frames, twice each."""
    stacked = features.clone().view(len(features), 2, 80)
    for _ in range(2):
        width, frames = int(torch.randint(13, ())), int(torch.randint(6, ()))
        low, first = int(torch.randint(80 - width, ())), int(torch.randint(max(len(features) - frames, 1), ()))
        stacked[:, :, low : low + width] = 0
        stacked[first : first + frames] = 0
    return stacked.view(len(features), 160)


class CTCTrainer(Trainer):
    """Batches clips of like length, and masks the training batches only."""

    data_collator: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        lengths = [example["length"] for example in self.train_dataset]
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)

    def get_eval_dataloader(self, eval_dataset: Any = None):
        training_collator, self.data_collator = self.data_collator, SpeechCollator()
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any
    ) -> tuple[Any, Any, Any]:
        """Characters [B, F] in place of logits, blank where a clip has ended."""
        loss, logits, labels = super().prediction_step(model, inputs, *arguments, **options)
        return loss, logits.argmax(-1).masked_fill(inputs["attention_mask"] == 0, 0), labels


def train_speech_encoder(
    settings: SpeechEncoderSettings, arguments: TrainingArguments, cache_directory: Path | None = None
) -> tuple[Wav2Vec2BertForCTC, Wav2Vec2BertProcessor, dict[str, Any]]:
    """The trained encoder, its processor, and facts of the training (curve, amounts of data)."""
    processor = new_processor()
    examples: list[Example] = []
    for number, recipe in enumerate(training_recipes(settings)):
        folder = build_synthetic_corpus(recipe, cache_directory)
        examples += read_examples(folder, processor, variation_seed=settings.seed * 100 + number)
    random.Random(settings.seed).shuffle(examples)
    validation = [
        example
        for name in ("commands-validation", "stories-validation", "words-validation")
        for example in read_examples(build_synthetic_corpus(RECIPES[name], cache_directory), processor, count=60)
    ]
    model, log = new_speech_encoder(settings), []
    for number in range(settings.rounds):
        trainer = CTCTrainer(
            model=model,
            args=replace(arguments, seed=settings.seed + number, data_seed=settings.seed + number),
            train_dataset=examples,
            eval_dataset=validation,
            data_collator=SpeechCollator(mask=True),
            compute_metrics=lambda prediction: {"cer": _character_error_rate(prediction, processor)},
        )
        trainer.train()
        log += [{**entry, "step": entry["step"] + number * settings.steps} for entry in trainer.state.log_history]
    seconds = sum(example["length"] for example in examples) / 50
    facts = {"training clips": len(examples), "training seconds of speech": round(seconds)}
    return model, processor, {**facts, "log": log}


def _character_error_rate(prediction: Any, processor: Wav2Vec2BertProcessor) -> float:
    hypotheses = processor.batch_decode(np.where(prediction.predictions < 0, 0, prediction.predictions))
    references = [_decode_labels(labels, processor) for labels in prediction.label_ids]
    return jiwer.cer(references, hypotheses)


def _decode_labels(labels: Iterable[int], processor: Wav2Vec2BertProcessor) -> str:
    """The text of character ids (-100 is padding); CTC's merging of repeats does not apply to labels."""
    kept = [int(label) for label in labels if label >= 0]
    return processor.tokenizer.decode(kept, group_tokens=False)
