"""`evaluate.py`: what a run is worth, measured on photos that it has not trained on."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from carcls import run as files
from carcls.config import DataConfig, EvaluateConfig, RuntimeConfig
from carcls.console import UNFOLDED, facts
from carcls.data.records import TrainingPhotos
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.evaluation import coarse_classes
from carcls.evaluation.coarse_classes import find_coarse_classes
from carcls.evaluation.measured_photos import MeasuredPhotos, predicted_photos, saved_photos
from carcls.evaluation.photos import photos_to_measure
from carcls.evaluation.results import REPORT, summary, tell
from carcls.evaluation.saved_predictions import read_predictions
from carcls.prediction.ensemble import load_predictor
from carcls.prediction.predict import data_to_predict
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, workdir: Path) -> dict[str, Any]:
    """Measures a run, or several as an ensemble, and writes all that follows into `workdir`.

    Returns:
        What `metrics.json` holds: top1, top5, nll, ece and others, `n`, and `intervals`.

    Raises:
        UserError: If a checkpoint or the data are not as they should be.
    """
    _check_asked(config)
    if (workdir / files.MODEL).is_file() or files.all_folds(workdir):
        raise UserError(
            "Expected a directory of its own for the evaluation. Received: "
            f"hydra.run.dir={files.shown(workdir)}, which holds a run. Leave it out: "
            f"{files.EVALUATION}/ in the run is the default."
        )
    if config.predictions:
        log.info(f"reading {config.predictions}")
        measured, names = read_predictions(config.predictions)
        metrics, pairs, written = tell(None, names, measured, config, None, workdir)
        log.info(summary(workdir, metrics, pairs, {}, None))
        return written
    predictor = load_predictor(config.ckpt, config.weights, is_calibrated=config.calibrated)
    members = predictor.members
    data, is_own = data_to_measure(members[0], config.data)
    data = coarse_classes.with_hierarchy_of(config, data)
    records, coarse = find_coarse_classes(config, data, read_training_photos(data), predictor)
    measured = _out_of_fold(config, records, predictor.class_names) if is_own else None
    if is_own and config.calibrated:
        log.warning(
            "WARNING: the temperature was fitted to these very photos: how well calibrated it "
            "is, others tell (data=folder data.root=DIR)."
        )
    if measured is None:
        where = str(data.root)
        trained = [*members, *(coarse.members if coarse else [])]
        measured = predicted_photos(
            predictor, photos_to_measure(records, trained, where), config, where
        )
    if coarse and coarse.network:
        ask = coarse.look_up if "out_of_fold" in measured.facts else coarse.predict
        is_told = ask(measured.table, predictor.class_names, config)
        table_of_photos = measured.table[is_told].reset_index(drop=True)
        measured = replace(measured, table=table_of_photos, probs=measured.probs[is_told])
    names = predictor.class_names
    metrics, pairs, written = tell(predictor, names, measured, config, data, workdir, coarse)
    log.info(summary(workdir, metrics, pairs, written.get("robustness", {}), coarse))
    return written


def _check_asked(config: EvaluateConfig) -> None:
    """Either a network or predictions, and with these nothing that would need a network."""
    if config.ckpt and config.predictions:
        raise UserError(
            "Expected ckpt=RUN, a network to be measured, or predictions=FILE, what one has said, "
            f"but not both. Received: ckpt=[{','.join(config.ckpt)}] and "
            f"predictions={config.predictions}."
        )
    if not config.ckpt and not config.predictions:
        raise UserError(
            "Expected ckpt=RUN, the directory of a trained run (or a .keras file), or "
            "predictions=FILE. Received: none."
        )
    asked = {
        "data": any(value is not None for value in (config.data or {}).values()),
        "weights": config.weights, "tta": config.tta != "none", "calibrated": config.calibrated,
        "robustness": config.robustness, "hierarchy": config.hierarchy,
        "coarse_ckpt": config.coarse_ckpt,
    }  # fmt: skip
    useless = [name for name, value in asked.items() if value]
    if config.predictions and useless:
        raise UserError(
            f"Expected nothing but numbers of predictions={config.predictions}, without a network. "
            f"Received: {', '.join(useless)} too. Take them out, or measure a run with ckpt=RUN."
        )


def data_to_measure(member: Predictor, wanted: dict[str, Any] | None) -> tuple[DataConfig, bool]:
    """As `data_to_predict`; a network as ImageNet left it has no data of its own."""
    if member.model_path is None and (wanted or {}).get("name") is None:
        raise UserError(
            f"Expected data=OPTION with {member.name}, which has no run with data of its own: "
            "data=folder data.root=DIR, its folders called by ImageNet's synsets, indices or names."
            " Received: none."
        )
    return data_to_predict(member.info, wanted)


def evaluate_own(workdir: Path, records: TrainingPhotos) -> Path | None:
    """The report of a run that has just been trained, from what it said of its validation photos.

    Args:
        workdir: Of the run; its `evaluation/` receives what `evaluate` writes.
        records: Its photos.

    Returns:
        The report; None where no photo validated.
    """
    config = EvaluateConfig(ckpt=str(workdir), data=None, batch_size=1, runtime=RuntimeConfig())
    predictor = load_predictor(config.ckpt)
    names = predictor.class_names
    measured = _out_of_fold(config, records, names)
    if measured is None:
        path = workdir / files.VAL_PREDICTIONS
        if not path.is_file():
            return None
        unseen = "They validated: none has trained the network, but they chose what was kept."
        measured = saved_photos(path, records, names, unseen, {"as_trained": True})
    data, _ = data_to_predict(predictor.members[0].info, None)
    _, coarse = find_coarse_classes(config, data, records, predictor)
    folder = workdir / files.EVALUATION
    folder.mkdir(exist_ok=True)
    tell(predictor, names, measured, config, data, folder, coarse)
    log.info(facts([("report", str(files.shown(folder / REPORT)))], UNFOLDED))
    return folder / REPORT


def _out_of_fold(
    config: EvaluateConfig, records: TrainingPhotos, names: list[str]
) -> MeasuredPhotos | None:
    """What the folds of one run said of the photos that they had not trained on, if it is that."""
    path = Path(config.ckpt[0]) / files.OOF_PREDICTIONS
    if len(config.ckpt) > 1 or not path.is_file():
        return None
    if config.tta != "none" or config.calibrated or config.robustness:
        raise UserError(
            "Expected no tta, calibrated or robustness with a run of several folds on its own "
            "photos, each of which only one fold has not trained on: what the folds saved is "
            f"measured. Received: tta={config.tta}, calibrated={str(config.calibrated).lower()}, "
            f"robustness=[{','.join(config.robustness)}]. Measure with other photos: data=folder "
            "data.root=DIR."
        )
    unseen = "Each was predicted by the one fold that has not trained on it."
    return saved_photos(path, records, names, unseen, {"out_of_fold": True})
