"""Photos chosen by a file of ids: those to leave out, and those to validate with."""

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.config import DataConfig
from carcls.data.records import TrainingPhotos, examples
from carcls.data.tables import find_separator, header_of, read_csv
from carcls.errors import UserError

log = logging.getLogger(__name__)

_ID, _LABEL = "id", "label"  # columns of a run's val_predictions.csv
_EXCLUDE = "exclude"  # column of explore.py's findings.csv
_YES, _NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0", "")


def drop_excluded(
    table: pd.DataFrame, config: DataConfig, where: str
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows that `data.exclude` does not name, and those that it does as (id, reason).

    Sources call it before they look for photos: a row that is left out needs none. An id that
    several photos have, in folders of several classes, means all of them unless the file says a
    label too; that is said.

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
    wanted = read_ids(config, "exclude")
    is_excluded, unknown, several = _chosen(table, wanted)
    _tell_unknown(unknown, len(wanted), set(table.id), config, "exclude", where)
    if several:
        log.warning(
            f"WARNING: {len(several)} of {len(wanted)} ids in {config.exclude} mean several photos "
            f"each, and all of these are left out: {examples(several)}. A column {_LABEL} tells "
            "them apart."
        )
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

    Where a photo has rows of several ids, one of these names them all; that is said.

    Raises:
        UserError: If the file cannot be read, the data comes with a split of its own, ids match no
            photo (all of them, or some unless `data.on_missing` is `skip`), ids mean several photos
            of which no label chooses one, or all photos match.
    """
    if "is_val" in photos.table:
        raise UserError(
            "Expected either data.val_ids or data with a split of its own. Received: "
            f"data.val_ids={config.val_ids} and data.name={config.name}, whose data says which "
            f"{int(photos.table.is_val.sum())} photos validate. Drop data.val_ids"
            + (", or data.split_column." if config.name == "csv" else ".")
        )
    wanted = read_ids(config, "val_ids")
    names = np.array(photos.class_names, object)[photos.table.label]
    left_out = [photo_id for photo_id, _ in photos.skipped]
    is_val, unknown, several = _chosen(photos.table.assign(name=names), wanted, left_out)
    if several:
        raise UserError(
            f"Expected every id in data.val_ids to mean one photo. Received: {config.val_ids}, in "
            f"which {len(several)} of {len(wanted)} mean several: {examples(several)}. Add a "
            f"column {_LABEL} that says which class, as a run's val_predictions.csv has it."
        )
    if not is_val.any():
        shown = examples(list(dict.fromkeys(photo_id for photo_id, _ in wanted)))
        raise UserError(
            f"Expected ids of the {len(is_val)} photos, such as {photos.table.id.iloc[0]}, in "
            f"data.val_ids. Received: {config.val_ids} with {shown}, none of which is one."
        )
    _tell_unknown(unknown, len(wanted), set(photos.table.id), config, "val_ids", "the data")
    named, is_val = is_val, photos.table.path.isin(photos.table.path[is_val])
    if named.sum() < is_val.sum():
        log.info(
            f"{is_val.sum() - named.sum()} rows of other ids validate too: they mean photos that "
            f"{config.val_ids} names."
        )
    if is_val.all():
        raise UserError(
            f"Expected data.val_ids to leave photos to train on. Received: {config.val_ids}, which "
            f"names all {len(is_val)}."
        )
    photos.table = photos.table.assign(is_val=is_val.to_numpy(bool))
    return photos


def read_ids(config: DataConfig, key: str) -> list[tuple[str, str | None]]:
    """The ids in the file of `data.exclude` or `data.val_ids`, each once, in its order.

    A CSV with a column `id` or `data.id_column` (a run's `val_predictions.csv` is one), else a
    text file with an id a line. With them the labels, where the CSV has a column `label`. Of a CSV
    with a column `exclude`, such as explore.py's findings.csv, the rows that say yes there are left
    out, and none may; its ids are in `id` where it has that too.

    Raises:
        UserError: If it cannot be read, is a CSV without such a column, has no ids, or says neither
            yes nor no in the column `exclude`.
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
        is_findings = {_ID, _EXCLUDE} <= set(_header(path, _ID))
        names = (_ID,) if is_findings else columns  # data.id_column may be another of its columns
        column = next((name for name in names if name in _header(path, name)), None)
    except UnicodeDecodeError as error:
        raise UserError(f"{expected}, which is not in UTF-8: {error}.") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{expected}: {getattr(error, 'strerror', error)}.") from error
    labels = None
    if column is not None:
        others = (_LABEL, _EXCLUDE) if key == "exclude" else (_LABEL,)
        table = read_csv(path, (column,), None, tuple(name for name in others if name != column))
        if _EXCLUDE in table and column != _EXCLUDE:
            table = _rows_that_say_yes(table, path)
            if table.empty:
                return []
        lines, labels = table[column].tolist(), table.get(_LABEL)
    elif path.suffix.lower() in (".csv", ".tsv") and any(lines):
        raise UserError(f"{expected}, whose first line is {lines[0]}.")
    pairs = zip(lines, [None] * len(lines) if labels is None else labels, strict=True)
    ids = list(dict.fromkeys((line, label or None) for line, label in pairs if line))
    if not ids:
        raise UserError(f"{expected}, which has no ids. Leave data.{key} out, or set it to null.")
    return ids


def _rows_that_say_yes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    said = table[_EXCLUDE].str.strip().str.lower()
    unclear = ~said.isin(_YES + _NO)
    if unclear.any():
        raise UserError(
            f"Expected yes or no in the column {_EXCLUDE} of {path}. Received: "
            f"{examples(sorted(set(table[_EXCLUDE][unclear])))}. Mend the file, or remove the "
            "column: then all of its ids are left out."
        )
    return table[said.isin(_YES)]


def _header(path: Path, column: str) -> list[str]:
    return header_of(path, find_separator(path, (column,)))


def _chosen(
    table: pd.DataFrame, wanted: list[tuple[str, str | None]], left_out: Sequence[str] = ()
) -> tuple[pd.Series, list[str], list[str]]:
    """Which rows `wanted` means: those of an id, or of id and label where photos share an id.

    Args:
        table: `id` and `name`, the class; rows that have both in common are one photo.
        wanted: Ids, with their labels where these are known.
        left_out: Ids of photos that are no longer in the table.

    Returns:
        `(n,)` bool over the rows, the ids that mean none (as they are shown), and those without a
        label that mean several.
    """
    ids = {photo_id for photo_id, _ in wanted}
    rows = table.loc[table.id.isin(ids), ["id", "name"]]
    photos = set(rows.itertuples(index=False, name=None))
    counts = Counter(photo_id for photo_id, _ in photos)
    all_counts = counts + Counter(photo_id for photo_id in left_out if photo_id in ids)
    by_both = {(i, label) for i, label in wanted if all_counts[i] > 1 and label is not None}
    by_id = {i for i, label in wanted if (i, label) not in by_both}
    meant = [row[0] in by_id or row in by_both for row in rows.itertuples(index=False, name=None)]
    chosen = pd.Series(False, table.index)
    chosen[rows.index] = np.array(meant, bool)
    unknown = list(dict.fromkeys(i for i, _ in wanted if i not in all_counts))
    explained = set(left_out)
    lacking = {pair for pair in by_both - photos if pair[0] not in explained}
    unknown += [f"{i} ({label})" for i, label in wanted if (i, label) in lacking]
    several = [i for i, label in wanted if counts[i] > 1 and label is None]
    return chosen, unknown, several


def _tell_unknown(
    unknown: list[str], total: int, known: set[str], config: DataConfig, key: str, where: str
) -> None:
    if not unknown:
        return
    text = f"{len(unknown)} of {total} ids in {getattr(config, key)} are not in {where}"
    if config.on_missing == "skip":
        log.warning(f"WARNING: {text}: {examples(unknown)}. They change nothing.")
        return
    raise UserError(
        f"Expected the ids in data.{key} to be in the data, such as {min(known, default='none')}. "
        f"Received: {text}: {examples(unknown)}. Mend the file, or go on with data.on_missing=skip."
    )
