"""What is known of photos before they are opened, and what every source of them shares."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.config import DataConfig
from carcls.errors import UserError


@dataclass(kw_only=True)
class TrainingPhotos:
    """Labelled photos.

    Attributes:
        table: A row a photo: `id`, `path` (str), `label` (index into `class_names`) and, where the
            data comes with a split, `is_val` (bool). Its order does not depend on the machine.
        class_names: As the data writes them; numbers in numeric order, others alphabetically.
        skipped: Rows that were left out, as (id, reason).
    """

    table: pd.DataFrame
    class_names: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def fingerprint(self) -> str:
        """A hash of ids, labels and file sizes: another one means other data."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for row in self.table.itertuples():
            digest.update(f"{row.id}\0{row.label}\0{Path(row.path).stat().st_size}\n".encode())
        return digest.hexdigest()[:16]


@dataclass(kw_only=True)
class TestPhotos:
    """Photos to predict, in the order of the submission.

    Attributes:
        ids: As the sample submission writes them.
        paths: The photo of each id, None where there is none.
        columns: Names of the submission's id and label column.
        truth: Labels by id where they are known (`test-labels.csv`), as the data writes them.
    """

    __test__ = False  # not a test case, whatever its name says

    ids: list[str]
    paths: list[str | None]
    columns: tuple[str, str]
    truth: dict[str, str] | None = None


def sorted_class_names(names: "pd.Series | list[str]") -> list[str]:
    """Unique names: in numeric order if all are plain integers, else alphabetically."""
    unique = sorted(set(names))
    if all(is_plain_integer(name) for name in unique):
        unique.sort(key=int)
    return unique


def is_plain_integer(name: str) -> bool:
    """Whether `name` is an integer and would be written the same as one: 7, not 007."""
    return name.isascii() and name.removeprefix("-").isdigit() and str(int(name)) == name


def labelled(table: pd.DataFrame, names: pd.Series, skipped: list, where: str) -> TrainingPhotos:
    """Puts class indices for class names, and checks that there is something to tell apart.

    Raises:
        UserError: If there are fewer than two classes.
    """
    class_names = sorted_class_names(names)
    if len(class_names) < 2:
        raise UserError(
            f"Expected at least two classes in {where}. "
            f"Received: {len(table)} photos of {', '.join(class_names) or 'no class'}. "
            "A classifier needs photos of two or more classes."
        )
    index = {name: i for i, name in enumerate(class_names)}
    table = table.assign(label=names.map(index).to_numpy(np.int32))
    return TrainingPhotos(table=table, class_names=class_names, skipped=skipped)


def existing_root(config: DataConfig, looked_for: str) -> Path:
    """`data.root` as a directory with something in it.

    Raises:
        UserError: If it is missing or empty; says what was looked for.
    """
    if not config.root:
        raise UserError("Expected data.root to be a directory of photos. Received: nothing.")
    root = Path(config.root).expanduser()
    hint = (
        f"Looked for {looked_for}. Set data.root=DIR, or try data=demo, which draws its own photos "
        "and needs none."
    )
    if not root.exists():
        raise UserError(
            f"Expected a directory of photos at data.root. Received: {root}, which "
            f"does not exist. {hint}"
        )
    if not root.is_dir():
        raise UserError(
            f"Expected a directory of photos at data.root. Received: {root}, which "
            f"is a file. {hint}"
        )
    if not any(root.iterdir()):
        raise UserError(
            f"Expected a directory of photos at data.root. Received: {root}, which is empty. {hint}"
        )
    return root


def read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """`columns` of a CSV, every value exactly as it is written.

    Raises:
        UserError: If it is no CSV or lacks one of the columns, by name.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"Expected a CSV file in UTF-8. Received: {path}: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes a value too many for an index
        raise UserError(
            f"Expected rows of {len(table.columns)} values, as many as columns, in {path}. "
            'Received: rows with more. A value that holds a comma is written in quotes: "a, b".'
        )
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise UserError(
            f"Expected the columns {', '.join(columns)} in {path}. "
            f"Received: {', '.join(map(str, table.columns))}. "
            f"Lacking: {', '.join(lacking)}. Set data.id_column and data.label_column."
        )
    return table[list(columns)]


def examples(values: list[str], count: int = 3) -> str:
    """The first few of `values`, and how many more there are."""
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return ", ".join(map(str, values[:count])) + more
