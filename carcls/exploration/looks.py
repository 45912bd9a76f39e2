"""What was learnt of all photos, as arrays, and which of them show the same."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd

from carcls.data.duplicates import FLAT, THUMB_SIDE, join, near_duplicate_groups
from carcls.data.workers import Workers
from carcls.exploration.look import Look

Progress = Callable[[int], None]


class Looks:
    """A few numbers for each of `n` photos, about 300 bytes: pixels are not kept.

    Attributes:
        width, height: `(n,)` int32 pixels; 0 where the photo does not open.
        num_bytes: `(n,)` int64.
        brightness, contrast: `(n,)` float32, see `Look`.
        hashes, thumbs: `(n,)` uint64 and `(n, 8, 8, 3)` uint8.
        digests: `(n, 2)` uint64 of the file.
        formats: One of each photo.
        notes, errors: Index of a photo to what is odd, or why it does not open.
    """

    def __init__(self, n: int) -> None:
        self.width, self.height = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.num_bytes = np.full(n, -1, np.int64)
        self.brightness, self.contrast = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
        self.hashes = np.full(n, FLAT, np.uint64)
        self.thumbs = np.zeros((n, THUMB_SIDE, THUMB_SIDE, 3), np.uint8)
        self.digests = np.zeros((n, 2), np.uint64)
        self.formats = [""] * n
        self.notes: dict[int, str] = {}
        self.errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.width)

    @property
    def opens(self) -> np.ndarray:
        """`(n,)` bool."""
        good = np.ones(len(self), bool)
        good[list(self.errors)] = False
        return good

    @property
    def aspect(self) -> np.ndarray:
        """`(n,)` width by height; NaN where the photo does not open."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.width / self.height

    @property
    def is_flat(self) -> np.ndarray:
        """`(n,)` bool: of one colour."""
        return self.opens & (self.hashes == FLAT)

    def put(self, index: int, look: Look) -> None:
        """Writes down one look."""
        self.num_bytes[index] = look.num_bytes
        if look.error:
            self.errors[index] = look.error
            return
        self.width[index], self.height[index] = look.width, look.height
        self.brightness[index], self.contrast[index] = look.brightness, look.contrast
        self.hashes[index] = look.hash
        self.thumbs[index] = np.frombuffer(look.thumb, np.uint8).reshape(self.thumbs.shape[1:])
        self.digests[index] = np.frombuffer(look.file_digest, np.uint64)
        self.formats[index] = look.format
        if look.note:
            self.notes[index] = look.note


def look_at_all(paths: list[str], workers: Workers, progress: Progress) -> Looks:
    """Opens every photo once."""
    looks = Looks(len(paths))
    for index, look in enumerate(workers.map(("look", path) for path in paths)):
        looks.put(index, look)
        progress(1)
    return looks


def find_alike(
    looks: Looks, paths: list[str], max_distance: int, workers: Workers, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Which photos are copies, and which are near duplicates of others.

    Returns:
        `(n,)` int64 contents: the index of the first photo with the same file or the same pixels.
        `(n,)` int64 groups: the index of the first photo of those that show the same, copies
        included. A photo that does not open has its own.
    """
    opens = np.flatnonzero(looks.opens)
    contents = np.arange(len(looks))
    numbers = pd.MultiIndex.from_arrays(looks.digests[opens].T).factorize()[0]
    first = opens[np.unique(numbers, return_index=True)[1]]
    contents[opens] = first[numbers]
    groups = contents.copy()
    near = near_duplicate_groups(looks.hashes[first], looks.thumbs[first], max_distance)
    join(groups, first, first[near])
    _join_same_pixels(contents, groups, looks, paths, workers, progress)
    return contents, groups


def _join_same_pixels(
    contents: np.ndarray,
    groups: np.ndarray,
    looks: Looks,
    paths: list[str],
    workers: Workers,
    progress: Progress,
) -> None:
    """Opens near duplicates of one size in full; different files may hold the same pixels."""
    by_size = defaultdict(list)
    for index in np.flatnonzero((contents == np.arange(len(looks))) & looks.opens):
        by_size[groups[index], looks.width[index], looks.height[index]].append(index)
    candidates = [index for same in by_size.values() if len(same) > 1 for index in same]
    first_of: dict[bytes, int] = {}
    left, right = [], []
    digests = workers.map(("pixels", paths[index]) for index in candidates)
    for index, digest in zip(candidates, digests, strict=True):
        if digest:
            left.append(index)
            right.append(first_of.setdefault(digest, index))
        progress(1)
    join(contents, np.array(left, int), np.array(right, int))
