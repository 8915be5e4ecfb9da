"""The ways an answer is predicted, as one scorer for the harness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from .label_scoring import CONTENT_FREE, calibrated, content_free_scores, label_scores, predictions
from .label_trie import constrained_answers, exact_matches
from .prompt_readers import Clip, FewShotPrompt, PromptReader

# likelihood: over the number of tokens; sum: over none, of labels with what ends them in demonstrations, for without
# it none could win over one that it begins with; calibrated: beside content-free queries; trie: generated among labels
# that end as in demonstrations; exact: generated freely, and right only where it is a label.
Rule: TypeAlias = Literal["likelihood", "sum", "calibrated", "trie", "exact"]
_SCORED = ("likelihood", "calibrated")


@dataclass(frozen=True)
class PromptScorer:
    """Predicts by every one of `rules`; what several of them need is computed once.

    Args:
        reader: what reads prompts, with the language model that answers.
        rules: by which answers are predicted.
        content_free: what calibration puts in place of a query.
        stop: where a free answer ends.
        rows, batch_size: labels scored, and prompts answered, together.
        share_caches: see `label_scores`.
    """

    reader: PromptReader
    rules: Sequence[Rule] = ("likelihood",)
    content_free: Sequence[Clip] = CONTENT_FREE
    stop: str = "\n"
    rows: int = 64
    batch_size: int = 16
    share_caches: bool = True

    def __post_init__(self) -> None:
        if unknown := [rule for rule in self.rules if rule not in get_args(Rule)]:
            raise ValueError(f"there is no rule '{unknown[0]}'; choose {', '.join(get_args(Rule))}")

    def __call__(
        self, prompts: Sequence[FewShotPrompt], labels: Sequence[str], ending: str = ""
    ) -> Mapping[str, Sequence[int | None]]:
        """By rule the number of each prompt's label, `None` where a free answer is none of them.

        ending: what stands behind a label in demonstrations.
        """
        found: dict[str, Sequence[int | None]] = dict(self._scored(prompts, labels))
        ended = [label + ending for label in labels]
        if "sum" in self.rules:
            found["sum"] = predictions(label_scores(self.reader, prompts, ended, **self._options).sums)
        if "trie" in self.rules:
            found["trie"] = constrained_answers(self.reader, prompts, ended, batch_size=self.batch_size)
        if "exact" in self.rules:
            found["exact"] = exact_matches(self.reader, prompts, labels, stop=self.stop, batch_size=self.batch_size)
        return {rule: found[rule] for rule in self.rules}

    def _scored(self, prompts: Sequence[FewShotPrompt], labels: Sequence[str]) -> dict[str, list[int]]:
        if not set(_SCORED) & set(self.rules):
            return {}
        means = label_scores(self.reader, prompts, labels, **self._options).means
        found = {"likelihood": predictions(means)}
        if "calibrated" in self.rules:
            prior = content_free_scores(self.reader, prompts, labels, self.content_free, **self._options)
            found["calibrated"] = predictions(calibrated(means, prior))
        return found

    @property
    def _options(self) -> dict[str, Any]:
        return {"share_caches": self.share_caches, "rows": self.rows}
