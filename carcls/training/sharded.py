"""Several devices under JAX, `keras.distribution.DataParallel`.

A step is one program over all devices: what it computes of a batch it computes of the whole of it,
BatchNorm, losses, clipping and all, and the compiler cuts the work. So the numbers are those of one
device, and there is little to do.

Keras (3.15) cuts the batch on its way to the devices, which fails where the last one of an epoch
does not divide by them. Here each device receives the whole batch, as bytes, and takes its share in
the program, where the shares may be uneven.
"""

from typing import Any

import jax
import keras


class Distribution(keras.distribution.DataParallel):
    """Gives every device the whole batch, and a copy of every variable."""

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


class Sharded(keras.Model):
    """A functional model that computes each photo on one device of the distribution it is under."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if isinstance(inputs, jax.core.Tracer):  # without a program (eager) each computes them all
            mesh = keras.distribution.distribution().device_mesh
            layout = keras.distribution.TensorLayout([mesh.axis_names[0], None, None, None], mesh)
            inputs = jax.lax.with_sharding_constraint(inputs, layout.backend_layout)
        return super().call(inputs, training=training, mask=mask)
