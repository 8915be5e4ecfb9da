"""Training a codebook: a function of the seed, the same after an interruption, in bounded memory, and worth it."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from speechzoo.training.unit_codebook import (
    STATE,
    CodebookSettings,
    CodebookTrainer,
    convert_joblib,
    train_codebook,
)

WIDTH, CLIPS = 6, 60
SETTINGS = CodebookSettings(clusters=8, seed=3, batch_frames=100, passes=2, clips_at_once=4, reassignment_ratio=0.2)


class Corpus:
    """Clips of 20 to 39 frames around eight centers; remembers what was asked of it."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.centers = 4 * generator.standard_normal((8, WIDTH))
        self.clips = [self._clip(generator, 20 + index % 20) for index in range(CLIPS)]
        self.asked: list[list[int]] = []

    def _clip(self, generator, frames):
        chosen = self.centers[generator.integers(0, 8, frames)]
        return (chosen + generator.standard_normal((frames, WIDTH))).astype(np.float32)

    def encode(self, places):
        self.asked.append(list(places))
        return [self.clips[place] for place in places]

    @property
    def frames(self):
        return np.concatenate(self.clips)


def inertia(frames, centroids):
    return ((frames[:, None] - centroids) ** 2).sum(-1).min(-1).mean()


def test_the_seed_decides_everything():
    first, second = (train_codebook(CLIPS, Corpus().encode, SETTINGS) for _ in range(2))
    assert (first == second).all() and first.dtype == np.float32
    other = train_codebook(CLIPS, Corpus().encode, CodebookSettings(**{**vars(SETTINGS), "seed": 4}))
    assert not np.allclose(first, other)


def test_every_clip_is_seen_once_a_pass_in_an_order_of_its_own():
    corpus = Corpus()
    train_codebook(CLIPS, corpus.encode, SETTINGS)
    seen = [place for batch in corpus.asked for place in batch]
    assert sorted(seen[:CLIPS]) == sorted(seen[CLIPS:]) == list(range(CLIPS))
    assert seen[:CLIPS] != seen[CLIPS:] and seen[:CLIPS] != list(range(CLIPS))


@pytest.mark.parametrize("stop", [1, 7, 15, 22])
def test_an_interrupted_run_ends_where_a_whole_one_does(tmp_path, stop):
    """Stopped before the first mini-batch, between two, at a pass's end, and in the second pass."""
    expected = train_codebook(CLIPS, Corpus().encode, SETTINGS)
    corpus = Corpus()

    def failing(places):
        if len(corpus.asked) == stop:
            raise KeyboardInterrupt
        return corpus.encode(places)

    with pytest.raises(KeyboardInterrupt):
        train_codebook(CLIPS, failing, SETTINGS, tmp_path, save_every=2)
    rest = Corpus()
    resumed = train_codebook(CLIPS, rest.encode, SETTINGS, tmp_path, save_every=2)
    assert (resumed == expected).all()
    assert len(rest.asked) == 30 - stop // 2 * 2, "what was saved is not done again"
    idle = Corpus()
    assert (train_codebook(CLIPS, idle.encode, SETTINGS, tmp_path) == expected).all() and not idle.asked


def test_a_restored_trainer_holds_all_that_scikit_learn_does(tmp_path):
    """Also what decides only later steps: the random state, the counts, and when centroids are drawn anew."""
    whole = CodebookTrainer(SETTINGS)
    for clip in Corpus().clips[:20]:
        whole.add(clip)
    whole.save(tmp_path, {})
    restored = CodebookTrainer(SETTINGS)
    restored.resume(tmp_path, {})
    ours, theirs = vars(whole._kmeans), vars(restored._kmeans)
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"random_state", "_random_state", "_n_threads", "_init_size"}:
        assert np.array_equal(ours[name], theirs[name]), name
    assert str(whole._kmeans._random_state.get_state()) == str(restored._kmeans._random_state.get_state())


def test_another_run_is_not_continued(tmp_path):
    facts = {"encoder": "one", "layer": 3}
    train_codebook(CLIPS, Corpus().encode, SETTINGS, tmp_path, facts)
    with pytest.raises(ValueError, match=r"layer is 3, not 4"):
        train_codebook(CLIPS, Corpus().encode, SETTINGS, tmp_path, {**facts, "layer": 4})
    with pytest.raises(ValueError, match=r"clips is 60, not 59"):
        train_codebook(59, Corpus().encode, SETTINGS, tmp_path, facts)
    assert not list(tmp_path.glob("*.unfinished")) and (tmp_path / STATE).is_file()


def test_memory_does_not_grow_with_the_corpus():
    trainer = CodebookTrainer(SETTINGS)
    longest = 0
    for clip in Corpus().clips * 3:
        trainer.add(clip)
        longest = max(longest, trainer.waiting_frames)
        assert all(part.base is None or part.base.nbytes < 100 * WIDTH * 4 for part in trainer._waiting)
    assert longest < SETTINGS.batch_frames


def test_it_beats_a_random_codebook_and_nearly_reaches_batch_k_means():
    corpus = Corpus()
    trained = inertia(corpus.frames, train_codebook(CLIPS, corpus.encode, SETTINGS))
    drawn = corpus.frames[np.random.default_rng(1).permutation(len(corpus.frames))[:8]]
    best = KMeans(8, n_init=5, random_state=0).fit(corpus.frames).inertia_ / len(corpus.frames)
    assert trained < 0.7 * inertia(corpus.frames, drawn)
    assert trained < 1.3 * best


def test_few_frames_still_make_a_codebook_and_too_few_do_not():
    corpus = Corpus()
    assert train_codebook(2, corpus.encode, SETTINGS).shape == (8, WIDTH)
    with pytest.raises(ValueError, match=r"20 frames cannot make 30 clusters"):
        train_codebook(1, corpus.encode, CodebookSettings(clusters=30, batch_frames=100))


def test_wrong_settings_and_frames_are_refused():
    with pytest.raises(ValueError, match=r"raise batch_frames"):
        CodebookSettings(clusters=200, batch_frames=100)
    with pytest.raises(ValueError, match=r"passes is 0"):
        CodebookSettings(passes=0)
    with pytest.raises(ValueError, match=r"NaN or infinity"):
        CodebookTrainer(SETTINGS).add(np.full((3, WIDTH), np.nan, dtype=np.float32))


def test_a_joblib_file_is_read_only_with_a_warning(tmp_path):
    import joblib

    frames = Corpus().frames
    kmeans = KMeans(8, n_init=1, random_state=0).fit(frames)
    joblib.dump(kmeans, tmp_path / "km.bin")
    with pytest.warns(UserWarning, match=r"runs code"):
        assert np.allclose(convert_joblib(tmp_path / "km.bin"), kmeans.cluster_centers_)
    joblib.dump({"a": 1}, tmp_path / "other.bin")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"holds a dict"):
        convert_joblib(tmp_path / "other.bin")
