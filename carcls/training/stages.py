"""One stage of a run: freeze, compile, fit, and what watches it meanwhile."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from carcls import run as files
from carcls.backend import keras
from carcls.config import StageConfig, TrainConfig
from carcls.models.classifier import backbone_of, save_classifier
from carcls.models.freezing import freeze
from carcls.runtime import uses_xla
from carcls.training.callbacks import Best, History, KeepWeights, ProgressLine, StopOnSignal
from carcls.training.epochs import Epochs
from carcls.training.feed import Feed
from carcls.training.inputs import Inputs
from carcls.training.optimizers import build_optimizer, schedule_callbacks

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
    fits: dict[str, dict] = field(default_factory=dict)  # on cached features, for run.json
    changes: list[str] = field(default_factory=list)  # what was not done as asked, in words

    @property
    def model_path(self) -> Path:
        return self.workdir / files.MODEL

    def save(self) -> None:
        save_classifier(self.model, self.info, self.model_path)


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
    freeze(backbone_of(model), stage.trainable, config.finetune.batch_norm)
    if config.augmentation.mixes:  # labels are shares of classes then, see `carcls.data.mixing`
        loss = keras.losses.CategoricalCrossentropy()
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy()
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    fitted = keras.Model(model.input, model.output)
    fitted.compile(
        optimizer=build_optimizer(
            config.optimizer,
            config.schedule,
            stage.learning_rate,
            steps=stage.epochs * steps_per_epoch,
        ),
        loss=loss,
        metrics=[accuracy],
        jit_compile=uses_xla(config.runtime),
        run_eagerly=config.runtime.eager,
        steps_per_execution=config.runtime.steps_per_execution,
    )
    return fitted


def run_stage(
    session: Session, name: str, stage: StageConfig, title: str, stop: StopOnSignal
) -> None:
    """Trains one stage, and adds what it reached to the session, also when it is cut short.

    Args:
        session: The run; its model is trained.
        name: Of the stage.
        stage: What it is.
        title: For the lines on the terminal.
        stop: Of the whole run.
    """
    config, inputs, history = session.config, session.inputs, session.history
    if stage.feature_views:
        from carcls.training.feature_stage import run_feature_stage  # scikit-learn takes a second

        started = time.perf_counter()
        if run_feature_stage(session, name, stage, title, stop):
            val_accuracy = history.rows[-1]["val_accuracy"]
            seconds = round(time.perf_counter() - started, 1)
            session.stages.append(
                StageResult(name=name, epochs=1, val_accuracy=val_accuracy, seconds=seconds)
            )
        return
    train_loader, val_loader = inputs.train(stage), inputs.val(stage)
    session.info.image_size = stage.image_size or config.image_size
    fitted = compile_stage(session.model, config, stage, len(train_loader))
    history.start_stage(name, len(train_loader.indices), len(train_loader))
    first_epoch = len(history.rows)
    started = time.perf_counter()
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
    try:
        fitted.fit(
            train_batches,
            steps_per_epoch=len(train_loader),
            validation_data=val_batches,
            validation_steps=None if val_loader is None else len(val_loader),
            epochs=stage.epochs,
            shuffle=False,  # the loader does
            verbose=0,
            callbacks=[around_batches, *_callbacks(session, name, stage, title, stop)],
        )
    except Exception:
        errors = [feed.error for feed in feeds if feed.error is not None]
        if errors:  # why a photo or a process failed; the backend's own error hides it
            raise errors[0] from None
        raise
    finally:
        for feed in feeds:
            feed.close()
        rows = history.rows[first_epoch:]
        if rows:
            session.stages.append(
                StageResult(
                    name=name,
                    epochs=len(rows),
                    val_accuracy=max(row["val_accuracy"] for row in rows) if val_loader else None,
                    seconds=round(time.perf_counter() - started, 1),
                )
            )


def _callbacks(
    session: Session, name: str, stage: StageConfig, title: str, stop: StopOnSignal
) -> list[keras.callbacks.Callback]:
    config, history = session.config, session.history
    plan = config.finetune
    names = list(plan.stages)
    epochs_after = sum(plan.stages[n].epochs for n in names[names.index(name) + 1 :])
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        history,
        KeepWeights(session.save, session.best, plan.keep, len(history.rows)),
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
