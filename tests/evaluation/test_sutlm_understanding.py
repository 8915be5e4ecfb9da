"""What a fine-tuned SUTLM understands: targets as SLUE writes them, answers in batches, scores beside guesses."""

import pytest
import tiny_models
import torch
from datasets import ClassLabel, Dataset, Features, Value
from sutlm_cases import joint_model, joint_processor

from speechzoo import SUTLMForSequenceClassification
from speechzoo.data.corpus_builder import ENTITIES
from speechzoo.data.labeled_utterances import LabeledUtterance, question_tokens
from speechzoo.data.slue import SENTIMENTS
from speechzoo.evaluation.sutlm_understanding import TASKS, UnderstandingDecoding

SENTIMENT, ENTITIES_TASK = TASKS["sentiment"], TASKS["entities"]
CLIPS = [
    LabeledUtterance("a", [3, 5, 7, 1, 8], "turn on the lights", "x", "ann"),
    LabeledUtterance("b", [2, 4], "heat up", "x", "bob"),
    LabeledUtterance("c", [9, 1, 2, 6, 4, 5, 0], "please bring me my shoes", "x", "ann"),
]


def statements(*rows: tuple[str, str | None, list[tuple[str, int, int]] | None]) -> Dataset:
    """Rows of id, text, and entities as tag, first character and length."""
    found = {"id": [], "text": [], "entities": []}
    for name, text, spans in rows:
        found["id"].append(name)
        found["text"].append(text)
        entities = [{"type": tag, "start": at, "end": at + length, "filler": ""} for tag, at, length in spans or []]
        found["entities"].append(None if spans is None else entities)
    return Dataset.from_dict(found, Features({"id": Value("string"), "text": Value("string"), "entities": ENTITIES}))


# --- targets ---


@pytest.mark.parametrize(
    ("text", "spans", "answer", "read"),
    [
        (
            "the united kingdom voted on thursday",
            [("GPE", 4, 14), ("DATE", 28, 8)],
            "the % united kingdom ] voted on @ thursday ]",
            "the united kingdom voted on thursday",
        ),
        (  # neighbors, and the toolkit's preparation
            "they don't meet france, today.",
            [("GPE", 16, 6), ("DATE", 24, 5)],
            "they don 't meet % france ] @ today ]",
            "they don 't meet france today",
        ),
        ("nobody spoke", [], "nobody spoke", "nobody spoke"),
    ],
)
def test_targets_are_texts_with_slues_marks(text, spans, answer, read):
    [given] = ENTITIES_TASK.answers(statements(("one", text, spans))).values()
    assert (given.answer, given.text) == (answer, read)


def test_rows_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match=r"clip 'one' has no entities; a blind table"):
        ENTITIES_TASK.answers(statements(("one", "text", None)))
    with pytest.raises(ValueError, match=r"clip 'one' has no text"):
        ENTITIES_TASK.answers(statements(("one", None, [])))
    with pytest.raises(ValueError, match=r"clip 'one': the span \['GPE', 2, 4\] fits no words"):
        ENTITIES_TASK.answers(statements(("one", "in france", [("LOC", 0, 3), ("GPE", 2, 4)])))


@pytest.mark.parametrize("numbered", [True, False])
def test_sentiments_are_named(numbered):
    feature = ClassLabel(names=list(SENTIMENTS)) if numbered else Value("string")
    rows = Dataset.from_dict(
        {"id": ["a"], "text": ["good"], "speaker": ["ann"], "sentiment": ["Positive"]},
        Features({"id": Value("string"), "text": Value("string"), "speaker": Value("string"), "sentiment": feature}),
    )
    given = SENTIMENT.answers(rows)["a"]
    assert (given.answer, given.text, given.speaker) == ("Positive", "good", "ann")


# --- answers ---


@pytest.mark.parametrize("modality", ["speech", "text"])
@pytest.mark.parametrize("glue", ["start", "switch"])
def test_an_answer_is_the_likeliest_text_step_by_step(modality, glue):
    """Against a loop without cache, batch or padding, over text and the end alone."""
    processor = joint_processor()
    model = joint_model("llama", processor)
    unwanted = [*model.config.new_tokens, processor.tokenizer.bos_token_id, processor.tokenizer.pad_token_id]
    decoding = UnderstandingDecoding(batch_size=3, max_new_tokens=6, glue=glue)
    answers = ENTITIES_TASK.predict(model, processor, CLIPS, modality, decoding)
    for clip, answer in zip(CLIPS, answers, strict=True):
        tokens = question_tokens(processor, clip, modality, glue)
        written: list[int] = []
        while len(written) < 6 and processor.eos_token_id not in written:
            with torch.no_grad():
                scores = model(torch.tensor([tokens + written])).logits[0, -1]
            written.append(int(scores.index_fill(0, torch.tensor(unwanted), -torch.inf).argmax()))
        words = [token for token in written if token != processor.eos_token_id]
        assert answer == processor.tokenizer.decode(words)


