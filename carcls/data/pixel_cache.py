"""Photos decoded once, in files that runs share: `<cache>/pixels/<key>.pixels`.

A file holds the pixels of `n` photos as an `(n, size, size, 3)` array of bytes, then what is known
of them as JSON, its length in 8 bytes, and a mark. Its name is a hash of all that the pixels depend
on, so that photos that have changed have another file. It is built under another name and renamed:
what has the name is whole. That it has reached the disk as well, which a power cut would show, is
waited for in the background, and then noted in the mark.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import PIL

from carcls.data.archives import default_cache_dir
from carcls.data.photos import Photos, open_files
from carcls.data.pixels import Pixels
from carcls.data.preparing import Opened, open_square
from carcls.data.records import file_facts

log = logging.getLogger(__name__)

_VERSION = 1  # of the file, and of what our own code makes of a photo
_MARK, _ON_DISK = b"carclspx", b"carclsPX"
SYNC = "carcls: decoded photos to disk"  # a thread
_SPARED_BYTES = 1_000_000_000  # of the disk, for others
# Of the pixels of a file that has reached the disk, so many are checked when it is opened, spread
# over all of it; else all are.
_CHECKED_BYTES = 1_000_000_000


@dataclass(kw_only=True, frozen=True)
class CacheSettings:
    """Where decoded photos go, and how much room they have.

    Args:
        folder: The cache; None is `default_cache_dir()`.
        limit_bytes: Of all files of decoded photos in it together; 0 keeps none.
    """

    folder: Path | None
    limit_bytes: float

    @property
    def pixels(self) -> Path:
        return (self.folder or default_cache_dir()) / "pixels"


@dataclass(kw_only=True)
class CacheReport:
    """How the photos of one size are read, for `run.json`.

    Attributes:
        state: "built", "found", or "off".
        reason: Why it is off.
    """

    size: int
    state: str
    num_bytes: int
    path: str | None = None
    reason: str | None = None


def decode_once(
    photos: Photos,
    settings: CacheSettings,
    workers: int,
    progress: Callable[[int], None],
) -> CacheReport:
    """Gives `photos` their pixels out of the cache, decoding them into it where they are not there.

    Where the cache may not grow so far, or cannot be written, `photos` are left as they are: they
    read their files. Either way what is done, and with how many bytes, is said before.

    Args:
        photos: Receives `pixels`, `errors` and `notes`.
        settings: Of the cache.
        workers: Processes that decode; 0 for none.
        progress: Called with the number of photos done since the last call.
    """
    files, rows = photos.files()
    shape = (len(files), photos.size, photos.size, 3)
    report = CacheReport(size=photos.size, state="off", num_bytes=math.prod(shape))
    if report.num_bytes > settings.limit_bytes:
        limit = f"{settings.limit_bytes / 1e9:g} GB"
        report.reason = f"more than data.cache_limit allows, {limit}"
        return report
    path = settings.pixels / f"{_key(files, photos)}.pixels"
    try:
        found = _open(path, files, photos)
        if found is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent / "lock"):
                found = _open(path, files, photos)  # of the run that had the lock before
                if found is None:
                    report.reason = _make_room(path, report.num_bytes, settings.limit_bytes)
                    if report.reason is not None:
                        return report
                    log.info(
                        f"Decoding {len(files)} photos to {photos.size} px, once: "
                        f"{_gigabytes(report.num_bytes)} in {path.parent}."
                    )
                    found = _build(path, files, photos, workers, progress)
                    report.state = "built"
    except OSError as error:
        report.state = "off"
        report.reason = f"{path.parent} cannot be used, {error.strerror or error}"
        return report
    if report.state == "off":
        report.state = "found"
        progress(len(files))
    pixels, opened = found
    report.path = str(path)
    photos.use(rows, opened, pixels)
    return report


def _key(files: Sequence[str], photos: Photos) -> str:
    """A hash of the files, their sizes and times, and of what makes pixels of them."""
    made_by = (_VERSION, PIL.__version__, cv2.__version__, photos.size, photos.resize_mode)
    digest = hashlib.sha256(repr(made_by).encode())
    sizes, times = (facts.tolist() for facts in file_facts(files))
    for file, size, mtime_ns in zip(files, sizes, times, strict=True):
        digest.update(
            f"{Path(file).absolute()}\0{size}\0{mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One run at a time decodes or makes room. The lock goes with its holder, however that ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info(f"Another run is decoding photos into {path.parent}: waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    path: Path,
    files: Sequence[str],
    photos: Photos,
    workers: int,
    progress: Callable[[int], None],
) -> tuple[Pixels, list[Opened]]:
    shape = (len(files), photos.size, photos.size, 3)
    building = path.with_suffix(".building")
    try:
        pixels = Pixels(os.open(building, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), shape)
        fcntl.flock(pixels.file, fcntl.LOCK_SH)  # as `_open` has it
        _reserve(pixels.file, pixels.nbytes)
        opened = open_files(files, photos, pixels, workers, progress)
        facts = {
            "shape": shape,
            "checksums": [found.checksum for found in opened],
            "odd": {
                row: {k: v for k, v in asdict(found).items() if k != "checksum"}
                for row, found in enumerate(opened)
                if found.error is not None or found.note is not None
            },
        }
        text = json.dumps(facts).encode()
        with os.fdopen(os.dup(pixels.file), "rb+") as file:
            file.seek(pixels.nbytes)
            file.write(text + len(text).to_bytes(8, "little") + _MARK)
        building.rename(path)
    finally:
        building.unlink(missing_ok=True)
    _sync_in_the_background(pixels)
    return pixels, opened


def _sync_in_the_background(pixels: Pixels) -> None:
    file = os.dup(pixels.file)
    threading.Thread(target=_sync, args=(file,), name=SYNC, daemon=True).start()


def _sync(file: int) -> None:
    """Waits until a file is on the disk, and notes it; otherwise all of it is checked on use."""
    with suppress(OSError):
        os.fsync(file)
        os.pwrite(file, _ON_DISK, os.fstat(file).st_size - len(_ON_DISK))
    os.close(file)


def _reserve(file: int, num_bytes: int) -> None:
    """Takes the room now: a full disk later would end the process that writes to the mapping."""
    if num_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, num_bytes)
    else:
        os.truncate(file, num_bytes)


def _open(path: Path, files: Sequence[str], photos: Photos) -> tuple[Pixels, list[Opened]] | None:
    """The file's pixels and what is known of them; None if there is none that can be used."""
    mode = os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY  # another user's can be read
    try:
        file = os.open(path, mode)
    except FileNotFoundError:
        return None
    pixels = Pixels(file, (len(files), photos.size, photos.size, 3))  # which closes it
    fcntl.flock(file, fcntl.LOCK_SH)  # in use, by this process and by those that it shares it with
    opened = _facts(pixels)
    if opened is None:
        log.warning(f"WARNING: {path} is damaged: its photos are decoded again.")
        return None
    for name, found in zip(files, opened, strict=True):
        # What keeps a photo from being opened may pass without a change of the file: a permission,
        # a disk across a network.
        if found.error and open_square(name, photos.size, photos.resize_mode)[0] is not None:
            log.info(f"{name} can be opened now ({found.error} before): photos are decoded again.")
            return None
    with suppress(OSError):
        os.utime(path)  # the one that was used longest ago goes first
    return pixels, opened


