"""One network of a comparison: what it says of the photos and what it costs, measured in a process
of its own, whose memory is that network's. Imports no Keras.
"""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from carcls import runtime
from carcls.config import CompareConfig
from carcls.console import progress_bar
from carcls.data.records import examples
from carcls.errors import UserError
from carcls.evaluation.cost import Cost, measure_cost, peak_gpu_memory_mb, peak_memory_mb
from carcls.evaluation.metrics import measure
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.predictor import Predicted, Predictor
from carcls.training.own_process import can_fork, in_own_process

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Measured:
    """What one network said of `n` photos, and what it costs.

    Attributes:
        model: What it is called.
        predicted: `(n,)` index of the data's class, -1 for one that the data does not have.
        of_label: `(n,)` the probability of the label.
        rank: `(n,)` how many classes it held for likelier than the label.
        errors: Index of a photo to why it could not be opened; the rest of it is without meaning.
        row: What `compare.csv` has of it.
        device: What computed, in words.
    """

    model: str
    predicted: np.ndarray
    of_label: np.ndarray
    rank: np.ndarray
    errors: dict[int, str]
    row: dict[str, Any]
    device: str


def measure_apart(
    name: str,
    predictor: Predictor | Ensemble,
    photos: pd.DataFrame,
    classes: list[int],
    config: CompareConfig,
) -> Measured:
    """Predicts the photos, counts and times; where there is a GPU, times on the CPU too.

    Args:
        name: What it is called.
        predictor: A network or several.
        photos: id, path and label (index into the data's classes) of each.
        classes: The index of each of the data's classes among the network's own.
        config: Of the comparison.

    Raises:
        UserError: If it cannot be loaded, or no photo can be opened.
    """
    if not can_fork():  # Keras is at work here already, or this is Windows
        log.warning("WARNING: not in a process of its own: the memory of others is counted in.")
        return _measure(name, predictor, photos, classes, config)
    found = in_own_process(_measure, name, predictor, photos, classes, config)
    if found.row["peak_gpu_memory_mb"] is not None:
        cost = in_own_process(_cost_on_cpu, predictor, config)
        found.row |= {f"{key}_cpu": cost[key] for key in ("ms_per_photo", "images_per_second")}
    return found


def _measure(
    name: str,
    predictor: Predictor | Ensemble,
    photos: pd.DataFrame,
    classes: list[int],
    config: CompareConfig,
) -> Measured:
    import carcls.backend  # noqa: F401

    device = runtime.set_up(config.runtime, seed=0)
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(photos) * predictor.num_views("none"), note="")
        predicted = predictor(
            photos.path.tolist(),
            batch_size=config.batch_size,
            workers=config.runtime.workers,
            progress=lambda count: bar.advance(task, count),
        )
    memory, gpu_memory = peak_memory_mb(), peak_gpu_memory_mb()  # before large batches are tried
    labels = np.array(classes)[photos.label]
    opens = np.setdiff1d(np.arange(len(photos)), list(predicted.errors))
    if not len(opens):
        raise UserError(
            f"Expected photos that can be opened. Received: {len(photos)} that cannot: "
            f"{examples(list(predicted.errors.values()))}."
        )
    metrics = measure(
        predicted.probs[opens], labels[opens], predictor.class_names,
        seed=config.seed, resamples=config.resamples,
    )  # fmt: skip
    row = {
        "model": name,
        **{key: metrics.values[key] for key in ("top1", "top5")},
        "loss": metrics.values["nll"],
        **{f"{key}_{end}": value for key in ("top1", "top5", "nll") if key in metrics.intervals
           for end, value in zip(("low", "high"), metrics.intervals[key], strict=True)},
        "n": metrics.n,
        "image_size": predictor.members[0].image_size,
        **_cost(predictor),
        "peak_memory_mb": memory,
        "peak_gpu_memory_mb": gpu_memory,
    }  # fmt: skip
    return Measured(
        model=name,
        **_of_labels(predicted, labels, classes),
        errors=predicted.errors,
        row=row,
        device=device,
    )


def _of_labels(
    predicted: Predicted, labels: np.ndarray, classes: list[int]
) -> dict[str, np.ndarray]:
    """What is kept of each photo's probabilities."""
    probs = predicted.probs
    of_label = probs[np.arange(len(labels)), labels]
    of_data = np.full(probs.shape[1], -1)
    of_data[classes] = np.arange(len(classes))
    return {
        "predicted": of_data[probs.argmax(1)],
        "of_label": of_label,
        "rank": (probs > of_label[:, None]).sum(1),
    }


def _cost(predictor: Predictor | Ensemble) -> dict[str, Any]:
    """The cost of a network; of an ensemble that of all of them, one after the other."""
    with progress_bar() as bar:
        task = bar.add_task("timing", total=None, note="")
        costs: list[Cost] = []
        for member in predictor.members:
            costs.append(
                measure_cost(member, lambda size: bar.update(task, note=f"batch size {size}"))
            )
            if len(predictor.members) > 1:
                member.release()
    values = [asdict(cost) for cost in costs]
    total = {key: sum(value[key] for value in values) for key in
             ("parameters", "size_mb", "flops", "ms_per_photo")}  # fmt: skip
    return {
        "parameters": total["parameters"],
        "size_mb": total["size_mb"],
        "gflops": total["flops"] / 1e9,
        "ms_per_photo": total["ms_per_photo"],
        "images_per_second": 1 / sum(1 / cost.images_per_second for cost in costs),
        "best_batch": costs[0].batch_size,
        "enlarged_to": costs[0].enlarged_to,
    }


def _cost_on_cpu(predictor: Predictor | Ensemble, config: CompareConfig) -> dict[str, Any]:
    import carcls.backend  # noqa: F401

    config.runtime.device = "cpu"
    runtime.set_up(config.runtime, seed=0)
    return _cost(predictor)
