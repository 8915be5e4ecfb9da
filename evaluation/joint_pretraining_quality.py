"""What a pre-trained joint encoder hears and reads: units of frames, letters of texts and of speech, nothing masked.

Shapes: B clips, F frames, T units or frames, V letters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from ..data.joint_pretraining_rows import LabeledClip, PretrainingCollator, ReadText, batches_by_size
from ..modeling.modeling_joint_encoders import CTCHead, JointCTCOutput
from ..modeling.modeling_joint_pretraining import JointEncoderForPreTraining, labels_of_frames
from ..processing.processing_speechlm import SpeechLMProcessor
from .intervals import ratio_interval
from .joint_understanding import likeliest_units
from .report import Measurement

__all__ = ["JointEncoderTest", "LetterReader"]

Pair = tuple[float, float]  # of a clip: what counts, and of how many


@dataclass(frozen=True)
class LetterReader:
    """A pre-training model as the CTC model that its checkpoint loads as."""

    model: JointEncoderForPreTraining

    @property
    def head(self) -> CTCHead:
        """Raises `ValueError` for a model without one."""
        if self.model.ctc_head is None:
            raise ValueError("the model has no CTC head; give it a text_ctc_weight above 0")
        return self.model.ctc_head

    @property
    def device(self) -> torch.device:
        return self.model.device

    def eval(self) -> LetterReader:
        self.model.eval()
        return self

    def __call__(self, return_logits: bool = True, **inputs: Tensor) -> JointCTCOutput:
        """Logits [B, T + 1, V] of speech or of units."""
        output = self.model.base_model(**inputs)
        return self.spelled(output.last_hidden_state, output.frame_attention_mask)

    def spelled(self, states: Tensor, mask: Tensor) -> JointCTCOutput:
        """Logits of states [B, T, D] of the unit encoder, of which `mask` [B, T] leaves some."""
        return JointCTCOutput(logits=self.head(states, mask), logit_lengths=mask.sum(-1))


@dataclass(frozen=True)
class JointEncoderTest:
    """Tests a model on clips with frame labels.

    Args:
        model, processor: what is tested.
        labels: frame labels of a batch, padding included.
        trained: clips that were heard in training; the commonest label of theirs is the majority.
        texts: those that were read in training. Letters are tested on others, and not at all if there are none.
        seed: of intervals, and of the silences and durations of texts.
    """

    model: JointEncoderForPreTraining
    processor: SpeechLMProcessor
    labels: int
    trained: Sequence[LabeledClip]
    texts: Iterable[str]
    seed: int = 0

    def run(self, name: str, clips: Sequence[LabeledClip], dataset: str) -> list[Measurement]:
        """Rows of a report, with 95 % intervals over speakers, or over clips where speakers are not known.

        - `units, speech encoder` and `units, unit encoder`: share of frames whose unit is the right one; a phone that
          the model has no unit for counts as wrong.
        - `letters of text`, `letters of speech`, `letters of speech by its units`: edits by letters. The last has the
          units that the speech encoder hears, in place of its states. Chance is the text of another clip.
        """
        self.model.eval()
        rows: dict[str, list[Pair]] = defaultdict(list)
        places = [place for batch in self._batches(clips) for place in batch]
        for batch in self._batches(clips):
            for row, pairs in self._units([clips[place] for place in batch]).items():
                rows[row] += pairs
        facts = {"split": "final test", "dataset": dataset}
        heard = [clips[place] for place in places]
        majority, chance = self._majority(heard), 1 / len(self.processor.units)
        units = [
            self._measurement(f"{name}: {row}", "accuracy", pairs, heard, chance=chance, majority=majority, **facts)
            for row, pairs in rows.items()
        ]
        return units + self._letter_rows(name, clips, facts)

    def _batches(self, clips: Sequence[LabeledClip]) -> list[list[int]]:
        return batches_by_size([len(clip.labels) for clip in clips], self.labels)

    def _measurement(
        self, name: str, metric: str, pairs: Sequence[Pair], clips: Sequence[LabeledClip], **facts: Any
    ) -> Measurement:
        speakers = [clip.speaker for clip in clips] if all(clip.speaker for clip in clips) else None
        counts, totals = zip(*pairs, strict=True)
        interval = ratio_interval(counts, totals, speakers, seed=self.seed)
        known = {"speakers": len(set(speakers))} if speakers else {}
        resampled = "speakers" if speakers else "items"
        return Measurement.of(name, metric, interval, items=len(pairs), resampled=resampled, **known, **facts)

    # ---- units -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _units(self, clips: Sequence[LabeledClip]) -> dict[str, list[Pair]]:
        output, truth = self._heard(clips)
        predictor = self.model.unit_predictor
        logits = {
            "units, speech encoder": predictor.speech_logits(output.speech_hidden_state),
            "units, unit encoder": predictor.unit_logits(output.last_hidden_state),
        }
        valid = truth >= 0
        frames = valid.sum(-1).tolist()
        return {
            row: list(zip(((scores.argmax(-1) == truth) & valid).sum(-1).tolist(), frames, strict=True))
            for row, scores in logits.items()
        }

    def _heard(self, clips: Sequence[LabeledClip]) -> tuple[Any, Tensor]:
        """What the model says of clips, and the true unit of every frame [B, F], -100 where there is none."""
        batch = self._collator.speech(clips)
        labels = batch.pop("labels").to(self.model.device)
        output = self.model(**{name: tensor.to(self.model.device) for name, tensor in batch.items()})
        config, mask = self.model.config, output.frame_attention_mask
        truth = labels_of_frames(labels, mask.shape[1], config.label_rate / config.frame_rate)
        missing = mask.shape[1] - truth.shape[1]
        return output, torch.nn.functional.pad(truth, (0, missing), value=-100).masked_fill(mask == 0, -100)

    @property
    def _collator(self) -> PretrainingCollator:
        return PretrainingCollator(self.processor, self.model.config)

    def _majority(self, clips: Sequence[LabeledClip]) -> float:
        """How often the commonest label of training is right."""
        counts = sum((Counter(clip.labels.tolist()) for clip in self.trained), Counter())
        commonest = counts.most_common(1)[0][0]
        return float(np.mean(np.concatenate([clip.labels for clip in clips]) == commonest))

    # ---- letters ---------------------------------------------------------------------------------------------------

    def _letter_rows(self, name: str, clips: Sequence[LabeledClip], facts: dict[str, Any]) -> list[Measurement]:
        known = {text.lower() for text in self.texts}
        told = [clip for clip in clips if clip.text.strip()]
        fair = [clip for clip in told if clip.text.lower() not in known]
        if not known or not fair or self.model.ctc_head is None:
            return []
        left = len(told) - len(fair)
        note = f"{left} clips whose texts were trained on are left out" if left else ""
        rows: dict[str, list[Pair]] = defaultdict(list)
        order: list[LabeledClip] = []
        for batch in self._batches(fair):
            part = [fair[place] for place in batch]
            order += part
            for row, written in self._letters(part).items():
                rows[row] += [self._edits(text, clip.text) for text, clip in zip(written, part, strict=True)]
        others = [self._edits(other.text, one.text) for one, other in zip(order, order[1:] + order[:1], strict=True)]
        chance = float(np.divide(*np.sum(others, axis=0))) if len(order) > 1 else None
        return [
            self._measurement(f"{name}: {row}", "cer", pairs, order, chance=chance, note=note, **facts)
            for row, pairs in rows.items()
        ]

    @torch.no_grad()
    def _letters(self, clips: Sequence[LabeledClip]) -> dict[str, list[str]]:
        output, _ = self._heard(clips)
        heard = likeliest_units(self.model, output)
        units, mask = self._collator.units([ReadText(clip.text, self.seed) for clip in clips])
        reader, device = LetterReader(self.model), self.model.device
        frames = output.frame_attention_mask
        return {
            "letters of text": self._read(reader(input_ids=units.to(device), unit_attention_mask=mask.to(device))),
            "letters of speech": self._read(reader.spelled(output.last_hidden_state, frames)),
            "letters of speech by its units": self._read(reader(input_ids=heard, unit_attention_mask=frames)),
        }

    def _read(self, output: JointCTCOutput) -> list[str]:
        best, lengths = output["logits"].argmax(-1).tolist(), output["logit_lengths"].tolist()
        return [self.processor.decode_ctc(row[:length]) for row, length in zip(best, lengths, strict=True)]

    def _edits(self, written: str, text: str) -> Pair:
        reference = self.processor.decode_letters(self.processor.letter_ids(text))
        return Levenshtein.distance(written.lower(), reference.lower()), len(reference)
