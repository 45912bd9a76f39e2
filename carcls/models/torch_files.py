"""State dicts in torch's file formats, read without torch and without running anything in them.

Both formats hold the state dict as a pickle that points to its storages by persistent ids. A
pickle can name any function to be called; the unpickler here knows the few names that a state dict
needs and refuses the rest.

Since torch 1.6 a `.pth` is a zip file, nothing in it compressed: `<name>/data.pkl` is the pickle,
`<name>/data/<key>` each storage as raw numbers, and `<name>/byteorder` says which byte comes first
(files older than that entry are little-endian). Before, it was three pickles (a magic number, the
protocol, facts about the system), the state dict, the list of storage keys as a pickle, then for
each key an int64 count and that many raw little-endian numbers.
"""

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from carcls.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_BFLOAT16 = "bfloat16"  # the upper half of a float32; NumPy has no such type
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Storage(NamedTuple):
    """A run of numbers of one type; its data are elsewhere in the file."""

    dtype: str
    key: str
    size: int

    @property
    def num_bytes(self) -> int:
        return self.size * np.dtype("<u2" if self.dtype == _BFLOAT16 else self.dtype).itemsize


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
        # New functions for each file: a pickle may set attributes on what it is given.
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _View(
                storage, offset, shape, strides
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda view, *_: view
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, *view_metadata = pid  # the last in the old format only
        is_known = kind == "storage" and dtype in _DTYPES.values() and view_metadata in ([], [None])
        if not is_known or type(key) is not str or type(size) is not int:
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        return _Storage(dtype, key, size)


def _unpickle(file: BinaryIO) -> Any:
    """The next pickle of `file`.

    What a pickle puts aside to refer to again, it numbers from 0 or 1; for a higher number the
    unpickler would fill all the memory up to there.
    """
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count:
            raise pickle.UnpicklingError("its pickle is no ordinary one")
    file.seek(start)
    return _StateDictUnpickler(file).load()


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that torch saved, in its zip format or the one before.

    Args:
        path: The file.

    Returns:
        Tensor by name, in the file's order, as read-only arrays; bfloat16 as float32. They may
        share memory and need not be contiguous.

    Raises:
        UserError: If the file is missing, is not of these formats, is damaged, or holds anything
            but tensors. Nothing that it names is run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            file.seek(0)
            return _read_zip(file) if is_zip else _read_legacy(file)
    except OSError as error:
        raise UserError(
            f"Expected {path} to be a torch weights file. Received: {error.strerror}."
        ) from error
    except Exception as error:  # damaged pickles raise nearly anything (docs of `pickle`)
        raise UserError(
            f"Expected {path} to be a state dict as torch.save(model.state_dict(), PATH) writes "
            f"it. Received: a file that cannot be read so: {error or type(error).__name__}. "
            "Nothing in it was run. Give another file, or fetch this one again."
        ) from error


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    """As `read_pth`, of the zip format; raises whatever comes."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError("it begins as a zip file, but is truncated or damaged") from error
    with archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is a zip file with something else than one state dict in it")
        (root,) = roots
        if f"{root}constants.pkl" in entries:
            raise ValueError("it is a TorchScript program, of torch.jit.save")
        _check_sizes(archive.infolist(), os.fstat(file.fileno()).st_size)
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        views = _unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))
        data = {}
        for key, storage in _storages_of(views).items():
            entry = entries.get(f"{root}data/{key}")
            if entry is None or entry.file_size != storage.num_bytes:
                found = "no" if entry is None else entry.file_size
                raise ValueError(f"storage {key} has {found} bytes instead of {storage.num_bytes}")
            data[key] = _numbers(archive.read(entry), storage)
    return _tensors(views, data)


def _check_sizes(entries: list[zipfile.ZipInfo], file_size: int) -> None:
    """Refuse a zip file that would unpack to more than it is."""
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"its part {entry.filename} is compressed, which torch never does")
    if sum(entry.file_size for entry in entries) > file_size:
        raise ValueError("its parts are larger than the file: it is damaged")


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    """As `read_pth`, of the format before torch 1.6; raises whatever comes."""
    magic, protocol, system = (_unpickle(file) for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it does not begin as torch's files do")
    if system["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    views = _unpickle(file)
    keys = _unpickle(file)
    storages = _storages_of(views)
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise ValueError("its list of storages is not that of its tensors")
    return _tensors(views, {key: _read_storage(file, storages[key]) for key in keys})


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    """The next storage of a file in the old format, `(storage.size,)`."""
    (count,) = struct.unpack("<q", file.read(8))
    if count != storage.size:
        raise ValueError(f"storage {storage.key} has {count} numbers instead of {storage.size}")
    left = os.fstat(file.fileno()).st_size - file.tell()
    if not 0 <= storage.num_bytes <= left:  # before memory for it is asked for
        raise ValueError(f"it ends within storage {storage.key}: it is truncated")
    return _numbers(file.read(storage.num_bytes), storage)


def _numbers(data: bytes, storage: _Storage) -> np.ndarray:
    """All of a storage, `(storage.size,)`; bfloat16 as float32."""
    if storage.dtype == _BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, storage.dtype)


def _storages_of(views: Any) -> dict[str, _Storage]:
    """The storages by key of what was unpickled, which must be a dict of tensors."""
    if not isinstance(views, dict) or not all(
        type(name) is str and type(view) is _View and type(view.storage) is _Storage
        for name, view in views.items()
    ):
        raise ValueError("it holds something else than a dict of tensors")
    storages = {view.storage.key: view.storage for view in views.values()}
    for name, view in views.items():
        if view.storage != storages[view.storage.key]:
            raise ValueError(f"tensor {name} has another idea of its storage than others have")
    return storages


def _tensors(views: dict[str, _View], data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by name; `data` are the storages by key."""
    return {name: _strided(name, view, data[view.storage.key]) for name, view in views.items()}


def _strided(name: str, view: _View, data: np.ndarray) -> np.ndarray:
    """The numbers of `view`, whose claims are checked before they become memory addresses."""
    _, offset, shape, strides = view
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"tensor {name} has an impossible shape, strides or offset")
    if 0 in shape:
        return np.empty(shape, data.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > data.size or last >= data.size:
        raise ValueError(f"tensor {name} of shape {shape} reaches beyond its storage")
    bytes_strides = [stride * data.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(data[offset:], shape, bytes_strides, writeable=False)
