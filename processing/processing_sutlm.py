"""Text, speech units and audio in; tokens of one joint vocabulary out, and back. Saved beside a SUTLM.

    <U_EN> 12 66 17                  units            [("speech", [12, 66, 17])]
    <T_EN> how are you               text             [("text", "how are you")]
    <U_EN> 12 66 17 <T_EN> how       concatenated     [("speech", [12, 66, 17]), ("text", "how")]
    <T_EN> how <T2U> 66 17           alternating      [("text", "how"), ("speech", [66, 17])]

A token is an id of the vocabulary: first come those of the text tokenizer, then the four signs, then the unit pieces.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from numbers import Number
from operator import index
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModel, AutoProcessor, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding
from transformers.utils.hub import cached_file

from ..configuration.hub_pushing import PushedProcessor
from .audio_loading import AudioSource
from .pretrained_sources import check_is_there, commit_of
from .speech_units import Units, deduplicate, smooth
from .unit_text import BASIC_PLANE_CHARACTERS, UnitSegmenter

__all__ = ["PretrainedUnits", "SUTLMProcessor", "UnitExtractor"]

UNIT_PIECES_FILE = "unit_pieces.model"
START = {"speech": "<U_EN>", "text": "<T_EN>"}
SWITCH_TO = {"text": "<U2T>", "speech": "<T2U>"}
SIGNS = (*START.values(), *SWITCH_TO.values())
# What a unit model's units depend on.
_DECIDES_UNITS = (
    *("audio_weights", "audio_dtype", "layer", "encoding", "frame_kernel", "frame_stride", "sampling_rate"),
    *("averaging", "codebook_hash", "smoothing"),
)
_FROM_THE_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")

Span = tuple[str, Any]


class UnitExtractor(Protocol):
    """What the processor asks of whatever makes units of audio."""

    @property
    def clusters(self) -> int:
        """K, the size of the codebook."""

    @property
    def hash(self) -> str:
        """Two extractors of one hash give the same units."""

    def extract(self, audio: AudioSource, sampling_rate: int | None = None, name: str | None = None) -> Units:
        """Units of one clip; `sampling_rate` is that of bare samples, errors call it `name`."""


class PretrainedUnits:
    """A saved unit model and its processor, as one extractor.

    Args:
        source: Hub id or folder.
        revision: of a Hub repository.
        hub: arguments of every download, such as `token`.

    Attributes:
        revision: the commit that was loaded; `None` for a folder.

    Raises `FileNotFoundError` when the folder is gone.
    """

    def __init__(self, source: str, revision: str | None = None, hub: dict[str, Any] | None = None) -> None:
        check_is_there(source, "unit model", "unit_model_id")
        self.revision = commit_of(source, revision, hub or {})
        pin = {} if self.revision is None else {"revision": self.revision}
        self.processor = AutoProcessor.from_pretrained(source, **pin, **(hub or {}))
        self.model = AutoModel.from_pretrained(source, **pin, **(hub or {})).eval()

    @property
    def clusters(self) -> int:
        return self.model.config.clusters

    @property
    def hash(self) -> str:
        """SHA-256 of what decides a unit: encoder weights, layer, precision, framing, averaging, codebook, chunks,
        smoothing."""
        decides = {name: getattr(self.model.config, name) for name in _DECIDES_UNITS}
        decides["chunk_seconds"] = self.processor.chunk_seconds
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def extract(self, audio: AudioSource, sampling_rate: int | None = None, name: str | None = None) -> Units:
        """Units of one clip, long audio in chunks. Raises `AudioError` when it cannot be used."""
        clip = self.processor.load(audio, sampling_rate, name=name)
        frames = [
            unit for chunk in self.processor.chunks(clip) for unit in self._frames(self.processor.extract(chunk))
        ]
        return deduplicate(smooth(frames, self.model.config.smoothing))

    def _frames(self, extracted: Any) -> list[int]:
        features = self.processor.pad([extracted])
        return self.model.extract(**{name: torch.from_numpy(array) for name, array in features.items()})[0]


class SUTLMProcessor(PushedProcessor):
    """Joins a text tokenizer and the pieces of speech units into one vocabulary.

    Each unit piece is an added token, so that `AutoTokenizer` alone reads a saved folder and decodes every token: a
    unit piece to private-use characters. It also encodes strings of them, by the longest match; this processor
    segments as SentencePiece does, which is what a model should be trained on.

    Text is text: it is tokenized as by the text tokenizer alone, whatever it says. Private-use characters, `<U_EN>` or
    `</s>` in it are spelled out and never become units, signs or the end of a sequence.

    Args:
        tokenizer: the text tokenizer, of any family that has a `tokenizer.json`; it is copied and extended. Or one
            that has been extended already.
        segmenter: the unit pieces.
        chat_template: as in transformers.
        unit_model_id, unit_model_revision, unit_model_hash: the unit model that audio goes through, which is not
            loaded before it is needed. `name_unit_model` fills these in; set the id where a folder has moved.

    Raises:
        ValueError: the tokenizer has no end token, or no `tokenizer.json`; it has tokens that look like unit pieces
            or signs; it was extended for other pieces.
    """

    def __init__(
        self,
        tokenizer: Any,
        segmenter: UnitSegmenter,
        chat_template: str | None = None,
        unit_model_id: str | None = None,
        unit_model_revision: str | None = None,
        unit_model_hash: str | None = None,
    ) -> None:
        tokenizer = _joint_tokenizer(tokenizer, segmenter)
        self.segmenter = segmenter
        self.unit_model_id, self.unit_model_revision = unit_model_id, unit_model_revision
        self.unit_model_hash = unit_model_hash
        self._extractor: UnitExtractor | None = None
        self._signs = {sign: tokenizer.convert_tokens_to_ids(sign) for sign in SIGNS}
        first = self._signs[SIGNS[0]] + len(SIGNS)
        self.unit_token_range = range(first, first + len(segmenter))
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)

    # ---- the vocabulary --------------------------------------------------------------------------------------------

    def token(self, name: str) -> int:
        """The id of `<U_EN>`, `<T_EN>`, `<U2T>` or `<T2U>`. Raises `ValueError` for another name."""
        if name not in self._signs:
            raise ValueError(f"there is no sign '{name}'; choose one of {' '.join(SIGNS)}")
        return self._signs[name]

    @property
    def eos_token_id(self) -> int:
        """What ends a sequence."""
        return self.tokenizer.eos_token_id

    @property
    def vocab_size(self) -> int:
        """Tokens of text, signs and unit pieces; a model needs as many rows at least."""
        return len(self.tokenizer)

    @property
    def config_fields(self) -> dict[str, int]:
        """What a `SUTLMConfig` says of the vocabulary, but for its size."""
        signs = {
            "unit_start_token_id": START["speech"],
            "text_start_token_id": START["text"],
            "unit_to_text_token_id": SWITCH_TO["text"],
            "text_to_unit_token_id": SWITCH_TO["speech"],
        }
        special = {name: getattr(self.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return {
            "unit_token_start": self.unit_token_range.start,
            "unit_token_count": len(self.unit_token_range),
            **{name: self.token(sign) for name, sign in signs.items()},
            **special,
        }

    @cached_property
    def _control_tokens(self) -> frozenset[int]:
        """What belongs neither to text nor to speech, and ends a span of either. Unknown text is text."""
        tokenizer = self.tokenizer
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *self._signs.values()}
        return frozenset((set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}) | ends) - {None}

    @cached_property
    def _text_backend(self) -> Tokenizer:
        """The text tokenizer as it was before units were added, deaf to special tokens too."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        ours = range(self._signs[SIGNS[0]], self.unit_token_range.stop)
        backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] not in ours]
        text_backend = Tokenizer.from_str(json.dumps(backend))
        text_backend.encode_special_tokens = True
        text_backend.no_padding()
        text_backend.no_truncation()
        return text_backend

    # ---- into tokens -----------------------------------------------------------------------------------------------

    def text_tokens(self, text: str) -> list[int]:
        """Tokens of a text, no special ones among them.

        Raises `ValueError` for a text that the text tokenizer has no other way to spell than by a special token.
        """
        tokens = self._text_backend.encode(text, add_special_tokens=False).ids
        ours = range(self._signs[SIGNS[0]], self.unit_token_range.stop)  # what is behind moves up without them
        tokens = [token + len(ours) if token >= ours.start else token for token in tokens]
        if not self._control_tokens.isdisjoint(tokens):
            control = self.tokenizer.convert_ids_to_tokens(next(t for t in tokens if t in self._control_tokens))
            raise ValueError(
                f"a text holds '{control}', which this text tokenizer cannot tell from its special token; remove it "
                f"from: {text[:80]!r}"
            )
        return tokens

    def unit_tokens(self, units: Sequence[int] | Units) -> list[int]:
        """Tokens of one span of deduplicated units. Raises `ValueError` for a unit outside the codebook."""
        start = self.unit_token_range.start
        return [start + piece for piece in self.segmenter.encode(units.units if isinstance(units, Units) else units)]

    def sequence(
        self,
        spans: Iterable[Span],
        alternating: bool = False,
        continue_with: Literal["speech", "text"] | None = None,
        end: bool = False,
    ) -> list[int]:
        """Tokens of one sequence, the inverse of `spans`.

        Args:
            spans: `("speech", units)`, `("text", str)` or `("audio", source)`, in any number and order.
            alternating: whether a change of modality is marked by `<U2T>` and `<T2U>`, as inside one sentence, or by
                `<T_EN>` and `<U_EN>`, as between two renderings of it.
            continue_with: the modality that a model shall go on in; its mark is added where it is a change.
            end: whether the end token is added.
        """
        tokens: list[int] = []
        before = None
        for kind, content in spans:
            modality, content_tokens = self._content(kind, content)
            tokens += [self._mark(before, modality, alternating), *content_tokens]
            before = modality
        if continue_with not in (None, before):
            tokens.append(self._mark(before, continue_with, alternating))
        return [*tokens, self.eos_token_id] if end else tokens

    def _content(self, kind: str, content: Any) -> tuple[str, list[int]]:
        if kind == "audio":
            kind, content = "speech", self.units(content)
        if kind not in START:
            raise ValueError(f"a span is of '{kind}'; choose speech (units), text or audio")
        return kind, self.text_tokens(content) if kind == "text" else self.unit_tokens(content)

    def _mark(self, before: str | None, modality: str, alternating: bool) -> int:
        if modality not in START:
            raise ValueError(f"continue_with is '{modality}'; choose speech or text")
        return self.token((SWITCH_TO if alternating and before not in (None, modality) else START)[modality])

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        units: Any = None,
        audio: Any = None,
        *,
        spans: Sequence[Sequence[Span]] | None = None,
        alternating: bool = False,
        continue_with: Literal["speech", "text"] | None = None,
        end: bool = False,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """A batch of sequences, one for each text, list of units or clip.

        Args:
            text: one or several. Beside units or audio, a row is the speech and then its text.
            units: lists of deduplicated units, or `Units`.
            audio: whatever `load_audio` takes; it goes through the unit model.
            spans: instead of these, each row as a list of spans; see `sequence` for this and the next three.
            sampling_rate: of bare samples; what the unit model wants by default.
            padding, max_length, padding_side, return_tensors: as for a tokenizer; on the left by default, where a
                causal LM that generates needs it.

        Returns:
            `input_ids` and `attention_mask` [B, T].

        Raises:
            ValueError: there is nothing to read; the numbers of texts and of speech differ; a unit is outside the
                codebook; there is audio and no unit model, or not the one that was named. AudioError: a clip cannot be
                used.
        """
        rows = self._spans(text, units, audio, sampling_rate) if spans is None else list(spans)
        if spans is not None and not (text is None and units is None and audio is None):
            raise ValueError("spans came with text, units or audio; write these as spans too")
        sequences = [self.sequence(row, alternating, continue_with, end) for row in rows]
        return self.tokenizer.pad(
            {"input_ids": sequences},
            padding=padding,
            max_length=max_length,
            padding_side=padding_side or "left",  # some tokenizer classes forget theirs
            return_attention_mask=True,
            return_tensors=return_tensors,
        )

    def _spans(self, text: Any, units: Any, audio: Any, sampling_rate: int | None) -> list[list[Span]]:
        if units is not None and audio is not None:
            raise ValueError("units and audio were given; give one of the two")
        columns: list[list[Span]] = []
        if units is not None:
            columns.append([("speech", clip) for clip in _rows(units)])
        if audio is not None:
            clips = enumerate(_rows(audio))
            columns.append([("speech", self.units(clip, sampling_rate, _name(clip, place))) for place, clip in clips])
        if text is not None:
            columns.append([("text", words) for words in _rows(text)])
        if not columns:
            raise ValueError("there is nothing to read; give text, units, audio or spans")
        if len(columns[0]) != len(columns[-1]):
            raise ValueError(f"{len(columns[0])} clips came with {len(columns[-1])} texts; give one for each")
        return [list(row) for row in zip(*columns, strict=True)]

    # ---- out of tokens ---------------------------------------------------------------------------------------------

    def spans(self, ids: Iterable[int]) -> list[Span]:
        """What one sequence of tokens says: `[("speech", units), ("text", str)]`, in order.

        Signs and other special tokens separate spans and are left out. Units come as they were written: a model may
        repeat one where two pieces meet. Text comes as the text tokenizer decodes it.

        Raises `ValueError` for an id outside the vocabulary.
        """
        tokens, known = [index(token) for token in ids], range(self.vocab_size)
        if wrong := [token for token in tokens if token not in known]:
            raise ValueError(f"there is no token {wrong[0]}; this vocabulary has {len(known)}")
        runs = [(modality, list(run)) for modality, run in groupby(tokens, self._modality)]
        return [(modality, self._read(modality, run)) for modality, run in runs if modality is not None]

    def _modality(self, token: int) -> str | None:
        if token in self._control_tokens:
            return None
        return "speech" if token in self.unit_token_range else "text"

    def _read(self, modality: str, tokens: list[int]) -> list[int] | str:
        if modality == "speech":
            return self.segmenter.decode(token - self.unit_token_range.start for token in tokens)
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # ---- audio -----------------------------------------------------------------------------------------------------

    def name_unit_model(self, source: str, revision: str | None = None, **hub: Any) -> None:
        """Makes a saved unit model the one of this processor: its id, revision and hash are saved with it.

        Raises `ValueError` when its codebook is not of the size that the unit pieces were trained for.
        """
        extractor = PretrainedUnits(source, revision, hub)
        self._check_size(extractor)
        self.unit_model_id, self.unit_model_revision = source, extractor.revision
        self.unit_model_hash, self._extractor = extractor.hash, extractor

    def use_units_of(self, extractor: UnitExtractor) -> None:
        """Has audio go through `extractor`. Raises `ValueError` when it is not the unit model that was named."""
        self._check_size(extractor)
        if self.unit_model_hash is not None and extractor.hash != self.unit_model_hash:
            raise ValueError(
                f"the unit model has hash {extractor.hash[:12]} and this processor was made for "
                f"{self.unit_model_hash[:12]} ('{self.unit_model_id}'), which gives other units; load that one"
            )
        self._extractor = extractor

    def _check_size(self, extractor: UnitExtractor) -> None:
        if extractor.clusters != self.segmenter.units:
            raise ValueError(
                f"the unit model has {extractor.clusters} units and the pieces are of {self.segmenter.units}; name "
                f"the one whose units the pieces were trained on"
            )

    @property
    def extractor(self) -> UnitExtractor:
        """What makes units of audio, loaded when first asked for."""
        if self._extractor is None:
            if self.unit_model_id is None:
                raise ValueError("this processor names no unit model; call name_unit_model once, or give it units")
            extractor = PretrainedUnits(self.unit_model_id, self.unit_model_revision)
            self.use_units_of(extractor)
            return extractor
        return self._extractor

    def units(self, audio: AudioSource, sampling_rate: int | None = None, name: str | None = None) -> Units:
        """Deduplicated units of one clip, by the unit model."""
        return self.extractor.extract(audio, sampling_rate, name)

    def run_units_on(self, device: Any) -> None:
        """Moves the unit model to a device, where it is one that was loaded from a checkpoint."""
        if isinstance(self.extractor, PretrainedUnits):
            self.extractor.model.to(device)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds; the pieces have a file of their own."""
        names = ("unit_model_id", "unit_model_revision", "unit_model_hash")
        remote_code = {"auto_map": vars(self)["auto_map"]} if "auto_map" in vars(self) else {}
        return {name: getattr(self, name) for name in names} | remote_code | {"processor_class": type(self).__name__}

    def to_json_file(self, json_file_path: str | os.PathLike) -> None:
        """Writes `processor_config.json`, and beside it the unit pieces.

        Here, not in `save_pretrained`: what is to be uploaded has to be written where that writes its files.
        """
        super().to_json_file(json_file_path)
        self.segmenter.save(Path(json_file_path).parent / UNIT_PIECES_FILE)

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in transformers, with the unit pieces. Raises `ValueError` for unknown keys."""
        hub = {name: kwargs[name] for name in _FROM_THE_HUB if kwargs.get(name) is not None}
        values, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        known = {*inspect.signature(cls.__init__).parameters, "auto_map", "processor_class"}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"processor_config.json has unknown keys: {', '.join(unknown)}; remove them")
        pieces = cached_file(pretrained_model_name_or_path, UNIT_PIECES_FILE, **hub)
        return {**values, "segmenter": UnitSegmenter.load(pieces)}, rest


