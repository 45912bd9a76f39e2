"""Pictures: arrays in, files out."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

_TRAIN, _VAL, _BEST = "#7a8ba8", "#d1495b", "#2a9d5c"


def plot_curves(history: pd.DataFrame, best_epoch: int, title: str, path: Path) -> None:
    """Writes `draw_curves` as a PNG file."""
    draw_curves(history, best_epoch, title).savefig(path, format="png")


class Picture(Figure):
    """A figure apart from pyplot, which would choose a window and keep it; notebooks show it."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def draw_curves(history: pd.DataFrame, best_epoch: int, title: str) -> Picture:
    """Loss and accuracy over all stages on one axis of epochs.

    Stages are shaded in turn and named; the kept epoch is marked. A history without validation
    has one curve.

    Args:
        history: The columns of `history.csv`, a row an epoch.
        best_epoch: The kept epoch, counted over all stages from 1.
        title: Above the picture.

    Returns:
        A figure, for the caller to save or to show.
    """
    figure = Picture(figsize=(10, 7), layout="constrained", dpi=120)
    top, bottom = figure.subplots(2, 1, sharex=True)
    for axis, name in ((top, "accuracy"), (bottom, "loss")):
        _shade_stages(axis, history)
        axis.plot(history.epoch, history[name], color=_TRAIN, marker=".", label="train (augmented)")
        measured = name if history[f"val_{name}"].isna().all() else f"val_{name}"
        if measured != name:
            axis.plot(history.epoch, history[measured], color=_VAL, marker=".", label="validation")
        value = history[measured].iloc[best_epoch - 1]
        axis.axvline(best_epoch, color=_BEST, linewidth=1, linestyle="--")
        axis.plot(best_epoch, value, "o", color=_BEST, markersize=9, fillstyle="none")
        text = f"{value:.1%}" if name == "accuracy" else f"{value:.3f}"
        text += " (train)" if measured == name else ""
        is_late = best_epoch > len(history) / 2
        axis.text(
            best_epoch,
            0.04 if name == "accuracy" else 0.94,  # where the curves are not
            f" kept: epoch {best_epoch}, {text} ",
            transform=axis.get_xaxis_transform(),
            ha="right" if is_late else "left",
            color=_BEST,
            fontweight="bold",
        )
        axis.set_ylabel(name)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    top.yaxis.set_major_formatter(PercentFormatter(1.0))
    _name_stages(top, history)
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    highest = np.nanmax(history[["loss", "val_loss"]].to_numpy(float))
    bottom.set_ylim(0, min(highest, 4 * history.loss.iloc[0]) * 1.05)
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0.5, len(history) + 0.5)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(title)
    return figure


def _stages(history: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Name, first and last epoch of each stage."""
    groups = history.groupby("stage", sort=False).epoch
    return [(name, epochs.min(), epochs.max()) for name, epochs in groups]


def _shade_stages(axis: Axes, history: pd.DataFrame) -> None:
    for index, (_, first, last) in enumerate(_stages(history)):
        if index % 2:
            axis.axvspan(first - 0.5, last + 0.5, color="black", alpha=0.05, linewidth=0)


def _name_stages(axis: Axes, history: pd.DataFrame) -> None:
    for index, (name, first, last) in enumerate(_stages(history)):
        axis.text(
            (first + last) / 2,
            1.01 + 0.05 * (index % 2),  # in two rows: the names of short stages are wide
            name.replace("_", " "),
            transform=axis.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
        )
