"""Correlation of speech and text states: the formula against NumPy's, states against clips alone, shuffled pairs."""

import numpy as np
import pytest
import torch
from joint_slu_cases import recordings, save_pretrained
from transformers import AutoModel, AutoProcessor

from speechzoo.data.modality_batches import text_units, unit_batch
from speechzoo.evaluation.neuron_correlation import (
    correlate,
    measure_correlations,
    plot_correlations,
    pooled_states,
)


def pairs(utterances=200, neurons=30, noise=1.0, seed=0):
    draws = np.random.default_rng(seed)
    shared = draws.standard_normal((utterances, neurons))
    second = np.where(np.arange(neurons) % 3 == 0, -1, 1) * shared
    return [10 + 3 * (part + noise * draws.standard_normal(shared.shape)) for part in (shared, second)]


def test_it_is_the_mean_of_numpys_correlations():
    speech, text = pairs()
    expected = [np.corrcoef(speech[:, neuron], text[:, neuron])[0, 1] for neuron in range(speech.shape[1])]
    found = correlate(speech, text)
    assert found.signed == pytest.approx(np.mean(expected), abs=1e-12)
    assert found.absolute == pytest.approx(np.mean(np.abs(expected)), abs=1e-12)
    assert found.absolute > 0.4 > found.signed > 0.1
    # Scale and offset of a neuron make no difference, and its rotation does.
    scaled = correlate(speech.astype(np.float32) * 1e3 + 1e3, text)
    assert scaled.signed == pytest.approx(found.signed, abs=1e-4)
    assert abs(correlate(speech, np.roll(text, 1, axis=1)).signed) < 0.1


def test_shuffled_pairs_are_near_zero_and_none_stays():
    control = correlate(*pairs(utterances=4000, noise=0.0))
    assert control.absolute == pytest.approx(1) and abs(control.shuffled_signed) < 0.01
    assert 0 < control.shuffled_absolute < 0.05
    same = np.eye(3)  # where a pair that stayed would correlate
    assert correlate(same, same).shuffled_signed == pytest.approx(-0.5)


def test_a_neuron_without_change_counts_as_zero_and_odd_shapes_are_told():
    speech, text = pairs()
    speech[:, 0] = 7.0
    half = correlate(speech[:, :2], text[:, :2])
    assert half.signed == pytest.approx(np.corrcoef(speech[:, 1], text[:, 1])[0, 1] / 2, abs=1e-12)
    with pytest.raises(ValueError, match=r"at least 3 pairs of one width"):
        correlate(speech, text[:, :5])


@torch.no_grad()
def test_states_are_means_over_each_clip_alone(tmp_path):
    save_pretrained(tmp_path)
    model, reader = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    clips = recordings(5)
    speech, text = pooled_states(model, reader, clips, batch_size=3)
    assert len(speech) == len(text) == model.config.unit_encoder_layers + 1
    for number, one in enumerate(clips):
        heard = model(**reader(audio=one.audio), output_hidden_states=True).hidden_states
        units = unit_batch([text_units(one, reader)], reader.vocabulary)
        read = model(**units, output_hidden_states=True).hidden_states
        for layer in range(1, len(speech)):
            above = model.config.num_hidden_layers + layer
            np.testing.assert_allclose(speech[layer][number], heard[above][0].mean(0), atol=1e-5)
            np.testing.assert_allclose(text[layer][number], read[layer][0].mean(0), atol=1e-5)
        np.testing.assert_allclose(text[0][number], read[0][0].mean(0), atol=1e-5)


def test_rows_are_means_over_seeds_and_the_plot_is_drawn(tmp_path):
    runs = [[correlate(*pairs(seed=seed + layer)) for layer in range(3)] for seed in (0, 10)]
    rows = measure_correlations("before", runs, 200)
    assert [row.name for row in rows[::2]] == ["before: layer 0", "before: layer 1", "before: layer 2"]
    one, other = runs[0][1], runs[1][1]
    assert rows[2].value == pytest.approx((one.signed + other.signed) / 2)
    assert rows[2].chance == pytest.approx((one.shuffled_signed + other.shuffled_signed) / 2)
    assert rows[3].value == pytest.approx((one.absolute + other.absolute) / 2)
    # Student's interval of two: 12.7 standard errors to either side.
    assert rows[2].high - rows[2].value == pytest.approx(12.706 * abs(one.signed - other.signed) / 2, rel=1e-3)
    alone = measure_correlations("before", runs[:1], 200)[2]
    assert alone.value == one.signed and alone.low is None
    plot_correlations(tmp_path / "a.png", {"before": runs, "after": runs[:1]}, "title")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"no model"):
        plot_correlations(tmp_path / "b.png", {})
