"""What is known of photos before they are opened, and what every source of them shares."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.config import DataConfig
from carcls.data import archives
from carcls.data.archives import ARCHIVE_SUFFIXES, unpack_once
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.errors import UserError

ARCHIVES = ", ".join(ARCHIVE_SUFFIXES)
_SEPARATORS = (",", ";", "\t", "|")
_WRAPPERS = 5  # how many folders an upload may be wrapped in


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

    def checked(self, where: Path) -> "TestPhotos":
        """The same, if there are ids and each is there once.

        Raises:
            UserError: If not; `where` says where the ids are from.
        """
        repeated = sorted({photo_id for photo_id, n in Counter(self.ids).items() if n > 1})
        if repeated:
            raise UserError(
                f"Expected every Id exactly once in {where}. Received twice: {examples(repeated)}"
            )
        if not self.ids:
            raise UserError(f"Expected at least one Id in {where}. Received: none.")
        return self


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
    """`data.root` as a directory with something in it, unpacked if it is an archive.

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
    expected = f"Expected a directory of photos at data.root. Received: {root}, which"
    if is_archive(root):
        root = unpacked(root, config)
    if not root.exists():
        raise UserError(f"{expected} does not exist. {hint}")
    if not root.is_dir():
        raise UserError(f"{expected} is a file, and no archive ({ARCHIVES}). {hint}")
    try:
        if not visible(root):
            raise UserError(f"{expected} is empty. {hint}")
    except PermissionError as error:
        raise UserError(f"{expected} you have no permission to read.") from error
    return root


def is_archive(path: Path) -> bool:
    """Whether it is a file that has the name of an archive, be it of a kind that is refused."""
    return archives.is_archive(path) and path.is_file()


def unpacked(archive: Path, config: DataConfig) -> Path:
    """The folder that `archive` unpacks to, see `unpack_once`."""
    cache = None if config.cache_dir is None else Path(config.cache_dir).expanduser()
    return unpack_once(archive, cache)


def without_suffix(archive: Path) -> str:
    """An archive's name without `.zip`, `.tar.gz` and the like."""
    name = archive.name
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - len(max(suffixes, key=len, default=archive.suffix))]


def unwrapped(root: Path, config: DataConfig, is_it: Callable[[Path], bool]) -> Path:
    """The folder that `is_it`: `root`, or what the only folder or archive in it holds, and so on.

    Uploads come wrapped like that. `root` itself if there is no such folder.
    """
    folder = root
    for _ in range(_WRAPPERS):
        if is_it(folder):
            return folder
        inner = [path for path in visible(folder) if path.is_dir() or is_archive(path)]
        if len(inner) != 1:
            break
        folder = inner[0] if inner[0].is_dir() else unpacked(inner[0], config)
    return folder if is_it(folder) else root


def part_of(root: Path, names: tuple[str, ...], config: DataConfig) -> tuple[str, Path] | None:
    """The folder of one of these names in `root`, or what the archive of such a name holds.

    Returns:
        The name and the folder; None if there is neither.
    """
    for name in names:
        if (root / name).is_dir() and visible(root / name):
            return name, root / name
    for name in names:
        for path in visible(root):
            if is_archive(path) and without_suffix(path) == name:
                folder = unpacked(path, config)
                inner = (folder / n for n in names if (folder / n).is_dir())
                return name, next(inner, folder)
    return None


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted; hidden entries and what systems leave behind left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name not in SYSTEM_LEFTOVERS
    )


def read_csv(
    path: Path,
    columns: tuple[str, ...],
    separator: str | None = ",",
    optional: tuple[str, ...] = (),
) -> pd.DataFrame:
    """`columns` of a CSV, and those of `optional` that it has, every value exactly as written.

    Args:
        path: The file, in UTF-8.
        columns: Those that it must have.
        separator: Between values. None: the first of , ; tab | that gives the header `columns`.
        optional: Those that it may have.

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
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, OSError) as error:
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
    return table[[*columns, *(name for name in optional if name in table.columns)]]


def find_separator(path: Path, columns: tuple[str, ...]) -> str:
    headers = {separator: header_of(path, separator) for separator in _SEPARATORS}
    fitting = [name for name, header in headers.items() if set(columns) <= set(header)]
    return (fitting or sorted(_SEPARATORS, key=lambda name: -len(headers[name])))[0]


def header_of(path: Path, separator: str) -> list[str]:
    """The values of a CSV's first line."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return next(csv.reader(file, delimiter=separator), [])


def examples(values: list[str], count: int = 3) -> str:
    """The first few of `values`, and how many more there are."""
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return ", ".join(map(str, values[:count])) + more


def opened_in_part(names: list[str]) -> str:
    """The sentence about photos that are cut off or damaged, and were used as far as they go."""
    photos = "photo was" if len(names) == 1 else "photos were"
    return (
        f"{len(names)} {photos} opened only in part, being cut off or damaged: "
        f"{examples(names)}. All are listed in run.json."
    )
