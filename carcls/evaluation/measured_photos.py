"""Photos and what a run said of them: saved when it was trained, or predicted now."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls.config import EvaluateConfig
from carcls.data.records import TrainingPhotos, examples, opened_in_part
from carcls.errors import UserError
from carcls.evaluation.photos import PhotosToMeasure, ids_and_labels
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.job import predict_photos
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class MeasuredPhotos:
    """Photos and what was said of them.

    Attributes:
        table: id, path and label of `n` photos.
        probs: `(n, num_classes)`.
        facts: For `run.json`.
        unseen: Why the photos are new to the network, in a sentence.
    """

    table: pd.DataFrame
    probs: np.ndarray
    facts: dict[str, Any]
    unseen: str


def saved_photos(
    path: Path, records: TrainingPhotos, names: list[str], unseen: str, facts: dict[str, Any]
) -> MeasuredPhotos:
    """What a run has saved of its validation photos, with where these are."""
    saved = pd.read_csv(path, dtype={"id": str, "label": str}, keep_default_na=False)
    paths = dict(zip(ids_and_labels(records), records.table.path, strict=True))
    found = pd.Series(
        [paths.get(key) for key in zip(saved.id, saved.label, strict=True)], dtype=str
    )
    is_there = found.notna()
    saved, found = (part[is_there].reset_index(drop=True) for part in (saved, found))
    if not is_there.all():
        log.warning(f"WARNING: {np.sum(~is_there)} photos are not there any more: left out.")
    index_of = {name: index for index, name in enumerate(names)}
    table = pd.DataFrame({"id": saved.id, "path": found, "label": saved.label.map(index_of)})
    probs = saved[[f"p_{name}" for name in names]].to_numpy(np.float32)
    return MeasuredPhotos(table=table, probs=probs, facts=facts, unseen=unseen)


def predicted_photos(
    predictor: Predictor | Ensemble, photos: PhotosToMeasure, config: EvaluateConfig, where: str
) -> MeasuredPhotos:
    """Predicts the photos, says what cannot be opened, and leaves it out."""
    say_photos(photos, where)
    predicted = predict_photos(predictor, photos.table.path.tolist(), config)
    ids = photos.table.id
    opens = np.setdiff1d(np.arange(len(photos.table)), list(predicted.errors))
    if not len(opens):
        raise UserError(
            f"Expected photos that can be opened. Received: {where}, none of whose "
            f"{len(photos.table)} can: {examples(list(predicted.errors.values()))}."
        )
    if predicted.notes:
        log.info(opened_in_part([ids.iloc[index] for index in sorted(predicted.notes)]))
    if predicted.errors:
        named = examples([ids.iloc[index] for index in sorted(predicted.errors)])
        log.warning(f"WARNING: {len(predicted.errors)} photos cannot be opened: {named}.")
    facts_of_photos = {
        "left_out_as_trained_on": photos.trained_on,
        "training_photos_unknown_of": photos.unknown,
        "not_opened": [
            {"id": ids.iloc[i], "reason": why} for i, why in sorted(predicted.errors.items())
        ],
        "notes": [{"id": ids.iloc[i], "note": note} for i, note in sorted(predicted.notes.items())],
    }
    table_of_photos = photos.table.iloc[opens].reset_index(drop=True)
    unseen = "None of them, and no byte-for-byte copy of one, has trained the network."
    if photos.unknown:
        unseen = f"It is not known which photos trained {examples(photos.unknown)}."
    return MeasuredPhotos(
        table=table_of_photos,
        probs=predicted.probs[opens],
        facts=facts_of_photos,
        unseen=unseen,
    )


def say_photos(photos: PhotosToMeasure, where: str) -> None:
    """How many there are, and how many others are left out."""
    log.info(f"{len(photos.table)} photos of {where} to measure with.")
    if photos.trained_on:
        log.info(
            f"{photos.trained_on} others trained the network, or are copies of photos that did: "
            "they are left out."
        )
    if photos.unknown:
        log.warning(
            f"WARNING: it is not known which photos trained {examples(photos.unknown)}: photos "
            "that did would be measured as if they were new."
        )
