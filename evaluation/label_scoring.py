"""Log-likelihoods of a closed set of labels after few-shot prompts, and the label that they predict.

    scores = label_scores(reader, prompts, labels)
    predictions(scores.means)  # or of scores.sums, or of calibrated(scores.means, content_free_scores(...))

Demonstrations that several prompts share are read once, and all their queries look at the same keys and values; so do
all labels at those of a query. Shapes: Q prompts, N labels, E queries without content.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from torch import Tensor
from tqdm.auto import tqdm

from .continuation_scores import ContinuationScorer, Floats
from .prompt_readers import Clip, FewShotPrompt, PromptReader, Segment, label_tokens, read_whole

# Queries that say nothing, those of WavPrompt; without audio, they are read as text by every reader.
CONTENT_FREE = tuple(Clip(f"content-free {text!r}", text) for text in ("N/A", "", "[MASK]"))
# Prompts whose embeddings are held at a time.
_HELD = 64


@dataclass(frozen=True)
class LabelScores:
    """log P(label | prompt) in nats.

    sums: [Q, N], over the tokens of each label. lengths: [N], tokens of each label.
    """

    sums: Floats
    lengths: npt.NDArray[np.int64]

    @property
    def means(self) -> Floats:
        """[Q, N] of a token: the length-normalized log-likelihood."""
        return self.sums / self.lengths


def label_scores(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    labels: Sequence[str],
    *,
    share_caches: bool = True,
    rows: int = 64,
) -> LabelScores:
    """Scores of every label after every prompt, which are those of each prompt and label alone.

    The language model is put into `eval()`.

    Args:
        labels: as written behind a query in the demonstrations, with the space before them, and with what ends them
            where one label begins another and `sums` are to tell them apart.
        share_caches: whether demonstrations and queries are read once, or again before every label. An
            encoder-decoder's labels share what its encoder says of a prompt; prompts share nothing.
        rows: most labels in a forward, of several prompts if there are few.

    Raises `ValueError` for a prompt without tokens, for labels without tokens or with the same ones, for prompts whose
    ends turn labels into other tokens, and where a score is no number.
    """
    answers = label_tokens(reader, prompts, labels)
    scorer = ContinuationScorer(reader.language_model, reader.embed_tokens, share_caches, rows)
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    distinct, sums = list(places), np.full((len(places), len(labels)), np.nan)
    progress = tqdm(total=len(distinct), desc="scoring", unit="prompt", leave=False, disable=len(distinct) <= _HELD)
    for demonstrations, numbers in _sharing(distinct):
        (shown,) = reader.embed([demonstrations])
        beginning = scorer.begin(shown) if len(shown) else None
        for held in _chunks(numbers):
            parts = _parts(reader, [distinct[number] for number in held], bool(demonstrations))
            sums[held] = scorer.scores(parts, answers, beginning=beginning).T
            progress.update(len(held))
    progress.close()
    lengths = np.array([len(tokens) for tokens in answers], dtype=np.int64)
    return LabelScores(sums[np.array([places[prompt] for prompt in prompts], dtype=np.int64)], lengths)


def _sharing(prompts: Sequence[FewShotPrompt]) -> Iterator[tuple[tuple[Segment, ...], list[int]]]:
    """Demonstrations with the numbers of the prompts that share them; then, under none, those that share nothing."""
    groups: defaultdict[tuple[Segment, ...], list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[prompt.demonstrations].append(number)
    alone = groups.pop((), [])
    for demonstrations, numbers in groups.items():
        if len(numbers) > 1:
            yield demonstrations, numbers
        else:
            alone += numbers
    yield (), alone


def _chunks(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), _HELD):
        yield numbers[start : start + _HELD]


def _parts(reader: PromptReader, prompts: Sequence[FewShotPrompt], begun: bool) -> list[Tensor]:
    """[T, D] of queries where the demonstrations are read already, else of whole prompts."""
    return reader.embed([prompt.query for prompt in prompts]) if begun else read_whole(reader, prompts)


def predictions(scores: Floats) -> list[int]:
    """The number of the best label of each prompt, from scores [Q, N]; the first of equals."""
    return [int(number) for number in scores.argmax(1)]


# ---- calibration ---------------------------------------------------------------------------------------------------


def silence(seconds: float = 1.0, sampling_rate: int = 16_000) -> Clip:
    """A query without content for readers of speech."""
    samples = np.zeros(round(seconds * sampling_rate), dtype=np.float32)
    return Clip(f"silence of {seconds:g} s", "", {"array": samples, "sampling_rate": sampling_rate})


def content_free_prompts(prompt: FewShotPrompt, content_free: Sequence[Clip]) -> list[FewShotPrompt]:
    """The same prompt with each of the content-free clips in place of those of its query."""
    return [
        replace(prompt, query=tuple(clip if isinstance(one, Clip) else one for one in prompt.query))
        for clip in content_free
    ]


def content_free_scores(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    labels: Sequence[str],
    content_free: Sequence[Clip] = CONTENT_FREE,
    *,
    share_caches: bool = True,
    rows: int = 64,
) -> Floats:
    """[Q, E, N] length-normalized scores with content-free clips in the query. Equal prompts are scored once.

    Arguments and errors are those of `label_scores`.
    """
    replaced = [other for prompt in prompts for other in content_free_prompts(prompt, content_free)]
    scores = label_scores(reader, replaced, labels, share_caches=share_caches, rows=rows)
    return scores.means.reshape(len(prompts), len(content_free), len(labels))


def calibrated(means: Floats, content_free: Floats) -> Floats:
    """[Q, N]: how much likelier each label is than it would be whatever is said, in nats.

    WavPrompt divides the probabilities of labels by those that content-free queries give. Our reading for labels of
    several tokens: a probability is the softmax over the labels of length-normalized scores, [Q, N] and [Q, E, N], and
    those of several content-free queries are averaged.
    """
    prior = logsumexp(log_softmax(content_free, axis=2), axis=1) - np.log(content_free.shape[1])
    return log_softmax(means, axis=1) - prior
