"""Batches of photos, prepared by processes: the same for any number of them, none included.

What happens to photo `i` in epoch `e` is a pure function of (seed, e, i), and so is the order.
"""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from carcls.data.balance import balanced_draw, batch_weights, repeats
from carcls.data.photos import Photos
from carcls.data.pixels import Pixels
from carcls.data.preparing import Augment, Part, Preparation
from carcls.data.workers import WorkerError, Workers, workers_for
from carcls.errors import UserError

_LENT = 4  # batches that a caller may keep before it gets copies
_PART = 16  # photos that a process prepares between two answers, at most
_MIXING = 1  # a last word of its seeds, so that it does not draw what a photo of that number does
_PARTS_AHEAD = 3  # for every process, so that it has work while the network thinks

# (images, labels, words of a seed) to (images, labels).
Mix = Callable[[np.ndarray, np.ndarray, tuple[int, ...]], tuple[np.ndarray, np.ndarray]]
Batches = Generator[tuple[np.ndarray | None, ...], None, None]


class Place:
    """Where a batch is made. It is lent to the caller, and free when nobody has it any more.

    Args:
        array: `(batch, size, size, 3)` uint8, of `Pixels.rows`.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.is_taken = False  # from the first part to the last
        self._array = array
        # All views of it, and views of these, refer to this one: numpy keeps no chain of views.
        self._owner = array.base
        self._alone = sys.getrefcount(self._owner)

    @property
    def is_lent(self) -> bool:
        return sys.getrefcount(self._owner) > self._alone

    @property
    def is_free(self) -> bool:
        return not self.is_taken and not self.is_lent

    def batch(self, count: int, copy: bool) -> np.ndarray:
        """`(count, size, size, 3)` of it, lent or as a copy."""
        self.is_taken = False
        return self._array[:count].copy() if copy else self._array[:count]


class Loader:
    """Batches of `(images, labels)` over some of the photos, epoch by epoch.

    A photo that cannot be opened is told in `photos.errors`. Where there are labels, the next photo
    of its batch that can be opened stands in for it, with its label; where there are none, it is
    black.

    Args:
        photos: Where the pixels come from.
        indices: `(n,)` which of the photos, in evaluation order.
        labels: `(len(photos),)` integer class indices, or None.
        batch_size: Photos a batch; the last batch of an epoch may be smaller.
        shuffle: Draw a new order for every epoch.
        augment: A function of a photo and a seed; pickled if there are processes.
        size: Side in pixels of what the augmentation gives; None: that of the photos.
        seed: Of the order and of the augmentation.
        workers: Processes; 0 prepares photos when they are asked for. None: one a core, or 0 where
            that is faster.
        on_error: "raise" stops at a photo that cannot be opened.
        num_classes: When given, labels are `(batch, num_classes)` float32, 1 for the photo's class.
        mix: Changes images and such labels, given (seed, epoch, batch, 1); see
            `carcls.data.mixing`.
        label_smoothing: Share in [0, 1) of every such label that is spread evenly over all classes
            (Szegedy et al., 2016, Rethinking the Inception Architecture), after mixing.
        is_balanced: An epoch draws every class as often as the others, see `carcls.data.balance`.
        class_weights: `(num_classes,)`; when given, batches have a third part, the weights
            `(batch,)` float32 of their photos in the loss.
    """

    def __init__(
        self,
        photos: Photos,
        indices: np.ndarray,
        labels: np.ndarray | None,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: Augment | None = None,
        size: int | None = None,
        seed: int = 0,
        workers: int | None = None,
        on_error: str = "skip",
        num_classes: int | None = None,
        mix: Mix | None = None,
        label_smoothing: float = 0.0,
        is_balanced: bool = False,
        class_weights: np.ndarray | None = None,
    ) -> None:
        self.photos = photos
        self.indices = np.asarray(indices)
        self.labels = None if labels is None else np.asarray(labels)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.size = photos.size if size is None else size
        self.seed = seed
        is_copying = photos.pixels is not None and augment is None  # no work worth a process
        self.workers = 0 if is_copying else workers_for(len(self.indices), workers)
        self.on_error = on_error
        self.num_classes = num_classes
        self.mix = mix
        self.label_smoothing = label_smoothing
        self.is_balanced = is_balanced
        self.class_weights = class_weights
        self._places: list[Place] = []
        self._processes: Workers | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.indices) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """`(n,)` indices of photos in the order of `epoch`."""
        if self.is_balanced:
            return balanced_draw(self.indices, self.labels[self.indices], (self.seed, epoch))
        if not self.shuffle:
            return self.indices
        return np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def indices_of(self, step: int) -> np.ndarray:
        """`(batch,)` indices of the photos of a batch; steps count as for `from_step`."""
        epoch, batch = divmod(step, len(self))
        return self.order(epoch)[batch * self.batch_size :][: self.batch_size]

    def epoch(self, epoch: int = 0) -> Batches:
        """Yields images `(batch, size, size, 3)` uint8 and labels `(batch,)` int32, or None.

        With `num_classes` labels are `(batch, num_classes)` float32; with `class_weights` the
        weights of the photos follow, `(batch,)` float32.
        """
        return self._stream(range(epoch * len(self), (epoch + 1) * len(self)))

    def from_step(self, step: int) -> Batches:
        """Yields the batches from `step` on, without end and without a pause between epochs.

        Args:
            step: Batches before it, counted from the first epoch's first: step `s` is batch
                `s % len(self)` of epoch `s // len(self)`.
        """
        return self._stream(itertools.count(step))

    def close(self) -> None:
        """Ends the processes; asked for more batches, it starts others."""
        if self._processes is not None:
            self._processes.close()
        self._processes, self._places = None, []

    def _open(self) -> tuple[Workers, int]:
        """The processes, and the parts that they may be ahead."""
        ahead = max(1, _PARTS_AHEAD * self.workers)
        if self._processes is None:
            batch = min(self.batch_size, len(self.indices))
            batches = Pixels.without_name((self._num_places(ahead), batch, self.size, self.size, 3))
            self._places = [Place(array) for array in batches.rows()]
            decoded = self.photos.pixels
            setup = Preparation(
                batches=batches,
                decoded=decoded,
                size=self.photos.size,
                resize_mode=self.photos.resize_mode,
                augment=self.augment,
                seed=self.seed,
            )
            files = [pixels.file for pixels in (batches, decoded) if pixels is not None]
            self._processes = Workers("carcls.data.preparing:preparing", setup, self.workers, files)
        return self._processes, ahead

    def _num_places(self, ahead: int) -> int:
        """Batches that can be in the making at once, and those that may be lent."""
        count = len(self.indices)
        full, rest = divmod(count, self.batch_size)
        parts = -(-min(self.batch_size, count) // _PART)
        places = 2 + -(-ahead // parts) + _LENT
        if full and rest:  # the last batch of an epoch has fewer parts, so that more are ahead
            places += -(-ahead // (full * parts + -(-rest // _PART)))
        return places

    def _stream(self, steps: Iterable[int]) -> Batches:
        processes, ahead = self._open()
        places = self._places
        for place in places:
            place.is_taken = False  # by a stream that was given up
        started: deque[tuple[Place, int, np.ndarray, int]] = deque()  # place, step, indices, parts
        answers = processes.map(self._parts(steps, places, started), ahead)
        try:
            for told in answers:
                place, step, indices, num_parts = started.popleft()
                for _ in range(num_parts - 1):
                    told += next(answers)
                lent = sum(other.is_lent for other in places)
                images = place.batch(len(indices), copy=lent >= _LENT)
                images, labels = self._without_black(images, indices, told)
                images, labels = self._with_shares(images, labels, step)
                batch = (images, self._smoothed(labels))
                if self.class_weights is not None:
                    batch += (batch_weights(labels, self.class_weights),)
                del images
                yield batch
                del batch  # or it would be with us
        except WorkerError:
            self.close()
            raise
        finally:
            answers.close()

    def _parts(self, steps: Iterable[int], places: list["Place"], started: deque) -> Iterator[Part]:
        """The parts of every batch in turn; each batch is put into `started` before its first."""
        order_of, order = -1, self.indices
        again = np.zeros(len(order), np.int64)  # how often each place's photo came before
        for step in steps:
            epoch, batch = divmod(step, len(self))
            if epoch != order_of:
                order_of, order = epoch, self.order(epoch)
                if self.is_balanced:
                    again = repeats(order)
            start = batch * self.batch_size
            indices = order[start:][: self.batch_size]
            firsts = range(0, len(indices), _PART)
            number = next(i for i, place in enumerate(places) if place.is_free)
            places[number].is_taken = True
            started.append((places[number], step, indices, len(firsts)))
            for first in firsts:
                chosen = indices[first : first + _PART].tolist()
                photos = self.photos
                sources = [photos.source(index) for index in chosen]
                names = [photos.name(index) for index in chosen]
                yield Part(
                    place=number, first=first, epoch=epoch, indices=chosen, sources=sources,
                    names=names, repeats=again[start + first :][: len(chosen)].tolist(),
                )  # fmt: skip

    def _with_shares(
        self, images: np.ndarray, labels: np.ndarray | None, step: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The batch with labels as shares of classes, and mixed, where that is asked for."""
        if labels is None or self.num_classes is None:
            return images, labels
        shares = np.eye(self.num_classes, dtype=np.float32)[labels]
        if self.mix is not None:
            seed_words = (self.seed, *divmod(step, len(self)), _MIXING)
            images, shares = self.mix(images, shares, seed_words)
        return images, shares

    def _smoothed(self, labels: np.ndarray | None) -> np.ndarray | None:
        if not self.label_smoothing:
            return labels
        spread = np.float32(self.label_smoothing)
        return labels * (1 - spread) + spread / self.num_classes

    def _without_black(
        self, images: np.ndarray, indices: np.ndarray, told: list[tuple[int, Any, Any]]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        labels = None if self.labels is None else self.labels[indices].astype(np.int32)
        black = set()
        for place, error, note in told:
            self.photos.tell(int(indices[place]), error, note)
            if error is not None:
                black.add(place)
                if self.on_error == "raise":
                    raise UserError(
                        "Expected photos that can be opened. Received: "
                        f"{self.photos.paths[indices[place]]} ({error}). Leave such photos out "
                        "with data.on_error=skip."
                    )
        if labels is not None and len(black) < len(indices):
            for place in black:
                others = range(place + 1, place + len(indices))
                stand_in = next(i % len(indices) for i in others if i % len(indices) not in black)
                images[place], labels[place] = images[stand_in], labels[stand_in]
        return images, labels
