"""Classes of very different size: each photo's weight, or the draw of an epoch's photos."""

from collections.abc import Sequence

import numpy as np

_SKEWED = 3.0  # largest class to smallest, from where on it is worth a line
_SAMPLING = 2  # a last word of its seeds, so that no photo and no mixing draws the same


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What a photo of each class counts in the loss, so that every class counts the same.

    It is n / (K * count of the class), which averages to 1 over the photos: the learning rate
    keeps its meaning. (scikit-learn calls these "balanced"; after King and Zeng, 2001.)

    Args:
        labels: `(n,)` integer class indices of the photos that train.
        num_classes: Of the network; K counts those alone that have photos.

    Returns:
        `(num_classes,)` float32; 0 for a class without photos.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.astype(np.float32)


def batch_weights(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What each photo of a batch counts in the loss.

    Args:
        labels: `(batch,)` integers, or `(batch, num_classes)` shares of classes whose rows sum to
            1, as MixUp and CutMix leave them.
        weights: `(num_classes,)`, of `class_weights`.

    Returns:
        `(batch,)` float32. Of shares it is the mean weight of the classes, each by its share;
        Keras' `class_weight` would take that of the largest share alone.
    """
    return (labels @ weights if labels.ndim == 2 else weights[labels]).astype(np.float32)


def balanced_draw(indices: np.ndarray, labels: np.ndarray, seed_words: Sequence[int]) -> np.ndarray:
    """As many photos as there are, of every class the same number (or one more), shuffled.

    Of a class that is larger than its share a part is drawn; a smaller one is taken whole, again
    and again, and the rest is drawn: no photo comes twice more often than another of its class.

    Args:
        indices: `(n,)` photos.
        labels: `(n,)` their integer classes.
        seed_words: Non-negative integers, such as (seed, epoch).

    Returns:
        `(n,)` photos, some several times; a pure function of the arguments.
    """
    generator = np.random.default_rng([*seed_words, _SAMPLING])
    classes = generator.permutation(np.unique(labels))  # the first ones get one more
    share, more = divmod(len(indices), len(classes))
    drawn = []
    for place, label in enumerate(classes):
        members = indices[labels == label]
        rounds, rest = divmod(share + (place < more), len(members))
        drawn += [members] * rounds + [generator.choice(members, rest, replace=False)]
    return generator.permutation(np.concatenate(drawn))


def repeats(order: np.ndarray) -> np.ndarray:
    """How often each photo of an epoch has come before in it.

    Args:
        order: `(n,)` photos.

    Returns:
        `(n,)` counts from 0: in `[7, 3, 7]` they are `[0, 0, 1]`.
    """
    by_photo = np.argsort(order, kind="stable")
    places = np.arange(len(order))
    is_first = np.diff(order[by_photo], prepend=-1) != 0
    counts = np.empty(len(order), np.int64)
    counts[by_photo] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return counts


def describe(class_names: Sequence[str], counts: Sequence[int], balance: str) -> str | None:
    """The sentence about classes of very different size, or about what is done with them.

    Args:
        class_names: Of the network.
        counts: Training photos of each.
        balance: `none`, `weights` or `sampling`.

    Returns:
        None where nothing is done and nothing needs to be.
    """
    few, many = (pick((n, name) for n, name in zip(counts, class_names, strict=True) if n)
                 for pick in (min, max))  # fmt: skip
    total, present = sum(counts), sum(n > 0 for n in counts)
    if balance == "weights":
        return (
            f"data.balance=weights: in the loss a photo of {few[1]} ({few[0]}) counts "
            f"{total / present / few[0]:.2g} times, one of {many[1]} ({many[0]}) "
            f"{total / present / many[0]:.2g} times; accuracies count all photos alike."
        )
    if balance == "sampling":
        return (
            f"data.balance=sampling: an epoch draws {total // present} photos of every class: each "
            f"of {few[1]} ({few[0]}) comes {total / present / few[0]:.2g} times, each of "
            f"{many[1]} ({many[0]}) {total / present / many[0]:.2g} times."
        )
    if many[0] <= _SKEWED * few[0]:
        return None
    listed = ", ".join(
        f"{name} {n}"
        for n, name in sorted(zip(counts, class_names, strict=True), key=lambda pair: -pair[0])
    )
    return (
        f"The classes are skewed, {many[0] / few[0]:.1f} to 1: {listed}. Rare ones may be "
        "predicted too seldom: try data.balance=weights or data.balance=sampling."
    )
