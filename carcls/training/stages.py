"""One stage of a run: freeze, compile, fit, and what watches it meanwhile."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carcls import run as files
from carcls.backend import keras
from carcls.config import StageConfig, TrainConfig
from carcls.models.classifier import backbone_of, save_classifier
from carcls.models.folding import fold_batch_norm
from carcls.models.freezing import freeze, keep_every_block, learning_rate_shares
from carcls.runtime import uses_xla
from carcls.training.callbacks import (
    AverageWeights,
    Best,
    History,
    KeepWeights,
    ProgressLine,
    StopOnSignal,
)
from carcls.training.checkpoints import Checkpoints, StageCheckpoint
from carcls.training.divergence import Divergence, StopWhenNotFinite
from carcls.training.epochs import Epochs
from carcls.training.feed import Feed
from carcls.training.inputs import Inputs
from carcls.training.optimizers import build_optimizer, schedule_callbacks
from carcls.training.parallel import Devices, model_to_fit
from carcls.training.soup import Soup
from carcls.training.timing import epochs_alike

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class StageResult:
    """What one stage reached, as `metrics.json` lists it."""

    name: str
    epochs: int
    val_accuracy: float | None  # of its best epoch; None without validation photos
    seconds: float


@dataclass(kw_only=True)
class Session:
    """One run while it trains: everything that goes through all of its stages."""

    config: TrainConfig
    workdir: Path
    inputs: Inputs
    model: keras.Model
    info: files.ModelInfo
    best: Best
    history: History
    stages: list[StageResult] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)  # of the plan, as `run.json` lists them
    facts: dict[str, Any] = field(default_factory=dict)  # whatever else `run.json` is to say
    divergence: Divergence | None = None  # where the loss became NaN or infinite
    was_halved: bool = False  # the batch, for want of memory
    device: str = ""
    devices: Devices = field(default_factory=Devices)
    preflight: Callable[..., None] | None = None  # before the first step of the first stage
    soup: Soup = field(default_factory=Soup)
    checkpoints: Checkpoints | None = None  # set when the training starts

    @property
    def model_path(self) -> Path:
        return self.workdir / files.MODEL

    def save(self) -> None:
        save_classifier(self.model, self.info, self.model_path)

    def tell_change(self, change: str, more: str = "") -> None:
        """Notes for `run.json` what goes another way than asked for, and says it."""
        self.changes.append(change)
        log.warning(f"WARNING: {change}.{more}")


def compile_stage(
    model: keras.Model, config: TrainConfig, stage: StageConfig, steps_per_epoch: int
) -> keras.Model:
    """Freezes the classifier as a stage says, and compiles it.

    Args:
        model: What `build_classifier` gave.
        config: Of the run.
        stage: Which, with its learning rate and the share that trains.
        steps_per_epoch: Batches an epoch, which a schedule counts.

    Returns:
        A second model over the same layers, to be fitted: the first one carries no optimizer.
    """
    backbone = backbone_of(model)
    freeze(backbone, stage.trainable, config.finetune.batch_norm)
    if not config.finetune.stochastic_depth:
        keep_every_block(backbone)
    fold_batch_norm(backbone, only_frozen=True)
    if config.labels_are_shares(stage):
        loss = keras.losses.CategoricalCrossentropy()
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy()
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    fitted = model_to_fit(model)
    fitted.compile(
        optimizer=build_optimizer(
            config.optimizer,
            config.schedule,
            stage.learning_rate,
            steps=stage.epochs * steps_per_epoch,
            accumulation=config.gradient_accumulation,
            ema_span=stage.ema_span,
            shares=learning_rate_shares(backbone, stage.bottom_rate)
            if stage.bottom_rate < 1
            else None,
        ),
        loss=loss,
        metrics=[accuracy],
        jit_compile=uses_xla(config.runtime),
        run_eagerly=config.runtime.eager,
        steps_per_execution=config.runtime.steps_per_execution,
    )
    return fitted


def run_stage(session: Session, name: str, title: str, stop: StopOnSignal) -> None:
    """Trains one stage, or what an earlier process left of it, and adds it to the session's.

    It does so also when it is cut short.

    Args:
        session: The run; its model is trained.
        name: Of the stage, in the session's plan as it is by now.
        title: For the lines on the terminal.
        stop: Of the whole run.
    """
    config, inputs, history = session.config, session.inputs, session.history
    stage = config.finetune.stages[name]
    if stage.feature_views:
        from carcls.training.feature_stage import run_feature_stage  # SciPy takes a moment

        started = time.perf_counter()
        if run_feature_stage(session, name, stage, title, stop):
            val_accuracy = history.rows[-1]["val_accuracy"]
            seconds = round(time.perf_counter() - started, 1)
            session.stages.append(
                StageResult(name=name, epochs=1, val_accuracy=val_accuracy, seconds=seconds)
            )
        return
    if stage.soup > 1:
        from carcls.training.soup_stage import run_soup_stage  # which imports this module

        run_soup_stage(session, name, stage, title)
        return
    train_loader, val_loader = inputs.train(stage), inputs.val(stage)
    session.info.image_size = stage.image_size or config.image_size
    fitted = compile_stage(session.model, config, stage, len(train_loader))
    number = list(config.finetune.stages).index(name) + 1
    epochs_done = session.checkpoints.epochs_done(number)
    history.start_stage(name, len(train_loader.indices), len(train_loader), epochs_done)
    first_epoch = history.first_epoch
    feeds = [Feed(train_loader, first_epoch * len(train_loader))]
    train_batches, val_batches = Epochs(feeds[0], len(train_loader)), None
    if val_loader is not None:
        feeds.append(Feed(val_loader))
        val_batches = Epochs(feeds[1], len(val_loader))

    def raise_error(batch: int, logs: dict | None = None) -> None:
        """What went wrong with the next batch; the backend would first use up those before it."""
        for feed in feeds:
            if feed.error is not None:
                raise feed.error

    around_batches = keras.callbacks.LambdaCallback(
        on_epoch_begin=train_batches.start,
        on_train_batch_end=raise_error,
        on_test_batch_end=raise_error,
    )
    guard = StopWhenNotFinite(train_batches, inputs.records, name, first_epoch)
    watching = _callbacks(session, name, stage, title, stop)
    checkpoint = StageCheckpoint(
        session.checkpoints,
        number,
        stage.epochs,
        train_batches,
        [around_batches, guard, *watching],
        stop,
    )
    try:
        if session.preflight is not None:
            session.preflight(session, fitted, name, train_loader)
            session.preflight = None
        checkpoint.fit(
            fitted,
            validation_data=val_batches,
            validation_steps=None if val_loader is None else len(val_loader),
            shuffle=False,  # the loader does
            verbose=0,
        )
    except Exception:
        errors = [feed.error for feed in feeds if feed.error is not None]
        if errors:  # why a photo or a process failed; the backend's own error hides it
            raise errors[0] from None
        raise
    finally:
        for callback in watching:
            if isinstance(callback, ProgressLine):  # which an error leaves on the screen
                callback.close()
        for feed in feeds:
            feed.close()
        session.divergence = guard.found
        rows = history.rows[first_epoch:]
        if rows:
            session.stages.append(
                StageResult(
                    name=name,
                    epochs=len(rows),
                    val_accuracy=max(row["val_accuracy"] for row in rows) if val_loader else None,
                    seconds=round(checkpoint.seconds, 1),
                )
            )


def _callbacks(
    session: Session, name: str, stage: StageConfig, title: str, stop: StopOnSignal
) -> list[keras.callbacks.Callback]:
    config, history = session.config, session.history
    plan = config.finetune
    epochs_after = epochs_alike(config, name)
    average = [AverageWeights()] if stage.ema_span else []
    callbacks = [
        *average,  # before what looks at the epoch and keeps it
        history,
        KeepWeights(session.save, session.best, plan.keep, history.first_epoch),
        *(callback.back for callback in average),
        ProgressLine(history, log.info, title, stage.epochs, epochs_after, history.steps_per_epoch),
        stop,
    ]
    if stage.runs("plateau"):
        callbacks += schedule_callbacks(config.schedule)
    if plan.early_stopping_patience and stage.runs("early_stopping"):
        callbacks.append(
            keras.callbacks.EarlyStopping(plan.monitor, patience=plan.early_stopping_patience)
        )
    if config.runtime.tensorboard and stage.runs("tensorboard"):
        folder = session.workdir / files.TENSORBOARD / name
        callbacks.append(keras.callbacks.TensorBoard(str(folder), profile_batch=0))
    return callbacks
