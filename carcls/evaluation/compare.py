"""`compare.py`: several networks on the same photos: how good, how large, how fast, and whether the
differences are real. Imports no Keras: each network is measured in a process of its own.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import CompareConfig
from carcls.console import UNFOLDED, facts
from carcls.data.records import TrainingPhotos, examples
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.evaluation import compare_page, compare_pictures
from carcls.evaluation.evaluate import data_to_measure
from carcls.evaluation.measured_network import Measured, measure_apart
from carcls.evaluation.measured_photos import say_photos
from carcls.evaluation.photos import class_indices, photos_to_measure
from carcls.evaluation.significance import compare_pairs, precision_distance
from carcls.prediction.ensemble import load_predictor, names_of

log = logging.getLogger(__name__)

COMPARISON, MARKDOWN, REPORT = "compare.csv", "compare.md", "compare.html"
PAIRS, PER_CLASS, PREDICTIONS = "pairs.csv", "per_class.csv", "predictions.csv"


def compare(config: CompareConfig, workdir: Path) -> pd.DataFrame:
    """Measures every network on the same photos and writes what follows into `workdir`.

    Photos that trained any of the networks are left out for all.

    Returns:
        What `compare.csv` holds, a row a model, in the order of `config.models`.

    Raises:
        UserError: If there is no model, they are not as they should be, or the data is not; of one
            model that fails after others, when these are written.
    """
    if not config.models:
        raise UserError(
            "Expected models=[…], runs or pretrained networks, such as "
            "models=[outputs/RUN,efficientnetlite0]. Received: none."
        )
    predictors = [load_predictor([model]) for model in config.models]
    names = names_of(config.models)
    data, _ = data_to_measure(predictors[0].members[0], config.data)
    records = read_training_photos(data)
    where = str(data.root)
    of_classes = [class_indices(records, p.members[0], where) for p in predictors]
    members = [member for predictor in predictors for member in predictor.members]
    photos = photos_to_measure(records, members, where)
    say_photos(photos, where)
    # The labels are those of the first network's classes: back to the data's own.
    own = {index: number for number, index in enumerate(of_classes[0])}
    shown = photos.table.assign(label=photos.table.label.map(own))
    found, failed = [], {}
    for name, predictor, classes in zip(names, predictors, of_classes, strict=True):
        log.info(f"\n{name}")
        try:
            found.append(measure_apart(name, predictor, shown, classes, config))
        except UserError as error:  # the others are measured all the same: they may take hours
            failed[name] = str(error)
            if len(names) > 1:
                log.warning(f"WARNING: {name} is left out: {error}")
    if not found:
        raise UserError("\n".join(failed.values()))
    rows = _write(found, shown, records, where, failed, config, workdir)
    if failed:
        reasons = examples([f"{name} ({why.splitlines()[0]})" for name, why in failed.items()])
        raise UserError(
            f"Expected all {len(names)} models to be measured. Received: {len(failed)} that "
            f"failed, {reasons}. The others are compared in {files.shown(workdir)}."
        )
    return rows


def _write(
    found: list[Measured],
    photos: pd.DataFrame,
    records: TrainingPhotos,
    where: str,
    failed: dict[str, str],
    config: CompareConfig,
    workdir: Path,
) -> pd.DataFrame:
    """Tables, pictures and the page; returns the rows of `compare.csv`."""
    names = [one.model for one in found]
    unopened = sorted({index for one in found for index in one.errors})
    opens = np.setdiff1d(np.arange(len(photos)), unopened)
    unopened_ids = photos.id.iloc[unopened].tolist()
    if unopened:
        log.warning(f"WARNING: {len(unopened)} photos cannot be opened: {examples(unopened_ids)}.")
    rows = pd.DataFrame([one.row for one in found]).dropna(axis=1, how="all")
    labels = photos.label.to_numpy()[opens]
    precision = _precision(found, labels, opens, len(records.class_names))
    of_classes = pd.DataFrame(precision, columns=[f"precision_{name}" for name in names])
    of_classes.insert(0, "class", records.class_names)
    of_classes.insert(1, "photos", np.bincount(labels, minlength=len(of_classes)))
    pairs = _pairs(found, labels, opens, precision, config)
    tables = {
        COMPARISON: rows, PAIRS: pairs, PER_CLASS: of_classes,
        PREDICTIONS: _predictions(found, photos, records.class_names, opens),
    }  # fmt: skip
    for name, values in tables.items():
        if values is not None:
            with files.replacing(workdir / name) as temporary:
                values.to_csv(temporary, index=False)
    drawn = compare_pictures.draw_all(rows, precision, records.class_names)
    pngs = {name: figure.write(workdir / f"{name}.png") for name, figure in drawn.items()}
    content = compare_page.Content(
        rows=rows, pairs=pairs, pictures=pngs, photos=len(opens), where=where, failed=failed,
        device=found[0].device,
    )  # fmt: skip
    files.write_text(workdir / MARKDOWN, compare_page.build_markdown(content))
    files.write_text(workdir / REPORT, compare_page.build_page(content))
    run_facts = {
        **files.describe_environment(), "device": found[0].device, "models": config.models,
        "data_root": where, "failed": failed, "not_opened": unopened_ids,
        "left_out_as_trained_on": len(records.table) - len(photos),
    }  # fmt: skip
    files.write_json(workdir / files.RUN, run_facts)
    log.info(_summary(rows, pairs, workdir))
    return rows


def _summary(rows: pd.DataFrame, pairs: pd.DataFrame | None, workdir: Path) -> str:
    text = f"\n{compare_page.as_text(rows)}\n"
    places = [("report", REPORT), ("table", COMPARISON), ("", MARKDOWN),
              ("each class", PER_CLASS), ("each photo", PREDICTIONS)]  # fmt: skip
    if pairs is not None:
        text += "\n" + "\n".join(compare_page.sentences(pairs)) + "\n"
        places.insert(3, ("pairs", PAIRS))
    listed = [(what, str(files.shown(workdir / name))) for what, name in places]
    return f"{text}\n{facts(listed, UNFOLDED)}"


def _pairs(
    found: list[Measured],
    labels: np.ndarray,
    opens: np.ndarray,
    precision: np.ndarray,
    config: CompareConfig,
) -> pd.DataFrame | None:
    """What `compare_pairs` says, and how far apart each pair's precisions are; None for one."""
    if len(found) == 1:
        return None
    names = [one.model for one in found]
    pairs = compare_pairs(
        np.stack([one.predicted[opens] == labels for one in found], axis=1),
        np.stack([-np.log(np.maximum(one.of_label[opens], 1e-12)) for one in found], axis=1),
        names, seed=config.seed, resamples=config.resamples,
    )  # fmt: skip
    distances = precision_distance(precision)
    which = zip(pairs.model.map(names.index), pairs.other.map(names.index), strict=True)
    return pairs.assign(precision_distance=[distances[pair] for pair in which])


