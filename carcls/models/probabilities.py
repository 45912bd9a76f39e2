"""A model over a loader: probabilities, and the table that they are written as."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from carcls.data.loader import Loader

if TYPE_CHECKING:
    import keras


def predict_probs(
    model: keras.Model,
    loader: Loader,
    progress: Callable[[int], None] | None = None,
    *,
    with_mirrored: bool = False,
    epoch: int = 0,
) -> np.ndarray:
    """`(n, num_classes)` float32 probabilities in the order of `loader.indices`.

    Args:
        model: A classifier.
        loader: Unshuffled, of at least one photo.
        progress: Called with the number of photos done each time that a batch has been through the
            model: once, or twice with `with_mirrored`.
        with_mirrored: The mean of each photo's probabilities and its mirror image's.
        epoch: Which one of the loader's, where it augments.
    """
    probs, full = [], None
    with _retracing_unsaid():
        for images, _ in loader.epoch(epoch):  # (batch, size, size, 3)
            full = full or len(images)
            views = [images]
            if with_mirrored:
                views.append(np.ascontiguousarray(images[:, :, ::-1]))
            of_views = []
            for view in views:
                of_views.append(_predict_batch(model, view, full))
                if progress is not None:
                    progress(len(images))
            probs.append(np.mean(of_views, axis=0))
    return np.concatenate(probs)


def _predict_batch(model: keras.Model, images: np.ndarray, full: int) -> np.ndarray:
    """`(batch, num_classes)`; a last batch is filled up to `full` photos with black ones.

    For a batch of another size a backend compiles the network anew, which takes seconds.
    """
    blank = np.zeros((full - len(images), *images.shape[1:]), images.dtype)
    filled = np.concatenate([images, blank]) if len(blank) else images
    return np.asarray(model.predict_on_batch(filled))[: len(images)]


@contextmanager
def _retracing_unsaid() -> Iterator[None]:
    """TensorFlow takes several networks, or photo sizes, for a loop that compiles by mistake."""

    def keep(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which probabilities have the least NLL (Guo et al., 2017, section 4.2).

    Above 1 they were too sure. It is kept within 0.05 and 20.

    Args:
        probs: `(n, num_classes)`, of photos that nothing was trained on.
        labels: `(n,)` integer class indices.
    """
    from scipy.optimize import minimize_scalar  # which takes half a second

    logs = np.log(np.maximum(probs.astype(float), 1e-12))

    def nll(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        of_label = scaled[np.arange(len(labels)), labels]
        return float(np.mean(logsumexp(scaled, axis=1) - of_label))

    limits = np.log(0.05), np.log(20.0)
    return float(np.exp(minimize_scalar(nll, bounds=limits, method="bounded").x))


def at_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """`(n, num_classes)` probabilities whose logits were divided by a temperature."""
    if temperature == 1.0:
        return probs
    logs = np.log(np.maximum(probs.astype(float), 1e-12)) / temperature
    return np.exp(logs - logsumexp(logs, axis=1, keepdims=True)).astype(probs.dtype)


def probabilities_table(probs: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    """A column `p_<class>` for each class, rounded to 6 digits."""
    return pd.DataFrame(probs.round(6), columns=[f"p_{name}" for name in class_names])
