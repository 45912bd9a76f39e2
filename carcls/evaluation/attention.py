"""What in a photo spoke for a class: HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891).

The gradient of the class's score with respect to the last feature map, times that map, summed over
its channels. In every head of this package what follows the map is linear piece by piece (a pool,
dense layers with relu, batch norm with its moving statistics), so that the sum over the places is
the score itself, but for a constant: a place is bright by what it added. After an average pool and
one dense layer that is CAM (Zhou et al., 2016), and after an average pool and any head Grad-CAM
(Selvaraju et al., 2017). After a max pool Grad-CAM is another picture: it averages the gradient
over all places, and so lights up places that the pool threw away. That is why it is not used.

The score is the class's logit less the mean of all classes' logits. What all logits have in common
cancels out in the softmax and speaks for no class, but would show in all maps. A probability would
not do: its gradient vanishes where the network is sure.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from carcls.backend import keras

_AT_ONCE = 8  # photos


class NoMapsError(Exception):
    """The network is built so that it has no maps; says how."""


def class_maps(model: keras.Model, photos: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """What spoke for some classes, and where.

    Args:
        model: As `build_classifier` or `imagenet_classifier` builds it: photos in; a feature map, a
            head and a dense layer with softmax at its end.
        photos: `(n, height, width, 3)` RGB 0-255, of a size that the model takes.
        classes: `(n, k)` integer class indices: of every photo those that are asked for.

    Returns:
        `(n, k, h, w)` float32 on the grid of the feature map, top left first. Above 0: for the
        class; below: against it. Comparable between the classes of a photo.

    Raises:
        NoMapsError: If there is no such feature map or dense layer.
    """
    to_features, head, kernel = _parts(model)
    kernel = keras.ops.cast(kernel, "float32")
    kernel = kernel - keras.ops.mean(kernel, axis=1, keepdims=True)  # (units, num_classes)
    maps = []
    for batch, of_batch in _batches(photos, classes):
        with _without_gradients():
            features = keras.ops.cast(to_features(batch), "float32")  # (batch, h, w, channels)
        if features.shape[1] * features.shape[2] == 1:
            raise NoMapsError("its feature map has one place only")
        of_classes = []
        for column in of_batch.T:
            chosen = keras.ops.transpose(keras.ops.take(kernel, column, axis=1))  # (batch, units)

            def total_score(x: Any, chosen: Any = chosen) -> Any:
                """Over the photos, none of which has a part in another's."""
                return keras.ops.sum(keras.ops.cast(head(x), "float32") * chosen)

            gradient = _gradient(total_score, features)
            found = keras.ops.sum(gradient * features, axis=-1)  # (batch, h, w)
            of_classes.append(keras.ops.convert_to_numpy(found))
        maps.append(np.stack(of_classes, axis=1))
    return np.concatenate(maps)[: len(photos)].astype(np.float32)


def _parts(model: keras.Model) -> tuple[Callable, Callable, Any]:
    """From photos to features, from there to the last layer's input, and its kernel."""
    network = model.operations[-1]  # preprocessing and a network with its classifier, or
    if not isinstance(network, keras.Model):
        network = model  # preprocessing, backbone and head side by side
    last = network.operations[-1]
    if not isinstance(last, keras.layers.Dense):
        raise NoMapsError("it does not end in a dense layer")
    features = next((op.input for op in reversed(network.operations) if _takes_map(op)), None)
    try:
        to_features = keras.Model(network.input, features)
        head = keras.Model(features, last.input)
    except (ValueError, TypeError, AttributeError) as error:
        raise NoMapsError("no feature map stands before its last layers") from error
    if network is model:
        return to_features, head, last.kernel
    before = keras.Model(model.input, model.operations[-2].output)
    return lambda photos: to_features(before(photos)), head, last.kernel


def _takes_map(operation: keras.Operation) -> bool:
    """Whether its one input is a `(batch, h, w, channels)` feature map."""
    return len(getattr(operation.input, "shape", ())) == 4


def _batches(
    photos: np.ndarray, classes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Batches of one size, the last filled up: JAX compiles anew for every other size."""
    size = min(_AT_ONCE, len(photos))
    for start in range(0, len(photos), size):
        picks = np.arange(start, start + size) % len(photos)
        yield photos[picks], classes[picks]


def _without_gradients() -> AbstractContextManager:
    """torch would keep all of the backbone's feature maps for gradients that nobody asks for."""
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    return torch.no_grad()


def _gradient(function: Callable, x: Any) -> Any:
    """Of a number with respect to `x`, on whatever backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    if backend == "torch":
        import torch

        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)
