"""Rows of new tokens in the tables of a text LM: their first values, and training them while the rest stays.

Shapes: V vocabulary, D width, R rows of new tokens.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..configuration.configuration_sutlm import SUTLMConfig

NewRows = Literal["covariance", "mean", "normal"]


class RowChanges(nn.Module):
    """What training changed in the rows of units of a table [V, D] that itself stays as it was.

    It is float32 also beside half-precision tables, in which small steps would vanish.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))

    def forward(self, table: Tensor, rows: list[int]) -> Tensor:
        index = torch.tensor(rows, device=table.device)
        return table.index_copy(0, index, (table[index] + self.weight).to(table.dtype))


def grown_config(text_model: PreTrainedModel, fields: dict[str, Any]) -> Any:
    """The text LM's configuration, with a vocabulary that holds the tokens in `fields` too."""
    text_config = copy.deepcopy(text_model.config)
    units = [fields.get("unit_token_start") or 0, fields.get("unit_token_count") or 0]
    switches = [value + 1 for name, value in fields.items() if name.endswith("_token_id") and isinstance(value, int)]
    text_config.vocab_size = max(len(text_model.get_input_embeddings().weight), sum(units), *switches, 0)
    return text_config


@torch.no_grad()
def linear_head(text_model: PreTrainedModel, text_model_id: str) -> nn.Linear:
    """The output layer of a text LM. Raises `ValueError` when its logits are anything else."""
    head, tokens = text_model.get_output_embeddings(), torch.arange(1, 4, device=text_model.device)[None]
    if isinstance(head, nn.Linear):
        logits, hidden_states = text_model(tokens).logits, text_model.base_model(tokens).last_hidden_state
        if torch.allclose(logits, head(hidden_states), rtol=1e-4, atol=1e-4):
            return head
    raise ValueError(
        f"the logits of '{text_model_id}' are more than a matrix makes of its last hidden states (capped or scaled, "
        f"perhaps); choose another text LM"
    )


@torch.no_grad()
def initialize_rows(text_model: PreTrainedModel, config: SUTLMConfig, new_rows: NewRows, seed: int) -> None:
    """Gives the rows of units and switches in both tables of a text LM their first values.

    Raises `ValueError` for another `new_rows`.
    """
    generator = torch.Generator().manual_seed(seed)
    head, embeddings = text_model.get_output_embeddings(), text_model.get_input_embeddings()
    new = torch.tensor(config.new_tokens)
    old = torch.ones(config.vocab_size, dtype=torch.bool).index_fill(0, new, False)
    tables = {id(table): table for table in (embeddings.weight, head.weight)}.values()
    for table in tables:
        drawn = _draw(table.detach()[old].float().cpu(), len(new), new_rows, config.initializer_range, generator)
        table[new] = drawn.to(table)
    if head.bias is not None:
        head.bias[new] = head.bias[old].mean()


def _draw(old: Tensor, count: int, new_rows: str, deviation: float, generator: torch.Generator) -> Tensor:
    """`count` rows like those of `old` [rows, D]."""
    noise = torch.randn(count, old.shape[1], generator=generator)
    if new_rows == "normal":
        return deviation * noise
    mean = old.mean(0, keepdim=True)
    if new_rows == "mean":
        return mean.expand(count, -1)
    if new_rows != "covariance":
        raise ValueError(f"new_rows is '{new_rows}'; choose covariance, mean or normal")
    values, vectors = torch.linalg.eigh(torch.cov(old.T))
    return mean + (noise * values.clamp(min=0).sqrt()) @ vectors.T


__all__ = ["NewRows", "RowChanges", "grown_config", "initialize_rows", "linear_head"]
