"""What watches a stage while it runs. One `Best` and one `History` go through all stages."""

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import keras
import numpy as np
import pandas as pd
from rich.progress import Progress

from carcls.console import duration, progress_bar
from carcls.run import replacing


@dataclass
class Best:
    """The best epoch so far, over all stages.

    Args:
        monitor: `val_accuracy` (equal ones are told apart by `val_loss`) or `val_loss`.
    """

    monitor: str
    key: tuple[float, float] | None = None  # larger is better
    epoch: int = 0  # counted over all stages, from 1
    kept_epoch: int = 0  # the one whose weights were saved last

    def improve(self, epoch: int, logs: dict[str, float]) -> bool:
        """Notes the epoch if it is better than all before it. NaN and infinity never are."""
        key = (-logs["val_loss"], logs["val_accuracy"])
        if self.monitor == "val_accuracy":
            key = key[::-1]
        if not all(math.isfinite(value) for value in key) or (
            self.key is not None and key <= self.key
        ):
            return False
        self.key, self.epoch = key, epoch
        return True


class KeepWeights(keras.callbacks.Callback):
    """Saves the model after every epoch that is to be kept.

    Keras' ModelCheckpoint starts anew in each `fit`, and a kill while it writes leaves half a
    file; this one remembers over stages and writes whole files only.

    Args:
        save: Writes the model.
        best: Shared by all stages.
        keep: `best` or `last`; `best` needs validation photos.
        first_epoch: Epochs before this stage.
    """

    def __init__(self, save: Callable[[], None], best: Best, keep: str, first_epoch: int) -> None:
        super().__init__()
        self.save = save
        self.best = best
        self.keep = keep
        self.first_epoch = first_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        epoch = self.first_epoch + epoch + 1
        is_best = "val_loss" in logs and self.best.improve(epoch, logs)
        is_sound = all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "val_loss"))
        if is_best or (self.keep == "last" and is_sound):
            self.save()
            self.best.kept_epoch = epoch


