"""Embeddings of words that a frozen LLM does not know: trained beside it, read in prompts, never written.

Shapes: B prompts, T tokens, D width, W new words.
"""

import torch
from torch import Tensor, nn

from ..configuration.configuration_speech_text_composite import SpeechTextCompositeConfig
from .modeling_speech_bridge import table_size


class PromptTokens(nn.Module):
    """One row [D] for each new word; the tables of the LLM stay as they are, and as large."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(words, width))

    def forward(self, input_ids: Tensor, embeddings: Tensor, ids: list[int]) -> Tensor:
        """[B, T], [B, T, D] -> [B, T, D] with these rows where `input_ids` has one of `ids`."""
        hits = input_ids[..., None] == torch.tensor(ids, device=input_ids.device)  # [B, T, W]
        rows = self.weight[hits.int().argmax(-1)].to(embeddings.dtype)
        return torch.where(hits.any(-1, keepdim=True), rows, embeddings)

    @torch.no_grad()
    def match(self, statistics: tuple[Tensor, Tensor]) -> None:
        """Draws the rows from the mean [D] and deviation [D] of the LLM's embeddings, our reading."""
        mean, deviation = (tensor.to(self.weight) for tensor in statistics)
        self.weight.copy_(mean + deviation * torch.randn_like(self.weight))


def known_ids(input_ids: Tensor, table: nn.Module, config: SpeechTextCompositeConfig) -> Tensor:
    """[B, T] with 0 for the placeholder and for new words that lie outside the LLM's table.

    Raises `ValueError` while new words have no ids.
    """
    if config.new_tokens and config.new_token_ids is None:
        raise ValueError("new_tokens have no ids yet; make the processor first: from_model_config(model.config)")
    size = table_size(table)
    outside = [token for token in (config.audio_token_id, *(config.new_token_ids or ())) if token >= size]
    if not outside:
        return input_ids
    return input_ids.masked_fill(torch.isin(input_ids, torch.tensor(outside, device=input_ids.device)), 0)


__all__ = ["PromptTokens", "known_ids"]
