"""What the pipelines for speech share: inputs of any kind, batches that change nothing, long clips in pieces.

Shapes: S samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import Pipeline, PreTrainedConfig

from ..processing.audio_loading import AudioError, load_audio
from .clip_pieces import Clip, Piece, cut_at_pauses, source_of, sources_of

_OF_CLIPS = ("chunk_seconds", "sampling_rate")


class SpeechPipeline(Pipeline):
    """A pipeline whose inputs are clips.

    A clip is whatever `load_audio` takes: a path (`#t=2.5,5.52` behind it for those seconds), the bytes of a file, an
    open file, samples `[S]`, a dictionary with `array` and `sampling_rate`; or a row of a data set with one of these
    in `audio`. A list is a batch, and its results are those of each clip alone; of a generator or a `KeyDataset` they
    come one after the other.

    Every call takes `batch_size`, clips that are run together; `sampling_rate` (Hz) of samples that do not tell
    theirs; and `chunk_seconds`: a longer clip is cut into pieces at the quietest moments.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, model: Any, processor: Any = None, **kwargs: Any) -> None:
        architecture = type(model).__name__
        if not self.takes(model.config, architecture):
            raise ValueError(f"{architecture} {self.refusal}")
        if processor is None:
            raise ValueError(f"there is no processor beside this {architecture}; pass processor=, as it was trained")
        super().__init__(model.eval(), processor=processor, **kwargs)

    refusal = "cannot be run by this pipeline"

    @classmethod
    @abstractmethod
    def takes(cls, config: PreTrainedConfig, architecture: str) -> bool:
        """Whether a model of this class and configuration can be run; `refusal` says why else."""

    # ---- what subclasses say --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def wanted_rate(self) -> int:
        """Samples a second of what `prepare` gets."""

    @property
    def longest(self) -> float | None:
        """Seconds that are taken in one piece; `None` for any."""
        return None

    @abstractmethod
    def prepare(self, samples: np.ndarray, name: str) -> Any:
        """What the model takes of a piece `[S]`. Raises `AudioError`, which calls it `name`."""

    @abstractmethod
    def answers(self, clips: Sequence[Clip], **parameters: Any) -> list[dict[str, Any]]:
        """The result for each clip."""

    # ---- as transformers calls it ---------------------------------------------------------------------------------

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """The result for a clip, or a list of them for a list; see the class.

        Raises `AudioError`, one line that names the clip, for one that cannot be used.
        """
        sources = sources_of(inputs)
        return [] if isinstance(sources, list) and not sources else super().__call__(sources, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {name: given.pop(name) for name in _OF_CLIPS if name in given}, given, {}

    def preprocess(self, inputs: Any, chunk_seconds: float | None = None, sampling_rate: int | None = None) -> Clip:
        source, rate = source_of(inputs), self.wanted_rate
        samples = load_audio(source.audio, rate, source_sampling_rate=sampling_rate, name=source.name)
        if chunk_seconds is None:
            spans = [(0, len(samples))]
        else:
            spans = cut_at_pauses(samples, rate, self._checked(chunk_seconds))
        pieces = []
        for start, end in spans:
            seconds = start / rate, end / rate
            name = source.name if len(spans) == 1 else f"{source.name}, {seconds[0]:.2f} to {seconds[1]:.2f} s"
            self._check_length(name, seconds[1] - seconds[0])
            pieces.append(Piece(name, self.prepare(samples[start:end], name), *seconds))
        return Clip(source, pieces)

    def _checked(self, chunk_seconds: float) -> float:
        if chunk_seconds < 1:
            raise ValueError(f"chunk_seconds is {chunk_seconds}; give 1 or more")
        return chunk_seconds

    def _check_length(self, name: str, seconds: float) -> None:
        if self.longest is not None and seconds > self.longest:
            raise AudioError(
                f"{name}: {seconds:.2f} s is longer than the {self.longest:g} s that this model takes at once; pass "
                f"chunk_seconds={self.longest:g} for answers to its parts"
            )

    def _forward(self, input_tensors: Any, **parameters: Any) -> Any:
        return self.answers(input_tensors, **parameters)

    def postprocess(self, model_outputs: Any, **parameters: Any) -> Any:
        return model_outputs

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any],
        postprocess_params: Mapping[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Batches of clips as they are: transformers would pad them by rules that not all processors agree with."""
        clips = _Prepared(inputs, partial(self.preprocess, **preprocess_params))
        for batch in DataLoader(clips, batch_size=batch_size, num_workers=min(num_workers, 1), collate_fn=list):
            yield from self.forward(batch, **forward_params)

    def run_single(self, inputs: Any, preprocess_params: Any, forward_params: Any, postprocess_params: Any) -> Any:
        return self.forward([self.preprocess(inputs, **preprocess_params)], **forward_params)[0]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """The model and its processor; `export_code` lays the code of both and of the pipeline beside them."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


class _Prepared(IterableDataset):
    """Inputs one after the other, each made a clip when its turn comes."""

    def __init__(self, inputs: Any, prepare: Callable[[Any], Clip]) -> None:
        self.inputs, self.prepare = inputs, prepare

    def __iter__(self) -> Iterator[Clip]:
        given = self.inputs
        if isinstance(given, Sized):
            given = (self.inputs[place] for place in range(len(given)))
        return (self.prepare(source_of(one, place)) for place, one in enumerate(given))


__all__ = ["SpeechPipeline"]
