"""What a frozen LLM writes after prompts that are text from end to end."""

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from ..modeling.modeling_speech_text_generation import SpeechTextForConditionalGeneration
from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor


@torch.no_grad()
def written_answers(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 32,
) -> list[str]:
    """The greedy answer of the model's LLM to each prompt; prompts of like lengths are read together."""
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for start in tqdm(range(0, len(order), batch_size), desc="answering", unit="batch", leave=False):
        batch = order[start : start + batch_size]
        inputs = processor.tokenizer(
            [prompts[place] for place in batch],
            add_special_tokens=False,
            padding=True,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        generated = model.model.language_model.generate(
            **inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False
        )
        for place, answer in zip(batch, processor.decode_answers(generated, inputs["input_ids"]), strict=True):
            answers[place] = answer
    return answers


__all__ = ["written_answers"]
