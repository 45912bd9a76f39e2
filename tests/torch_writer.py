"""Writes state dicts in torch's two file formats, without torch."""

import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}


class FloatStorage:
    """Stands for torch.FloatStorage, by name only."""


class LongStorage:
    """Stands for torch.LongStorage."""


def _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks):
    """Stands for torch._utils._rebuild_tensor_v2."""


class Storage:
    def __init__(self, key, data, size=None):
        self.key = key
        self.data = np.asarray(data)
        self.size = self.data.size if size is None else size  # as the pickle claims


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.parts


class _LegacyPickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            kind = FloatStorage if obj.data.dtype == np.float32 else LongStorage
            return ("storage", kind, obj.key, "cpu", obj.size, None)
        return None


class _ZipPickler(_LegacyPickler):
    def persistent_id(self, obj):
        pid = super().persistent_id(obj)
        return pid and pid[:-1]


class Evil:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def floats(*numbers):
    return np.array(numbers, np.float32)


def whole(key, array):
    """A tensor that fills a storage of its own."""
    array = np.ascontiguousarray(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(key, array.ravel()), 0, array.shape, strides)


def write_legacy(path: Path, tensors, magic=MAGIC, system=SYSTEM, keys=None) -> Path:
    """As torch before 1.6; each part can be replaced by a bad one."""
    storages = _storages(tensors)
    parts = (magic, 1001, system, tensors, sorted(storages) if keys is None else keys)
    with path.open("wb") as file:
        for part in parts:
            _dump(_LegacyPickler(file, protocol=2), part)
        for key in sorted(storages):
            data = storages[key].data
            file.write(struct.pack("<q", data.size) + data.tobytes())
    return path


def write_zip(path: Path, tensors, *, parts=None, compression=zipfile.ZIP_STORED) -> Path:
    """As torch since 1.6; `parts` are bytes by name that stand in for its own, None for none."""
    pickled = BytesIO()
    _dump(_ZipPickler(pickled, protocol=2), tensors)
    contents = {"data.pkl": pickled.getvalue(), "byteorder": b"little"}
    contents |= {f"data/{key}": s.data.tobytes() for key, s in _storages(tensors).items()}
    contents |= {"version": b"3\n"} | (parts or {})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(f"weights/{name}", content)
    return path


def _storages(tensors) -> dict[str, Storage]:
    values = tensors.values() if isinstance(tensors, dict) else []
    parts = [value.parts[0] for value in values if isinstance(value, Tensor)]
    return {part.key: part for part in parts if isinstance(part, Storage)}


def _dump(pickler: pickle.Pickler, part) -> None:
    """Pickles the stand-ins by the names of what they stand for."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    with pytest.MonkeyPatch.context() as patch:
        for module, item in (
            (torch, FloatStorage),
            (torch, LongStorage),
            (utils, _rebuild_tensor_v2),
        ):
            patch.setattr(item, "__module__", module.__name__)
            setattr(module, item.__name__, item)
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        pickler.dump(part)
