"""Training a codebook of speech units: mini-batch k-means over frames that stream past.

Memory is bounded by one mini-batch and one batch of clips; training is a function of the seed, and an interrupted run
continues to the same centroids.

Shapes: F encoder frames, D width, K clusters.
"""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from sklearn.cluster import MiniBatchKMeans
from tqdm.auto import tqdm

Frames = npt.NDArray[np.float32]  # [F, D]
STATE, FACTS = "codebook_state.safetensors", "codebook_state.json"


@dataclass(frozen=True)
class CodebookSettings:
    """How a codebook is trained.

    Args:
        clusters: centroids, K.
        seed: of the first centroids, of reassigned ones, and of the order of clips.
        batch_frames: frames in a mini-batch; the first centroids are drawn from the first one.
        passes: how often all clips are seen.
        clips_at_once: clips that are encoded together.
        reassignment_ratio: a centroid that wins fewer frames than this share of the most frequent one's is drawn anew.

    Raises `ValueError` where a mini-batch holds fewer frames than there are clusters.
    """

    clusters: int = 100
    seed: int = 0
    batch_frames: int = 10_000
    passes: int = 1
    clips_at_once: int = 16
    reassignment_ratio: float = 0.01

    def __post_init__(self) -> None:
        if self.batch_frames < self.clusters:
            raise ValueError(
                f"a mini-batch of {self.batch_frames} frames cannot start {self.clusters} clusters; raise batch_frames"
            )
        for name in ("passes", "clips_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")


class CodebookTrainer:
    """Mini-batch k-means that is fed frames in pieces of any size and can be saved at any time."""

    def __init__(self, settings: CodebookSettings) -> None:
        self.settings = settings
        self.step = 0  # batches of clips that were added
        self._waiting: list[Frames] = []  # less than one mini-batch
        self._is_started = False
        self._kmeans = MiniBatchKMeans(
            n_clusters=settings.clusters,
            batch_size=settings.batch_frames,
            init_size=settings.batch_frames,
            n_init=1,
            reassignment_ratio=settings.reassignment_ratio,
            random_state=np.random.RandomState(settings.seed),
            compute_labels=False,
        )

    @property
    def waiting_frames(self) -> int:
        """Frames that fill no mini-batch yet."""
        return sum(len(part) for part in self._waiting)

    def add(self, frames: Frames) -> None:
        """Learns from frames [F, D] as soon as they fill mini-batches.

        Raises `ValueError` for frames that are not finite.
        """
        if not np.isfinite(frames).all():
            raise ValueError("the encoder made NaN or infinity; run it in float32, and look at the clips added last")
        self._waiting.append(np.asarray(frames, dtype=np.float32))
        size = self.settings.batch_frames
        if self.waiting_frames < size:
            return
        together = np.concatenate(self._waiting)
        whole = len(together) // size * size
        for start in range(0, whole, size):
            self._learn(together[start : start + size])
        self._waiting = [together[whole:].copy()]

    def _learn(self, frames: Frames) -> None:
        self._kmeans.partial_fit(frames)
        self._is_started = True

    def centroids(self) -> Frames:
        """The codebook [K, D]. Frames that fill no mini-batch are learned from first if there was none.

        Raises `ValueError` where there are fewer frames than clusters.
        """
        if not self._is_started:
            if self.waiting_frames < self.settings.clusters:
                raise ValueError(
                    f"{self.waiting_frames} frames cannot make {self.settings.clusters} clusters; give more clips"
                )
            self._learn(np.concatenate(self._waiting))
            self._waiting = []
        return np.ascontiguousarray(self._kmeans.cluster_centers_, dtype=np.float32)

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Writes everything that decides how training goes on, and `facts` that must be the same then."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Any] = {"step": np.array(self.step)}
        if self._waiting:
            tensors["waiting"] = np.concatenate(self._waiting)
        if self._is_started:
            _, key, place, has_gauss, gauss = self._kmeans._random_state.get_state()
            tensors |= {
                "centroids": self._kmeans.cluster_centers_,
                "counts": self._kmeans._counts,
                "progress": np.array([self._kmeans.n_steps_, self._kmeans._n_since_last_reassign]),
                "random_key": key,
                "random_place": np.array([place, has_gauss]),
                "random_gauss": np.array(gauss),
            }
        _replace(folder / FACTS, lambda path: path.write_text(json.dumps(self._facts(facts), indent=2)))
        _replace(folder / STATE, lambda path: save_file(tensors, path))

    def resume(self, folder: Path, facts: dict[str, Any]) -> None:
        """Continues from what `save` wrote; does nothing where there is nothing.

        Raises `ValueError` when that was written for other settings, clips or another encoder.
        """
        if not (folder / STATE).is_file():
            return
        saved, now = json.loads((folder / FACTS).read_text()), json.loads(json.dumps(self._facts(facts)))
        if saved != now:
            differing = sorted(name for name in saved | now if saved.get(name) != now.get(name))
            raise ValueError(
                f"'{folder}' holds a codebook in training whose {differing[0]} is {saved.get(differing[0])!r}, not "
                f"{now.get(differing[0])!r}; remove the folder to begin anew"
            )
        state = load_file(folder / STATE)
        self.step = int(state["step"])
        self._waiting = [state["waiting"]] if "waiting" in state else []
        if "centroids" in state:
            self._restore(state)

    def _restore(self, state: dict[str, npt.NDArray[Any]]) -> None:
        # A first step makes scikit-learn set up the rest; what it learns is replaced.
        self._learn(state["centroids"])
        place, has_gauss = state["random_place"].tolist()
        key, gauss = state["random_key"], float(state["random_gauss"])
        self._kmeans._random_state.set_state(("MT19937", key, place, has_gauss, gauss))
        self._kmeans.cluster_centers_ = state["centroids"].copy()
        self._kmeans._counts = state["counts"].copy()
        self._kmeans.n_steps_, self._kmeans._n_since_last_reassign = state["progress"].tolist()
        self._kmeans._batch_size = self.settings.batch_frames

    def _facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {**asdict(self.settings), **facts}


