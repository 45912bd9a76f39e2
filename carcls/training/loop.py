"""Training: stage by stage, each going on from the best so far, then what a run leaves behind."""

import functools
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.backend import keras  # noqa: F401  first, so that it is imported quietly
from carcls.config import TrainConfig, to_plain, with_absolute_paths
from carcls.data import balance
from carcls.data.records import examples
from carcls.errors import UserError
from carcls.models.classifier import (
    build_classifier,
    load_classifier,
    restore_weights,
    seen_at,
)
from carcls.models.folding import fold_batch_norm
from carcls.models.probabilities import fit_temperature, predict_probs, probabilities_table
from carcls.plots import draw_curves
from carcls.training import generations, parallel, report, resume
from carcls.training.accumulation import check_accumulation
from carcls.training.callbacks import Best, History, StopOnSignal
from carcls.training.checkpoints import Checkpoints
from carcls.training.divergence import ADVICE
from carcls.training.inputs import Inputs, prepare_inputs
from carcls.training.memory import halved_before, within_memory
from carcls.training.outcome import Outcome
from carcls.training.preflight import preflight
from carcls.training.refit import without_validation
from carcls.training.soup import number_in_soup, spelled_out
from carcls.training.stages import Session, run_stage

log = logging.getLogger(__name__)

_FACTS = ("preflight", "head_fits")  # of `run.json`, which stages add


def train(config: TrainConfig, workdir: Path, inputs: Inputs | None = None) -> Outcome:
    """Trains as `config` says and leaves a run directory (see `carcls.run`) in `workdir`.

    Args:
        config: All of it. With `resume` it goes on with the run in `workdir`, whose it must be.
        workdir: Where everything goes; what an earlier run left there is set aside.
        inputs: What `prepare_inputs(config)` gave; None prepares them.

    Raises:
        UserError: If the data, the weights or the disk are not as they should be, or the loss
            became NaN before anything was reached, or another process trains in `workdir`.
    """
    with generations.alone(workdir):
        return _train(config, workdir, inputs)


