"""Distributions of what was measured of the photos, as SVG that follows the page's colours."""

import io
import re

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from carcls.exploration.looks import Looks
from carcls.exploration.photos import PARTS
from carcls.plots import Picture

_BINS = 32
_WIDE = 4.0  # times the smallest value, from which on an axis is logarithmic
_INK = "#010203"  # stands for the page's text colour
_COLOURS = {"train": "#4f83cc", "val": "#e0913a", "test": "#3fa66b"}
_MOST_TICKS = 7
_DECADES = 10.0 ** np.arange(-4, 8)


def draw_distributions(looks: Looks, parts: np.ndarray) -> list[tuple[str, str]]:
    """Titles and pictures of width, height, aspect, file size and brightness.

    Args:
        parts: `(n,)` train, val or test.
    """
    opens = looks.opens
    measured = {
        "Width, pixels": (looks.width, None),
        "Height, pixels": (looks.height, None),
        "Aspect, width by height": (looks.aspect, None),
        "File size, kB": (looks.num_bytes / 1000, None),
        "Brightness, mean gray level": (looks.brightness, (0.0, 255.0)),
    }
    if not opens.any():
        return []
    return [
        (title, draw_histogram(np.asarray(values, float)[opens], parts[opens], title, limits))
        for title, (values, limits) in measured.items()
    ]


def draw_histogram(
    values: np.ndarray, parts: np.ndarray, title: str, limits: tuple[float, float] | None = None
) -> str:
    """An SVG element: how many photos of each part have which value.

    Args:
        values: `(n,)`.
        parts: `(n,)` train, val or test.
        title: What a screen reader says.
        limits: Of the axis; None: those of the values.
    """
    low, high = limits or (values.min(), values.max())
    is_wide = low > 0 and high / low >= _WIDE
    if low == high:
        low, high = low * 0.9 - 0.5, high * 1.1 + 0.5
    edges = np.geomspace(low, high, _BINS + 1) if is_wide else np.linspace(low, high, _BINS + 1)
    figure = Picture(figsize=(4.4, 2.4), layout="constrained")
    axis = figure.subplots()
    shown = [part for part in PARTS if (parts == part).any()]
    axis.hist(
        [values[parts == part] for part in shown], np.clip(edges, low, high), stacked=True,
        color=[_COLOURS[part] for part in shown], label=shown,
    )  # fmt: skip
    if is_wide:
        axis.set_xscale("log")
        axis.set_xticks(_ticks(low, high))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_xlim(low, high)
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(axis="y", alpha=0.25, color=_INK)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(_INK)
    axis.tick_params(colors=_INK, labelsize=9, length=0)
    return _svg(figure, title)


def _ticks(low: float, high: float) -> np.ndarray:
    """As many round numbers as have room on a logarithmic axis."""
    for steps in ([1, 2, 5], [1, 3], [1]):
        ticks = np.outer(_DECADES, steps).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= _MOST_TICKS:
            break
    return ticks


def _svg(figure: Picture, title: str) -> str:
    file = io.StringIO()
    # Text stays text; names of clips are the same in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue().replace(_INK, "currentColor")
    (box,) = re.findall(r'viewBox="([^"]*)"', svg)
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    inside = inside[inside.index("<defs>") :]
    inside = re.sub(r"font-family: [^;]*", "font-family: inherit", inside)
    # Names that nothing refers to would be there once for each picture.
    inside = re.sub(r' id="(?!p[0-9a-f]{10}")[^"]*"', "", inside)
    return f'<svg viewBox="{box}" role="img" aria-label="{title}">{inside}'
