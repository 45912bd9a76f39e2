"""Our loader as something that Keras' `fit` takes, on every backend."""

import threading
from typing import Any

import keras

from carcls.data.loader import Loader


class Feed(keras.utils.PyDataset):
    """Batches by number, without end: give `fit` the steps of an epoch.

    A batch is a function of its number alone, because Keras calls for batches more than once: it
    looks at the first two for their shapes, and starts the validation data anew in each epoch
    while an earlier iterator has read ahead. (A generator, which cannot go back, then validates
    on other photos than those it should.) Calls in order are served from the loader's stream.

    Args:
        loader: Where the batches come from.
        first_step: The loader's step that is batch 0 here.

    Attributes:
        error: What went wrong when a batch was asked for.
    """

    def __init__(self, loader: Loader, first_step: int = 0) -> None:
        super().__init__(workers=1, use_multiprocessing=False)  # the loader has its own
        self.loader = loader
        self.first_step = first_step
        self._lock = threading.Lock()  # an abandoned iterator of Keras may still be reading ahead
        self.error: Exception | None = None  # a backend's own error would hide it
        self._stream: Any = None
        self._next = 0
        self._is_closed = False

    @property
    def num_batches(self) -> None:
        """Without end."""
        return None

    def __getitem__(self, index: int) -> tuple:
        with self._lock:
            if self._is_closed:  # by whom the batches are for: what still reads ahead may end
                raise RuntimeError("Expected a feed that is open.")
            if self._stream is None or index != self._next:
                self._close()
                self._stream = self.loader.from_step(self.first_step + index)
            self._next = index + 1
            try:
                return next(self._stream)
            except Exception as error:
                self.error = error
                raise

    def close(self) -> None:
        """Ends the loader's processes."""
        with self._lock:
            self._is_closed = True
            self._close()
            self.loader.close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