def _train(config: TrainConfig, workdir: Path, inputs: Inputs | None) -> Outcome:
    """`train`, in a directory that is its own."""
    is_resumed = config.resume is not None
    config = replace(config, data=with_absolute_paths(config.data), resume=None)
    changes: list[str] = []
    if config.data.refit:
        config, changes = without_validation(config)
    inputs = inputs or prepare_inputs(config)
    check_accumulation(config, int(np.sum(~inputs.is_val)))
    started = time.perf_counter() - inputs.seconds
    devices = parallel.set_up(config)
    device = devices.in_words
    if is_resumed:
        resume.check_unchanged(workdir, inputs.fingerprint)
        recorded = files.read_json(workdir / files.RUN)
        changes = changes or recorded.get("changed", [])
    with devices.scope():
        session = _open_session(config, workdir, inputs)
    session.config = replace(config, finetune=spelled_out(config.finetune))
    session.changes, session.devices = [*changes, *inputs.changes], devices
    session.device = device
    if is_resumed:  # what earlier processes found out
        session.facts |= {key: recorded[key] for key in _FACTS if key in recorded}
    session.preflight = preflight if config.runtime.preflight else None
    earlier = None if is_resumed else files.set_aside(workdir)
    if earlier:
        log.info(f"{files.shown(workdir)} held a run already: it is in {files.shown(earlier)} now.")
    generation = generations.newest(workdir / files.STAGES) if is_resumed else None
    if generation and generation.state["was_halved"]:  # as the first process found out
        session.config = halved_before(session.config, devices.count)
        session.was_halved = True
    checkpoints = session.checkpoints = Checkpoints(session, generation, started)
    run_facts = {
        **files.describe_environment(),
        "device": device,
        "devices": devices.count,
        "fold": inputs.fold,
        "data_fingerprint": session.inputs.fingerprint,
        "config": to_plain(config),
        "enlarged_to": config.enlarged_sides(),
        "changed": session.changes,
        "skipped": [{"id": i, "reason": r} for i, r in session.inputs.records.skipped],
        "sessions": checkpoints.sessions,
    }
    files.write_json(
        workdir / files.RUN,
        {**run_facts, **session.facts, **_facts_of_photos(inputs), "status": "running"},
    )
    log.info(report.plan(config, session.inputs, session.model, device))
    if config.backbone.weights == "none" and not any(
        stage.trainable for stage in config.finetune.stages.values()
    ):
        log.warning("WARNING: the backbone has random weights, and no stage trains it.\n")
    elif config.backbone.weights == "none" and any(
        stage.feature_views for stage in config.finetune.stages.values()
    ):
        log.warning(
            "WARNING: the backbone has random weights, to whose features a head is fitted first: "
            f"finetune={config.finetune.name} is for pretrained ones. finetune=scratch trains "
            "everything from the start.\n"
        )
    if note := balance.describe(
        inputs.records.class_names, inputs.class_counts(), config.data.balance
    ):
        log.info(f"{note}\n")
    for change in changes:
        log.info(f"data.refit has no validation photos, so {change}.")

    if is_resumed:
        log.info(f"Goes on with {files.shown(workdir)} from {checkpoints.where()}.\n")

    with StopOnSignal(log.info, config.runtime.steps_per_execution) as stop:
        try:
            with resume.telling_how_to_go_on(workdir, checkpoints.close_session):
                status = _run_stages(session, stop)
        except KeyboardInterrupt:
            status = "interrupted"
    if not session.model_path.is_file():
        files.add_to_json(
            workdir / files.RUN,
            status=status,
            sessions=checkpoints.close_session(),
            **session.facts,
        )
        if status == "interrupted":
            log.info(f"Go on with: {resume.how_to_go_on(workdir)}")
            raise KeyboardInterrupt
        where = session.divergence or (
            "The loss of the validation photos was NaN or infinite in every epoch."
        )
        generations.remove(checkpoints.folder)
        raise UserError(f"{where} Nothing was kept, since no epoch ended well. {ADVICE}")
    with resume.telling_how_to_go_on(workdir, checkpoints.close_session):
        metrics = _finish(session, seconds=checkpoints.seconds)
    seconds = round(checkpoints.seconds, 1)
    checkpoints.close_session()
    of_photos = _facts_of_photos(inputs)
    if lost := of_photos["lost"]:
        log.warning(
            f"WARNING: {len(lost)} photos could not be opened while training went on: "
            f"{examples([photo['id'] for photo in lost])}. All are listed in {files.RUN} as lost."
        )
    files.write_json(
        workdir / files.RUN,
        {**run_facts, **session.facts, **of_photos, "status": status, "seconds": seconds},
    )
    if status != "interrupted":
        generations.remove(checkpoints.folder)  # nothing is left to go on with
    log.info(report.summary(session, metrics, status))
    return Outcome(
        workdir=workdir,
        metrics=metrics,
        interrupted=status == "interrupted",
        divergence=session.divergence
        and f"{session.divergence} Training stopped there; epoch {metrics['kept_epoch']}, the one "
        f"kept before, is in {files.shown(session.model_path)}. {ADVICE}",
    )


def _facts_of_photos(inputs: Inputs) -> dict[str, Any]:
    """What `run.json` says of photos; there may be more to say after a stage of another size."""
    ids = inputs.records.table.id
    return {
        "notes": [{"id": ids.iloc[i], "note": note} for i, note in sorted(inputs.notes.items())],
        "lost": [{"id": ids.iloc[i], "reason": why} for i, why in sorted(inputs.lost.items())],
        "cache": [vars(report) for report in inputs.cache],
    }


def _open_session(config: TrainConfig, workdir: Path, inputs: Inputs) -> Session:
    model = build_classifier(config.backbone, config.head, len(inputs.records.class_names))
    info = files.ModelInfo(
        class_names=inputs.records.class_names,
        class_counts=inputs.class_counts(),
        image_size=config.image_size,
        resize=config.data.resize,
        config=to_plain(config),
    )
    return Session(
        config=config,
        workdir=workdir,
        inputs=inputs,
        model=model,
        info=info,
        best=Best(config.finetune.monitor),
        history=History(workdir / files.HISTORY),
    )


