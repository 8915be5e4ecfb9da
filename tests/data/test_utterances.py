"""Utterances of a corpus: units as the unit model alone says them, texts, and words from where they are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from speech_text_cases import CLIPS
from timed_corpus import unit_model

from speechzoo.data.text_lines import read_texts
from speechzoo.data.utterances import UtteranceReader
from speechzoo.processing.audio_loading import save_audio
from speechzoo.processing.word_alignment import WordSpan

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"
0
0.5
<exists>
1
"IntervalTier"
"words"
0
0.5
2
0
0.2
"Hello"
0.2
0.5
"there"
"""


@pytest.fixture(scope="module")
def parts(backbones):
    return unit_model(backbones, smoothing=3)


@pytest.fixture
def corpus(tmp_path):
    """Three clips: the first with times of words and phones, and a pair of words that is said as one."""
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    words = [["in", 0.0, 0.1], ["the", 0.1, 0.2], ["park", 0.2, 0.4]]
    phones = [["I", 0.0, 0.07], ["n", 0.07, 0.15], ["p", 0.2, 0.3], ["k", 0.3, 0.4]]
    lines = []
    for place, samples in enumerate(CLIPS[:3]):
        save_audio(folder / "audio" / f"{place}.wav", 0.5 * samples)
        lines.append({"id": f"c{place}", "audio": f"audio/{place}.wav", "transcript": f"text {place}"})
    lines[0] |= {"words": words, "phones": phones}
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_units_are_those_of_the_clip_alone_and_in_the_corpus_s_order(parts, corpus, tmp_path):
    model, processor = parts
    reader = UtteranceReader(model, processor, tmp_path / "store", batch_size=2)
    utterances = reader.read(str(corpus))
    assert [utterance.id for utterance in utterances] == ["c0", "c1", "c2"]
    assert [utterance.text for utterance in utterances] == ["text 0", "text 1", "text 2"]
    for place, utterance in enumerate(utterances):
        path = corpus / "audio" / f"{place}.wav"
        assert utterance.units == processor.units(model.extract(**processor(str(path)))[0])


def test_words_come_from_the_table_and_those_said_as_one_are_one(parts, corpus, tmp_path):
    utterances = UtteranceReader(*parts, tmp_path / "store").read(str(corpus), clips=2)
    assert utterances[0].words == (WordSpan("in the", 0.0, 0.2), WordSpan("park", 0.2, 0.4))
    assert utterances[1].words == ()


def test_words_come_from_textgrid_files_where_the_table_has_none(parts, corpus, tmp_path):
    lines = [json.loads(line) for line in (corpus / "metadata.jsonl").read_text().splitlines()]
    plain = [{name: line[name] for name in ("id", "audio", "transcript")} for line in lines]
    (corpus / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    for place in range(3):
        (tmp_path / f"c{place}.TextGrid").write_text(TEXTGRID)
    reader = UtteranceReader(*parts, tmp_path / "store", textgrids=tmp_path)
    assert reader.read(str(corpus))[2].words == (WordSpan("Hello", 0.0, 0.2), WordSpan("there", 0.2, 0.5))
    small = replace(reader, lowercase=True).read(str(corpus))[2]
    assert small.words[0].word == "hello" and small.text == "text 2"


def test_noise_has_the_ratio_asked_for_and_is_the_same_each_time(parts, corpus, tmp_path):
    model, processor = parts
    heard = []
    noisy = UtteranceReader(model, processor, tmp_path / "store")
    load = processor.load

    def spy(source, *args, **kwargs):
        heard.append(np.asarray(load(source, *args, **kwargs)))
        return heard[-1]

    processor.load = spy
    try:
        first, again = noisy.read(str(corpus), noise_db=6.0), noisy.read(str(corpus), noise_db=6.0)
    finally:
        del processor.load
    assert first == again
    clean = load(str(corpus / "audio" / "0.wav"))
    noise = next(clip for clip in heard if len(clip) == len(clean)) - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(6.0, abs=0.2)


def test_texts_come_from_lines_and_from_corpora(corpus, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\n two \nthree\n")
    assert list(read_texts(str(lines))) == ["one", "two", "three"]
    assert list(read_texts(str(lines), limit=1)) == ["one"]
    assert read_texts(str(lines), words=1) == ["one", "two", "three"]
    lines.write_text("a b c d e\nf\n")
    assert read_texts(str(lines), words=2) == ["a b", "c d", "e", "f"]
    assert list(read_texts(str(corpus))) == ["text 0", "text 1", "text 2"]
    with pytest.raises(ValueError, match=r"no text in '.*empty.txt'"):
        (tmp_path / "empty.txt").write_text("\n")
        read_texts(str(tmp_path / "empty.txt"))
    with pytest.raises(ValueError, match=r"no column 'words_said'"):
        read_texts(str(corpus), column="words_said")
