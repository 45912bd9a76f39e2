"""CIFAR's binary files: which there are, whether they are whole, and what their labels mean.

A record is a photo: its label bytes, then 3072 bytes of 32x32 pixels, all red ones, all green ones,
all blue ones, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html). A record of CIFAR-10
has one label byte; one of CIFAR-100 has two, a coarse and a fine class.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carcls.config import CifarData
from carcls.data.cifar_names import CIFAR_10_NAMES, cifar_100_names, read_names
from carcls.data.layout import existing_root, folders_in, is_file, sorted_entries, unwrapped
from carcls.data.records import examples
from carcls.errors import UserError

SIDE = 32  # px
_PIXEL_BYTES = 3 * SIDE * SIDE


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How one of the two data sets is laid out.

    Attributes:
        name: What it is called.
        parts: Regular expressions for the names of the files of each part.
        expected: These files in words.
        fine: The text file that names the classes, a line each.
        coarse: Likewise the coarse ones; None where there are none.
    """

    name: str
    parts: dict[str, str]
    expected: dict[str, str]
    fine: str
    coarse: str | None

    @property
    def record_bytes(self) -> int:
        """Of one photo with its labels."""
        return (1 if self.coarse is None else 2) + _PIXEL_BYTES

    @property
    def record(self) -> str:
        """The same in words."""
        labels = "1 of its label" if self.coarse is None else "2 of its labels"
        return f"{labels} and {_PIXEL_BYTES} of its pixels"


CIFAR_10 = Layout(
    name="CIFAR-10",
    parts={"train": r"data_batch_\d+\.bin", "test": r"test_batch\.bin"},
    expected={"train": "data_batch_1.bin to data_batch_5.bin", "test": "test_batch.bin"},
    fine="batches.meta.txt",
    coarse=None,
)
CIFAR_100 = Layout(
    name="CIFAR-100",
    parts={"train": r"train\.bin", "test": r"test\.bin"},
    expected={"train": "train.bin", "test": "test.bin"},
    fine="fine_label_names.txt",
    coarse="coarse_label_names.txt",
)
LAYOUTS = (CIFAR_10, CIFAR_100)
_LOOKED_FOR = (
    "train.bin and test.bin, CIFAR-100's binary files, or data_batch_1.bin and so on and "
    "test_batch.bin, CIFAR-10's"
)


@dataclass(kw_only=True)
class Records:
    """The photos of one part, and their classes.

    Attributes:
        layout: Which data set's.
        part: train or test.
        folder: Where the files lie.
        files: The files, in order.
        pixels: A `(n, 3, 32, 32)` uint8 array a file, which is read from it as it is asked for.
        fine: `(n,)` uint8, the class of each photo of all files, an index into `fine_names`.
        coarse: Likewise the coarse class; None where there are none.
        fine_names: By label.
        coarse_names: Likewise; empty where there are none.
    """

    layout: Layout
    part: str
    folder: Path
    files: list[Path]
    pixels: list[np.ndarray]
    fine: np.ndarray
    coarse: np.ndarray | None
    fine_names: list[str]
    coarse_names: list[str]

    def hierarchy(self) -> dict[str, str] | None:
        """The coarse class of each class that has photos, by name; None where there are none.

        Raises:
            UserError: If photos of one class are of several coarse ones.
        """
        if self.coarse is None:
            return None
        pairs, first = np.unique(
            np.stack([self.fine, self.coarse], axis=1), axis=0, return_index=True
        )
        found: dict[str, tuple[str, int]] = {}
        for (fine, coarse), photo in zip(pairs.tolist(), first.tolist(), strict=True):
            name, above = self.fine_names[fine], self.coarse_names[coarse]
            if name in found:
                other, place = found[name]
                raise UserError(
                    f"Expected every fine class of {self.files[0]} in one coarse class. Received: "
                    f"{name}, which is in {other} in photo {place} and in {above} in photo "
                    f"{photo}, counted from 0. The file is damaged, or not CIFAR-100's."
                )
            found[name] = (above, photo)
        return {name: above for name, (above, _) in found.items()}


def read_records(config: CifarData, part: str) -> Records:
    """The records of one part, whose labels are read and whose pixels wait.

    Args:
        config: `root` is a folder or an archive, perhaps wrapped in further folders.
        part: train or test.

    Raises:
        UserError: If there are none, a file is not whole or cannot be read, or a label has no name.
    """
    folder, layout = _find(config)
    found = _files_of(folder, layout, part)
    if not found:
        raise UserError(
            f"Expected {layout.expected[part]} in {folder}, which has {layout.name}'s layout. "
            f"Received: {_what_is_in(folder)}."
        )
    tables = [_table(path, layout) for path in found]
    official = (list(CIFAR_10_NAMES), []) if layout.coarse is None else cifar_100_names()
    fine_names = read_names(folder / layout.fine, official[0])
    fine = np.concatenate([table[:, -_PIXEL_BYTES - 1] for table in tables])
    _check_labels("fine" if layout.coarse else "the", found, tables, -_PIXEL_BYTES - 1, fine_names,
                  layout.fine)  # fmt: skip
    coarse, coarse_names = None, []
    if layout.coarse is not None:
        coarse_names = read_names(folder / layout.coarse, official[1])
        _check_labels("coarse", found, tables, 0, coarse_names, layout.coarse)
        coarse = np.concatenate([table[:, 0] for table in tables])
    return Records(
        layout=layout,
        part=part,
        folder=folder,
        files=found,
        pixels=[table[:, -_PIXEL_BYTES:].reshape(-1, 3, SIDE, SIDE) for table in tables],
        fine=fine,
        coarse=coarse,
        fine_names=fine_names,
        coarse_names=coarse_names,
    )


