"""Labelled rows of a CSV and the photos that they mean: every disagreement is told."""

import logging
import unicodedata
from pathlib import Path

import pandas as pd

from carcls.config import DataConfig
from carcls.data.layout import visible
from carcls.data.photo_index import PhotoIndex, is_image
from carcls.data.records import TestPhotos, TrainingPhotos, examples, labelled
from carcls.data.selection import drop_excluded
from carcls.errors import UserError

log = logging.getLogger(__name__)

_LEAVE_OUT = "Leave them out with data.on_missing=skip."


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

    Args:
        table: `id`, `name` (the class) and, where the rows come with a split, `is_val`.
        index: Where the photos are.
        csv: Where the rows are from.
        config: Of the source.
        label_column: What the CSV calls the class.
        others: The photos below the index that need no row.
        all_need_rows: Whether every other photo below the index needs one. If not, those that lie
            beside the photos of the rows, in a folder of theirs, are counted and said.

    Raises:
        UserError: As said above; if a photo has two rows; if nothing is left to tell apart.
    """
    table = _without_spaces(table, csv, label_column)
    rows = zip(table.id, table.name, strict=True)
    table = table.assign(path=pd.Series([index.find(*row) for row in rows], table.index, object))
    used = [*table.path, *others]
    strays = _strays(index, index.photos, used) if all_need_rows else []
    if not all_need_rows:
        _say_neighbours(table, index, csv, used)
    table, skipped = drop_excluded(table, config, str(csv))
    classes = set(table.name) - {""}

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
    if misplaced:
        complaint = (
            f"Expected {csv} and the folders below {index.root} to agree. "
            "Received photos in the folder of another class for"
        )
        shown = [f"{table.id[row]} ({reason})" for row, reason in misplaced.items()]
        hint = " Mend the CSV or move the photos."
        _tell(list(misplaced), shown, len(table), complaint, config, hint)
        skipped += [(table.id[row], reason) for row, reason in misplaced.items()]
        table = table.drop(index=list(misplaced))

    repeated = _repeated(table)
    if repeated:
        shown = [f"{table.id[row]} ({reason})" for row, reason in repeated.items()]
        complaint = f"Expected every photo once in {csv}. Received more than once"
        _tell(list(repeated), shown, len(table), complaint, config)
        skipped += [(table.id[row], reason) for row, reason in repeated.items()]
        table = table.drop(index=list(repeated))
    table = table.sort_values(["id", "name"], ignore_index=True)
    columns = [name for name in ("id", "path", "is_val") if name in table]
    photos = labelled(table[columns], table.name, skipped, str(csv))

    if strays:
        complaint = f"Expected a row in {csv} for every photo below {index.root}. Received none for"
        hint = " Name the CSV of photos to predict with data.test_csv." * (config.name == "csv")
        _tell(strays, strays, len(index.photos), complaint, config, hint)
        photos.skipped += [(photo_id, f"no row in {csv.name}") for photo_id in strays]

    lost = sorted(classes - set(photos.class_names))
    if lost:
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
    stripped = table.name.str.strip()
    if stripped.nunique() == table.name.nunique():
        return table
    changed = table.name[table.name != stripped]
    log.warning(
        f"WARNING: {len(changed)} values of {label_column} in {csv} have spaces around them, which "
        f"are left out: {examples([repr(name) for name in sorted(set(changed))])}."
    )
    return table.assign(name=stripped)


def _repeated(table: pd.DataFrame) -> dict[int, str]:
    """Rows to leave out because of their photo's other rows: all but one, or all that differ."""
    rows = table[table.path.duplicated(keep=False)]
    classes = rows.groupby("path").name.transform("nunique")
    again = rows.path.duplicated()
    return {
        row: "rows of different classes" if n > 1 else "the same row again"
        for row, n, is_again in zip(rows.index, classes, again, strict=True)
        if n > 1 or is_again
    }


def _misplaced(table: pd.DataFrame, index: PhotoIndex, classes: set[str]) -> dict[int, str]:
    """Rows whose photo lies in the folder of another class and not in that of its own.

    None if most that lie in folders of such names do: photos are numbered into folders 0, 1, 2 to
    keep these small, and then 3 says nothing of class 3.
    """
    folders = [index.folders_of(path) for path in table.path]
    # A class may have the name of a folder that all photos share (train): it says nothing then.
    shared = set.intersection(*(set(names.split("/")) for names in folders)) if folders else set()
    of_classes = {_nfc(name) for name in classes} - {
        name for name in shared if (table.name == name).mean() <= 0.5
    }
    found, own = {}, 0
    for row, name, names in zip(table.index, table.name, folders, strict=True):
        said = [folder for folder in names.split("/") if folder in of_classes]
        if f"/{_nfc(name)}/" in names:
            own += bool(said)
        elif said:
            found[row] = f"in the folder {said[-1]}, the CSV says {name}"
    if found and len(found) >= own:
        shown = [f"{table.id[row]} ({reason})" for row, reason in found.items()]
        log.warning(
            f"WARNING: {len(found)} of {len(found) + own} photos in folders named as classes lie "
            f"in that of another, so the folders are taken for no classes: {examples(shown)}."
        )
        return {}
    return found


def _say_neighbours(
    table: pd.DataFrame, index: PhotoIndex, csv: Path, used: list[str | None]
) -> None:
    """Counts photos without a row in the folders that rows use, but for the index's own root."""
    folders = {Path(path).parent for path in table.path.dropna()} - {index.root}
    photos = [path for folder in sorted(folders) for path in visible(folder) if path.is_file()]
    strays = _strays(index, photos, used)
    if strays:
        log.info(f"{len(strays)} photos beside those of {csv} have no row: {examples(strays)}.")


def _strays(index: PhotoIndex, photos: list[Path], used: list[str | None]) -> list[str]:
    """Those of `photos` that no row means, as paths below the index's root."""
    known = {_folded(path) for path in used if path is not None}
    return [
        path.relative_to(index.root).as_posix()
        for path in photos
        if is_image(path) and _folded(str(path)) not in known
    ]


def _folded(path: str) -> str:
    """Equal for paths that may be the same file, where a disk does not tell cases apart."""
    return _nfc(path).casefold()


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
