"""`data.folds`: which photos validate in which fold, and whether they can."""

import logging
from dataclasses import replace

import numpy as np

from carcls.data.records import TrainingPhotos, examples
from carcls.data.split import stratified_folds
from carcls.errors import UserError

log = logging.getLogger(__name__)


def pooled(records: TrainingPhotos, num_folds: int) -> tuple[TrainingPhotos, list[str]]:
    """The photos without the split that the data may come with: with folds each validates once.

    Returns:
        The photos, and what was changed, in words.
    """
    if "is_val" not in records.table:
        return records, []
    change = (
        f"The data says that {records.table.is_val.sum()} of its {len(records.table)} photos "
        f"validate. With data.folds={num_folds} every photo does once: these are dealt out to the "
        "folds like all others."
    )
    log.info(change)
    return replace(records, table=records.table.drop(columns="is_val")), [change]


def choose_folds(
    records: TrainingPhotos, num_folds: int, seed: int, groups: np.ndarray | None
) -> np.ndarray:
    """The fold of every photo, see `stratified_folds`.

    Args:
        records: `n` photos.
        num_folds: At least 2.
        seed: Of the run.
        groups: `(n,)` numbers, the same for photos that must stay in one fold; or None.

    Returns:
        `(n,)` folds, counted from 1.

    Raises:
        UserError: If a fold would have no photo, or a class none to train on in one.
    """
    labels = records.table.label.to_numpy()
    folds = stratified_folds(records.strata(), num_folds, seed, groups)
    num_apart = len(labels) if groups is None else len(np.unique(groups))
    if num_apart < num_folds:
        raise UserError(
            f"Expected at least as many photos as folds. Received: {num_apart} different photos "
            f"with data.folds={num_folds}. Take fewer folds."
        )
    first, last = (np.full(len(records.class_names), value) for value in (num_folds + 1, 0))
    np.minimum.at(first, labels, folds)
    np.maximum.at(last, labels, folds)
    in_one = np.flatnonzero(first == last)
    if len(in_one):
        counts = np.bincount(labels, minlength=len(records.class_names))
        named = examples([f"{records.class_names[i]} ({counts[i]})" for i in in_one])
        raise UserError(
            f"Expected photos of every class in at least two of the {num_folds} folds, so that "
            f"each fold has some to train on. Received all photos of a class in one fold: {named}. "
            f"The smallest class has {counts.min()} photo{'' if counts.min() == 1 else 's'}; the "
            "same photo, or near duplicates, are never in two folds. Add photos, or leave the "
            "class out with data.exclude=FILE."
        )
    return folds
