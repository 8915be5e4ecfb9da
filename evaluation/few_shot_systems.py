"""Systems of the few-shot harness and embeddings of its neighbors, from what a YAML file names."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)

from ..data.encoded_speech import StoredEncoder
from ..modeling.modeling_frozen_backbones import fingerprint, quiet_loading
from ..processing.audio_loading import load_audio
from .cascade import load_recognizer, transcribe_clips
from .few_shot_embeddings import SentenceEmbedder, SpeechEmbedder, embed_clips
from .few_shot_harness import FewShotSystem, NeighborSource
from .few_shot_rules import PromptScorer, Rule
from .few_shot_tasks import FewShotMaterial, PromptTemplate
from .prompt_readers import Clip, PromptReader, SpeechPromptReader, TextPromptReader, UnitPromptReader
from .word_error_rate import normalize_librispeech

Made = TypeVar("Made")


@dataclass(frozen=True)
class SystemSettings:
    """A system: what kind, and which models.

    kind: "adapter" or "seal", a model that hears clips; "sutlm", which reads their units; "cascade", a language model
        that reads what a recognizer heard; "text", one that reads what was said, the topline.
    model: Hub id or folder, of a cascade that of its language model. With {seed} in it each seed has its own.
    recognizer: of a cascade, any CTC or sequence-to-sequence speech recognizer.
    plain_text: transcripts are read in small letters without punctuation.
    glue: of a "sutlm", see `UnitPromptReader`.
    template: its way to write prompts, where it is not that of the tasks.
    demonstrations: as what clips are shown to it; "text" alone where not given for a system of that kind.
    """

    kind: Literal["adapter", "seal", "sutlm", "cascade", "text"]
    model: str
    revision: str | None = None
    recognizer: str | None = None
    plain_text: bool = False
    glue: Literal["start", "switch"] = "start"
    dtype: str = "float32"
    template: PromptTemplate | None = None
    demonstrations: list[Literal["speech", "text"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.kind == "cascade") != (self.recognizer is not None):
            raise ValueError(f"the system is of kind '{self.kind}'; a cascade has a recognizer, and no other system")

    def facts(self) -> dict[str, Any]:
        """Everything that decides its answers, but for the rules."""
        recognizer = model_facts(self.recognizer) if self.recognizer else None
        own = {"kind": self.kind, "plain_text": self.plain_text, "glue": self.glue, "dtype": self.dtype}
        return {**own, "model": model_facts(self.model, self.revision), "recognizer": recognizer}


@dataclass(frozen=True)
class NeighborSettings:
    """Where nearest neighbors are looked for.

    of: "encoder" or "projector", means of what a model that hears clips makes of them; "text", of what a text model
        makes of their transcripts.
    model: of "encoder" and "projector" a speech-text model; of "text" any text encoder or language model.
    recognizer: hears the transcripts of "text"; the true ones are read where not given.
    other_texts: clips that say what the query says are passed over.
    """

    of: Literal["encoder", "projector", "text"]
    model: str
    revision: str | None = None
    recognizer: str | None = None
    other_texts: bool = False

    def facts(self) -> dict[str, Any]:
        recognizer = model_facts(self.recognizer) if self.recognizer else None
        return {"of": self.of, "model": model_facts(self.model, self.revision), "recognizer": recognizer}


class PerClip(Mapping[str, Made], Generic[Made]):
    """Something made of each clip when it is first asked for, by the clip's id; then kept."""

    def __init__(self, clips: Mapping[str, Clip], make: Callable[[Clip], Made]) -> None:
        self._clips, self._make = clips, make
        self._made: dict[str, Made] = {}

    def __getitem__(self, name: str) -> Made:
        if name not in self._made:
            self._made[name] = self._make(self._clips[name])
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._clips

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)


class Recognizer:
    """Any speech recognizer of transformers, a CTC model or an encoder-decoder, that hears one clip at a time."""

    def __init__(self, source: str, plain_text: bool = False) -> None:
        self.source, self.plain_text = source, plain_text

    def __call__(self, clip: Clip) -> str:
        text = self._hear(clip).strip()
        return normalize_librispeech(text) if self.plain_text else text

    def _hear(self, clip: Clip) -> str:
        model, processor = self._loaded
        if type(model.config) in MODEL_FOR_CTC_MAPPING:
            return transcribe_clips(model, processor, [clip.audio])[0]
        rate = processor.feature_extractor.sampling_rate
        samples = load_audio(clip.audio, rate, name=clip.id)
        inputs = processor(samples, sampling_rate=rate, return_tensors="pt").to(model.device, model.dtype)
        with torch.no_grad():
            return processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)[0]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        if type(AutoConfig.from_pretrained(self.source)) in MODEL_FOR_CTC_MAPPING:
            model, processor = load_recognizer(self.source)
        else:
            with quiet_loading():
                model = AutoModelForSpeechSeq2Seq.from_pretrained(self.source).eval()
            processor = AutoProcessor.from_pretrained(self.source)
        return model.to(_device()), processor


