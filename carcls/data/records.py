"""What is known of photos before they are opened, and what every source of them shares."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.errors import UserError

_AT_ONCE = 10_000  # rows or files
_THREADS = 8  # a disk across a network answers each question late, but many at once


@dataclass(kw_only=True)
class TrainingPhotos:
    """Labelled photos.

    Attributes:
        table: A row a photo: `id`, `path` (str), `label` (index into `class_names`) and, where the
            data comes with a split, `is_val` (bool). Its order does not depend on the machine. With
            data=csv several rows may be one photo, which counts as often. Where labels are coarse
            classes, `fine` has the index of each photo's class among those of the data.
        class_names: As the data writes them; numbers in numeric order, others alphabetically.
        skipped: Rows and photos that were left out, as (id, reason); folders as (name/, reason).
        of_lost_classes: Ids of those left out whose class has no other row: they cannot be named
            in `data.exclude`, which must leave something of every class.
        hierarchy: Coarse class of each class, by name, and perhaps of others; None where the data
            comes with none, and where the labels are the coarse classes.
    """

    table: pd.DataFrame
    class_names: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    of_lost_classes: set[str] = field(default_factory=set)
    hierarchy: dict[str, str] | None = None
    _facts: pd.DataFrame | None = field(default=None, init=False, repr=False, compare=False)

    def fingerprint(self) -> str:
        """A hash of ids, labels and file sizes: another one means other data."""
        digest = hashlib.sha256(_bytes("\n".join(self.class_names)))
        sizes, _ = self.file_facts()
        for start in range(0, len(sizes), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            ids, labels = self.table.id.iloc[some].tolist(), self.table.label.iloc[some].tolist()
            rows = zip(ids, labels, sizes[some].tolist(), strict=True)
            digest.update(_bytes("".join(f"{i}\0{label}\0{size}\n" for i, label, size in rows)))
        return digest.hexdigest()[:16]

    def strata(self) -> np.ndarray:
        """`(n,)` integers, each of which a split shares out: the fine classes where there are."""
        return self.table["fine" if "fine" in self.table else "label"].to_numpy()

    def file_facts(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and times of the rows' files, see `file_facts`; each file is asked for once.

        What was found is kept: a `table` of fewer rows later on asks for none.

        Returns:
            `(n,)` int64 bytes and `(n,)` int64 nanoseconds.
        """
        rows, paths = pd.factorize(self.table.path)
        if self._facts is None or not paths.isin(self._facts.index).all():
            size, mtime_ns = file_facts(paths.tolist())
            self._facts = pd.DataFrame({"size": size, "mtime_ns": mtime_ns}, paths)
        found = self._facts if self._facts.index is paths else self._facts.loc[paths]
        return found["size"].to_numpy()[rows], found["mtime_ns"].to_numpy()[rows]


def _bytes(text: str) -> bytes:
    """Of names as the disk has them, which may be in no encoding at all."""
    return text.encode("utf-8", "surrogateescape")


def file_facts(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What tells that a file has changed, without opening it.

    Args:
        paths: Files, each of which is asked for.

    Returns:
        `(n,)` int64 sizes in bytes and `(n,)` int64 times of change in nanoseconds; both -1 for a
        file that is not there, such as what a dangling link means.
    """
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(_facts_of, parts))
    sizes, times = np.concatenate([np.empty((0, 2), np.int64), *found]).T
    return sizes, times


def _facts_of(paths: Sequence[str]) -> np.ndarray:
    """`(n, 2)` int64 of size and time."""
    facts = np.full((len(paths), 2), -1, np.int64)
    for row, path in enumerate(paths):
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path a file costs more than the question
        except OSError:
            continue
        facts[row] = status.st_size, status.st_mtime_ns
    return facts


@dataclass(kw_only=True)
class TestPhotos:
    """Photos to predict, in the order of the submission.

    Attributes:
        ids: As the sample submission writes them.
        paths: The photo of each id, None where there is none.
        columns: Names of the submission's id and label column.
        truth: Labels by id where they are known (`test-labels.csv`), as the data writes them.
        reasons: Why an id has no path, by id.
    """

    __test__ = False  # not a test case, whatever its name says

    ids: list[str]
    paths: list[str | None]
    columns: tuple[str, str]
    truth: dict[str, str] | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    def checked(self, where: Path, root: Path) -> "TestPhotos":
        """The same, if there are ids, each is there once, and some have photos.

        Args:
            where: Where the ids are from.
            root: Where their photos were looked for.

        Raises:
            UserError: If not.
        """
        repeated = sorted({photo_id for photo_id, n in Counter(self.ids).items() if n > 1})
        if repeated:
            raise UserError(
                f"Expected every Id exactly once in {where}. Received twice: {examples(repeated)}"
            )
        if not self.ids:
            raise UserError(f"Expected at least one Id in {where}. Received: none.")
        if not any(self.paths):  # some may be missing; without any, all would be filled blindly
            reasons = [f"{n} × {reason}" for reason, n in Counter(self.reasons.values()).items()]
            raise UserError(
                f"Expected photos of the ids in {where} below {root}, such as {self.ids[0]}. "
                f"Received none for all {len(self.ids)}: {', '.join(reasons)}. Say where they lie "
                "with data.root=DIR, or predict photos without ids with images=PATH."
            )
        return self


def sorted_class_names(names: "pd.Series | list[str]") -> list[str]:
    """Unique names: in numeric order if all are plain integers, else alphabetically."""
    unique = sorted(set(names))
    if all(is_plain_integer(name) for name in unique):
        unique.sort(key=Decimal)  # int() refuses thousands of digits
    return unique


def is_plain_integer(name: str) -> bool:
    """Whether `name` is an integer and would be written the same as one: 7, not 007."""
    return re.fullmatch("0|-?[1-9][0-9]*", name) is not None


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
