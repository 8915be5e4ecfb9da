"""Clips with answers, and little speech inside of more speech."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from joint_slu_cases import recordings

from speechzoo.data.labeled_recordings import (
    LabeledRecording,
    as_labeled,
    labeled_recordings,
    not_spoken_by,
    speech_of_minutes,
    spoken_by,
)
from speechzoo.data.labeled_utterances import Answer


def many(count=300, seconds=lambda number: 1 + number % 5):
    """A class in ten, the other nine times as often."""
    return [
        LabeledRecording(
            f"clip-{number:03}", "hear", "rare" if number % 10 == 0 else "often", f"s{number % 7}", 0, seconds(number)
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("choice", ["random", "balanced"])
def test_less_speech_lies_within_more(choice):
    clips = many()
    for seed in (0, 1):
        subsets = [{one.id for one in speech_of_minutes(clips, minutes, seed, choice)} for minutes in (0.5, 2, 8)]
        assert subsets[0] < subsets[1] < subsets[2]
        for minutes, chosen in zip((0.5, 2, 8), subsets, strict=True):
            seconds = sum(one.seconds for one in clips if one.id in chosen)
            assert 60 * minutes - 5 < seconds <= 60 * minutes
    first, again, other = (speech_of_minutes(clips, 2, seed, choice) for seed in (0, 0, 1))
    assert first == again != other
    assert {one.id for one in speech_of_minutes(clips[::-1], 2, 0, choice)} == {one.id for one in first}


def test_a_lot_keeps_the_shares_of_classes_and_balance_makes_them_equal():
    shares = {}
    for choice in ("random", "balanced"):
        counts = Counter(one.answer for one in speech_of_minutes(many(), 2, 0, choice))
        shares[choice] = counts["rare"] / counts.total()
    assert shares["random"] < 0.25 and 0.35 < shares["balanced"] < 0.65


def test_speech_that_is_not_there_is_told():
    with pytest.raises(ValueError, match=r"20 minutes of speech are asked for, and there are 15.0"):
        speech_of_minutes(many(), 20)
    with pytest.raises(ValueError, match=r"no clip fits"):
        speech_of_minutes(many(seconds=lambda _: 3), 0.01)


def test_speakers_are_parted():
    clips = recordings(8)  # of three speakers in turn
    tested, others = spoken_by(clips, ["speaker-1"]), not_spoken_by(clips, ["speaker-1"])
    assert {one.speaker for one in tested} == {"speaker-1"} and len(tested) == 3
    assert {one.speaker for one in others} == {"speaker-0", "speaker-2"} and len(others) == 5
    assert spoken_by(clips, []) == not_spoken_by(clips, []) == clips
    # Synthesized voices are trained on beside people who are left out; a test of nobody is a slip.
    assert len(not_spoken_by(clips, ["ann"])) == 8
    with pytest.raises(ValueError, match=r"no clip is of speaker 'ann'; there are speaker-0, speaker-1, speaker-2"):
        spoken_by(clips, ["ann"])
    with pytest.raises(ValueError, match=r"clip 'x' has no speaker"):
        not_spoken_by([LabeledRecording("x", "on", "on", audio=[0.0])], ["speaker-1"])
    sentence = LabeledRecording("x", "on", "on")  # of nobody: it may be read
    assert not_spoken_by([sentence], ["speaker-1"]) == [sentence]


def test_what_left_out_speakers_said_is_left_out_of_synthesized_voices():
    anew = [replace(one, id=f"synthesized-{one.id}", speaker="espeak") for one in recordings(8)]
    theirs = [one.id for one in spoken_by(recordings(8), ["speaker-1"])]
    left = not_spoken_by(anew, ["speaker-1"], theirs)
    assert [one.id.removeprefix("synthesized-") for one in left] == [
        one.id for one in recordings(8) if one.speaker != "speaker-1"
    ]
    assert not_spoken_by(anew, [], theirs) == anew  # a test that holds them is refused elsewhere


def test_without_audio_no_recording_is_looked_for(tmp_path):
    lines = [{"id": "a", "audio": "lost.wav", "text": "how", "intent": "ask"}, {"id": "b", "text": "", "intent": "go"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, [{**line, "split": "x"} for line in lines])))

    def answers(rows):
        return {clip: Answer(clip.upper(), text) for clip, text in zip(rows["id"], rows["text"], strict=True)}

    read = labeled_recordings(f"{tmp_path}@x", "intent", answers, audio=False)
    assert read == [LabeledRecording("a", "how", "A"), LabeledRecording("b", "", "B")]
    with pytest.raises(ValueError):
        labeled_recordings(f"{tmp_path}@x", "intent", answers)
    with pytest.raises(ValueError, match=r"no column 'sentiment'"):
        labeled_recordings(str(tmp_path), "sentiment", answers, audio=False)


def test_scoring_sees_answers_and_no_sound():
    [first, *_] = as_labeled(recordings(2))
    assert (first.id, first.units, first.text, first.answer, first.speaker) == (
        "clip-0",
        [],
        "heat on",
        "on",
        "speaker-0",
    )
