"""Training a text-to-unit model: what is read and aligned, what is refused, what the final test says."""

from pathlib import Path

import pytest
import torch
from timed_corpus import TEXTS, unit_model, write_timed_corpus

from speechzoo.data.spoken_texts import TextAligner, TextToUnitCollator, text_to_unit_examples
from speechzoo.evaluation.text_to_unit_quality import PhoneTable, measure_alignment, measure_text_to_unit
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.unit_vocabulary import UnitVocabulary
from speechzoo.training.adapter_training import train, training_arguments
from speechzoo.training.command_line import parse_arguments
from speechzoo.training.text_to_unit_arguments import (
    PhoneArguments,
    SpeechUnitArguments,
    SpokenDataArguments,
    TextToUnitArguments,
    TextToUnitOutputArguments,
    TextToUnitUpdateArguments,
)
from speechzoo.training.text_to_unit_training import (
    assemble_text_to_unit,
    make_text_to_unit_trainer,
    open_phone_reader,
    open_unit_reader,
    read_spoken_corpora,
)

CONFIGURATIONS = Path(__file__).parents[2] / "examples" / "configs"
GROUPS = (
    *(SpeechUnitArguments, PhoneArguments, TextToUnitArguments),
    *(SpokenDataArguments, TextToUnitUpdateArguments, TextToUnitOutputArguments),
)


@pytest.mark.parametrize("name", ["text_to_unit_tiny_zoo", "text_to_unit_librispeech_100h"])
def test_the_ready_configurations_are_understood(name):
    path = CONFIGURATIONS / f"{name}.yaml"
    units, phones, shape, data, *_ = parse_arguments("", *GROUPS, argv=["--config", str(path)])
    assert units.unit_model and phones.lexicon == "cmudict" and shape.preset and data.train_data and data.test_data


@pytest.fixture(scope="module")
def corpora(backbones, tmp_path_factory):
    """Two corpora of clips, aligned, with the reader that read them and what it learned."""
    folder = tmp_path_factory.mktemp("spoken")
    for part in unit_model(backbones):
        part.save_pretrained(folder / "units")
    letters = {word: tuple(word.upper()) for text in TEXTS for word in text.split()}
    (folder / "lexicon.txt").write_text("\n".join(Lexicon(letters).lines()))
    sources = [str(write_timed_corpus(folder / "train")), str(write_timed_corpus(folder / "test", TEXTS[:3], 50))]
    units = SpeechUnitArguments(unit_model=str(folder / "units"), store=folder / "store")
    phones = PhoneArguments(lexicon=str(folder / "lexicon.txt"), sound_out=False, aligner_rounds=3)
    reader, phone_reader = open_unit_reader(units), open_phone_reader(phones)
    found, aligner = read_spoken_corpora(reader, phone_reader, units, phones, sources[:1], sources[1:], None)
    return sources, found, aligner, reader, phone_reader


def test_every_clip_is_aligned_with_its_letters(corpora):
    (train_source, test_source), found, _, reader, _ = corpora
    assert [one.text for one in found.of([train_source, test_source])] == [*TEXTS, *TEXTS[:3]]
    for one, utterance in zip(found.of([train_source]), found.utterances[train_source], strict=True):
        said = "".join(phone for group in one.aligned.groups if group != ("SIL",) for phone in group)
        assert said == one.text.replace(" ", "").upper()
        assert sum(one.aligned.durations) == len(one.units) == utterance.units.frames
        assert one.units == utterance.units.expanded()
        assert abs(len(one.units) / reader.frame_rate - 1.0) < 0.1  # clips of a second


def test_rows_are_padded_under_masks(corpora):
    (source, _), found, _, _, phone_reader = corpora
    vocabulary = UnitVocabulary(phone_reader.inventory)
    rows = text_to_unit_examples(found.of([source]), vocabulary)
    batch = TextToUnitCollator()([rows[0], rows[3]])
    for place, row in enumerate((rows[0], rows[3])):
        kept = batch["phone_attention_mask"][place].bool()
        assert batch["phone_ids"][place][kept].tolist() == row["phone_ids"]
        assert batch["durations"][place][kept].tolist() == row["durations"]
        assert batch["labels"][place][batch["labels"][place] >= 0].tolist() == row["labels"]
        assert vocabulary.symbols[row["phone_ids"][0]] in ("SIL", TEXTS[(0, 3)[place]][0].upper())
        assert sum(row["durations"]) == row["length"]
    assert not batch["durations"][batch["phone_attention_mask"] == 0].any()


