"""What a network costs: its size, its arithmetic, its time and its memory."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from carcls.prediction.predictor import Predictor

if TYPE_CHECKING:
    import keras

_BATCH_SIZES = tuple(2**power for power in range(11))
_SECONDS = 1.0  # that each batch size is timed for, at least
_TIMES = 3  # and so many times, at least
_WORSE = 2  # batch sizes in a row that gain nothing end the search
_GAIN = 1.02


@dataclass(kw_only=True)
class Cost:
    """What one network costs.

    Attributes:
        parameters: Numbers that it has.
        size_mb: Of the file that it comes in; of four bytes a parameter where there is none.
        flops: For one photo at its own size, see `count_flops`.
        ms_per_photo: One photo at a time, from pixels in memory to probabilities.
        images_per_second: At the best batch size.
        batch_size: The best.
        enlarged_to: Side in pixels that the network itself brings photos to; None: it does not.
    """

    parameters: int
    size_mb: float
    flops: int
    ms_per_photo: float
    images_per_second: float
    batch_size: int
    enlarged_to: int | None


def measure_cost(member: Predictor, progress: Callable[[int], None]) -> Cost:
    """Counts and times one network on whatever device Keras has.

    Args:
        member: The network.
        progress: Called with each batch size that has been timed.
    """
    from carcls.models.classifier import enlarged_side

    model, size = member.model(), member.image_size
    parameters = model.count_params()
    seconds, best, rate, worse = 0.0, 1, 0.0, 0
    for batch_size in _BATCH_SIZES:
        try:
            of_batch = _seconds_per_batch(model, size, batch_size)
        except Exception:  # each backend has its own word for a memory that is full
            if batch_size == 1:
                raise
            break
        progress(batch_size)
        if batch_size == 1:
            seconds = of_batch
        worse = worse + 1 if batch_size / of_batch < _GAIN * rate else 0
        if batch_size / of_batch > rate:
            best, rate = batch_size, batch_size / of_batch
        if worse == _WORSE:
            break
    return Cost(
        parameters=parameters,
        size_mb=_file_bytes(member, parameters) / 1e6,
        flops=count_flops(model, size),
        ms_per_photo=1000 * seconds,
        images_per_second=rate,
        batch_size=best,
        enlarged_to=enlarged_side(model),
    )


def _seconds_per_batch(model: keras.Model, size: int, batch_size: int) -> float:
    """The median; the first one, which a backend compiles the network for, is not counted."""
    photos = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    model.predict_on_batch(photos)
    times: list[float] = []
    while len(times) < _TIMES or sum(times) < _SECONDS:
        start = perf_counter()
        model.predict_on_batch(photos)
        times.append(perf_counter() - start)
    return float(np.median(times))


def count_flops(model: keras.Model, size: int) -> int:
    """Floating-point operations for one photo: two for each multiplication with an addition.

    Of convolutions and dense layers, which are nearly all of it; papers often give half of this,
    the multiplications. Counted as in Molchanov et al., 2017 (arXiv 1611.06440, appendix A.1).

    Args:
        model: Of `build_classifier` or `imagenet_classifier`, whose inner network gets the photo
            at its full size, or enlarged.
        size: Side of the photo in pixels.
    """
    import keras

    from carcls.models.classifier import enlarged_side

    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    weighted = [layer for layer in model.layers if layer.weights and layer not in inner]
    shapes = []
    if weighted:
        outputs = keras.Model(model.inputs, [layer.output for layer in weighted])
        shapes = outputs.compute_output_shape((1, size, size, 3))
        shapes = [shapes] if isinstance(shapes[0], int) else shapes
    pairs = zip(weighted, shapes, strict=True)
    multiplications = sum(_multiplications(layer, shape) for layer, shape in pairs)
    inner_size = enlarged_side(model) or size
    return 2 * multiplications + sum(count_flops(layer, inner_size) for layer in inner)


def _multiplications(layer: keras.Layer, shape: tuple[int, ...]) -> int:
    """A layer's kernels are laid on every place of its output, `(1, …, channels)`."""
    places = math.prod(shape[1:-1])
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    return places * sum(math.prod(kernel.shape) for kernel in kernels)


def _file_bytes(member: Predictor, parameters: int) -> int:
    if member.model_path is not None:
        return member.model_path.stat().st_size
    weights = Path(member.info.config["backbone"]["weights"]).expanduser()
    return weights.stat().st_size if weights.is_file() else 4 * parameters


def peak_memory_mb() -> float:
    """The most main memory that this process has had so far, its libraries included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_gpu_memory_mb() -> float | None:
    """The most memory that this process has had on its first GPU so far; None without one."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.config.get_visible_devices("GPU"):
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    if backend == "jax":
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        return stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else None
    import torch

    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
