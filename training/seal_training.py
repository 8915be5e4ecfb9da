"""The steps of training Seal's projector: targets, and a teacher that runs with the student or was kept.

Shapes: B prompts, T tokens.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data.seal_collator import SealCollator, check_transcripts
from ..data.shown_transcripts import Demonstrations, transcripts_by_class, with_demonstrations
from ..data.synthetic_corpus import default_cache_directory
from ..data.teacher_distributions import Teacher, TeacherReading, TeacherStore, keep_distributions
from ..data.written_answers import written_answers
from ..modeling.modeling_divergences import TopDistribution
from ..modeling.modeling_losses import IGNORED
from ..modeling.modeling_seal_projector import SealProjectorForConditionalGeneration
from ..processing.processing_speech_text_adapter import CONTEXT_MARK
from .adapter_arguments import OptimizationArguments
from .adapter_training import FEATURES
from .seal_arguments import AlignmentArguments, InContextArguments


def check_alignment(alignment: AlignmentArguments, tasks: Collection[str]) -> None:
    """Raises `ValueError` for what cannot be meant, before anything is read."""
    if unknown := sorted(set(alignment.answers) - set(tasks)):
        raise ValueError(f"answers name the prompt '{unknown[0]}', which is no task; choose of {', '.join(tasks)}")
    if alignment.objective == "psrt" and alignment.first_token:
        raise ValueError("psrt learns whole transcripts; leave first_token out")


def with_written_targets(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    alignment: AlignmentArguments,
) -> Dataset:
    """The examples, those of prompts in `answers` with what the LLM writes after the transcript as their target.

    A transcript that occurs several times is answered once. Raises `ValueError` for a prompt that there is not, and
    for a clip without a transcript.
    """
    prompts = collator.processor.prompts
    if unknown := sorted(set(alignment.answers) - prompts.keys()):
        raise ValueError(f"answers name the prompt '{unknown[0]}'; this processor has {', '.join(prompts)}")
    places = [place for place, task in enumerate(examples["task"]) if task in alignment.answers]
    if not places:
        return examples
    model.to(PartialState().device)
    silent = examples.remove_columns("audio")
    read = {place: collator.teacher_prompt(silent[place]) for place in places}
    distinct = list(dict.fromkeys(read.values()))
    answers = dict(
        zip(distinct, written_answers(model, collator.processor, distinct, alignment.answer_tokens), strict=True)
    )
    targets = list(examples["target"])
    for place, prompt in read.items():
        targets[place] = answers[prompt]
    return examples.remove_columns("target").add_column("target", targets)


def learned_examples(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    alignment: AlignmentArguments,
) -> Dataset:
    """What is trained on, with its targets.

    Raises `ValueError` where nothing is left to learn, and for a clip that the teacher cannot read.
    """
    learned = _weighed(examples, alignment.weights)
    if alignment.objective == "divergence":
        check_transcripts(learned["id"], learned["transcript"])
    if alignment.objective != "psrt":
        answers = [name for name in alignment.answers if alignment.weights.get(name, 1.0) > 0]
        return with_written_targets(model, collator, learned, replace(alignment, answers=answers))
    kept = [place for place, task in enumerate(learned["task"]) if task not in alignment.answers]
    if not kept:
        raise ValueError("psrt learns transcripts, and the LLM writes all targets; leave a prompt out of `answers`")
    return learned.select(kept)


def measured_examples(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    alignment: AlignmentArguments,
) -> Dataset:
    """What the divergence is measured on, with its targets. Raises `ValueError` for a clip without a transcript."""
    check_transcripts(examples["id"], examples["transcript"])
    return with_written_targets(model, collator, examples, alignment)


def shown_transcripts(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    alignment: AlignmentArguments,
    in_context: InContextArguments,
) -> dict[str, dict[str, list[str]]]:
    """For each prompt with demonstrations, the transcripts that may be shown, by what the LLM says is their class.

    Raises `ValueError` for prompts that there are not, or that say no class, and where nothing can be shown.
    """
    found = {}
    for prompt, says_class in in_context.demonstrated.items():
        _check_demonstrated(collator, prompt, says_class, alignment)
        answered = _answered(model, collator, examples, alignment, says_class)
        found[prompt] = transcripts_by_class(answered, answered["target"])
    return found


def with_demonstrated(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    rows: Dataset,
    examples: Dataset,
    alignment: AlignmentArguments,
    in_context: InContextArguments,
    transcripts: Mapping[str, Mapping[str, Sequence[str]]],
    seed: int,
) -> Dataset:
    """The rows, and examples behind demonstrations, whose targets the LLM writes.

    Args:
        rows: with their targets.
        examples: as the corpora have them, of every prompt.
        transcripts: of `shown_transcripts`.
        seed: of what is drawn.
    """
    parts = [rows]
    for prompt, says_class in in_context.demonstrated.items():
        answered = _answered(model, collator, examples, alignment, says_class)
        drawn = Demonstrations(
            in_context.demonstration,
            in_context.demonstration_words,
            in_context.demonstration_ways,
            in_context.demonstration_shots,
        )
        behind = with_demonstrations(answered, answered["target"], transcripts[prompt], prompt, drawn, seed)
        if len(behind):
            parts.append(with_written_targets(model, collator, behind, replace(alignment, answers=[prompt])))
    return concatenate_datasets(parts)


def _answered(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    alignment: AlignmentArguments,
    prompt: str,
) -> Dataset:
    """The examples of one prompt, with what the LLM writes as their targets."""
    asked = examples.select([place for place, task in enumerate(examples["task"]) if task == prompt])
    return with_written_targets(model, collator, asked, replace(alignment, answers=[prompt]))


def _check_demonstrated(collator: SealCollator, prompt: str, says_class: str, alignment: AlignmentArguments) -> None:
    if alignment.objective == "psrt":
        raise ValueError("psrt learns transcripts alone; leave `demonstrated` out")
    if says_class not in alignment.answers:
        raise ValueError(f"'{says_class}' is to say the classes of '{prompt}'; name it in `answers`")
    if alignment.weights.get(prompt, 1.0) == 0:
        raise ValueError(f"'{prompt}' has the weight 0; leave it out of `demonstrated`")
    if CONTEXT_MARK not in collator.processor.prompts.get(prompt, ""):
        raise ValueError(f"'{prompt}' is no prompt with {CONTEXT_MARK}, where demonstrations go; add one to `prompts`")


def _weighed(examples: Dataset, weights: Mapping[str, float]) -> Dataset:
    """Without the examples of prompts that have no weight, which are tested alone."""
    kept = [place for place, task in enumerate(examples["task"]) if weights.get(task, 1.0) > 0]
    if not kept:
        raise ValueError("no prompt has a weight above 0; leave one out of `weights`")
    return examples.select(kept) if len(kept) < len(examples) else examples


def teacher_collator(
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Sequence[Dataset],
    alignment: AlignmentArguments,
    optimization: OptimizationArguments,
) -> SealCollator:
    """The collator with a teacher as asked for: none, one that runs each time, or one that is run now and kept.

    Raises `ValueError` for a teacher to keep that is trained, or reads tokens that are.
    """
    if alignment.objective != "divergence":
        return replace(collator, with_teacher=False)
    if not alignment.kept_tokens:
        return collator
    if model.model.prompt_tokens is not None:
        raise ValueError(
            "new tokens of prompts are trained, and a teacher that reads them cannot be kept; run it live"
        )
    model.to(PartialState().device)
    root = (optimization.cache_directory or default_cache_directory()) / FEATURES
    language_model = model.model.language_model
    store = TeacherStore(root, language_model, alignment.kept_tokens, model.config.temperature)
    readings = [collator.reading(example) for rows in examples for example in rows.remove_columns("audio")]
    keep_distributions(teacher_of(model, alignment.kept_tokens), readings, store)
    return replace(collator, teachers=store)


def teacher_of(model: SealProjectorForConditionalGeneration, k: int) -> Teacher:
    """The model's LLM as what readings are asked of."""
    return partial(_asked, model, k)


@torch.no_grad()
def _asked(
    model: SealProjectorForConditionalGeneration, k: int, readings: Sequence[TeacherReading]
) -> TopDistribution:
    model.eval()
    pad = model.config.pad_token_id or 0
    input_ids = _padded([list(reading.token_ids) for reading in readings], pad).to(model.device)
    mask = _padded([[1] * len(reading.token_ids) for reading in readings], 0).to(model.device)
    labels = _padded([_labels(reading) for reading in readings], IGNORED).to(model.device)
    return TopDistribution.joined(model.teacher_distributions(input_ids, mask, labels, k))


def _labels(reading: TeacherReading) -> list[int]:
    """[T] the token behind each position that is asked about; of a decoder, whose last is never read, any."""
    following = [*(reading.decoder_token_ids or reading.token_ids)[1:], 0]
    asked = set(reading.positions)
    labels = [token if place in asked else IGNORED for place, token in enumerate(following)]
    return labels if reading.decoder_token_ids else [IGNORED, *labels[:-1]]


def _padded(rows: list[list[int]], value: int) -> Tensor:
    """[B, T], padded on the right."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
