"""What the jobs of a sweep reached, best first, and what their overrides matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from carcls import run as files
from carcls.config import to_data_config
from carcls.console import UNFOLDED, facts
from carcls.errors import UserError
from carcls.sweeps import leaderboard_page
from carcls.sweeps.leaderboard_picture import draw_effects
from carcls.sweeps.record import DONE, Job
from carcls.training.report import lists_what_to_predict

TABLE, MARKDOWN, PAGE, PICTURE = (
    "leaderboard.csv", "leaderboard.md", "leaderboard.html", "leaderboard.png",
)  # fmt: skip
DEFAULT = "(default)"  # of a key that not all jobs override
_ENSEMBLE = 3  # the best so many predict together
_Z = 1.959964  # of a 95 % interval


@dataclass(kw_only=True)
class Searched:
    """What a search has found so far.

    Attributes:
        text: For people, in a line.
        picture: How it went, a PNG file; None while there is nothing to see.
    """

    text: str
    picture: bytes | None


class Leaderboard:
    """The table, the pages and the picture in a sweep's directory.

    Args:
        sweep_dir: Where the jobs have their directories.

    Attributes:
        searched: What is known of the search that chooses the jobs; None where none does.
    """

    searched: Searched | None = None

    def __init__(self, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir

    def write(self, jobs: Sequence[Job]) -> None:
        """Writes all of it, as the jobs are now.

        Raises:
            UserError: If there is no room.
        """
        content = self._content(jobs)
        with files.replacing(self.sweep_dir / TABLE) as temporary:
            content.rows.to_csv(temporary, index=False)
        if content.effects is not None:
            figure = draw_effects(content.rows, content.effects)
            content.picture = figure.write(self.sweep_dir / PICTURE)
        files.write_text(self.sweep_dir / MARKDOWN, leaderboard_page.build_markdown(content))
        files.write_text(self.sweep_dir / PAGE, leaderboard_page.build_page(content))

    def summary(self, jobs: Sequence[Job]) -> str:
        """For the terminal: the table, the commands, and where everything lies."""
        content = self._content(jobs)
        where = [("leaderboard", str(files.shown(self.sweep_dir / name)))
                 for name in (PAGE, MARKDOWN, TABLE, PICTURE)
                 if (self.sweep_dir / name).is_file()]  # fmt: skip
        where = [(name if i == 0 else "", path) for i, (name, path) in enumerate(where)]
        pairs = [*where, *content.commands]
        return f"\n{leaderboard_page.as_text(content)}\n\n{facts(pairs, UNFOLDED)}"

    def shown(self, job: Job) -> str:
        """What a job reached, in words; empty where there is no number."""
        row = self.reached(job)
        return leaderboard_page.shown_accuracy(row) if "val_accuracy" in row else ""

    def accuracy(self, job: Job) -> float | None:
        """What a job reached on its validation photos, if it is done and there are some."""
        return self.reached(job).get("val_accuracy")

    def _content(self, jobs: Sequence[Job]) -> leaderboard_page.Content:
        keys = varying(jobs)
        rows = pd.DataFrame([self._row(job, keys) for job in jobs])
        last = ["error", "run"]
        rows = rows[[*(name for name in rows if name not in last), *last]]
        if "val_accuracy" in rows:
            by = [name for name in ("val_accuracy", "val_loss") if name in rows]
            rows = rows.sort_values(
                by, ascending=[name == "val_loss" for name in by], kind="stable", na_position="last"
            ).reset_index(drop=True)
        constant = [text for text in jobs[0].overrides if text.partition("=")[0] not in keys]
        return leaderboard_page.Content(
            title=self.sweep_dir.name,
            rows=rows,
            keys=keys,
            constant=constant,
            effects=effects(rows, keys),
            commands=self._commands(rows),
            picture=None,
            searched=self.searched and self.searched.text,
            search_picture=self.searched and self.searched.picture,
        )

    def _row(self, job: Job, keys: list[str]) -> dict[str, Any]:
        given = values_of(job)
        row: dict[str, Any] = {"job": job.number, "state": job.state}
        row |= {key: given.get(key, DEFAULT) for key in keys}
        return row | self.reached(job) | {"error": job.error, "run": job.folder}

    def reached(self, job: Job) -> dict[str, Any]:
        """The numbers of a job that is done, from its directory."""
        run = self.sweep_dir / job.folder
        metrics = _read(run / files.METRICS)
        if job.state not in DONE or not metrics:
            return {}
        found: dict[str, Any] = {}
        if metrics.get("n_val"):  # with data.refit there are none
            found["val_accuracy"] = metrics["val_accuracy"]
            found["val_accuracy_low"], found["val_accuracy_high"] = wilson(
                metrics["val_accuracy"], metrics["n_val"]
            )
            found["val_loss"], found["n_val"] = metrics["val_loss"], metrics["n_val"]
            found |= {
                f"{stage['name']}_accuracy": stage["val_accuracy"] for stage in metrics["stages"]
            }
        found["seconds"] = metrics["seconds"]
        models = [path / files.MODEL for path in files.all_folds(run) or [run]]
        found["size_mb"] = round(sum(p.stat().st_size for p in models if p.is_file()) / 1e6, 2)
        return found

    def _commands(self, rows: pd.DataFrame) -> list[tuple[str, str]]:
        """What predicts with the best, and with the best few that know the same classes."""
        if "val_accuracy" not in rows:
            return []
        ranked = [self.sweep_dir / name for name in rows.run[rows.val_accuracy.notna()]]
        if not ranked:
            return []
        recorded = [_read(run / files.RUN) for run in ranked]
        kinds = [(each.get("data_fingerprint"), each.get("config", {}).get("target"))
                 for each in recorded]  # fmt: skip
        best = [run for run, kind in zip(ranked, kinds, strict=True) if kind == kinds[0]]
        images = ""
        with suppress(UserError):
            data = to_data_config(recorded[0].get("config", {}).get("data", {}))
            images = "" if lists_what_to_predict(data) else " images=PHOTO"
        first = files.shell_quoted(best[0])
        commands = [("predict with the best", f"python predict.py ckpt={first}{images}")]
        if len(best) > 1:
            several = ",".join(files.shell_quoted(run) for run in best[:_ENSEMBLE])
            number = min(len(best), _ENSEMBLE)
            commands += [
                (f"with the best {number}", f"python predict.py ckpt=[{several}]{images}"),
                ("measure these together", f"python evaluate.py ckpt=[{several}]"),
            ]
        return commands


def _read(path: Path) -> dict[str, Any]:
    """A file of a run; nothing where it is damaged, which is that job's trouble alone."""
    with suppress(UserError):
        return files.read_json(path)
    return {}


