"""What a joint language model reads before it writes an answer, and the words of what it wrote.

<U_EN> 12 66 17 18 <T_EN>          a clip, after which the answer is written
<T_EN> how are you <T_EN>
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .processing_sutlm import Span, SUTLMProcessor


def question_sequence(processor: SUTLMProcessor, span: Span, glue: str = "start") -> list[int]:
    """Tokens of a span, and of the sign that the answer begins with."""
    return processor.sequence([span, ("text", "")], alternating=glue == "switch")


def written_answer(processor: SUTLMProcessor, tokens: Sequence[int]) -> str:
    """The words of an answer's tokens up to the end of the sequence, between single spaces.

    Words that were added to the vocabulary behind the unit pieces stand alone, whatever the text tokenizer does with
    the spaces around them.
    """
    kept = takewhile(lambda token: token != processor.eos_token_id, tokens)
    words: list[str] = []
    for is_added, run in groupby(kept, lambda token: token >= processor.unit_token_range.stop):
        if is_added:
            words += processor.tokenizer.convert_ids_to_tokens(list(run))
        else:
            words += [word for kind, text in processor.spans(run) if kind == "text" for word in text.split()]
    return " ".join(words)


__all__ = ["question_sequence", "written_answer"]
