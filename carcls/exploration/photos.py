"""All photos of the data, whatever part they are in, and what train.py would stop at."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from carcls.config import DataConfig
from carcls.data.folder import PHOTOS_TO_PREDICT
from carcls.data.records import TestPhotos, TrainingPhotos, examples
from carcls.data.selection import read_ids, with_val_ids
from carcls.data.sources import SOURCES
from carcls.errors import UserError

PARTS = ("train", "val", "test")


@dataclass(kw_only=True)
class LeftOut:
    """A row without a photo, a photo without a row, or rows that contradict each other."""

    id: str  # a folder's ends in a slash
    part: str
    reason: str
    label: str = ""  # where it is known
    is_of_lost_class: bool = False  # which has no photo at all


@dataclass(kw_only=True)
class Found:
    """What there is to look at.

    Attributes:
        table: A row a photo: `id`, `label` (its class; empty where it is not known), `part` (one
            of PARTS) and `path`; those to train on first, those to predict last. Of several rows of
            one photo the first.
        class_names: In the order of training.
        left_out: What is no photo of the table, and why.
        excluded: What `data.exclude` named.
        num_excluded: How many rows it named.
        other_ids: Index of a photo to the ids that its other rows have.
        remarks: Sentences about what else is odd.
    """

    table: pd.DataFrame
    class_names: list[str]
    left_out: list[LeftOut] = field(default_factory=list)
    excluded: list[LeftOut] = field(default_factory=list)
    num_excluded: int = 0
    other_ids: dict[int, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, labels and parts, `(n,)` str each: a table is slow to ask for one row."""
        return tuple(self.table[name].to_numpy(object) for name in ("id", "label", "part"))

    def counts(self) -> dict[str, np.ndarray]:
        """`(num_classes,)` photos of each class, by part."""
        codes = pd.Index(self.class_names, dtype=object).get_indexer(self.columns[1])
        return {
            part: np.bincount(codes[(self.table.part == part) & (codes >= 0)],
                              minlength=len(self.class_names))
            for part in PARTS
        }  # fmt: skip


def find_photos(config: DataConfig) -> Found:
    """The photos to train on, to validate with and to predict.

    Raises:
        UserError: If there are none to train on, or `data.on_missing` is `raise` and something is
            missing.
    """
    # With refit, a class of which all photos validate is no reason to stop.
    lenient = config if config.val_ids else replace(config, refit=True)
    training = SOURCES[config.name].read_training_photos(lenient)
    if config.val_ids:
        training = with_val_ids(training, config)
    remarks = []
    try:
        test = SOURCES[config.name].read_test_photos(config)
    except UserError as error:
        test = TestPhotos(ids=[], paths=[], columns=("", ""))
        remarks.append(f"No photos to predict were found: {error}")
    rows = _labelled_rows(training)
    photos = rows.drop_duplicates("path", ignore_index=True)
    if len(photos) < len(rows):
        remarks.append(_remark_on_repeats(rows))
    table = pd.concat([photos, _rows_to_predict(test)], ignore_index=True)
    by_data_exclude = f"excluded by {config.exclude}"
    # A folder of photos to predict is odd only where they were not found in it.
    usual = (by_data_exclude, PHOTOS_TO_PREDICT) if test.ids else (by_data_exclude,)
    left_out = [
        LeftOut(
            id=photo_id,
            part="train",
            reason=reason,
            is_of_lost_class=photo_id in training.of_lost_classes,
        )
        for photo_id, reason in training.skipped
        if reason not in usual
    ]
    left_out += [
        LeftOut(id=photo_id, part="test", reason=reason)
        for photo_id, reason in test.reasons.items()
    ]
    found = Found(
        table=table,
        class_names=training.class_names,
        left_out=left_out,
        excluded=_excluded(training, config, by_data_exclude),
        num_excluded=sum(reason == by_data_exclude for _, reason in training.skipped),
        other_ids=_other_ids(rows, photos),
        remarks=remarks,
    )
    remarks += _remarks_on_classes(found)
    return found


def _excluded(photos: TrainingPhotos, config: DataConfig, reason: str) -> list[LeftOut]:
    """What `data.exclude` names and the data has, as it stands in that file."""
    ids = {photo_id for photo_id, why in photos.skipped if why == reason}
    named = read_ids(config, "exclude") if ids else []
    return [
        LeftOut(id=photo_id, part="train", reason=reason, label=label or "")
        for photo_id, label in named
        if photo_id in ids
    ]


def _remark_on_repeats(rows: pd.DataFrame) -> str:
    again = rows.path[rows.path.duplicated()]
    return (
        f"{len(again):,} rows repeat {again.nunique():,} photos, which count as often in training; "
        "here each is one photo."
    )


def _other_ids(rows: pd.DataFrame, photos: pd.DataFrame) -> dict[int, list[str]]:
    """Index of each photo whose rows have several ids to all but the first."""
    again = rows[rows.path.duplicated()].drop_duplicates(["path", "id"])
    others: dict[int, list[str]] = {}
    places = pd.Index(photos.path).get_indexer(again.path)
    for index, photo_id in zip(places.tolist(), again.id, strict=True):
        if photo_id != photos.id[index]:
            others.setdefault(index, []).append(photo_id)
    return others


def _labelled_rows(photos: TrainingPhotos) -> pd.DataFrame:
    table = photos.table
    is_val = table.is_val.to_numpy(bool) if "is_val" in table else np.zeros(len(table), bool)
    rows = pd.DataFrame(
        {
            "id": table.id.to_numpy(object),
            "label": np.array(photos.class_names, object)[table.label],
            "part": np.where(is_val, "val", "train"),
            "path": table.path.to_numpy(object),
        }
    )
    return rows.sort_values("part", kind="stable", ignore_index=True)


def _rows_to_predict(photos: TestPhotos) -> pd.DataFrame:
    truth = photos.truth or {}
    rows = [
        (photo_id, truth.get(photo_id, ""), "test", path)
        for photo_id, path in zip(photos.ids, photos.paths, strict=True)
        if path is not None
    ]
    return pd.DataFrame(rows, columns=["id", "label", "part", "path"])


def _remarks_on_classes(found: Found) -> list[str]:
    counts, names = found.counts(), np.array(found.class_names, object)
    remarks = []
    only_val = names[(counts["train"] == 0) & (counts["val"] > 0)].tolist()
    if only_val:
        remarks.append(
            f"train.py would stop: only photos to validate with in {examples(only_val)}."
        )
    single = names[counts["train"] + counts["val"] == 1].tolist()
    if single:
        remarks.append(f"One photo only, so that none validates, in {examples(single)}.")
    unknown = sorted(set(found.table.label) - set(found.class_names) - {""})
    if unknown:
        remarks.append(f"Photos to predict have classes that none to train on has: "
                       f"{examples(unknown)}.")  # fmt: skip
    return remarks
