"""Labelled rows of a CSV and the photos that they mean: every disagreement is told."""

import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.config import DataConfig
from carcls.data.layout import entries_in, is_file
from carcls.data.photo_index import PhotoIndex, is_image
from carcls.data.records import TestPhotos, TrainingPhotos, examples, labelled
from carcls.data.selection import drop_excluded
from carcls.errors import UserError

log = logging.getLogger(__name__)

_LEAVE_OUT = "Leave them out with data.on_missing=skip."
NEIGHBOUR = "beside the photos of the rows, without a row"  # a reason that stops nothing


def photos_of_rows(
    table: pd.DataFrame,
    index: PhotoIndex,
    csv: Path,
    config: DataConfig,
    label_column: str,
    others: list[str | None],
    all_need_rows: bool,
) -> TrainingPhotos:
    """The photo of every row.

    Rows without a photo or a class, rows whose photo lies in another class's folder and photos
    without a row are told, or left out and listed where `data.on_missing` is `skip`.

    With data=csv a photo may have several rows of its one class, which all stay and are counted.

    Args:
        table: `id`, `name` (the class) and, where the rows come with a split, `is_val`.
        index: Where the photos are.
        csv: Where the rows are from.
        config: Of the source.
        label_column: What the CSV calls the class.
        others: The photos below the index that need no row.
        all_need_rows: Whether every other photo below the index needs one. If not, those that lie
            beside the photos of the rows, in a folder of theirs, are said and listed.

    Raises:
        UserError: As said above; if rows of one photo disagree, or are more than one where the
            source is not data=csv, unless such rows are left out too; if nothing is left to tell
            apart.
    """
    table = _without_spaces(table, csv, label_column)
    table = table.assign(path=_paths(table, index))
    used = {path for path in (*table.path, *others) if path is not None}
    strays = _strays(index, index.paths(), used) if all_need_rows else []
    neighbours = [] if all_need_rows else _neighbours(table, index, csv, config, used)
    table, skipped = drop_excluded(table, config, str(csv))
    classes, ids_of_rows, names_of_rows = set(table.name.unique()) - {""}, table.id, table.name

    ids = table.id[table.name == ""].tolist()
    if ids:
        complaint = f"Expected a {label_column} in every row of {csv}. Received none for"
        _tell(ids, ids, len(table), complaint, config)
        skipped += [(photo_id, f"no {label_column}") for photo_id in ids]
        table = table[table.name != ""]

    ids = table.id[table.path.isna()].tolist()
    if ids:
        complaint = (
            f"Expected a photo for each of the {len(table)} rows of {csv} below {index.root}. "
            "Received none for"
        )
        _tell(ids, ids, len(table), complaint, config, _hints(ids, index, strays))
        several = "more than one photo of that name"
        skipped += [(i, several if i in index.ambiguous else "no photo") for i in ids]
        table = table[table.path.notna()]

    misplaced = _misplaced(table, index, classes)
    complaint = (
        f"Expected {csv} and the folders below {index.root} to agree. "
        "Received photos in the folder of another class for"
    )
    hint = " Mend the CSV or move the photos."
    table = _without(misplaced, table, complaint, config, skipped, hint)

    may_repeat = config.name == "csv"
    complaint = f"Expected every photo once in {csv}. Received more than once"
    if may_repeat:
        complaint = f"Expected all rows of a photo in {csv} to agree. Received contradictions in"
    table = _without(_repeated(table, may_repeat), table, complaint, config, skipped)
    if may_repeat:
        _say_repeats(table, csv)
    table = table.sort_values(["id", "name"], ignore_index=True)
    columns = [name for name in ("id", "path", "is_val") if name in table]
    photos = labelled(table[columns], table.name, skipped, str(csv))

    if strays:
        complaint = f"Expected a row in {csv} for every photo below {index.root}. Received none for"
        hint = " Name the CSV of photos to predict with data.test_csv." * (config.name == "csv")
        _tell(strays, strays, len(index), complaint, config, hint)
        photos.skipped += [(photo_id, f"no row in {csv.name}") for photo_id in strays]

    if config.name == "csv":  # others do not say which of them are to be predicted
        photos.skipped += [(photo_id, NEIGHBOUR) for photo_id in neighbours]
    lost = sorted(classes - set(photos.class_names))
    if lost:
        photos.of_lost_classes = set(ids_of_rows[names_of_rows.isin(lost)])
        log.warning(f"WARNING: no photo is left of these classes of {csv}: {examples(lost)}.")
    return photos