def values_of(job: Job) -> dict[str, str]:
    """Keys to values of a job's overrides, as text without Hydra's quotes."""
    pairs = (text.partition("=") for text in job.overrides)
    return {key.lstrip("+"): value.strip("'\"") for key, _, value in pairs}


def varying(jobs: Sequence[Job]) -> list[str]:
    """The keys whose values are not the same in all jobs, in the order of the command line."""
    given = [values_of(job) for job in jobs]
    keys = dict.fromkeys(key for values in given for key in values)
    return [key for key in keys if len({values.get(key) for values in given}) > 1]


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `n` photos (Wilson, 1927)."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def effects(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame | None:
    """What each value of each override reached, over all other overrides.

    Args:
        rows: Of the leaderboard.
        keys: The overrides that vary.

    Returns:
        key, value, jobs, mean, std (over jobs; NaN for one), low and high (the worst and the best
        job), keys with the widest range of means first; None while fewer than two jobs are done.
    """
    if "val_accuracy" not in rows or rows.val_accuracy.notna().sum() < 2:
        return None
    done = rows[rows.val_accuracy.notna()]
    keys = [key for key in keys if not _is_continuous(done[key])]
    if not keys:
        return None
    found = {}
    for key in keys:
        names = {"count": "jobs", "min": "low", "max": "high"}
        by_value = done.groupby(key).val_accuracy.agg(["count", "mean", "std", "min", "max"])
        by_value = by_value.rename(columns=names).sort_index(key=lambda index: index.map(_order))
        by_value = by_value.rename_axis("value").reset_index()
        by_value.insert(0, "key", key)
        found[key] = by_value
    ranges = {key: each["mean"].max() - each["mean"].min() for key, each in found.items()}
    order = sorted(found, key=lambda key: -ranges[key])
    return pd.concat([found[key] for key in order], ignore_index=True)


def _is_continuous(values: pd.Series) -> bool:
    """Whether these are numbers that hardly repeat, so that each one's mean would say nothing."""
    is_numeric = all(_order(value)[0] == 0 for value in values)
    return is_numeric and len(values) > 3 and values.nunique() > 0.75 * len(values)


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by their size, before words."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
