"""Labelled rows of a CSV and the photos that they mean: every disagreement is told."""

import logging
import unicodedata
from pathlib import Path

import pandas as pd

from carcls.config import DataConfig
from carcls.data.photo_index import PhotoIndex, is_image
from carcls.data.records import TrainingPhotos, examples, labelled
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
    others: list[str | None] | None = None,
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
        others: The photos below the index that need no row. None: none there needs one.

    Raises:
        UserError: As said above; if a photo has two rows; if nothing is left to tell apart.
    """
    rows = zip(table.id, table.name, strict=True)
    table = table.assign(path=pd.Series([index.find(*row) for row in rows], table.index, object))
    strays = [] if others is None else _strays(index, [*table.path, *others])
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

    repeated = table.id[table.path.duplicated()].tolist()
    if repeated:
        raise UserError(f"Expected every photo once in {csv}. Received twice: {examples(repeated)}")
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


def _misplaced(table: pd.DataFrame, index: PhotoIndex, classes: set[str]) -> dict[int, str]:
    """Rows whose photo lies in the folder of another class and not in that of its own."""
    folders = [index.folders_of(path) for path in table.path]
    # A class may have the name of a folder that all photos share (train): it says nothing then.
    shared = set.intersection(*(set(names.split("/")) for names in folders)) if folders else set()
    of_classes = {_nfc(name) for name in classes} - {
        name for name in shared if (table.name == name).mean() <= 0.5
    }
    found = {}
    for row, name, names in zip(table.index, table.name, folders, strict=True):
        said = [folder for folder in names.split("/") if folder in of_classes]
        if said and f"/{_nfc(name)}/" not in names:
            found[row] = f"in the folder {said[-1]}, the CSV says {name}"
    return found


def _strays(index: PhotoIndex, used: list[str | None]) -> list[str]:
    """Photos below the index that no row means, as paths below its root."""
    known = {_folded(path) for path in used if path is not None}
    return [
        path.relative_to(index.root).as_posix()
        for path in index.photos
        if is_image(path) and _folded(str(path)) not in known
    ]


def _folded(path: str) -> str:
    """Equal for paths that may be the same file, where a disk does not tell cases apart."""
    return _nfc(path).casefold()


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
