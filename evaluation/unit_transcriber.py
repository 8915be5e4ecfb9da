"""Speech units to text, by a joint language model that was trained on units followed by their text.

Such a model is trained on concatenated sequences alone, speech first: `Mixture(speech=0, text=0, paired=1,
alternating=0, concatenation=Concatenation(speech_first=1.0))`. The paper (arXiv 2310.08715) needs a transcriber and
does not say which; this one is our reading.
"""

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoProcessor

from ..data.speech_text_mixing import Utterance
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from ..processing.speech_units import deduplicate
from .speech_text_continuations import continue_sequences
from .word_error_rate import WordErrors, count_word_errors


class UnitTranscriber:
    """Writes down what units say.

    Args:
        model, processor: trained on `<U_EN> units <T_EN> text`.
        beams: 1 takes the likeliest token each time.
        most_tokens: of a transcript, which is text alone.

    Raises `ValueError` where the model is no SUTLM.
    """

    def __init__(self, model: Any, processor: Any, beams: int = 1, most_tokens: int = 128) -> None:
        if not (isinstance(model, SUTLMForCausalLM) and isinstance(processor, SUTLMProcessor)):
            raise ValueError(
                f"a transcriber of units is a SUTLMForCausalLM with its SUTLMProcessor; this is a "
                f"{type(model).__name__} with a {type(processor).__name__}"
            )
        self.model, self.processor = model.eval(), processor
        self.beams, self.most_tokens = beams, most_tokens

    @classmethod
    def from_pretrained(
        cls, source: str, revision: str | None = None, beams: int = 1, most_tokens: int = 128, **hub: Any
    ) -> "UnitTranscriber":
        """A Hub id or folder; `hub` are arguments of the download, such as `token`."""
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, **hub)
        processor = AutoProcessor.from_pretrained(source, revision=revision, **hub)
        return cls(model, processor, beams, most_tokens)

    def transcribe(self, clips: Sequence[Sequence[int]], batch_size: int = 32) -> list[str]:
        """The text of each list of units, in order; "" where there are none.

        Neighbors that are the same unit count once, as in training. A clip's text does not depend on the batch.

        Raises `ValueError` for a unit outside the codebook, and a clip too long for the model.
        """
        sequences = [self.processor.sequence([("speech", deduplicate(clip))]) for clip in clips]
        texts = [""] * len(clips)
        order = sorted((place for place, clip in enumerate(clips) if len(clip)), key=lambda p: len(sequences[p]))
        for start in tqdm(range(0, len(order), batch_size), desc="transcribing", unit="batch", leave=False):
            batch = order[start : start + batch_size]
            for place, text in zip(batch, self._texts([sequences[place] for place in batch]), strict=True):
                texts[place] = text
        return texts

    def _texts(self, sequences: list[list[int]]) -> list[str]:
        answers = continue_sequences(
            self.model, self.processor, sequences, "speech", "text", "start", self.most_tokens, beams=self.beams
        )
        spans = [self.processor.spans(tokens) for tokens, _ in answers]
        return [" ".join(" ".join(text for _, text in row).split()) for row in spans]

    def word_errors(self, utterances: Sequence[Utterance], batch_size: int = 32) -> WordErrors:
        """Of transcripts of whole utterances; `.rate` and `.interval()` are the word error rate.

        Raises `ValueError` for an utterance without text.
        """
        for utterance in utterances:
            if not utterance.text:
                raise ValueError(f"utterance '{utterance.id}' has no text to compare with; leave it out")
        found = self.transcribe([utterance.units.units for utterance in utterances], batch_size)
        return count_word_errors([utterance.text for utterance in utterances], found)

    def check_units_of(self, processor: SUTLMProcessor) -> None:
        """Raises `ValueError` where another processor's units are not those that this model was trained on."""
        mine, other = self.processor, processor
        if mine.segmenter.units != other.segmenter.units:
            raise ValueError(
                f"the transcriber reads {mine.segmenter.units} units and the model says {other.segmenter.units}; "
                f"train both on one codebook"
            )
        if None not in (mine.unit_model_hash, other.unit_model_hash) and mine.unit_model_hash != other.unit_model_hash:
            raise ValueError(
                f"the transcriber was made for the units of '{mine.unit_model_id}' and the model for those of "
                f"'{other.unit_model_id}'; train both on one codebook"
            )


__all__ = ["UnitTranscriber"]
