"""`data.folds`: one run a fold, one after another, and what they reach together.

A fold is a run directory like any other. All that is said of the folds together is read from
those, so that it is the same whether they were trained by one command or by several.

Each fold trains in a process of its own where that can be: with TensorFlow 2.21 a process keeps the
graphs of the networks that it has trained, which took 110 MB a fold of EfficientNet-Lite0, whatever
`clear_session` and the garbage collector did. So this imports no Keras.
"""

import gc
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import TrainConfig, to_plain, with_absolute_paths
from carcls.console import UNFOLDED, duration, facts, table
from carcls.errors import UserError
from carcls.plots import draw_folds
from carcls.training import resume
from carcls.training.inputs import Inputs
from carcls.training.outcome import Outcome
from carcls.training.own_process import can_fork, in_own_process
from carcls.training.report import lists_what_to_predict, title

log = logging.getLogger(__name__)


def train_folds(config: TrainConfig, workdir: Path, inputs: Inputs) -> Outcome:
    """Trains once a fold, each from the same seed, and measures every photo out of its fold.

    Leaves a run directory a fold, `fold_1` and so on, in `workdir`, and beside them
    `oof_predictions.csv`, `metrics.json`, `history.csv`, `curves.png` and `run.json` of all. They
    are written anew after every fold. In a directory where the same command was stopped before,
    with `resume` or without, the folds that it finished stay, and it goes on within the one that it
    did not finish; what another run left there is set aside.

    Args:
        config: All of it, with `data.folds`.
        workdir: Where everything goes.
        inputs: What `prepare_inputs(config)` gave.

    Returns:
        The metrics of all folds; of those that are finished when Ctrl-C has ended it.

    Raises:
        UserError: As `train`, saying in which fold.
        KeyboardInterrupt: If it was stopped before any fold was finished.
    """
    config = replace(config, data=with_absolute_paths(config.data), resume=None)
    num_folds = config.data.folds
    run_facts = {
        **files.describe_environment(),
        "data_fingerprint": inputs.fingerprint,
        "config": to_plain(config),
        "changed": inputs.changes,
        "skipped": [{"id": i, "reason": r} for i, r in inputs.records.skipped],
        "folds": [files.fold_name(fold) for fold in range(1, num_folds + 1)],
    }
    _make_room(workdir, run_facts)
    files.write_json(workdir / files.RUN, {**run_facts, "status": "running"})
    divergence = None
    status, started = "finished", time.perf_counter() - inputs.seconds
    for fold in range(1, num_folds + 1):
        inputs = inputs.of_fold(fold)
        fold_dir = workdir / files.fold_name(fold)
        log.info(f"\nfold {fold} of {num_folds}, in {files.shown(fold_dir)}")
        if files.is_finished(fold_dir):
            log.info("It is finished already: it stays as it is.")
            continue
        try:
            begun = resume.goes_on(config, fold_dir)
            of_fold = replace(config, resume=str(fold_dir)) if begun else config
            outcome = _train_fold(of_fold, fold_dir, inputs)
            is_cut_short = outcome.interrupted
            if outcome.divergence:
                divergence = divergence or f"In fold {fold} of {num_folds}: {outcome.divergence}"
            if not is_cut_short:
                _summarise(config, workdir, inputs)
        except KeyboardInterrupt:
            is_cut_short = True
        except BaseException as error:
            files.add_to_json(workdir / files.RUN, status="failed")
            if isinstance(error, UserError):
                raise UserError(f"In fold {fold} of {num_folds}: {error}") from error
            raise
        if is_cut_short:
            status = "interrupted"
            break
    run_facts |= {"status": status, "seconds": round(time.perf_counter() - started, 1)}
    files.write_json(workdir / files.RUN, run_facts)
    if not files.finished_folds(workdir):
        raise KeyboardInterrupt
    metrics = _summarise(config, workdir, inputs)
    log.info(_report(config, workdir, metrics, status))
    return Outcome(
        workdir=workdir,
        metrics=metrics,
        interrupted=status == "interrupted",
        divergence=divergence,
    )


def _train_fold(config: TrainConfig, fold_dir: Path, inputs: Inputs) -> Outcome:
    """Trains one fold as a run of its own."""
    if can_fork():
        return in_own_process(_train_here, config, fold_dir, inputs)
    return _train_here(config, fold_dir, inputs)


def _train_here(config: TrainConfig, fold_dir: Path, inputs: Inputs) -> Outcome:
    from carcls.backend import keras
    from carcls.training.loop import train

    keras.utils.clear_session()  # else the networks of the folds before stay with their weights
    gc.collect()
    return train(config, fold_dir, inputs)


def _make_room(workdir: Path, run_facts: dict[str, Any]) -> None:
    """Sets aside what an earlier run left in `workdir`, unless it was this one."""
    earlier = files.read_json(workdir / files.RUN)
    if not earlier or _identity(earlier) == _identity(run_facts):
        return
    aside = files.set_aside(workdir)
    log.info(f"{files.shown(workdir)} held another run: it is in {files.shown(aside)} now.")


def _identity(run_facts: dict[str, Any]) -> Any:
    """What must be the same for folds to belong together: all but the machine's side."""
    config = {k: v for k, v in run_facts.get("config", {}).items() if k != "runtime"}
    return json.loads(json.dumps([config, run_facts["data_fingerprint"], run_facts.get("folds")]))


