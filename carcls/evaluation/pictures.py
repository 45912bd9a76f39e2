"""Pictures of how good a network is: arrays in, figures out."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.ticker import PercentFormatter

from carcls.data.images import open_photo, resize
from carcls.errors import PhotoError
from carcls.evaluation.metrics import Metrics
from carcls.plots import Picture

_NAMED = 40  # classes; of more the confusion matrix has neither names nor numbers
_WRONG = 16  # photos
_SIDE = 200  # of each, in pixels
_BLUE, _RED = "#4f83cc", "#d1495b"


def draw_confusion(confusion: np.ndarray, class_names: list[str], title: str) -> Picture:
    """Shares of each label's photos, by prediction, with their counts.

    Args:
        confusion: `(num_classes, num_classes)` photos, by label and by prediction.
        class_names: In that order.
        title: Above the picture.
    """
    size = len(class_names)
    side = float(np.clip(2.5 + 0.45 * size, 5, 18))
    figure = Picture(figsize=(side, side), layout="constrained", dpi=110)
    axis = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= _NAMED:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            axis.text(
                column, row, str(confusion[row, column]), ha="center", va="center", fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )  # fmt: skip
        axis.set_xticks(range(size), class_names, rotation=90)
        axis.set_yticks(range(size), class_names)
    axis.set(xlabel="predicted", ylabel="label")
    axis.set_title(f"{title}\nphotos; colour: share of the label's", fontsize=11)
    return figure


def draw_reliability(metrics: Metrics, title: str) -> Picture:
    """Accuracy over confidence, and how many photos have which confidence.

    Args:
        metrics: Of the photos.
        title: Above the picture.
    """
    bins = metrics.reliability
    figure = Picture(figsize=(6, 7), layout="constrained", dpi=110)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = bins.high - bins.low
    top.bar(bins.low, bins.accuracy, width, align="edge", color=_BLUE, edgecolor="white")
    top.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="calibrated")
    top.plot(bins.confidence, bins.accuracy, ".", color=_RED, markersize=9, label="mean of a bin")
    top.set(ylabel="accuracy", ylim=(0, 1.02))
    top.legend(frameon=False)
    bottom.bar(bins.low, bins.photos, width, align="edge", color=_BLUE, edgecolor="white")
    bottom.set(xlabel="confidence (the highest probability)", ylabel="photos", xlim=(0, 1))
    for axis in (top.xaxis, top.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    top.set_title(f"{title}\ncalibration error {metrics.values['ece']:.3f}", fontsize=11)
    return figure


def draw_wrong(rows: pd.DataFrame, confidence: np.ndarray, title: str) -> Picture:
    """Photos with what they were taken for.

    Args:
        rows: path, label and predicted of each, of which the first ones are shown.
        confidence: `(len(rows),)` the probability of what was predicted.
        title: Above the picture.
    """
    rows, confidence = rows.head(_WRONG), confidence[:_WRONG]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = Picture(figsize=(2.6 * columns, 1.1 + 2.5 * lines), layout="constrained", dpi=110)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, row, sure in zip(axes, rows.itertuples(), confidence, strict=False):
        axis.imshow(_square(row.path))
        axis.set_title(f"{row.predicted} {sure:.0%}\nis {row.label}", fontsize=9)
    figure.suptitle(title)
    return figure


def draw_robustness(rows: pd.DataFrame, title: str) -> Picture:
    """Accuracy and NLL over severity, a line a network; a column a kind.

    Args:
        rows: Of `measure_robustness`, with a column model.
        title: Above the picture.
    """
    kinds = rows.kind.unique()
    figure = Picture(figsize=(1 + 3.4 * len(kinds), 6.2), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(kinds), squeeze=False, sharey="row")
    models = rows.model.unique()
    colours = colormaps["viridis"](np.linspace(0.05, 0.8, len(models)))
    for column, kind in enumerate(kinds):
        of_kind = rows[rows.kind == kind]
        for model, colour in zip(models, colours, strict=True):
            own = of_kind[of_kind.model == model]
            for axis, name in zip(axes[:, column], ("accuracy", "nll"), strict=True):
                axis.plot(own.step, own[name], color=colour, marker=".", label=model)
                axis.spines[["top", "right"]].set_visible(False)
                axis.grid(axis="y", alpha=0.3)
        steps = own.step.tolist()
        shown = ["none", *(f"{severity:g}" for severity in own.severity[1:])]
        axes[1, column].set_xticks(steps, shown, fontsize=8)
        axes[0, column].set_xticks(steps, [])
        axes[0, column].set_title(kind, fontsize=11)
        axes[1, column].set_xlabel(own.unit.iloc[0])
    axes[0, 0].set(ylabel="accuracy", ylim=(0, 1.02))
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[1, 0].set(ylabel="NLL")
    axes[1, 0].set_ylim(bottom=0)
    if len(models) > 1:
        axes[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    return figure


def draw_severities(kinds: list[tuple[str, str, list[tuple[str, np.ndarray]]]]) -> Picture:
    """One photo at every severity, a row a kind.

    Args:
        kinds: Name and unit of each, with its severities: what each is called, and the photo,
            `(size, size, 3)` uint8.
    """
    columns = max(len(steps) for _, _, steps in kinds)
    size = (0.4 + 1.5 * columns, 0.5 + 1.75 * len(kinds))
    figure = Picture(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(len(kinds), columns, squeeze=False)
    for row, (name, unit, steps) in zip(axes, kinds, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, (severity, photo) in zip(row, steps, strict=False):
            axis.imshow(photo)
            axis.set_title(severity, fontsize=8)
        row[0].set_title(f"{name}, {unit}:\n{steps[0][0]}", fontsize=8)
    return figure


def _square(path: str) -> np.ndarray:
    """The whole photo in a white square: its aspect is part of what a person looks at."""
    try:
        photo = open_photo(path, _SIDE)
    except PhotoError:  # gone since it was predicted
        return np.full((_SIDE, _SIDE, 3), 200, np.uint8)
    opaque = resize(photo, _SIDE, "pad")
    covered = resize(np.full_like(photo, 255), _SIDE, "pad")  # black where the bars are
    return opaque + (255 - covered)
