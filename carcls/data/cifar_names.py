"""What CIFAR's labels are called."""

import csv
from importlib.resources import files as package_files
from pathlib import Path

from carcls.data.records import examples
from carcls.errors import UserError

CIFAR_10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read_names(path: Path, official: list[str]) -> list[str]:
    """The names in a text file, by label; the data set's own where it is not there.

    Raises:
        UserError: If it cannot be read, or a name is empty or there twice.
    """
    if not path.is_file():
        return official
    expected = f"Expected {path} to name a class in every line, in the order of the labels"
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{expected}. Received a file that is not in UTF-8: {error}.") from error
    except OSError as error:
        raise UserError(f"{expected}. Received: {error.strerror}.") from error
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "an empty file"
        raise UserError(f"{expected}. Received: {where}.")
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise UserError(f"{expected}. Received twice: {examples(twice)}.")
    return names


def cifar_100_names() -> tuple[list[str], list[str]]:
    """CIFAR-100's fine and coarse names by label: both are in alphabetical order."""
    text = (package_files("carcls.data") / "cifar100_hierarchy.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return sorted(row["fine"] for row in rows), sorted({row["coarse"] for row in rows})
