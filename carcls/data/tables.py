"""Tables as people write them: any separator, every value exactly as it stands there."""

import csv
from pathlib import Path

import pandas as pd

from carcls.errors import UserError

_SEPARATORS = (",", ";", "\t", "|")
_NAMED_BY = (
    "Columns are named by data.id_column, data.label_column and, with data=csv, "
    "data.split_column; what stands between them by data.separator."
)


def read_csv(
    path: Path,
    columns: tuple[str, ...],
    separator: str | None = ",",
    optional: tuple[str, ...] = (),
    hint: str = _NAMED_BY,
) -> pd.DataFrame:
    """`columns` of a CSV, and those of `optional` that it has, every value exactly as written.

    Args:
        path: The file, in UTF-8.
        columns: Those that it must have.
        separator: Between values. None: the first of , ; tab | that gives the header `columns`.
        optional: Those that it may have.
        hint: What to do about a column that is lacking.

    Raises:
        UserError: If it is no CSV or lacks one of the columns, by name.
    """
    try:
        separator = separator or find_separator(path, columns)
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator
        )
    except UnicodeDecodeError as error:
        raise UserError(
            f"Expected a CSV file in UTF-8. Received: {path}: {error}. Save it again in UTF-8."
        ) from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"Expected a CSV file with a header. Received: {path}, empty.") from error
    except pd.errors.ParserError as error:
        raise UserError(
            "Expected a CSV file whose rows have no more values than its header. "
            f"Received: {path}: {' '.join(str(error).split())}. What stands between values is "
            "found out, or set with data.separator."
        ) from error
    except (csv.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Expected a CSV file that can be read. Received: {path}: {reason}."
        ) from error
    table.columns = [str(name).strip() for name in table.columns]
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes a value too many for an index
        raise UserError(
            f"Expected rows of {len(table.columns)} values, as many as columns, in {path}. "
            'Received: rows with more. A value that holds a comma is written in quotes: "a, b".'
        )
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise UserError(
            f"Expected the columns {', '.join(columns)} in {path}. "
            f"Received: {', '.join(map(str, table.columns))}. Lacking: {', '.join(lacking)}. {hint}"
        )
    return table[[*columns, *(name for name in optional if name in table.columns)]]


def find_separator(path: Path, columns: tuple[str, ...]) -> str:
    """The first separator that gives a header with `columns`, else that with the most values."""
    headers = {separator: header_of(path, separator) for separator in _SEPARATORS}
    fitting = [name for name, header in headers.items() if set(columns) <= set(header)]
    return (fitting or sorted(_SEPARATORS, key=lambda name: -len(headers[name])))[0]


def header_of(path: Path, separator: str) -> list[str]:
    """The values of a CSV's first line, without spaces around them."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [name.strip() for name in next(csv.reader(file, delimiter=separator), [])]
