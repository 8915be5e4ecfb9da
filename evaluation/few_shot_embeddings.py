"""Embeddings of clips in which neighbors are looked for: means of encoder states, of projected speech, of text states.

Each is computed once and kept. Shapes: N clips, C chunks of speech, F frames, T tokens, D width.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import BatchFeature

from ..data.encoded_speech import encoder_facts
from ..data.feature_store import FeatureStore
from ..modeling.modeling_frozen_backbones import fingerprint_tensors
from ..modeling.modeling_padding_safe_encoders import frame_mask
from .prompt_readers import Clip

Floats = npt.NDArray[np.float32]


class ClipEmbedder(Protocol):
    """What makes an embedding of a clip.

    facts: plain values that decide it, beside the clip.
    """

    @property
    def facts(self) -> dict[str, Any]: ...

    def key(self, clip: Clip) -> str:
        """The address of what is embedded of a clip, its sound or its text."""

    def embed(self, clips: Sequence[Clip]) -> Floats:
        """[N, D]."""


def embed_clips(
    embedder: ClipEmbedder, clips: Sequence[Clip], root: str | Path, batch_size: int = 16, shard: int = 512
) -> dict[str, Floats]:
    """Id of each clip -> its embedding [D]; those that the store below `root` holds are read, the others written."""
    store = FeatureStore(root, embedder.facts)
    keys = {clip.id: embedder.key(clip) for clip in clips}
    missing = list({keys[clip.id]: clip for clip in clips if keys[clip.id] not in store}.values())
    with tqdm(total=len(missing), desc="embedding clips", unit="clip", leave=False) as progress:
        for start in range(0, len(missing), shard):
            found: dict[str, list[np.ndarray]] = {}
            for first in range(start, min(start + shard, len(missing)), batch_size):
                batch = missing[first : min(first + batch_size, start + shard)]
                vectors = embedder.embed(batch)
                found |= {keys[clip.id]: [vector] for clip, vector in zip(batch, vectors, strict=True)}
                progress.update(len(batch))
            store.write(found)
    return {name: store.read(key)[0] for name, key in keys.items()}


@dataclass(frozen=True)
class SpeechEmbedder:
    """Means over the valid encoder frames of a clip, or over the speech embeddings that the LLM would read.

    Args:
        model, processor: a model with a projector between a speech encoder and an LLM.
        of: "encoder" or "projector".
    """

    model: Any
    processor: Any
    of: Literal["encoder", "projector"] = "encoder"

    @property
    def facts(self) -> dict[str, Any]:
        facts = encoder_facts(self.model, self.processor)
        if self.of == "projector":
            facts["projector"] = fingerprint_tensors(self.model.model.bridge.state_dict())
        return {**facts, "pooled": "mean"}

    def key(self, clip: Clip) -> str:
        return FeatureStore.key(self.processor.load(clip.audio, name=clip.id))

    @torch.no_grad()
    def embed(self, clips: Sequence[Clip]) -> Floats:
        samples = [self.processor.load(clip.audio, name=clip.id) for clip in clips]
        chunks = [(owner, chunk) for owner, clip in enumerate(samples) for chunk in self.processor.chunks(clip)]
        features = BatchFeature(
            self.processor.pad([self.processor.extract(chunk) for _, chunk in chunks]), tensor_type="pt"
        )
        states, lengths = self.model.model.encode_audio(**features.to(self.model.device))  # [C, F, D] and [C]
        if self.of == "projector":
            states, lengths = self.model.model.bridge(states, lengths)
        owners = torch.tensor([owner for owner, _ in chunks], device=states.device)
        return _means(states, lengths, owners, len(clips)).cpu().numpy()


def _means(states: Tensor, lengths: Tensor, owners: Tensor, clips: int) -> Tensor:
    """Means [N, D] over the valid frames of all chunks [C, F, D] of each owner."""
    kept = frame_mask(lengths, states.shape[1])[..., None]
    sums = states.float().masked_fill(~kept, 0).sum(1)  # [C, D]
    total = sums.new_zeros(clips, sums.shape[1]).index_add_(0, owners, sums)
    frames = sums.new_zeros(clips).index_add_(0, owners, lengths.to(sums.dtype))
    return total / frames[:, None]


@dataclass(frozen=True)
class SentenceEmbedder:
    """Means of the last hidden states of what is said, by any text encoder or language model of transformers.

    Args:
        model, tokenizer: from `AutoModel` and `AutoTokenizer`; of an encoder-decoder its encoder is taken.
        transcripts: of clips, by their id, as a recognizer heard them; what is said where not given, which no system
            that listens knows of a query.
    """

    model: PreTrainedModel
    tokenizer: Any
    transcripts: Mapping[str, str] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        weights = fingerprint_tensors(self.model.state_dict())
        return {"text model": type(self.model).__name__, "weights": weights, "pooled": "mean"}

    def key(self, clip: Clip) -> str:
        return hashlib.sha256(self._text(clip).encode()).hexdigest()

    @torch.no_grad()
    def embed(self, clips: Sequence[Clip]) -> Floats:
        """Texts of one length are read together, so that none is padded. Raises `ValueError` for an empty text."""
        tokens = [self.tokenizer(self._text(clip))["input_ids"] for clip in clips]
        encoder = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, one in enumerate(tokens):
            if not one:
                raise ValueError(f"clip '{clips[number].id}' has no text to embed; take an embedding of speech")
            by_length[len(one)].append(number)
        found: dict[int, Floats] = {}
        for numbers in by_length.values():
            batch = torch.tensor([tokens[number] for number in numbers], device=self.model.device)
            means = encoder(input_ids=batch).last_hidden_state.float().mean(1).cpu().numpy()
            found |= dict(zip(numbers, means, strict=True))
        return np.stack([found[number] for number in range(len(clips))])

    def _text(self, clip: Clip) -> str:
        return clip.text if self.transcripts is None else self.transcripts[clip.id]
