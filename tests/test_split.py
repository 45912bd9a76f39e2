"""The split: stratified to the photo, drawn by seed alone."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carcls.data.split import stratified_folds, stratified_split

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


@st.composite
def grouped(draw) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and groups under any numbers, whose photos are mostly of one class."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=40))
    classes = draw(st.lists(st.integers(0, 4), min_size=len(sizes), max_size=len(sizes)))
    labels, groups = np.repeat(classes, sizes), np.repeat(np.arange(len(sizes)) * 7 - 50, sizes)
    odd = draw(st.lists(st.integers(0, len(labels) - 1), max_size=3))
    labels[odd] = draw(st.integers(0, 5))
    order = draw(st.permutations(range(len(labels))))
    return labels[order], groups[order]


def classes_of_groups(labels: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    """The label that most photos of each group have, the first of several."""
    return {int(g): int(np.bincount(labels[groups == g]).argmax()) for g in np.unique(groups)}


@given(grouped(), PERCENT, SEEDS)
def test_no_group_is_on_both_sides(photos, percent, seed):
    labels, groups = photos
    is_val = stratified_split(labels, percent / 100, seed, groups)
    assert is_val.shape == labels.shape and is_val.dtype == bool
    assert not set(groups[is_val]) & set(groups[~is_val])


@given(grouped(), PERCENT, SEEDS)
def test_of_whole_groups_every_class_gives_its_share_within_its_largest(photos, percent, seed):
    labels, groups = photos
    is_val = stratified_split(labels, percent / 100, seed, groups)
    class_of = classes_of_groups(labels, groups)
    majority = np.array([class_of[int(g)] for g in groups])
    pure = set(labels) == set(majority)  # else a class that is nowhere the most holds one back
    for label in set(majority):
        of_class = majority == label
        sizes = np.unique(groups[of_class], return_counts=True)[1]
        got, total = int(is_val[of_class].sum()), int(of_class.sum())
        if len(sizes) == 1:
            assert got == 0
        elif pure:
            assert 0 < got < total
            share = min(max(total * percent / 100, 1), total - 1)
            assert abs(got - share) <= sizes.max() - 0.5


@given(grouped(), PERCENT, SEEDS)
def test_every_class_has_photos_to_train_on_whatever_the_groups(photos, percent, seed):
    labels, groups = photos
    assert set(labels[~stratified_split(labels, percent / 100, seed, groups)]) == set(labels)


@given(grouped(), PERCENT, SEEDS, st.data())
def test_which_numbers_groups_have_does_not_matter(photos, percent, seed, data):
    labels, groups = photos
    distinct = np.unique(groups)
    other = np.array(data.draw(st.permutations(range(len(distinct)))))
    np.testing.assert_array_equal(
        stratified_split(labels, percent / 100, seed, groups),
        stratified_split(labels, percent / 100, seed, other[np.searchsorted(distinct, groups)]),
    )


@given(LABELS, PERCENT, SEEDS)
def test_groups_of_one_photo_change_nothing(labels, percent, seed):
    np.testing.assert_array_equal(
        stratified_split(labels, percent / 100, seed, np.arange(len(labels))[::-1]),
        stratified_split(labels, percent / 100, seed),
    )


@pytest.mark.parametrize(
    ("sizes", "share", "counts"),
    [
        ([100, 1, 1], 0.05, {2}),  # never the hundred for the sake of five
        ([5, 5], 0.05, {5}),  # one on each side, however small the share
        ([4, 4, 4], 0.3, {4}),  # 3.6: more than half of a group is wanted
        ([10, 10, 10, 1], 0.15, {1}),  # 4.65: with a ten it would be further off
        ([99, 1], 0.9, {1}),  # 90: one group is left to train on
        ([7], 0.5, {0}),
    ],
)
def test_groups_come_as_near_to_the_share_as_they_go(sizes, share, counts):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        drawn = stratified_split(np.zeros(len(groups), int), share, seed, groups).sum()
        assert drawn in counts, (seed, drawn)


def test_a_class_that_is_nowhere_the_most_is_trained_on():
    labels = np.array([0, 0, 1, 0, 0, 1, 0, 0])
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    for seed in range(20):
        is_val = stratified_split(labels, 0.5, seed, groups)
        assert not is_val[:3].any(), "the first group with class 1"
        assert is_val.any()


def test_all_groups_of_a_class_get_their_turn():
    groups = np.repeat(np.arange(10), 3)
    labels = np.zeros(30, int)
    draws = [stratified_split(labels, 0.2, seed, groups) for seed in range(500)]
    np.testing.assert_allclose(np.mean(draws, axis=0), 0.2, atol=0.07)


FOLDS = st.integers(2, 7)


@given(LABELS, FOLDS, SEEDS)
def test_folds_differ_by_one_photo_at_most_in_every_class_and_in_all(labels, num_folds, seed):
    folds = stratified_folds(labels, num_folds, seed)
    assert folds.shape == labels.shape and folds.dtype == np.int64
    assert set(folds) <= set(range(1, num_folds + 1))
    for of_class in [folds, *(folds[labels == label] for label in set(labels))]:
        counts = np.bincount(of_class, minlength=num_folds + 1)[1:]
        assert counts.max() - counts.min() <= 1


@given(grouped(), FOLDS, SEEDS)
def test_no_group_is_in_two_folds(photos, num_folds, seed):
    labels, groups = photos
    folds = stratified_folds(labels, num_folds, seed, groups)
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    assert len(set(folds)) == min(num_folds, len(set(groups))), "no fold is empty without need"


@given(grouped(), FOLDS, SEEDS)
def test_of_whole_groups_folds_differ_by_the_largest_at_most(photos, num_folds, seed):
    labels, groups = photos
    folds = stratified_folds(labels, num_folds, seed, groups)
    class_of = classes_of_groups(labels, groups)
    majority = np.array([class_of[int(g)] for g in groups])
    for label in set(majority):
        of_class = majority == label
        counts = np.bincount(folds[of_class], minlength=num_folds + 1)[1:]
        largest = np.unique(groups[of_class], return_counts=True)[1].max()
        assert counts.max() - counts.min() <= largest


@given(grouped(), FOLDS, SEEDS, st.data())
def test_the_same_seed_deals_the_same_folds_whatever_numbers_groups_have(
    photos, num_folds, seed, data
):
    labels, groups = photos
    distinct = np.unique(groups)
    other = np.array(data.draw(st.permutations(range(len(distinct)))))
    np.testing.assert_array_equal(
        stratified_folds(labels, num_folds, seed, groups),
        stratified_folds(labels, num_folds, seed, other[np.searchsorted(distinct, groups)]),
    )


@given(LABELS, FOLDS, SEEDS)
def test_photos_alone_in_their_groups_are_dealt_like_photos_without(labels, num_folds, seed):
    np.testing.assert_array_equal(
        stratified_folds(labels, num_folds, seed, np.arange(len(labels))[::-1]),
        stratified_folds(labels, num_folds, seed),
    )


def test_another_seed_deals_other_folds():
    labels = np.repeat([0, 1], 25)
    assert len({stratified_folds(labels, 5, seed).tobytes() for seed in range(20)}) == 20
