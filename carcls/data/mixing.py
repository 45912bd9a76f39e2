"""Photos of a batch mixed in pairs, with their labels: MixUp and CutMix."""

from collections.abc import Sequence

import cv2
import numpy as np


def mix_batch(
    images: np.ndarray,
    labels: np.ndarray,
    seed_words: Sequence[int],
    mixup: float,
    cutmix: float,
    probability: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """A batch after MixUp or CutMix: a pure function of its arguments, which stay as they were.

    Each photo is mixed with another place of the same batch, drawn as a permutation; one weight is
    drawn for the whole batch, as in the papers. With both on, each takes half of the batches.

    Args:
        images: `(batch, height, width, 3)` uint8.
        labels: `(batch, num_classes)` float32, whose rows sum to 1.
        seed_words: Non-negative integers, such as (seed, epoch, batch).
        mixup: Alpha of MixUp's Beta distribution; 0 is off.
        cutmix: Alpha of CutMix's Beta distribution; 0 is off.
        probability: Share of the batches, in [0, 1], that are mixed.

    Returns:
        Images and labels, of the same shapes and types; the very ones if nothing was mixed.
    """
    generator = np.random.default_rng(list(seed_words))
    is_cutmix = generator.random() < 0.5 if mixup and cutmix else bool(cutmix)
    if not (mixup or cutmix) or generator.random() >= probability:
        return images, labels
    alpha = cutmix if is_cutmix else mixup
    share = float(generator.beta(alpha, alpha))
    partners = generator.permutation(len(images))
    if not is_cutmix:
        return blend(images, labels, partners, share)
    height, width = images.shape[1:3]
    middle = (generator.integers(height), generator.integers(width))
    return paste(images, labels, partners, box(height, width, share, middle))


def blend(
    images: np.ndarray, labels: np.ndarray, partners: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """MixUp (Zhang et al., 2018): the weighted mean of two photos and of their labels.

    Args:
        images, labels: See `mix_batch`.
        partners: `(batch,)` the place of the other photo.
        share: Weight in [0, 1] of the photo itself.

    Returns:
        Images, rounded to whole levels, and labels.
    """
    mixed = np.empty_like(images)
    for image, partner, result in zip(images, partners, mixed, strict=True):
        cv2.addWeighted(image, share, images[partner], 1 - share, 0, dst=result)
    return mixed, _blended(labels, partners, share)


def paste(
    images: np.ndarray, labels: np.ndarray, partners: np.ndarray, part: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """CutMix (Yun et al., 2019): a part of one photo pasted into another, in the same place.

    Args:
        images, labels: See `mix_batch`.
        partners: `(batch,)` the place of the photo that the part is taken from.
        part: Rows and columns that are pasted.

    Returns:
        Images, and labels weighted by the share of the pixels that is each photo's.
    """
    mixed = images.copy()
    rows, columns = part
    mixed[:, rows, columns] = images[partners, rows, columns]
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, _blended(labels, partners, 1 - pasted / (images.shape[1] * images.shape[2]))


def box(height: int, width: int, share: float, middle: tuple[int, int]) -> tuple[slice, slice]:
    """CutMix's part: of the photo's aspect, cut where it would reach over the border.

    Args:
        height, width: Of the photo, in pixels.
        share: Area of the photo that is left, if nothing is cut.
        middle: Row and column of the middle.

    Returns:
        Rows and columns.
    """
    side = np.sqrt(1 - share)
    sides = []
    for length, place in ((height, middle[0]), (width, middle[1])):
        half = int(length * side) // 2
        sides.append(slice(max(0, int(place) - half), min(length, int(place) + half)))
    return sides[0], sides[1]


def _blended(labels: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    return (labels * share + labels[partners] * (1 - share)).astype(np.float32)
