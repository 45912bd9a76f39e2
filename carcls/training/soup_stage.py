"""The end of a soup: its trainings averaged, measured, and kept if that was worth it."""

import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from carcls.config import StageConfig
from carcls.training.callbacks import KeepWeights
from carcls.training.epochs import Epochs
from carcls.training.feed import Feed
from carcls.training.soup import names_of_trainings
from carcls.training.stages import Session, StageResult, compile_stage

if TYPE_CHECKING:
    from carcls.data.loader import Loader

log = logging.getLogger(__name__)


def run_soup_stage(session: Session, name: str, stage: StageConfig, title: str) -> None:
    """Puts the average of a soup's trainings into the session's model; adds a row to the history.

    It is kept unless its loss is higher than those of its trainings were, on average, when they
    ended, or it is worse than the best before them. Of few validation photos the loss says more
    than the accuracy (docs/finetuning.md); the best epochs of the trainings do not count, since the
    best of many looks better than it is.

    Args:
        session: The run, whose soup is complete.
        name: Of the stage.
        stage: What its trainings were.
        title: For the lines on the terminal.
    """
    started = time.perf_counter()
    config, history, best = session.config, session.history, session.best
    session.info.image_size = stage.image_size or config.image_size
    session.soup.finish(session.model, stage.soup)
    val_loader = session.inputs.val(stage)
    logs = {} if val_loader is None else _measured(session, stage, val_loader)
    history.start_stage(name, photos_per_epoch=0, steps_per_epoch=1)
    seconds = round(time.perf_counter() - started, 2)
    history.add({**logs, "seconds": seconds})
    val_accuracy = logs.get("val_accuracy")
    session.stages.append(
        StageResult(name=name, epochs=0, val_accuracy=val_accuracy, seconds=seconds)
    )
    said = f"{title}: the average of {stage.soup} trainings"
    if logs:
        said += f"   val_loss {logs['val_loss']:.4f}   val_accuracy {val_accuracy:.4f}"
    log.info(said)
    if logs and config.finetune.keep == "best":
        if better := _what_was_better(session, name, stage, logs):
            change = f"finetune.stages.{name}.soup={stage.soup}: the average was not kept, {better}"
            session.tell_change(change, f" Kept is the best epoch so far, {best.kept_epoch}.")
            return
        best.key = None  # whatever single epochs had
    keep = KeepWeights(session.save, best, config.finetune.keep, len(history.rows) - 1)
    keep.on_epoch_end(0, logs)


def _measured(session: Session, stage: StageConfig, val_loader: "Loader") -> dict[str, float]:
    """Loss and accuracy of all validation photos, as every epoch measures them."""
    fitted = compile_stage(session.model, session.config, stage, steps_per_epoch=1)
    feed = Feed(val_loader)
    try:
        measured = fitted.evaluate(
            Epochs(feed, len(val_loader)), steps=len(val_loader), verbose=0, return_dict=True
        )
    except Exception:
        if feed.error is not None:  # why a photo or a process failed
            raise feed.error from None
        raise
    finally:
        feed.close()
    return {f"val_{key}": float(value) for key, value in measured.items()}


def _what_was_better(
    session: Session, name: str, stage: StageConfig, logs: dict[str, float]
) -> str | None:
    """Why an average is not worth keeping, in words; None if it is."""
    monitor, rows = session.config.finetune.monitor, session.history.rows
    trainings = names_of_trainings(name, stage.soup)
    first = [row["stage"] for row in rows].index(trainings[0])
    ends = {row["stage"]: row["val_loss"] for row in rows if row["stage"] in trainings}
    before = [row[monitor] for row in rows[:first] if row[monitor] is not None]
    loss, mean = logs["val_loss"], float(np.mean(list(ends.values())))
    if not math.isfinite(loss):
        return f"its val_loss is {loss}"
    if loss > mean:
        return f"its val_loss is {loss:.4f}, that of its trainings {mean:.4f} on average"
    pick, sign = (min, -1) if monitor == "val_loss" else (max, 1)
    if before and sign * logs[monitor] < sign * pick(before):
        return f"its {monitor} is {logs[monitor]:.4f}, the best before it had {pick(before):.4f}"
    return None
