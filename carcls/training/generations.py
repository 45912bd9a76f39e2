"""Generations: complete states of a run on disk, one of which can always be read. No Keras.

    stages/000007/state.json      where the run is, and the checksum of each file beside it
    stages/000007/variables.npy   arrays one after the other, each as `numpy.save` writes it
    stages/000007/model.keras     the best weights that this state knows of: a second name of the
                                  run's own file, which is only ever replaced, never written to
    .lock                         held while a process trains

A generation is written under another name, brought to the disk and then renamed, so that it is
there whole or not at all. The best weights belong to it because a run may be cut between the
moment in which model.keras is replaced and that in which the state says so: what is gone on from
is then older than model.keras, and takes its own best along, whether or not the epochs that are
trained again would repeat themselves bit for bit.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from carcls import run as files
from carcls.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: two processes are then not kept apart
    fcntl = None

log = logging.getLogger(__name__)

KEPT = 2  # generations: the newest, and the one before it should the disk damage that
_STATE, _VARIABLES, _LOCK = "state.json", "variables.npy", ".lock"
_BLOCK = 1 << 20  # bytes that are read at once


@dataclass(kw_only=True)
class Generation:
    """A state of a run as it was read back.

    Attributes:
        state: What is plain: see `carcls.training.checkpoints`.
        arrays: All others, in the order in which they were written.
        model: The best weights so far, a `.keras` file; None if nothing was kept yet.
    """

    state: dict[str, Any]
    arrays: list[np.ndarray]
    model: Path | None


def write(
    folder: Path, state: dict[str, Any], arrays: Sequence[np.ndarray], model: Path | None
) -> None:
    """Writes the next generation and removes those that are too old.

    Args:
        folder: `stages/` of the run.
        state: What is plain; numbers come back bit for bit, NaN too.
        arrays: All others.
        model: The best weights so far.

    Raises:
        UserError: If there is no room; what was written before is as it was.
    """
    numbers = _numbers(folder)
    target = folder / f"{max(numbers, default=0) + 1:06}"
    temporary = folder / f".{target.name}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        sums = {_VARIABLES: _write_arrays(temporary / _VARIABLES, arrays)}
        if model is not None:
            _link(model, temporary / files.MODEL)
            sums[files.MODEL] = _checksum(temporary / files.MODEL)
        content = json.dumps({"state": state, "sums": sums}, default=files.plain)
        text = json.dumps({"sum": hashlib.sha256(content.encode()).hexdigest(), "content": content})
        with (temporary / _STATE).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync(temporary)
        temporary.rename(target)
        _sync(folder)
    except OSError as error:
        raise UserError(files.cannot_write(target, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for number in sorted(numbers)[: 1 - KEPT]:
        shutil.rmtree(folder / f"{number:06}", ignore_errors=True)


def newest(folder: Path) -> Generation | None:
    """The newest generation that is whole; None if there is none. A damaged one is told."""
    for number in sorted(_numbers(folder), reverse=True):
        path = folder / f"{number:06}"
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            log.warning(f"WARNING: {files.shown(path)} is damaged ({error}): an older one is used.")
    return None


def put_in_place(model: Path, target: Path) -> None:
    """Makes a generation's best weights the run's own file again."""
    with files.replacing(target) as temporary:
        _link(model, temporary)


def remove(folder: Path, pattern: str = "*") -> None:
    """Removes all generations; with `.*` only what a writer that was killed has left of one."""
    for path in folder.glob(pattern):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in a run directory for as long as this one does.

    Raises:
        UserError: If another one does already.
    """
    path = workdir / _LOCK
    was_there = workdir.exists()
    try:
        file = _locked(path)
    except BlockingIOError as error:
        with suppress(OSError):
            pid = path.read_text()
        raise UserError(
            "Expected a run directory in which no other process trains. Received: "
            f"{files.shown(workdir)}, where process {pid or 'unknown'} does. Wait for it, or end "
            "it first."
        ) from error
    except OSError as error:
        raise UserError(files.cannot_write(path, error)) from error
    try:
        yield
    finally:
        made = (
            [path, workdir / files.STAGES] if was_there else [path, workdir / files.STAGES, workdir]
        )
        for mine in made:
            with suppress(OSError):  # it is not there, or something is in it
                mine.unlink() if mine is path else mine.rmdir()
        file.close()


def wait_until_free(workdir: Path, seconds: float = 300) -> None:
    """Returns when no other process trains in a run directory, or has not ended for too long.

    Args:
        workdir: Of the run.
        seconds: How long to wait at most.
    """
    path, until = workdir / _LOCK, time.monotonic() + seconds
    is_told = False
    while fcntl is not None and time.monotonic() < until:
        try:
            with path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not is_told:
                print(
                    "Waits for the process that still saves what it reached in "
                    f"{files.shown(workdir)}.",
                    flush=True,
                )
            is_told = True
            time.sleep(0.2)
        except OSError:  # there is no lock, or no such thing on this disk
            return


def _locked(path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it removes it: this may be a file that has no name any more.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a disk that knows no locks
                file.close()
                raise
            break
        file.close()
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    file.flush()
    return file


def _numbers(folder: Path) -> list[int]:
    """Of the generations in a folder, in no order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdigit()]


def _read(path: Path) -> Generation:
    outer = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if hashlib.sha256(outer["content"].encode()).hexdigest() != outer["sum"]:
        raise ValueError(f"{_STATE} is not as it was written")
    content = json.loads(outer["content"])
    for name, expected in content["sums"].items():
        if _checksum(path / name) != expected:
            raise ValueError(f"{name} is not as it was written")
    with (path / _VARIABLES).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        arrays = []
        while file.tell() < size:
            arrays.append(np.load(file, allow_pickle=False))
    model = path / files.MODEL if files.MODEL in content["sums"] else None
    return Generation(state=content["state"], arrays=arrays, model=model)


class _Summing:
    """A file to write to that counts its own checksum, so that it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sum = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self.file.write(data)


def _write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> str:
    with path.open("wb") as file:
        summing = _Summing(file)
        for array in arrays:
            np.save(summing, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return summing.sum.hexdigest()


def _checksum(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a disk that knows no second names
        shutil.copyfile(path, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
