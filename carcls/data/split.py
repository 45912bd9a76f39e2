"""Which photos validate: stratified, seeded, and the same wherever the files lie."""

import heapq

import numpy as np


def stratified_split(
    labels: np.ndarray, val_split: float, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Draws the share `val_split` of every class for validation.

    Each class gives its share rounded to the nearest photo (halves go to validation); of two or
    more photos at least one stays on each side, a class's only photo trains.

    With groups it is these that are drawn, by the class of most of their photos (of several, the
    first). A class gives as near to its share as whole groups go, missing it by less than its
    largest group; of two or more groups at least one stays on each side, its only one trains. A
    class that is nowhere the most has a group that trains, whatever else is in it.

    Args:
        labels: `(n,)` integer class indices, in an order that does not depend on the machine.
        val_split: Share in (0, 1).
        seed: The same seed draws the same photos; a class's draw does not depend on the others.
        groups: `(n,)` integers, the same for photos that must stay on one side. Which number a
            group has does not matter. None: each photo is a group.

    Returns:
        `(n,)` bool, True for validation.
    """
    if groups is None:
        return _drawn(labels, np.ones(len(labels), np.int64), val_split, seed)
    of_row, sizes = _by_first_photo(groups)
    most = _most_frequent(of_row, labels)
    drawn = _drawn(most, sizes, val_split, seed, _pinned(of_row, labels, most))
    return drawn[of_row]


def stratified_folds(
    labels: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Deals the photos out to folds, so that all have as many of every class as can be.

    Without groups no two folds differ by more than one photo in a class, nor in all. With groups
    it is these that are dealt, the largest of a class first, by the class of most of their photos
    (see `stratified_split`): each goes to the fold that has the fewest photos of groups of its
    class so far, of several to that with the fewest photos. So in these two folds never differ by
    more than the largest group of the class.

    Args:
        labels: `(n,)` integer class indices, in an order that does not depend on the machine.
        num_folds: How many, at least 2. Of fewer photos some folds get none.
        seed: The same seed deals the same folds.
        groups: `(n,)` integers, the same for photos that must stay in one fold. Which number a
            group has does not matter. None: each photo is a group.

    Returns:
        `(n,)` int64, the fold of each photo, counted from 1.
    """
    of_row, sizes = _by_first_photo(np.arange(len(labels)) if groups is None else groups)
    most = labels if groups is None else _most_frequent(of_row, labels)
    fold_of = np.zeros(len(sizes), np.int64)
    in_fold = [0] * num_folds  # photos so far
    for label in np.unique(most):
        members = np.random.default_rng([seed, int(label)]).permutation(
            np.flatnonzero(most == label)
        )
        members = members[np.argsort(-sizes[members], kind="stable")]
        # Photos of this class, photos in all, number: the least is next.
        waiting = [(0, count, fold) for fold, count in enumerate(in_fold, start=1)]
        heapq.heapify(waiting)
        for member, size in zip(members.tolist(), sizes[members].tolist(), strict=True):
            of_class, count, fold = waiting[0]
            heapq.heapreplace(waiting, (of_class + size, count + size, fold))
            fold_of[member] = fold
            in_fold[fold - 1] += size
    return fold_of[of_row]


def _by_first_photo(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups under numbers that do not depend on those they came with.

    Args:
        groups: `(n,)` integers.

    Returns:
        `(n,)` the group of each photo, numbered from 0 by their first photos; `(g,)` how many
        photos each has.
    """
    _, first, of_row, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[of_row], sizes[order]


def _drawn(
    labels: np.ndarray,
    sizes: np.ndarray,
    val_split: float,
    seed: int,
    pinned: np.ndarray | None = None,
) -> np.ndarray:
    """Which groups validate.

    Args:
        labels: `(g,)` classes of the groups.
        sizes: `(g,)` photos in each.
        val_split: Share in (0, 1) of a class's photos.
        seed: As in `stratified_split`.
        pinned: `(g,)` bool, the groups that train without being drawn; None: there are none.

    Returns:
        `(g,)` bool.
    """
    is_val = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for label, members in zip(classes, np.split(order, starts[1:]), strict=True):
        if len(members) < 2:
            continue
        total = int(sizes[members].sum())
        count = int(np.floor(round(total * val_split, 6) + 0.5))  # 50 * 0.29 is 14.5
        count = min(max(count, 1), total - 1)
        members = np.random.default_rng([seed, int(label)]).permutation(members)
        has_pinned = pinned is not None and pinned[members].any()
        if has_pinned:
            members = members[~pinned[members]]
        chosen = _fitting(sizes[members], count, may_take_all=has_pinned)
        is_val[members[chosen]] = True
    return is_val


def _fitting(sizes: np.ndarray, count: int, may_take_all: bool) -> np.ndarray:
    """Which groups to take, in this order, so that their photos are `count` or nearly so.

    Each that still fits is taken, and in the end the smallest that does not where more than half of
    it is lacking or else none would be taken.

    Args:
        sizes: `(g,)` photos in each group.
        count: How many photos are wanted, at least 1.
        may_take_all: Whether no group needs to be left.

    Returns:
        `(k,)` indices.
    """
    fit = int(np.searchsorted(np.cumsum(sizes), count, side="right"))
    chosen, left = list(range(fit)), count - int(sizes[:fit].sum())
    rest = []
    for index, size in enumerate(sizes[fit:].tolist(), start=fit):
        if left == 0:
            break
        if size <= left:
            chosen.append(index)
            left -= size
        else:
            rest.append(index)
    if left and len(rest) > (not may_take_all):
        smallest = min(rest, key=lambda index: sizes[index])
        if not chosen or sizes[smallest] - left < left:
            chosen.append(smallest)
    return np.array(chosen, int)


def _most_frequent(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(g,)` the label that most photos of each group have; of several, the first.

    Args:
        groups: `(n,)` the number of each photo's group, from 0.
        labels: `(n,)` integer class indices.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    pairs, counts = np.unique(groups * len(classes) + codes, return_counts=True)
    group, code = np.divmod(pairs, max(len(classes), 1))
    best = np.lexsort((code, -counts, group))
    _, start = np.unique(group[best], return_index=True)
    return classes[code[best][start]]


def _pinned(groups: np.ndarray, labels: np.ndarray, most: np.ndarray) -> np.ndarray:
    """`(g,)` bool: a group of each class that is nowhere the most, the first that it is in."""
    pinned = np.zeros(len(most), bool)
    for label in np.setdiff1d(labels, most):
        inside = groups[labels == label]
        if not pinned[inside].any():
            pinned[inside.min()] = True
    return pinned
