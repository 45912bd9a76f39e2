"""EfficientNet-Lite 0, 1 and 2, which `keras.applications` lacks.

EfficientNet without squeeze-and-excite, with ReLU6 for swish, and with stem, head and the repeats
of the first and last stage not scaled (github.com/tensorflow/tpu, models/official/efficientnet/
lite). Padding is "same" throughout, so one network serves every photo size. Layers are named as
Keras names those of its EfficientNets.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers

BATCH_NORM_EPSILON = 1e-3
DROP_CONNECT_RATE = 0.2  # of the last block; grows linearly from 0
STEM_FILTERS = 32
HEAD_FILTERS = 1280


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """How a variant grows from Lite0."""

    width: float
    depth: float
    dropout: float  # before the classifier


_SCALES = {
    "efficientnetlite0": _Scale(width=1.0, depth=1.0, dropout=0.2),
    "efficientnetlite1": _Scale(width=1.0, depth=1.1, dropout=0.2),
    "efficientnetlite2": _Scale(width=1.1, depth=1.2, dropout=0.3),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """One inverted residual block."""

    name: str  # "block1a_", as in Keras
    kernel_size: int
    strides: int
    expand_ratio: int
    filters: int
    drop_rate: float


# Kernel size, repeats, filters, expand ratio, strides of the first block; before scaling.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)


def efficientnet_lite(
    variant: str, include_top: bool = False, num_classes: int = 1000
) -> keras.Model:
    """An EfficientNet-Lite with random weights.

    Args:
        variant: "efficientnetlite0", "efficientnetlite1" or "efficientnetlite2".
        include_top: Whether to add global average pooling, dropout and a softmax.
        num_classes: Classes of the softmax; without the top it means nothing.

    Returns:
        A functional model. In: `(batch, height, width, 3)`, RGB brought to (x - 127)/128, height
        and width free. Out: the `(batch, height/32, width/32, 1280)` feature map, sizes rounded
        up; with the top, `(batch, num_classes)` float32 probabilities.

    Raises:
        ValueError: If there is no such variant.
    """
    if variant not in _SCALES:
        raise ValueError(f"Expected variant to be one of {list(_SCALES)}. Received: {variant!r}")
    scale = _SCALES[variant]
    inputs = keras.Input((None, None, 3), name="input")
    x = _conv(inputs, STEM_FILTERS, "stem_conv", kernel_size=3, strides=2)
    x = _batch_norm(x, "stem_bn")
    x = _relu6(x, "stem_activation")
    for block in _blocks(scale):
        x = _inverted_residual(x, block)
    x = _conv(x, HEAD_FILTERS, "top_conv")
    x = _batch_norm(x, "top_bn")
    x = _relu6(x, "top_activation")  # (batch, height/32, width/32, 1280)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(scale.dropout, name="top_dropout")(x)
        x = layers.Dense(num_classes, activation="softmax", dtype="float32", name="predictions")(x)
    return keras.Model(inputs, x, name=variant)


def _blocks(scale: _Scale) -> list[_Block]:
    """The blocks of all stages in order."""
    repeats = [stage[1] for stage in _STAGES]
    repeats[1:-1] = [math.ceil(scale.depth * count) for count in repeats[1:-1]]
    blocks: list[_Block] = []
    for number, (stage, count) in enumerate(zip(_STAGES, repeats, strict=True), start=1):
        kernel_size, _, filters, expand_ratio, strides = stage
        blocks += [
            _Block(
                name=f"block{number}{'abcdefgh'[repeat]}_",
                kernel_size=kernel_size,
                strides=strides if repeat == 0 else 1,
                expand_ratio=expand_ratio,
                filters=_scaled_filters(filters, scale.width),
                drop_rate=DROP_CONNECT_RATE * (len(blocks) + repeat) / sum(repeats),
            )
            for repeat in range(count)
        ]
    return blocks


def _scaled_filters(filters: int, width: float) -> int:
    """`filters * width` to the nearest multiple of 8, but never below nine tenths of it."""
    nearest = max(8, int(filters * width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters * width else nearest + 8


def _inverted_residual(inputs: keras.KerasTensor, block: _Block) -> keras.KerasTensor:
    """Expand, convolve each channel, project; add the input where the shapes allow."""
    filters_in = inputs.shape[-1]
    x = inputs
    if block.expand_ratio != 1:
        x = _conv(x, filters_in * block.expand_ratio, f"{block.name}expand_conv")
        x = _batch_norm(x, f"{block.name}expand_bn")
        x = _relu6(x, f"{block.name}expand_activation")
    x = layers.DepthwiseConv2D(
        block.kernel_size,
        strides=block.strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=_kernel_initializer(),
        name=f"{block.name}dwconv",
    )(x)
    x = _batch_norm(x, f"{block.name}bn")
    x = _relu6(x, f"{block.name}activation")
    x = _conv(x, block.filters, f"{block.name}project_conv")
    x = _batch_norm(x, f"{block.name}project_bn")
    if block.strides == 1 and filters_in == block.filters:
        drop = layers.Dropout(
            block.drop_rate, noise_shape=(None, 1, 1, 1), name=f"{block.name}drop"
        )
        x = layers.Add(name=f"{block.name}add")([drop(x), inputs])
    return x


def _conv(
    x: keras.KerasTensor, filters: int, name: str, kernel_size: int = 1, strides: int = 1
) -> keras.KerasTensor:
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=_kernel_initializer(),
        name=name,
    )(x)


def _kernel_initializer() -> keras.initializers.Initializer:
    """A new one for every layer: one initializer draws the same values each time."""
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="truncated_normal"
    )


def _batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=name)(x)


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(max_value=6.0, name=name)(x)
