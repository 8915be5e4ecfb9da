"""Few-shot prompts made of texts and clips, and the systems that read them: speech, text, or units of speech.

A prompt is the same for every system; what differs is what a reader puts where a clip stands. Shapes: T tokens or
speech embeddings of a part, A speech embeddings of a clip, D width of the LLM.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Protocol, TypeAlias, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import BatchFeature

from ..data.encoded_speech import StoredEncoder
from ..modeling.modality_generation import Glue
from ..modeling.modeling_speech_text_generation import SpeechTextForConditionalGeneration
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor
from ..processing.processing_sutlm import SUTLMProcessor
from ..processing.speech_inputs import pad_features, padding_masks


@dataclass(frozen=True, eq=False)
class Clip:
    """One utterance of a prompt. Two are equal where id, text, and whether there is audio agree.

    id: names the utterance, wherever it occurs.
    text: what is said.
    audio: whatever `load_audio` takes, samples alone being at the processor's rate. Without it, every reader reads
        the text.
    """

    id: str
    text: str
    audio: Any = None

    @property
    def is_spoken(self) -> bool:
        return self.audio is not None

    @property
    def _identity(self) -> tuple[str, str, bool]:
        return self.id, self.text, self.is_spoken

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clip) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


Segment: TypeAlias = str | Clip


@dataclass(frozen=True)
class FewShotPrompt:
    """What is read before an answer: an instruction and demonstrations, then a query.

    Prompts whose `demonstrations` are equal are read together. The query ends where the answer begins. Special tokens
    are written out in the texts; readers add none.
    """

    demonstrations: tuple[Segment, ...]
    query: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not self.query:
            raise ValueError("a prompt has no query; it holds at least what stands before the answer")


class PromptReader(Protocol):
    """A language model, and what it reads where a prompt has a clip.

    name: in reports. language_model: scores answers, a causal LM or an encoder-decoder, which takes `inputs_embeds`.
    """

    name: str
    language_model: PreTrainedModel
    tokenizer: Any

    def embed(self, segments: Sequence[tuple[Segment, ...]]) -> list[Tensor]:
        """[T, D] for each part: all demonstrations of a prompt, or its query.

        Adjacent texts of a part are tokenized as one, with a space where a clip that is read as text would run into a
        word. No token crosses two parts, so that demonstrations and query are the same apart and together.
        """

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens of answers, of any shape -> [..., D]."""

    def answer_tokens(self, label: str, after: str = "") -> list[int]:
        """The tokens that a label adds behind `after`, the text that the query ends in.

        A label is written as in the demonstrations, with its leading space, and with what ends it if that is scored.
        """


class _ReadsTokens:
    """What readers share whose texts are tokenized by the language model's own tokenizer."""

    language_model: PreTrainedModel
    tokenizer: Any

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(tokens)

    def answer_tokens(self, label: str, after: str = "") -> list[int]:
        return _added_tokens(self._tokens, label, after)


