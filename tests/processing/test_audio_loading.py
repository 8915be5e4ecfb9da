"""Every way in gives the same samples; every fault gives one line that names the item and says what to do."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechzoo.processing.audio_loading import AudioError, load_audio, save_audio

RATE = 16000


def tone(frequency: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(samples: int = 24000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, samples).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "FLAC", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.fixture
def flac(tmp_path: Path) -> Path:
    path = tmp_path / "clip.flac"
    path.write_bytes(encoded(noise()))
    return path


def fails(source, *needles: str, **keywords) -> str:
    """The message of the error that loading must raise: one line, with the item's name and every needle in it."""
    with pytest.raises(AudioError) as caught:
        load_audio(source, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    assert all(needle in message for needle in needles), message
    return message


# --- every way in ---


def test_every_encoded_form_gives_the_samples_written(flac):
    expected = np.round(noise() * 32768) / 32768
    data = flac.read_bytes()
    sources = [
        flac,
        str(flac),
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(flac)},
        {"path": flac},
        {"bytes": data, "path": "gone.flac"},
    ]
    for source in sources:
        samples = load_audio(source)
        assert samples.dtype == np.float32 and samples.shape == (24000,)
        np.testing.assert_allclose(samples, expected, atol=1.01 / 32768)
    with flac.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file), load_audio(flac))


@pytest.mark.parametrize(
    "convert", [np.float64, np.float32, torch.tensor, list, tuple, lambda x: x[::-1].copy()[::-1]]
)
def test_bare_float_samples_are_taken_as_they_are(convert):
    samples = load_audio(convert(noise(1000)))
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, noise(1000))


