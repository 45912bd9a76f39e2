"""What a sweep knows of its jobs: `sweep.json` in its directory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from carcls import run as files
from carcls.errors import UserError

SWEEP = "sweep.json"
WAITING, RUNNING, FINISHED, SKIPPED = "waiting", "running", "finished", "finished before"
FAILED, KILLED, STOPPED = "failed", "killed", "stopped"
PRUNED = "given up"  # by a search, for others did better
DONE = (FINISHED, SKIPPED)
BROKEN = (FAILED, KILLED)


@dataclass(kw_only=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Counted from 0, as Hydra does.
        overrides: What it runs with, in Hydra's grammar, `key=value` each.
        folder: Its run directory, below the sweep's.
        state: One of the words above.
        error: Why it failed or was killed, in one line.
        status: Its process' exit status; None where it has none of its own.
        is_resumed: Whether it goes on with what is in its directory.
    """

    number: int
    overrides: list[str]
    folder: str
    state: str = WAITING
    error: str | None = None
    status: int | None = None
    is_resumed: bool = False


def write_jobs(sweep_dir: Path, arguments: Sequence[str], jobs: Sequence[Job]) -> None:
    """Records the jobs, and the command line that they come from."""
    values = {"arguments": sorted(arguments), "jobs": [asdict(job) for job in jobs]}
    files.write_json(sweep_dir / SWEEP, values)


def read_jobs(sweep_dir: Path) -> list[Job]:
    """The jobs that were recorded; none where there is no record.

    Raises:
        UserError: If the file is no such record.
    """
    values = files.read_json(sweep_dir / SWEEP)
    try:
        return [Job(**job) for job in values.get("jobs", [])]
    except TypeError as error:
        raise UserError(
            f"Expected the jobs of a sweep. Received: {sweep_dir / SWEEP}: {error}. Remove it: "
            "finished jobs are recognised without it."
        ) from error


def newest_of(arguments: Sequence[str], outputs: Path) -> Path | None:
    """The newest sweep in a directory that the same command line began; None if there is none.

    Args:
        arguments: What is swept over, in any order.
        outputs: The directory that sweeps are made in.
    """
    records = sorted(outputs.glob(f"*/{SWEEP}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(records):
        with suppress(UserError):  # one that was damaged is no reason to start nothing
            if files.read_json(path).get("arguments") == sorted(arguments):
                return path.parent
    return None
