"""What stands between a speech encoder and an LLM: fewer frames, in the LLM's embedding space.

Shapes: C clips, F encoder frames, A speech embeddings, D width.
"""

import torch
from torch import Tensor, nn


class SpeechBridge(nn.Module):
    """Encoder frames [C, F, D] -> speech embeddings [C, A, D]; the base of adapter and projector.

    The output begins at the mean and deviation of the LLM's own embeddings, which is our reading.
    """

    def add_scale(self, embedding_width: int) -> None:
        """Makes the parameters of `scaled`."""
        self.output_scale = nn.Parameter(torch.ones(embedding_width))
        self.output_shift = nn.Parameter(torch.zeros(embedding_width))

    def reduced_lengths(self, frames: Tensor) -> Tensor:
        """[C] valid frames -> [C] speech embeddings."""
        raise NotImplementedError

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """frames [C, F, D], valid frames [C] -> embeddings [C, A, D], valid embeddings [C]."""
        raise NotImplementedError

    def scaled(self, output: Tensor) -> Tensor:  # [C, A, D] -> [C, A, D]
        unit = nn.functional.layer_norm(output, output.shape[-1:])
        return unit * self.output_scale + self.output_shift

    @torch.no_grad()
    def match(self, statistics: tuple[Tensor, Tensor]) -> None:
        """Starts the output at the mean [D] and deviation [D] of the LLM's embeddings."""
        self.output_shift.copy_(statistics[0])
        self.output_scale.copy_(statistics[1])


def _table(embeddings: nn.Module) -> Tensor:
    return embeddings.get_parameter("weight")


def table_size(embeddings: nn.Module) -> int:
    """Number of tokens that an LLM can embed."""
    return len(_table(embeddings))


def embedding_width(embeddings: nn.Module) -> int:
    """Width of the vectors that an LLM's first layer wants, which need not be its hidden size."""
    return _table(embeddings).shape[1]


@torch.no_grad()
def embedding_statistics(embeddings: nn.Module, sample: int = 8192) -> tuple[Tensor, Tensor]:
    """Mean [D] and deviation [D] of what the LLM's embedding layer returns, over tokens evenly spread by id."""
    table = _table(embeddings)
    tokens = torch.linspace(0, len(table) - 1, min(len(table), sample), device=table.device).long()
    rows = embeddings(tokens).float()
    return rows.mean(0), rows.std(0)


__all__ = ["SpeechBridge", "embedding_statistics", "embedding_width", "table_size"]
