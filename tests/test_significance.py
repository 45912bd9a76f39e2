"""Whether a difference is real: hand-made networks whose differences are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from carcls.evaluation import significance
from carcls.evaluation.significance import compare_pairs, precision_distance


def pairs_of(is_right: np.ndarray, resamples: int = 300):
    nll = np.where(is_right, 0.1, 2.0)
    names = [f"m{i}" for i in range(is_right.shape[1])]
    return compare_pairs(is_right, nll, names, seed=0, resamples=resamples)


def test_the_same_answers_are_no_difference():
    is_right = np.tile(np.arange(50)[:, None] % 3 > 0, (1, 2))
    (pair,) = pairs_of(is_right).itertuples()
    assert (pair.accuracy, pair.accuracy_low, pair.accuracy_high, pair.nll) == (0, 0, 0, 0)
    assert (pair.only_model, pair.only_other, pair.p) == (0, 0, 1.0)
    assert not pair.is_real


def test_mcnemar_is_the_exact_test_on_the_photos_that_one_alone_tells():
    is_right = np.ones((100, 2), bool)
    is_right[:12, 1] = False  # the first alone tells 12
    is_right[12:15, 0] = False  # the second alone tells 3
    (pair,) = pairs_of(is_right).itertuples()
    assert (pair.only_model, pair.only_other) == (12, 3)
    assert pair.p_mcnemar == pytest.approx(2 * binom.cdf(3, 15, 0.5))
    assert pair.p == pair.p_mcnemar == pytest.approx(0.0352, abs=1e-4)
    assert pair.is_real
    assert pair.accuracy == pytest.approx(0.09)
    assert 0 < pair.accuracy_low < 0.09 < pair.accuracy_high
    assert pair.nll == pytest.approx(-0.09 * 1.9)


def test_photos_are_paired_so_that_hard_ones_do_not_widen_the_interval():
    """Both fail on half of the photos; they differ on 5 of 1000, always to the same side."""
    is_right = np.zeros((1000, 2), bool)
    is_right[:500] = True
    is_right[:5, 1] = False
    (pair,) = pairs_of(is_right).itertuples()
    assert pair.accuracy_high - pair.accuracy_low < 0.01  # unpaired it would be 0.12


def test_holm_asks_more_of_each_where_there_are_many():
    draws = np.random.default_rng(1)
    is_right = draws.random((200, 4)) < 0.8
    is_right[:, 3] &= draws.random(200) < 0.85
    found = pairs_of(is_right, resamples=0)
    assert len(found) == 6
    assert "accuracy_low" not in found
    assert (found.p >= found.p_mcnemar).all()
    assert found.p.min() == pytest.approx(min(1, 6 * found.p_mcnemar.min()))


@given(arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_keeps_the_order_and_stays_a_probability(p_values):
    adjusted = significance._holm(p_values)
    assert ((adjusted >= p_values) & (adjusted <= 1)).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_precisions_are_compared_where_both_are_known():
    precision = np.array([[1.0, 0.5], [0.2, 0.4], [np.nan, 0.9]])
    distance = precision_distance(precision)
    np.testing.assert_allclose(distance, [[0, 0.35], [0.35, 0]])
