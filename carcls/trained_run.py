"""A run directory as an object: what it holds, and its network, or its folds', to predict with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carcls import run as files
from carcls.errors import UserError
from carcls.models.probabilities import probabilities_table
from carcls.plots import draw_curves, draw_folds
from carcls.prediction.ensemble import Ensemble, load_predictor
from carcls.prediction.photos import find_photos
from carcls.prediction.predictor import Predictor


@dataclass(frozen=True)
class Run:
    """A trained run, read from its directory when it is asked.

    Attributes:
        path: The run directory; with `data.folds` that of all folds.
    """

    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """`metrics.json`: val_accuracy, val_loss, seconds, stages and more."""
        return files.read_json(self.path / files.METRICS)

    @property
    def history(self) -> pd.DataFrame:
        """`history.csv`: a row an epoch; of several folds with a column `fold`."""
        return pd.read_csv(self.path / files.HISTORY)

    @property
    def val_predictions(self) -> pd.DataFrame:
        """`val_predictions.csv`: a row a validation photo, names as the data writes them.

        Of several folds `oof_predictions.csv`: a row a photo, with a column `fold`.
        """
        names = dict.fromkeys(("id", "label", "predicted"), str)
        name = files.OOF_PREDICTIONS if self._folds() else files.VAL_PREDICTIONS
        return pd.read_csv(self.path / name, dtype=names, keep_default_na=False)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self._info().config

    @property
    def class_names(self) -> list[str]:
        """In the order of the model's outputs."""
        return self._info().class_names

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that photos are resized to."""
        return self._info().image_size

    def curves(self) -> Figure:
        """Loss and accuracy over all stages; of several folds their accuracies."""
        if self._folds():
            return draw_folds(self.history, self.metrics, self.path.name)
        return draw_curves(self.history, self.metrics["kept_epoch"], self.path.name)

    def predict(
        self,
        photos: str | Path | Sequence | np.ndarray | pd.DataFrame,
        *,
        column: str = "path",
        root: str | Path | None = None,
        tta: str = "none",
        batch_size: int = 32,
        workers: int | None = None,
    ) -> pd.DataFrame:
        """Predicts photos that are at hand.

        Args:
            photos: A file, a folder or a glob; a list of them; one RGB array of
                `(height, width, 3)` or `(n, height, width, 3)` with values from 0 to 255, or a
                list of such of different sizes; or a DataFrame with a column of paths.
            column: Name of that column.
            root: Folder that relative paths are below.
            tta: `none`, `flip` or `flip+scale`: views of each photo that are averaged.
            batch_size: Photos that go through the network together.
            workers: Threads that prepare photos; None: one a core.

        Returns:
            A row a photo, in the same order: `predicted`, `probability` (of that class), a column
            `p_<class>` for each class, and `error`, why a photo could not be opened (the others
            are missing then). The index is the DataFrame's, or the path, or counts from 0.

        Raises:
            UserError: If a photo is nothing of all that, or nothing matches.
        """
        sources, index = _photos(photos, column, root)
        predicted = self._predictor(sources, tta=tta, batch_size=batch_size, workers=workers)
        names = np.array(self.class_names, object)
        table = probabilities_table(predicted.probs, self.class_names)
        table.insert(0, "predicted", names[predicted.probs.argmax(1)])
        table.insert(1, "probability", predicted.probs.max(1, initial=0.0).round(6))
        table.index = index
        if predicted.errors:
            table.iloc[list(predicted.errors), :] = None
        table["error"] = [predicted.errors.get(row) for row in range(len(table))]
        return table

    def _folds(self) -> list[Path]:
        return files.finished_folds(self.path)

    def _info(self) -> files.ModelInfo:
        path = next(iter(self._folds()), self.path)
        return files.read_model_info(path / files.MODEL)

    @cached_property
    def _predictor(self) -> Predictor | Ensemble:
        """Loads the network with the first photos, and keeps it for the next.

        Those of several folds are loaded one after another, for every call anew.
        """
        return load_predictor([str(self.path)])


def _photos(
    photos: Any, column: str, root: str | Path | None
) -> tuple[list[str] | list[np.ndarray], pd.Index]:
    """What `Run.predict` was given, as a list of paths or of uint8 arrays, and its index."""
    if isinstance(photos, pd.DataFrame):
        if column not in photos:
            raise UserError(
                f"Expected a DataFrame with a column of paths, {column} (column=NAME names "
                f"another). Received: {', '.join(map(str, photos.columns))}."
            )
        return _photos(photos[column].astype(str).tolist(), column, root)[0], photos.index
    base = Path(root).expanduser() if root is not None else Path()
    if isinstance(photos, str | Path):
        paths = find_photos(str(base / Path(photos).expanduser()))
        return paths, pd.Index(paths, name="path")
    if isinstance(photos, np.ndarray) and photos.ndim == 3:
        photos = photos[None]
    if len(photos) and all(isinstance(photo, str | Path) for photo in photos):
        paths = [str(base / Path(photo).expanduser()) for photo in photos]
        return paths, pd.Index(paths, name="path")
    if root is not None:
        raise UserError(f"Expected root with paths only. Received: root={root} with arrays.")
    return [_pixels(photo) for photo in photos], pd.RangeIndex(len(photos))


def _pixels(photo: Any) -> np.ndarray:
    """An array as a photo: `(height, width, 3)` uint8."""
    pixels = np.asarray(photo)
    if (
        pixels.ndim != 3
        or pixels.shape[2] != 3
        or 0 in pixels.shape
        or pixels.dtype.kind not in "uif"
    ):
        raise UserError(
            "Expected photos as RGB arrays of shape (height, width, 3), or paths. "
            f"Received: shape {pixels.shape}, {pixels.dtype}."
        )
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255) or (pixels.dtype.kind == "f" and 0 < high <= 1):
        raise UserError(
            "Expected RGB arrays with values from 0 to 255. "
            f"Received: {pixels.dtype} from {low:g} to {high:g}. "
            "Multiply by 255 what goes from 0 to 1; undo any other preprocessing: the model has "
            "its own."
        )
    return np.rint(pixels).astype(np.uint8)
