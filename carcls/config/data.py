"""Where the photos come from; `carcls/data/sources.py` lists the readers."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass, replace
from pathlib import Path

from carcls.config.checks import expect, expect_one_of

_PATHS = ("root", "csv", "test_csv", "exclude", "val_ids", "cache_dir", "hierarchy")
SHIPPED_HIERARCHIES = ("cifar100",)  # what `hierarchy` may be besides a path


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where the photos are and how they become arrays; every source has at least these."""

    name: str
    root: str
    val_split: float = 0.2  # share of every class that validates
    resize: str = "squash"  # squash (aspect not kept), crop (centre), pad (black bars)
    on_error: str = "skip"  # a photo that cannot be opened: skip (counted, listed) or raise
    on_missing: str = "raise"  # labels and photos that do not match: raise or skip (counted)
    exclude: str | None = None  # a file of ids to leave out
    val_ids: str | None = None  # a file of ids to validate with, instead of a random share
    refit: bool = False  # train on all photos; no validation number exists
    folds: int = 0  # train so many times, each fold of the photos validating once; 0: one split
    balance: str = "none"  # of skewed classes: none, weights (in the loss) or sampling
    group_near_duplicates: bool = False  # photos that look alike are on one side of the split
    cache_dir: str | None = None  # of unpacked archives and decoded photos; null: ~/.cache/carcls
    cache_limit: float = 50.0  # GB of decoded photos that are kept there; 0: read anew each time
    # Options of train.py as a whole, see TrainConfig; with the data they are recorded.
    target: str = "fine"  # what photos are labelled with: fine or coarse classes
    hierarchy: str | None = None  # a CSV of fine,coarse or cifar100; null: the data's own, if any

    def __post_init__(self) -> None:
        for key in _PATHS:
            _expect_path(key, getattr(self, key, None))
        expect(0.0 < self.val_split < 1.0, "val_split in (0, 1)", val_split=self.val_split)
        expect_one_of(("squash", "crop", "pad"), resize=self.resize)
        expect_one_of(("fine", "coarse"), target=self.target)
        expect_one_of(("skip", "raise"), on_error=self.on_error)
        expect_one_of(("raise", "skip"), on_missing=self.on_missing)
        expect_one_of(("none", "weights", "sampling"), balance=self.balance)
        expect(
            not (self.refit and self.val_ids),
            "data.refit=true, which trains on all photos, or data.val_ids=FILE, which keeps some "
            "to validate with, but not both",
            refit=self.refit,
            val_ids=self.val_ids,
        )
        expect(
            not (self.group_near_duplicates and (self.val_ids or self.refit)),
            "data.group_near_duplicates=true with a split that is drawn, neither with "
            "data.val_ids=FILE, which gives one, nor with data.refit=true, which has none",
            val_ids=self.val_ids,
            refit=self.refit,
        )
        expect(
            self.folds == 0 or self.folds >= 2, "folds to be 0 (off) or 2 or more", folds=self.folds
        )
        expect(
            not (self.folds and (self.val_ids or self.refit)),
            "data.folds=NUMBER, with which every photo validates once, neither with "
            "data.val_ids=FILE, which says which do, nor with data.refit=true, with which none do",
            folds=self.folds,
            val_ids=self.val_ids,
            refit=self.refit,
        )
        expect(
            0 <= self.cache_limit < math.inf,
            "cache_limit to be a number of gigabytes, 0 or more",
            cache_limit=self.cache_limit,
        )


@dataclass(kw_only=True, slots=True)
class KaggleData(DataConfig):
    """A competition as it is downloaded: two CSVs and two archives (or folders) of photos."""

    id_column: str = "Id"
    label_column: str = "Category"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        expect(
            self.id_column != self.label_column and "" not in (self.id_column, self.label_column),
            "id_column and label_column to be two different columns",
            id_column=self.id_column,
            label_column=self.label_column,
        )


@dataclass(kw_only=True, slots=True)
class CsvData(DataConfig):
    """Any CSV with a row a photo, and the folder or archive that the photos lie in."""

    csv: str | None = None  # relative: from the current directory, else from `root`
    root: str | None = None  # null: the CSV's own folder
    id_column: str = "Id"  # the photo's path below `root`, or its name
    label_column: str = "Category"
    split_column: str | None = None  # says train, val or test
    test_csv: str | None = None  # another CSV, of photos to predict
    separator: str | None = None  # null: whichever of , ; tab | the header fits

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        expect(
            self.separator is None or self.separator == "tab" or len(self.separator) == 1,
            "separator to be one character or tab, or null to find it out",
            separator=self.separator,
        )
        names = [self.id_column, self.label_column, self.split_column]
        expect(
            all(name != "" for name in names) and len(set(names)) == len(names),
            "id_column, label_column and split_column to be three different columns",
            id_column=self.id_column,
            label_column=self.label_column,
            split_column=self.split_column,
        )
        table = self.csv or self.test_csv
        if self.root is None and table:
            self.root = str(Path(table).parent)


@dataclass(kw_only=True, slots=True)
class CifarData(DataConfig):
    """The binary files of CIFAR-10 or CIFAR-100, or others in their format."""

    part: str = "train"  # which photos count as labelled: train, or test, to evaluate with

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        expect_one_of(("train", "test"), part=self.part)


@dataclass(kw_only=True, slots=True)
class DemoData(KaggleData):
    """Ten kinds of car, drawn into `root` on first use in the competition's layout."""

    seed: int = 42
    train_per_class: int = 60
    test_per_class: int = 20

    def __post_init__(self) -> None:
        KaggleData.__post_init__(self)
        for name in ("train_per_class", "test_per_class"):
            value = getattr(self, name)
            expect(value >= 2, f"{name} to be at least 2", **{name: value})


@dataclass(kw_only=True, slots=True)
class FolderData(DataConfig):
    """Class folders, or `train/` and `val/` that hold class folders."""


def with_absolute_paths(config: DataConfig) -> DataConfig:
    """The same paths, as they are found from any directory."""
    names = [name for name in _PATHS if getattr(config, name, None) is not None]
    if config.hierarchy in SHIPPED_HIERARCHIES:
        names.remove("hierarchy")
    paths = {name: Path(getattr(config, name)).expanduser() for name in names}
    # A CSV that is not below the current directory is looked for below the root.
    given = {
        name: str(path.absolute())
        for name, path in paths.items()
        if name not in ("csv", "test_csv") or path.exists()
    }
    return replace(config, **given)


def _expect_path(key: str, path: str | None) -> None:
    """Raises ValueError if nothing can have this path, whether something has it or not."""
    if path is None:
        return
    reason = None
    try:
        Path(path).expanduser().stat()
    except (RuntimeError, ValueError) as error:  # a ~user there is not, a NUL
        reason = str(error)
    except OSError as error:
        reason = error.strerror if error.errno == errno.ENAMETOOLONG else None
    if reason is not None:
        raise ValueError(f"Expected {key} to be a path. Received: {key}={path!r}: {reason}")
