"""Several devices under TensorFlow, `tf.distribute.MirroredStrategy`, that train as one would.

Each device has a copy of every variable and takes its share of each batch. Keras (3.15) fits under
a strategy, but not to the numbers of one device with the same batch; what it takes for that is
here:

- The last batch of an epoch is cut unevenly, and the mean over the devices is not the mean over the
  photos. Here every device counts by its photos, in gradients, losses and metrics.
- Gradients are clipped before they are added up, and `gradient_accumulation_steps` decides inside
  of a device's part, where a graph cannot meet the others. Here each device runs the optimizer as
  if it were alone, on gradients that are added up already.
- BatchNorm sees a device's share of the batch. Here it sees the batch.
- The losses of activity regularisers pile up in one list, for the devices run in threads. Here each
  thread has its own.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

# What Keras' optimizers do otherwise under a strategy: they meet the other devices.
_MEETING = (
    "_apply_weight_decay",
    "_backend_increment_gradient_accumulators",
    "_backend_update_step",
)


def strategy_of(devices: list[str]) -> tf.distribute.Strategy:
    """A strategy over devices as TensorFlow names them, such as `GPU:0`."""
    # NCCL, which is the default, is for GPUs, and TensorFlow warns of others.
    are_gpus = all(name.startswith("GPU") for name in devices)
    tf.get_logger().setLevel("WARNING")  # it tells of every sum
    operations = None if are_gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=operations)


class Mirrored(keras.Model):
    """A functional model that `fit` trains on all devices of the strategy it was made under."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._apart = _Apart(self._flatten_layers(include_self=False))

    def compile(self, optimizer: keras.optimizers.Optimizer, **options: Any) -> None:
        super().compile(optimizer=optimizer, **options)
        inner = getattr(self.optimizer, "inner_optimizer", None)
        for one in (self.optimizer, inner):
            for name in _MEETING if one is not None else ():
                setattr(one, name, MethodType(getattr(BaseOptimizer, name), one))
        if inner is not None:  # under mixed_float16
            self.optimizer._tf_apply = self.optimizer._common_apply

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """On one device, with its share of the batch; the metrics returned are those of all."""
        device = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            loss, count = self._measured(data, training=True)
            # A mean over photos: added up over the devices it is a sum.
            loss = self.optimizer.scale_loss(loss) * tf.cast(count, loss.dtype)
        gradients = tape.gradient(loss, self.trainable_weights)
        total, *gradients = device.all_reduce(
            tf.distribute.ReduceOp.SUM, [tf.cast(count, tf.float32), *gradients]
        )
        gradients = [gradient / tf.cast(total, gradient.dtype) for gradient in gradients]
        return device.merge_call(self._end_step, args=(gradients,))

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """As `train_step`, without learning from it."""
        self._measured(data, training=False)
        return tf.distribute.get_replica_context().merge_call(self._metrics_of_all)

    def _measured(self, data: tuple, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The mean loss of a device's photos, and how many these are; metrics count them."""
        count = tf.shape(data[0])[0]
        photos, labels, weights = keras.utils.unpack_x_y_sample_weight(
            keras.tree.map_structure(lambda part: _never_empty(part, count), data)
        )
        with self._apart(count) as activity_losses:
            probs = self(photos, training=training)
            loss = self.compute_loss(photos, labels, probs, weights, training=training)
        # Keras has divided it by the number of devices, for the sum over them.
        loss *= tf.cast(self.distribute_strategy.num_replicas_in_sync, loss.dtype)
        loss = tf.add_n([loss, *(tf.cast(one, loss.dtype) for one in activity_losses)])
        self._loss_tracker.update_state(loss, sample_weight=count)
        weights = None if weights is None else weights[:count]
        self.compute_metrics(photos[:count], labels[:count], probs[:count], weights)
        return loss, count

    def _end_step(
        self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Once for all devices: lets the optimizer run on each, where variables are its own."""
        strategy.extended.update(
            self.trainable_weights[0].value,  # any; only the devices matter
            lambda _, own: self.optimizer.apply(own, self.trainable_weights),
            args=(gradients,),
            group=False,
        )
        return self.get_metrics_result()

    def _metrics_of_all(self, strategy: tf.distribute.Strategy) -> dict[str, tf.Tensor]:
        return self.get_metrics_result()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Makes the variables of metrics, as Keras does, from the first device's share alone.

        Keras takes the mean of the shares of all, which fails where they are uneven.
        """
        shares = self.distribute_strategy.experimental_local_results
        for _, _, batches in iterator or ():
            data_batch = keras.tree.map_structure(lambda part: shares(part)[0], next(batches))
            break
        super()._maybe_symbolic_build(data_batch=data_batch)


def _never_empty(part: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Photos, labels or weights with one of zeros where a device got none, as of a last batch of 1.

    TensorFlow's convolutions fail on none. What is measured counts it 0 times.
    """
    rows = [[0, tf.cast(count == 0, tf.int32)]]
    return tf.pad(part, rows + [[0, 0]] * (part.shape.rank - 1))


class _Apart:
    """Lets the threads of several devices run the same layers, each with its own photos in mind.

    A thread goes on until it waits for the others: one may leave while others are still inside.

    Args:
        layers: Of the network.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer]) -> None:
        layers = list(layers)
        self._norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        self._regularised = [x for x in layers if x.activity_regularizer is not None]
        self._own = threading.local()
        self._inside = 0

    @contextmanager
    def __call__(self, count: tf.Tensor) -> Iterator[list[tf.Tensor]]:
        """Yields the list that gets the losses of this thread's activities.

        Args:
            count: Photos of this thread's device.
        """
        self._inside += 1
        self._own.count, self._own.losses = count, []
        for layer in self._norms:
            layer._moments = partial(self._moments, layer)
        for layer in self._regularised:
            layer.add_loss = self._add_loss
        try:
            yield self._own.losses
        finally:
            self._inside -= 1
            if not self._inside:
                for layer in self._norms:
                    del layer._moments
                for layer in self._regularised:
                    del layer.add_loss

    def _add_loss(self, loss: tf.Tensor) -> None:
        self._own.losses.append(loss)

    def _moments(
        self, layer: keras.layers.BatchNormalization, inputs: tf.Tensor, mask: None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance, `(channels,)` each, of the inputs of all devices.

        From sums and sums of squares, which all add up at once; less the moving mean, so that no
        small difference of large numbers is lost.
        """
        centre = tf.cast(layer.moving_mean.value, inputs.dtype)
        axes, inputs = layer._reduction_axes, inputs - centre
        number = tf.cast(tf.size(inputs) // tf.size(centre), inputs.dtype)
        sums = [tf.reduce_sum(inputs, axes), tf.reduce_sum(inputs**2, axes), number[None]]
        own = tf.concat(sums, 0) * tf.cast(self._own.count > 0, inputs.dtype)
        every = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
        mean, square = tf.split(every[:-1] / every[-1], 2)
        return mean + centre, tf.maximum(square - mean**2, 0.0)
