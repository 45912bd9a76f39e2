"""A stage on cached features: the backbone once for each view, then the head to convergence.

Before the backbone is trained it gives the head to begin with. After that it fits the head anew, to
photos as they are and labels as they are, where training had crops and smoothed labels (Touvron et
al., 2019, Fixing the train-test resolution discrepancy, fine-tune the classifier likewise).
"""

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from carcls import run as files
from carcls.config import StageConfig
from carcls.console import duration
from carcls.data.balance import class_weights
from carcls.errors import UserError
from carcls.training.callbacks import KeepWeights, StopOnSignal
from carcls.training.features import POOL, Features, get_features, number_of_views
from carcls.training.head_fit import Choice, fit_head, head_of, unchosen

if TYPE_CHECKING:
    from carcls.training.stages import Session

log = logging.getLogger(__name__)


class _StopError(Exception):
    """Somebody asked for it."""


def run_feature_stage(
    session: "Session", name: str, stage: StageConfig, title: str, stop: StopOnSignal
) -> bool:
    """Fits the session's head on `stage.feature_views` views; adds a row to the history.

    Args:
        session: The run; its model's head is fitted, the backbone stays.
        name: Of the stage.
        stage: What it is.
        title: For the lines on the terminal.
        stop: Of the whole run; asked for in the middle, the head stays as it was.

    Returns:
        Whether it came to its end. A head that was fitted anew is not kept if it has a higher loss
        on the validation photos than the one before, nor fitted where memory lacks.

    Raises:
        UserError: See `number_of_views` and `get_features`.
    """
    config, history = session.config, session.history
    started = time.perf_counter()
    session.info.image_size = stage.image_size or config.image_size
    is_trained = any(earlier.trainable for earlier in _stages_before(session, name).values())
    num_views = _num_views(session, name, stage, title, is_trained)
    if num_views is None:
        return False

    def check() -> None:
        if stop.requested:
            raise _StopError

    head = head_of(session.model)
    before = head.get_weights()
    try:
        features = get_features(
            session.model, session.inputs, stage, num_views, title, check, is_shared=not is_trained
        )
        fit_started = time.perf_counter()
        # Balanced draws of photos have the same loss, on average, as weights.
        is_balanced = config.data.balance != "none"
        weights = class_weights(features.labels, head.output_shape[1]) if is_balanced else None
        choice = fit_head(
            head,
            features,
            learning_rate=stage.learning_rate,
            seed=config.seed,
            class_weights=weights,
            settled=_settled(session, name, head) if is_trained else None,
            eager=config.runtime.eager,
            check=check,
        )
    except _StopError:
        head.set_weights(before)
        return False
    fit_seconds = time.perf_counter() - fit_started
    logs = _measured(head, features, weights, config.runtime.eager)
    history.start_stage(name, features.views.shape[0] * features.views.shape[1], 1)
    history.add(
        {
            **logs,
            "learning_rate": None if choice.epochs is None else stage.learning_rate,
            "seconds": round(time.perf_counter() - started, 2),
            "images_per_second": round(history.photos_per_epoch / features.seconds, 1),
        }
    )
    session.facts.setdefault("head_fits", {})[name] = {
        "views": len(features.views),
        "photos": len(features.labels),
        "features_found": features.found,
        "features_seconds": round(features.seconds, 2),
        "fit_seconds": round(fit_seconds, 2),
        **choice.facts(),
    }
    files.add_to_json(session.workdir / files.RUN, head_fits=session.facts["head_fits"])
    _say(title, features, choice, fit_seconds, logs)
    if is_trained and config.finetune.keep == "best" and features.val is not None:
        if was_better := _what_was_better(session, logs):
            session.tell_change(
                f"finetune.stages.{name}: the head that was fitted anew was not kept, {was_better}"
            )
            head.set_weights(before)
            return True
        session.best.key = None  # the best accuracy of many epochs looks better than it is
    keep = KeepWeights(session.save, session.best, config.finetune.keep, len(history.rows) - 1)
    keep.on_epoch_end(0, logs)
    return True


def _num_views(
    session: "Session", name: str, stage: StageConfig, title: str, is_trained: bool
) -> int | None:
    """How many views a photo; None where what comes after training has no room for even one."""
    channels = session.model.get_layer(POOL).output.shape[1]
    num_photos = int(np.sum(~session.inputs.is_val))
    try:
        num_views, change = number_of_views(session.config, stage, num_photos, channels)
    except UserError:
        if not is_trained:
            raise
        # What was trained for hours must not end in an error.
        session.tell_change(
            f"finetune.stages.{name}: the head is not fitted anew, the features of {num_photos} "
            "photos would take more than a fifth of the memory"
        )
        return None
    if change is not None:
        session.changes.append(f"finetune.stages.{name}.{change}")
        log.info(f"{title}: {change}.")
    return num_views


def _what_was_better(session: "Session", logs: dict[str, float]) -> str | None:
    """Why a head that was fitted anew is not worth keeping, in words; None if it is."""
    epoch = session.best.kept_epoch
    if not epoch:
        return None
    value, kept = logs["val_loss"], session.history.rows[epoch - 1]["val_loss"]
    if value < kept:
        return None
    return f"its val_loss is {value:.4f}, that of epoch {epoch} {kept:.4f}"


def _stages_before(session: "Session", name: str) -> dict[str, StageConfig]:
    """Of the plan, in order."""
    stages = session.config.finetune.stages
    names = list(stages)
    return {other: stages[other] for other in names[: names.index(name)]}


def _settled(session: "Session", name: str, head: keras.Model) -> Choice:
    """What regularises a head whose backbone has been trained: what was chosen before it was."""
    fits = session.facts.get("head_fits", {})
    for other in _stages_before(session, name):
        if other in fits:
            value, epochs = fits[other]["value"], fits[other]["epochs"]
            return replace(unchosen(head, f"as in {other}"), value=value, epochs=epochs)
    return unchosen(head, "since photos that trained the backbone cannot choose it")


def _measured(
    head: keras.Model, features: Features, weights: np.ndarray | None, eager: bool
) -> dict[str, float]:
    """Loss and accuracy of the head on all views, and on the validation photos if there are any.

    As in other stages class weights count in the loss of what trains, and nowhere else.
    """
    head.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        run_eagerly=eager,
        jit_compile=False,
    )
    views = features.views
    labels = np.tile(features.labels, len(views))
    of_photos = None if weights is None else weights[labels]
    parts = {"": (views.reshape(-1, views.shape[2]), labels, of_photos)}
    if features.val is not None:
        parts["val_"] = (features.val, features.val_labels, None)
    logs = {}
    for prefix, (rows, labels, of_rows) in parts.items():
        measured = head.evaluate(
            rows, labels, sample_weight=of_rows, batch_size=256, verbose=0, return_dict=True
        )
        logs |= {f"{prefix}{key}": float(value) for key, value in measured.items()}
    return logs


def _say(
    title: str, features: Features, choice: Choice, fit_seconds: float, logs: dict[str, float]
) -> None:
    num_views, num_photos, _ = features.views.shape
    views = f"{num_views} view{'s' if num_views > 1 else ''} of {num_photos} photos"
    total = num_views * num_photos + (0 if features.val is None else len(features.val))
    found = f", {features.found} of {total} found in the cache" if features.found else ""
    log.info(
        f"{title}: features of {views} in {duration(features.seconds)}{found}; "
        f"head fitted in {fit_seconds:.1f} s: {choice}"
    )
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    log.info(f"{title}   " + "   ".join(f"{n} {logs[n]:.4f}" for n in names if n in logs))