class TextPromptReader(_ReadsTokens):
    """A language model that reads clips as text: as what is said, or as what a recognizer heard.

    Args:
        language_model: a causal LM or an encoder-decoder.
        tokenizer: of that model.
        transcripts: of clips with audio, by their id; what is said where not given.
        name: in reports.

    Raises `ValueError` when reading a clip with audio that has no transcript.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        tokenizer: Any,
        transcripts: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.language_model, self.tokenizer, self.transcripts = language_model.eval(), tokenizer, transcripts
        self.name = name or ("text" if transcripts is None else "cascade")

    def _text(self, segment: Segment) -> str:
        if isinstance(segment, str):
            return segment
        if self.transcripts is None or not segment.is_spoken:
            return segment.text
        return _known(self.transcripts, segment, "transcript")

    @torch.no_grad()
    def embed(self, segments: Sequence[tuple[Segment, ...]]) -> list[Tensor]:
        return [_embedded(self, self._tokens(_joined(part, self._text))) for part in segments]


class SpeechPromptReader(_ReadsTokens):
    """A model with a projector between a speech encoder and a language model, which hears clips.

    Args:
        model, processor: of the same kind.
        name: in reports.
        batch_size: clips encoded together.
        remembered: embeddings of so many clips are kept, for clips come back as neighbors of other queries. After
            training the model, make a new reader.
        encoder: what the model's speech encoder says of samples, where a store keeps it; the model's own where not
            given.

    Raises `AudioError` when reading a clip that cannot be used, and `ValueError` when reading a text that holds the
    placeholder of speech.
    """

    def __init__(
        self,
        model: SpeechTextForConditionalGeneration,
        processor: SpeechTextAdapterProcessor,
        name: str = "speech",
        batch_size: int = 8,
        remembered: int = 1024,
        encoder: StoredEncoder | None = None,
    ) -> None:
        self.model, self.processor, self.name = model.eval(), processor, name
        self.language_model, self.tokenizer = model.model.language_model, processor.tokenizer
        self.batch_size, self.remembered, self.encoder = batch_size, remembered, encoder
        self._heard: dict[Clip, Tensor] = {}

    def _text(self, segment: Segment) -> str:
        if isinstance(segment, str):
            return segment
        return self.processor.audio_token if segment.is_spoken else segment.text

    @torch.no_grad()
    def embed(self, segments: Sequence[tuple[Segment, ...]]) -> list[Tensor]:
        spoken = [_spoken(part) for part in segments]
        speech = self._hear([clip for clips in spoken for clip in clips])
        return [
            self._merged(_joined(part, self._text), [speech[clip] for clip in clips])
            for part, clips in zip(segments, spoken, strict=True)
        ]

    def _merged(self, text: str, speech: list[Tensor]) -> Tensor:
        """[T, D]: the text, with a clip [A, D] where each placeholder stands."""
        tokens = torch.tensor(self._tokens(text), dtype=torch.long, device=self.language_model.device)
        places = (tokens == self.processor.audio_token_id).nonzero()[:, 0].tolist()
        if len(places) != len(speech):
            raise ValueError(f"a text holds {self.processor.audio_token}, which stands for clips; remove it: {text!r}")
        before, *behind = (self.embed_tokens(run) for run in _between(tokens, places))
        pieces = [piece for pair in zip(speech, behind, strict=True) for piece in pair]
        return torch.cat([before, *(piece.to(before.dtype) for piece in pieces)])

    def _hear(self, clips: Iterable[Clip]) -> dict[Clip, Tensor]:
        """Embeddings [A, D] of clips, new ones in batches; the oldest of too many are forgotten."""
        wanted = list(dict.fromkeys(clips))
        new = [clip for clip in wanted if clip not in self._heard]
        for start in range(0, len(new), self.batch_size):
            self._heard |= self._encoded(new[start : start + self.batch_size])
        found = {clip: self._heard[clip] for clip in wanted}
        for clip in list(self._heard)[: max(0, len(self._heard) - self.remembered)]:
            del self._heard[clip]
        return found

    def _encoded(self, clips: list[Clip]) -> dict[Clip, Tensor]:
        samples = [self.processor.load(clip.audio, name=clip.id) for clip in clips]
        inputs, counts = self._extracted(samples) if self.encoder is None else self._kept(self.encoder(samples))
        inputs = inputs.to(self.model.device)
        embeddings = self.model.model.get_audio_features(**inputs, return_dict=True).pooler_output
        return dict(zip(clips, embeddings.split(counts), strict=True))

    def _extracted(self, samples: list[Any]) -> tuple[BatchFeature, list[int]]:
        """Features of clips, and how many speech embeddings become of each."""
        inputs = self.processor([self.processor.audio_token] * len(samples), samples, return_tensors="pt")
        counts = (inputs.pop("input_ids") == self.processor.audio_token_id).sum(1).tolist()
        inputs.pop("attention_mask")
        return inputs, counts

    def _kept(self, frames: list[list[Any]]) -> tuple[BatchFeature, list[int]]:
        """The same of encoder frames [F, D] of each chunk of each clip."""
        chunks = [chunk for clip in frames for chunk in clip]
        padded = pad_features(chunks, time_axis=0)
        masks = padding_masks([len(chunk) for chunk in chunks], padded.shape[1])
        counts = [sum(self.processor.embeddings(len(chunk)) for chunk in clip) for clip in frames]
        return BatchFeature({"encoder_frames": padded, "encoder_frames_mask": masks}, tensor_type="pt"), counts


class UnitPromptReader:
    """A joint language model of text and speech units, which reads clips as units.

    A query that ends in speech is continued in text. Our reading: the paper has no prompts with examples.

    Args:
        model, processor: of the same kind.
        utterances: deduplicated units of clips with audio, by their id.
        name: in reports.
        glue: what stands where a part changes from text to speech or back: "start" (`<T_EN>`, `<U_EN>`), for models
            trained on speech and text in a row, or "switch" (`<U2T>`, `<T2U>`), for those trained on alternating
            speech and text. Every part begins with a start.

    Raises `ValueError` for another glue, and when reading a clip with audio that has no units.
    """

    def __init__(
        self,
        model: SUTLMForCausalLM,
        processor: SUTLMProcessor,
        utterances: Mapping[str, Sequence[int]],
        name: str = "units",
        glue: Glue = "start",
    ) -> None:
        if glue not in get_args(Glue):
            raise ValueError(f"there is no glue '{glue}'; choose {' or '.join(get_args(Glue))}")
        self.language_model, self.processor, self.utterances = model.eval(), processor, utterances
        self.tokenizer, self.name, self.glue = processor.tokenizer, name, glue

    def _tokens(self, part: tuple[Segment, ...]) -> list[int]:
        spans: list[tuple[str, Any]] = []
        for is_speech, run in groupby(part, lambda one: bool(_spoken([one]))):
            if is_speech:
                spans += [("speech", _known(self.utterances, clip, "units")) for clip in _spoken(run)]
            else:
                spans.append(("text", _joined(run, lambda one: one if isinstance(one, str) else one.text)))
        return self.processor.sequence(spans, self.glue == "switch", continue_with="text") if spans else []

    @torch.no_grad()
    def embed(self, segments: Sequence[tuple[Segment, ...]]) -> list[Tensor]:
        return [_embedded(self, self._tokens(part)) for part in segments]

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.language_model.model.embed(tokens)

    def answer_tokens(self, label: str, after: str = "") -> list[int]:
        return _added_tokens(self.processor.text_tokens, label, after)


def read_whole(reader: PromptReader, prompts: Sequence[FewShotPrompt]) -> list[Tensor]:
    """[T, D] of each prompt, from its demonstrations to the end of its query."""
    demonstrations = list(dict.fromkeys(prompt.demonstrations for prompt in prompts))
    beginnings = dict(zip(demonstrations, reader.embed(demonstrations), strict=True))
    queries = reader.embed([prompt.query for prompt in prompts])
    pairs = zip(prompts, queries, strict=True)
    return [torch.cat([beginnings[prompt.demonstrations], query]) for prompt, query in pairs]


def label_tokens(reader: PromptReader, prompts: Sequence[FewShotPrompt], labels: Sequence[str]) -> list[list[int]]:
    """The tokens of each label behind the prompts.

    Raises `ValueError` where there are no labels, for labels that have no tokens or the same ones, and for prompts
    whose ends turn labels into other tokens.
    """
    endings = sorted({_ending(prompt.query) for prompt in prompts}) or [""]
    tokens, *others = ([reader.answer_tokens(label, ending) for label in labels] for ending in endings)
    for ending, other in zip(endings[1:], others, strict=True):
        if other != tokens:
            raise ValueError(
                f"labels are other tokens behind {ending!r} than behind {endings[0]!r}; score them in two calls"
            )
    _check_labels(reader.name, dict(zip(labels, map(tuple, tokens), strict=True)), len(labels))
    return tokens


def _check_labels(name: str, tokens: dict[str, tuple[int, ...]], count: int) -> None:
    if not count or not all(tokens.values()):
        raise ValueError(f"there are no labels, or one of them has no tokens: {', '.join(map(repr, tokens))}")
    labels: dict[tuple[int, ...], list[str]] = {}
    for label, own in tokens.items():
        labels.setdefault(own, []).append(label)
    if len(labels) < count:
        same = [" ".join(map(repr, alike)) for alike in labels.values() if len(alike) > 1] or ["one that is repeated"]
        raise ValueError(
            f"labels are the same tokens to '{name}': {', '.join(same)}; choose words that it tells apart"
        )


def _ending(query: tuple[Segment, ...]) -> str:
    """The text behind the last clip."""
    texts = [*takewhile(lambda one: isinstance(one, str), reversed(query))]
    return "".join(map(str, reversed(texts)))


def _spoken(segments: Iterable[Segment]) -> list[Clip]:
    """The clips with audio."""
    return [one for one in segments if isinstance(one, Clip) and one.is_spoken]


def _joined(segments: Iterable[Segment], text_of: Callable[[Segment], str]) -> str:
    """One text, with a space between a clip and a word that would run into each other: speech needs none there."""
    text, was_clip = "", False
    for segment in segments:
        is_clip, more = isinstance(segment, Clip), text_of(segment)
        meet = (is_clip or was_clip) and text[-1:].isalnum() and more[:1].isalnum()
        text, was_clip = text + " " * meet + more, is_clip
    return text


def _embedded(reader: PromptReader, tokens: list[int]) -> Tensor:
    return reader.embed_tokens(torch.tensor(tokens, dtype=torch.long, device=reader.language_model.device))


def _between(tokens: Tensor, places: list[int]) -> list[Tensor]:
    """The runs of tokens [T] before, between and behind the places, which belong to none; some may be empty."""
    first, *others = tokens.tensor_split(places)
    return [first, *(run[1:] for run in others)]


def _known(contents: Mapping[str, Any], clip: Clip, kind: str) -> Any:
    if clip.id not in contents:
        raise ValueError(f"clip '{clip.id}' has no {kind}; make them for every clip of the prompts")
    return contents[clip.id]


def _added_tokens(tokenize: Callable[[str], list[int]], label: str, after: str) -> list[int]:
    """What a text's tokens grow by when the label is appended; the label's own where the two would merge.

    Alone, a label is not always what it is in a text: many tokenizers put a space of their own before the first word.
    """
    before, whole = tokenize(after), tokenize(after + label)
    added = whole[len(before) :] if whole[: len(before)] == before else []
    return added or tokenize(label)
