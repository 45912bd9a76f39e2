"""A model over a loader: probabilities, and the table that they are written as."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from carcls.data.loader import Loader

if TYPE_CHECKING:
    import keras


def predict_probs(
    model: keras.Model, loader: Loader, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """`(n, num_classes)` float32 probabilities in the order of `loader.indices`.

    Args:
        model: A classifier.
        loader: Unshuffled, without augmentation.
        progress: Called with the number of photos done, batch by batch.
    """
    probs = []
    for images, _ in loader.epoch():
        probs.append(np.asarray(model.predict_on_batch(images)))
        if progress is not None:
            progress(len(images))
    return np.concatenate(probs)


def probabilities_table(probs: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    """A column `p_<class>` for each class, rounded to 6 digits."""
    return pd.DataFrame(probs.round(6), columns=[f"p_{name}" for name in class_names])
