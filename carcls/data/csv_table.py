"""Any CSV: a row a photo, its columns named in the configuration, the photos below `data.root`."""

import logging
from pathlib import Path

import pandas as pd

from carcls.config import CsvData
from carcls.data.layout import PART_OF, SPLIT_NAMES, existing_root, unwrapped, without_suffix
from carcls.data.photo_index import PhotoIndex
from carcls.data.records import TestPhotos, TrainingPhotos, examples
from carcls.data.rows import photos_of_ids, photos_of_rows
from carcls.data.tables import read_csv
from carcls.errors import UserError

log = logging.getLogger(__name__)

_LOOKED_FOR = "the photos of data.csv"


def read_training_photos(config: CsvData) -> TrainingPhotos:
    """The rows of `data.csv` with their photos, without those that are to be predicted.

    With `data.split_column` the rows say which validate. Where it knows no validation, the rows to
    train on are split as if there were no such column, and that is said.
    """
    csv, root = _csv_and_root(config, "csv")
    written = _read(csv, config, (config.id_column, config.label_column))
    index = _photo_index(root, config)
    others = _photos_to_predict(index, config)
    # Its own names only: a split column may be called name or is_val.
    table = pd.DataFrame({"id": written[config.id_column], "name": written[config.label_column]})
    if config.split_column is not None:
        part = _parts(written, csv, config)
        others += [index.find(*row) for row in _pairs(written[part == "test"], config)]
        table = table[part != "test"]
        if (part == "val").any():
            table = table.assign(is_val=(part == "val")[part != "test"])
        elif config.val_ids is None and not config.refit:
            log.info(
                f"no row of {csv} says val in {config.split_column}: the share data.val_split "
                f"of its {len(table)} rows to train on validates"
            )
    # Beside the CSV lie photos to predict too, and pictures of other things.
    all_need_rows = not csv.resolve().is_relative_to(root.resolve())
    table = table.reset_index(drop=True)
    return photos_of_rows(table, index, csv, config, config.label_column, others, all_need_rows)


def read_test_photos(config: CsvData) -> TestPhotos:
    """The rows of `data.test_csv`, or those of `data.csv` that its split column calls test."""
    columns = (config.id_column, config.label_column)
    if config.test_csv is not None:
        csv, root = _csv_and_root(config, "test_csv")
        table = _read(csv, config, columns[:1], optional=columns[1:])
        rows = [(photo_id, "") for photo_id in table[config.id_column]]
        names = table.get(config.label_column, pd.Series(dtype=str))
    elif config.split_column is not None:
        csv, root = _csv_and_root(config, "csv")
        table = _read(csv, config, columns)
        part = _parts(table, csv, config)
        classes = set(table[config.label_column][part != "test"])
        table = table[part == "test"]
        if table.empty:
            raise UserError(
                f"Expected rows of {csv} that say test in {config.split_column}, to predict. "
                "Received: none. Name another CSV with data.test_csv=FILE, or photos with "
                "images=PATH."
            )
        rows, names = _pairs(table, config), table[config.label_column]
        names = names.where(names.isin(classes), "")  # what nothing is trained on is no truth
    else:
        raise UserError(
            "Expected data.test_csv=FILE, which lists what to predict, or data.split_column=NAME, "
            "whose rows of test are predicted. Received: neither. "
            "To predict photos without a CSV: images=PATH."
        )
    truth = None
    if names.nunique() > 1:  # one value in every row is the placeholder of a sample submission
        ids = table[config.id_column]
        truth = {i: name for i, name in zip(ids, names, strict=True) if name}
    return photos_of_ids(rows, _photo_index(root, config), csv, columns, truth)


def _photo_index(root: Path, config: CsvData) -> PhotoIndex:
    return PhotoIndex(root, called=without_suffix(Path(config.root or "").expanduser().absolute()))


def _csv_and_root(config: CsvData, key: str) -> tuple[Path, Path]:
    """The file of `data.csv` or `data.test_csv`, and `data.root` as a folder.

    The file is looked for from the current directory, then below the root.
    """
    name = getattr(config, key)
    if not name:
        raise UserError(
            f"Expected data.{key}=FILE, a CSV with the columns {config.id_column},"
            f"{config.label_column} (others: data.id_column, data.label_column). Received: none."
        )
    path = Path(name).expanduser()
    looked_for = [path]
    if path.is_file():
        return path, existing_root(config, _LOOKED_FOR)
    if path.parent != Path(config.root).expanduser():  # the root was not given, but follows from it
        root = existing_root(config, _LOOKED_FOR)
        below = unwrapped(root, config, lambda folder: (folder / path).is_file()) / path
        if below.is_file():
            return below, root
        looked_for.append(below)
    places = " and ".join(dict.fromkeys(str(place.absolute()) for place in looked_for))
    raise UserError(f"Expected data.{key} to be a CSV file. Received: {name}. Looked for {places}.")


def _read(
    csv: Path, config: CsvData, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    if config.split_column is not None and not optional:
        columns = (*columns, config.split_column)
    separator = "\t" if config.separator == "tab" else config.separator
    return read_csv(csv, columns, separator, optional)


def _parts(table: pd.DataFrame, csv: Path, config: CsvData) -> pd.Series:
    """train, val or test for each row.

    Raises:
        UserError: If a row says anything else.
    """
    written = table[config.split_column]
    part = written.str.strip().str.lower().map(PART_OF)
    unknown = written[part.isna()].value_counts(sort=False)
    if len(unknown):
        shown = [f"{value!r} in {n} row{'s' * (n > 1)}" for value, n in sorted(unknown.items())]
        known = " or ".join(
            f"{part} ({', '.join(names[1:])})" for part, names in SPLIT_NAMES.items()
        )
        raise UserError(
            f"Expected every row of {csv} to say in column {config.split_column} one of {known}. "
            f"Received: {examples(shown)}."
        )
    return part


def _pairs(table: pd.DataFrame, config: CsvData) -> list[tuple[str, str]]:
    return list(zip(table[config.id_column], table[config.label_column], strict=True))


def _photos_to_predict(index: PhotoIndex, config: CsvData) -> list[str | None]:
    """Those of `data.test_csv`, which need no row in `data.csv`."""
    if config.test_csv is None:
        return []
    csv, _ = _csv_and_root(config, "test_csv")
    ids = _read(csv, config, (config.id_column,), optional=(config.label_column,))
    return [index.find(photo_id) for photo_id in ids[config.id_column]]
