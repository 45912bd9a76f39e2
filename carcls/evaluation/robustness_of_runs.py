"""How each checkpoint of an evaluation holds out as photos get worse."""

import pandas as pd

from carcls.config import EvaluateConfig
from carcls.console import progress_bar
from carcls.evaluation.robustness import area, kinds_of, measure_robustness, num_passes
from carcls.prediction.ensemble import Ensemble, load_predictor, names_of
from carcls.prediction.predictor import Predictor


def compare_robustness(
    predictor: Predictor | Ensemble, photos: pd.DataFrame, config: EvaluateConfig, title: str
) -> pd.DataFrame | None:
    """How each checkpoint holds out, and not only all of them together.

    Args:
        predictor: All of them.
        photos: path and label (index into its classes) of each.
        config: Of the evaluation.
        title: What one checkpoint alone is called.

    Returns:
        The rows of `measure_robustness`, with model before them; None if nothing was asked for.
    """
    if not config.robustness:
        return None
    kinds = kinds_of(config.robustness)
    models = [(title, predictor)]
    if len(config.ckpt) > 1:
        models = [
            (name, load_predictor([ckpt], is_calibrated=config.calibrated))
            for name, ckpt in zip(names_of(config.ckpt), config.ckpt, strict=True)
        ]
    parts = []
    size = max(member.image_size for _, of_model in models for member in of_model.members)
    with progress_bar() as bar:
        total = len(models) * num_passes(kinds) * len(photos)
        task = bar.add_task("robustness", total=total, note=", ".join(config.robustness))
        for model, of_model in models:
            rows = measure_robustness(
                of_model,
                _labels_for(of_model, predictor, photos),
                kinds,
                size=size,
                seed=config.seed,
                tta=config.tta,
                batch_size=config.batch_size,
                progress=lambda count: bar.advance(task, count),
            )
            rows.insert(0, "model", model)
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _labels_for(
    one: Predictor | Ensemble, all_of_them: Predictor | Ensemble, photos: pd.DataFrame
) -> pd.DataFrame:
    """The photos with labels as one checkpoint counts its classes."""
    names = all_of_them.class_names
    return photos.assign(label=[one.class_names.index(names[label]) for label in photos.label])


def areas(worse: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean accuracy over severities, by model and kind."""
    return {
        model: {kind: area(rows) for kind, rows in of_model.groupby("kind", sort=False)}
        for model, of_model in worse.groupby("model", sort=False)
    }
