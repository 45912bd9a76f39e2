"""MixUp and CutMix: exact pixels and labels, drawn by seed, as often as they should be."""

import numpy as np
import pytest

from carcls.data.mixing import blend, box, mix_batch, paste

LABELS = np.eye(3, dtype=np.float32)


def batch(*levels: int, height: int = 8, width: int = 10) -> np.ndarray:
    """A grey photo a level."""
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def many(count: int = 16, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Photos that differ in every pixel, each of a class of its own."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return images, np.eye(count, dtype=np.float32)


def test_mixup_is_the_weighted_mean_of_photos_and_labels():
    images, labels = blend(batch(100, 200, 0), LABELS, np.array([1, 2, 0]), 0.75)
    assert images.dtype == np.uint8 and labels.dtype == np.float32
    assert [np.unique(image).tolist() for image in images] == [[125], [150], [25]]
    np.testing.assert_array_equal(labels, [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]])


def test_mixup_rounds_to_the_nearest_level():
    images, _ = blend(batch(10, 20), np.eye(2, dtype=np.float32), np.array([1, 0]), 0.52)
    assert images[:, 0, 0, 0].tolist() == [15, 15]  # 14.8 and 15.2


@pytest.mark.parametrize(("share", "levels"), [(1.0, [7, 250]), (0.0, [250, 7])])
def test_mixup_at_its_ends_is_one_photo_or_the_other(share, levels):
    images, _ = blend(batch(7, 250), np.eye(2, dtype=np.float32), np.array([1, 0]), share)
    np.testing.assert_array_equal(images, batch(*levels))


def test_cutmix_pastes_the_same_place_and_labels_by_the_pixels_pasted():
    part = (slice(2, 6), slice(0, 5))  # 20 of 80 pixels
    images, labels = paste(batch(1, 2, 3), LABELS, np.array([1, 2, 0]), part)
    for image, own, other in zip(images, (1, 2, 3), (2, 3, 1), strict=True):
        expected = np.full((8, 10, 3), own, np.uint8)
        expected[2:6, :5] = other
        np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(labels, [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]])


@pytest.mark.parametrize(
    ("share", "middle", "rows", "columns"),
    [
        (0.75, (50, 100), slice(25, 75), slice(50, 150)),  # half of each side
        (0.75, (0, 199), slice(0, 25), slice(149, 200)),  # cut at two borders
        (1.0, (50, 100), slice(50, 50), slice(100, 100)),
        (0.0, (50, 100), slice(0, 100), slice(0, 200)),
    ],
)
def test_the_part_that_is_pasted_has_the_area_that_was_drawn(share, middle, rows, columns):
    assert box(100, 200, share, middle) == (rows, columns)


def test_a_part_without_pixels_changes_nothing():
    images, labels = paste(batch(1, 2, 3), LABELS, np.array([1, 2, 0]), box(8, 10, 1.0, (3, 3)))
    np.testing.assert_array_equal(images, batch(1, 2, 3))
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_is_a_pure_function_of_its_arguments(mixup, cutmix):
    images, labels = many()
    originals = images.copy(), labels.copy()
    images.flags.writeable = labels.flags.writeable = False
    first = mix_batch(images, labels, (42, 3, 7), mixup, cutmix)
    np.random.seed(0)
    for again, before in zip(mix_batch(images, labels, (42, 3, 7), mixup, cutmix), first,
                             strict=True):  # fmt: skip
        np.testing.assert_array_equal(again, before)
    others = [mix_batch(images, labels, (42, 3, b), mixup, cutmix)[0] for b in range(20)]
    assert len({other.tobytes() for other in others}) == 20
    for image, original in zip((images, labels), originals, strict=True):
        np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_labels_stay_shares_that_sum_to_1_and_say_what_is_in_the_photo(mixup, cutmix):
    levels = np.arange(0, 256, 17)  # photo i is all of level 17 i, so that its mean is a sum
    images, labels = batch(*levels.tolist(), height=24, width=24), np.eye(16, dtype=np.float32)
    for b in range(50):
        mixed, shares = mix_batch(images, labels, (1, b), mixup, cutmix)
        assert mixed.shape == images.shape and mixed.dtype == np.uint8
        assert shares.shape == labels.shape and shares.dtype == np.float32
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), shares @ levels, atol=0.51)


def test_the_weights_have_the_beta_distribution_of_alpha():
    images, labels = many(2, 4)
    for alpha, variance in ((0.2, 1 / 5.6), (1.0, 1 / 12), (4.0, 1 / 36)):  # 1 / (4 (2 alpha + 1))
        drawn = [mix_batch(images, labels, (5, b), alpha, 0.0)[1] for b in range(3000)]
        shares = np.array([label[0, 0] for label in drawn if label[0, 0] != 1])
        shares = np.concatenate([shares, 1 - shares])  # which of the two is mixed in is chance
        assert abs(shares.var() - variance) < 0.1 * variance


def test_half_of_the_batches_get_mixup_and_half_cutmix_when_both_are_on():
    images, labels = batch(0, 255, height=24, width=24), np.eye(2, dtype=np.float32)
    blended = pasted = 0
    for b in range(1000):
        mixed, shares = mix_batch(images, labels, (9, b), 1.0, 1.0)
        if 0.05 < shares[0, 0] < 0.95:  # two photos are really mixed
            is_blend = len(np.unique(mixed[0])) == 1
            blended, pasted = blended + is_blend, pasted + (not is_blend)
    assert blended + pasted > 300 and 0.4 < blended / (blended + pasted) < 0.65


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_the_batches_is_mixed(probability):
    images, labels = many(4, 6)
    left = [mix_batch(images, labels, (2, b), 0.4, 0.0, probability)[0] is images
            for b in range(1000)]  # fmt: skip
    assert abs(np.mean(left) - (1 - probability)) < 0.05


def test_what_is_off_gives_back_the_very_batch():
    images, labels = many()
    mixed = mix_batch(images, labels, (1, 2), 0.0, 0.0)
    assert mixed[0] is images and mixed[1] is labels


def test_a_batch_of_one_photo_stays_that_photo():
    images, labels = many(1)
    for alphas in ((0.4, 0.0), (0.0, 1.0)):
        mixed, shares = mix_batch(images, labels, (1, 2), *alphas)
        np.testing.assert_array_equal(mixed, images)
        np.testing.assert_allclose(shares, labels, atol=1e-6)
