"""A feed, cut into epochs."""

from typing import Any

import keras

from carcls.training.feed import Feed


class Epochs(keras.utils.PyDataset):
    """Ends with every epoch, so that `fit` takes the batches of an epoch and no more.

    With several steps an execution Keras always asks for a whole execution's batches. From a feed
    without end the last execution of an epoch would take those of the next one, and the validation
    would count its first photos twice; where the data ends, so does the execution.

    Args:
        feed: Batches by number, without end.
        steps: Batches an epoch.

    Attributes:
        skipped: Batches at the start of the epoch that are left out: an earlier process had them.
    """

    def __init__(self, feed: Feed, steps: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.feed = feed
        self.steps = steps
        self.epoch = 0
        self.skipped = 0

    def start(self, epoch: int, logs: Any = None) -> None:
        """Goes on to an epoch, as a callback: Keras itself does not say which one it is at."""
        self.epoch = epoch

    @property
    def num_batches(self) -> int:
        """An epoch, or the rest of one."""
        return self.steps - self.skipped

    def __getitem__(self, index: int) -> tuple:
        return self.feed[self.epoch * self.steps + self.skipped + index]
