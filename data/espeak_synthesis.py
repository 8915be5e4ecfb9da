"""Synthetic speech with word and phone timings, from espeak-ng through ctypes.

espeak-ng is GPL-3 and therefore an optional extra (``pip install 'speechzoo[demo]'``): it is imported only when a
synthesizer is made. The engine keeps state from one utterance to the next, so the same request gives slightly other
samples each time; the same *sequence* of requests in a fresh process gives the same samples. That is why this file is
also a program: ``python espeak_synthesis.py requests.jsonl folder`` speaks one sequence in a process of its own. It
imports nothing of the package, so that such a process starts at once.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLING_RATE = 16_000

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _DONT_EXIT = 1, 0x8000
_UTF8 = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_EVENT_END, _EVENT_PHONEME = 0, 7
_STRESS_MARKS = "',%="


class EspeakError(RuntimeError):
    """The engine is missing or refused a request."""


@dataclass(frozen=True)
class SpeechRequest:
    """What to say and how: `rate` in words per minute, `pitch` and `pitch_range` from 0 to 99."""

    text: str
    voice: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class TimedLabel:
    """A word or phone with its start and end in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class SynthesizedSpeech:
    """Mono samples, float32 [S] at 16 kHz, with the words and phones (silences left out) and their times."""

    samples: np.ndarray
    words: list[TimedLabel]
    phones: list[TimedLabel]


class _EventIdentity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventIdentity),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class _PhoneEvent:
    name: str
    start: float
    text_position: int


class EspeakSynthesizer:
    """The engine of this process. Its library has one global state: make one synthesizer and use it from one thread.

    Raises:
        EspeakError: if the optional package `espeakng-loader` is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise EspeakError(
                "Synthetic speech needs the optional package espeakng-loader (GPL-3): pip install 'speechzoo[demo]'"
            ) from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = str(espeakng_loader.get_data_path()).encode()
        self._engine_rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, _DONT_EXIT | _PHONEME_EVENTS
        )
        if self._engine_rate <= 0:
            raise EspeakError(f"espeak-ng did not start (code {self._engine_rate}); reinstall espeakng-loader")
        # The breath of some voices is noise, seeded by the clock otherwise.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._chunks: list[np.ndarray] = []
        self._events: list[_PhoneEvent] = []
        self._callback = _CALLBACK(self._receive)  # kept: the engine holds only a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, request: SpeechRequest) -> SynthesizedSpeech:
        """Speak one request.

        Raises:
            EspeakError: for a voice the engine does not know, or a text without anything to say.
        """
        self._set_voice(request)
        self._chunks, self._events = [], []
        text = request.text.encode()
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            raise EspeakError(f"espeak-ng said nothing for the text {request.text!r}")
        samples = np.concatenate(self._chunks).astype(np.float32) / 32768
        samples = soxr.resample(samples, self._engine_rate, SAMPLING_RATE)
        phones = _phone_timings(self._events, len(samples) / SAMPLING_RATE)
        return SynthesizedSpeech(samples, _word_timings(request.text, phones), [phone for phone, _ in phones])

    def _set_voice(self, request: SpeechRequest) -> None:
        if self._library.espeak_SetVoiceByName(request.voice.encode()) != 0:
            raise EspeakError(f"espeak-ng has no voice {request.voice!r}; names look like 'en-us+f3'")
        parameters = ((_RATE, request.rate), (_PITCH, request.pitch), (_PITCH_RANGE, request.pitch_range))
        for parameter, value in parameters:
            self._library.espeak_SetParameter(parameter, value, 0)

    def _receive(self, wave, sample_count: int, events) -> int:
        if wave and sample_count > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (sample_count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                name = _plain_phone(event.id.string.decode(errors="replace"))
                self._events.append(_PhoneEvent(name, event.audio_position / 1000, event.text_position))
            index += 1
        return 0


def _plain_phone(name: str) -> str:
    """Leave out stress marks and the digit of a variant ("I2" is "I"); "0" and "3:" are phones of their own."""
    name = name.strip(_STRESS_MARKS)
    return name.rstrip("0123456789") or name


def _phone_timings(events: list[_PhoneEvent], duration: float) -> list[tuple[TimedLabel, int]]:
    """Each phone lasts until the next event; pairs of a phone and the text position of its word."""
    starts = [min(event.start, duration) for event in events]
    ends = [*starts[1:], duration]
    timed = zip(events, starts, ends, strict=True)
    return [
        (TimedLabel(event.name, start, end), event.text_position)
        for event, start, end in timed
        if event.name and not event.name.startswith("_") and end > start
    ]


def _word_timings(text: str, phones: list[tuple[TimedLabel, int]]) -> list[TimedLabel]:
    """One entry per word of the text.

    The engine's dictionary holds pairs such as "in the" as one entry: their common time is shared out by letters.
    """
    word_starts = [match.start() for match in re.finditer(r"\S+", text)]
    words = text.split()
    groups = [(position, list(group)) for position, group in groupby(phones, key=lambda phone: phone[1])]
    first_word = [max(sum(start < position for start in word_starts) - 1, 0) for position, _ in groups]
    timings: list[TimedLabel] = []
    for number, (_, group) in enumerate(groups):
        last = first_word[number + 1] if number + 1 < len(groups) else len(words)
        start, end = group[0][0].start, group[-1][0].end
        timings += _share_out(words[len(timings) : last], start, end)
    return timings


def _share_out(words: list[str], start: float, end: float) -> list[TimedLabel]:
    letters = np.cumsum([0, *(len(word) for word in words)])
    edges = start + (end - start) * letters / max(letters[-1], 1)
    return [TimedLabel(word, float(edges[i]), float(edges[i + 1])) for i, word in enumerate(words)]


def speak_requests(requests_file: Path, audio_folder: Path) -> None:
    """Speak a file of requests in order, write `<id>.flac` each, and print one JSON line of timings per clip."""
    synthesizer = EspeakSynthesizer()
    for line in requests_file.read_text().splitlines():
        request = json.loads(line)
        identifier = request.pop("id")
        speech = synthesizer.speak(SpeechRequest(**request))
        soundfile.write(audio_folder / f"{identifier}.flac", speech.samples, SAMPLING_RATE, subtype="PCM_16")
        timings = {"words": _as_lists(speech.words), "phones": _as_lists(speech.phones)}
        print(json.dumps({"id": identifier, "samples": len(speech.samples), **timings}), flush=True)


def _as_lists(labels: list[TimedLabel]) -> list[list[str | float]]:
    return [[item.label, item.start, item.end] for item in labels]


if __name__ == "__main__":
    speak_requests(Path(sys.argv[1]), Path(sys.argv[2]))
