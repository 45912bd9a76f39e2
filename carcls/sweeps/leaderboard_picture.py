"""How the overrides of a sweep matter, as a picture: tables in, a figure out."""

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from carcls.plots import Picture

_JOB, _MEAN = "#7a8ba8", "#d1495b"
_COLUMNS = 3
_NAMED = 24  # characters of a value


def draw_effects(rows: pd.DataFrame, effects: pd.DataFrame) -> Picture:
    """A panel an override: a dot a job, and the mean of each value with one standard deviation.

    Args:
        rows: Of the leaderboard.
        effects: Of `carcls.sweeps.leaderboard.effects`.
    """
    keys = effects.key.unique().tolist()
    columns = min(len(keys), _COLUMNS)
    lines = -(-len(keys) // columns)
    most = effects.groupby("key").size().max()
    figure = Picture(
        figsize=(1.5 + 3.6 * columns, lines * (1.4 + 0.42 * most)), layout="constrained", dpi=110
    )
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    for axis in axes[len(keys) :]:
        axis.set_visible(False)
    for axis, key in zip(axes, keys, strict=False):
        own = effects[effects.key == key]
        places = np.arange(len(own))
        for place, value in zip(places, own.value, strict=True):
            accuracies = rows.val_accuracy[(rows[key] == value) & rows.val_accuracy.notna()]
            axis.plot(accuracies, np.full(len(accuracies), place), "o", color=_JOB, alpha=0.5)
        axis.errorbar(
            own["mean"], places, xerr=own["std"].fillna(0), fmt="D", color=_MEAN, capsize=4
        )
        for place, mean in zip(places, own["mean"], strict=True):
            axis.annotate(
                f"{mean:.1%}", (mean, place), (0, 8), textcoords="offset points", ha="center",
                fontsize=8, color=_MEAN,
            )  # fmt: skip
        named = [v if len(v) <= _NAMED else f"…{v[1 - _NAMED :]}" for v in own.value]
        axis.set_yticks(places, named)
        axis.set_ylim(len(own) - 0.4, -0.6)
        axis.set_title(key, fontsize=11)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        axis.tick_params(labelbottom=True)
    figure.supxlabel("validation accuracy: a dot a job, means ± one standard deviation", fontsize=9)
    return figure