@pytest.mark.parametrize("modality", ["speech", "text"])
def test_a_class_in_a_batch_is_that_of_the_clip_alone(modality):
    processor = joint_processor()
    config = joint_model("llama", processor).config
    config.id2label = dict(enumerate(SENTIMENTS))
    torch.manual_seed(0)
    model = SUTLMForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    texts = [" ".join(tiny_models.WORDS[n : n + 1 + n % 3]) for n in range(12)]
    units = [[n % 12, (n * 5 + 1) % 12, 11, n % 7][: 2 + n % 3] for n in range(12)]
    clips = [LabeledUtterance(str(n), heard, texts[n], "") for n, heard in enumerate(units)]
    together = SENTIMENT.predict(model, processor, clips, modality, UnderstandingDecoding(batch_size=12))
    alone = [SENTIMENT.predict(model, processor, [clip], modality, UnderstandingDecoding())[0] for clip in clips]
    assert together == alone
    assert len(set(alone)) > 1, "the classifier gives every clip the same class; the test shows nothing"


# --- scores ---


def test_sentiment_stands_beside_guesses():
    gold = ["Negative", "Negative", "Neutral", "Positive"]
    clips = [LabeledUtterance(str(n), [], "", label, f"voice {n % 2}") for n, label in enumerate(gold)]
    given = ["Negative", "Neutral", "Neutral", "Positive"]
    training = ["Neutral", "Negative", "Negative"]
    f1, accuracy = SENTIMENT.measure("SA", clips, given, "speech", training, split="final test", dataset="tiny")
    assert (f1.name, f1.metric, f1.items, f1.speakers, f1.resampled) == ("SA: speech", "f1", 4, 2, "speakers")
    assert (f1.split, f1.dataset) == ("final test", "tiny")
    assert f1.value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Guesses find a third of each class; half of them are right of Negative, a quarter of the others.
    harmonic = [2 * p * r / (p + r) for p, r in ((1 / 2, 1 / 3), (1 / 4, 1 / 3), (1 / 4, 1 / 3))]
    assert f1.chance == pytest.approx(sum(harmonic) / 3)
    assert f1.majority == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert f1.low is not None and f1.low <= f1.value <= f1.high
    assert (accuracy.name, accuracy.value) == ("SA: speech, accuracy", 3 / 4)
    assert (accuracy.chance, accuracy.majority) == (1 / 3, 1 / 2)


def test_entities_stand_beside_guesses():
    gold = ["in % france ] @ today ]", "in % malta ] now", "no one"]
    clips = [LabeledUtterance(str(n), [], "", answer) for n, answer in enumerate(gold)]
    given = ["in % france ] @ monday ]", "in * malta ] now", "no"]
    training = ["in % france ]", "% france ] and % rome ] and ^ greek ]"]
    f1, labels, words = ENTITIES_TASK.measure("NER", clips, given, "text", training)
    assert [row.name for row in (f1, labels, words)] == ["NER: text", "NER: text, labels", "NER: text, words"]
    # A place is a place, whether % or *; the date is another.
    assert f1.value == pytest.approx(2 / 3) and labels.value == pytest.approx(1.0)
    # "france" three times: one of the three entities, in three answers. Places alone: two of three.
    assert f1.majority == pytest.approx(2 * 1 / (3 + 3)) and labels.majority == pytest.approx(2 * 2 / (3 + 3))
    assert 0 < f1.chance < labels.chance < 1
    assert (words.metric, words.value) == ("wer", pytest.approx(2 / 8))
    assert (f1.items, f1.speakers, f1.resampled) == (3, None, "items")


def test_nothing_to_find_in_training_is_no_majority():
    clips = [LabeledUtterance("a", [], "", "in % france ]")]
    f1, *_ = ENTITIES_TASK.measure("NER", clips, ["in france"], "text", ["^ greek ] words"])
    assert (f1.value, f1.majority, f1.chance) == (0.0, 0.0, 0.0)
