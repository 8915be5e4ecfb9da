"""What a joint language model of speech units and text is tested for, as rows of a report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..data.speech_text_mixing import Utterance
from ..data.utterances import read_recordings
from ..modeling.modality_generation import Glue
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from .adapter_report import describe_backbone
from .attention_landing import attention_landing, landing_measurements
from .context_retrieval import Retrieval, RetrievalSettings, context_retrieval, retrieval_measurements
from .external_perplexity import Judge, external_perplexity, perplexity_measurements
from .prompted_pairs import CONDITIONS, PromptedPair, prompted_pairs
from .report import Backbone, Corpus, Measurement
from .speech_text_continuations import Sampling
from .unit_transcriber import UnitTranscriber

ACROSS = tuple(name for name in CONDITIONS if name in ("u2t", "t2u"))


@dataclass(frozen=True)
class JointTest:
    """Retrieves contexts and continuations in the four conditions, and looks where attention lands.

    Args:
        model, processor: the joint model.
        settings: how, with its first glue; within a modality there is none.
        also: other glues, by which the two conditions across modalities are measured again.
    """

    model: SUTLMForCausalLM
    processor: SUTLMProcessor
    settings: RetrievalSettings
    also: Sequence[Glue] = ()

    def run(self, name: str, pairs: Sequence[PromptedPair], **facts: Any) -> list[Measurement]:
        """Rows called "`name`: u2t", and for other glues "`name`: u2t by start"; `facts` go into all."""
        self.model.eval()
        rows = self._rows(name, "", self._retrieve(pairs, self.settings, tuple(CONDITIONS)), facts)
        for glue in self.also:
            settings = replace(self.settings, glue=glue)
            rows += self._rows(name, f" by {glue}", self._retrieve(pairs, settings, ACROSS), facts)
        return rows

    def attention(
        self, name: str, utterances: Sequence[Utterance], frame_rate: float, **facts: Any
    ) -> list[Measurement]:
        """Rows called "`name`: attention of layer 1": where the attention of a word lands while it is written."""
        rows: list[Measurement] = []
        for glue in (self.settings.glue, *self.also):
            suffix = "" if glue == self.settings.glue else f" by {glue}"
            landing = attention_landing(self.model, self.processor, utterances, frame_rate, glue)
            found = landing_measurements(landing, split="final test", **facts)
            rows += [replace(row, name=f"{name}: attention of {row.name}{suffix}") for row in found]
        return rows

    def _retrieve(
        self, pairs: Sequence[PromptedPair], settings: RetrievalSettings, conditions: Iterable[str]
    ) -> list[Retrieval]:
        with torch.no_grad():
            return context_retrieval(self.model, self.processor, pairs, settings, conditions)

    @staticmethod
    def _rows(name: str, suffix: str, results: Iterable[Retrieval], facts: Mapping[str, Any]) -> list[Measurement]:
        rows = retrieval_measurements(results, split="final test", **facts)
        return [replace(row, name=f"{name}: {row.name}{suffix}") for row in rows]


@dataclass(frozen=True)
class ContinuationTest:
    """Lets the model go on and an external language model judge how plausible that is (PELM).

    Args:
        transcriber: writes units down; without one only conditions that end in text are judged.
        sampling: how continuations are drawn, with its first glue.
        also: other glues, by which the model goes on across modalities again.
    """

    model: SUTLMForCausalLM
    processor: SUTLMProcessor
    judge: Judge
    transcriber: UnitTranscriber | None = None
    sampling: Sampling = field(default_factory=Sampling)
    also: Sequence[Glue] = ()

    def run(self, name: str, pairs: Sequence[PromptedPair], **facts: Any) -> list[Measurement]:
        """Rows called "`name`: u2t"; `facts` go into all."""
        rows = self._rows(name, "", pairs, self.sampling, tuple(CONDITIONS), facts)
        for glue in self.also:
            found = self._rows(name, f" by {glue}", pairs, replace(self.sampling, glue=glue), ACROSS, facts)
            rows += [row for row in found if row.name.endswith(f" by {glue}")]
        return rows

    def _rows(
        self,
        name: str,
        suffix: str,
        pairs: Sequence[PromptedPair],
        sampling: Sampling,
        conditions: Iterable[str],
        facts: Mapping[str, Any],
    ) -> list[Measurement]:
        """Rows of conditions, with the suffix, and of what they are compared with, without it."""
        judged = [kind for kind in conditions if self.transcriber or CONDITIONS[kind][1] == "text"]
        systems = external_perplexity(
            self.model, self.processor, self.judge, pairs, self.transcriber, sampling, judged
        )
        rows = perplexity_measurements(systems, split="final test", **facts)
        return [replace(row, name=f"{name}: {row.name}{suffix if row.name in CONDITIONS else ''}") for row in rows]

    def transcriber_rows(self, name: str, utterances: Sequence[Utterance], **facts: Any) -> list[Measurement]:
        """The word error rate of the transcriber on whole utterances; no row without one."""
        if self.transcriber is None:
            return []
        errors = self.transcriber.word_errors(utterances, self.sampling.batch_size)
        given = {"items": len(utterances), "resampled": "items", "split": "final test", **facts}
        return [Measurement.of(f"{name}: transcriber of units", "wer", errors.interval(), **given)]


def read_pairs(
    utterances: Sequence[Utterance], source: str, frame_rate: float, first_column: str | None = None
) -> list[PromptedPair]:
    """Prompts and continuations of a corpus's utterances; `first_column` holds the words of each prompt.

    Raises `ValueError` where the corpus has no such column, or an utterance cannot be cut.
    """
    if first_column is None:
        return prompted_pairs(utterances, frame_rate)
    rows = read_recordings(source)
    if first_column not in rows.column_names:
        raise ValueError(f"'{source}' has no column '{first_column}'; it has {', '.join(rows.column_names)}")
    words = {name: len(text.split()) for name, text in zip(rows["id"], rows[first_column], strict=True)}
    return prompted_pairs(utterances, frame_rate, words)


def describe_utterances(name: str, role: str, utterances: Sequence[Utterance], frame_rate: float) -> Corpus:
    """The utterances as a report lists them."""
    frames = sum(utterance.units.frames for utterance in utterances)
    return Corpus(name, role, len(utterances), round(frames / frame_rate / 3600, 3))


def describe_unit_model(processor: SUTLMProcessor) -> Backbone:
    """The unit model that a joint model's audio goes through."""
    return describe_backbone("speech units", str(processor.unit_model_id), processor.unit_model_revision)
