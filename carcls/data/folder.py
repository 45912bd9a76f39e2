"""Class folders: `root/<class>/photo.jpg`, or `root/train/<class>/…` with or without `root/val`."""

from pathlib import Path

import pandas as pd

from carcls.config import FolderData
from carcls.data.images import list_photos
from carcls.data.records import TestPhotos, TrainingPhotos, examples, existing_root, labelled
from carcls.errors import UserError

_LOOKED_FOR = "class folders of photos, or train/ and val/ that hold class folders"


def read_training_photos(config: FolderData) -> TrainingPhotos:
    """The photos of all class folders; `is_val` says which lie below `val/` where there is one."""
    root = existing_root(config, _LOOKED_FOR)
    has_train = _holds_class_folders(root / "train")
    has_split = has_train and _holds_class_folders(root / "val")
    bases = [root / "train"] * has_train + [root / "val"] * has_split or [root]
    rows = []
    for base in bases:
        for folder in sorted(path for path in base.iterdir() if path.is_dir()):
            if folder.name.startswith(".") or (base == root and folder.name == "test"):
                continue
            for path in list_photos(folder):
                row = (path.relative_to(root).as_posix(), folder.name, str(path))
                rows.append((*row, has_split and base.name == "val"))
    if not rows:
        names = sorted(path.name for path in root.iterdir())
        raise UserError(
            f"Expected {_LOOKED_FOR} in data.root. Received: {root} with {examples(names)}, "
            "and no photo in any folder there. If a train.csv holds the labels, use data=kaggle."
        )
    table = pd.DataFrame(rows, columns=["id", "name", "path", "is_val"])
    only_val = sorted(set(table.name[table.is_val]) - set(table.name[~table.is_val]))
    if has_split and only_val:
        raise UserError(
            f"Expected every class of {root / 'val'} in {root / 'train'} too. "
            f"Received only in val: {examples(only_val)}"
        )
    columns = ["id", "path", "is_val"] if has_split else ["id", "path"]
    return labelled(table[columns], table.name, [], str(root))


def _holds_class_folders(folder: Path) -> bool:
    """Whether it is a part of the split, not a class of that name: photos lie one level below."""
    if not folder.is_dir():
        return False
    return any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def read_test_photos(config: FolderData) -> TestPhotos:
    """The photos of `root/test`, sorted by name."""
    root = existing_root(config, "a folder test/ of photos to predict")
    photos = list_photos(root / "test") if (root / "test").is_dir() else []
    if not photos:
        raise UserError(
            f"Expected photos to predict in {root / 'test'}. Received: none. "
            "Any other photos: images=PATH."
        )
    return TestPhotos(
        ids=[path.relative_to(root / "test").as_posix() for path in photos],
        paths=[str(path) for path in photos],
        columns=("Id", "Category"),
    )
