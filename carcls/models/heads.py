"""What goes on top of a backbone's feature map, up to the class probabilities."""

from collections.abc import Callable

import keras

from carcls.config import AvgDenseHead, HeadConfig


def avg_dense(features: keras.KerasTensor, head: AvgDenseHead) -> keras.KerasTensor:
    """The notebook's head: `(batch, h, w, channels)` to `(batch, units)`.

    Average pool, batch norm, dropout, dense relu with l2 on its bias and its activity, batch norm.
    """
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(features)  # (batch, channels)
    x = keras.layers.BatchNormalization(name="head_norm1")(x)
    x = keras.layers.Dropout(head.dropout, name="head_dropout")(x)
    x = keras.layers.Dense(
        head.units,
        activation="relu",
        bias_regularizer=keras.regularizers.L2(head.l2_bias),
        activity_regularizer=keras.regularizers.L2(head.l2_activity),
        name="head_dense",
    )(x)
    return keras.layers.BatchNormalization(name="head_norm2")(x)


HEADS: dict[str, Callable[[keras.KerasTensor, HeadConfig], keras.KerasTensor]] = {
    "avg_dense": avg_dense,
}