def photos_of_ids(
    rows: list[tuple[str, str]],
    index: PhotoIndex,
    csv: Path,
    columns: tuple[str, str],
    truth: dict[str, str] | None = None,
) -> TestPhotos:
    """The photos to predict, and why some are not there.

    Args:
        rows: Id and class of each; no class is the empty string.
        index: Where the photos are.
        csv: Where the rows are from.
        columns: Names of the submission's id and label column.
        truth: Labels by id where they are known.

    Raises:
        UserError: If there are no ids, some are there twice, or none has a photo.
    """
    paths = [index.find(*row) for row in rows]
    ids = [photo_id for photo_id, _ in rows]
    missing = [photo_id for photo_id, path in zip(ids, paths, strict=True) if path is None]
    reasons = {photo_id: index.why_not_found(photo_id) for photo_id in missing}
    photos = TestPhotos(ids=ids, paths=paths, columns=columns, truth=truth, reasons=reasons)
    return photos.checked(csv, index.root)


def _paths(table: pd.DataFrame, index: PhotoIndex) -> pd.Series:
    """The photo of every row, None where there is none; those of one id and class are one look."""
    ids, distinct_ids = pd.factorize(table.id)
    names, distinct_names = pd.factorize(table.name)
    pairs, row = np.unique(ids * max(len(distinct_names), 1) + names, return_inverse=True)
    ids, names = np.divmod(pairs, max(len(distinct_names), 1))
    looks = zip(
        distinct_ids.to_numpy(object)[ids], distinct_names.to_numpy(object)[names], strict=True
    )
    found = np.empty(len(pairs), object)
    found[:] = [index.find(*look) for look in looks]
    return pd.Series(found[row], table.index, object)


def _without(
    reasons: pd.Series,
    table: pd.DataFrame,
    complaint: str,
    config: DataConfig,
    skipped: list[tuple[str, str]],
    hint: str = "",
) -> pd.DataFrame:
    """`table` without the rows that have a reason, which are told, or else join `skipped`."""
    if reasons.empty:
        return table
    rows = list(zip(table.id[reasons.index], reasons, strict=True))
    shown = [f"{photo_id} ({reason})" for photo_id, reason in rows]
    _tell(rows, shown, len(table), complaint, config, hint)
    skipped += rows
    return table.drop(index=reasons.index)


def _tell(
    wrong: list, shown: list[str], total: int, complaint: str, config: DataConfig, hint: str = ""
) -> None:
    """Raises `complaint` unless it is to be skipped and leaves something."""
    if config.on_missing == "skip" and len(wrong) < total:
        return
    advice = f" {_LEAVE_OUT}" if len(wrong) < total else ""
    raise UserError(f"{complaint} {len(wrong)}: {examples(shown)}.{hint}{advice}")


def _hints(ids: list[str], index: PhotoIndex, strays: list[str]) -> str:
    """What may explain rows without a photo."""
    ambiguous = [photo_id for photo_id in ids if photo_id in index.ambiguous]
    outside = [photo_id for photo_id in ids if Path(photo_id).is_absolute()]
    return (
        (f" More than one photo fits {examples(ambiguous)}." if ambiguous else "")
        + (" Photos are looked for below data.root only." if outside else "")
        + (f" Photos without a row: {examples(strays)}." if strays else "")
    )


def _without_spaces(table: pd.DataFrame, csv: Path, label_column: str) -> pd.DataFrame:
    """Classes that differ by spaces around them alone, as typed tables have them, made one."""
    names = set(table.name.unique())
    if len({name.strip() for name in names}) == len(names):
        return table
    stripped = table.name.str.strip()
    changed = table.name[table.name != stripped]
    log.warning(
        f"WARNING: {len(changed)} values of {label_column} in {csv} have spaces around them, which "
        f"are left out: {examples([repr(name) for name in sorted(set(changed))])}."
    )
    return table.assign(name=stripped)


def _repeated(table: pd.DataFrame, may_repeat: bool) -> pd.Series:
    """Rows to leave out because of their photo's other rows, by index, with the reason.

    All that differ, and unless a photo may have several rows all but the first of the others.
    """
    photo, photos = pd.factorize(table.path)
    reasons = np.full(len(table), None, object)
    if len(photos) < len(table):
        if not may_repeat:
            reasons[table.path.duplicated()] = "the same row again"
        if "is_val" in table:
            reasons[_differ(photo, table.is_val)] = "rows on both sides of the split"
        reasons[_differ(photo, table.name)] = "rows of different classes"
    return pd.Series(reasons, table.index).dropna()


