"""Class folders: `root/<class>/photo.jpg`, or `root/train/<class>/…` with or without `root/val`.

`root` may be an archive, so may `train`, `val` and `test` in it, and all of it may be wrapped in
further folders.
"""

from pathlib import Path

import pandas as pd

from carcls.config import FolderData
from carcls.data.images import list_photos
from carcls.data.photo_index import is_image
from carcls.data.records import (
    TestPhotos,
    TrainingPhotos,
    examples,
    existing_root,
    is_archive,
    labelled,
    part_of,
    unwrapped,
    visible,
    without_suffix,
)
from carcls.data.selection import drop_excluded
from carcls.errors import UserError

_LOOKED_FOR = "class folders of photos, or train/ and val/ that hold class folders"
_VAL = ("val", "valid", "validation")


def read_training_photos(config: FolderData) -> TrainingPhotos:
    """The photos of all class folders; `is_val` says which lie below `val/` where there is one."""
    root = _root(config, _LOOKED_FOR)
    train = _class_folders(root, ("train",), config)
    val = None if train is None else _class_folders(root, _VAL, config)
    rows, loose = [], []
    for prefix, base in [train or ("", root), *([val] if val else [])]:
        is_val = val is not None and base == val[1]
        for path in visible(base):
            if path.is_dir() and not (base == root and path.name == "test"):
                for photo in list_photos(path):
                    photo_id = prefix + photo.relative_to(base).as_posix()
                    rows.append((photo_id, path.name, str(photo), is_val))
            elif path.is_file() and is_image(path):
                loose.append((prefix + path.name, "in no class folder"))
    if not rows:
        names = [path.name for path in visible(root)]
        raise UserError(
            f"Expected {_LOOKED_FOR} in data.root. Received: {root} with {examples(names)}, "
            "and no photo in any folder there. If a train.csv holds the labels, use data=kaggle."
        )
    table = pd.DataFrame(rows, columns=["id", "name", "path", "is_val"])
    table, skipped = drop_excluded(table, config, str(root))
    table = table.reset_index(drop=True)
    only_val = sorted(set(table.name[table.is_val]) - set(table.name[~table.is_val]))
    if only_val and not config.refit:
        raise UserError(
            f"Expected every class of {val[1]} in {train[1]} too. "
            f"Received only in val: {examples(only_val)}"
        )
    columns = ["id", "path"] if val is None else ["id", "path", "is_val"]
    return labelled(table[columns], table.name, skipped + loose, str(root))


def read_test_photos(config: FolderData) -> TestPhotos:
    """The photos of `root/test`, sorted by name."""
    root = _root(config, "a folder test/ of photos to predict")
    _, folder = part_of(root, ("test",), config) or ("", root / "test")
    photos = list_photos(folder)
    if not photos:
        raise UserError(
            f"Expected photos to predict in {root / 'test'}, or in an archive of that name. "
            "Received: none. Any other photos: images=PATH."
        )
    return TestPhotos(
        ids=[path.relative_to(folder).as_posix() for path in photos],
        paths=[str(path) for path in photos],
        columns=("Id", "Category"),
    )


def _root(config: FolderData, looked_for: str) -> Path:
    parts = ("train", "test", *_VAL)
    root = existing_root(config, looked_for)
    return unwrapped(root, config, lambda folder: not _is_wrapper(folder, parts))


def _class_folders(
    root: Path, names: tuple[str, ...], config: FolderData
) -> tuple[str, Path] | None:
    """What ids in a part of the split start with, and where its class folders lie.

    None if there is no such part, but perhaps a class of that name: a part's photos lie one level
    below its folder.
    """
    part = part_of(root, names, config)
    if part is None or not _holds_folders(part[1]):
        return None
    return f"{part[0]}/", unwrapped(part[1], config, lambda folder: not _is_wrapper(folder))


def _is_wrapper(folder: Path, parts: tuple[str, ...] = ()) -> bool:
    """Whether all that is in it is one folder (or archive), which holds folders again."""
    entries = visible(folder)
    inner = [path for path in entries if path.is_dir() or is_archive(path)]
    if len(inner) != 1 or any(is_image(path) for path in entries if path.is_file()):
        return False
    if is_archive(inner[0]):
        return without_suffix(inner[0]) not in parts
    return inner[0].name not in parts and _holds_folders(inner[0])


def _holds_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in visible(folder))