class AverageWeights(keras.callbacks.Callback):
    """Puts the moving average of the weights into the model at the end of each epoch.

    It is what is validated and kept. `back`, a second callback to come after the one that keeps,
    puts the weights that go on training back in. After the stage the average stays in: Keras itself
    does that when `fit` ends, early or not. (Its SwapEMAWeights does it after the last planned
    epoch alone.) Moving statistics of batch norm are in the model as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.back = keras.callbacks.LambdaCallback(on_epoch_end=self._put_back)
        self._trained: list[np.ndarray] | None = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._put_in()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._put_in()  # without validation photos nothing did before

    def _put_in(self) -> None:
        if self._trained is not None:
            return
        optimizer = self.model.optimizer
        # Under mixed_float16 Keras wraps it, to scale the loss.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        averages = optimizer._model_variables_moving_average
        averages = [keras.ops.convert_to_numpy(average) for average in averages]
        variables = self.model.trainable_variables
        self._trained = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average)

    def _put_back(self, epoch: int, logs: dict | None = None) -> None:
        for variable, value in zip(self.model.trainable_variables, self._trained, strict=True):
            variable.assign(value)
        self._trained = None


class History(keras.callbacks.Callback):
    """A row an epoch over all stages, on disk after each epoch.

    Args:
        path: The CSV file.
    """

    COLUMNS = (
        "stage", "epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy",
        "seconds", "images_per_second",
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict] = []
        self.stage = ""
        self.photos_per_epoch = 0
        self.steps_per_epoch = 0
        self.first_epoch = 0  # epochs before this stage
        self.first_step = 0  # steps of the epoch that were done before it was gone on with

    def start_stage(
        self, stage: str, photos_per_epoch: int, steps_per_epoch: int, epochs_done: int = 0
    ) -> None:
        """Names the stage of the rows to come; some of its epochs may be there already."""
        self.stage = stage
        self.first_epoch = len(self.rows) - epochs_done
        self.photos_per_epoch = photos_per_epoch
        self.steps_per_epoch = steps_per_epoch

    def frame(self) -> pd.DataFrame:
        """All rows; `epoch` counts over all stages from 1."""
        return pd.DataFrame(self.rows, columns=self.COLUMNS)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.perf_counter()
        self._trained = None
        self._steps = 0
        learning_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self._learning_rate = float(f"{float(learning_rate):.6g}")  # float32

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        steps = self.first_step + batch + 1
        self._steps = min(steps, self.steps_per_epoch)  # the last execution may be a short one

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        now = time.perf_counter()
        training_seconds = (self._trained or now) - self._started
        photos = self.photos_per_epoch * self._steps / self.steps_per_epoch  # fewer after Ctrl-C
        self.add(
            logs
            | {
                "learning_rate": self._learning_rate,
                "seconds": round(now - self._started, 2),
                "images_per_second": round(photos / training_seconds, 1),
            }
        )

    def add(self, values: dict) -> None:
        """Adds a row of these, the stage and the number of the epoch, and writes the file."""
        self.rows.append(
            {name: values.get(name) for name in self.COLUMNS}
            | {"stage": self.stage, "epoch": len(self.rows) + 1}
        )
        self.write()

    def write(self) -> None:
        """Writes all rows."""
        with replacing(self.path) as temporary:
            self.frame().to_csv(temporary, index=False)

    def begun(self) -> dict[str, float]:
        """What is known of the epoch that runs, for `go_on`."""
        seconds = time.perf_counter() - self._started
        return {"learning_rate": self._learning_rate, "seconds": seconds}

    def go_on(self, begun: dict[str, float]) -> None:
        """Goes on with an epoch that was begun in another process, as if in one piece."""
        self._learning_rate = begun["learning_rate"]
        self._started -= begun["seconds"]


class ProgressLine(keras.callbacks.Callback):
    """A bar while an epoch runs on a terminal, and a line when it is over, anywhere.

    Args:
        history: Where the numbers come from; must come before this in the list of callbacks.
        say: Takes the line.
        title: Of the stage.
        epochs: Of the stage.
        epochs_after: Of the stages to come, in epochs that take as long as one of this stage.
        steps: An epoch.
    """

    def __init__(
        self, history: History, say: Callable[[str], None], title: str, epochs: int,
        epochs_after: float, steps: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.history = history
        self.say = say
        self.title = title
        self.epochs = epochs
        self.epochs_after = epochs_after
        self.steps = steps
        self.seconds: list[float] = []
        self._bar: Progress | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._bar = progress_bar()
        self._bar.start()
        description = f"{self.title} epoch {epoch + 1}/{self.epochs}"
        self._task = self._bar.add_task(description, total=self.steps, note="")
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._bar.disable:
            return
        seconds = time.perf_counter() - self._started
        done = min(batch + 1, self.steps)  # with several steps an execution, the last may be short
        rate = self.history.photos_per_epoch * done / self.steps / seconds
        self._bar.update(self._task, completed=done, note=f"{rate:.0f} photos/s")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.stop()
        row = self.history.rows[-1]
        self.seconds.append(row["seconds"])
        # The first epoch of a stage pays for building its graph: leave it out where possible.
        usual = self.seconds[1:] or self.seconds
        left = (self.epochs - epoch - 1 + self.epochs_after) * sum(usual) / len(usual)
        measured = "   ".join(
            f"{name} {row[name]:.4f}"
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
            if row[name] is not None
        )
        self.say(
            f"{self.title} epoch {epoch + 1:>2}/{self.epochs}   {measured}   "
            f"lr {row['learning_rate']:.2g}   {row['images_per_second']:.0f} photos/s   "
            f"{duration(left)} left"
        )

    def close(self) -> None:
        """Takes the bar of an epoch that did not end off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs: dict | None = None) -> None:
        self.close()


class StopOnSignal(keras.callbacks.Callback):
    """Ctrl-C (or SIGTERM) once: stop after this batch, measure and save. Twice: stop at once.

    Use it as a context manager around all stages.

    Args:
        say: Takes the line.
        steps_per_execution: Batches that run without a look at this.

    Attributes:
        requested: Whether a stop was asked for.
    """

    def __init__(self, say: Callable[[str], None], steps_per_execution: int = 1) -> None:
        super().__init__()
        self.say = say
        self.steps_per_execution = steps_per_execution
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():  # others cannot take signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        steps = self.steps_per_execution
        when = "after this batch" if steps == 1 else f"within {steps} batches"
        self.say(
            f"\nStopping {when}: measuring and saving what was reached. Ctrl-C again stops at once."
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.requested:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.requested:  # asked for while it validated
            self.model.stop_training = True
