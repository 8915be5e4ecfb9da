"""Fine-tuning a SUTLM: what is read, where the loss is, marks that survive, folders that load again, leaks refused."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sutlm_cases import joint_model, joint_processor
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, T5Tokenizer

from speechzoo.data.labeled_utterances import Answer, LabeledUtterance, labeled_utterances, written_answer
from speechzoo.data.speech_text_mixing import Utterance
from speechzoo.evaluation.slue_entities import END, MARKS, parse_tagged
from speechzoo.processing.speech_units import deduplicate
from speechzoo.training.sutlm_finetuning import (
    AnswerSequences,
    ClassSequences,
    LabeledCollator,
    load_for_answers,
    load_for_classes,
    refuse_shared_labeled,
    sequences_of_labeled,
    with_words,
)

WORDS = [*MARKS.values(), END]
CLIPS = [
    LabeledUtterance("a", [3, 5, 7, 1], "turn on the kitchen lights", "turn on the % kitchen ] lights"),
    LabeledUtterance("b", [2], "bring me my shoes please", "} bring me ] my @ shoes ] please"),
]
LABELS = ("down", "up")
TINY_ZOO = Path(__file__).parents[2] / "examples" / "tiny_zoo" / "language_model"


def unigram() -> T5Tokenizer:
    """SentencePiece-like, without any of the marks."""
    pieces = [("▁the", -2.0), ("▁", -3.5), *((letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz'")]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces], extra_ids=3)


@pytest.fixture(scope="module")
def processor():
    return with_words(joint_processor(), WORDS)


@pytest.fixture(scope="module")
def model(processor):
    return joint_model("llama", processor)


@pytest.fixture
def pretrained(tmp_path):
    """A saved model whose text tokenizer knows no mark."""
    processor = joint_processor()
    joint_model("llama", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


# --- sequences ---


@pytest.mark.parametrize(("glue", "behind_speech"), [("start", "<T_EN>"), ("switch", "<U2T>")])
def test_an_answer_stands_behind_speech_or_text(processor, glue, behind_speech):
    for modality, content, mark in (("speech", [3, 5, 7, 1], behind_speech), ("text", CLIPS[0].text, "<T_EN>")):
        row = AnswerSequences(processor, glue).encode(CLIPS[0], modality)
        ids, first = row["input_ids"], "<U_EN>" if modality == "speech" else "<T_EN>"
        assert processor.spans(ids) == [(modality, content), ("text", CLIPS[0].answer)]
        signs = [ids[0], next(token for token, label in zip(ids[::-1], row["labels"][::-1], strict=True) if label < 0)]
        assert signs == [processor.token(first), processor.token(mark)]
        assert ids[-1] == processor.eos_token_id


@pytest.mark.parametrize("modality", ["speech", "text"])
def test_the_loss_is_that_of_the_answer_alone(model, processor, modality):
    """In a padded batch, against log-probabilities of each sequence alone in float64."""
    task = AnswerSequences(processor)
    rows = sequences_of_labeled(task, CLIPS, [modality])
    surprises = []
    for clip in CLIPS:
        ids = torch.tensor(task.encode(clip, modality)["input_ids"])
        with torch.no_grad():
            logits = model(ids[None]).logits[0].double()
        begin = len(ids) - len(clip.answer.split()) - 1  # every word is a token, and the end
        picked = logits[begin - 1 : -1].log_softmax(-1).gather(1, ids[begin:, None])
        surprises.append(-picked[:, 0])
    batch = LabeledCollator(processor)(list(rows))
    with torch.no_grad():
        loss = model(**batch).loss
    assert batch["attention_mask"].min() == 0, "the clips are as long as each other; nothing is padded"
    torch.testing.assert_close(loss.double(), torch.cat(surprises).mean(), rtol=1e-5, atol=1e-5)


def test_both_is_every_clip_twice(processor):
    task = AnswerSequences(processor)
    rows = sequences_of_labeled(task, CLIPS, ["speech", "text"])
    apart = [task.encode(clip, modality) for modality in ("speech", "text") for clip in CLIPS]
    assert [row["input_ids"] for row in rows] == [row["input_ids"] for row in apart]
    assert rows["length"] == [len(row["labels"]) for row in apart]


def test_a_classifier_reads_the_clip_without_an_answer(processor):
    clip = LabeledUtterance("c", [3, 5], "turn on", "up")
    rows = sequences_of_labeled(ClassSequences(processor, LABELS), [clip], ["speech", "text"])
    assert [processor.spans(row["input_ids"]) for row in rows] == [[("speech", [3, 5])], [("text", "turn on")]]
    assert [row["input_ids"][0] for row in rows] == [processor.token("<U_EN>"), processor.token("<T_EN>")]
    assert LabeledCollator(processor)(list(rows))["labels"].tolist() == [1, 1]


def test_what_cannot_be_trained_on_is_named(processor):
    task = ClassSequences(processor, LABELS)
    with pytest.raises(ValueError, match=r"clip 'a' has the label .*; choose of down, up"):
        sequences_of_labeled(task, CLIPS, ["speech"])
    with pytest.raises(ValueError, match=r"clip 'a' read as speech takes 14 tokens and max_tokens is 10"):
        sequences_of_labeled(AnswerSequences(processor), CLIPS, ["speech"], max_tokens=10)
    with pytest.raises(ValueError, match=r"clip 'd' has no text"):
        sequences_of_labeled(AnswerSequences(processor), [LabeledUtterance("d", [1], " ", "x")], ["text"])
    with pytest.raises(ValueError, match=r"no clip to fine-tune on"):
        sequences_of_labeled(task, [], ["speech"])


def test_labels_are_joined_by_id():
    heard = [Utterance("b", deduplicate([1, 1, 2]), "said"), Utterance("a", deduplicate([3]), "said")]
    answers = {"a": Answer("up", "as spelled", "voice"), "b": Answer("down", "so"), "unused": Answer("up", "")}
    assert labeled_utterances(heard, answers) == [
        LabeledUtterance("b", [1, 2], "so", "down"),
        LabeledUtterance("a", [3], "as spelled", "up", "voice"),
    ]
    with pytest.raises(ValueError, match=r"1 clips have no label, first 'b'"):
        labeled_utterances(heard, {"a": answers["a"]})


def test_a_clip_of_the_training_data_is_refused_in_a_test():
    refuse_shared_labeled(CLIPS[:1], {"test": CLIPS[1:], "none": []})
    with pytest.raises(ValueError, match=r"'test' shares 1 clips with the training data, first 'b'"):
        refuse_shared_labeled(CLIPS, {"test": CLIPS[1:]})
    synthesized = [replace(CLIPS[1], id=f"synthesized-{CLIPS[1].id}")]
    for training, tested in ((synthesized, CLIPS[1:]), (CLIPS, synthesized), (synthesized, synthesized)):
        with pytest.raises(ValueError, match=r"'test' shares 1 clips with the training data, first 'b'"):
            refuse_shared_labeled(training, {"test": tested})


# --- marks ---


def test_a_byte_level_tokenizer_spells_every_mark():
    processor = joint_processor(AutoTokenizer.from_pretrained(TINY_ZOO))
    assert with_words(processor, WORDS) is processor
    tagged = "the % united kingdom ] voted on @ thursday ] ? <"
    assert written_answer(processor, [*processor.text_tokens(tagged), processor.eos_token_id, 5]) == tagged


@pytest.mark.parametrize("text_tokenizer", [unigram, None], ids=["unigram", "words"])
def test_unknown_marks_become_tokens(text_tokenizer):
    before = joint_processor(text_tokenizer() if text_tokenizer else None)
    after = with_words(before, WORDS)
    assert after.tokenizer.unk_token_id in before.text_tokens("the % lights ]")
    assert before.vocab_size == after.vocab_size - len(WORDS), "the processor that was given has changed, or is alike"
    assert after.tokenizer.convert_tokens_to_ids(WORDS) == list(range(before.vocab_size, after.vocab_size))
    assert after.unit_token_range == before.unit_token_range
    for mark, tag in zip(MARKS.values(), MARKS, strict=True):
        read = written_answer(after, after.text_tokens(f"the {mark} lights on ] {mark} heat ]"))
        assert parse_tagged(read) == [(tag, "lights on"), (tag, "heat")]
    assert with_words(after, WORDS) is after


def test_a_grown_model_loads_again_by_the_auto_classes(pretrained, tmp_path):
    old = AutoModelForCausalLM.from_pretrained(pretrained)
    torch.manual_seed(0)
    model, processor = load_for_answers(str(pretrained), WORDS)
    rows = old.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[: len(rows)], rows)
    assert model.config.vocab_size == processor.vocab_size == len(rows) + len(WORDS)
    model.save_pretrained(tmp_path / "tuned")
    processor.save_pretrained(tmp_path / "tuned")
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not any(report.values())
    reader = AutoProcessor.from_pretrained(tmp_path / "tuned")
    batch = LabeledCollator(reader)(list(sequences_of_labeled(AnswerSequences(reader), CLIPS, ["text"])))
    expected = LabeledCollator(processor)(list(sequences_of_labeled(AnswerSequences(processor), CLIPS, ["text"])))
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    with torch.no_grad():
        assert torch.equal(again(**batch, return_logits=True).logits, model.eval()(**batch, return_logits=True).logits)


# --- pretrained weights ---


def test_a_classifier_starts_from_the_pretrained_body(pretrained):
    old = AutoModelForCausalLM.from_pretrained(pretrained).state_dict()
    torch.manual_seed(1)
    model, _ = load_for_classes(str(pretrained), LABELS, classifier_dropout=0.4)
    torch.manual_seed(1)
    again, _ = load_for_classes(str(pretrained), LABELS)
    body = {name: value for name, value in model.state_dict().items() if name.startswith("model.")}
    assert body and all(torch.equal(value, old[name]) for name, value in body.items())
    assert model.config.id2label == {0: "down", 1: "up"} and model.config.classifier_dropout == 0.4
    assert model.classifier[-1].weight.shape[0] == 2
    assert torch.equal(model.classifier[1].weight, again.classifier[1].weight), "new weights do not follow the seed"


@pytest.mark.parametrize("kind", ["classes", "answers"])
def test_what_pretraining_froze_is_trained(tmp_path, kind):
    processor = joint_processor()
    frozen = joint_model("llama", processor, trained_rows="units")
    wanted = copy.deepcopy(frozen)
    wanted.fold_rows()
    frozen.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load = load_for_classes if kind == "classes" else load_for_answers
    model, _ = load(str(tmp_path), LABELS if kind == "classes" else [])
    assert all(parameter.requires_grad for parameter in model.parameters())
    table, rows = (one.get_input_embeddings().weight for one in (model, wanted))
    torch.testing.assert_close(table, rows)
