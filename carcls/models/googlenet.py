"""GoogLeNet, also called Inception v1, which `keras.applications` lacks.

Szegedy et al., 2014, "Going Deeper with Convolutions", as torchvision has it (torchvision/models/
googlenet.py): each convolution without bias and with batch norm, and in the third branch of a
block, the paper's 5x5, a 3x3 (github.com/pytorch/vision/issues/906). The auxiliary heads, of use
only while the network is trained from scratch, are left out. Layers are named as torchvision names
its modules, with underscores for dots.
"""

import keras
from keras import layers

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.9  # torch's default, which it calls 0.1
DROPOUT = 0.2  # before the classifier

# Channels of the 1x1 branch; of the 3x3 branch, reduced and convolved; of the other 3x3 branch,
# likewise; and of the branch that pools.
_BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(include_top: bool = False, num_classes: int = 1000) -> keras.Model:
    """A GoogLeNet with random weights.

    Args:
        include_top: Whether to add global average pooling, dropout, a dense layer `fc` that gives
            the logits, and a softmax.
        num_classes: Classes of the softmax; without the top it means nothing.

    Returns:
        A functional model. In: `(batch, height, width, 3)`, RGB brought to x/127.5 - 1, height and
        width free from 15 up. Out: the `(batch, h, w, 1024)` feature map, about a 32nd of the photo
        (7x7 of 224x224, 1x1 of 15x15); with the top, `(batch, num_classes)` float32 probabilities.
    """
    inputs = keras.Input((None, None, 3), name="input")
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = _conv(x, 64, "conv1", kernel_size=7, strides=2, padding="valid")
    x = _ceil_pool(x, 3, "maxpool1")
    x = _conv(x, 64, "conv2")
    x = _conv(x, 192, "conv3", kernel_size=3)
    x = _ceil_pool(x, 3, "maxpool2")
    for name, channels in _BLOCKS.items():
        if name == "inception4a":
            x = _ceil_pool(x, 3, "maxpool3")
        elif name == "inception5a":
            x = _ceil_pool(x, 2, "maxpool4")
        x = _inception(x, name, channels)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = layers.Dropout(DROPOUT, name="dropout")(x)
        x = layers.Dense(num_classes, dtype="float32", name="fc")(x)
        x = layers.Softmax(dtype="float32", name="predictions")(x)
    return keras.Model(inputs, x, name="googlenet")


def _inception(
    inputs: keras.KerasTensor, name: str, channels: tuple[int, ...]
) -> keras.KerasTensor:
    """Four branches side by side; see `_BLOCKS`."""
    ones, reduced3, threes, reduced5, fives, pooled = channels
    branch1 = _conv(inputs, ones, f"{name}_branch1")
    branch2 = _conv(inputs, reduced3, f"{name}_branch2_0")
    branch2 = _conv(branch2, threes, f"{name}_branch2_1", kernel_size=3)
    branch3 = _conv(inputs, reduced5, f"{name}_branch3_0")
    branch3 = _conv(branch3, fives, f"{name}_branch3_1", kernel_size=3)
    branch4 = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_branch4_0")(inputs)
    branch4 = _conv(branch4, pooled, f"{name}_branch4_1")
    return layers.Concatenate(name=name)([branch1, branch2, branch3, branch4])


def _conv(
    x: keras.KerasTensor,
    filters: int,
    name: str,
    kernel_size: int = 1,
    strides: int = 1,
    padding: str = "same",
) -> keras.KerasTensor:
    """Convolution, batch norm, ReLU."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _ceil_pool(x: keras.KerasTensor, pool_size: int, name: str) -> keras.KerasTensor:
    """Max pooling with stride 2 in torch's ceil mode: a last window may hang over the border.

    With `pool_size` 2 or 3 it hangs over by one row at most, so one row of padding below and one
    column on the right give just the windows of ceil mode; where none hangs over, none reaches the
    padding. Zeros do for minus infinity, since a ReLU comes before. Padding "same" would begin
    its windows one row above an odd map if `pool_size` is 3.
    """
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return layers.MaxPooling2D(pool_size, strides=2, padding="valid", name=name)(x)