def _run_stages(session: Session, stop: StopOnSignal) -> str:
    """Runs the stages in order. Returns how it ended: finished, interrupted or diverged."""
    checkpoints = session.checkpoints
    checkpoints.put_back()
    plan = session.config.finetune
    for number, name in enumerate(plan.stages, start=1):
        if checkpoints.is_done(number):
            continue
        with session.devices.scope():
            session.model = seen_at(session.model, session.config.enlarged_to(plan.stages[name]))
        if checkpoints.within(number) is None:
            _start(session, name)
        title = f"{number}/{len(plan.stages)} {name}"
        with session.devices.scope(plan.stages[name]):
            within_memory(session, functools.partial(run_stage, session, name, title, stop))
        if session.divergence:
            session.facts["nan_batch"] = session.divergence.facts()
            return "diverged"
        if stop.requested:
            return "interrupted"
        if number_in_soup(plan, name):
            session.soup.add(session.model)
        checkpoints.end_stage(number)
    return "finished"


def _start(session: Session, name: str) -> None:
    """Puts the weights into the model that a stage begins with."""
    plan, number = session.config.finetune, number_in_soup(session.config.finetune, name)
    is_after_first = number > 1 or plan.stages[name].soup > 1
    if plan.keep == "best" and session.best.kept_epoch and not is_after_first:
        restore_weights(session.model, session.model_path)
    if number:
        session.soup.begin(session.model, number)


def _finish(session: Session, seconds: float) -> dict[str, Any]:
    """Measures what was kept, as it lies on disk, and writes everything that is about it."""
    kept = session.best.kept_epoch
    row = session.history.rows[kept - 1]
    metrics: dict[str, Any] = {
        "val_accuracy": None,
        "val_loss": row["val_loss"],  # with the head's regularisation
        "n_train": int(np.sum(~session.inputs.is_val)),
        "n_val": 0,
        "kept_epoch": kept,
        "seconds": round(seconds, 1),
        "stages": [vars(stage) for stage in session.stages],
    }
    val_loader = session.inputs.val(session.config.finetune.stages[row["stage"]])
    if val_loader is not None:
        model = load_classifier(session.model_path)
        fold_batch_norm(model, only_frozen=False)
        model.run_eagerly = session.config.runtime.eager
        probs = predict_probs(model, val_loader)
        metrics |= _write_val_predictions(session, val_loader.indices, probs)
    files.write_json(session.workdir / files.METRICS, metrics)
    curves = draw_curves(session.history.frame(), kept, report.title(session.config))
    curves.write(session.workdir / files.CURVES)
    return metrics


def _write_val_predictions(
    session: Session, indices: np.ndarray, probs: np.ndarray
) -> dict[str, float]:
    """Writes `val_predictions.csv`; returns what `metrics.json` has of the same rows.

    Args:
        session: The run.
        indices: `(n,)` rows of the table of photos.
        probs: `(n, num_classes)` their probabilities.
    """
    records = session.inputs.records
    rows = records.table.iloc[indices]
    labels = rows.label.to_numpy()
    names = np.array(records.class_names, object)
    table = pd.DataFrame(
        {"id": rows.id, "label": names[labels], "predicted": names[probs.argmax(1)]}
    ).reset_index(drop=True)
    table = pd.concat([table, probabilities_table(probs, records.class_names)], axis=1)
    with files.replacing(session.workdir / files.VAL_PREDICTIONS) as temporary:
        table.to_csv(temporary, index=False)
    of_label = np.maximum(probs[np.arange(len(labels)), labels], 1e-12)
    return {
        "val_accuracy": float(np.mean(probs.argmax(1) == labels)),
        "val_nll": float(-np.mean(np.log(of_label))),
        "n_val": len(labels),
        "temperature": fit_temperature(probs, labels),
    }
