"""The leaderboard of a sweep as a page, as Markdown and as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from html import escape
from urllib.parse import quote

import pandas as pd

from carcls import pages
from carcls import run as files
from carcls.console import duration, table
from carcls.sweeps.record import BROKEN, DONE, PRUNED, RUNNING, STOPPED, WAITING

_ABOUT = (
    "Accuracies are of each job's validation photos, with 95 % intervals (Wilson). The best of "
    "several was chosen with these photos: of new ones expect somewhat less, the more jobs the "
    "more so. Where intervals overlap widely, chance may explain the order."
)
_ABOUT_EFFECTS = (
    "Each value's mean over the jobs that are done, whatever their other overrides; the one whose "
    "means are furthest apart comes first. Where not every combination is done, a value may look "
    "good because of its company."
)


@dataclass(kw_only=True)
class Content:
    """All that the leaderboard tells.

    Attributes:
        title: Of the sweep.
        rows: A row a job, the best first.
        keys: The columns of it that are overrides.
        constant: Overrides that all jobs have.
        effects: Of `carcls.sweeps.leaderboard.effects`.
        commands: What to run next, with a name each.
        picture: Of the effects, a PNG file.
        searched: What a search has found, in a line; None where none chose the jobs.
        search_picture: How it went, a PNG file.
    """

    title: str
    rows: pd.DataFrame
    keys: list[str]
    constant: list[str]
    effects: pd.DataFrame | None
    commands: list[tuple[str, str]]
    picture: bytes | None
    searched: str | None = None
    search_picture: bytes | None = None


def shown_accuracy(row: dict | pd.Series) -> str:
    """With its interval."""
    low, high = row["val_accuracy_low"], row["val_accuracy_high"]
    return f"{row['val_accuracy']:.1%} ({low:.1%} to {high:.1%})"


def cells(content: Content, with_errors: bool = True) -> tuple[list[str], list[list[str]]]:
    """The table as people read it: its columns and rows."""
    rows = content.rows
    shown: dict[str, Callable[[pd.Series], str]] = {"job": lambda row: f"#{row['job']}"}
    for name, key in zip(_short(content.keys), content.keys, strict=True):
        shown[name] = lambda row, key=key: str(row[key])
    shown["state"] = lambda row: row["state"]
    if "val_accuracy" in rows:
        shown["accuracy"] = lambda row: _unless_missing(row, "val_accuracy", shown_accuracy)
        stages = [name for name in rows if name.endswith("_accuracy") and name != "val_accuracy"]
        for name in stages if len(stages) > 1 else []:
            shown[f"after {name.removesuffix('_accuracy')}"] = lambda row, name=name: (
                _unless_missing(row, name, lambda row: f"{row[name]:.1%}")
            )
    if "seconds" in rows:
        shown["time"] = lambda row: _unless_missing(
            row, "seconds", lambda row: duration(row["seconds"])
        )
        shown["MB"] = lambda row: _unless_missing(
            row, "size_mb", lambda row: f"{row['size_mb']:.1f}"
        )
    shown["run"] = lambda row: row["run"]
    if with_errors and rows.error.notna().any():
        shown["error"] = lambda row: _unless_missing(row, "error", lambda row: row["error"])
    return list(shown), [
        [show(row) for show in shown.values()] for _, row in content.rows.iterrows()
    ]


def _short(keys: list[str]) -> list[str]:
    """The last part of each key, where that is no other's."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(name) > 1 else name for key, name in zip(keys, last, strict=True)]


def _unless_missing(row: pd.Series, name: str, show: Callable[[pd.Series], str]) -> str:
    return "-" if pd.isna(row[name]) else show(row)


def headline(content: Content) -> str:
    """How far the sweep is, in one line."""
    states = content.rows.state if len(content.rows) else pd.Series(dtype=str)
    counts = {
        "done": states.isin(DONE).sum(), "running": (states == RUNNING).sum(),
        "waiting": (states == WAITING).sum(), "stopped": (states == STOPPED).sum(),
        "given up": (states == PRUNED).sum(),
    }  # fmt: skip
    counts |= {name: (states == name).sum() for name in BROKEN}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{len(states)} job{'s' if len(states) > 1 else ''}: {told}."


