"""The launcher `processes`: what runs the jobs of `train.py -m`, whatever sweeper chose them."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from carcls import run as files
from carcls.config import to_config
from carcls.errors import UserError
from carcls.sweeps import record
from carcls.sweeps.leaderboard import Leaderboard, values_of, varying
from carcls.sweeps.plan import Wanted, plan
from carcls.sweeps.processes import places_for, run_jobs, visible_gpus
from carcls.sweeps.record import Job
from carcls.training import generations

log = logging.getLogger(__name__)

NAME = "processes"
# Of the sweep alone: a job is a run like any other.
_OF_SWEEP = (
    "hydra.sweep.", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher",
    "hydra.run.", "hydra.mode", "hydra.job.num", "hydra.job.id",
)  # fmt: skip
_STATUS_USER_ERROR = 2
# Hydra 1.3 takes plugins from the package `hydra_plugins` alone, for which it looks at all that is
# installed. This one is ours, and put there when it is needed.
_MODULE = "hydra_plugins.carcls"


class ProcessLauncher(Launcher):
    """Runs each job as `python train.py` would, in a process of its own.

    Args:
        jobs: How many at a time; None: one a GPU where there are several, else one.
    """

    __module__ = _MODULE

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs_at_once = jobs
        self.config: DictConfig | None = None
        self.jobs: list[Job] = []  # of every launch: a sweeper may choose some after others

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes what Hydra has composed.

        Raises:
            UserError: If the number of jobs is none.
        """
        jobs = self.jobs_at_once
        if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
            raise UserError(
                "Expected hydra.launcher.jobs, how many jobs run at a time, to be at least 1, or "
                f"null. Received: {jobs}"
            )
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs the jobs and returns when all have ended, with their validation accuracies.

        Raises:
            UserError: If another process runs a sweep in the same directory.
            KeyboardInterrupt: If it was stopped, after all that ran have saved.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        with generations.alone(sweep_dir):
            return self._launch(sweep_dir, job_overrides, initial_job_idx)

    def _launch(
        self, sweep_dir: Path, job_overrides: Sequence[Sequence[str]], first: int
    ) -> list[JobReturn]:
        wanted = [
            self._wanted(first + index, list(overrides))
            for index, overrides in enumerate(job_overrides)
        ]
        before = [job for job in record.read_jobs(sweep_dir) if job not in self.jobs]
        before = [job for job in before if job.state != record.WAITING]
        for job in before:  # nothing of an earlier command runs: this one has the directory
            job.state = record.STOPPED if job.state == record.RUNNING else job.state
        jobs = plan(wanted, sweep_dir, [*before, *self.jobs])
        taken = {job.folder for job in jobs}
        self.jobs = [*(job for job in [*self.jobs, *before] if job.folder not in taken), *jobs]
        is_on_gpu = OmegaConf.select(self.config, "runtime.device") != "cpu"
        places = places_for(self.jobs_at_once, visible_gpus() if is_on_gpu else [])
        board = Leaderboard(sweep_dir)
        keys = varying(jobs)
        _say_plan(jobs, keys, sweep_dir, len(places))

        def changed(job: Job) -> None:
            self._write(sweep_dir, board)
            _say(job, keys, sweep_dir, board.shown(job))

        self._write(sweep_dir, board)
        try:
            run_jobs(jobs, lambda job: self._command(job, sweep_dir), places, changed)
        finally:
            self._tell(jobs)
            print(board.summary(self.jobs), flush=True)
        return [_returned(job, each, board) for job, each in zip(jobs, wanted, strict=True)]

    def _write(self, sweep_dir: Path, board: Leaderboard) -> None:
        try:
            record.write_jobs(sweep_dir, _swept_over(self.config), self.jobs)
            board.write(self.jobs)
        except Exception as error:  # a full disk, say: the jobs must not end with it
            log.warning(f"WARNING: the leaderboard was not written: {error}")

    def _wanted(self, number: int, overrides: list[str]) -> Wanted:
        """What a job is, and where it would go, as Hydra composes it."""
        loader = self.hydra_context.config_loader
        cfg = loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        outer = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            folder = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
            values = cfg.copy()
            with open_dict(values):
                del values["hydra"]
            config = None
            with suppress(UserError, OmegaConfBaseException):  # which its own process tells
                OmegaConf.resolve(values)
                config = to_config(values)
        finally:
            HydraConfig.instance().cfg = outer
        shown = filter_overrides(overrides)
        return Wanted(number=number, overrides=list(shown), folder=folder, config=config, cfg=cfg)

    def _command(self, job: Job, sweep_dir: Path) -> list[str]:
        given = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        of_hydra = [text for text in given if not text.lstrip("+~").startswith(_OF_SWEEP)]
        run = sweep_dir / job.folder
        where = f"resume={run}" if job.is_resumed else f"hydra.run.dir={run}"
        number = f"hydra.job.num={job.number}"
        script = str(Path(sys.modules["__main__"].__file__).absolute())
        return [sys.executable, script, *job.overrides, *of_hydra, number, where]

    def _tell(self, jobs: Sequence[Job]) -> None:
        """Hands what failed to the entry point, for its closing words and exit status."""
        for job in jobs:
            is_mistake = job.state == record.FAILED and job.status == _STATUS_USER_ERROR
            self.task_function.jobs.add(
                Path(job.folder).name, job.overrides,
                job.error or "" if job.state in record.BROKEN or job.error else None,
                is_mistake=is_mistake,
            )  # fmt: skip


