"""Batches of photos, prepared by threads: the same for any number of them.

What happens to photo `i` in epoch `e` is a pure function of (seed, e, i), and so is the order.
"""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np

from carcls.data.images import open_photo, resize
from carcls.data.transforms import Augment
from carcls.errors import PhotoError

_BATCHES_AHEAD = 4  # enough that the network never waits for the last photo of a batch

Batches = Generator[tuple[np.ndarray, np.ndarray | None], None, None]

cv2.setNumThreads(0)  # its own threads would fight the ones below


def default_workers() -> int:
    """One a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Photos:
    """Photos as squares of pixels: read from their files, or kept in memory once decoded.

    Args:
        paths: The files, in a fixed order.
        size: Side of the square in pixels.
        resize_mode: See `carcls.data.images.resize`.
    """

    paths: Sequence[str]
    size: int
    resize_mode: str = "squash"
    pixels: np.ndarray | None = None  # (n, size, size, 3) uint8 after `decode_all`
    errors: dict[int, str] = field(default_factory=dict)  # index of a photo to why it is blank
    notes: dict[int, str] = field(default_factory=dict)  # to what is wrong with one that is shown

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """`(size, size, 3)` uint8; blank, and noted in `errors`, when it cannot be opened."""
        if self.pixels is not None:
            return self.pixels[index]
        notes: list[str] = []
        try:
            photo = open_photo(self.paths[index], min_side=self.size, notes=notes)
        except PhotoError as error:
            self.errors[index] = error.reason
            return np.zeros((self.size, self.size, 3), np.uint8)
        if notes:
            self.notes[index] = "; ".join(notes)
        return resize(photo, self.size, self.resize_mode)

    def bytes_in_memory(self) -> int:
        """What `decode_all(keep=True)` takes."""
        return len(self) * self.size * self.size * 3

    def decode_all(self, *, keep: bool, workers: int, progress: Callable[[int], None]) -> None:
        """Opens every photo once: fills `errors` and `notes`, and `pixels` if they are kept.

        Args:
            keep: Keep the pixels in memory, so that no photo is decoded again.
            workers: Threads.
            progress: Called with 1 for every photo done.
        """
        pixels = np.empty((len(self), self.size, self.size, 3), np.uint8) if keep else None

        def decode(index: int) -> None:
            photo = self[index]
            if pixels is not None:
                pixels[index] = photo

        with ThreadPoolExecutor(workers) as pool:
            try:
                for _ in pool.map(decode, range(len(self))):
                    progress(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self.pixels = pixels

    def without_errors(self) -> tuple["Photos", np.ndarray]:
        """The photos that could be opened, and `(n,)` bool, which of these they are."""
        good = np.ones(len(self), bool)
        good[list(self.errors)] = False
        paths = [path for path, is_good in zip(self.paths, good, strict=True) if is_good]
        pixels = self.pixels if self.pixels is None or good.all() else self.pixels[good]
        numbers = np.cumsum(good) - 1  # of the good ones among themselves
        notes = {int(numbers[index]): note for index, note in self.notes.items() if good[index]}
        return Photos(paths, self.size, self.resize_mode, pixels, notes=notes), good


class Loader:
    """Batches of `(images, labels)` over some of the photos, epoch by epoch.

    Args:
        photos: Where the pixels come from.
        indices: `(n,)` which of the photos, in evaluation order.
        labels: `(len(photos),)` integer class indices, or None.
        batch_size: Photos a batch; the last batch of an epoch may be smaller.
        shuffle: Draw a new order for every epoch.
        augment: Builds the augmentation; called once a thread, since a pipeline keeps state.
        seed: Of the order and of the augmentation.
        workers: Threads.
    """

    def __init__(
        self,
        photos: Photos,
        indices: np.ndarray,
        labels: np.ndarray | None,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: Callable[[], Augment | None] | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        self.photos = photos
        self.indices = np.asarray(indices)
        self.labels = None if labels is None else np.asarray(labels)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.workers = workers or default_workers()
        self._of_thread = threading.local()

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.indices) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """`(n,)` indices of photos in the order of `epoch`."""
        if not self.shuffle:
            return self.indices
        return np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def epoch(self, epoch: int = 0) -> Batches:
        """Yields images `(batch, size, size, 3)` uint8 and labels `(batch,)` int32 or None."""
        return self._batches(range(epoch * len(self), (epoch + 1) * len(self)))

    def from_step(self, step: int) -> Batches:
        """Yields the batches from `step` on, without end and without a pause between epochs.

        Args:
            step: Batches before it, counted from the first epoch's first: step `s` is batch
                `s % len(self)` of epoch `s // len(self)`.
        """
        return self._batches(itertools.count(step))

    def _batches(self, steps: Iterable[int]) -> Batches:
        ahead: deque[tuple[np.ndarray, np.ndarray, list[Future]]] = deque()
        order_of, order = -1, self.indices
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for step in steps:
                    epoch, batch = divmod(step, len(self))
                    if epoch != order_of:
                        order_of, order = epoch, self.order(epoch)
                    indices = order[batch * self.batch_size :][: self.batch_size]
                    ahead.append(self._start(pool, epoch, indices))
                    if len(ahead) > _BATCHES_AHEAD:
                        yield self._finish(*ahead.popleft())
                while ahead:
                    yield self._finish(*ahead.popleft())
            finally:
                for _, _, futures in ahead:
                    for future in futures:
                        future.cancel()

    def _start(self, pool: ThreadPoolExecutor, epoch: int, indices: np.ndarray):
        size = self.photos.size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        futures = [
            pool.submit(self._prepare, images, row, epoch, int(index))
            for row, index in enumerate(indices)
        ]
        return images, indices, futures

    def _finish(self, images: np.ndarray, indices: np.ndarray, futures: list[Future]):
        for future in futures:
            future.result()
        return images, None if self.labels is None else self.labels[indices].astype(np.int32)

    def _prepare(self, images: np.ndarray, row: int, epoch: int, index: int) -> None:
        photo = self.photos[index]
        augment = self._augment()
        if augment is not None:
            seed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
            photo = augment(photo, int(seed))
        images[row] = photo

    def _augment(self) -> Augment | None:
        if self.augment is None:
            return None
        if not hasattr(self._of_thread, "augment"):
            self._of_thread.augment = self.augment()
        return self._of_thread.augment
