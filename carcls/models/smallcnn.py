"""The small network of the CIFAR study, for photos of 32x32 pixels and larger ones."""

import math

import keras

_FILTERS = (32, 64, 128)
_UNITS = (256, 128)
# The limit that Glorot and Bengio (2010) give a dense layer of 512 inputs and 256 outputs: in a
# convolution that is the same function each output would count four times.
_DENSE_LIMIT = math.sqrt(6 / (2 * 2 * _FILTERS[-1] + _UNITS[0]))


def smallcnn() -> keras.Model:
    """Three convolutions and two dense layers, with random weights.

    The study flattened the `(2, 2, 128)` map of a photo of 32 px before its dense layers. Here
    these are convolutions over 2x2 and 1x1: of 32 px the same function with the same weights, and
    of larger photos a map of such functions, which a head pools.

    Returns:
        A functional model. In: `(batch, height, width, 3)` in 0-1, 30 px or more. Out: the
        `(batch, h, w, 128)` feature map, `(batch, 1, 1, 128)` for 32 px.
    """
    photos = x = keras.Input((None, None, 3), name="smallcnn_photos")
    for number, filters in enumerate(_FILTERS, start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    as_dense = keras.initializers.RandomUniform(-_DENSE_LIMIT, _DENSE_LIMIT)
    x = keras.layers.Conv2D(
        _UNITS[0], 2, activation="relu", kernel_initializer=as_dense, name="dense1"
    )(x)
    x = keras.layers.Conv2D(_UNITS[1], 1, activation="relu", name="dense2")(x)
    return keras.Model(photos, x, name="smallcnn")
