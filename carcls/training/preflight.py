"""Preflight: what would break a long run is looked for before it starts.

The stage that starts first takes a few real steps, with the very function that trains it, so that
building its graph is paid for once; then every variable and random state is put back, and the run
is bit for bit the one without. Nothing here decides anything: it passes, or tells.
"""

import logging
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from carcls import run as files
from carcls.config import PlateauSchedule
from carcls.console import duration, facts
from carcls.data.loader import Loader
from carcls.errors import UserError
from carcls.models.classifier import backbone_of, load_classifier, save_classifier
from carcls.training.generations import KEPT
from carcls.training.memory import state_of
from carcls.training.stages import Session
from carcls.training.timing import seconds_of_stages
from carcls.training.trial import Steps, look_at

log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # of probabilities, for a model that was saved and loaded
# What a run keeps, in files of the model's size. A generation: the best so far, the weights, an
# optimizer with two moments and averaged weights, and of a soup its start and its sum.
_OF_GENERATION, _OF_SOUP = 1 + 1 + 3, 2


def preflight(session: Session, fitted: keras.Model, name: str, loader: Loader) -> None:
    """Looks for what would break the run, prints what was found, and notes it for `run.json`.

    Args:
        session: The run, before its first epoch.
        fitted: Of `compile_stage`, for the first stage; left as it was.
        name: Of that stage.
        loader: Its training batches.

    Raises:
        UserError: If something is not as it must be.
    """
    started = time.perf_counter()
    config = session.config
    has_soup = any(stage.soup > 1 for stage in config.finetune.stages.values())
    needed, free = disk_for(session.model, session.workdir, has_soup)
    check_disk(session.workdir, needed, free)
    batches, loader_rate = look_at(loader)
    with _nothing_moved(fitted):
        found = Steps(fitted, batches, config.runtime.steps_per_execution)
        check_monitors(session, set(found.logs))
        held, moving = check_batch_norm(backbone_of(session.model), found.moved)
    difference = check_saved(session, batches[0][0][:4])
    rate = len(batches[0][0]) / found.step_seconds
    shares_cores = session.device.startswith("CPU")  # the loader takes from the network there
    waits = 1 / loader_rate if shares_cores else max(0.0, 1 / loader_rate - 1 / rate)
    seconds = seconds_of_stages(
        config, name, 1 / rate, waits, found.start_seconds, len(loader.indices),
        int(session.inputs.is_val.sum()),
    )  # fmt: skip
    taken = time.perf_counter() - started
    session.facts["preflight"] = {
        "stage": name,
        "loss": found.logs["loss"] if np.isfinite(found.logs["loss"]) else None,
        "batch_norm_held": held,
        "batch_norm_moving": moving,
        "saved_difference": difference,
        "disk_needed_mb": round(needed / 1e6),
        "disk_free_mb": round(free / 1e6),
        "loader_photos_per_second": round(loader_rate, 1),
        "network_photos_per_second": round(rate, 1),
        "plan_seconds": {stage: round(value) for stage, value in seconds.items()},
        "seconds": round(taken, 1),
    }
    files.add_to_json(session.workdir / files.RUN, preflight=session.facts["preflight"])
    log.info(_block(session, seconds, taken))


def _block(session: Session, seconds: dict[str, float], taken: float) -> str:
    found, plan = session.facts["preflight"], session.config.finetune
    loader, network = found["loader_photos_per_second"], found["network_photos_per_second"]
    keeps_up = (
        "the network waits for photos: try more runtime.workers, data.cache_limit above 0, fewer "
        "steps of augmentation, or data.cache_dir on a faster disk"
        if loader < network
        else "it keeps up"
    )
    stages = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    loss = "not finite" if found["loss"] is None else f"{found['loss']:.3f}"
    watched = plan.monitor if plan.keep == "best" or plan.early_stopping_patience else "loss"
    pairs = [
        ("monitor", f"{watched} is there"),
        ("one batch", f"goes through training, loss {loss}; all is put back"),
        (
            "batch norm",
            f"{found['batch_norm_held']} layers hold their statistics, {found['batch_norm_moving']}"
            f" move them (finetune.batch_norm={plan.batch_norm})",
        ),
        (
            "saved model",
            f"predicts as the one in memory (differs by {found['saved_difference']:.1g} at most)",
        ),
        ("disk", f"{found['disk_needed_mb']:,} MB needed, {found['disk_free_mb']:,} MB free"),
        ("loader", f"{loader:,.0f} photos/s, the network {network:,.0f}: {keeps_up}"),
        ("plan", f"about {duration(sum(seconds.values()))}: {stages}"),
    ]
    return f"Preflight, {taken:.1f} s:\n{facts(pairs)}\n"


