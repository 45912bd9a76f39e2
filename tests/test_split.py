"""The split: stratified to the photo, drawn by seed alone."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carcls.data.split import stratified_split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(np.array)
PERCENT = st.integers(1, 99)
SEEDS = st.integers(0, 2**32)


@given(LABELS, PERCENT, SEEDS)
def test_every_class_gives_its_rounded_share_and_keeps_a_photo_on_each_side(labels, percent, seed):
    is_val = stratified_split(labels, percent / 100, seed)
    assert is_val.shape == labels.shape and is_val.dtype == bool
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        share = (Decimal(int(size)) * percent / 100).quantize(Decimal(1), ROUND_HALF_UP)
        expected = 0 if size == 1 else min(max(int(share), 1), size - 1)
        assert is_val[labels == label].sum() == expected


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [
        *[(1, 0.9, 0), (2, 0.01, 1), (2, 0.99, 1), (7, 0.2, 1), (8, 0.2, 2), (10, 0.25, 3)],
        (50, 0.29, 15),  # 14.5 in decimals, a hair less in floats
    ],
)
def test_shares_are_rounded_to_the_nearest_photo_and_halves_go_to_validation(size, share, count):
    assert stratified_split(np.zeros(size, int), share, seed=0).sum() == count


@given(LABELS, PERCENT, SEEDS)
def test_the_same_seed_draws_the_same_photos(labels, percent, seed):
    first, second = (stratified_split(labels, percent / 100, seed) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_another_seed_draws_other_photos():
    labels = np.repeat([0, 1], 50)
    draws = {stratified_split(labels, 0.2, seed).tobytes() for seed in range(20)}
    assert len(draws) == 20


def test_classes_of_the_same_size_are_drawn_apart():
    is_val = stratified_split(np.repeat([0, 1], 50), 0.2, seed=0)
    assert (is_val[:50] != is_val[50:]).any()


@given(LABELS, st.integers(0, 5), SEEDS)
def test_a_draw_does_not_depend_on_the_other_classes(labels, label, seed):
    among_others = stratified_split(labels, 0.3, seed)[labels == label]
    alone = stratified_split(labels[labels == label], 0.3, seed) if len(among_others) else []
    np.testing.assert_array_equal(among_others, alone)


def test_all_photos_of_a_class_get_their_turn():
    labels = np.zeros(10, int)
    drawn = np.mean([stratified_split(labels, 0.2, seed) for seed in range(500)], axis=0)
    np.testing.assert_allclose(drawn, 0.2, atol=0.07)