def as_text(content: Content) -> str:
    """For the terminal, where errors are told below, since they would make the table too wide."""
    lines = [headline(content), *([content.searched] if content.searched else [])]
    return f"{table(*cells(content, with_errors=False))}\n\n" + "\n".join(lines)


def build_markdown(content: Content) -> str:
    """The table, the effects and the commands, to paste elsewhere."""
    lines = [f"# {content.title}", "", headline(content), ""]
    if content.constant:
        lines += [f"All with `{' '.join(content.constant)}`.", ""]
    lines += [*_markdown_table(*cells(content)), "", _ABOUT]
    if content.searched:
        lines += ["", "## The search", "", content.searched]
        lines += ["", "![](search.png)"] if content.search_picture else []
    if content.effects is not None:
        lines += ["", "## How the overrides matter", "", _ABOUT_EFFECTS, ""]
        lines += [*_markdown_table(*_effect_cells(content.effects)), "", "![](leaderboard.png)"]
    if content.commands:
        lines += ["", "## Next", "", "```bash"]
        lines += [f"{command}  # {what}" for what, command in content.commands]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def build_page(content: Content) -> str:
    """The whole of it, as text."""
    with_all = f"<p>All with {escape(' '.join(content.constant))}.</p>" if content.constant else ""
    commands = "\n".join(
        f"{escape(command)}  # {escape(what)}" for what, command in content.commands
    )
    effects = ""
    if content.effects is not None:
        effects = f"<p>{_ABOUT_EFFECTS}</p>" + _html_table(*_effect_cells(content.effects))
        if content.picture:
            effects += pages.chart(content.picture, "Accuracy by the values of each override")
    searched = f"<p>{escape(content.searched)}</p>" if content.searched else ""
    if content.search_picture:
        searched += pages.chart(content.search_picture, "How the search went, and what mattered")
    sections = {
        "jobs": ("The jobs", _with_links(content) + f"{with_all}<p>{_ABOUT}</p>"),
        "search": ("The search", searched),
        "effects": ("How the overrides matter", effects),
        "next": ("Next", f"<pre>{commands}</pre>" if commands else ""),
    }
    return pages.page(
        content.title,
        f"{datetime.now():%Y-%m-%d %H:%M}, {files.command_line()}",
        f"<p>{escape(headline(content))}</p>",
        sections,
        "leaderboard.csv has all numbers; each job's directory has its curves and its report.",
    )


def _with_links(content: Content) -> str:
    """The table, with a link to the report of each job that has one."""
    columns, rows = cells(content)
    place = columns.index("run")
    rows = [[escape(cell) for cell in row] for row in rows]
    is_measured = content.rows.get("val_accuracy", pd.Series(index=content.rows.index)).notna()
    for row, folder, has_report in zip(rows, content.rows.run, is_measured, strict=True):
        if has_report:
            path = f"{quote(folder)}/{files.EVALUATION}/report.html"
            row[place] = f'<a href="{path}">{row[place]}</a>'
    return pages.table([escape(name) for name in columns], rows)


def _effect_cells(effects: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            row.key, row.value, str(row.jobs), f"{row.mean:.1%}",
            "-" if pd.isna(row.std) else f"{100 * row.std:.1f}",
            f"{row.low:.1%}", f"{row.high:.1%}",
        ]
        for row in effects.itertuples(index=False)
    ]  # fmt: skip
    return ["override", "value", "jobs", "mean", "± points", "worst", "best"], rows


def _markdown_table(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    ]


def _html_table(columns: list[str], rows: list[list[str]]) -> str:
    return pages.table(
        [escape(name) for name in columns], [[escape(cell) for cell in row] for row in rows]
    )
