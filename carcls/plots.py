"""Pictures: arrays in, files out."""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from carcls.data.images import open_photo
from carcls.run import replacing

_TRAIN, _VAL, _BEST = "#7a8ba8", "#d1495b", "#2a9d5c"
_LIKELIEST_SIDE = 400  # of a photo beside its bars, px at least


class Picture(Figure):
    """A figure apart from pyplot, which would choose a window and keep it; notebooks show it."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()

    def write(self, path: Path, compress_level: int = 6) -> bytes:
        """Writes a whole PNG file or nothing; returns what it holds.

        Args:
            path: The file.
            compress_level: From 0 to 9; photos get no smaller above 3, which takes half the time.
        """
        with replacing(path) as temporary:
            options = {"compress_level": compress_level}
            self.savefig(temporary, format="png", pil_kwargs=options)
        return path.read_bytes()


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
        text = f", {value:.1%}" if name == "accuracy" else f", {value:.3f}"
        text += " (train)" if measured == name else ""
        text = "" if np.isnan(value) else text  # an average that nothing validated
        is_late = best_epoch > len(history) / 2
        axis.text(
            best_epoch,
            0.04 if name == "accuracy" else 0.94,  # where the curves are not
            f" kept: epoch {best_epoch}{text} ",
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
    # One epoch that goes astray is cut off; a first head that knows its photos by heart has hardly
    # any loss, and says nothing of what comes after.
    losses = history[["loss", "val_loss"]].to_numpy(float)
    usual = np.nanmax([*losses[0], history.loss.median()])
    bottom.set_ylim(0, min(np.nanmax(losses), 4 * usual) * 1.05)
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0.5, len(history) + 0.5)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(title)
    return figure


def draw_folds(history: pd.DataFrame, metrics: dict[str, Any], title: str) -> Picture:
    """Validation accuracy of every fold over its epochs, and what each reached.

    Args:
        history: The columns of `history.csv` and `fold`, a row an epoch of a fold.
        metrics: `val_accuracy` of all photos out of fold, and `folds`, a list of `fold`,
            `val_accuracy` and `kept_epoch`.
        title: Above the picture.

    Returns:
        A figure, for the caller to save or to show.
    """
    figure = Picture(figsize=(11, 5), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(metrics["folds"])))
    longest = history[history.fold == history.fold.value_counts().idxmax()]
    _shade_stages(left, longest)
    for fold, colour in zip(metrics["folds"], colours, strict=True):
        number, kept = fold["fold"], fold["kept_epoch"]
        rows = history[history.fold == number]
        left.plot(rows.epoch, rows.val_accuracy, color=colour, linewidth=1, marker=".")
        of_kept = rows.val_accuracy[rows.epoch == kept]
        left.plot([kept], of_kept, "o", color=colour, markersize=9, fillstyle="none")
        right.plot([number], [fold["val_accuracy"]], "o", color=colour, markersize=9)
        right.annotate(
            f"{fold['val_accuracy']:.1%}", (number, fold["val_accuracy"]), (0, 8),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    for axis in (left, right):
        axis.axhline(metrics["val_accuracy"], color=_VAL, linewidth=1, linestyle="--")
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_xlim(0.5, history.epoch.max() + 0.5)
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set(xlabel="epoch (the ring: the one that is kept)", ylabel="validation accuracy")
    lowest = min(history.val_accuracy.min(), 1.0)
    left.set_ylim(max(0.0, lowest - 0.05), min(1.06, history.val_accuracy.max() + 0.06))
    _name_stages(left, longest)
    right.set_xlabel("fold")
    right.set_xticks([fold["fold"] for fold in metrics["folds"]])
    right.set_xlim(0.3, max(fold["fold"] for fold in metrics["folds"]) + 0.7)
    right.set_title(f"out of fold {metrics['val_accuracy']:.1%}", color=_VAL, fontsize=11)
    figure.suptitle(title)
    return figure


@dataclass(kw_only=True)
class Sweep:
    """A learning-rate range test, as it is drawn.

    Attributes:
        title: What was trained in it.
        learning_rate: `(n,)` rates, increasing.
        loss: `(n,)` the loss of each step's batch.
        smoothed: `(n,)` the same without its noise.
        steepest: The rate at which the loss falls most steeply; None if it does not fall.
        tenth: A tenth of the rate at which the loss is least; likewise.
        suggested: The smaller of these; likewise.
    """

    title: str
    learning_rate: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    steepest: float | None
    tenth: float | None
    suggested: float | None


def draw_lr_range(sweeps: list[Sweep], title: str) -> Picture:
    """Loss over the learning rate, on a logarithmic axis; a panel a sweep.

    Args:
        sweeps: At least one.
        title: Above the picture.

    Returns:
        A figure, for the caller to save or to show.
    """
    columns = min(len(sweeps), 2)
    rows = -(-len(sweeps) // columns)
    figure = Picture(figsize=(2 + 4.5 * columns, 0.7 + 3.6 * rows), layout="constrained", dpi=120)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(sweeps) :]:
        axis.set_visible(False)
    for axis, sweep in zip(axes, sweeps, strict=False):
        axis.plot(sweep.learning_rate, sweep.loss, ".", color=_TRAIN, alpha=0.4, label="batch")
        axis.plot(sweep.learning_rate, sweep.smoothed, color=_TRAIN, linewidth=2, label="smoothed")
        named = {"steepest descent": sweep.steepest, "least loss / 10": sweep.tenth}
        for (name, rate), mark in zip(named.items(), "vs", strict=True):
            if rate is not None:
                height = np.interp(np.log(rate), np.log(sweep.learning_rate), sweep.smoothed)
                axis.plot(rate, height, mark, color=_VAL, markersize=8, label=f"{name}: {rate:.1e}")
        if sweep.suggested is not None:
            label = f"suggested: {sweep.suggested:.1e}"
            axis.axvline(sweep.suggested, color=_BEST, linewidth=1.5, linestyle="--", label=label)
        axis.set_xscale("log")
        # What runs away at the end would flatten the rest.
        low, high = sweep.smoothed.min(), np.quantile(sweep.smoothed, 0.5)
        reach = max(high - low, 0.05 * max(abs(high), 1e-6))
        axis.set_ylim(low - 0.4 * reach, high + 1.2 * reach)
        axis.set(xlabel="learning rate", ylabel="loss")
        axis.set_title(sweep.title, fontsize=11)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
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


def draw_likeliest(path: str, rows: pd.DataFrame) -> Picture:
    """A photo with its likeliest classes, a panel of bars a network.

    Args:
        path: The photo.
        rows: Its rows of photos.csv: class and probability, and of several networks model.
    """
    models = rows.model.unique().tolist() if "model" in rows else [""]
    count = max(len(rows) // len(models), 1)
    figure = Picture(
        figsize=(4.2 + 3.6 * len(models), max(3.2, 0.42 * count + 0.9)),
        layout="constrained",
        dpi=110,
    )
    axes = figure.subplots(1, 1 + len(models), width_ratios=[1.2, *[1] * len(models)])
    axes[0].imshow(open_photo(path, _LIKELIEST_SIDE))
    axes[0].axis("off")
    axes[0].set_title(Path(path).name, fontsize=10)
    for axis, model in zip(axes[1:], models, strict=True):
        own = rows[rows.model == model] if model else rows
        names = [textwrap.shorten(str(name), 28, placeholder="…") for name in own["class"]]
        places = np.arange(len(own))
        axis.barh(places, own.probability, color="#b9c7de", height=0.7)
        for place, name, value in zip(places, names, own.probability, strict=True):
            axis.text(0.02, place, f"{name}  {value:.1%}", va="center", fontsize=9)
        axis.set(xlim=(0, 1), ylim=(len(own) - 0.4, -0.6), yticks=[])
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.set_title(model, fontsize=10)
    return figure
