"""What tests of the few-shot harness share: material of invented clips, and scorers that are easy to predict."""

from collections.abc import Mapping, Sequence

from speechzoo.evaluation.few_shot_tasks import (
    FewShotMaterial,
    FewShotTask,
    LabeledClip,
    MaterialPart,
    PromptTemplate,
)
from speechzoo.evaluation.prompt_readers import Clip, FewShotPrompt

TEMPLATE = PromptTemplate("Speech: {clip}\nIntent:", "Speech: {clip}\nIntent: {label}\n\n")
CLASSES = ("heat", "lights", "music", "shoes", "volume")


def task(**fields: object) -> FewShotTask:
    """The corpora it names are not there; what reads them is not under test."""
    return FewShotTask(**{"train": "train", "test": "test", "label": "intent", "template": TEMPLATE} | fields)


def labeled(prefix: str, count: int, classes: Sequence[str] = CLASSES, speakers: int = 3) -> tuple[LabeledClip, ...]:
    """Clips of the classes in turn, each with a text of its own."""
    return tuple(
        LabeledClip(
            Clip(f"{prefix}{number:03d}", f"{prefix} says {classes[number % len(classes)]} {number}", audio=[0.0]),
            classes[number % len(classes)],
            f"{prefix}-speaker-{number % speakers}",
        )
        for number in range(count)
    )


def material(shown: int = 25, asked: int = 20, classes: Sequence[str] = CLASSES) -> FewShotMaterial:
    part = MaterialPart(labeled("train", shown, classes), labeled("test", asked, classes))
    return FewShotMaterial(tuple(sorted(classes)), (part,))


class LastShown:
    """Answers with the label of the last demonstration, where there is one; and "exact" with nothing at all.

    It reads prompts, not the material, and counts how many.
    """

    def __init__(self) -> None:
        self.prompts: list[FewShotPrompt] = []

    def __call__(
        self, prompts: Sequence[FewShotPrompt], labels: Sequence[str], ending: str
    ) -> Mapping[str, list[int | None]]:
        assert ending in ("\n\n", "\n"), "those of the templates"
        self.prompts += prompts
        return {"likelihood": [self._answer(prompt, labels) for prompt in prompts], "exact": [None] * len(prompts)}

    @staticmethod
    def _answer(prompt: FewShotPrompt, labels: Sequence[str]) -> int:
        texts = [one for one in prompt.demonstrations if isinstance(one, str)]
        ends = [number for number, label in enumerate(labels) if texts and texts[-1].rstrip().endswith(label)]
        return ends[0] if ends else 0
