"""What goes on top of a backbone's feature map, up to the class probabilities."""

from collections.abc import Callable

import keras

from carcls.config import AvgDenseHead, HeadConfig, LinearHead, MaxDenseHead, MaxDropoutHead


def avg_dense(features: keras.KerasTensor, head: AvgDenseHead) -> keras.KerasTensor:
    """The notebook's last head: `(batch, h, w, channels)` to `(batch, units)`.

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
        dtype="float32",  # float16 is too small for the activity's sum of squares
        name="head_dense",
    )(x)
    return keras.layers.BatchNormalization(name="head_norm2")(x)


def max_dense(features: keras.KerasTensor, head: MaxDenseHead) -> keras.KerasTensor:
    """The notebook's second head: `(batch, h, w, channels)` to `(batch, units or units2)`.

    Max pool, dense relu, batch norm, dropout; with `units2` a second dense relu and dropout.
    """
    x = keras.layers.GlobalMaxPooling2D(name="head_pool")(features)  # (batch, channels)
    x = keras.layers.Dense(head.units, activation="relu", name="head_dense")(x)
    x = keras.layers.BatchNormalization(name="head_norm")(x)
    x = keras.layers.Dropout(head.dropout, name="head_dropout")(x)
    if head.units2:
        x = keras.layers.Dense(head.units2, activation="relu", name="head_dense2")(x)
        x = keras.layers.Dropout(head.dropout2, name="head_dropout2")(x)
    return x


def max_dropout(features: keras.KerasTensor, head: MaxDropoutHead) -> keras.KerasTensor:
    """The notebook's first head: `(batch, h, w, channels)` to `(batch, channels)`."""
    x = keras.layers.GlobalMaxPooling2D(name="head_pool")(features)
    return keras.layers.Dropout(head.dropout, name="head_dropout")(x)


def linear(features: keras.KerasTensor, head: LinearHead) -> keras.KerasTensor:
    """Nothing between features and classes: `(batch, h, w, channels)` to `(batch, channels)`."""
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(features)
    return keras.layers.Dropout(head.dropout, name="head_dropout")(x)


HEADS: dict[str, Callable[[keras.KerasTensor, HeadConfig], keras.KerasTensor]] = {
    "avg_dense": avg_dense,
    "max_dense": max_dense,
    "max_dropout": max_dropout,
    "linear": linear,
}
