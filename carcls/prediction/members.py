"""What an ensemble is made of, and what it reaches on the photos its members were validated with.

Both are read from the runs' files: nothing is predicted here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.console import table
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.predictor import Predictor


@dataclass(kw_only=True)
class Validation:
    """How well an ensemble and its members do on the validation photos, where it can be told.

    Attributes:
        accuracies: Of each member, on its own validation photos; None where it is not known.
        ensemble: Accuracy of the weighted mean of the members' probabilities, without test-time
            augmentation; None if `why_not`.
        n_val: Photos that `ensemble` was measured on.
        why_not: Why it cannot be told.
    """

    accuracies: list[float | None]
    ensemble: float | None = None
    n_val: int = 0
    why_not: str | None = None


def run_dir(member: Predictor) -> Path | None:
    """The run that a network lies in; None for a `.keras` file of its own and for a pretrained."""
    path = member.model_path
    return path.parent if path is not None and path.name == files.MODEL else None


def validate(ensemble: Ensemble) -> Validation:
    """Joins the members' `val_predictions.csv` by id, if they are about the very same photos."""
    accuracies = [_val_accuracy(member) for member in ensemble.members]
    if out_of_fold := _out_of_fold(ensemble):
        return Validation(accuracies=accuracies, why_not=out_of_fold)
    tables = []
    for member in ensemble.members:
        val_predictions = _val_predictions(member)
        if isinstance(val_predictions, str):
            return Validation(accuracies=accuracies, why_not=val_predictions)
        tables.append(val_predictions)
    photos = [table[["id", "label"]] for table in tables]  # sorted by both
    if photos[0].duplicated().any():
        return Validation(accuracies=accuracies, why_not="an id stands for several photos")
    if any(not photos[0].equals(other) for other in photos[1:]):
        why_not = "the runs were validated with different photos (data, data.val_split or seed)"
        return Validation(accuracies=accuracies, why_not=why_not)
    names = ensemble.class_names
    probs = [table[[f"p_{name}" for name in names]].to_numpy(float) for table in tables]
    labels = np.array([names.index(name) for name in photos[0].label])
    mean = np.tensordot(ensemble.shares, probs, axes=1)  # (n, num_classes)
    return Validation(
        accuracies=[float(np.mean(p.argmax(1) == labels)) for p in probs],
        ensemble=float(np.mean(mean.argmax(1) == labels)),
        n_val=len(labels),
    )


def describe(ensemble: Ensemble, validation: Validation) -> str:
    """A row a member, and what their mean reaches."""

    def percent(accuracy: float | None) -> str:
        return "" if accuracy is None else f"{accuracy:.2%}"

    rows = []
    for member, share, accuracy in zip(
        ensemble.members, ensemble.shares, validation.accuracies, strict=True
    ):
        backbone = member.info.config.get("backbone", {}).get("name", "")
        rows.append(
            [member.name, backbone, f"{member.image_size} px", percent(accuracy), f"{share:.1%}"]
        )
    if validation.ensemble is not None:
        mean = float(np.mean(validation.accuracies))
        rows.append(["the mean of these accuracies", "", "", percent(mean), ""])
        rows.append(["the ensemble", "", "", percent(validation.ensemble), ""])
    columns = ["ensemble of", "backbone", "photos", "validation accuracy", "weight"]
    text = table(columns, rows)
    if validation.ensemble is not None:
        text += f"\n\nOf the same {validation.n_val} validation photos, each looked at once."
    elif any(accuracy is not None for accuracy in validation.accuracies):
        text += f"\n\nWhat the ensemble reaches cannot be told: {validation.why_not}."
    return text


def as_metrics(ensemble: Ensemble, validation: Validation) -> dict[str, Any]:
    """The same for `metrics.json`: `members`, and `val_accuracy` and `n_val` if they are known."""
    members = [
        {"ckpt": member.name, "weight": share, "val_accuracy": accuracy}
        for member, share, accuracy in zip(
            ensemble.members, ensemble.shares, validation.accuracies, strict=True
        )
    ]
    if validation.ensemble is None:
        return {"members": members}
    return {"val_accuracy": validation.ensemble, "n_val": validation.n_val, "members": members}


def different_data(members: list[Predictor]) -> list[str]:
    """The members' data roots if they were trained on different data, else nothing.

    Different by the fingerprint of ids, labels and file sizes; by the path where it is not known.
    """
    roots = [str(member.info.config.get("data", {}).get("root", "unknown")) for member in members]
    prints = [_facts(member, files.RUN).get("data_fingerprint") for member in members]
    compared = prints if all(prints) else roots
    return roots if len(set(compared)) > 1 else []


def _out_of_fold(ensemble: Ensemble) -> str | None:
    """What the folds of one run reach on the photos that they have not trained on, if it is that.

    Each has validated with other photos, so that no photo was seen by none of them.
    """
    directories = [run_dir(member) for member in ensemble.members]
    parents = {None if directory is None else directory.parent for directory in directories}
    if len(parents) > 1 or parents == {None}:
        return None
    (parent,) = parents
    accuracy = files.read_json(parent / files.METRICS).get("val_accuracy")
    if set(directories) != set(files.finished_folds(parent)) or accuracy is None:
        return None
    return (
        "every photo has trained all folds but one. Out of fold, each photo by the network that "
        f"has not seen it, they reach {accuracy:.2%}"
    )


def _facts(member: Predictor, name: str) -> dict[str, Any]:
    directory = run_dir(member)
    return {} if directory is None else files.read_json(directory / name)


def _val_accuracy(member: Predictor) -> float | None:
    return _facts(member, files.METRICS).get("val_accuracy")


def _val_predictions(member: Predictor) -> pd.DataFrame | str:
    """`id`, `label` and `p_<class>` of a run, sorted by the first two; or why there is none."""
    directory = run_dir(member)
    path = None if directory is None else directory / files.VAL_PREDICTIONS
    if path is None or not path.is_file():
        return f"{member.name} has no {files.VAL_PREDICTIONS}"
    try:
        rows = pd.read_csv(path, dtype={"id": str, "label": str}, keep_default_na=False)
        columns = [f"p_{name}" for name in member.class_names]
        rows = rows[["id", "label", *columns]].astype(dict.fromkeys(columns, float))
    except (ValueError, KeyError, OSError) as error:
        return f"{path} cannot be read ({error})"
    return rows.sort_values(["id", "label"], ignore_index=True)