def make_system(
    name: str,
    settings: SystemSettings,
    materials: Mapping[str, FewShotMaterial],
    rules: tuple[Rule, ...],
    seeds: Sequence[int] = (),
    store: Path | None = None,
    **options: Any,
) -> FewShotSystem:
    """A system whose models are loaded when it is first run.

    Args:
        materials: of all tasks, whose clips it may be asked to hear.
        seeds: of the run, for a model that each has of its own.
        store: folder that keeps what the speech encoders of adapters say, for systems that share one.
        options: of `PromptScorer`.
    """
    if "{seed}" in settings.model:
        own = {seed: replace(settings, model=settings.model.replace("{seed}", str(seed))) for seed in seeds}
        made = {seed: make_system(name, one, materials, rules, store=store, **options) for seed, one in own.items()}
        return replace(made[seeds[0]], of_seeds=made)
    clips = clips_of(materials)

    def load() -> PromptScorer:
        return PromptScorer(_READERS[settings.kind](name, settings, clips, store), rules, **options)

    hears = settings.kind != "text"
    stated = {key: [clip.id for clip in value] if key == "content_free" else value for key, value in options.items()}
    decides = {key: value for key, value in stated.items() if key in ("content_free", "stop")}
    demonstrations = tuple(settings.demonstrations) or (("speech", "text") if hears else ("text",))
    facts = {**settings.facts(), **decides, "rules": list(rules)}
    return FewShotSystem(facts, load, settings.template, demonstrations, hears)


def make_neighbors(settings: NeighborSettings, store: Path) -> NeighborSource:
    """A source of neighbors whose model is loaded when they are first looked for; `store` keeps embeddings."""

    def embed(material: FewShotMaterial) -> Mapping[str, Any]:
        clips = clips_of({"": material})
        if settings.of != "text":
            model, processor = _load_composite(settings.model, settings.revision, "float32")
            return embed_clips(SpeechEmbedder(model, processor, settings.of), list(clips.values()), store)
        model = AutoModel.from_pretrained(settings.model, revision=settings.revision).eval().to(_device())
        tokenizer = AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
        heard = PerClip(clips, Recognizer(settings.recognizer)) if settings.recognizer else None
        return embed_clips(SentenceEmbedder(model, tokenizer, heard), list(clips.values()), store)

    return NeighborSource(settings.facts(), embed, settings.other_texts)


def clips_of(materials: Mapping[str, FewShotMaterial]) -> dict[str, Clip]:
    """Every clip of several tasks by its id. Raises `ValueError` where two that say different things share one."""
    found: dict[str, Clip] = {}
    for name, material in materials.items():
        for one in material.clips.values():
            if found.setdefault(one.clip.id, one.clip) != one.clip:
                raise ValueError(f"clip '{one.clip.id}' of '{name}' is another in another task; run them apart")
    return found


def model_facts(source: str, revision: str | None = None) -> dict[str, Any]:
    """What tells one model from another: a folder's weights and configuration, or id and revision on the Hub."""
    folder = Path(source)
    if not folder.is_dir():
        return {"id": source, "revision": revision}
    content = (folder / "config.json").read_bytes()
    return {"weights": fingerprint(folder), "configuration": hashlib.sha256(content).hexdigest()}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load_composite(source: str, revision: str | None, dtype: str) -> tuple[Any, Any]:
    try:
        with quiet_loading():
            model = AutoModelForMultimodalLM.from_pretrained(source, revision=revision, dtype=getattr(torch, dtype))
    except OSError as error:
        raise ValueError(
            f"'{source}' is no folder here, and the Hub does not give it; train it first, or name another model"
        ) from error
    return model.eval().to(_device()), AutoProcessor.from_pretrained(source, revision=revision)


def _speech_reader(name: str, settings: SystemSettings, clips: Mapping[str, Clip], store: Path | None) -> PromptReader:
    model, processor = _load_composite(settings.model, settings.revision, settings.dtype)
    encoder = StoredEncoder(model, processor, store) if store else None
    return SpeechPromptReader(model, processor, name=name, encoder=encoder)


def _text_reader(name: str, settings: SystemSettings, clips: Mapping[str, Clip], store: Path | None) -> PromptReader:
    config = AutoConfig.from_pretrained(settings.model, revision=settings.revision)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(settings.model, revision=settings.revision, dtype=getattr(torch, settings.dtype))
    tokenizer = AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
    heard = PerClip(clips, Recognizer(settings.recognizer, settings.plain_text)) if settings.recognizer else None
    return TextPromptReader(model.to(_device()), tokenizer, heard, name)


def _unit_reader(name: str, settings: SystemSettings, clips: Mapping[str, Clip], store: Path | None) -> PromptReader:
    model = AutoModelForCausalLM.from_pretrained(
        settings.model, revision=settings.revision, dtype=getattr(torch, settings.dtype)
    )
    processor = AutoProcessor.from_pretrained(settings.model, revision=settings.revision)
    units = PerClip(clips, lambda clip: processor.units(clip.audio, name=clip.id))
    return UnitPromptReader(model.to(_device()), processor, units, name, settings.glue)


_READERS: Mapping[str, Callable[[str, SystemSettings, Mapping[str, Clip], Path | None], PromptReader]] = {
    "adapter": _speech_reader,
    "seal": _speech_reader,
    "sutlm": _unit_reader,
    "cascade": _text_reader,
    "text": _text_reader,
}
