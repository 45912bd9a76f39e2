"""What happens to a photo on its way into a batch or the cache; runs in `carcls.data.workers`."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from carcls.data.duplicates import colour_thumb, perceptual_hash
from carcls.data.images import open_photo, resize
from carcls.data.pixels import Pixels
from carcls.errors import PhotoError, UserError

cv2.setNumThreads(0)  # its own threads would fight the processes

# A photo: its file, its row in the decoded ones, or itself.
Source = str | int | np.ndarray
Augment = Callable[[np.ndarray, int], np.ndarray]


def open_square(
    path: str, size: int, resize_mode: str
) -> tuple[np.ndarray | None, str | None, str | None]:
    """A file as `(size, size, 3)` uint8, else None and why not; and what is odd about it."""
    notes: list[str] = []
    try:
        photo = open_photo(path, min_side=size, notes=notes)
    except PhotoError as error:
        return None, error.reason, None
    return resize(photo, size, resize_mode), None, "; ".join(notes) or None


@dataclass(kw_only=True)
class Opening:
    """How files are decoded once.

    Args:
        size, resize_mode: See `carcls.data.images.resize`.
        target: `(n, size, size, 3)`, receives the pixels; None only tries.
    """

    size: int
    resize_mode: str
    target: Pixels | None


@dataclass(kw_only=True, slots=True)
class Opened:
    """One file that was opened, or was not."""

    checksum: int = 0  # of the pixels
    error: str | None = None
    note: str | None = None


def opening(setup: Opening) -> Callable[[tuple[int, Sequence[str]]], list[Opened]]:
    """The function that opens files: (row of the first in the target, their paths)."""

    def open_files(item: tuple[int, Sequence[str]]) -> list[Opened]:
        first, paths = item
        return [open_file(row, path) for row, path in enumerate(paths, start=first)]

    def open_file(row: int, path: str) -> Opened:
        photo, error, note = open_square(path, setup.size, setup.resize_mode)
        if photo is None:
            photo = np.zeros((setup.size, setup.size, 3), np.uint8)
        if setup.target is None:
            return Opened(error=error, note=note)
        setup.target.write(row, photo)
        return Opened(checksum=zlib.crc32(photo), error=error, note=note)

    return open_files


def hashing(setup: Opening) -> Callable[[Sequence[Source]], tuple[np.ndarray, np.ndarray]]:
    """The function that gives the `(n,)` hashes and `(n, 8, 8, 3)` thumbs of some photos.

    Args:
        setup: How files are opened; its target holds those that are decoded already.
    """

    def hash_photos(sources: Sequence[Source]) -> tuple[np.ndarray, np.ndarray]:
        photos = []
        for source in sources:
            photo, _, _ = square(source, setup.size, setup.resize_mode, setup.target)
            photos.append(np.zeros((1, 1, 3), np.uint8) if photo is None else photo)
        hashes = np.array([perceptual_hash(photo) for photo in photos], np.uint64)
        return hashes, np.array([colour_thumb(photo) for photo in photos])

    return hash_photos


def square(
    source: Source, size: int, resize_mode: str, decoded: Pixels | None
) -> tuple[np.ndarray | None, str | None, str | None]:
    """As `open_square`, for any source."""
    if isinstance(source, str):
        return open_square(source, size, resize_mode)
    if isinstance(source, np.ndarray):
        return resize(source, size, resize_mode), None, None
    return decoded.array[source], None, None


@dataclass(kw_only=True)
class Preparation:
    """How photos get into batches.

    Args:
        batches: `(places, batch, out, out, 3)`, receives the pixels.
        decoded: `(n, size, size, 3)`, where sources are rows.
        size, resize_mode: Of the square that a file becomes.
        augment: What is done to the square then, with a seed; None leaves it.
        seed: Of the augmentation.
    """

    batches: Pixels
    decoded: Pixels | None
    size: int
    resize_mode: str
    augment: Augment | None
    seed: int


@dataclass(kw_only=True, slots=True)
class Part:
    """Some photos of a batch: where they go, and the numbers that their draws depend on."""

    place: int
    first: int
    epoch: int
    indices: list[int]
    sources: list[Source]
    names: list[str]  # for messages
    repeats: list[int]  # how often each came before in its epoch


def preparing(setup: Preparation) -> Callable[[Part], list[tuple[int, str | None, str | None]]]:
    """The function that puts a part of a batch in its place.

    It returns (place in the batch, why it is black, what is odd) for the photos that are either.
    """
    augment = setup.augment

    def prepare(part: Part) -> list[tuple[int, str | None, str | None]]:
        told = []
        batch = setup.batches.array[part.place]
        places = range(part.first, part.first + len(part.indices))
        photos = zip(places, part.indices, part.sources, part.names, part.repeats, strict=True)
        for place, index, source, name, repeat in photos:
            photo, error, note = square(source, setup.size, setup.resize_mode, setup.decoded)
            if error is not None or note is not None:
                told.append((place, error, note))
            if photo is None:
                batch[place] = 0
            elif augment is None:
                batch[place] = photo
            else:
                seed = photo_seed(setup.seed, part.epoch, index, repeat)
                try:
                    batch[place] = augment(photo, seed)
                except (UserError, PhotoError):
                    raise
                except Exception as problem:
                    raise RuntimeError(
                        f"augmenting {name} failed: {type(problem).__name__}: {problem}"
                    ) from problem
        return told

    return prepare


def photo_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """What happens to a photo in an epoch depends on these numbers alone.

    Args:
        seed, epoch, index: Of the run, and of the photo.
        repeat: How often it came before in this epoch: another draw for each time.
    """
    words = [seed, epoch, index, repeat] if repeat else [seed, epoch, index]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
