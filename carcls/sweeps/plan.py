"""Which jobs of a sweep are done already, which go on, and where each has its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carcls import run as files
from carcls.config import DataConfig, TrainConfig, to_plain
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.sweeps.record import SKIPPED, WAITING, Job
from carcls.training.resume import is_run_of

_DONE = ("finished", "find_lr")  # statuses of a run with nothing left to do
_BEGINS_ANEW = ("diverged",)  # and of one that cannot be gone on with


@dataclass(kw_only=True)
class Wanted:
    """A job as it was asked for.

    Attributes:
        number: Counted from 0.
        overrides: Those that are not Hydra's own.
        folder: The directory that Hydra would give it, below the sweep's.
        config: What it would train; None where that is refused, as the job itself will tell.
        cfg: All that Hydra composed.
    """

    number: int
    overrides: list[str]
    folder: str
    config: TrainConfig | None
    cfg: Any = None


def plan(wanted: Sequence[Wanted], sweep_dir: Path, before: Sequence[Job]) -> list[Job]:
    """Finds what the directory of the sweep holds of each job already.

    A job is recognised by its configuration, but for what is the machine's, and its photos, not by
    its number or directory: these change with the command.

    Args:
        wanted: In order.
        sweep_dir: Where their directories are.
        before: Jobs that the sweep had before.
    """
    fingerprints: dict[str, str | None] = {}
    jobs: dict[int, Job] = {}
    taken: set[str] = set()
    for one in wanted:
        folders = dict.fromkeys([one.folder, *(job.folder for job in before)])
        for folder in folders:
            facts = _facts(sweep_dir / folder)
            if folder in taken or not _is_its(one.config, sweep_dir / folder, facts, fingerprints):
                continue
            taken.add(folder)
            status = facts.get("status")
            is_resumed = bool(facts) and status not in _BEGINS_ANEW
            jobs[one.number] = Job(
                number=one.number, overrides=one.overrides, folder=folder, is_resumed=is_resumed,
                state=SKIPPED if status in _DONE else WAITING,
            )  # fmt: skip
            break
    for one in wanted:
        if one.number not in jobs:
            folder = _free(one.folder, sweep_dir, taken)
            taken.add(folder)
            jobs[one.number] = Job(number=one.number, overrides=one.overrides, folder=folder)
    return [jobs[one.number] for one in wanted]


def _is_its(
    config: TrainConfig | None,
    run: Path,
    facts: dict[str, Any],
    fingerprints: dict[str, str | None],
) -> bool:
    """Whether a directory holds a run of that configuration on the photos as they are now."""
    if config is None:
        return False
    with suppress(UserError):  # the record of an older version, or a damaged one
        if is_run_of(config, run):
            recorded = facts.get("data_fingerprint")
            return recorded is None or recorded == _fingerprint(config.data, fingerprints)
    return False


def _fingerprint(data: DataConfig, known: dict[str, str | None]) -> str | None:
    """Of the photos; None where they cannot be read, as the job itself will tell. Read once."""
    key = json.dumps(to_plain(data), default=str)
    if key not in known:
        known[key] = None
        with suppress(UserError):
            known[key] = read_training_photos(data).fingerprint()
    return known[key]


def _free(folder: str, sweep_dir: Path, taken: set[str]) -> str:
    """A directory in which no other job is, and no run that this would replace."""
    name, number = folder, 1
    while name in taken or (sweep_dir / name / files.RUN).is_file():
        number += 1
        name = f"{folder}_{number}"
    return name


def _facts(run: Path) -> dict[str, Any]:
    with suppress(UserError):  # damaged: then it is no run
        return files.read_json(run / files.RUN)
    return {}
