"""How a search went, as a picture: a table of trials in, a figure out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution

from carcls.plots import Picture

_DONE, _GIVEN_UP, _BEST, _OWN = "#3b6ea5", "#b9bfc9", "#d1495b", "#2a9d5c"
_COLUMNS = 3


def draw_search(
    frame: pd.DataFrame,
    importances: dict[str, float],
    of_what: str,
    space: dict[str, BaseDistribution],
) -> Picture:
    """The history of the best, how trials learned, what mattered, and each key's values.

    Args:
        frame: Of `carcls.sweeps.study.Study.frame`, at least one trial of it complete.
        importances: Key to its share; may be empty.
        of_what: What was compared for these, in words.
        space: Key to distribution.
    """
    lines = 1 + -(-len(space) // _COLUMNS)
    figure = Picture(figsize=(13, 3.8 * lines), layout="constrained", dpi=100)
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    done, given_up = frame[frame.state == "complete"], frame[frame.state == "pruned"]
    last = {  # what a trial that was given up had reached
        row.trial: row.reached[max(row.reached)] for row in given_up.itertuples() if row.reached
    }
    _draw_history(axes[0], frame, done, last)
    _draw_learning(axes[1], frame)
    _draw_importances(axes[2], importances, of_what)
    keys = sorted(space, key=lambda key: -importances.get(key, 0.0))
    for axis, key in zip(axes[_COLUMNS:], keys, strict=False):
        _draw_values(axis, key, space[key], done, given_up, last)
    for axis in axes[_COLUMNS + len(keys) :]:
        axis.set_visible(False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_history(
    axis: Axes, frame: pd.DataFrame, done: pd.DataFrame, last: dict[int, float]
) -> None:
    axis.plot(list(last), list(last.values()), "x", color=_GIVEN_UP, label="given up early")
    axis.plot(done.trial, done.accuracy, "o", color=_DONE, label="finished")
    best = done.sort_values("trial").accuracy.cummax()
    axis.step(
        [*done.trial, frame.trial.max()], [*best, best.iloc[-1]], where="post", color=_BEST,
        label="best so far",
    )  # fmt: skip
    own = done[done.default]
    if len(own):
        axis.axhline(
            own.accuracy.iloc[0], color=_OWN, linestyle="--", linewidth=1,
            label="the command's own values",
        )  # fmt: skip
    axis.set_title("History", fontsize=11)
    axis.set_xlabel("trial")
    axis.set_ylabel("validation accuracy")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")


def _draw_learning(axis: Axes, frame: pd.DataFrame) -> None:
    best = frame.score.idxmax()
    for row in frame.itertuples():
        epochs = sorted(row.reached)
        values = [row.reached[epoch] for epoch in epochs]
        color = {"complete": _DONE, "pruned": _GIVEN_UP}.get(row.state, _OWN)
        is_best = row.Index == best
        axis.plot(
            epochs, values, color=_BEST if is_best else color, zorder=3 if is_best else 1,
            linewidth=2 if is_best else 1, marker=None if len(epochs) > 1 else ".",
        )  # fmt: skip
        if epochs and row.state == "pruned":
            axis.plot(epochs[-1], values[-1], "x", color=_GIVEN_UP, markersize=5)
    axis.set_title("As they trained: the best epoch of the stage so far", fontsize=11)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(axis="y", alpha=0.3)


def _draw_importances(axis: Axes, importances: dict[str, float], of_what: str) -> None:
    axis.set_title(f"What mattered, {of_what} (fANOVA)", fontsize=11)
    if not importances:
        axis.text(
            0.5, 0.5, "needs two keys, and four\ntrials that differ", ha="center", va="center",
            transform=axis.transAxes, color="#777777",
        )  # fmt: skip
        axis.set_axis_off()
        return
    names = [_short(key) for key in importances]
    bars = axis.barh(names, list(importances.values()), color=_DONE)
    axis.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, min(1.15, max(importances.values()) * 1.25))
    axis.tick_params(axis="y", labelsize=8)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_values(
    axis: Axes,
    key: str,
    distribution: BaseDistribution,
    done: pd.DataFrame,
    given_up: pd.DataFrame,
    last: dict[int, float],
) -> None:
    """What trials with each value reached."""
    is_listed = isinstance(distribution, CategoricalDistribution)
    choices = [str(choice) for choice in distribution.choices] if is_listed else []
    groups = (
        (given_up, [last.get(trial, np.nan) for trial in given_up.trial], "x", _GIVEN_UP),
        (done, done.accuracy, "o", _DONE),
        (done[done.default], done.accuracy[done.default], "o", _OWN),
    )
    for rows, reached, marker, color in groups:
        values = [distribution.to_internal_repr(value) for value in rows[key]]
        axis.plot(values, reached, marker, color=color, alpha=0.8, linestyle="none")
    if is_listed:
        axis.set_xticks(range(len(choices)), choices)
        axis.set_xlim(-0.5, len(choices) - 0.5)
    elif distribution.log:
        axis.set_xscale("log")
        ticks = np.geomspace(distribution.low, distribution.high, 4)
        axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.minorticks_off()
    axis.set_title(_short(key), fontsize=11)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(axis="y", alpha=0.3)


def _short(key: str) -> str:
    return key.removeprefix("finetune.stages.")
