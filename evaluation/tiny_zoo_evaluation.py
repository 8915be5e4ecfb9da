"""What the models of the tiny zoo can do: character errors by corpus, and exactly right answers by task."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Wav2Vec2BertForCTC, Wav2Vec2BertProcessor

from ..data.command_grammar import commands_held_out, commands_seen, intents
from ..data.invented_language import translate
from ..data.question_grammar import draw_question
from ..data.story_grammar import draw_whole_story, draw_words
from ..data.synthetic_corpus import SyntheticCorpusRecipe, build_synthetic_corpus, read_corpus
from ..data.text_task_dataset import PromptEncoder
from ..data.text_tasks import ANSWER, COPY, INTENT, REPLY, TRANSLATION, TextTask, copy_with_list, draw_episode
from .cascade import transcribe_clips
from .intervals import mean_interval, ratio_interval
from .report import Measurement

_TEST_TEXTS_SEED = 4711  # not among the seeds of training


def measure_speech_encoder(
    model: Wav2Vec2BertForCTC,
    processor: Wav2Vec2BertProcessor,
    recipe: SyntheticCorpusRecipe,
    cache_directory: str | Path | None = None,
    count: int | None = None,
) -> Measurement:
    """Character error rate on a corpus (its first `count` clips), with an interval that resamples speakers."""
    folder = build_synthetic_corpus(recipe, cache_directory)
    records = read_corpus(folder)[:count]
    transcripts = transcribe_clips(model, processor, [folder / record["audio"] for record in records])
    references = [record["transcript"] for record in records]
    errors = [_character_errors(*pair) for pair in zip(references, transcripts, strict=True)]
    speakers = [record["speaker"] for record in records]
    interval = ratio_interval(errors, [len(reference) for reference in references], speakers)
    return Measurement.of(
        recipe.name,
        "cer",
        interval,
        items=len(records),
        speakers=len(set(speakers)),
        split=recipe.voices,
        dataset="espeak-ng synthetic speech",
        task="automatic-speech-recognition",
        resampled="speakers",
        chance=1.0,
        note="chance is the error rate of an empty transcript",
    )


def _character_errors(reference: str, transcript: str) -> int:
    counts = jiwer.process_characters(reference, transcript)
    return counts.substitutions + counts.deletions + counts.insertions


@torch.inference_mode()
def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int = 64
) -> list[str]:
    """Greedy completions of prompts of token ids, as text."""
    completions: list[str] = []
    for start in range(0, len(prompts), 64):
        batch = tokenizer.pad({"input_ids": prompts[start : start + 64]}, padding_side="left", return_tensors="pt")
        tokens = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        prompted = 0 if model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        completions += tokenizer.batch_decode(tokens[:, prompted:], skip_special_tokens=True)
    return completions


def measure_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 200
) -> list[Measurement]:
    """Shares of exactly right answers on `count` texts of each task, as plain text and spread out by fillers, and of
    rightly labeled last texts of episodes."""
    return measure_tasks(model, tokenizer, count) + _measure_episodes(model, tokenizer, count)


def measure_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    count: int = 200,
    names: tuple[str, ...] = ("",),
    spreads: Sequence[bool] = (False, True),
) -> list[Measurement]:
    """The tasks alone.

    names: the beginnings of the names of those that are measured.
    spreads: whether texts are spread out by fillers; one row for each.
    """
    encoder = PromptEncoder(tokenizer)
    measurements = []
    for name, tasks in language_model_tests(count).items():
        for spread in spreads if name.startswith(names) else ():
            prompts = [
                encoder.task(task, random.Random(f"spread {index}") if spread else None)
                for index, task in enumerate(tasks)
            ]
            answers, chance = [task.answer for task in tasks], 1 / len(intents()) if tasks[0].sign == INTENT else 0.0
            label = f"{name}{', spread out' if spread else ''}"
            measurements.append(_measure_answers(model, tokenizer, label, prompts, answers, chance))
    return measurements


def language_model_tests(count: int) -> dict[str, list[TextTask]]:
    """Texts by task that the models were not trained on, but where the name says so (random words may recur; two
    of the held-out phrasings are requests too, which were copied)."""
    words = [draw_words(_TEST_TEXTS_SEED, index, shortest=3) for index in range(count)]
    stories = [draw_whole_story(_TEST_TEXTS_SEED, index, held_out=True) for index in range(count)]
    questions = [draw_question(_TEST_TEXTS_SEED, index) for index in range(count)]
    seen, held_out = commands_seen()[:count], commands_held_out()
    rng = random.Random(_TEST_TEXTS_SEED)
    return {
        "copy random words": [TextTask(COPY, text, text) for text in words],
        "copy stories": [TextTask(COPY, story.opening, story.opening) for story in stories],
        "copy trained phrasings": [TextTask(COPY, command.text, command.text) for command in seen],
        "copy held-out phrasings": [TextTask(COPY, command.text, command.text) for command in held_out],
        "intent of trained phrasings": [TextTask(INTENT, command.text, str(command.intent)) for command in seen],
        "intent of held-out phrasings": [TextTask(INTENT, command.text, str(command.intent)) for command in held_out],
        "translate stories": [TextTask(TRANSLATION, story.opening, translate(story.opening)) for story in stories],
        "translate held-out phrasings": [
            TextTask(TRANSLATION, command.text, translate(command.text)) for command in held_out
        ],
        "answer trained questions": [TextTask(ANSWER, question.text, question.answer) for question in questions],
        "answer about stories": [
            TextTask(ANSWER, story.opening, story.answer, context=story.question) for story in stories
        ],
        "reply to stories": [TextTask(REPLY, story.opening, story.reply) for story in stories],
        "fill gaps from a list": [copy_with_list(story, rng, right=True) for story in stories],
    }


def _measure_episodes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int) -> list[Measurement]:
    """Episodes of four classes; intents that no episode of training showed stand apart."""
    encoder, measurements = PromptEncoder(tokenizer), []
    for shots, unseen in ((1, False), (2, False), (2, True)):
        episodes = [draw_episode(_TEST_TEXTS_SEED, index, 4, shots, unseen) for index in range(count)]
        answers = [episode.labels[-1] for episode in episodes]
        prompts = [
            encoder.episode(episode)["input_ids"][: -len(encoder.text(answer))]
            for episode, answer in zip(episodes, answers, strict=True)
        ]
        name = f"{shots} shots of each class{', intents that no episode showed' if unseen else ''}"
        chance = float(np.mean([1 / len(set(episode.labels)) for episode in episodes]))
        # After the label a model goes on as it likes: with the next text, where it was trained on episodes as wholes.
        longest = max(len(encoder.text(answer)) for answer in answers)
        measurements.append(_measure_answers(model, tokenizer, name, prompts, answers, chance, longest))
    return measurements


def _measure_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    prompts: list[list[int]],
    answers: list[str],
    chance: float,
    max_new_tokens: int = 64,
) -> Measurement:
    completions = complete(model, tokenizer, prompts, max_new_tokens)
    right = [given == answer for given, answer in zip(completions, answers, strict=True)]
    return Measurement.of(
        name,
        "exact_match",
        mean_interval(right),
        items=len(right),
        dataset="generated text",
        task="text-generation",
        resampled="items",
        chance=chance,
    )
