"""How good probabilities are: arrays in, numbers out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

_BINS = 15  # of the expected calibration error, as in Guo et al., 2017
_LEVEL = 0.95
_COUNTED_ALONE = 200_000  # photos; of more, neighbours are counted together
_OF_CELL = 20  # groups of photos that a cell has then

NAMES = {
    "top1": "accuracy", "top5": "top-5 accuracy", "nll": "NLL",
    "balanced_accuracy": "balanced accuracy", "macro_f1": "F1, mean of classes",
    "weighted_f1": "F1, weighted by photos", "ece": "calibration error",
}  # fmt: skip


def shown_value(name: str, value: float) -> str:
    """One of `NAMES` as people read it: shares in per cent."""
    return f"{value:.3f}" if name in ("nll", "ece") else f"{value:.2%}"


@dataclass(kw_only=True)
class Metrics:
    """What `n` labelled photos say of a classifier.

    Attributes:
        values: top1, top5 (of fewer than five classes all), nll, balanced_accuracy, macro_f1,
            weighted_f1 and ece, the expected calibration error.
        intervals: Each of these to the ends of its 95 % bootstrap interval.
        n: Photos.
        per_class: A row a class: class, photos, predicted, precision, recall, f1. Of a class
            without photos recall is NaN, of one that is never predicted precision is.
        confusion: `(num_classes, num_classes)` photos, by label and by prediction.
        reliability: A row a bin of confidence that has photos: low, high, photos, confidence (its
            mean) and accuracy.
    """

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    n: int
    per_class: pd.DataFrame
    confusion: np.ndarray
    reliability: pd.DataFrame


def measure(
    probs: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    *,
    seed: int,
    resamples: int,
    progress: Callable[[], None] = lambda: None,
) -> Metrics:
    """Measures probabilities against labels.

    Balanced accuracy is the mean recall of the classes that have photos. F1 is averaged over the
    classes that have photos or are predicted, as scikit-learn does, 0 where it is not defined.

    Args:
        probs: `(n, num_classes)`, rows that sum to 1.
        labels: `(n,)` integer class indices.
        class_names: `num_classes` of them.
        seed: Of the bootstrap.
        resamples: Of the bootstrap: photos drawn with replacement so many times (Efron, 1979,
            percentile intervals).
        progress: Called after each of these.
    """
    predicted = probs.argmax(1)
    outcomes = _Outcomes(probs, labels)
    values = outcomes.values(outcomes.sizes)
    draws = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        drawn.append(outcomes.values(outcomes.resampled(draws)))
        progress()
    tail = (1 - _LEVEL) / 2
    intervals = {
        name: tuple(np.quantile([each[name] for each in drawn], [tail, 1 - tail]).tolist())
        for name in (values if resamples else ())
    }
    return Metrics(
        values=values,
        intervals=intervals,
        n=len(labels),
        per_class=_per_class(labels, predicted, class_names),
        confusion=confusion_matrix(labels, predicted, labels=range(len(class_names))),
        reliability=outcomes.reliability(),
    )


class _Outcomes:
    """What is needed of each photo, sorted so that a resample is a few sums over neighbours.

    Photos of one label, prediction and so on are a cell: all but NLL and confidence is the same
    for them, and a resample only has to count them. Of very many photos those of a cell that are
    next to each other in NLL are counted together, as if theirs were the mean: what that takes
    from the width of an interval is far below what another seed does.
    """

    def __init__(self, probs: np.ndarray, labels: np.ndarray) -> None:
        num_photos, self.num_classes = probs.shape
        predicted = probs.argmax(1)
        of_label = probs[np.arange(num_photos), labels]
        above = (probs > of_label[:, None]).sum(1)  # what ties with the label is not above it
        in_five, confidence = above < 5, probs.max(1).astype(float)
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        nll = -np.log(np.maximum(of_label.astype(float), 1e-12))
        keys = (bins, in_five, predicted, labels)
        order = np.lexsort((nll, *keys))
        differs = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        cells = np.concatenate([[0], 1 + np.flatnonzero(differs)])
        groups = _groups(cells, num_photos)  # where each begins, among the sorted photos
        self.starts = np.searchsorted(groups, cells)  # of the cells, among the groups
        self.sizes = np.diff(groups, append=num_photos).astype(float)
        self.nll, self.confidence = (
            np.add.reduceat(values[order], groups) / self.sizes for values in (nll, confidence)
        )
        self.bins, self.in_five = bins[order][groups], in_five[order][groups]
        self.predicted, self.labels = predicted[order][groups], labels[order][groups]
        self.is_right = self.predicted == self.labels

    def resampled(self, draws: np.random.Generator) -> np.ndarray:
        """`(groups,)` how often photos of each come when as many are drawn with replacement."""
        total = int(self.sizes.sum())
        if total == len(self.sizes):
            return np.bincount(draws.integers(0, total, total), minlength=total).astype(float)
        return draws.multinomial(total, self.sizes / total).astype(float)

    def values(self, counts: np.ndarray) -> dict[str, float]:
        """The metrics where the groups have so many photos, `(groups,)`."""
        starts, size, total = self.starts, self.num_classes, counts.sum()
        photos = np.add.reduceat(counts, starts)  # of each cell
        confidence = np.add.reduceat(counts * self.confidence, starts)
        right = photos * self.is_right[starts]
        of_label = np.bincount(self.labels[starts], photos, size)
        of_predicted = np.bincount(self.predicted[starts], photos, size)
        hits = np.bincount(self.labels[starts], right, size)
        counted, present = of_label + of_predicted > 0, of_label > 0
        f1 = 2 * hits[counted] / (of_label + of_predicted)[counted]
        gaps = np.bincount(self.bins[starts], confidence - right, _BINS)
        return {
            "top1": float(right.sum() / total),
            "top5": float(photos @ self.in_five[starts] / total),
            "nll": float(counts @ self.nll / total),
            "balanced_accuracy": float(np.mean(hits[present] / of_label[present])),
            "macro_f1": float(np.mean(f1)),
            "weighted_f1": float(f1 @ of_label[counted] / total),
            "ece": float(np.abs(gaps).sum() / total),
        }

    def reliability(self) -> pd.DataFrame:
        photos = np.bincount(self.bins, self.sizes, _BINS).astype(int)
        used = np.flatnonzero(photos)
        mean = {
            name: np.bincount(self.bins, self.sizes * values, _BINS)[used] / photos[used]
            for name, values in (("confidence", self.confidence), ("accuracy", self.is_right))
        }
        edges = {"low": used / _BINS, "high": (used + 1) / _BINS}
        return pd.DataFrame({**edges, "photos": photos[used], **mean})


def _groups(cells: np.ndarray, num_photos: int) -> np.ndarray:
    """Where the groups of photos begin that are counted together: each photo one, if not many."""
    if num_photos <= _COUNTED_ALONE:
        return np.arange(num_photos)
    sizes = np.diff(cells, append=num_photos)
    steps = np.maximum(1, sizes // _OF_CELL)  # photos a group
    place = np.arange(num_photos) - np.repeat(cells, sizes)
    return np.flatnonzero(place % np.repeat(steps, sizes) == 0)


def _per_class(labels: np.ndarray, predicted: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    precision, recall, f1, photos = precision_recall_fscore_support(
        labels, predicted, labels=range(len(class_names)), zero_division=np.nan
    )
    predicted = np.bincount(predicted, minlength=len(class_names))
    return pd.DataFrame(
        {
            "class": class_names, "photos": photos, "predicted": predicted,
            "precision": precision, "recall": recall, "f1": f1,
        }
    )  # fmt: skip


def most_confused(metrics: Metrics, class_names: list[str]) -> pd.DataFrame:
    """Pairs of classes that are taken for each other, the most photos first.

    Returns:
        label, predicted, photos and share (of the label's photos), a row a pair with photos.
    """
    wrong = metrics.confusion - np.diag(np.diag(metrics.confusion))
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    order = np.argsort(-counts, kind="stable")
    names = np.array(class_names, object)
    share = counts / metrics.confusion.sum(1)[rows]
    found = pd.DataFrame(
        {"label": names[rows], "predicted": names[columns], "photos": counts, "share": share}
    )
    return found.iloc[order].reset_index(drop=True)