def _facts(pixels: Pixels) -> list[Opened] | None:
    """What the end of the file says; None if it is not what was written."""
    size = os.fstat(pixels.file).st_size
    tail = os.pread(pixels.file, 16, max(0, size - 16))
    length = int.from_bytes(tail[:8], "little")
    if tail[8:] not in (_MARK, _ON_DISK) or size != pixels.nbytes + length + 16:
        return None
    try:
        facts = json.loads(os.pread(pixels.file, length, pixels.nbytes))
        opened = [Opened(checksum=checksum) for checksum in facts["checksums"]]
        for row, found in facts["odd"].items():
            opened[int(row)].error, opened[int(row)].note = found["error"], found["note"]
    except (ValueError, KeyError, IndexError):
        return None
    if facts["shape"] != list(pixels.shape) or len(opened) != len(pixels.array):
        return None
    share = _CHECKED_BYTES / max(1, pixels.nbytes) if tail[8:] == _ON_DISK else 1
    rows = range(0, len(opened), max(1, math.ceil(1 / share)))
    if any(zlib.crc32(pixels.array[row]) != opened[row].checksum for row in rows):
        return None
    if tail[8:] != _ON_DISK:  # the run that built it ended before
        _sync_in_the_background(pixels)
    return opened


def _make_room(path: Path, num_bytes: int, limit_bytes: float) -> str | None:
    """Removes what was used longest ago until `num_bytes` fit; None, or why they do not."""
    with suppress(FileNotFoundError):
        path.unlink()  # damaged
    for leftover in path.parent.glob("*.building"):  # of a run that was killed
        leftover.unlink()
    found = sorted(path.parent.glob("*.pixels"), key=lambda other: other.stat().st_mtime)
    sizes = {other: other.stat().st_size for other in found}
    unused = [other for other in found if _is_unused(other)]
    taken = sum(sizes.values())
    in_use = taken - sum(sizes[other] for other in unused)
    free = _free_bytes(path.parent)
    if in_use + num_bytes > limit_bytes:
        return (
            f"more than data.cache_limit allows, {limit_bytes / 1e9:g} GB, of which "
            f"{_gigabytes(in_use)} are in use by other runs"
        )
    if free + taken - in_use < num_bytes:
        return f"more than the disk of {path.parent} has to spare, {_gigabytes(max(0, free))}"
    for other in unused:
        if taken + num_bytes <= limit_bytes and free >= num_bytes:
            break
        other.unlink()
        taken, free = taken - sizes[other], free + sizes[other]
        log.info(
            f"Removed {other}, {_gigabytes(sizes[other])} of decoded photos that were used longest "
            "ago, to make room for others."
        )
    return None


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free - _SPARED_BYTES


def _is_unused(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
