"""Photos chosen by a file of ids: those to leave out, and those to validate with."""

import csv
import logging
from pathlib import Path

import pandas as pd

from carcls.config import DataConfig
from carcls.data.records import TrainingPhotos, examples, find_separator, header_of, read_csv
from carcls.errors import UserError

log = logging.getLogger(__name__)

_ID = "id"  # the column of a run's val_predictions.csv


def drop_excluded(
    table: pd.DataFrame, config: DataConfig, where: str
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows that `data.exclude` does not name, and those that it does as (id, reason).

    Sources call it before they look for photos: a row that is left out needs none.

    Args:
        table: A row a photo, with at least `id` and `name`, its class.
        config: Of the source.
        where: What the rows come from, for messages.

    Raises:
        UserError: If the file cannot be read, names ids that there are not (unless
            `data.on_missing` is `skip`), or all photos of a class.
    """
    if config.exclude is None:
        return table, []
    ids = read_ids(config, "exclude")
    is_excluded = table.id.isin(ids)
    _tell_unknown(ids, set(table.id), config, "exclude", where)
    kept, excluded = table[~is_excluded], table[is_excluded]
    lost = sorted(set(excluded.name) - set(kept.name) - {""})
    if lost:
        raise UserError(
            f"Expected data.exclude to leave photos of every class in {where}. Received: "
            f"{config.exclude}, which names all photos of {examples(lost)}. "
            "Take some of its ids out of the file, or the class's rows out of the data."
        )
    return kept, [(photo_id, f"excluded by {config.exclude}") for photo_id in excluded.id]


def with_val_ids(photos: TrainingPhotos, config: DataConfig) -> TrainingPhotos:
    """The same photos, `is_val` those that `data.val_ids` names.

    Raises:
        UserError: If the file cannot be read, the data comes with a split of its own, ids match no
            photo (all of them, or some unless `data.on_missing` is `skip`), or all photos match.
    """
    if "is_val" in photos.table:
        raise UserError(
            "Expected either data.val_ids or data with a split of its own. Received: "
            f"data.val_ids={config.val_ids} and data.name={config.name}, whose data says which "
            f"{int(photos.table.is_val.sum())} photos validate. Drop data.val_ids"
            + (", or data.split_column." if config.name == "csv" else ".")
        )
    ids = read_ids(config, "val_ids")
    is_val = photos.table.id.isin(ids)
    if not is_val.any():
        raise UserError(
            f"Expected ids of the {len(is_val)} photos, such as {photos.table.id.iloc[0]}, in "
            f"data.val_ids. Received: {config.val_ids} with {examples(ids)}, none of which is one."
        )
    known = set(photos.table.id) | {photo_id for photo_id, _ in photos.skipped}
    _tell_unknown(ids, known, config, "val_ids", "the data")
    if is_val.all():
        raise UserError(
            f"Expected data.val_ids to leave photos to train on. Received: {config.val_ids}, which "
            f"names all {len(is_val)}."
        )
    photos.table = photos.table.assign(is_val=is_val.to_numpy(bool))
    return photos


def read_ids(config: DataConfig, key: str) -> list[str]:
    """The ids in the file of `data.exclude` or `data.val_ids`, each once, in its order.

    A CSV with a column `id` or `data.id_column` (a run's `val_predictions.csv` is one), else a
    text file with an id a line.

    Raises:
        UserError: If it cannot be read, is a CSV without such a column, or has no ids.
    """
    path = Path(getattr(config, key)).expanduser()
    columns = tuple(dict.fromkeys((getattr(config, "id_column", _ID), _ID)))
    expected = (
        f"Expected data.{key} to be a text file with an id a line, or a CSV with a column "
        f"{' or '.join(columns)}. Received: {path}"
    )
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.strip(" \t\r") for line in text.split("\n")]
        column = next((name for name in columns if name in _header(path, name)), None)
    except UnicodeDecodeError as error:
        raise UserError(f"{expected}, which is not in UTF-8: {error}.") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{expected}: {getattr(error, 'strerror', error)}.") from error
    if column is not None:
        lines = read_csv(path, (column,), separator=None)[column].tolist()
    elif path.suffix.lower() in (".csv", ".tsv") and any(lines):
        raise UserError(f"{expected}, whose first line is {lines[0]}.")
    ids = list(dict.fromkeys(line for line in lines if line))
    if not ids:
        raise UserError(f"{expected}, which has no ids. Leave data.{key} out, or set it to null.")
    return ids


def _header(path: Path, column: str) -> list[str]:
    return header_of(path, find_separator(path, (column,)))


def _tell_unknown(
    ids: list[str], known: set[str], config: DataConfig, key: str, where: str
) -> None:
    unknown = [photo_id for photo_id in ids if photo_id not in known]
    if not unknown:
        return
    text = f"{len(unknown)} of {len(ids)} ids in {getattr(config, key)} are not in {where}"
    if config.on_missing == "skip":
        log.warning(f"WARNING: {text}: {examples(unknown)}. They change nothing.")
        return
    raise UserError(
        f"Expected the ids in data.{key} to be in the data, such as {min(known, default='none')}. "
        f"Received: {text}: {examples(unknown)}. Mend the file, or go on with data.on_missing=skip."
    )
