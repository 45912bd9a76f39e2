"""What predicting a submission and predicting loose photos share."""

import logging
from pathlib import Path
from typing import Any

from carcls import run as files
from carcls import runtime
from carcls.config import EvaluateConfig, PredictConfig
from carcls.console import progress_bar
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.members import as_metrics, describe, validate
from carcls.prediction.predictor import Predicted, Predictor

log = logging.getLogger(__name__)

_OUTPUTS = (  # in its directory, unless output= names another place
    files.RUN, files.METRICS, "submission.csv", "submission_probabilities.csv",
    "submission_filled.csv", "photos.csv", "photos.json", "plots",
)  # fmt: skip
_METRICS = ("val_accuracy", "n_val", "members", "test_accuracy", "n_test")  # that it may write


def predict_photos(
    predictor: Predictor | Ensemble, paths: list[str], config: PredictConfig | EvaluateConfig
) -> Predicted:
    """Sets Keras up and predicts, with one bar over all members and views."""
    import carcls.backend  # noqa: F401

    runtime.set_up(config.runtime, seed=0)
    with progress_bar() as bar:
        total = len(paths) * predictor.num_views(config.tta)
        task = bar.add_task("predicting", total=total, note="")
        return predictor(
            paths,
            tta=config.tta,
            batch_size=config.batch_size,
            workers=config.runtime.workers,
            progress=lambda count: bar.advance(task, count),
        )


def set_aside_other(shares: list[float], config: PredictConfig, workdir: Path) -> None:
    """Moves away what other runs, weights or views predicted into the same directory."""
    before = files.read_json(workdir / files.RUN)
    now = {
        "ckpt": config.ckpt, "models": config.models, "weights": shares, "tta": config.tta,
        "calibrated": config.calibrated,
    }  # fmt: skip
    before = before and {"calibrated": False, "models": []} | before  # of versions that could not
    if before and any(before.get(name) != value for name, value in now.items()):
        aside = files.set_aside(workdir, _OUTPUTS)
        log.info(f"{files.shown(workdir)} held another prediction: it is in {files.shown(aside)}.")


def describe_ensemble(predictor: Predictor | Ensemble) -> dict[str, Any]:
    """Says what an ensemble is made of; returns what `metrics.json` has of it."""
    if not isinstance(predictor, Ensemble):
        return {}
    validation = validate(predictor)
    log.info(describe(predictor, validation) + "\n")
    return as_metrics(predictor, validation)


def run_facts_of(
    shares: list[float], config: PredictConfig, notes: dict[str, str]
) -> dict[str, Any]:
    """What `run.json` has of every prediction."""
    return {
        **files.describe_environment(),
        "ckpt": config.ckpt,
        "models": config.models,
        "weights": shares,
        "tta": config.tta,
        "calibrated": config.calibrated,
        "notes": [{"id": name, "note": note} for name, note in notes.items()],
    }


def write_metrics(workdir: Path, metrics: dict[str, Any]) -> None:
    """Puts the numbers of this prediction in the place of an earlier one's."""
    path = workdir / files.METRICS
    before = files.read_json(path)
    kept = {name: value for name, value in before.items() if name not in _METRICS}
    if before or metrics:
        files.write_json(path, kept | metrics)