@pytest.mark.slow
def test_training_beats_the_table_on_what_it_has_seen(corpora, tmp_path):
    (source, _), found, aligner, reader, phone_reader = corpora
    vocabulary = UnitVocabulary(phone_reader.inventory)
    plain = {"hidden_size": 64, "hidden_dropout": 0.0, "attention_dropout": 0.0, "duration_weight": 5.0}
    shape = TextToUnitArguments(shape=plain)
    model = assemble_text_to_unit(shape, vocabulary, reader.clusters, reader.frame_rate, seed=0)
    rows = text_to_unit_examples(found.of([source]), vocabulary)
    update = TextToUnitUpdateArguments(max_steps=80, batch_size=5, learning_rate=3e-3, warmup_steps=5, bf16=False)
    output = TextToUnitOutputArguments(output_dir=tmp_path)
    trainer = make_text_to_unit_trainer(model, rows, None, training_arguments(update, output, 80, False))
    train(trainer, resume=False)
    table = PhoneTable.of(aligner, found.of([source]))
    measured = {row.name: row for row in measure_text_to_unit(model, table, found.of([source]), "seen", source)}
    value = {name.partition(": ")[2]: row.value for name, row in measured.items()}
    assert value["unit_accuracy"] > max(0.9, value["unit_accuracy of the table"])
    assert value["duration_error"] < value["duration_error of the table"]
    assert value["unit_error_rate"] < value["unit_error_rate of the table"]
    assert all(row.items == len(TEXTS) and row.low <= row.value <= row.high for row in measured.values())


def test_the_table_says_the_commonest_unit_of_each_phone(corpora):
    (source, _), found, aligner, _, _ = corpora
    table = PhoneTable.of(aligner, found.of([source]))
    one = found.of([source])[0]
    phones = [phone for group in one.aligned.groups for phone in group]
    for phone, unit in zip(phones, table.say(one.aligned, [1] * len(phones)), strict=True):
        assert (
            aligner.log_emissions[aligner.phones.index(phone), unit]
            == aligner.log_emissions[aligner.phones.index(phone)].max()
        )
    lasts = [
        frames
        for other in found.of([source])
        for phone, frames in zip(
            [name for group in other.aligned.groups for name in group], other.aligned.durations, strict=True
        )
        if phone == phones[-1]
    ]
    assert table.durations[phones[-1]] == pytest.approx(sum(lasts) / len(lasts))


def test_beginnings_are_compared_with_the_times_of_words(corpora):
    """The corpus spreads its words evenly, so that equal words are right to the frame."""
    (source, _), found, _, reader, _ = corpora
    rows = measure_alignment(found.of([source]), found.utterances[source], reader.frame_rate, "seen", source)
    value = {row.name: row.value for row in rows}
    assert value["seen: word_start_error of equal words"] < 15  # the last frames of a clip are cut
    by_hand = []
    for one, utterance in zip(found.of([source]), found.utterances[source], strict=True):
        starts = torch.tensor([first for first, _ in one.aligned.word_spans]) / reader.frame_rate
        known = torch.tensor([word.start for word in utterance.words])
        by_hand.append(float((starts - known).abs().mean()) * 1000)
    assert value["seen: word_start_error"] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_words_stay_near_the_times_that_the_corpus_knows(corpora):
    """A window is as long as the word and 60 ms to both sides; without windows tones are aligned with anything."""
    (source, _), found, _, reader, phone_reader = corpora
    for one, utterance in zip(found.of([source]), found.utterances[source], strict=True):
        for (first, behind), word in zip(one.aligned.word_spans, utterance.words, strict=True):
            assert first >= (word.start - 0.06) * reader.frame_rate - 1
            assert behind <= (word.end + 0.06) * reader.frame_rate + 1
    free = TextAligner(phone_reader, reader.frame_rate, slack=None)
    heard = found.utterances[source]
    freely = free.align(free.fit(heard, reader.clusters, rounds=3), heard)
    assert [one.aligned.durations for one in freely] != [one.aligned.durations for one in found.of([source])]


def test_nothing_to_train_on_is_refused(corpora):
    _, _, _, reader, _ = corpora
    with pytest.raises(ValueError, match=r"nothing to train on; name at least one corpus in train_data"):
        read_spoken_corpora(reader, None, SpeechUnitArguments(), PhoneArguments(), [], [], None)
