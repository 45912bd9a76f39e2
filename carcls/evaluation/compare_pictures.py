"""Pictures of how networks compare: tables in, figures out."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, PercentFormatter

from carcls.evaluation.significance import precision_distance
from carcls.plots import Picture

_BLUE, _RED, _GREY = "#4f83cc", "#d1495b", "#9aa5b1"
_NAMED = 60  # classes that are named below the axis; of more there is no room
_BARS = (("size_mb", "file, MB"), ("ms_per_photo", "ms a photo, one at a time"),
         ("loss", "NLL"), ("top1", "accuracy"))  # fmt: skip
_COSTS = (("ms_per_photo", "ms a photo, one at a time"), ("gflops", "GFLOPs a photo"),
          ("parameters", "parameters"))  # fmt: skip


def draw_all(
    rows: pd.DataFrame, precision: np.ndarray, class_names: list[str]
) -> dict[str, Picture]:
    """Every picture by the name of its file, without its ending.

    Args:
        rows: Of `compare.csv`.
        precision: `(num_classes, num_models)`, NaN where a class is never predicted.
        class_names: `num_classes` of them.
    """
    drawn = {"bars": draw_bars(rows), "accuracy_and_cost": draw_costs(rows)}
    drawn["precision"] = draw_precision(precision, class_names, rows.model.tolist())
    if len(rows) > 1:
        drawn["precision_distance"] = draw_distance(precision, rows.model.tolist())
    return drawn


def draw_bars(rows: pd.DataFrame) -> Picture:
    """Size, time, loss and accuracy, a bar a network; with 95 % intervals where they are known."""
    figure = Picture(figsize=(12, 1.6 + 0.7 * len(rows)), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(_BARS), sharey=True)
    places = np.arange(len(rows))
    for axis, (name, title) in zip(axes, _BARS, strict=True):
        values = rows[name].to_numpy()
        axis.barh(places, values, color=_BLUE, height=0.6)
        low = {"top1": "top1_low", "loss": "nll_low"}.get(name)
        ends = np.zeros((2, len(rows)))
        if low in rows:
            ends = np.abs(rows[[low, low.replace("low", "high")]].to_numpy().T - values)
            axis.errorbar(values, places, xerr=ends, fmt="none", ecolor="black", capsize=3)
        for place, value, end in zip(places, values, ends[1], strict=True):
            text = f" {value:.1%}" if name == "top1" else f" {value:.3g}"
            axis.text(value + end, place, text, va="center", fontsize=8)
        axis.margins(x=0.28)
        axis.set_xlim(left=0)
        axis.set_title(title, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(places, rows.model)
    axes[0].invert_yaxis()
    axes[-1].xaxis.set_major_formatter(PercentFormatter(1.0))
    axes[-1].set_xticks([0, 0.5, 1])
    return figure


def pareto_front(cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """`(n,)` bool: no other costs no more and is no less accurate, and better in one of both."""
    beaten = [
        np.any(
            (cost <= cost[i]) & (accuracy >= accuracy[i])
            & ((cost < cost[i]) | (accuracy > accuracy[i]))
        )
        for i in range(len(cost))
    ]  # fmt: skip
    return ~np.array(beaten, bool)


def draw_costs(rows: pd.DataFrame) -> Picture:
    """Accuracy against time, arithmetic and size, with the networks that no other one beats."""
    figure = Picture(figsize=(13, 4.6), layout="constrained", dpi=110)
    accuracy = rows.top1.to_numpy()
    for axis, (name, title) in zip(
        figure.subplots(1, len(_COSTS), sharey=True), _COSTS, strict=True
    ):
        cost = rows[name].to_numpy(float)
        on_front = pareto_front(cost, accuracy)
        if "top1_low" in rows:
            ends = np.abs(rows[["top1_low", "top1_high"]].to_numpy().T - accuracy)
            axis.errorbar(cost, accuracy, yerr=ends, fmt="none", ecolor=_GREY, capsize=3)
        order = np.argsort(cost[on_front])
        axis.plot(
            cost[on_front][order], accuracy[on_front][order], color=_RED, linewidth=1,
            linestyle="--", label="no other is better and cheaper",
        )  # fmt: skip
        axis.scatter(cost, accuracy, c=np.where(on_front, _RED, _BLUE), zorder=3)
        _name_points(axis, cost, accuracy, rows.model.tolist())
        axis.set_xscale("log")
        for which in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            which(EngFormatter(sep=""))
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.tick_params(axis="x", which="both", labelsize=8)
        axis.margins(x=0.25)
        axis.set_xlabel(title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("accuracy")
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
            axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Names in turn above and below, so that neighbours do not cover each other's."""
    for place, index in enumerate(np.argsort(x)):
        axis.annotate(
            names[index], (x[index], y[index]), xytext=(4, 6 if place % 2 == 0 else -12),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip


def draw_precision(precision: np.ndarray, class_names: list[str], models: list[str]) -> Picture:
    """Precision of each class, in the order of the classes and from the best to the worst.

    Args:
        precision: `(num_classes, num_models)`, NaN where a class is never predicted.
        class_names: `num_classes` of them.
        models: `num_models` names.
    """
    figure = Picture(figsize=(13, 8), layout="constrained", dpi=110)
    top, bottom = figure.subplots(2, 1, sharey=True)
    colours = colormaps["viridis"](np.linspace(0.05, 0.8, len(models)))
    places = np.arange(len(class_names))
    markers = "os^Dv*PX"  # side by side: networks that agree would cover each other
    shifts = np.linspace(-0.3, 0.3, len(models)) if len(models) > 1 else [0.0]
    for number, (values, model, colour) in enumerate(
        zip(precision.T, models, colours, strict=True)
    ):
        top.plot(
            places + shifts[number], values, markers[number % len(markers)], color=colour,
            markersize=5, label=model,
        )  # fmt: skip
        bottom.plot(places, -np.sort(-values), color=colour, linewidth=1.6)  # NaN comes last
    if len(class_names) <= _NAMED:
        top.set_xticks(places, class_names, rotation=90, fontsize=8)
    top.set(title="precision of each class", ylabel="precision", ylim=(-0.02, 1.04))
    top.legend(frameon=False, fontsize=9, loc="lower left", ncols=min(4, len(models)))
    bottom.set(title="sorted for each network", xlabel="classes", ylabel="precision")
    for axis in (top, bottom):
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    return figure


def draw_distance(precision: np.ndarray, models: list[str]) -> Picture:
    """The mean absolute difference of the precision of each class, a cell a pair of networks."""
    distance = precision_distance(precision)
    side = float(np.clip(2.5 + 0.9 * len(models), 4.5, 14))
    figure = Picture(figsize=(side + 1, side), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.imshow(distance, cmap="Blues", vmin=0, vmax=max(0.05, distance.max()))
    for row, column in np.ndindex(*distance.shape):
        dark = distance[row, column] > 0.6 * max(0.05, distance.max())
        axis.text(
            column, row, f"{distance[row, column]:.3f}", ha="center", va="center", fontsize=9,
            color="white" if dark else "black",
        )  # fmt: skip
    axis.set_xticks(range(len(models)), models, rotation=30, ha="right")
    axis.set_yticks(range(len(models)), models)
    axis.set_title("mean absolute difference of\nthe precision of each class", fontsize=11)
    return figure
