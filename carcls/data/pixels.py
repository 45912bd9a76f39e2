"""Pixels in files that several processes have open: decoded photos, and batches in the making."""

import math
import mmap
import os
import tempfile
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Pixels:
    """An array of uint8 in a file; pickled as the file's number, so it can be given to `Workers`.

    Args:
        file: Its descriptor. It is closed with this object.
        shape: Of the array, which begins with the file.
        writable: Whether `array` can be written to; what is written goes to the file.
    """

    file: int
    shape: tuple[int, ...]
    writable: bool = False
    _array: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)
    _is_owner: bool = field(default=True, init=False, repr=False, compare=False)

    @classmethod
    def without_name(cls, shape: tuple[int, ...]) -> "Pixels":
        """In memory where the system has files there (they need no /dev/shm), else on the disk.

        The file has no name: nothing is left of it when the last process that has it open ends.
        """
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("carcls")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.truncate(file, max(1, math.prod(shape)))
        return cls(file, shape, writable=True)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    @property
    def array(self) -> np.ndarray:
        """The pixels where they lie; pages of the file come into memory when they are looked at."""
        if self._array is None:
            access = mmap.PROT_READ | (mmap.PROT_WRITE if self.writable else 0)
            if self.nbytes == 0:
                return np.zeros(self.shape, np.uint8)
            memory = mmap.mmap(self.file, self.nbytes, prot=access)
            self._array = np.frombuffer(memory, np.uint8).reshape(self.shape)
        return self._array

    def rows(self) -> list[np.ndarray]:
        """Each row by itself: no two have an `.base` in common that is an array."""
        memory, size = self.array.base.base, math.prod(self.shape[1:])
        return [
            np.frombuffer(memory, np.uint8, size, row * size).reshape(self.shape[1:])
            for row in range(self.shape[0])
        ]

    def write(self, row: int, values: np.ndarray) -> None:
        """Puts a whole row into the file; a new file is filled faster so than through `array`."""
        data = memoryview(np.ascontiguousarray(values)).cast("B")
        start = row * len(data)
        while data:
            written = os.pwrite(self.file, data, start)
            data, start = data[written:], start + written

    def __getstate__(self) -> dict:
        return {"file": self.file, "shape": self.shape, "writable": self.writable}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)
        self._is_owner = False  # the descriptor came with the process

    def __del__(self) -> None:
        if self._is_owner and "file" in self.__dict__:
            os.close(self.file)
