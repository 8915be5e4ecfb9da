"""Transcripts of units: the likeliest text after `<T_EN>`, the same in any batch, and their word errors."""

import pytest
import tiny_models
import torch
from sutlm_cases import joint_model, joint_processor

from speechzoo import SUTLMProcessor
from speechzoo.data.speech_text_mixing import Utterance
from speechzoo.evaluation.unit_transcriber import UnitTranscriber
from speechzoo.evaluation.word_error_rate import word_error_rate
from speechzoo.processing.speech_units import deduplicate
from speechzoo.processing.unit_text import UnitSegmenter

CLIPS = [[3, 1, 4, 1, 5, 9, 2, 6], [], [5, 3], [8, 9, 7]]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def transcriber(request):
    processor = joint_processor()
    return UnitTranscriber(joint_model(request.param, processor), processor, most_tokens=6)


def test_a_transcript_is_the_likeliest_text(transcriber):
    model, processor = transcriber.model, transcriber.processor
    words = torch.tensor([token for token in range(63) if token not in (0, 1)])  # with the end, without <pad> and <s>
    for clip, text in zip(CLIPS, transcriber.transcribe(CLIPS), strict=True):
        sequence, said = [*processor.sequence([("speech", clip)]), processor.token("<T_EN>")], []
        while clip and len(said) < 6:
            logits = model(torch.tensor([sequence + said])).logits[0, -1]
            token = int(words[logits[words].argmax()])
            if token == processor.eos_token_id:
                break
            said.append(token)
        assert text == processor.tokenizer.decode(said)
    assert len(set(transcriber.transcribe(CLIPS))) > 2


@pytest.mark.parametrize("beams", [1, 3])
def test_neither_a_batch_nor_repeated_units_change_a_transcript(transcriber, beams):
    reader = UnitTranscriber(transcriber.model, transcriber.processor, beams, most_tokens=6)
    together = reader.transcribe(CLIPS)
    assert together == [reader.transcribe([clip])[0] for clip in CLIPS] == reader.transcribe(CLIPS, batch_size=2)
    assert together == reader.transcribe([[unit for unit in clip for _ in range(2)] for clip in CLIPS])
    assert together[1] == "" and all(together[:1] + together[2:])


def test_word_errors_are_those_of_whole_utterances(transcriber):
    texts = ["turn on the lights", "heat up", "bring me my shoes"]
    clips = [clip for clip in CLIPS if clip]
    utterances = [
        Utterance(f"clip{number}", deduplicate(clip), text)
        for number, (clip, text) in enumerate(zip(clips, texts, strict=True))
    ]
    errors = transcriber.word_errors(utterances)
    assert errors.rate == word_error_rate(texts, transcriber.transcribe(clips))
    assert errors.interval().units == 3
    with pytest.raises(ValueError, match="'silent' has no text"):
        transcriber.word_errors([Utterance("silent", deduplicate([1]))])


def test_a_saved_folder_transcribes_as_before(tmp_path, transcriber):
    transcriber.model.save_pretrained(tmp_path)
    transcriber.processor.save_pretrained(tmp_path)
    loaded = UnitTranscriber.from_pretrained(str(tmp_path), most_tokens=6)
    assert loaded.transcribe(CLIPS) == transcriber.transcribe(CLIPS)


def test_what_is_no_transcriber_of_these_units_is_refused(transcriber):
    with pytest.raises(ValueError, match="unit 12"):
        transcriber.transcribe([[12]])
    with pytest.raises(ValueError, match="is a SUTLMModel with a SUTLMProcessor"):
        UnitTranscriber(transcriber.model.model, transcriber.processor)
    other = SUTLMProcessor(transcriber.processor.tokenizer, transcriber.processor.segmenter, unit_model_hash="a" * 64)
    transcriber.check_units_of(other)  # one of the two names no unit model
    named = UnitTranscriber(transcriber.model, other)
    with pytest.raises(ValueError, match="train both on one codebook"):
        named.check_units_of(SUTLMProcessor(other.tokenizer, other.segmenter, unit_model_hash="b" * 64))
    fewer = SUTLMProcessor(tiny_models.tokenizer(), UnitSegmenter.raw(11))
    with pytest.raises(ValueError, match="reads 12 units and the model says 11"):
        transcriber.check_units_of(fewer)
