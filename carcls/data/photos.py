"""Photos as squares of pixels: read from their files, or decoded once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from carcls.data.duplicates import near_duplicate_groups
from carcls.data.pixels import Pixels
from carcls.data.preparing import Opened, Opening, open_square
from carcls.data.workers import Workers

_AT_ONCE = 8  # files that a process opens between two answers


@dataclass
class Photos:
    """Photos as squares of pixels.

    Args:
        paths: The files, in a fixed order; one may be there more than once.
        size: Side of the square in pixels.
        resize_mode: See `carcls.data.images.resize`.
        pixels: `(files, size, size, 3)`, the decoded files; None reads them anew each time.
        rows: `(n,)` which row of `pixels` is which photo.
        errors: Index of a photo to why it is black.
        notes: Index of a photo to what is wrong with one that is shown.
    """

    paths: Sequence[str]
    size: int
    resize_mode: str = "squash"
    pixels: Pixels | None = None
    rows: np.ndarray | None = None
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> str | int:
        """Where the pixels of a photo come from: a row of `pixels`, or a file."""
        return self.paths[index] if self.pixels is None else int(self.rows[index])

    def name(self, index: int) -> str:
        """What a photo is called in messages."""
        return self.paths[index]

    def __getitem__(self, index: int) -> np.ndarray:
        """`(size, size, 3)` uint8; black, and noted in `errors`, when it cannot be opened."""
        if self.pixels is not None:
            return self.pixels.array[self.rows[index]]
        photo, error, note = open_square(self.paths[index], self.size, self.resize_mode)
        self.tell(index, error, note)
        return np.zeros((self.size, self.size, 3), np.uint8) if photo is None else photo

    def tell(self, index: int, error: str | None, note: str | None) -> None:
        """Remembers why a photo is black, or what is odd about it."""
        if error is not None:
            self.errors[index] = error
        if note is not None:
            self.notes[index] = note

    def files(self) -> tuple[list[str], np.ndarray]:
        """The different files, in the order of their first photo, and `(n,)` which is whose."""
        number: dict[str, int] = {}
        rows = np.fromiter((number.setdefault(p, len(number)) for p in self.paths), np.int64)
        return list(number), rows

    def use(self, rows: np.ndarray, opened: Sequence[Opened], pixels: Pixels | None) -> None:
        """Takes over what opening every file gave.

        Args:
            rows: `(n,)` which file is which photo.
            opened: What was found, a value a file.
            pixels: `(files, size, size, 3)`; None where they were not kept.
        """
        self.pixels, self.rows = pixels, rows if pixels is not None else None
        odd = np.array([o.error is not None or o.note is not None for o in opened], bool)
        for index in np.flatnonzero(odd[rows]) if len(opened) else ():
            found = opened[rows[index]]
            self.tell(int(index), found.error, found.note)

    def decode_all(self, *, keep: bool, workers: int, progress: Callable[[int], None]) -> None:
        """Opens every photo once: fills `errors` and `notes`, and `pixels` if they are kept.

        Args:
            keep: Keep the pixels in memory, so that no photo is decoded again.
            workers: Processes; 0 for none.
            progress: Called with the number of photos done since the last call.
        """
        files, rows = self.files()
        shape = (len(files), self.size, self.size, 3)
        pixels = Pixels.without_name(shape) if keep else None
        self.use(rows, open_files(files, self, pixels, workers, progress), pixels)

    def bytes_decoded(self) -> int:
        """What the pixels of all photos take, each counted once."""
        return len(self) * self.size * self.size * 3

    def without_errors(self) -> tuple["Photos", np.ndarray]:
        """The photos that could be opened, and `(n,)` bool, which of these they are."""
        good = np.ones(len(self), bool)
        good[list(self.errors)] = False
        return self.only(np.flatnonzero(good)), good

    def only(self, indices: np.ndarray) -> "Photos":
        """Some of the photos, in the order of `indices` (ascending), which are numbered anew."""
        number = {int(index): new for new, index in enumerate(indices)}
        return Photos(
            [self.paths[index] for index in indices],
            self.size,
            self.resize_mode,
            self.pixels,
            None if self.rows is None else self.rows[indices],
            {number[i]: why for i, why in self.errors.items() if i in number},
            {number[i]: what for i, what in self.notes.items() if i in number},
        )


def near_duplicates(photos: Photos, workers: int, progress: Callable[[int], None]) -> np.ndarray:
    """`(n,)` numbers, the same for photos that show the same; see `carcls.data.duplicates`.

    Args:
        photos: As they are seen, at their size.
        workers: Processes; 0 for none.
        progress: Called with the number of files done since the last call.
    """
    files, rows = photos.files()
    decoded, sources, mode = photos.pixels, files, photos.resize_mode
    if mode == "pad":  # black bars alike would make photos alike: they are opened without
        decoded, mode = None, "squash"
    elif decoded is not None:
        _, first_photos = np.unique(rows, return_index=True)
        sources = [photos.source(int(index)) for index in first_photos]
    setup = Opening(size=photos.size, resize_mode=mode, target=decoded)
    items = (sources[first : first + _AT_ONCE] for first in range(0, len(files), _AT_ONCE))
    shared = [] if decoded is None else [decoded.file]
    hashes, thumbs = [], []
    with Workers("carcls.data.preparing:hashing", setup, workers, shared) as processes:
        for some_hashes, some_thumbs in processes.map(items):
            hashes.append(some_hashes)
            thumbs.append(some_thumbs)
            progress(len(some_hashes))
    return near_duplicate_groups(np.concatenate(hashes), np.concatenate(thumbs))[rows]


def open_files(
    files: Sequence[str],
    photos: Photos,
    target: Pixels | None,
    workers: int,
    progress: Callable[[int], None],
) -> list[Opened]:
    """Opens files in parallel, each once, as `photos` are to be seen.

    Args:
        files: Their paths.
        photos: Whose size and way to resize count.
        target: `(files, size, size, 3)`, receives the pixels; None only tries whether they open.
        workers: Processes; 0 for none.
        progress: Called with the number of files done since the last call.
    """
    setup = Opening(size=photos.size, resize_mode=photos.resize_mode, target=target)
    items = ((first, files[first : first + _AT_ONCE]) for first in range(0, len(files), _AT_ONCE))
    opened: list[Opened] = []
    shared = [] if target is None else [target.file]
    with Workers("carcls.data.preparing:opening", setup, workers, shared) as processes:
        for answers in processes.map(items):
            opened += answers
            progress(len(answers))
    return opened
