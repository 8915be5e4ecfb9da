"""Training an adapter on some rows of a corpus to answer others, over and over: what cross-validation calls."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from torch import Tensor, nn
from transformers import set_seed

from ..data.augmentation import VariedExamples
from ..data.speech_text_collator import SpeechTextCollator
from ..data.varied_copies import varied_copies
from .adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    OutputArguments,
)
from .adapter_training import (
    assemble,
    keep_encoder_frames,
    make_trainer,
    optimizer_updates,
    train,
    training_arguments,
)

Groups: TypeAlias = tuple[BackboneArguments, AdapterArguments, OptimizationArguments]


def changed(groups: Groups, values: Mapping[str, Any]) -> Groups:
    """The same arguments with some values changed. Raises `ValueError` for a value that none of them has."""
    left = dict(values)
    parts: list[Any] = []
    for group in groups:
        own = {field.name: left.pop(field.name) for field in dataclasses.fields(group) if field.name in left}
        parts.append(dataclasses.replace(group, **own))
    if left:
        raise ValueError(f"a candidate changes '{min(left)}', which is no value of backbone, adapter or optimization")
    return parts[0], parts[1], parts[2]


@dataclass
class AdapterLearner:
    """Trains an adapter on some rows, their speech varied, and lets it answer others; keeps the last model.

    parts [rows]: what the rows are held out by, speakers or folds. answer: what a model and its processor answer to
    examples, one text each. runs: how many trainings are to come, for the lines of progress. first: other examples, on
    which a model of the same settings is trained beforehand, once for each seed, `first_epochs` long; every training
    starts from its weights. copies: how often each clip of a training is varied where the frames of a frozen encoder
    are kept, the first examples not at all; without kept frames all clips are varied anew in each epoch.
    """

    examples: Dataset
    parts: Sequence[str]
    data: DataArguments
    answer: Callable[[Any, Any, Dataset], list[str]]
    runs: int
    first: Dataset | None = None
    first_epochs: float = 1.0
    copies: int = 4
    run: int = 0
    model: Any = None
    _starts: list[tuple[Groups, int, dict[str, Tensor]]] = field(default_factory=list)

    def __call__(self, groups: Groups, seed: int, training: list[int], test: list[int]) -> list[str]:
        self.run += 1
        heard, unheard = (", ".join(sorted({self.parts[row] for row in rows})) for rows in (training, test))
        print(f"run {self.run} of {self.runs}: train on {heard}; test on {unheard}", flush=True)
        weights = {} if self.first is None else self._start(groups, seed, self.first)
        processor = self._assemble(groups, seed)
        self.model.load_state_dict(weights, strict=False)
        rows, optimization = self.examples.select(training), dataclasses.replace(groups[2], seed=seed)
        self._train(processor, rows, optimization, self.copies)
        return self.answer(self.model, processor, self.examples.select(test))

    def _assemble(self, groups: Groups, seed: int) -> Any:
        set_seed(seed)
        self.model, processor = assemble(groups[0], groups[1], self.data)
        return processor

    def _start(self, groups: Groups, seed: int, first: Dataset) -> dict[str, Tensor]:
        """The trained weights as the first examples leave them."""
        for known, known_seed, weights in self._starts:
            if (known, known_seed) == (groups, seed):
                return weights
        print(f"train on {len(first)} first examples", flush=True)
        processor = self._assemble(groups, seed)
        optimization = dataclasses.replace(groups[2], seed=seed, epochs=self.first_epochs)
        self._train(processor, first, optimization, copies=0)
        weights = {name: weight.clone() for name, weight in trained_parameters(self.model)}
        self._starts.append((groups, seed, weights))
        return weights

    def _train(self, processor: Any, rows: Dataset, optimization: OptimizationArguments, copies: int) -> None:
        updates = optimizer_updates(len(rows), optimization)
        heard: Any
        if optimization.cache_features:
            versions = varied_copies(rows, processor.sampling_rate, copies)
            collator, (heard,) = keep_encoder_frames(self.model, processor, [versions], optimization)
        else:
            epochs = -(-updates * optimization.batch_size * optimization.accumulation_steps // len(rows))
            collator = SpeechTextCollator(processor)
            heard = VariedExamples(rows, processor.sampling_rate, epochs, optimization.seed)
        with tempfile.TemporaryDirectory() as folder:
            output = OutputArguments(output_dir=Path(folder))
            arguments = training_arguments(optimization, output, updates, evaluates=False)
            train(make_trainer(self.model, collator, heard, None, arguments), resume=False)


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of what a model trains."""
    return ((name, weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad)