def _find(config: CifarData) -> tuple[Path, Layout]:
    """The folder that holds the files, and how."""
    root = existing_root(config, _LOOKED_FOR)
    folder = unwrapped(root, config, lambda inner: bool(_layouts_in(inner)))
    if not _layouts_in(folder):  # beside it may lie the archive that it was unpacked from
        inside = [path for path in folders_in(folder) if path.is_dir() and _layouts_in(path)]
        if len(inside) > 1:
            raise UserError(
                f"Expected one folder of CIFAR's binary files in data.root. Received: {folder} "
                f"with {examples([path.name for path in inside])}. Choose one with data.root=DIR."
            )
        folder = inside[0] if inside else folder
    layouts = _layouts_in(folder)
    if len(layouts) > 1:
        raise UserError(
            "Expected the binary files of CIFAR-10 or of CIFAR-100 in data.root. Received both: "
            f"{_what_is_in(folder)}. Put them into folders of their own."
        )
    if not layouts:
        is_pickled = bool({"batches.meta", "meta"} & set(_names_below(folder)))
        raise UserError(
            f"Expected {_LOOKED_FOR}, in data.root. Received: {_what_is_in(folder)}. "
            + (
                "That is the Python version: download the binary version instead."
                if is_pickled
                else "If these are folders of photos, use data=folder."
            )
        )
    return folder, layouts[0]


def _layouts_in(folder: Path) -> list[Layout]:
    return [
        layout
        for layout in LAYOUTS
        if any(_files_of(folder, layout, part) for part in layout.parts)
    ]


def _files_of(folder: Path, layout: Layout, part: str) -> list[Path]:
    """The files of one part, in the order of their numbers."""
    names = [entry.name for entry in sorted_entries(folder) if is_file(entry)]
    chosen = [name for name in names if re.fullmatch(layout.parts[part], name)]
    number = {name: int("0" + re.sub(r"\D", "", name)) for name in chosen}
    chosen.sort(key=number.get)
    lacking = sorted(set(range(1, max(number.values(), default=0) + 1)) - set(number.values()))
    if lacking:
        raise UserError(
            f"Expected {layout.expected[part]} in {folder}. Received: {examples(chosen, 5)}, "
            f"without data_batch_{lacking[0]}.bin."
        )
    return [folder / name for name in chosen]


def _names_below(folder: Path) -> list[str]:
    """Names in the folder, and in those that are in it."""
    inside = [path for path in folders_in(folder) if path.is_dir()]
    return [entry.name for place in (folder, *inside) for entry in sorted_entries(place)]


def _what_is_in(folder: Path) -> str:
    return f"{folder} with {examples([entry.name for entry in sorted_entries(folder)], 5)}"


def _table(path: Path, layout: Layout) -> np.ndarray:
    """`(n, record_bytes)` uint8, mapped from the file."""
    expected = f"Expected a multiple of {layout.record_bytes} bytes, {layout.record} a photo"
    try:
        size = path.stat().st_size
        photos, rest = divmod(size, layout.record_bytes)
        if rest == 0 and photos > 0:
            return np.memmap(path, np.uint8, "r", shape=(photos, layout.record_bytes))
    except OSError as error:
        raise UserError(
            f"Expected a file that can be read. Received: {path}: {error.strerror}."
        ) from error
    advice = "It is cut off or damaged: download it again."
    for other in LAYOUTS:
        if size and size % other.record_bytes == 0:
            advice = (
                f"It may be one of {other.name}, of {other.record_bytes} bytes a photo: these are "
                f"called {other.expected['train']} and {other.expected['test']}."
            )
    more = f", {photos} photos and {rest} bytes more" if size else ""
    raise UserError(f"{expected}. Received: {size} bytes in {path}{more}. {advice}")


def _check_labels(
    kind: str,
    paths: list[Path],
    tables: list[np.ndarray],
    column: int,
    names: list[str],
    named_in: str,
) -> None:
    """Raises if a label has no name.

    Args:
        kind: Of the labels, in words.
        paths: The files.
        tables: Their records.
        column: Which byte of a record is the label.
        names: By label.
        named_in: The text file that they are from, if it is there.
    """
    for path, table in zip(paths, tables, strict=True):
        wrong = np.flatnonzero(table[:, column] >= len(names))
        if len(wrong):
            more = f", and of {len(wrong) - 1} photos more" if len(wrong) > 1 else ""
            raise UserError(
                f"Expected {kind} labels from 0 to {len(names) - 1}, one for each of the "
                f"{len(names)} names in {named_in}. Received: {table[wrong[0], column]} of photo "
                f"{wrong[0]}, counted from 0, in {path}{more}. The file is damaged, or {named_in} "
                "is not its own."
            )
