"""Any photos, without a competition around them: their likeliest classes."""

import glob
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.data.images import list_photos
from carcls.errors import UserError


def find_photos(images: str | list[str]) -> list[str]:
    """The files that `images` means: photos by path, folders of them, and globs.

    Raises:
        UserError: If one of them is nothing, by name.
    """
    found: list[str] = []
    for item in [images] if isinstance(images, str) else images:
        if not item:
            raise UserError("Expected images to be a photo, a folder or a glob. Received: nothing.")
        path = _path(str(item))
        if path is None:
            matches = []
        elif path.is_dir():
            matches = [str(photo) for photo in list_photos(path)]
        elif path.exists():
            matches = [str(path)]
        else:
            matches = sorted(
                m for m in glob.glob(_as_glob(path), recursive=True) if Path(m).is_file()
            )
        if not matches:
            is_folder = path is not None and path.is_dir()
            kind = "a folder without photos" if is_folder else "which matches no file"
            raise UserError(
                f"Expected images to be a photo, a folder or a glob. Received: {item}, {kind}."
            )
        found += matches
    return list(dict.fromkeys(found))


def _path(item: str) -> Path | None:
    """The path, or None for one that nothing can have: a name too long, a ~user there is not."""
    try:
        path = Path(item).expanduser()
        path.exists()
    except (OSError, RuntimeError):
        return None
    return path


def _as_glob(path: Path) -> str:
    """The pattern, with the folders that exist taken by name even if it has brackets in it."""
    folder = next(parent for parent in path.parents if parent.exists())
    return str(Path(glob.escape(str(folder))) / path.relative_to(folder))


def likeliest(
    paths: list[str], probs: np.ndarray, class_names: list[str], top: int
) -> pd.DataFrame:
    """A row for each of the `top` likeliest classes of each photo.

    Its columns are path, rank, number (of the class, from 0), class and probability.

    Args:
        paths: `n` files.
        probs: `(n, num_classes)` probabilities.
    """
    top = min(top, len(class_names))
    order = np.argsort(-probs, axis=1, kind="stable")[:, :top]
    return pd.DataFrame(
        {
            "path": np.repeat(np.array(paths, object), top),
            "rank": np.tile(np.arange(1, top + 1), len(paths)),
            "number": order.ravel(),
            "class": np.array(class_names, object)[order.ravel()],
            "probability": np.take_along_axis(probs, order, axis=1).ravel().round(6),
        }
    )


def with_errors(rows: pd.DataFrame, paths: list[str], errors: dict[int, str]) -> pd.DataFrame:
    """The same rows with a column `error`, and a row for each photo that could not be opened.

    Args:
        rows: Of `likeliest`, for the photos that could.
        paths: All photos, in the order of the result.
        errors: Index of a photo to why it could not be opened.
    """
    bad = pd.DataFrame({"path": [paths[i] for i in errors], "error": list(errors.values())})
    rows = pd.concat([rows.assign(error=None), bad], ignore_index=True)
    position = {path: i for i, path in enumerate(paths)}
    rows = rows.sort_values("path", key=lambda path: path.map(position), kind="stable")
    return rows.astype({"rank": "Int64", "number": "Int64"}).reset_index(drop=True)
