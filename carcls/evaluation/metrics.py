"""How good probabilities are: arrays in, numbers out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

_BINS = 15  # of the expected calibration error, as in Guo et al., 2017
_LEVEL = 0.95

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
    outcomes = _Outcomes(probs, labels)
    ones = np.ones(len(labels))
    values = outcomes.values(ones)
    draws = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        picks = draws.integers(0, len(labels), len(labels))
        drawn.append(outcomes.values(np.bincount(picks, minlength=len(labels)).astype(float)))
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
        per_class=_per_class(outcomes, class_names),
        confusion=confusion_matrix(
            outcomes.labels, outcomes.predicted, labels=range(len(class_names))
        ),
        reliability=outcomes.reliability(),
    )


class _Outcomes:
    """What is needed of each photo, sorted so that a resample is a few sums over neighbours.

    Photos of one label, prediction and so on are a cell: all but NLL and confidence is the same
    for them, and a resample only has to count them.
    """

    def __init__(self, probs: np.ndarray, labels: np.ndarray) -> None:
        num_photos, self.num_classes = probs.shape
        predicted = probs.argmax(1)
        of_label = probs[np.arange(num_photos), labels]
        above = (probs > of_label[:, None]).sum(1)  # what ties with the label is not above it
        in_five, confidence = above < 5, probs.max(1).astype(float)
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        keys = (bins, in_five, predicted, labels)
        order = np.lexsort(keys)
        self.bins, self.in_five, self.predicted, self.labels = (key[order] for key in keys)
        self.nll = -np.log(np.maximum(of_label[order].astype(float), 1e-12))
        self.confidence = confidence[order]
        self.is_right = self.predicted == self.labels
        differs = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        self.starts = np.concatenate([[0], 1 + np.flatnonzero(differs)])

    def values(self, weights: np.ndarray) -> dict[str, float]:
        """The metrics of photos that count `weights` times each, `(n,)`."""
        starts, size, total = self.starts, self.num_classes, weights.sum()
        photos = np.add.reduceat(weights, starts)  # of each cell
        confidence = np.add.reduceat(weights * self.confidence, starts)
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
            "nll": float(weights @ self.nll / total),
            "balanced_accuracy": float(np.mean(hits[present] / of_label[present])),
            "macro_f1": float(np.mean(f1)),
            "weighted_f1": float(f1 @ of_label[counted] / total),
            "ece": float(np.abs(gaps).sum() / total),
        }

    def reliability(self) -> pd.DataFrame:
        photos = np.bincount(self.bins, minlength=_BINS)
        used = np.flatnonzero(photos)
        mean = {
            name: np.bincount(self.bins, values, _BINS)[used] / photos[used]
            for name, values in (("confidence", self.confidence), ("accuracy", self.is_right))
        }
        edges = {"low": used / _BINS, "high": (used + 1) / _BINS}
        return pd.DataFrame({**edges, "photos": photos[used], **mean})


def _per_class(outcomes: _Outcomes, class_names: list[str]) -> pd.DataFrame:
    precision, recall, f1, photos = precision_recall_fscore_support(
        outcomes.labels, outcomes.predicted, labels=range(len(class_names)), zero_division=np.nan
    )
    predicted = np.bincount(outcomes.predicted, minlength=len(class_names))
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
