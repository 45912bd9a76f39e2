"""The launcher `processes`: what runs the jobs of `train.py -m`, whatever sweeper chose them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from carcls import run as files
from carcls.config import TrainConfig, to_config
from carcls.errors import STATUS_USER_ERROR, UserError
from carcls.sweeps import plugins, record
from carcls.sweeps.leaderboard import Leaderboard, Searched, values_of, varying
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
NOWHERE = "-"  # the directory of a job that nothing was begun of


class ProcessLauncher(Launcher):
    """Runs each job as `python train.py` would, in a process of its own.

    Args:
        jobs: How many at a time; None: one a GPU where there are several, else one.
    """

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
        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        with self.alone(sweep_dir):
            wanted = [
                self._wanted(first_index, list(overrides))
                for first_index, overrides in enumerate(job_overrides, start=initial_job_idx)
            ]
            jobs = self._planned(wanted, sweep_dir)
            board, places = Leaderboard(sweep_dir), self._places()
            _say_plan(jobs, varying(jobs), sweep_dir, len(places))
            self._write(sweep_dir, board)
            waiting = [job for job in jobs if job.state == record.WAITING]
            try:
                self._run(waiting, sweep_dir, board, places)
            finally:
                self._conclude(jobs, board)
            return [_returned(job, each, board) for job, each in zip(jobs, wanted, strict=True)]

    def _run(
        self,
        jobs: Sequence[Job],
        sweep_dir: Path,
        board: Leaderboard,
        places: Sequence[dict[str, str]],
    ) -> None:
        """Runs the jobs, and sets their states, errors and statuses."""
        keys = varying(self.jobs)

        def changed(job: Job) -> None:
            self._write(sweep_dir, board)
            say(job, keys, sweep_dir, board.shown(job))

        run_jobs(jobs, lambda job: self._command(job, sweep_dir), places, changed)

    def search(
        self,
        sweep_dir: Path,
        trials: Iterable[tuple[int, list[str]]],
        keys: list[str],
        is_given_up: Callable[[Job, Path, TrainConfig | None], bool],
        searched: Callable[[Job | None, dict[str, Any]], Searched],
    ) -> None:
        """Runs trials, each chosen when there is a place for it, and returns when all have ended.

        Args:
            sweep_dir: Which `alone` keeps for this process.
            trials: Number and overrides; the next is asked for as late as can be.
            keys: What the trials differ in.
            is_given_up: Asked all the time of each job that runs, with its directory and what it
                trains; a job that is given up saves what it reached.
            searched: Called with None first, then with a job when it has started, and when it has
                ended, and with what it reached (empty while it runs); what it returns is shown.

        Raises:
            KeyboardInterrupt: If it was stopped, after all that ran have saved.
        """
        board, places = Leaderboard(sweep_dir), self._places()
        configs: dict[int, TrainConfig | None] = {}
        ran: list[Job] = []
        self._planned([], sweep_dir)  # those of before
        board.searched = searched(None, {})

        def planned() -> Iterator[Job]:
            for number, overrides in trials:
                try:
                    wanted = self._wanted(number, overrides)
                except (HydraException, OmegaConfBaseException) as error:  # of these together
                    job = Job(
                        number=number, overrides=overrides, folder=NOWHERE, state=record.FAILED,
                        error=str(error).splitlines()[0], status=STATUS_USER_ERROR,
                    )  # fmt: skip
                    self.jobs.append(job)
                else:
                    configs[number] = wanted.config
                    (job,) = self._planned([wanted], sweep_dir, is_apart=True)
                ran.append(job)
                yield job

        def changed(job: Job) -> None:
            board.searched = searched(job, board.reached(job))
            self._write(sweep_dir, board)
            say(job, keys, sweep_dir, board.shown(job))

        def is_enough(job: Job) -> bool:
            return is_given_up(job, sweep_dir / job.folder, configs[job.number])

        try:
            run_jobs(
                planned(), lambda job: self._command(job, sweep_dir), places, changed, is_enough
            )
        finally:
            self._conclude(ran, board)

    @contextmanager
    def alone(self, sweep_dir: Path) -> Iterator[None]:
        """Keeps other processes from running a sweep in the same directory.

        Raises:
            UserError: If one does already.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        with generations.alone(sweep_dir):
            yield

    def _planned(
        self, wanted: Sequence[Wanted], sweep_dir: Path, is_apart: bool = False
    ) -> list[Job]:
        """The jobs for what is wanted, which are added to those of before.

        Args:
            wanted: In order.
            sweep_dir: Where their directories are.
            is_apart: Whether the same values are another job, for a search that draws them twice.
        """
        known = {job.folder for job in self.jobs}  # as they are now, not as they were written
        before = [job for job in record.read_jobs(sweep_dir) if job.folder not in known]
        before = [job for job in before if job.state != record.WAITING]
        for job in before:  # nothing of an earlier command runs: this one has the directory
            job.state = record.STOPPED if job.state == record.RUNNING else job.state
        jobs = plan(wanted, sweep_dir, [] if is_apart else [*before, *self.jobs])
        taken = {job.folder for job in jobs}
        self.jobs = [*(job for job in [*self.jobs, *before] if job.folder not in taken), *jobs]
        return jobs

    def _places(self) -> list[dict[str, str]]:
        is_on_gpu = OmegaConf.select(self.config, "runtime.device") != "cpu"
        return places_for(self.jobs_at_once, visible_gpus() if is_on_gpu else [])

    def _conclude(self, jobs: Sequence[Job], board: Leaderboard) -> None:
        self._write(board.sweep_dir, board)
        self._tell(jobs)
        if self.jobs:
            print(board.summary(self.jobs), flush=True)

    def _write(self, sweep_dir: Path, board: Leaderboard) -> None:
        try:
            record.write_jobs(sweep_dir, _swept_over(self.config), self.jobs)
            board.write(self.jobs)
        except Exception as error:  # a full disk, say: the jobs must not end with it
            log.warning(f"WARNING: the leaderboard was not written: {error}")

    def compose(self, number: int, overrides: list[str]) -> tuple[TrainConfig, DictConfig]:
        """What a job would train, and all that Hydra composes for it.

        Args:
            number: Of the job.
            overrides: Of the job.

        Raises:
            UserError: If it is refused.
        """
        cfg, _ = self._composed(number, overrides)
        return _config_of(cfg), cfg

    def _wanted(self, number: int, overrides: list[str]) -> Wanted:
        """What a job is, and where it would go."""
        cfg, folder = self._composed(number, overrides)
        config = None
        with suppress(UserError, OmegaConfBaseException):  # which its own process tells
            config = _config_of(cfg)
        shown = filter_overrides(overrides)
        return Wanted(number=number, overrides=list(shown), folder=folder, config=config, cfg=cfg)

    def _composed(self, number: int, overrides: list[str]) -> tuple[DictConfig, str]:
        """What Hydra composes for a job, all resolved but for Hydra's own; and its directory."""
        loader = self.hydra_context.config_loader
        cfg = loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        outer = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            folder = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
            resolved = cfg.copy()
            with open_dict(resolved), suppress(OmegaConfBaseException):  # told by its own process
                del resolved["hydra"]
                OmegaConf.resolve(resolved)
                resolved["hydra"] = cfg.hydra
                cfg = resolved
        finally:
            HydraConfig.instance().cfg = outer
        return cfg, folder

    def _command(self, job: Job, sweep_dir: Path) -> list[str]:
        given = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        of_hydra = [text for text in given if not text.lstrip("+~").startswith(_OF_SWEEP)]
        run = sweep_dir / job.folder
        where = f"resume={run}" if job.is_resumed else f"hydra.run.dir={run}"
        number = f"hydra.job.num={job.number}"
        script = str(Path(sys.argv[0]).absolute())
        return [sys.executable, script, *job.overrides, *of_hydra, number, where]

    def _tell(self, jobs: Sequence[Job]) -> None:
        """Hands what failed to the entry point, for its closing words and exit status."""
        for job in jobs:
            if job.state == record.PRUNED:
                continue
            is_mistake = job.state == record.FAILED and job.status == STATUS_USER_ERROR
            self.task_function.jobs.add(
                Path(job.folder).name, job.overrides,
                job.error or "" if job.state in record.BROKEN or job.error else None,
                is_mistake=is_mistake,
            )  # fmt: skip


def register() -> None:
    """Makes `hydra/launcher=processes` known to Hydra."""
    plugins.register(ProcessLauncher, "hydra/launcher", NAME, jobs=None)


def _config_of(cfg: DictConfig) -> TrainConfig:
    values = cfg.copy()
    with open_dict(values):
        del values["hydra"]
    return to_config(values)


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


def say(job: Job, keys: list[str], sweep_dir: Path, reached: str) -> None:
    """Prints a line on what became of a job.

    Args:
        job: As it is now.
        keys: The overrides that vary.
        sweep_dir: Of the sweep.
        reached: Its accuracy in words, or nothing.
    """
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
