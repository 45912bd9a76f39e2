"""Which photos validate: stratified, seeded, and the same wherever the files lie."""

import numpy as np


def stratified_split(labels: np.ndarray, val_split: float, seed: int) -> np.ndarray:
    """Draws the share `val_split` of every class for validation.

    Each class gives its share rounded to the nearest photo (halves go to validation); of two or
    more photos at least one stays on each side, a class's only photo trains.

    Args:
        labels: `(n,)` integer class indices, in an order that does not depend on the machine.
        val_split: Share in (0, 1).
        seed: The same seed draws the same photos; a class's draw does not depend on the others.

    Returns:
        `(n,)` bool, True for validation.
    """
    is_val = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for label, members in zip(classes, np.split(order, starts[1:]), strict=True):
        if len(members) < 2:
            continue
        count = int(np.floor(round(len(members) * val_split, 6) + 0.5))  # 50 * 0.29 is 14.5
        count = min(max(count, 1), len(members) - 1)
        random = np.random.default_rng([seed, int(label)])
        is_val[random.permutation(members)[:count]] = True
    return is_val
