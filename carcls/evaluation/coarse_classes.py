"""What `evaluate.py` does about coarse classes: where they come from, and what is written of them.

The numbers are those of `carcls.evaluation.hierarchy`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import SHIPPED_HIERARCHIES, DataConfig, EvaluateConfig
from carcls.data.hierarchy import check_covered, read_hierarchy, rolled_up
from carcls.data.records import TrainingPhotos, examples
from carcls.errors import UserError
from carcls.evaluation.hierarchy import Levels, coarse_classes, measure_levels
from carcls.evaluation.hierarchy_pictures import draw_differences
from carcls.evaluation.metrics import Metrics
from carcls.evaluation.pictures import draw_confusion
from carcls.prediction.ensemble import Ensemble, in_order, load_predictor
from carcls.prediction.predict import predict_photos
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)

TABLE = "hierarchy.csv"
PRECISION, CONFUSION = "hierarchy_precision.png", "hierarchy_confusion.png"
OUTPUTS = (TABLE, PRECISION, CONFUSION)
_NAMED = 12  # classes that a message names


@dataclass(kw_only=True)
class CoarseClasses:
    """The coarse classes of what a network knows.

    Attributes:
        hierarchy: The coarse class of each of its classes, by name, and perhaps of others.
        source: Where that is from.
        network: Another network, or several, that know the coarse classes; or None.
        probs: `(n, num_coarse)` what it says of the photos, once it was asked.
        levels: What both are worth, once that was measured.
    """

    hierarchy: dict[str, str]
    source: str
    network: Predictor | Ensemble | None = None
    probs: np.ndarray | None = None
    levels: Levels | None = None

    @property
    def members(self) -> list[Predictor]:
        """The networks that know the coarse classes."""
        return [] if self.network is None else self.network.members

    def predict(
        self, photos: pd.DataFrame, class_names: list[str], config: EvaluateConfig
    ) -> np.ndarray:
        """Asks the other network about the very same photos.

        Args:
            photos: id and path of `n`.
            class_names: Of the network that knows the fine classes.
            config: Of the evaluation.

        Returns:
            `(n,)` bool: which photos it could open. The others must be left out.
        """
        predicted = predict_photos(self.network, photos.path.tolist(), config)
        opens = ~np.isin(np.arange(len(photos)), list(predicted.errors))
        if not opens.all():
            named = examples(photos.id[~opens].tolist())
            log.warning(
                f"WARNING: {np.sum(~opens)} photos cannot be opened for coarse_ckpt: {named}. They "
                "are left out."
            )
        names, _ = coarse_classes(class_names, self.hierarchy)
        self.probs = in_order(predicted.probs, self.network.class_names, names)[opens]
        return opens

    def look_up(
        self, photos: pd.DataFrame, class_names: list[str], config: EvaluateConfig
    ) -> np.ndarray:
        """What the folds of another run have saved of photos that each has not trained on.

        Args:
            photos: id and label (index into the fine classes) of `n`.
            class_names: Of the network that knows the fine classes.
            config: Of the evaluation.

        Returns:
            `(n,)` bool: which photos were there. The others must be left out.

        Raises:
            UserError: If there is no such run, or it is not clear which photo is which.
        """
        path = Path(config.coarse_ckpt[0]) / files.OOF_PREDICTIONS
        expected = (
            "Expected coarse_ckpt to be a run of several folds too, with a run of several folds on "
            f"its own photos: others have trained on these. Received: {config.coarse_ckpt[0]}"
        )
        otherwise = "Measure with other photos: data=folder data.root=DIR."
        if len(config.coarse_ckpt) > 1 or not path.is_file():
            raise UserError(f"{expected}, without {files.OOF_PREDICTIONS}. {otherwise}")
        saved = pd.read_csv(path, dtype={"id": str, "label": str}, keep_default_na=False)
        names, coarse_of = coarse_classes(class_names, self.hierarchy)
        labels = np.array(names, object)[coarse_of[photos.label]]
        row_of = {key: row for row, key in enumerate(zip(saved.id, saved.label, strict=True))}
        if len(row_of) < len(saved):
            raise UserError(f"{expected}, in which several photos have one id. {otherwise}")
        rows = np.array([row_of.get(key, -1) for key in zip(photos.id, labels, strict=True)])
        is_there = rows >= 0
        if not is_there.any():
            raise UserError(f"{expected}, in which none of the {len(rows)} photos is. {otherwise}")
        if not is_there.all():
            named = examples(photos.id[~is_there].tolist())
            log.warning(
                f"WARNING: {np.sum(~is_there)} photos are not in {path}, or have another coarse "
                f"class there: {named}. They are left out."
            )
        probs = saved[[f"p_{name}" for name in names]].to_numpy(np.float32)
        self.probs = probs[rows[is_there]]
        return is_there

    def measure(
        self,
        probs: np.ndarray,
        labels: np.ndarray,
        class_names: list[str],
        metrics: Metrics,
        config: EvaluateConfig,
    ) -> dict[str, Any]:
        """Sets `levels`, see `measure_levels`; returns what `metrics.json` has of them."""
        levels = self.levels = measure_levels(
            probs, labels, class_names, self.hierarchy, metrics=metrics,
            coarse_probs=self.probs, seed=config.seed, resamples=config.resamples,
        )  # fmt: skip
        return {
            "source": self.source,
            "coarse_classes": len(levels.coarse_names),
            **levels.values,
            "intervals": {
                group: {name: list(ends) for name, ends in of_group.items()}
                for group, of_group in levels.intervals.items()
            },
        }


def with_hierarchy_of(config: EvaluateConfig, data: DataConfig) -> DataConfig:
    """The data with the hierarchy that was asked for, in the place of the one it may have."""
    if config.hierarchy is None:
        return data
    shipped = config.hierarchy in SHIPPED_HIERARCHIES
    path = config.hierarchy if shipped else str(Path(config.hierarchy).expanduser().absolute())
    return replace(data, hierarchy=path)


def find_coarse_classes(
    config: EvaluateConfig,
    data: DataConfig,
    records: TrainingPhotos,
    predictor: Predictor | Ensemble,
) -> tuple[TrainingPhotos, CoarseClasses | None]:
    """The coarse classes of a network, asked for with `hierarchy` or known to the data or the run.

    Photos with fine labels get coarse ones where it is these that the network knows.

    Args:
        config: Of the evaluation.
        data: Where the photos are from.
        records: The photos.
        predictor: The network, or several.

    Returns:
        The photos, and the coarse classes; None where none are known.

    Raises:
        UserError: If coarse classes or `coarse_ckpt` were asked for, and do not fit the network.
    """
    names, first = predictor.class_names, predictor.members[0].name
    hierarchy, source = records.hierarchy, data.hierarchy or "the data's hierarchy"
    network = None
    if config.coarse_ckpt:
        network = load_predictor(config.coarse_ckpt, is_calibrated=config.calibrated)
        if hierarchy is None and data.target == "fine":
            source = network.members[0].info.config.get("data", {}).get("hierarchy")
            hierarchy = None if source is None else read_hierarchy(source)
    if hierarchy is not None and _knows_coarse(names, records.class_names, hierarchy):
        log.info(f"{first} knows coarse classes: the photos are labelled with these, by {source}.")
        records, hierarchy = rolled_up(replace(records, hierarchy=hierarchy), source), None
    if hierarchy is None:
        if network is not None:
            raise UserError(
                "Expected coarse_ckpt=RUN beside a run of fine classes, and hierarchy=FILE, which "
                f"says the coarse class of each. Received: coarse_ckpt={config.coarse_ckpt[0]}, "
                f"hierarchy={config.hierarchy or 'null'}, and ckpt={first}, which knows "
                f"{len(names)} classes: {examples(names, _NAMED)}."
            )
        return records, None
    try:
        check_covered(names, hierarchy, first, source)
        coarse, _ = coarse_classes(names, hierarchy)
        if len(coarse) < 2:
            raise UserError(
                f"Expected at least two coarse classes in {source}. Received: {coarse[0]} for all "
                f"{len(names)} classes of {first}."
            )
    except UserError as error:
        if config.hierarchy or network is not None:
            raise
        log.warning(f"WARNING: coarse classes are not measured. {error}")
        return records, None
    if network is not None:
        _check_same(coarse, network, source)
    return records, CoarseClasses(hierarchy=hierarchy, source=source, network=network)


def write(workdir: Path, levels: Levels, title: str) -> dict[str, bytes]:
    """Writes the table and the pictures; returns these, PNG files by name without its ending."""
    with files.replacing(workdir / TABLE) as temporary:
        levels.per_class.to_csv(temporary, index=False)
    drawn = {
        PRECISION: draw_differences(levels.per_class, title),
        CONFUSION: draw_confusion(levels.confusion, levels.coarse_names, f"{title}: summed"),
    }
    return {Path(name).stem: figure.write(workdir / name) for name, figure in drawn.items()}


def _knows_coarse(names: list[str], of_data: list[str], hierarchy: dict[str, str]) -> bool:
    """Whether a network knows the coarse classes of the data's, and not all of these themselves."""
    known = set(names)
    return not set(of_data) <= known and {hierarchy.get(name) for name in of_data} <= known


def _check_same(coarse: list[str], network: Predictor | Ensemble, source: str) -> None:
    """Raises UserError unless the network knows the coarse classes and no others."""
    known = network.class_names
    lacking = [name for name in coarse if name not in set(known)]
    strange = [name for name in known if name not in set(coarse)]
    if lacking or strange:
        raise UserError(
            f"Expected coarse_ckpt to know the {len(coarse)} coarse classes in {source}: "
            f"{examples(coarse, _NAMED)}. Received: {network.members[0].name}, which knows "
            f"{len(known)}: {examples(known, _NAMED)}. It lacks {examples(lacking) or 'none'}; "
            f"{examples(strange) or 'none'} {'is' if len(strange) == 1 else 'are'} not among "
            "them. Train it with the same hierarchy and target=coarse."
        )
