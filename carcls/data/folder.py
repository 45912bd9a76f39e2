"""Class folders: `root/<class>/photo.jpg`, or `root/train/<class>/…` with or without `root/val`.

`root` may be an archive, so may `train`, `val` and `test` in it, and all of it may be wrapped in
further folders. The parts may be spelt as in `SPLIT_NAMES`, in any case.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.config import DataConfig, FolderData
from carcls.data.images import list_photos, walk_photos
from carcls.data.layout import (
    PART_OF,
    SPLIT_NAMES,
    existing_root,
    folders_in,
    holds_folders,
    is_file,
    is_folder,
    opened,
    parts_of,
    sorted_entries,
    unwrapped,
    visible,
    without_suffix,
)
from carcls.data.photo_index import hold_a_photo, is_image
from carcls.data.records import TestPhotos, TrainingPhotos, examples, labelled
from carcls.data.selection import drop_excluded
from carcls.errors import UserError

PHOTOS_TO_PREDICT = "photos to predict"  # a reason
_LOOKED_FOR = "class folders of photos, or train/ and val/ that hold class folders"


def read_training_photos(config: FolderData) -> TrainingPhotos:
    """The photos of all class folders; `is_val` says which lie below `val/` where there is one.

    Folders that are no class are left out and listed: those without a photo, one of photos to
    predict beside the classes, and any beside `train/`; likewise photos in no folder.
    """
    root = _root(config, _LOOKED_FOR)
    train = _class_folders(root, "train", config)
    val = None if train is None else _class_folders(root, "val", config)
    test = [path for path in parts_of(root, SPLIT_NAMES["test"]) if path.is_dir()]
    if train is None:
        _refuse_other_splits(root, test, config)
        table, skipped = _rows("", root, test)
        skipped = [(f"{path.name}/", PHOTOS_TO_PREDICT) for path in test] + skipped
    else:
        table, skipped = _rows(*train)
        used = [*test, *(root / part[0] for part in (train, val) if part)]
        skipped += [
            (f"{path.name}/", f"a folder beside {train[0]}")
            for path in visible(root)
            if path.is_dir() and path not in used and hold_a_photo(_files_below(path))
        ]
        skipped += [
            (entry.name, f"beside {train[0]}")
            for entry in sorted_entries(root)
            if is_file(entry) and hold_a_photo([entry.path])
        ]
    table["is_val"] = np.zeros(len(table), bool)
    if val is not None:
        of_val, not_in_val = _rows(*val)
        table = pd.concat(
            [table, of_val.assign(is_val=np.ones(len(of_val), bool))], ignore_index=True
        )
        skipped += not_in_val
    if table.empty:
        names = [path.name for path in visible(root)]
        raise UserError(
            f"Expected {_LOOKED_FOR} in data.root. Received: {root} with {examples(names)}, "
            "and no photo in any folder there. If a train.csv holds the labels, use data=kaggle."
        )
    table, excluded = drop_excluded(table, config, str(root))
    table = table.reset_index(drop=True)
    only_val = sorted(set(table.name[table.is_val]) - set(table.name[~table.is_val]))
    if only_val and not config.refit:
        raise UserError(
            f"Expected every class of {val[1]} in {train[1]} too. "
            f"Received only in val: {examples(only_val)}"
        )
    columns = ["id", "path"] if val is None else ["id", "path", "is_val"]
    return labelled(table[columns], table.name, excluded + skipped, str(root))


def read_test_photos(config: FolderData) -> TestPhotos:
    """The photos of `root/test`, sorted by name."""
    root = _root(config, "a folder test/ of photos to predict")
    names = SPLIT_NAMES["test"]
    found = [opened(path, names, config)[1] for path in parts_of(root, names)]
    _expect_one("test", found)
    folder = found[0] if found else root / "test"
    photos = list_photos(folder) if found else []
    if not photos:
        raise UserError(
            f"Expected photos to predict in {folder}, or in an archive of that name. "
            "Received: none. Any other photos: images=PATH."
        )
    return TestPhotos(
        ids=[path.relative_to(folder).as_posix() for path in photos],
        paths=[str(path) for path in photos],
        columns=("Id", "Category"),
    )


def _root(config: FolderData, looked_for: str) -> Path:
    root = existing_root(config, looked_for)
    return unwrapped(root, config, lambda folder: not _is_wrapper(folder, tuple(PART_OF)))


def _class_folders(root: Path, part: str, config: FolderData) -> tuple[str, Path] | None:
    """What ids in a part of the split start with, and where its class folders lie.

    None if there is no such part, but perhaps a class of that name: a part's photos lie one level
    below its folder.
    """
    names = SPLIT_NAMES[part]
    found = [opened(path, names, config) for path in parts_of(root, names)]
    found = [(name, folder) for name, folder in found if holds_folders(folder)]
    _expect_one(part, [root / name for name, _ in found])
    if not found:
        return None
    name, folder = found[0]
    return f"{name}/", _without_wrappers(folder, config)


def _expect_one(part: str, found: list[Path]) -> None:
    if len(found) > 1:
        raise UserError(
            f"Expected one folder {part}/, under one of its names. Received: "
            f"{' and '.join(map(str, found))}. Put their photos together, or move one elsewhere."
        )


def _rows(
    prefix: str, base: Path, leave_out: Sequence[Path] = ()
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """`id`, `name` (the class) and `path` of the photos of all class folders in `base`.

    With them what is no class, as (id, reason).
    """
    ids, names, paths, skipped = [], [], [], []
    for entry in sorted_entries(base):
        path = base / entry.name
        if not is_folder(entry):
            if is_file(entry) and hold_a_photo([entry.path]):
                skipped.append((prefix + entry.name, "in no class folder"))
            continue
        if path in leave_out:
            continue
        photos = list(_files_below(path))
        if hold_a_photo(photos):
            start = len(str(path)) - len(entry.name)  # of the path below `base`
            ids += [prefix + photo[start:] for photo in photos]
            names += [entry.name] * len(photos)
            paths += photos
        else:
            skipped.append((f"{prefix}{entry.name}/", "a folder without photos"))
    table = pd.DataFrame({"id": ids, "name": names, "path": paths}, dtype=str)
    return table, skipped


def _files_below(folder: Path) -> Iterator[str]:
    """The paths of `list_photos`, as text: there may be a million."""
    return (f"{base}/{name}" for base, names in walk_photos(folder) for name in names)


def _refuse_other_splits(root: Path, test: list[Path], config: DataConfig) -> None:
    """Raises if folders look like the parts of a split, but are not called so: seg_train, seg_val.

    Then no folder but theirs would be taken for a class. They look so if they hold nothing but
    folders of photos, two or more of which have the same names in all of them.
    """
    inside, others = {}, []
    for path in visible(root):
        if not path.is_dir() or path in test:
            continue
        base = _without_wrappers(path, config)
        entries = sorted_entries(base)
        if hold_a_photo(str(base / entry.name) for entry in entries if is_file(entry)):
            others.append(path.name)
            continue
        folders = [base / entry.name for entry in entries if is_folder(entry)]
        names = {folder.name for folder in folders if hold_a_photo(_files_below(folder))}
        if names:
            inside[path.name] = names
    is_split = False
    if len(inside) > 1:
        shared = set.intersection(*inside.values())
        # Beside them may lie photos to predict, under any name.
        is_split = len(shared) > 1 and (not others or any(map(_names_a_part, inside)))
    elif inside:  # classes to train on, and those of val/ beside them
        ((name, shared),) = inside.items()
        shared = shared & set(others)
        is_split = bool(shared) and _names_a_part(name)
    if is_split:
        raise UserError(
            f"Expected {_LOOKED_FOR} in data.root. Received: {root} with {examples(list(inside))}, "
            f"which looks like a split: {examples(sorted(shared))} are in it more than once. Call "
            "its parts train/, val/ and test/. If these are the classes, put them into one folder "
            "train/."
        )


def _names_a_part(name: str) -> bool:
    """Whether one of its words is a part's name: seg_train, "my test photos"."""
    return not PART_OF.keys().isdisjoint(re.split("[^a-z]+", name.lower()))


def _without_wrappers(folder: Path, config: DataConfig) -> Path:
    return unwrapped(folder, config, lambda inner: not _is_wrapper(inner))


def _is_wrapper(folder: Path, parts: tuple[str, ...] = ()) -> bool:
    """Whether all that is in it is one folder (or archive), which holds folders again."""
    inner = folders_in(folder)
    if len(inner) != 1 or any(is_image(path.name) for path in visible(folder) if path.is_file()):
        return False
    if without_suffix(inner[0]).lower() in parts:
        return False
    return inner[0].is_file() or holds_folders(inner[0])
