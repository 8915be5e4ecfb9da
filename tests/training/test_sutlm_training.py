"""Training joint models: what is read, what is refused, what is logged, and that an interruption changes nothing."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from timed_corpus import TEXTS, unit_model, write_timed_corpus
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from speechzoo.data.packed_batches import PackedCollator
from speechzoo.modeling.modality_generation import token_kinds
from speechzoo.training.adapter_arguments import RunArguments
from speechzoo.training.adapter_training import train, training_arguments
from speechzoo.training.command_line import parse_arguments
from speechzoo.training.sutlm_arguments import (
    JointModelArguments,
    JointOutputArguments,
    JointTestArguments,
    MixtureArguments,
    PretrainingArguments,
    UnitArguments,
)
from speechzoo.training.sutlm_training import (
    JointData,
    assemble_joint_model,
    make_joint_trainer,
    open_reader,
    read_joint_data,
    refuse_shared_ids,
    refuse_shared_utterances,
    sequences_of,
    usable_pairs,
)

CONFIGURATIONS = Path(__file__).parents[2] / "examples" / "configs"
GROUPS = (
    *(JointModelArguments, UnitArguments, MixtureArguments),
    *(PretrainingArguments, JointTestArguments, JointOutputArguments),
)


@pytest.mark.parametrize("name", ["sutlm_tiny_zoo", "sutlm_hubert_base_350m"])
def test_the_ready_configurations_are_understood(name):
    path = CONFIGURATIONS / f"{name}.yaml"
    language_model, units, mixture, *_ = parse_arguments("", *GROUPS, argv=["--config", str(path)])
    assert language_model.text_model and units.unit_pieces and mixture.paired_data and mixture.validation_data


@pytest.fixture(scope="module")
def parts(backbones, tmp_path_factory):
    """Arguments, reader, data and the folder of the text LM."""
    folder = tmp_path_factory.mktemp("joint")
    for part in unit_model(backbones):
        part.save_pretrained(folder / "units")
    corpus = write_timed_corpus(folder / "train")
    units = UnitArguments(unit_model=str(folder / "units"), unit_pieces=0, store=folder / "store")
    mixture = MixtureArguments([str(corpus)], [str(corpus)], [str(corpus)])
    reader = open_reader(units)
    language_model = JointModelArguments(text_model=str(backbones.language_model("llama")))
    return units, mixture, reader, read_joint_data(reader, units, mixture), language_model


def joint_model(parts, seed=0, **changes):
    units, _, reader, data, language_model = parts
    return assemble_joint_model(replace(language_model, **changes), units, data, reader.clusters, seed)


def trainer_of(parts, folder, learning_rate=1e-3, steps=4, validate=False, **fields):
    _, mixture, reader, data, _ = parts
    model, processor = joint_model(parts)
    sequences = sequences_of(processor, data, mixture, reader.frame_rate, 0)
    pretraining = PretrainingArguments(
        max_steps=steps,
        batch_size=2,
        row_tokens=128,
        learning_rate=learning_rate,
        warmup_steps=0,
        bf16=False,
        evaluations=1,
        training_arguments={"logging_steps": 1, **fields},
    )
    output = RunArguments(output_dir=folder, test_batch_size=2)
    arguments: TrainingArguments = training_arguments(pretraining, output, steps, validate)
    return make_joint_trainer(model, processor, sequences, sequences if validate else None, pretraining, arguments)


def test_a_kind_with_a_weight_needs_a_source(parts):
    units, mixture, reader, *_ = parts
    with pytest.raises(ValueError, match=r"'paired' has a weight and no source.*--paired 0"):
        read_joint_data(reader, units, replace(mixture, paired_data=[]))
    assert read_joint_data(reader, units, replace(mixture, paired_data=[], paired=0)).paired == []


def test_pairs_have_what_their_sequences_are_made_of(parts):
    whole = parts[3].paired[0]
    silent, wordless = replace(whole, id="silent", words=()), replace(whole, id="wordless", text="")
    for share, expected in ((0, [whole, silent]), (0.5, [whole]), (1, [whole, wordless])):
        assert usable_pairs([whole, silent, wordless], share) == expected
    with pytest.raises(ValueError, match=r"1 of 1 paired utterances lack.*--alternating 0"):
        usable_pairs([silent], 0.5)


def test_a_test_shares_neither_clips_nor_texts_with_training(parts):
    _, _, _, data, _ = parts
    first = data.speech[0]
    with pytest.raises(ValueError, match=r"test 'other' shares 1 clips or texts .*'new'"):
        refuse_shared_utterances(data, {"other": [replace(first, id="new")]})
    with pytest.raises(ValueError, match=r"shares 1"):
        refuse_shared_utterances(data, {"other": [replace(first, text="something else")]})
    refuse_shared_utterances(data, {"other": [replace(first, id="new", text="something else")]})
    with pytest.raises(ValueError, match=r"shares 1"):
        refuse_shared_utterances(JointData([], [], TEXTS), {"other": [replace(first, id="new")]})
    refuse_shared_utterances(data, {"other": [replace(first, id="new")]}, texts_too=False)
    with pytest.raises(ValueError, match=r"shares 1"):
        refuse_shared_utterances(data, {"other": [first]}, texts_too=False)


def test_two_corpora_do_not_share_an_id(parts):
    _, _, _, data, _ = parts
    with pytest.raises(ValueError, match=r"'a' and 'b' both have a clip"):
        refuse_shared_ids({"a": data.speech, "b": data.speech[:1]})
    refuse_shared_ids({"a": data.speech, "b": [replace(data.speech[0], id="other")]})


def test_only_pairs_are_asked_for_words(parts):
    units, mixture, reader, *_ = parts
    unpaired = read_joint_data(reader, units, replace(mixture, paired_data=[], paired=0))
    assert not any(utterance.words for utterance in unpaired.speech)
    assert all(utterance.words for utterance in read_joint_data(reader, units, mixture).speech)


def test_a_model_from_scratch_has_the_shape_and_other_weights(parts):
    warm, processor = joint_model(parts)
    cold, _ = joint_model(parts, from_scratch=True)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (warm, cold)]
    assert shapes[0] == shapes[1]
    text = warm.get_input_embeddings().weight[: processor.token("<U_EN>")]
    assert not torch.equal(text, cold.get_input_embeddings().weight[: len(text)])
    again, other = (joint_model(parts, seed, from_scratch=True)[0] for seed in (0, 1))
    assert torch.equal(again.lm_head.weight, cold.lm_head.weight)
    assert not torch.equal(other.lm_head.weight, cold.lm_head.weight)


def test_a_preset_gives_the_shape(parts):
    model, processor = joint_model(parts, from_scratch=True, preset="tiny")
    assert model.config.text_config.model_type == "gpt2" and model.config.vocab_size == processor.vocab_size


def losses_by_hand(model, batch):
    """Mean cross-entropies of speech and text, sequence by sequence, in float64."""
    totals = {"speech": [], "text": []}
    for row in range(len(batch["input_ids"])):
        starts = [*torch.where(batch["position_ids"][row] == 0)[0].tolist(), batch["input_ids"].shape[1]]
        for start, end in pairwise(starts):
            tokens, labels = batch["input_ids"][row, start:end], batch["labels"][row, start:end]
            if (labels == -100).all():
                continue
            logits = model(input_ids=tokens[None]).logits[0, :-1].double()
            losses, kinds = cross_entropy(logits, tokens[1:], reduction="none"), token_kinds(model.config, tokens[1:])
            totals["speech"] += losses[kinds == 0].tolist()
            totals["text"] += losses[kinds == 1].tolist()
    return {kind: sum(values) / len(values) for kind, values in totals.items()}


@torch.no_grad()
def test_losses_of_speech_and_text_are_logged(parts, tmp_path):
    trainer = trainer_of(parts, tmp_path, learning_rate=0.0, steps=1, validate=True)
    rows = iter(trainer.train_dataset)
    batch = PackedCollator()([next(rows), next(rows)])
    expected = losses_by_hand(trainer.model.eval(), batch)
    whole = losses_by_hand(trainer.model, PackedCollator()(list(trainer.eval_dataset)))
    with torch.enable_grad():
        train(trainer, resume=False)
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    for kind in ("speech", "text"):
        assert logged[f"{kind}_loss"] == pytest.approx(expected[kind], abs=1e-5)
        assert logged[f"eval_{kind}_loss"] == pytest.approx(whole[kind], abs=1e-5)
        assert logged[f"eval_{kind}_perplexity"] == pytest.approx(math.exp(whole[kind]), rel=1e-4)


def test_an_interrupted_run_ends_at_the_same_weights(parts, tmp_path):
    whole = trainer_of(parts, tmp_path / "whole", save_strategy="steps", save_steps=2, save_total_limit=3)
    train(whole, resume=False)
    (tmp_path / "whole" / "checkpoints" / "checkpoint-4").rename(tmp_path / "last")
    resumed = trainer_of(parts, tmp_path / "whole", save_strategy="no")
    train(resumed, resume=True)
    assert resumed.state.global_step == 4
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