def test_half_precision_and_gradients_are_no_obstacle():
    samples = torch.tensor([0.5, -0.25, 1.0], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(load_audio(samples), [0.5, -0.25, 1.0])
    np.testing.assert_array_equal(load_audio(np.float16([0.5, -0.25])), [0.5, -0.25])


@pytest.mark.parametrize("kind", [np.int16, lambda x: torch.tensor(x, dtype=torch.int16)])
def test_int16_samples_are_scaled(kind):
    np.testing.assert_array_equal(load_audio(kind([-32768, 0, 16384])), [-1.0, 0.0, 0.5])


def test_the_result_is_a_copy():
    source = noise(100)
    load_audio(source)[:] = 7
    np.testing.assert_array_equal(source, noise(100))


# --- rates and channels ---


@pytest.mark.parametrize("format", ["FLAC", "WAV"])
def test_8_khz_stereo_becomes_16_khz_mono(format):
    left, right = tone(440, 1, 8000, amplitude=0.6), tone(440, 1, 8000, amplitude=0.2)
    samples = load_audio(encoded(np.stack([left, right], axis=1), 8000, format))
    assert samples.shape == (16000,)
    # The same tone computed at 16 kHz, at the mean of the two amplitudes; the ends are the filter's.
    np.testing.assert_allclose(samples[500:-500], tone(440, 1, 16000, amplitude=0.4)[500:-500], atol=1e-3)


def test_channels_in_opposite_phase_cancel():
    samples = np.stack([tone(440, 0.1, RATE), -tone(440, 0.1, RATE)], axis=1)
    np.testing.assert_allclose(load_audio(encoded(samples, format="WAV", subtype="FLOAT")), 0, atol=1e-7)


def test_downsampling_does_not_alias():
    """15 kHz in a 44.1 kHz recording lies above what 16 kHz can hold; picking samples would fold it to 1 kHz."""
    assert np.abs(load_audio(tone(15000, 1, 44100), source_sampling_rate=44100)[500:-500]).max() < 1e-3
    kept = load_audio(tone(1000, 1, 44100), source_sampling_rate=44100)
    np.testing.assert_allclose(kept[500:-500], tone(1000, 1, 16000)[500:-500], atol=1e-3)


def test_the_rate_of_a_dictionary_counts():
    samples = load_audio({"array": tone(300, 1, 48000), "sampling_rate": 48000, "path": None})
    np.testing.assert_allclose(samples[500:-500], tone(300, 1, RATE)[500:-500], atol=1e-3)
    same = load_audio({"array": noise(100), "sampling_rate": np.int64(RATE)})
    np.testing.assert_array_equal(same, noise(100))


def test_bare_samples_are_at_the_wanted_rate_unless_told():
    assert load_audio(noise(800), 8000).shape == (800,)
    assert load_audio(noise(800), 8000, source_sampling_rate=16000).shape == (400,)
    assert load_audio(encoded(noise(800), 16000), 8000, source_sampling_rate=123).shape == (400,)  # the file knows


def test_other_target_rates(flac):
    assert load_audio(flac, 24000).shape == (36000,)
    assert load_audio(flac, 8000).shape == (12000,)


@pytest.mark.parametrize("rate", [0, -16000, 16000.5, "16000", None])
def test_rates_that_are_none(rate):
    fails(noise(100), "sampling rate", repr(rate), "Hz", sampling_rate=rate)
    if rate is not None:
        fails({"array": noise(100), "sampling_rate": rate, "path": "clip 7"}, "clip 7", repr(rate))
        fails(noise(100), repr(rate), source_sampling_rate=rate)


def test_a_dictionary_without_a_rate():
    fails({"array": noise(100), "path": "clip 7"}, "clip 7", "'sampling_rate'")


# --- nothing there ---


def test_missing_file(tmp_path):
    fails(tmp_path / "gone.flac", str(tmp_path / "gone.flac"), "no such file", "Check the path")


def test_folder(tmp_path):
    fails(str(tmp_path), str(tmp_path), "folder")


def test_empty_file(tmp_path):
    (tmp_path / "empty.wav").touch()
    fails(tmp_path / "empty.wav", "empty.wav", "0 bytes")
    fails(b"", "0 bytes", name="row 3", sampling_rate=8000)
    fails({"bytes": b"", "path": "row 4"}, "row 4", "0 bytes")


def test_a_file_read_to_its_end(flac):
    with flac.open("rb") as file:
        file.read()
        fails(file, "seek(0)")


@pytest.mark.parametrize(
    "source", [encoded(noise(0), format="WAV"), noise(0), [], torch.zeros(0), np.zeros(0, np.int16)]
)
def test_zero_samples(source):
    fails(source, "row 5", "no samples", name="row 5")


def test_too_short_to_resample():
    fails(noise(1), "row 6", "48000", source_sampling_rate=48000, name="row 6")


def test_a_single_sample_is_a_clip():
    assert load_audio(noise(1)).shape == (1,)


def test_dictionary_without_audio():
    fails({"audio": 1}, "'audio'", "'bytes'")
    fails({"bytes": None, "path": None}, "'bytes'")


# --- damaged ---


def test_flac_cut_anywhere(tmp_path):
    data = encoded(noise(9000))
    path = tmp_path / "cut.flac"
    for length in [*range(1, len(data), len(data) // 60), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        message = fails(path, "cut.flac")
        assert "truncated" in message or length < 200, (length, message)
    path.write_bytes(data)
    assert load_audio(path).shape == (9000,)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("WAVEX", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_other_formats_cut_short(format, subtype):
    """libsndfile reads most of these as shorter clips, without complaint."""
    data = encoded(noise(48000), format=format, subtype=subtype)
    assert abs(load_audio(data).size - 48000) < 10
    for share in (0.5, 0.8, 0.97):
        fails(data[: int(share * len(data))], "row 7", "truncated", name="row 7")


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_written_to_a_pipe_has_no_size_and_is_whole(size):
    data = bytearray(encoded(noise(1000), format="WAV", subtype="PCM_16"))
    assert data[36:40] == b"data"
    data[40:44] = struct.pack("<I", size)
    assert load_audio(bytes(data)).shape == (1000,)


def test_flac_written_to_a_pipe_has_no_length():
    data = bytearray(encoded(noise(1000)))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    fails(bytes(data), "length", "Write it anew")


def test_silence_is_not_taken_for_damage():
    assert load_audio(encoded(np.zeros(10 * RATE, np.float32))).shape == (10 * RATE,)


def test_not_audio(tmp_path):
    (tmp_path / "notes.wav").write_text("not a recording at all, but long enough to look at")
    fails(tmp_path / "notes.wav", "notes.wav", "not readable as audio")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite(value):
    samples = noise(1000).astype(np.float64)
    samples[[17, 400]] = value
    fails(samples, "row 8", "2 of 1000", "number 17", name="row 8")
    fails({"array": samples, "sampling_rate": 8000, "path": "row 9"}, "row 9", "number 17")


def test_nan_in_a_file():
    samples = np.stack([noise(1000), noise(1000)], axis=1)
    samples[5, 1] = np.nan
    fails(encoded(samples, format="WAV", subtype="FLOAT"), "number 5")


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.int8, bool, np.complex64, str])
def test_types_without_a_scale(kind):
    fails(np.ones(100).astype(kind), "row 10", np.dtype(kind).name[:3], "int16", name="row 10")


def test_a_list_of_integers_is_refused():
    fails([1, 2, 3], "int64", "int16")


@pytest.mark.parametrize("shape", [(1, 100), (100, 2), (1, 1, 100), ()])
def test_wrong_number_of_dimensions(shape):
    fails(np.zeros(shape, np.float32), str(shape), "mono")
    fails(torch.zeros(shape), str(shape), "mono")


def test_a_ragged_list():
    fails([[0.0, 1.0], [0.5]], "flat list")


@pytest.mark.parametrize("url", ["https://example.com/a.wav", "http://example.com/a.wav", "hf://datasets/a/b.flac"])
def test_urls_are_refused(url):
    fails(url, url, "Download")
    fails({"bytes": None, "path": url}, url, "Download")


def test_wrong_types(tmp_path):
    fails(17, "int", "Pass a path")
    fails(None, "NoneType")
    fails({"path": 3}, "int")
    with (tmp_path / "text").open("w+") as file:
        fails(file, "'rb'")


def test_the_callers_name_is_used(flac):
    fails(flac.parent / "gone.flac", "utterance 12", name="utterance 12")


# --- writing ---


def test_save_audio_round_trip(tmp_path):
    path = tmp_path / "new" / "clip.flac"
    save_audio(path, noise(), 8000)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.channels, info.frames) == (
        "FLAC",
        "PCM_16",
        8000,
        1,
        24000,
    )
    np.testing.assert_allclose(load_audio(path, 8000), noise(), atol=1.01 / 32768)


def test_save_audio_refuses_what_it_would_spoil(tmp_path):
    for samples, needle in [
        ([0.0, 1.5], "clipped"),
        ([np.nan], "NaN"),
        ([], "no samples"),
        (np.zeros((2, 2)), "mono"),
    ]:
        with pytest.raises(AudioError, match=needle):
            save_audio(tmp_path / "clip.flac", samples, RATE)
    with pytest.raises(AudioError, match="sampling rate"):
        save_audio(tmp_path / "clip.flac", noise(10), 0)
    assert not list(tmp_path.iterdir())


# --- real recordings ---


@pytest.mark.parametrize(
    "name", ["fsdd", "speech_commands_sample", "home_commands", "speech_excerpts", "speech_to_intent"]
)
def test_real_recordings_have_their_documented_length(test_data, name):
    folder = test_data / "data" / name
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:40]
    for row in rows:
        samples = load_audio(folder / row["audio"])
        assert samples.size / RATE == pytest.approx(row["duration"], abs=2e-3), row["id"]
        assert 1e-4 < np.sqrt(np.mean(samples**2)) < 1 and np.abs(samples).max() < 1.5, row["id"]


def test_resampling_a_real_recording_keeps_its_band(test_data):
    """An 8 kHz recording at 16 kHz has nothing above 4 kHz and the same power below."""
    path = test_data / "data" / "fsdd" / "audio" / "7_jackson_3.flac"
    original, rate = soundfile.read(path, dtype="float32")
    assert rate == 8000
    power = np.abs(np.fft.rfft(load_audio(path))) ** 2
    bins = np.fft.rfftfreq(load_audio(path).size, 1 / RATE)
    assert power[bins > 4200].sum() < 1e-3 * power.sum()
    assert np.sqrt(np.mean(load_audio(path) ** 2)) == pytest.approx(np.sqrt(np.mean(original**2)), rel=0.02)
