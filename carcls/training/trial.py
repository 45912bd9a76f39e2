"""A few steps of training and a few batches of the loader, each timed on its own."""

import time

import keras
import numpy as np

from carcls.data.loader import Loader

_STEPS = 3  # that are timed, after a first one that builds the graph
_STEPS_SECONDS = 2.0  # after which no further step is begun
_LOADER_SECONDS = 1.0
_LOADER_BATCHES = 64


def look_at(loader: Loader) -> tuple[list[tuple[np.ndarray, ...]], float]:
    """The first batches, and the photos a second that the loader gives when nobody else works."""
    stream = loader.from_step(0)
    try:
        batches = [_copied(next(stream))]  # which waits for the processes to start
        photos, started, seconds = 0, time.perf_counter(), 0.0
        for number, batch in enumerate(stream, start=1):
            photos += len(batch[0])
            seconds = time.perf_counter() - started
            if number < _STEPS and len(batch[0]) == len(batches[0][0]):
                batches.append(_copied(batch))
            del batch
            if seconds > _LOADER_SECONDS or number == _LOADER_BATCHES:
                break
    finally:
        stream.close()
    return batches, photos / seconds


def _copied(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(part) for part in batch)


class _Batches(keras.utils.PyDataset):
    """Some batches, as `fit` takes them."""

    def __init__(self, batches: list[tuple[np.ndarray, ...]], count: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.batches = batches
        self.count = count

    @property
    def num_batches(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return self.batches[index % len(self.batches)]


class Steps:
    """A few steps of training: their losses, their time, and what they moved.

    Attributes:
        logs: What Keras told after the first of them.
        start_seconds: The first one took beyond a usual one: building the graph.
        step_seconds: A usual one takes.
        moved: Paths of the variables that have another value than before.
    """

    def __init__(
        self, fitted: keras.Model, batches: list[tuple[np.ndarray, ...]], steps_per_execution: int
    ) -> None:
        variables = fitted.variables
        before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
        first = _Stopwatch(steps_per_execution)
        fitted.fit(_Batches(batches, 1), verbose=0, shuffle=False, callbacks=[first])
        self.logs = first.logs
        # `fit` ended with the weights' moving average in the network. On JAX both are one buffer
        # then, which the next `fit` would give away twice.
        for variable in fitted.trainable_variables:
            variable.assign(np.array(keras.ops.convert_to_numpy(variable)))
        usual = _Stopwatch(steps_per_execution)
        fitted.fit(_Batches(batches, _STEPS), verbose=0, shuffle=False, callbacks=[usual])
        self.step_seconds = usual.seconds / usual.steps
        self.start_seconds = max(0.0, first.seconds - self.step_seconds)
        self.moved = {
            variable.path
            for variable, value in zip(variables, before, strict=True)
            if not np.array_equal(value, keras.ops.convert_to_numpy(variable))
        }


class _Stopwatch(keras.callbacks.Callback):
    """Times the steps of a `fit`, which it ends when that takes long."""

    def __init__(self, steps_per_execution: int) -> None:
        super().__init__()
        self.steps_per_execution = steps_per_execution
        self.steps = 0
        self.logs: dict[str, float] = {}

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if not self.steps:
            self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.logs = {name: float(value) for name, value in logs.items()}  # waits for the device
        self.seconds = time.perf_counter() - self._started
        self.steps = min(batch + 1, self.params["steps"])  # the last execution may be a short one
        if self.seconds > _STEPS_SECONDS:
            self.model.stop_training = True