def _precision(
    found: list[Measured], labels: np.ndarray, opens: np.ndarray, num_classes: int
) -> np.ndarray:
    """`(num_classes, num_models)`; NaN where a class is never predicted."""
    columns = []
    for one in found:
        predicted = one.predicted[opens]
        inside = predicted >= 0
        taken = np.bincount(predicted[inside], minlength=num_classes)
        right = np.bincount(predicted[inside & (predicted == labels)], minlength=num_classes)
        columns.append(np.where(taken > 0, right / np.maximum(taken, 1), np.nan))
    return np.stack(columns, axis=1)


def _predictions(
    found: list[Measured], photos: pd.DataFrame, class_names: list[str], opens: np.ndarray
) -> pd.DataFrame:
    """A row a photo: what each network says of it, and what it makes of the label."""
    names = np.array([*class_names, None], object)  # -1: one that the data does not have
    shown = photos.iloc[opens]
    rows = {"id": shown.id, "path": shown.path, "label": names[shown.label]}
    for one in found:
        rows[f"{one.model}_predicted"] = names[one.predicted[opens]]
        rows[f"{one.model}_probability_of_label"] = one.of_label[opens].round(6)
        rows[f"{one.model}_rank_of_label"] = one.rank[opens] + 1
    return pd.DataFrame(rows)