def _summarise(config: TrainConfig, workdir: Path, inputs: Inputs) -> dict[str, Any]:
    """Writes what the finished folds reach together; returns what `metrics.json` holds.

    Accuracy and NLL are those of all photos, out of fold; the loss is the folds' mean, a fold
    counting as many times as it has photos.
    """
    folds = files.finished_folds(workdir)
    of_folds = [files.read_json(path / files.METRICS) for path in folds]
    facts_of_folds = [files.read_json(path / files.RUN) for path in folds]
    numbers = [fold["fold"] for fold in facts_of_folds]
    predictions = _out_of_fold(dict(zip(numbers, folds, strict=True)), inputs.records.table.id)
    n_val = [metrics["n_val"] for metrics in of_folds]
    accuracies = [metrics["val_accuracy"] for metrics in of_folds]
    names = ("val_accuracy", "val_loss", "val_nll", "n_train", "n_val", "kept_epoch", "seconds")
    metrics = {
        "val_accuracy": float((predictions.label == predictions.predicted).mean()),
        "val_loss": float(np.average([m["val_loss"] for m in of_folds], weights=n_val)),
        "val_nll": float(np.average([m["val_nll"] for m in of_folds], weights=n_val)),
        "n_train": len(inputs.records.table),
        "n_val": len(predictions),
        "val_accuracy_mean": float(np.mean(accuracies)),
        "val_accuracy_std": float(np.std(accuracies, ddof=1)) if len(folds) > 1 else None,
        "folds": [
            {"fold": fold["fold"], "status": fold["status"]} | {name: m[name] for name in names}
            for fold, m in zip(facts_of_folds, of_folds, strict=True)
        ],
        "seconds": round(sum(m["seconds"] for m in of_folds), 1),
        "stages": _stages([m["stages"] for m in of_folds], n_val),
    }
    histories = [pd.read_csv(path / files.HISTORY) for path in folds]
    history = pd.concat(histories, keys=numbers, names=["fold"]).reset_index("fold")
    with files.replacing(workdir / files.OOF_PREDICTIONS) as temporary:
        predictions.to_csv(temporary, index=False)
    with files.replacing(workdir / files.HISTORY) as temporary:
        history.to_csv(temporary, index=False)
    files.write_json(workdir / files.METRICS, metrics)
    draw_folds(history, metrics, title(config)).write(workdir / files.CURVES)
    return metrics


def _out_of_fold(folds: dict[int, Path], ids: pd.Series) -> pd.DataFrame:
    """The folds' `val_predictions.csv` in one, their text as it is, in the order of the photos."""
    tables = []
    for fold, path in folds.items():
        rows = pd.read_csv(path / files.VAL_PREDICTIONS, dtype=str, keep_default_na=False)
        rows.insert(3, "fold", fold)
        tables.append(rows)
    rows = pd.concat(tables, ignore_index=True)
    place = {name: number for number, name in enumerate(ids.astype(str))}
    return rows.iloc[np.argsort(rows.id.map(place), kind="stable")].reset_index(drop=True)


def _stages(of_folds: list[list[dict[str, Any]]], n_val: list[int]) -> list[dict[str, Any]]:
    """Each stage over all folds: its epochs and seconds in all, its mean accuracy by photos."""
    merged = []
    for name in dict.fromkeys(stage["name"] for stages in of_folds for stage in stages):
        same = [
            (stage, count)
            for stages, count in zip(of_folds, n_val, strict=True)
            for stage in stages
            if stage["name"] == name
        ]
        accuracies, counts = [stage["val_accuracy"] for stage, _ in same], [n for _, n in same]
        merged.append(
            {
                "name": name,
                "epochs": sum(stage["epochs"] for stage, _ in same),
                "val_accuracy": float(np.average(accuracies, weights=counts)),
                "seconds": round(sum(stage["seconds"] for stage, _ in same), 1),
            }
        )
    return merged


def _report(config: TrainConfig, workdir: Path, metrics: dict[str, Any], status: str) -> str:
    rows = [
        [
            str(fold["fold"]), str(fold["n_train"]), str(fold["n_val"]),
            f"{fold['val_accuracy']:.2%}", str(fold["kept_epoch"]), duration(fold["seconds"]),
        ]
        for fold in metrics["folds"]
    ]  # fmt: skip
    columns = ["fold", "trained on", "validated", "accuracy", "epoch kept", "time"]
    done, planned, std = len(rows), config.data.folds, metrics["val_accuracy_std"]
    spread = "" if std is None else f" ± {100 * std:.2f} points (standard deviation)"
    text = (
        f"\n{table(columns, rows)}\n\n"
        f"{metrics['val_accuracy']:.2%} of {metrics['n_val']} photos, out of fold. Over the folds "
        f"{metrics['val_accuracy_mean']:.2%}{spread}, {duration(metrics['seconds'])} in all.\n"
    )
    diverged = [str(fold["fold"]) for fold in metrics["folds"] if fold["status"] == "diverged"]
    if diverged:
        text += f"WARNING: the loss became NaN or infinite in fold {', '.join(diverged)}.\n"
    run = files.shell_quoted(workdir)
    images = "" if lists_what_to_predict(config.data) else " images=PHOTO"
    pairs = [
        ("out of fold", str(files.shown(workdir) / files.OOF_PREDICTIONS)),
        ("curves", str(files.shown(workdir) / files.CURVES)),
        ("predict with", f"python predict.py ckpt={run}{images}"),
    ]
    if status == "interrupted":
        text += f"Stopped by Ctrl-C: {done} of {planned} folds are finished.\n"
        pairs.append(("go on with", resume.how_to_go_on(workdir)))
    return f"{text}\n{facts(pairs, UNFOLDED)}"
