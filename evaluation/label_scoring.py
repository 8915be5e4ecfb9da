"""Log-likelihoods of a closed set of labels after few-shot prompts, and the label that they predict.

Equal demonstrations are read once, and all their queries look at the same keys and values; so do all labels at those
of a query. Shapes: Q queries, N labels, D width of the language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .continuation_scores import Floats
from .prompt_readers import Clip, FewShotPrompt, PromptReader

# Queries that say nothing (WavPrompt), read as text by every reader.
CONTENT_FREE = tuple(Clip(f"content-free {text!r}", text) for text in ("N/A", "", "[MASK]"))


@dataclass(frozen=True)
class LabelScores:
    """log P(label | prompt) in nats.

    sums: [Q, N] float64, over the tokens of each label. lengths: [N], tokens of each label.
    """

    sums: Floats
    lengths: npt.NDArray[np.int64]

    @property
    def means(self) -> Floats:
        """[Q, N], length-normalized: over the number of tokens."""
        return self.sums / self.lengths


def label_scores(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    labels: Sequence[str],
    *,
    share_caches: bool = True,
    rows: int = 64,
) -> LabelScores:
    """Scores of every label after every prompt, those of each prompt and label alone."""
    raise NotImplementedError


def calibrated_scores(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    labels: Sequence[str],
    content_free: Sequence[Clip] = CONTENT_FREE,
    *,
    share_caches: bool = True,
    rows: int = 64,
) -> Floats:
    """[Q, N] log P(label | prompt) less what the label would get whatever is said. Read `calibrated`."""
    raise NotImplementedError


def calibrated(means: Floats, content_free: Floats) -> Floats:
    """[Q, N] of length-normalized scores [Q, N] and those of C content-free queries [Q, C, N] in their place."""
    raise NotImplementedError


def predictions(scores: Floats) -> list[int]:
    """The number of the best label of each query, from scores [Q, N]; the first of equals."""
    return [int(number) for number in scores.argmax(1)]


def content_free_prompts(prompt: FewShotPrompt, content_free: Sequence[Clip]) -> list[FewShotPrompt]:
    """The same prompt with each of the content-free clips in place of those of its query."""
    return [
        replace(prompt, query=tuple(clip if isinstance(one, Clip) else one for one in prompt.query))
        for clip in content_free
    ]
