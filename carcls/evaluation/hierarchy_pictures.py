"""How precision differs between the levels of a hierarchy, as horizontal bars."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from carcls.evaluation.hierarchy import DIFFERENCES
from carcls.plots import Picture

_NAMED = 250  # fine classes; of more only the coarse ones are named
_ROW, _TALLEST = 0.17, 45.0  # inches: of a named class, and of all of them
_MORE, _LESS = "#2a9d5c", "#d1495b"


def draw_differences(per_class: pd.DataFrame, title: str) -> Picture:
    """A panel a difference, a bar a fine class; shaded in turn by coarse class.

    Where a precision is not defined, since no photo was taken for the class, a cross stands.

    Args:
        per_class: See `carcls.evaluation.hierarchy.Levels`.
        title: Above the picture.
    """
    names = [name for name in DIFFERENCES if name in per_class]
    size, is_named = len(per_class), len(per_class) <= _NAMED
    rows = np.arange(size)
    height = min(1.6 + _ROW * max(size, 8), _TALLEST)
    figure = Picture(figsize=(3.6 + 3.7 * len(names), height), layout="constrained", dpi=100)
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True).ravel()
    found = per_class[names].to_numpy(float)
    reach = max(0.05, 1.08 * np.nanmax(np.abs(found), initial=0.0))
    groups = per_class.groupby("coarse", sort=False).indices
    for axis, name, values in zip(axes, names, found.T, strict=True):
        for number, members in enumerate(groups.values()):
            if number % 2 == 0:
                shade = (members.min() - 0.5, members.max() + 0.5)
                axis.axhspan(*shade, color="black", alpha=0.06, linewidth=0)
        colours = np.where(values >= 0, _MORE, _LESS)
        axis.barh(rows, np.nan_to_num(values), color=colours, height=0.8)
        undefined = np.flatnonzero(np.isnan(values))
        axis.plot(np.zeros(len(undefined)), undefined, "x", color="black", markersize=4)
        axis.axvline(0, color="black", linewidth=0.8)
        mean = f"mean {np.nanmean(values):+.3f}" if not np.isnan(values).all() else "not defined"
        axis.set_title(f"{DIFFERENCES[name][2]}\n{mean}", fontsize=11)
        axis.set(xlim=(-reach, reach), ylim=(size - 0.5, -0.5))
        axis.tick_params(axis="x", labelsize=8, labeltop=size > 30)  # far from the bottom
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(rows if is_named else [], per_class.fine if is_named else [], fontsize=7)
    _name_groups(figure, axes[-1], groups, is_named)
    figure.supxlabel("difference of precision", fontsize=10)
    figure.suptitle(title)
    return figure


def _name_groups(
    figure: Picture, axis: Axes, groups: dict[str, np.ndarray], is_named: bool
) -> None:
    """Names coarse classes to the right of the last panel, if there is room for them."""
    rows = sum(map(len, groups.values()))
    per_row = figure.get_figheight() / max(rows, 1)
    if not is_named and min(map(len, groups.values())) * per_row < 0.1:
        return
    middles = [members.mean() for members in groups.values()]
    right = axis.secondary_yaxis("right")
    right.set_yticks(middles, list(groups), fontsize=8)
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)
