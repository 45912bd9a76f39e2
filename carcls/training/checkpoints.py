"""What a run is made of while it trains, written as generations and put back.

A generation holds the variables of the network (BatchNorm's statistics and the state of every
dropout included), those of the optimizer (moments, averages, iterations, learning rate), the random
state of the process, what the callbacks remember, the rows of the history and the best epoch; of a
soup its start and the sum of its trainings; in the middle of an epoch also the running loss and
accuracy. The batches need nothing: they are a function of the seed and of their number.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from carcls import run as files
from carcls.errors import UserError
from carcls.training import generations
from carcls.training.epochs import Epochs
from carcls.training.generations import Generation
from carcls.training.resume import open_session
from carcls.training.soup import Soup

if TYPE_CHECKING:
    from carcls.training.callbacks import StopOnSignal
    from carcls.training.inputs import Inputs
    from carcls.training.stages import Session

# What Keras' callbacks remember from epoch to epoch; they forget it when `fit` starts.
_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("best", "wait", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
}


class Checkpoints:
    """The generations of one run, from its start or from where it is gone on with.

    Args:
        session: The run.
        resumed: What it goes on from; None at its start.
        started: `time.perf_counter()` at the start of this process' part.
    """

    def __init__(self, session: Session, resumed: Generation | None, started: float) -> None:
        self.session = session
        self.folder = session.workdir / files.STAGES
        self.resumed = resumed
        self.started = started
        state = resumed and resumed.state
        self.sessions = open_session(session.workdir, state, self.where())
        self.lost_before_stage: dict[int, str] = {}
        self.photos = _digest(session.inputs)

    def where(self) -> str:
        """Where the run goes on, in words."""
        if self.resumed is None:
            return "the start"
        state, names = self.resumed.state, list(self.session.config.finetune.stages)
        if state["stage"] > len(names):
            return "the end of its last stage"
        stage = f"stage {state['stage']}/{len(names)} {names[state['stage'] - 1]}"
        if state["is_over"]:
            return f"the end of {stage}"
        step = f", step {state['step'] + 1}" if state["step"] else ""
        return f"{stage}, epoch {state['epoch'] + 1}{step}"

    def close_session(self) -> list[dict[str, Any]]:
        """Notes how long this process has trained. Returns all sessions, for `run.json`."""
        self.sessions[-1]["seconds"] = round(time.perf_counter() - self.started, 1)
        return self.sessions

    @property
    def seconds(self) -> float:
        """What the run has taken, in all processes."""
        earlier = sum(session["seconds"] or 0.0 for session in self.sessions[:-1])
        return earlier + time.perf_counter() - self.started

    def put_back(self) -> None:
        """Puts the session where the generation says that it was, but for its optimizer.

        Raises:
            UserError: If the network or the photos are others than the run's.
        """
        workdir = self.session.workdir
        if len(self.sessions) > 1:
            _remove_half_written(workdir)
            outdated = [files.METRICS, files.VAL_PREDICTIONS, files.CURVES]
            outdated += [files.MODEL, files.HISTORY] if self.resumed is None else []
            for name in outdated:  # they are of epochs that are trained again
                (workdir / name).unlink(missing_ok=True)
        if self.resumed is None:
            return
        from carcls.training.stages import StageResult  # which imports this module

        state, session = self.resumed.state, self.session
        if self.photos != state["photos"]:
            raise UserError(
                "Expected the same photos to train on and to validate with as when the run began. "
                "Received others, though the data's own list of them has not changed: a photo "
                "that could be opened then cannot be opened now, or the other way round. Put the "
                "data back as it was, or start a new run."
            )
        if self.resumed.model is not None:
            generations.put_in_place(self.resumed.model, session.model_path)
        else:
            session.model_path.unlink(missing_ok=True)
        _assign(session.model.variables, self._arrays("model"), "the network")
        _set_random_state(state["random"], self._arrays("random"))
        session.soup = Soup(self._arrays("start"), self._arrays("total"))
        session.history.rows = state["rows"]
        session.history.write()
        best = state["best"]
        session.best.key = None if best["key"] is None else tuple(best["key"])
        session.best.epoch, session.best.kept_epoch = best["epoch"], best["kept_epoch"]
        session.stages = [StageResult(**stage) for stage in state["stages"]]
        session.inputs.photos.errors |= _with_int_keys(state["lost_before_stage"])

    def is_done(self, stage: int) -> bool:
        """Whether a stage, counted from 1, was over already."""
        return self.resumed is not None and stage < self.resumed.state["stage"]

    def within(self, stage: int) -> Generation | None:
        """The generation that lies inside of a stage, counted from 1; None if none does."""
        if self.resumed is None or stage != self.resumed.state["stage"]:
            return None
        return self.resumed if self.resumed.state["has_begun"] else None

    def epochs_done(self, stage: int) -> int:
        """Epochs of a stage, counted from 1, that are complete."""
        within = self.within(stage)
        return 0 if within is None else within.state["epoch"]

    def note_lost(self, pending: Generation | None) -> None:
        """Notes, when a stage has its loaders, which photos these leave out.

        Photos that were lost since then are not left out before the next stage: another photo of
        their batch stands in, as it did before.
        """
        inputs = self.session.inputs
        self.lost_before_stage = dict(inputs.lost)
        if pending is not None:
            inputs.photos.errors |= _with_int_keys(pending.state["lost"])

    def end_stage(self, stage: int) -> None:
        """Notes that a stage, counted from 1, is over: the next one starts from here."""
        self.resumed = None
        self.write(stage=stage + 1, has_begun=False)

    def write(
        self,
        *,
        stage: int,
        has_begun: bool,
        epoch: int = 0,
        step: int = 0,
        is_over: bool = False,
        stage_seconds: float = 0.0,
        fitted: keras.Model | None = None,
        callbacks: list[dict[str, Any] | None] | None = None,
        begun_epoch: dict[str, float] | None = None,
    ) -> None:
        """Writes a generation.

        Args:
            stage: Where the run is, counted from 1; one more than there are: after the last.
            has_begun: False between two stages.
            epoch: Epochs of the stage that are complete.
            step: Steps of the next epoch that are done.
            is_over: Whether the stage has no more epochs, planned or stopped early.
            stage_seconds: That the stage has taken.
            fitted: The network as it is fitted, with its optimizer; None between two stages.
            callbacks: What each of the stage's remembers.
            begun_epoch: What the history knows of an epoch that is not complete.
        """
        session = self.session
        of_random, random_arrays = _random_state()
        variables = {"model": session.model.variables}
        if fitted is not None:
            variables["optimizer"] = fitted.optimizer.variables
            variables["metrics"] = fitted.metrics_variables if step else []
        arrays = {
            name: [keras.ops.convert_to_numpy(variable) for variable in some]
            for name, some in variables.items()
        } | {"random": random_arrays, "start": session.soup.start, "total": session.soup.total}
        best = session.best
        state = {
            "stage": stage,
            "has_begun": has_begun,
            "epoch": epoch,
            "step": step,
            "is_over": is_over,
            "stage_seconds": stage_seconds,
            "session": len(self.sessions),
            "seconds": time.perf_counter() - self.started,
            "callbacks": callbacks,
            "begun_epoch": begun_epoch,
            "rows": session.history.rows,
            "best": {"key": best.key, "epoch": best.epoch, "kept_epoch": best.kept_epoch},
            "stages": [vars(result) for result in session.stages],
            "photos": self.photos,
            "lost_before_stage": self.lost_before_stage if has_begun else session.inputs.lost,
            "lost": session.inputs.lost,
            "was_halved": session.was_halved,
            "random": of_random,
            "arrays": {name: len(some) for name, some in arrays.items()},
        }
        generations.write(
            self.folder,
            state,
            [array for some in arrays.values() for array in some],
            session.model_path if best.kept_epoch else None,
        )

    def _arrays(self, name: str) -> list[np.ndarray]:
        return arrays_of(self.resumed, name)


class StageCheckpoint(keras.callbacks.Callback):
    """Writes generations of one stage and puts one back; the last callback of its `fit`.

    Args:
        checkpoints: Of the run.
        number: Of the stage, counted from 1.
        epochs: Planned for the stage.
        batches: That it trains on.
        watched: The callbacks before this one.
        stop: Of the whole run.
    """

    def __init__(
        self, checkpoints: Checkpoints, number: int, epochs: int, batches: Epochs,
        watched: list[keras.callbacks.Callback], stop: StopOnSignal,
    ) -> None:  # fmt: skip
        super().__init__()
        self.checkpoints = checkpoints
        self.number = number
        self.epochs = epochs
        self.batches = batches
        self.watched = watched
        self.stop = stop
        self.minutes = checkpoints.session.config.runtime.checkpoint_minutes
        self.pending = checkpoints.within(number)
        checkpoints.note_lost(self.pending)
        seconds = self.pending.state["stage_seconds"] if self.pending else 0.0
        self.started = time.perf_counter() - seconds  # of the stage, as if it had been in one piece

    @property
    def seconds(self) -> float:
        """That the stage has taken, in all processes."""
        return time.perf_counter() - self.started

    def fit(self, fitted: keras.Model, **options: Any) -> None:
        """`fitted.fit(batches)` for the stage's epochs, or for those that are left of them."""
        options["callbacks"] = [*self.watched, self]
        start = self.pending.state if self.pending else {"epoch": 0, "step": 0, "is_over": False}
        if start["step"]:  # the rest of an epoch comes in a `fit` of its own: it has fewer steps
            self.batches.skipped = start["step"]
            self._fit(fitted, start["epoch"], start["epoch"] + 1, options)
            if fitted.stop_training or start["epoch"] + 1 == self.epochs:
                return
            # Its end has made the averages of the optimizer, if it keeps any, the weights.
            self.pending = generations.newest(self.checkpoints.folder)
            self.batches.skipped = 0
            start = self.pending.state
        self._fit(fitted, self.epochs if start["is_over"] else start["epoch"], self.epochs, options)

    def _fit(self, fitted: keras.Model, first: int, epochs: int, options: dict[str, Any]) -> None:
        steps = self.batches.num_batches
        fitted.fit(
            self.batches, steps_per_epoch=steps, initial_epoch=first, epochs=epochs, **options
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """After those of the other callbacks, which forget everything in theirs."""
        if self.pending is None:
            return
        optimizer, session = self.model.optimizer, self.checkpoints.session
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        _assign(session.model.variables, arrays_of(self.pending, "model"), "the network")
        _assign(optimizer.variables, arrays_of(self.pending, "optimizer"), "the optimizer")
        _set_random_state(self.pending.state["random"], arrays_of(self.pending, "random"))
        for callback, values in zip(self.watched, self.pending.state["callbacks"], strict=True):
            for name, value in (values or {}).items():
                setattr(callback, name, value)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """After Keras has reset the metrics and the history has noted the learning rate."""
        self._epoch = epoch
        self._is_cut = False
        self._written = time.perf_counter()
        history = self.checkpoints.session.history
        history.first_step = self.batches.skipped
        if self.pending is not None and self.batches.skipped:
            self._build_metrics()
            metrics = arrays_of(self.pending, "metrics")
            _assign(self.model.metrics_variables, metrics, "the metrics")
            history.go_on(self.pending.state["begun_epoch"])
        self.pending = self.checkpoints.resumed = None

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        done = self.batches.skipped + batch + 1
        if done >= self.batches.steps or not math.isfinite(logs.get("loss", 0.0)):
            return  # a loss that is none will not become one again
        now = time.perf_counter()
        if self.stop.requested or (self.minutes and now - self._written >= 60 * self.minutes):
            self._is_cut = self.stop.requested
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            begun = self.checkpoints.session.history.begun()
            self._write(epoch=self._epoch, step=done, begun_epoch=begun)
            self._written = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # What Ctrl-C has left of an epoch is measured and shown, and trained again from there.
        if self._is_cut or not math.isfinite(logs.get("loss", 0.0)):
            return
        has_stopped = any(getattr(callback, "stopped_epoch", 0) for callback in self.watched)
        self._write(epoch=epoch + 1, is_over=epoch + 1 == self.epochs or has_stopped)

    def _write(self, **where: Any) -> None:
        remembered = [
            {name: getattr(callback, name) for name in names}
            if (names := _REMEMBERED.get(type(callback)))
            else None
            for callback in self.watched
        ]
        self.checkpoints.write(
            stage=self.number,
            has_begun=True,
            stage_seconds=self.seconds,
            fitted=self.model,
            callbacks=remembered,
            **where,
        )

    def _build_metrics(self) -> None:
        """Makes the metrics' variables, which Keras does with the first batch."""
        labels = keras.ops.convert_to_tensor(self.batches[0][1])
        num_classes = self.model.output_shape[-1]
        probs = keras.ops.full((labels.shape[0], num_classes), 1 / num_classes)
        self.model.compute_metrics(None, labels, probs)


def arrays_of(generation: Generation, name: str) -> list[np.ndarray]:
    """Those of the network, the optimizer, the metrics or the random state."""
    start = 0
    for other, count in generation.state["arrays"].items():
        if other == name:
            return generation.arrays[start : start + count]
        start += count
    return []


def _assign(variables: list[keras.Variable], values: list[np.ndarray], of: str) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise UserError(
            f"Expected {of} of the run, {len(values)} variables. Received: {len(variables)} or "
            "others by shape. Go on with the versions of carcls and Keras that are in run.json, or "
            "start a new run."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _random_state() -> tuple[dict[str, Any], list[np.ndarray]]:
    """Of Python and of NumPy, which what is built later on may draw its seeds from."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    numpy_rest = [position, has_gauss, cached]
    return {"python": [version, gauss], "numpy": numpy_rest}, [np.array(words, np.uint64), keys]


def _set_random_state(state: dict[str, Any], arrays: list[np.ndarray]) -> None:
    words, keys = arrays
    version, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state(("MT19937", keys, *state["numpy"]))


def _digest(inputs: Inputs) -> str:
    """A hash of which photos train and which validate, in their order, with their labels."""
    table, digest = inputs.records.table, hashlib.sha256(inputs.is_val.tobytes())
    digest.update(table.label.to_numpy(np.int64).tobytes())
    digest.update("\0".join(map(str, table.id)).encode())
    return digest.hexdigest()


def _with_int_keys(values: dict[str, str]) -> dict[int, str]:
    return {int(key): value for key, value in values.items()}


def _remove_half_written(workdir: Path) -> None:
    """Removes what `carcls.run.replacing` could not because its process was killed."""
    for path in workdir.glob(".*"):
        if re.fullmatch(r"\.\w+-\d+\.\w+", path.name) and path.is_file():
            path.unlink(missing_ok=True)
    generations.remove(workdir / files.STAGES, ".*")