@contextmanager
def _nothing_moved(fitted: keras.Model) -> Iterator[None]:
    """Puts back what training moves: weights, statistics, optimizer and random states."""
    fitted.optimizer.build(fitted.trainable_variables)
    restore = state_of(fitted, fitted.optimizer)
    try:
        yield
    finally:
        restore()


def check_monitors(session: Session, names: set[str]) -> None:
    """Looks whether what the plan watches is measured.

    Args:
        session: The run.
        names: Of what training measures; the same of the validation photos come with `val_`.

    Raises:
        UserError: If it is not.
    """
    if session.inputs.is_val.any():
        names = names | {f"val_{name}" for name in names}
    config = session.config
    watched = {}
    if config.finetune.keep == "best" or config.finetune.early_stopping_patience:
        watched["finetune.monitor"] = config.finetune.monitor
    if isinstance(config.schedule, PlateauSchedule):
        watched["schedule.monitor"] = config.schedule.monitor
    for key, monitor in watched.items():
        if monitor not in names:
            raise UserError(
                f"Expected {key} to be one of {', '.join(sorted(names))}, which this run measures. "
                f"Received: {key}={monitor}. Choose one of them, or keep photos to validate with."
            )


def check_batch_norm(backbone: keras.Model, moved: set[str]) -> tuple[int, int]:
    """Looks whether the statistics of BatchNorm layers move where they train, and only there.

    Args:
        backbone: Frozen as the stage says.
        moved: Paths of the variables that training moved.

    Returns:
        How many layers hold still, and how many move.

    Raises:
        UserError: If one does otherwise.
    """
    held = moving = 0
    for layer in backbone.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        has_moved = not moved.isdisjoint(weight.path for weight in layer.non_trainable_variables
                                         if "moving" in weight.name)  # fmt: skip
        if has_moved != layer.trainable:
            raise UserError(
                f"Expected the statistics of the BatchNorm layer {layer.name} to "
                f"{'move' if layer.trainable else 'stay as they are'} in training. Received: they "
                f"{'moved' if has_moved else 'did not'}, with Keras {keras.__version__}. Install "
                "the Keras that requirements.txt pins; runtime.preflight=false trains all the same."
            )
        held, moving = held + (not has_moved), moving + has_moved
    return held, moving


def check_saved(session: Session, photos: np.ndarray) -> float:
    """Saves the model, loads it and looks whether it predicts as before.

    Args:
        session: The run.
        photos: `(n, height, width, 3)` uint8.

    Returns:
        The largest difference of a probability.

    Raises:
        UserError: If that is more than rounding.
    """
    path = session.workdir / f".preflight{Path(files.MODEL).suffix}"
    states = random.getstate(), np.random.get_state()  # new layers draw seeds from these
    try:
        save_classifier(session.model, session.info, path)
        loaded = load_classifier(path)
    finally:
        path.unlink(missing_ok=True)
        random.setstate(states[0])
        np.random.set_state(states[1])
    kept, found = (
        keras.ops.convert_to_numpy(model(photos, training=False))
        for model in (session.model, loaded)
    )
    difference = float(np.abs(np.nan_to_num(kept) - np.nan_to_num(found)).max())
    if difference > _TOLERANCE:
        raise UserError(
            "Expected the saved and loaded model to predict as the one in memory. Received: "
            f"probabilities that differ by up to {difference:.2g}. A checkpoint of this backbone "
            "and head would be worthless: choose others; runtime.preflight=false trains all the "
            "same."
        )
    return difference


def disk_for(model: keras.Model, workdir: Path, has_soup: bool) -> tuple[int, int]:
    """Bytes that a run writes at most, and that the disk of its directory has free."""
    size = sum(int(np.prod(weight.shape)) * 4 for weight in model.weights)
    of_generation = _OF_GENERATION + (_OF_SOUP if has_soup else 0)
    generations_and_next = KEPT + 1
    return generations_and_next * of_generation * size, shutil.disk_usage(workdir).free


def check_disk(workdir: Path, needed: int, free: int) -> None:
    """Looks whether the disk suffices for what a run keeps, all in bytes.

    Raises:
        UserError: If it does not.
    """
    if free < needed:
        raise UserError(
            f"Expected {needed / 1e6:,.0f} MB of free disk for {files.shown(workdir)}: the model, "
            f"twice, and the state to go on from. Received: {free / 1e6:,.0f} MB. Free some space, "
            "or choose another place with hydra.run.dir=DIR."
        )