def train_codebook(
    clips: int,
    encode: Callable[[Sequence[int]], Sequence[Frames]],
    settings: CodebookSettings,
    folder: Path | None = None,
    facts: dict[str, Any] | None = None,
    save_every: int = 50,
) -> Frames:
    """Trains a codebook [K, D] on so many clips.

    Args:
        clips: how many there are.
        encode: places of clips -> their frames [F, D].
        folder: where training is saved and resumed from; nowhere by default.
        facts: plain values beside the settings that must be the same for a resumed run: encoder, layer, corpus.
        save_every: batches of clips between two savings.

    Raises `ValueError` for fewer frames than clusters, and for a folder that belongs to another training.
    """
    facts = {"clips": clips, **(facts or {})}
    trainer = CodebookTrainer(settings)
    if folder is not None:
        trainer.resume(folder, facts)
    batches = -(-clips // settings.clips_at_once)
    steps = range(trainer.step, batches * settings.passes)
    for step in tqdm(steps, desc="codebook", unit="batch", initial=trainer.step, total=batches * settings.passes):
        for frames in encode(_chosen(clips, step, batches, settings)):
            trainer.add(frames)
        trainer.step = step + 1
        if folder is not None and trainer.step % save_every == 0:
            trainer.save(folder, facts)
    if folder is not None and steps:
        trainer.save(folder, facts)
    return trainer.centroids()


def _chosen(clips: int, step: int, batches: int, settings: CodebookSettings) -> list[int]:
    """Which clips a step encodes: each pass has an order of its own."""
    number, place = divmod(step, batches)
    order = np.random.default_rng((settings.seed, number)).permutation(clips)
    return order[place * settings.clips_at_once : (place + 1) * settings.clips_at_once].tolist()


def convert_joblib(path: str | Path) -> Frames:
    """The centroids [K, D] of a scikit-learn k-means that was saved by joblib.

    Such a file is a program: reading it runs whatever its maker put there. Warns of that; nothing else here reads
    pickles. Raises `ValueError` where the file holds no centroids.
    """
    import joblib  # with scikit-learn; nothing else needs it

    warnings.warn(
        f"reading '{path}' runs code that it contains; go on only where you trust its maker, and keep the converted "
        f"codebook in its place",
        stacklevel=2,
    )
    loaded = joblib.load(path)
    centroids = getattr(loaded, "cluster_centers_", None)
    if centroids is None:
        raise ValueError(f"'{path}' holds a {type(loaded).__name__}, which has no cluster_centers_; is it a k-means?")
    return np.ascontiguousarray(centroids, dtype=np.float32)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside and moves, so that an interruption leaves the old file whole."""
    unfinished = path.with_name(path.name + ".unfinished")
    write(unfinished)
    os.replace(unfinished, path)
