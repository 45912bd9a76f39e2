"""Which differences between classifiers are real: measured on the same photos, pair by pair."""

from itertools import combinations

import numpy as np
import pandas as pd

_LEVEL = 0.95


def compare_pairs(
    is_right: np.ndarray, nll: np.ndarray, names: list[str], *, seed: int, resamples: int
) -> pd.DataFrame:
    """The difference of each pair in accuracy and NLL, and whether chance may explain it.

    Intervals are of the paired bootstrap: photos are drawn with replacement, the same ones for
    both (Efron and Tibshirani, 1993). `p_mcnemar` is of the exact test on the photos that only one
    of the two tells right (McNemar, 1947); `p` is that after Holm's correction (1979) for the
    number of pairs, and `is_real` whether it is below 0.05.

    Args:
        is_right: `(n, num_models)` bool, whether a photo was told right.
        nll: `(n, num_models)`.
        names: `num_models` of them.
        seed: Of the bootstrap.
        resamples: Of the bootstrap; 0: no intervals.

    Returns:
        A row a pair: model, other, accuracy (of the first less the second, and so on),
        accuracy_low, accuracy_high, nll, nll_low, nll_high, only_model and only_other (photos
        that only one tells right), p_mcnemar, p, is_real.
    """
    from scipy.stats import binomtest

    pairs = list(combinations(range(len(names)), 2))
    accuracies, losses = _resampled(is_right, seed, resamples), _resampled(nll, seed, resamples)
    rows = []
    for one, other in pairs:
        only = [int(np.sum(is_right[:, a] & ~is_right[:, b])) for a, b in
                ((one, other), (other, one))]  # fmt: skip
        p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
        rows.append(
            {
                "model": names[one], "other": names[other],
                **_difference("accuracy", is_right.astype(float), accuracies, one, other),
                **_difference("nll", nll, losses, one, other),
                "only_model": only[0], "only_other": only[1], "p_mcnemar": p,
            }
        )  # fmt: skip
    found = pd.DataFrame(rows)
    found["p"] = _holm(found.p_mcnemar.to_numpy())
    found["is_real"] = found.p < 1 - _LEVEL
    return found


def _resampled(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """`(resamples, num_models)` means over photos, the same ones for all models."""
    draws, size = np.random.default_rng(seed), len(values)
    means = [
        np.bincount(draws.integers(0, size, size), minlength=size) @ values / size
        for _ in range(resamples)
    ]
    return np.reshape(means, (resamples, values.shape[1]))


def _difference(
    name: str, values: np.ndarray, means: np.ndarray, one: int, other: int
) -> dict[str, float]:
    found = {name: float(np.mean(values[:, one] - values[:, other]))}
    if len(means):
        tail = (1 - _LEVEL) / 2
        low, high = np.quantile(means[:, one] - means[:, other], [tail, 1 - tail])
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Each p so that one false alarm among all of them is as rare as it says."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.maximum.accumulate(np.minimum(1.0, p_values[order] * factors))
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


def precision_distance(precisions: np.ndarray) -> np.ndarray:
    """`(num_models, num_models)` mean absolute difference of the precision of each class.

    Args:
        precisions: `(num_classes, num_models)`; a class that one of a pair never predicts (NaN)
            does not count for that pair.
    """
    gaps = np.abs(precisions[:, :, None] - precisions[:, None, :])
    is_known = ~np.isnan(gaps)
    return np.where(is_known, gaps, 0).sum(0) / np.maximum(is_known.sum(0), 1)
