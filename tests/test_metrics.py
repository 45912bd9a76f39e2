"""Metrics against scikit-learn's, and what their intervals mean."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from carcls.evaluation import metrics
from carcls.evaluation.metrics import measure, most_confused

NAMES = [f"class {number}" for number in range(7)]


def drawn(seed: int, n: int, classes: int = 7, skill: float = 1.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    logits = random.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += skill
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32), labels


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), classes=st.integers(2, 7))
def test_they_are_scikit_learns(seed, n, classes):
    probs, labels = drawn(seed, n, classes)
    found = measure(probs, labels, NAMES[:classes], seed=0, resamples=0)
    predicted, every = probs.argmax(1), range(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that do not occur
        expected = {
            "top1": sklearn.accuracy_score(labels, predicted),
            "nll": sklearn.log_loss(labels, probs.astype(float), labels=every),
            "macro_f1": sklearn.f1_score(labels, predicted, average="macro", zero_division=0),
            "weighted_f1": sklearn.f1_score(labels, predicted, average="weighted", zero_division=0),
        }
    if classes > 5:
        expected["top5"] = sklearn.top_k_accuracy_score(labels, probs, k=5, labels=every)
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    expected["balanced_accuracy"] = np.mean(recalls)
    for name, value in expected.items():
        assert found.values[name] == pytest.approx(value, abs=1e-6), name
    np.testing.assert_array_equal(
        found.confusion, sklearn.confusion_matrix(labels, predicted, labels=every)
    )
    assert found.intervals == {}
    assert found.n == n


def test_calibration_is_the_gap_between_confidence_and_accuracy():
    probs = np.array([[0.9, 0.1]] * 10 + [[0.65, 0.35]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 7 + [1] * 3)
    found = measure(probs, labels, ["a", "b"], seed=0, resamples=0)
    assert found.values["ece"] == pytest.approx((0.1 + 0.05) / 2)
    assert found.reliability[["photos", "confidence", "accuracy"]].to_numpy() == pytest.approx(
        np.array([[10, 0.65, 0.7], [10, 0.9, 0.8]])
    )


def test_a_certain_photo_falls_into_the_last_bin():
    found = measure(np.eye(3), np.arange(3), NAMES[:3], seed=0, resamples=0)
    assert found.values["ece"] == 0
    assert found.reliability[["low", "high", "photos"]].to_numpy() == pytest.approx(
        np.array([[14 / 15, 1, 3]])
    )


def test_classes_without_photos_or_predictions_are_not_counted_as_failures():
    probs = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    found = measure(probs, np.array([0, 1]), ["a", "b", "c"], seed=0, resamples=0)
    assert found.values["balanced_accuracy"] == 0.5
    assert found.per_class.photos.tolist() == [1, 1, 0]
    assert found.per_class.predicted.tolist() == [2, 0, 0]
    assert found.per_class.precision.isna().tolist() == [False, True, True]
    assert found.per_class.recall.isna().tolist() == [False, False, True]


def test_intervals_hold_what_they_say():
    """The truth is the mean over many draws; 95 % of intervals of 200 photos hold it."""
    truth = measure(*drawn(1, 200_000), NAMES, seed=0, resamples=0).values
    held = dict.fromkeys(("top1", "nll", "balanced_accuracy", "macro_f1"), 0)
    for seed in range(100):
        found = measure(*drawn(1000 + seed, 200), NAMES, seed=seed, resamples=200)
        for name in held:
            low, high = found.intervals[name]
            held[name] += low <= truth[name] <= high
    assert all(85 <= count <= 100 for count in held.values()), held


def test_the_same_seed_gives_the_same_intervals():
    probs, labels = drawn(3, 50)
    first, again, other = (
        measure(probs, labels, NAMES, seed=seed, resamples=50).intervals for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_pairs_that_are_confused_most_come_first():
    labels = np.array([0] * 6 + [1] * 4 + [2] * 2)
    predicted = np.array([0, 1, 1, 1, 2, 0, 1, 0, 0, 1, 2, 2])
    probs = np.eye(3)[predicted]
    found = measure(probs, labels, ["a", "b", "c"], seed=0, resamples=0)
    assert most_confused(found, ["a", "b", "c"]).to_numpy().tolist() == [
        ["a", "b", 3, 0.5], ["b", "a", 2, 0.5], ["a", "c", 1, 1 / 6],
    ]  # fmt: skip


def test_very_many_photos_have_the_intervals_that_each_counted_alone_would_have(monkeypatch):
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 5, 20_000)
    logits = draws.normal(0, 1, (20_000, 5))
    logits[np.arange(20_000), labels] += 1.5
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    alone = measure(probs, labels, list("abcde"), seed=0, resamples=400)
    monkeypatch.setattr(metrics, "_COUNTED_ALONE", 1000)
    together = measure(probs, labels, list("abcde"), seed=0, resamples=400)
    for name, value in alone.values.items():
        assert together.values[name] == pytest.approx(value, rel=1e-12)
        low, high = alone.intervals[name]
        # With 400 resamples an end is known to about a twelfth of the width.
        assert together.intervals[name] == pytest.approx((low, high), abs=0.2 * (high - low))
    pd.testing.assert_frame_equal(together.reliability, alone.reliability)
    pd.testing.assert_frame_equal(together.per_class, alone.per_class)
