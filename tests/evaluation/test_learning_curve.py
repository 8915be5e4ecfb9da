"""The learning curve: a readable PNG, the same for the same history, without pyplot's global state."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from speechzoo.evaluation.learning_curve import _running_mean, plot_learning_curve
from speechzoo.evaluation.report import HistoryPoint


def history() -> list[HistoryPoint]:
    noise = np.random.default_rng(0).normal(scale=0.15, size=200)
    points = [HistoryPoint(10 * i, float(6 * np.exp(-i / 40 + noise[i]) + 0.1), 1e-3, 2.0 * i) for i in range(200)]
    evaluations = [
        HistoryPoint(
            i,
            evaluation={"loss": 5 * np.exp(-i / 300) + 0.2, "wer": np.exp(-i / 400), "accuracy": 1 - np.exp(-i / 300)},
        )
        for i in range(250, 2001, 250)
    ]
    return [*points, *evaluations]


def test_picture_shows_every_series_and_is_the_same_each_time(tmp_path: Path):
    plot_learning_curve(tmp_path / "a.png", history(), "Tiny adapter")
    plot_learning_curve(tmp_path / "b.png", history(), "Tiny adapter")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = imread(tmp_path / "a.png")[..., :3]
    assert pixels.shape[:2] == (744, 960)
    # Each default color of matplotlib that stands for a series is there.
    for color in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):
        assert (np.abs(pixels * 255 - color).max(axis=-1) < 2).sum() > 50


def test_one_panel_without_metrics_and_a_single_point(tmp_path: Path):
    plot_learning_curve(tmp_path / "a.png", [HistoryPoint(1, 2.0)])
    assert imread(tmp_path / "a.png").shape[:2] == (504, 960)
    plot_learning_curve(tmp_path / "b.png", [HistoryPoint(1, evaluation={"accuracy": 0.5})])
    assert imread(tmp_path / "b.png").shape[:2] == (744, 960)


def test_no_point_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="logging_steps"):
        plot_learning_curve(tmp_path / "a.png", [])


def test_running_mean_is_over_the_values_around():
    assert _running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 3).tolist() == [2.0, 3.0, 5.0, 6.0]
    assert _running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert _running_mean(np.array([1.0, 3.0]), 1).tolist() == [1.0, 3.0]
    assert _running_mean(np.array([]), 3).tolist() == []
