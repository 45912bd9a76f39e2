"""The comparison as a page, as Markdown and as text."""

from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

import pandas as pd

from carcls import pages
from carcls import run as files
from carcls.console import table

# Columns of the table as people read them.
SHOWN = {
    "model": "model", "top1": "accuracy", "top5": "top-5", "loss": "NLL",
    "parameters": "parameters", "size_mb": "file, MB", "gflops": "GFLOPs",
    "image_size": "input, px", "ms_per_photo": "ms a photo", "images_per_second": "photos/s",
    "best_batch": "at batch",
    "peak_memory_mb": "memory, MB", "peak_gpu_memory_mb": "GPU memory, MB",
    "ms_per_photo_cpu": "ms a photo, CPU", "images_per_second_cpu": "photos/s, CPU",
}  # fmt: skip
_CHARTS = {
    "bars": ("Size, time, loss and accuracy", "Lines are 95 % intervals."),
    "accuracy_and_cost": (
        "Accuracy and what it costs",
        "Red: no other network is at least as accurate and cheaper. Up and to the left is better.",
    ),
    "precision": (
        "Precision of each class",
        "Of the photos taken for a class, the share that is. Above in the order of the classes, "
        "below from the best to the worst.",
    ),
    "precision_distance": (
        "How differently they see the classes",
        "Two networks of the same accuracy may be good at different classes: these gain most from "
        "being averaged.",
    ),
}


@dataclass(kw_only=True)
class Content:
    """All that the page tells.

    Attributes:
        rows: Of `compare.csv`.
        pairs: Of `compare_pairs`; None for one model.
        pictures: PNG files by name, in the order of `_CHARTS`.
        photos: With how many it was measured.
        where: Their place.
        failed: Models that are left out, and why.
        device: What computed, in words.
    """

    rows: pd.DataFrame
    pairs: pd.DataFrame | None
    pictures: dict[str, bytes]
    photos: int
    where: str
    failed: dict[str, str]
    device: str


def cells(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The table as people read it: its columns and rows."""
    names = [name for name in SHOWN if name in rows]
    return [SHOWN[name] for name in names], [
        [_cell(name, row[name], row) for name in names] for _, row in rows.iterrows()
    ]


def _cell(name: str, value: Any, row: pd.Series) -> str:
    if name == "model":
        return str(value)
    if pd.isna(value):
        return "-"
    if name == "top1" and "top1_low" in row:
        return f"{value:.1%} ({row.top1_low:.1%} to {row.top1_high:.1%})"
    if name in ("top1", "top5"):
        return f"{value:.1%}"
    if name == "image_size" and pd.notna(row.get("enlarged_to")):
        return f"{int(value)} → {int(row.enlarged_to)}"  # by the network
    if name in ("parameters", "image_size", "best_batch"):
        return f"{int(value):,}"
    if name == "loss":
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_text(rows: pd.DataFrame) -> str:
    """For the terminal."""
    return table(*cells(rows))


def sentences(pairs: pd.DataFrame) -> list[str]:
    """Each pair in words: how far apart, and whether chance may explain it."""
    found = []
    for pair in pairs.itertuples(index=False):
        is_better = pair.accuracy >= 0
        names = (pair.model, pair.other) if is_better else (pair.other, pair.model)
        between = ""
        if hasattr(pair, "accuracy_low"):
            ends = pair.accuracy_low, pair.accuracy_high
            low, high = ends if is_better else (-ends[1], -ends[0])
            between = f" ({100 * low:+.1f} to {100 * high:+.1f})"
        verdict = "real" if pair.is_real else "chance may explain it"
        says = f"{names[0]} tells {100 * abs(pair.accuracy):.1f} points more right than {names[1]}"
        if pair.accuracy == 0:
            says = f"{names[0]} and {names[1]} tell as many right"
        found.append(f"{says}{between}: {verdict}, p {_p(pair.p)}")
    return found


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


_ABOUT_TIME = (
    "Times are the network's alone, photos ready in memory: one at a time, and at the batch size "
    "that gives most photos a second. Memory is the most that its process had while it predicted, "
    "libraries included."
)
_ABOUT_PAIRS = (
    "The same photos for both: intervals by the paired bootstrap, p by McNemar's exact test after "
    "Holm's correction for the number of pairs; below 0.05 counts as real."
)


def build_markdown(content: Content) -> str:
    """The table and the pairs, to paste elsewhere."""
    columns, rows = cells(content.rows)
    lines = [
        f"# {len(rows)} networks on {content.photos:,} photos",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" + "---:|" * (len(columns) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
        "",
        f"{_ABOUT_TIME} Measured on {content.device}.",
    ]
    lines += [f"\nLeft out: {name}: {why}" for name, why in content.failed.items()]
    if content.pairs is not None:
        lines += ["", *(f"- {text}" for text in sentences(content.pairs)), "", _ABOUT_PAIRS]
    return "\n".join(lines) + "\n"


def build_page(content: Content) -> str:
    """The whole of it, as text."""
    columns, rows = cells(content.rows)
    failed = "".join(
        f'<p class="warn">Left out: {escape(name)}: {escape(why)}</p>'
        for name, why in content.failed.items()
    )
    sections = {
        "table": (
            "The table",
            pages.table([escape(name) for name in columns],
                       [[escape(cell) for cell in row] for row in rows])
            + f"{failed}<p>{_ABOUT_TIME} Measured on {escape(content.device)}.</p>",
        ),
    }  # fmt: skip
    if content.pairs is not None:
        items = "".join(f"<li>{escape(text)}</li>" for text in sentences(content.pairs))
        sections["pairs"] = (
            "Which differences are real",
            f"<ul>{items}</ul><p>{_ABOUT_PAIRS} pairs.csv has the numbers.</p>",
        )
    for name, (title, about) in _CHARTS.items():
        if name in content.pictures:
            sections[name] = (title, f"<p>{about}</p>{pages.chart(content.pictures[name], title)}")
    return pages.page(
        f"{len(rows)} networks on {content.photos:,} photos",
        f"{datetime.now():%Y-%m-%d %H:%M}, {files.command_line()}, photos of {content.where}",
        "",
        sections,
        "compare.csv has the table, predictions.csv a row for each photo, per_class.csv one for "
        "each class.",
    )
