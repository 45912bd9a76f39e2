"""How good probabilities are at both levels of a hierarchy of classes: arrays in, numbers out.

Three answers to the coarse question are measured: that of the fine network by its likeliest fine
class (`rolled_up`), by the sums of its probabilities (`summed`), which use all that it knows, and
that of a network trained on coarse labels (`coarse`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from carcls.data.records import sorted_class_names
from carcls.evaluation.metrics import Metrics, measure

_LEVEL = 0.95
_OF_PROBS = ("top5", "nll", "ece")  # which the likeliest class alone does not tell

ANSWERS = {
    "rolled_up": "its likeliest fine class, rolled up",
    "summed": "its probabilities, summed",
    "coarse": "a network trained on coarse classes",
}
DIFFERENCES = {
    "fine_minus_rolled_up": ("fine", "rolled_up", "fine minus rolled-up"),
    "fine_minus_coarse": ("fine", "coarse", "fine minus coarse"),
    "rolled_up_minus_coarse": ("rolled_up", "coarse", "rolled-up minus coarse"),
}


@dataclass(kw_only=True)
class Levels:
    """What `n` labelled photos say of a classifier of fine classes, and of one of coarse classes.

    Attributes:
        values: Numbers by name, by what they are of: `fine` (those of `measure` and precision, the
            mean of the classes that are predicted), `rolled_up`, `summed` and, where there is such
            a network, `coarse` (top1, balanced_accuracy, macro_f1, precision; but for the first
            also top5, nll, ece); `errors`: the `share` of photos whose fine class is told wrong,
            the share of these that stay `inside` the right coarse class, and that
            `inside_by_chance`, if any other class were as likely; `differences` of precision, the
            means over fine classes. What is not defined is left out.
        intervals: Of these the ends of 95 % bootstrap intervals; at the coarse level none of top5,
            nll and ece.
        n: Photos.
        coarse_names: In order.
        per_class: A row a fine class, grouped by coarse class: coarse, fine, photos, predicted,
            precision, precision_rolled_up, precision_coarse (of its coarse class), their
            differences, errors (its photos that were taken for others) and inside (the share of
            these that stayed in the right coarse class). NaN where it is not defined.
        of_coarse: A table a coarse answer, as `Metrics.per_class` has them.
        confusion: `(num_coarse, num_coarse)` photos, by label and by the summed probabilities.
    """

    values: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    n: int
    coarse_names: list[str]
    per_class: pd.DataFrame
    of_coarse: dict[str, pd.DataFrame]
    confusion: np.ndarray


def coarse_classes(
    class_names: list[str], hierarchy: dict[str, str]
) -> tuple[list[str], np.ndarray]:
    """The coarse classes in order, and `(num_classes,)` which of them each fine class is in."""
    names = sorted_class_names([hierarchy[name] for name in class_names])
    index = {name: number for number, name in enumerate(names)}
    return names, np.array([index[hierarchy[name]] for name in class_names])


def summed(probs: np.ndarray, coarse_of: np.ndarray) -> np.ndarray:
    """Probabilities of coarse classes: the sums of those of their fine classes.

    Args:
        probs: `(n, num_fine)`.
        coarse_of: `(num_fine,)` the coarse class of each, counted from 0.

    Returns:
        `(n, num_coarse)`, of the same type.
    """
    return probs @ np.eye(coarse_of.max() + 1, dtype=probs.dtype)[coarse_of]


def measure_levels(
    probs: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    hierarchy: dict[str, str],
    *,
    metrics: Metrics,
    coarse_probs: np.ndarray | None = None,
    seed: int,
    resamples: int,
) -> Levels:
    """Measures fine probabilities, and coarse ones where there are, against fine labels.

    Args:
        probs: `(n, num_fine)` of the fine network.
        labels: `(n,)` fine class indices.
        class_names: `num_fine` of them.
        hierarchy: The coarse class of each, by name.
        metrics: What `measure` says of the fine probabilities: its numbers are taken over.
        coarse_probs: `(n, num_coarse)` of another network, in the order of `coarse_classes`.
        seed: Of the bootstrap.
        resamples: Of the bootstrap, see `measure`.
    """
    names, coarse_of = coarse_classes(class_names, hierarchy)
    rolled_up, sums = coarse_of[probs.argmax(1)], summed(probs, coarse_of)
    given = {"summed": sums} if coarse_probs is None else {"summed": sums, "coarse": coarse_probs}
    predicted = {"rolled_up": rolled_up} | {name: each.argmax(1) for name, each in given.items()}
    outcomes = _Outcomes(labels, probs.argmax(1), coarse_of, predicted)
    values = outcomes.values(outcomes.photos)
    answers = {
        name: measure(each, coarse_of[labels], names, seed=seed, resamples=0)
        for name, each in {"rolled_up": np.eye(len(names))[rolled_up], **given}.items()
    }
    for name in given:
        values[name] |= {key: answers[name].values[key] for key in _OF_PROBS}
    intervals = _intervals(outcomes, values, seed, resamples)
    values["fine"] = metrics.values | {"precision": values["fine"]["precision"]}
    if resamples:  # one number has one interval
        precision = intervals["fine"]["precision"]
        intervals["fine"] = metrics.intervals | {"precision": precision}
    return Levels(
        values=values,
        intervals=intervals,
        n=len(labels),
        coarse_names=names,
        per_class=outcomes.per_class(class_names, names),
        of_coarse={name: metrics.per_class for name, metrics in answers.items()},
        confusion=answers["summed"].confusion,
    )


@dataclass(kw_only=True)
class _Counts:
    """Photos of each class, `(size,)` each: told right, taken for it, and of it."""

    hits: np.ndarray
    taken: np.ndarray
    present: np.ndarray

    def precision(self) -> np.ndarray:
        """The share of the photos taken for a class that are of it; NaN where none is."""
        nan = np.full(len(self.hits), np.nan)
        return np.divide(self.hits, self.taken, out=nan, where=self.taken > 0)

    def values(self) -> dict[str, float]:
        """As `measure` has them, and the mean precision."""
        hits, taken, present = self.hits, self.taken, self.present
        is_taken, is_present = taken > 0, present > 0
        counted = is_taken | is_present
        return {
            "top1": float(hits.sum() / present.sum()),
            "balanced_accuracy": float(np.mean(hits[is_present] / present[is_present])),
            "macro_f1": float(np.mean(2 * hits[counted] / (taken + present)[counted])),
            "precision": float(np.mean(hits[is_taken] / taken[is_taken])),
        }


class _Outcomes:
    """Photos of one label and the same predictions are a cell: a resample only counts these."""

    def __init__(
        self,
        labels: np.ndarray,
        predicted: np.ndarray,
        coarse_of: np.ndarray,
        coarse_predicted: dict[str, np.ndarray],
    ) -> None:
        """Of `n` photos.

        Args:
            labels: `(n,)` fine classes.
            predicted: `(n,)` likewise.
            coarse_of: `(num_fine,)` the coarse class of each.
            coarse_predicted: `(n,)` coarse classes, by answer.
        """
        self.coarse_of, self.num_coarse = coarse_of, coarse_of.max() + 1
        rows = np.stack([labels, predicted, *coarse_predicted.values()])
        sizes = [len(coarse_of)] * 2 + [self.num_coarse] * len(coarse_predicted)
        keys = np.ravel_multi_index(rows, sizes)
        cells, photos = np.unique(keys, return_counts=True)
        self.photos = photos.astype(float)
        self.labels, self.predicted, *of_answers = np.unravel_index(cells, sizes)
        coarse = coarse_of[self.labels]
        self.is_right = self.labels == self.predicted
        self.answers = {
            name: (each, np.flatnonzero(each == coarse))
            for name, each in zip(coarse_predicted, of_answers, strict=True)
        }
        self.is_inside = ~self.is_right & (coarse_of[self.predicted] == coarse)

    def counts(self, photos: np.ndarray) -> dict[str, _Counts]:
        """By what tells the class, for cells of so many photos each, `(cells,)`."""
        size, coarse_of = len(self.coarse_of), self.coarse_of
        fine = _Counts(
            hits=np.bincount(self.labels, photos * self.is_right, size),
            taken=np.bincount(self.predicted, photos, size),
            present=np.bincount(self.labels, photos, size),
        )
        found = {"fine": fine}
        present = np.bincount(coarse_of, fine.present)
        for name, (predicted, right) in self.answers.items():
            hits = np.bincount(predicted[right], photos[right], self.num_coarse)
            taken = np.bincount(predicted, photos, self.num_coarse)
            found[name] = _Counts(hits=hits, taken=taken, present=present)
        return found

    def values(self, photos: np.ndarray) -> dict[str, dict[str, float]]:
        """The numbers, for cells of so many photos each, `(cells,)`."""
        counts = self.counts(photos)
        fine = counts["fine"]
        found = {name: each.values() for name, each in counts.items()}
        errors = fine.present - fine.hits
        found["errors"] = {"share": float(errors.sum() / fine.present.sum())}
        if errors.any():
            siblings = np.bincount(self.coarse_of)[self.coarse_of] - 1
            chance = siblings / (len(siblings) - 1)
            found["errors"]["inside"] = float(photos @ self.is_inside / errors.sum())
            found["errors"]["inside_by_chance"] = float(errors @ chance / errors.sum())
        means = {name: _mean(each) for name, each in self.differences(counts).items()}
        found["differences"] = {name: mean for name, mean in means.items() if mean is not None}
        return found

    def differences(self, counts: dict[str, _Counts]) -> dict[str, np.ndarray]:
        """`(num_fine,)` of each of `DIFFERENCES` whose networks there are."""
        precision = {
            name: of_one.precision()[slice(None) if name == "fine" else self.coarse_of]
            for name, of_one in counts.items()
        }
        return {
            name: precision[more] - precision[less]
            for name, (more, less, _) in DIFFERENCES.items()
            if more in precision and less in precision
        }

    def per_class(self, class_names: list[str], coarse_names: list[str]) -> pd.DataFrame:
        """The table of `Levels`."""
        counts = self.counts(self.photos)
        fine = counts["fine"]
        columns = {
            "coarse": np.array(coarse_names, object)[self.coarse_of],
            "fine": class_names,
            "photos": fine.present.astype(int),
            "predicted": fine.taken.astype(int),
            "precision": fine.precision(),
        }
        for name in ("rolled_up", "coarse"):
            if name in counts:
                columns[f"precision_{name}"] = counts[name].precision()[self.coarse_of]
        columns |= self.differences(counts)
        errors = fine.present - fine.hits
        inside = np.bincount(self.labels, self.photos * self.is_inside, len(errors))
        columns["errors"] = errors.astype(int)
        columns["inside"] = np.divide(
            inside, errors, out=np.full(len(errors), np.nan), where=errors > 0
        )
        order = np.argsort(self.coarse_of, kind="stable")
        return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


def _mean(values: np.ndarray) -> float | None:
    """Of those that are not NaN; None if all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _intervals(
    outcomes: _Outcomes, values: dict[str, dict[str, float]], seed: int, resamples: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Of what `outcomes` tells; of numbers that a resample does not define, from the others."""
    if not resamples:
        return {}
    # How many photos a cell has, if as many are drawn with replacement, is multinomial: that takes
    # the time of the cells, of which there may be a thousand times fewer than photos.
    draws, num_photos = np.random.default_rng(seed), int(outcomes.photos.sum())
    shares = outcomes.photos / num_photos
    drawn = [
        outcomes.values(draws.multinomial(num_photos, shares).astype(float))
        for _ in range(resamples)
    ]
    tail = (1 - _LEVEL) / 2
    return {
        group: {
            name: tuple(np.quantile(found, [tail, 1 - tail]).tolist())
            for name in of_group
            if (found := [each[group][name] for each in drawn if name in each[group]])
        }
        for group, of_group in values.items()
    }