def _differ(photo: np.ndarray, values: pd.Series) -> np.ndarray:
    """`(n,)` bool: whether the rows of a row's photo, numbered in `photo`, have several values."""
    codes, distinct = pd.factorize(values)
    pairs = np.unique(photo * len(distinct) + codes)
    return (np.bincount(pairs // len(distinct)) > 1)[photo]


def _say_repeats(table: pd.DataFrame, csv: Path) -> None:
    """Counts the photos that have several rows."""
    again = table.path[table.path.duplicated()]
    if len(again):
        log.info(
            f"{len(again)} of the {len(table)} rows of {csv} repeat {again.nunique()} photos: "
            "a photo counts as often as it has rows, which are all on one side of the split."
        )


def _misplaced(table: pd.DataFrame, index: PhotoIndex, classes: set[str]) -> pd.Series:
    """Rows whose photo lies in the folder of another class and not in that of its own, as reasons.

    None if most that lie in folders of such names do: photos are numbered into folders 0, 1, 2 to
    keep these small, and then 3 says nothing of class 3.
    """
    parents = np.array([path.rpartition("/")[0] for path in table.path], object)
    folder, parents = pd.factorize(parents)
    folders = [index.folders_of(f"{parent}/") for parent in parents]
    code, names = pd.factorize(table.name)
    # A class may have the name of a folder that all photos share (train): it says nothing then.
    shared = set.intersection(*(set(f.split("/")) for f in folders)) if folders else set()
    of_classes = {_nfc(name) for name in classes} - {
        name for name in shared if (table.name == name).mean() <= 0.5
    }
    pairs, pair, counts = np.unique(
        folder * max(len(names), 1) + code, return_inverse=True, return_counts=True
    )
    reasons, own = np.full(len(pairs), None, object), 0
    for number, count in enumerate(counts.tolist()):
        inside, name = folders[pairs[number] // len(names)], names[pairs[number] % len(names)]
        said = [part for part in inside.split("/") if part in of_classes]
        if f"/{_nfc(name)}/" in inside:
            own += count * bool(said)
        elif said:
            reasons[number] = f"in the folder {said[-1]}, the CSV says {name}"
    found = pd.Series(reasons[pair], table.index, object).dropna()
    if len(found) and len(found) >= own:
        shown = [f"{i} ({why})" for i, why in zip(table.id[found.index], found, strict=True)]
        log.warning(
            f"WARNING: {len(found)} of {len(found) + own} photos in folders named as classes lie "
            f"in that of another, so the folders are taken for no classes: {examples(shown)}."
        )
        return found[:0]
    return found


def _neighbours(
    table: pd.DataFrame, index: PhotoIndex, csv: Path, config: DataConfig, used: set[str]
) -> list[str]:
    """Photos without a row in the folders that rows use, as paths below the index's root.

    In the root itself only with data=csv: a competition's photos to predict may lie there.
    """
    inside = {index.inside(path).rpartition("/")[0] for path in table.path.dropna().unique()}
    if config.name != "csv":
        inside -= {""}
    folders = sorted(index.root / name for name in inside)
    photos = []
    for folder in folders:
        start = str(folder / "_")[:-1]  # of its photos' paths: empty for the current directory
        others = (entry for entry in entries_in(folder) if start + entry.name not in used)
        names = sorted(entry.name for entry in others if is_image(entry.name) and is_file(entry))
        photos += [start + name for name in names]
    strays = _strays(index, photos, used)
    if strays:
        log.info(f"{len(strays)} photos beside those of {csv} have no row: {examples(strays)}.")
    return strays


def _strays(index: PhotoIndex, photos: Iterable[str], used: set[str]) -> list[str]:
    """Those of `photos` that no row means, as paths below the index's root."""
    others = [path for path in photos if path not in used and is_image(path)]
    folded = {_folded(path) for path in others}
    known = {name for name in map(_folded, used) if name in folded} if others else set()
    return [index.inside(path) for path in others if _folded(path) not in known]


def _folded(path: str) -> str:
    """Equal for paths that may be the same file, where a disk does not tell cases apart."""
    return _nfc(path).casefold()


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