def _joint_tokenizer(tokenizer: Any, segmenter: UnitSegmenter) -> Any:
    """The text tokenizer with signs and unit pieces, in this order, behind its own tokens."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json; take a text tokenizer that has one")
    if tokenizer.eos_token_id is None:
        raise ValueError("the text tokenizer has no end token; set its eos_token")
    names = [*SIGNS, *segmenter.pieces]
    vocabulary = tokenizer.get_vocab()
    if not any(name in vocabulary for name in names):
        tokenizer = _extended(tokenizer, segmenter)
        vocabulary = tokenizer.get_vocab()
    _check_order(names, vocabulary)
    return tokenizer


def _extended(tokenizer: Any, segmenter: UnitSegmenter) -> Any:
    """A copy with signs and unit pieces added. Spaces around them stay, and no normalizer reads them."""
    tokenizer = copy.deepcopy(tokenizer)
    signs = [AddedToken(sign, normalized=False, special=True) for sign in SIGNS]
    tokenizer.add_special_tokens({"additional_special_tokens": signs}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in segmenter.pieces])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked
    tokenizer.padding_side = "left"
    return tokenizer


def _check_order(names: Sequence[str], vocabulary: dict[str, int]) -> None:
    missing = [name for name in names if name not in vocabulary]
    if missing:
        known = next(name for name in names if name in vocabulary)
        shown = known if known in SIGNS else f"U+{ord(known[0]):04X}"
        raise ValueError(
            f"the text tokenizer has the token {shown} and lacks {len(missing)} of the signs and unit pieces: it was "
            f"extended for others, or the token is its own; train the pieces with offset={BASIC_PLANE_CHARACTERS}"
        )
    first = vocabulary[names[0]]
    if [vocabulary[name] for name in names] != list(range(first, first + len(names))):
        raise ValueError(f"the tokenizer has the unit pieces in another order than {UNIT_PIECES_FILE}; restore both")


def _rows(given: Any) -> list[Any]:
    """One or several: a list is a batch unless numbers are in it, which make one item."""
    several = isinstance(given, (list, tuple)) and given and not isinstance(given[0], Number)
    return list(given) if several else [given]


def _name(audio: Any, place: int) -> str | None:
    """What errors call a clip that cannot tell its own name."""
    return None if isinstance(audio, (str, os.PathLike, Mapping)) else f"clip {place}"