def register() -> None:
    """Makes `hydra/launcher=processes` known to Hydra."""
    Plugins.instance().register(ProcessLauncher)  # after it has looked for those installed
    with suppress(ImportError):
        importlib.import_module("hydra_plugins")  # where there are others
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    sys.modules[_MODULE] = sys.modules[__name__]
    node = {"_target_": f"{_MODULE}.{ProcessLauncher.__name__}", "jobs": None}
    ConfigStore.instance().store(group="hydra/launcher", name=NAME, node=node, provider="carcls")


def _swept_over(config: DictConfig) -> list[str]:
    return list(OmegaConf.to_container(config.hydra.overrides.task))


def _say_plan(jobs: Sequence[Job], keys: list[str], sweep_dir: Path, num_places: int) -> None:
    skipped = [job for job in jobs if job.state == record.SKIPPED]
    resumed = [job for job in jobs if job.is_resumed and job not in skipped]
    parts = [f"{len(jobs)} job{'s' if len(jobs) > 1 else ''} in {files.shown(sweep_dir)}"]
    if skipped:
        parts.append(f"{len(skipped)} finished before")
    if resumed:
        parts.append(f"{len(resumed)} to go on with")
    if num_places > 1:
        parts.append(f"{num_places} at a time")
    print(", ".join(parts), flush=True)
    for job in skipped:
        print(f"#{job.number}  finished before, in {job.folder}{_shown(job, keys)}", flush=True)


def _say(job: Job, keys: list[str], sweep_dir: Path, reached: str) -> None:
    if job.state == record.RUNNING:
        what = "goes on" if job.is_resumed else "starts"
        what += f", in {files.shown(sweep_dir / job.folder)}"
    else:
        what = f"{job.state}{f', {reached}' if reached else ''}"
        # What failed has told its error itself, on the line above.
        what += f": {job.error}" if job.error and job.state != record.FAILED else ""
    print(f"#{job.number}  {what}{_shown(job, keys)}", flush=True)


def _shown(job: Job, keys: list[str]) -> str:
    """What is special about a job, for the end of a line."""
    given = values_of(job)
    own = [f"{key}={given[key]}" for key in keys if key in given]
    return f" ({' '.join(own)})" if own else ""


def _returned(job: Job, wanted: Wanted, board: Leaderboard) -> Any:
    """As Hydra's sweepers expect it; a job without a network has no value."""
    answer = JobReturn()
    answer.overrides, answer.cfg, answer.status = job.overrides, wanted.cfg, JobStatus.COMPLETED
    answer.return_value = board.accuracy(job)
    return answer
