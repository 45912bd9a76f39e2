"""Predictions that a file has, of whatever model: read and checked, to be measured like a run's."""

from pathlib import Path

import numpy as np
import pandas as pd

from carcls.data.records import examples
from carcls.data.tables import header_of
from carcls.errors import UserError
from carcls.evaluation.measured_photos import MeasuredPhotos

_PREFIX = "p_"
_UNSEEN = "Whether they were new to the model, the file does not say."
_SUM_TOLERANCE = 0.01  # probabilities are written with a few digits
_ROWS = 50_000  # that are read together: a thousand columns of text take memory


def read_predictions(file: str) -> tuple[MeasuredPhotos, list[str]]:
    """The predictions in a CSV: label, a column `p_<class>` for each class, perhaps id and path.

    Such are val_predictions.csv, oof_predictions.csv, and predictions.csv of an evaluation.

    Args:
        file: Its path.

    Returns:
        The photos, with an empty path where the file has none, and the names of the classes.

    Raises:
        UserError: If it is no such file, a label is no class, or a row has no probabilities.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(
            f"Expected predictions to be a CSV file. Received: predictions={file}, where there is "
            "no file."
        )
    header = header_of(path, ",")
    names = [name.removeprefix(_PREFIX) for name in header if name.startswith(_PREFIX)]
    if "label" not in header or len(names) < 2:
        raise UserError(
            f"Expected a column label and a column {_PREFIX}CLASS for each class in {path}. "
            f"Received: {examples(header, 12)}."
        )
    table, probs = _read(path, [name for name in ("id", "path", "label") if name in header], names)
    index_of = {name: index for index, name in enumerate(names)}
    labels = table.label.map(index_of)
    if labels.isna().any():
        strange = sorted(set(table.label[labels.isna()]))
        raise UserError(
            f"Expected every label in {path} to be one of its classes, {examples(names)}. "
            f"Received: {examples(strange)}."
        )
    off = np.flatnonzero(
        ~((probs >= 0).all(1) & (np.abs(probs.sum(1, dtype=float) - 1) <= _SUM_TOLERANCE))
    )
    if len(off):
        raise UserError(
            f"Expected rows of probabilities that sum to 1 in {path}. Received: {len(off)} of "
            f"{len(probs)} rows without, the first in line {off[0] + 2}."
        )
    number = pd.Series(np.arange(1, len(table) + 1).astype(str))
    photos = pd.DataFrame(
        {"id": table.get("id", number), "path": table.get("path", ""), "label": labels.astype(int)}
    )
    return MeasuredPhotos(table=photos, probs=probs, facts={}, unseen=_UNSEEN), names


def _read(
    path: Path, columns: list[str], names: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:  # fmt: skip
    """Those columns, and `(n, num_classes)` probabilities."""
    of_probs = [_PREFIX + name for name in names]
    types = dict.fromkeys(columns, str) | dict.fromkeys(of_probs, np.float32)
    tables, probs = [], []
    try:
        for part in pd.read_csv(
            path, dtype=types, usecols=[*columns, *of_probs], keep_default_na=False,
            na_values={name: [""] for name in of_probs}, chunksize=_ROWS, encoding="utf-8-sig",
        ):  # fmt: skip
            tables.append(part[columns])
            probs.append(part[of_probs].to_numpy(np.float32))
    except (ValueError, OSError) as error:  # no numbers, more values than columns, not in UTF-8
        raise UserError(
            f"Expected numbers in the columns {_PREFIX}CLASS of {path}. "
            f"Received: {' '.join(str(error).split())}."
        ) from error
    if not tables or not sum(map(len, tables)):
        raise UserError(f"Expected predictions in {path}. Received: none, a header alone.")
    return pd.concat(tables, ignore_index=True), np.concatenate(probs)
