"""Batches by the names of Keras' iterators: what `ImageDataAugmentor` gives to `fit`."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from carcls.backend import keras
from carcls.data.loader import Loader
from carcls.errors import UserError


class PhotoBatches(keras.utils.PyDataset):
    """The batches of one `flow_from_…`: by index, by `next`, and for Keras' fit and its kin.

    Batch `i` is a function of the seed, the epoch and `i` alone: Keras calls for batches more than
    once and in an order of its own. `on_epoch_end`, which Keras calls, begins the next epoch.

    Iterating never ends, as in the original; one epoch is `range(len(batches))`.

    Attributes:
        class_indices: Class name to index.
        filenames: Names of the photos, relative to the directory; without shuffling, in the order
            of the batches.
        classes, labels: `(n,)` int32 index of each photo's class; None without labels.
        n, samples: Photos an epoch.
        image_shape: `(height, width, 3)`.
        seed: Of augmentation and order.
        unreadable: Photos that cannot be opened, as (filename, reason): left out, or blank where
            there are no labels.
        epoch: The current one, from 0.
        batch_index: What `next` gives next.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        filenames: list[str],
        class_names: list[str],
        class_mode: str | None,
        preprocess_input: Callable[[np.ndarray], np.ndarray] | None,
        rescale: float | None,
        unreadable: list[tuple[str, str]],
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)  # the loader has its own
        self.loader = loader
        self.filenames = filenames
        self.filepaths = list(loader.photos.paths)
        self.class_names = class_names
        self.class_indices = {name: index for index, name in enumerate(class_names)}
        self.num_classes = len(class_names)
        self.class_mode = class_mode
        self.classes = self.labels = loader.labels
        self.n = self.samples = len(filenames)
        self.batch_size = loader.batch_size
        self.shuffle = loader.shuffle
        self.seed = loader.seed
        self.target_size = (loader.photos.size,) * 2
        self.image_shape = (*self.target_size, 3)
        self.preprocess_input = preprocess_input
        self.rescale = rescale
        self.unreadable = unreadable
        self.epoch = 0
        self.batch_index = 0
        self._lock = threading.Lock()  # of what `next` counts

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """Batch `index` of the epoch: photos `(batch, height, width, 3)` float32, and labels.

        Labels are float32, `(batch, num_classes)` or `(batch,)`; with `class_mode=None` there are
        photos alone.
        """
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(f"Expected a batch below {len(self)}. Received: {index}")
        photos, labels = self._read(self.epoch, index * self.batch_size, self.batch_size)
        photos = self._finish(photos)
        if self.class_mode is None:
            return photos
        if self.class_mode == "categorical":
            return photos, np.eye(self.num_classes, dtype=np.float32)[labels]
        return photos, labels.astype(np.float32)

    def _read(self, epoch: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Photos `(count, height, width, 3)` uint8, augmented, and `(count,)` int32 labels."""
        whole = self.loader
        part = Loader(
            whole.photos,
            whole.order(epoch)[start:][:count],
            whole.labels,
            batch_size=count,
            augment=whole.augment,
            seed=whole.seed,
            workers=0,  # batches are asked for in any order, one by one
        )
        (batch,) = part.epoch(epoch)
        return batch

    def _finish(self, photos: np.ndarray) -> np.ndarray:
        finished = photos.astype(np.float32)
        if self.preprocess_input is not None:
            for row, photo in enumerate(finished):
                processed = np.asarray(self.preprocess_input(photo), np.float32)
                if processed.shape != self.image_shape:
                    raise UserError(
                        f"Expected preprocess_input to give a photo of {self.image_shape}. "
                        f"Received: {processed.shape}"
                    )
                finished[row] = processed
        return finished * np.float32(self.rescale) if self.rescale else finished

    def on_epoch_end(self) -> None:
        """Begins the next epoch: another order, and other draws of the augmentation."""
        self.epoch += 1

    def reset(self) -> None:
        """`next` gives the first batch of the epoch again."""
        with self._lock:
            self.batch_index = 0

    def __iter__(self) -> "PhotoBatches":
        """Itself: batches without end, epoch after epoch."""
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """The batch after the one before; an epoch's last is followed by the next one's first."""
        with self._lock:
            batch = self[self.batch_index]
            self.batch_index += 1
            if self.batch_index == len(self):
                self.batch_index = 0
                self.on_epoch_end()
        return batch

    def next(self) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """As the builtin `next` does."""
        return next(self)

    def show_data(self, rows: int = 5, cols: int = 5, **figure_options: Any) -> Any:
        """Draws photos of the epoch as they are augmented, before they are made numbers.

        Args:
            rows, cols: Of the grid; cells without a photo stay empty.
            **figure_options: What matplotlib's `figure` takes, such as `figsize` in inches.

        Returns:
            A matplotlib figure, with the class above each photo.
        """
        import matplotlib.pyplot as plt

        photos, labels = self._read(self.epoch, 0, rows * cols)
        options = {"figsize": (2 * cols, 2.2 * rows), "layout": "constrained", **figure_options}
        figure = plt.figure(**options)
        for cell, photo in enumerate(photos):
            axis = figure.add_subplot(rows, cols, cell + 1)
            axis.imshow(photo)
            axis.axis("off")
            if labels is not None:
                axis.set_title(self.class_names[labels[cell]], fontsize="small")
        return figure
