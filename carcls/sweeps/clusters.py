"""Sweeps under launchers that others have written, such as those of Ray and Slurm.

What a sweep of ours has, whoever runs its jobs: the same command goes on with what it began, the
others go on when one job fails, the command says which did, and a leaderboard compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigLoadError, ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig

from carcls import run as files
from carcls.errors import JobFailedError, UserError
from carcls.quoting import quoted
from carcls.sweeps import command, launcher, on_ray, plugins, record
from carcls.sweeps.launcher import ProcessLauncher
from carcls.sweeps.leaderboard import Leaderboard, varying
from carcls.sweeps.record import Job

_KEY = "hydra/launcher="
_STATES = {
    "finished": record.FINISHED, "find_lr": record.FINISHED, "running": record.RUNNING,
    "interrupted": record.STOPPED, "failed": record.FAILED, "diverged": record.FAILED,
}  # fmt: skip
_STATUS_FAILED = 1  # as a process of its own would end


class ReportingLauncher(ProcessLauncher):
    """Has another launcher run the jobs.

    Args:
        given: Its arguments.
    """

    other: ClassVar[type[Launcher]]  # a command has one

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.launcher = self.other(**given)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes what Hydra has composed, for both."""
        given = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        super().setup(**given)
        self.launcher.setup(**given)

    def _places(self) -> list[dict[str, str]]:
        return [{}]  # where jobs run is the other launcher's to say

    def _run(
        self,
        jobs: Sequence[Job],
        sweep_dir: Path,
        board: Leaderboard,
        places: Sequence[dict[str, str]],
    ) -> None:
        by_number = {job.number: job for job in jobs}
        keys, is_ray = varying(self.jobs), self.other.__name__ == on_ray.LAUNCHER

        def ended(number: int, answer: JobReturn | BaseException) -> None:
            job = by_number.pop(number)
            _conclude(job, answer, sweep_dir / job.folder)
            launcher.say(job, keys, sweep_dir, board.shown(job))
            if is_ray:  # the others wait for all jobs
                self._write(sweep_dir, board)

        asked = [(job.number, _overrides_of(job, sweep_dir)) for job in jobs]
        try:
            if jobs and is_ray:
                on_ray.run_on_ray(self.launcher, asked, ended)
            elif jobs:
                answers = self.launcher.launch([words for _, words in asked], jobs[0].number)
                for (number, _), answer in zip(asked, answers, strict=True):
                    ended(number, answer)
        except Exception as error:  # of which the other jobs may know nothing, and go on
            for job in by_number.values():
                job.state = _state_in(sweep_dir / job.folder)
                if job.state != record.FINISHED:
                    job.error = f"{job.state} when the launcher ended"
            self.task_function.jobs.tell(_launcher_ended(error))
        except KeyboardInterrupt:
            for job in by_number.values():
                job.state = _state_in(sweep_dir / job.folder)
            raise


def sweeping(arguments: list[str]) -> list[str]:
    """Has the jobs of a sweep reported, and the same command go on with it.

    Args:
        arguments: As the shell hands them over.

    Returns:
        The same where no other launcher than ours is asked for, or there is no sweep; else,
        unless a directory is given, with that of the sweep that the same command began.
    """
    asked = [argument for argument in arguments if argument.startswith(_KEY)]
    if not asked or asked[-1] == f"{_KEY}{launcher.NAME}":
        return arguments
    rest = command.sweeping([argument for argument in arguments if argument not in asked])
    other = _launcher_of(asked[-1].removeprefix(_KEY))
    if other is None or not any(argument.startswith(_KEY) for argument in rest):
        return arguments
    rest = [argument for argument in rest if not argument.startswith(_KEY)]
    ReportingLauncher.other = other
    target = plugins.register(ReportingLauncher, "hydra/launcher", "reporting")
    return [*rest, *asked, f"hydra.launcher._target_={target}"]


def _launcher_of(name: str) -> type[Launcher] | None:
    """The class of an installed launcher; None if it is Hydra's own, or not installed."""
    Plugins.instance()  # imports what is installed
    try:
        target = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node._target_
    except (ConfigLoadError, AttributeError):
        return None  # which Hydra tells
    return None if target.startswith("hydra._internal.") else get_class(target)


def _overrides_of(job: Job, sweep_dir: Path) -> list[str]:
    """What a job runs with there: in its directory, and it goes on if it is started once more."""
    return [
        *job.overrides,
        "resume=auto",
        f"hydra.sweep.dir={quoted(str(sweep_dir.absolute()))}",
        f"hydra.sweep.subdir={quoted(job.folder)}",
    ]


def _conclude(job: Job, answer: JobReturn | BaseException, run: Path) -> None:
    """Sets what has become of a job, from what came back of it; an error if nothing did."""
    job.status = job.error = None
    if isinstance(answer, BaseException):
        job.state = _state_in(run)
        if job.state != record.FINISHED and isinstance(answer, Exception):
            job.state, job.error = record.KILLED, _in_words(answer)
    elif answer.status == JobStatus.COMPLETED:
        job.state, job.status = record.FINISHED, 0
    else:
        answer.status = JobStatus.COMPLETED  # else to ask for what it returned raises that
        error = answer.return_value
        is_mistake = isinstance(error, JobFailedError) and error.is_mistake
        job.status = launcher.STATUS_USER_ERROR if is_mistake else _STATUS_FAILED
        job.state, job.error = record.FAILED, _in_words(error)


def _state_in(run: Path) -> str:
    with suppress(UserError):
        return _STATES.get(files.read_json(run / files.RUN).get("status"), record.WAITING)
    return record.WAITING


def _launcher_ended(error: Exception) -> UserError:
    told = UserError(
        "Expected hydra/launcher to run the jobs until all have ended. Received: "
        f"{_in_words(error).rstrip('.')}. Jobs that had begun may go on without it. When none runs "
        "any more, start the same command again: it goes on."
    )
    told.__cause__ = error
    return told


def _in_words(error: BaseException) -> str:
    name = "" if isinstance(error, JobFailedError) else f"{type(error).__name__}: "
    lines = str(error).splitlines()
    return f"{name}{lines[0] if lines else 'no reason given'}"
