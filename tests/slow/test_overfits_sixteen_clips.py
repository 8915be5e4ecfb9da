"""Sixteen spoken commands are learned to the word through an LLM of every family.

Only the adapter is trained. The LLM is random and stays as it is, so nothing but a right gradient through its
embeddings, masks, positions and head can make it say the commands, and nothing but the clip tells it which. Its
weights are drawn wide: at the deviation that pretraining starts from, 0.02, all tokens stay about equally likely
whatever it reads.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from datasets import Dataset
from transformers import set_seed

from speechzoo import SpeechTextAdapterForConditionalGeneration
from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.data.synthetic_corpus import RECIPES, build_synthetic_corpus
from speechzoo.evaluation.adapter_evaluation import Decoding, answer_speech
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    OutputArguments,
)
from speechzoo.training.adapter_training import assemble, keep_encoder_frames, make_trainer, train, training_arguments

pytestmark = pytest.mark.slow

SPEECH_ENCODER = Path(__file__).parents[2] / "examples" / "tiny_zoo" / "speech_encoder"
RECIPE = replace(RECIPES["commands-train"], name="sixteen-commands", count=16)
INSTRUCTION = "transcribe the speech"


@dataclass(frozen=True)
class Family:
    """How an LLM is drawn, `fields` of its configuration and `scale` of its weights, and how long it is driven."""

    fields: dict[str, Any] = field(default_factory=lambda: {"initializer_range": 0.3})
    scale: float = 1.0
    steps: int = 200


# Gemma divides attention by the root of a field of its own, whose default of 256 would blur heads of width 8.
GEMMA = {"initializer_range": 0.3, "query_pre_attn_scalar": 8}
# Encoder-decoders of width 32 learned too slowly: seven commands at most in up to 200 steps.
BART = {"init_std": 0.25, "d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128}
FAMILIES = {
    **dict.fromkeys(tiny_models.LANGUAGE_MODELS, Family()),
    # A cap of 2 on the logits, which other tests take to make it felt, leaves no token likely; 30 is Gemma 2's own.
    "gemma2": Family({**GEMMA, "final_logit_softcapping": 30.0}),
    "gemma3": Family(GEMMA, steps=250),
    "t5": Family(T5, scale=2.0, steps=150),
    "mt5": Family(T5, scale=2.0, steps=150),
    "bart": Family(BART),
}


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    corpus = load_corpus(build_synthetic_corpus(RECIPE, tmp_path_factory.mktemp("speech")))
    assert len(set(corpus["text"])) == 16
    return task_examples(corpus, {"asr": "text"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The speech encoder is the same for all LLMs, and so are its frames."""
    return tmp_path_factory.mktemp("frames")


@pytest.mark.parametrize("family", FAMILIES)
def test_sixteen_clips_are_learned_to_the_word(family, sixteen, cache, tmp_path):
    torch.set_num_threads(1)
    chosen = FAMILIES[family]
    words = sorted({*INSTRUCTION.split(), *" ".join(sixteen["target"]).split()})
    text_model = tmp_path / family
    tiny_models.save_language_model(family, text_model, chosen.scale, words, **chosen.fields)
    set_seed(0)
    model, processor = assemble(
        BackboneArguments(audio_model=str(SPEECH_ENCODER), text_model=str(text_model)),
        AdapterArguments(),
        DataArguments(prompts={"asr": f"{INSTRUCTION} {{audio}}"}),
    )
    before = frozen_weights(model)
    optimization = OptimizationArguments(
        learning_rate=3e-3,
        max_steps=chosen.steps,
        warmup_steps=20,
        weight_decay=0.0,
        bf16=False,
        cache_directory=cache,
        training_arguments={"disable_tqdm": True},
    )
    collator, (examples,) = keep_encoder_frames(model, processor, [sixteen], optimization)
    arguments = training_arguments(optimization, OutputArguments(output_dir=tmp_path), chosen.steps, evaluates=False)
    train(make_trainer(model, collator, examples, None, arguments), resume=False)
    after = frozen_weights(model)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    for batch_size in (16, 1):  # padded to the longest, and each alone
        answers = answer_speech(model, processor, sixteen, Decoding(batch_size, max_new_tokens=16))
        assert answers == sixteen["target"], batch_size


def frozen_weights(model: SpeechTextAdapterForConditionalGeneration) -> dict[str, torch.Tensor]:
    weights = model.state_dict()
    return {name: weight.clone() for name, weight in weights.items() if ".adapter." not in name}
