"""What the entry points share: one message for a user's mistake, and sweeps that go on.

Imports neither Keras nor pandas, so that `--help` answers at once.
"""

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from carcls.errors import STATUS_USER_ERROR, JobFailedError, UserError
from carcls.quoting import quote_paths
from carcls.swept import is_swept, stop_with_sweep

STATUS_FAILED = 1
STATUS_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_CONF = str(Path(__file__).parent.parent / "conf")
_VERBOSE = ("-v", "--verbose")
_MULTIRUN = ("-m", "--multirun")

log = logging.getLogger(__name__)
Job = Callable[[DictConfig, Path], None]
Before = Callable[[list[str]], list[str]]


def run_app(config_name: str, job: Job, before: Before | None = None) -> None:
    """Composes conf/<config_name>.yaml with the command line, runs `job(cfg, workdir)`, exits.

    `before` may change the command line when Hydra has made nothing yet.

    A mistake is told in one message, with -v below its traceback, and ends this job only: a sweep
    goes on and says at its end what failed. The exit status is 2 after a UserError, 1 after any
    other error, and 130 after Ctrl-C.
    """
    jobs = _Jobs(job, is_verbose=any(argument in _VERBOSE for argument in sys.argv[1:]))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # leaves exceptions to us
    logging.raiseExceptions = False  # a log that cannot be written to is no reason to stop
    arguments = [argument for argument in sys.argv[1:] if argument not in _VERBOSE]

    def task(cfg: DictConfig) -> None:
        jobs.run(cfg)

    task.__module__ = "__main__"
    task.jobs = jobs  # for a launcher that runs them elsewhere
    if is_swept():
        stop_with_sweep()
    status = 0
    try:
        arguments = before(arguments) if before else arguments
        # Hydra takes -m before all overrides only.
        sys.argv[1:] = quote_paths(sorted(arguments, key=lambda a: a not in _MULTIRUN))
        hydra.main(version_base="1.3", config_path=_CONF, config_name=config_name)(task)()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = STATUS_INTERRUPTED
    except UserError as error:  # of `before`; those of a job are told where it runs
        jobs.tell(error)
        status = STATUS_USER_ERROR
    except (HydraException, OmegaConfBaseException) as error:  # a key or a value of its grammar
        causes = [error, error.__cause__] if error.__cause__ else [error]
        print("\n".join(str(cause) for cause in causes), file=sys.stderr)
        status = STATUS_FAILED
    except JobFailedError as error:  # in another process, which has told more of it
        print(f"error: {error}", file=sys.stderr)
        status = STATUS_USER_ERROR if error.is_mistake else STATUS_FAILED
    except BrokenPipeError:  # who read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(STATUS_FAILED)
    except OSError as error:
        if jobs.is_running:
            raise
        jobs.tell(UserError(_cannot_write(error)))  # Hydra makes a job's directory before it starts
        status = STATUS_USER_ERROR
    jobs.tell_failures()
    sys.exit(status or jobs.status)


@dataclass
class _Jobs:
    """The jobs of one command, one after the other, and how they ended.

    A launcher may send it to another process, once a job. Nobody there asks how its jobs ended:
    then a failure is raised, for the launcher to hand back.
    """

    job: Job
    is_verbose: bool
    script: str = field(default_factory=lambda: sys.argv[0])
    directory: str = field(default_factory=os.getcwd)
    is_elsewhere: bool = False
    is_running: bool = False
    count: int = 0
    status: int = 0
    failures: list[str] = field(default_factory=list)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, is_elsewhere=True)

    def run(self, cfg: DictConfig) -> None:
        """Runs one.

        Raises:
            JobFailedError: If it failed, and this process is not the command's.
        """
        workdir = Path(HydraConfig.get().runtime.output_dir)
        is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        self.count += 1
        self.is_running = True
        if self.is_elsewhere:  # how and where that process was started says nothing of the job
            os.chdir(self.directory)
            sys.argv = [self.script, *HydraConfig.get().overrides.task]
        try:
            self.job(cfg, workdir)
        except UserError as error:
            self.tell(error)
            _remove_if_bare(workdir)
            self._fail(error, workdir, STATUS_USER_ERROR)
        except Exception as error:
            _remove_if_bare(workdir)
            if not is_sweep and not self.is_elsewhere:
                raise
            log.exception("this job failed; the sweep goes on")
            self._fail(error, workdir, STATUS_FAILED)
        except BaseException:
            _remove_if_bare(workdir)
            raise
        self.is_running = False

    def _fail(self, error: Exception, workdir: Path, status: int) -> None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if self.is_elsewhere:
            raise JobFailedError(reason, is_mistake=status == STATUS_USER_ERROR) from None
        self._note(workdir.name, HydraConfig.get().overrides.task, reason, status)

    def add(
        self, name: str, overrides: Sequence[str], failure: str | None, is_mistake: bool
    ) -> None:
        """Counts a job that ran in a process of its own.

        Args:
            name: Of its directory.
            overrides: What it ran with.
            failure: Why it failed; None if it did not.
            is_mistake: Whether that was the user's mistake.
        """
        self.count += 1
        if failure is not None:
            status = STATUS_USER_ERROR if is_mistake else STATUS_FAILED
            self._note(name, overrides, failure, status)

    def _note(self, name: str, overrides: Sequence[str], reason: str, status: int) -> None:
        self.failures.append(f"{name} ({' '.join(overrides)}): {reason}")
        # The user's mistakes alone make it the user's mistake.
        self.status = status if self.status in (0, status) else STATUS_FAILED

    def tell(self, error: UserError) -> None:
        if self.is_verbose:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)

    def tell_failures(self) -> None:
        """After a sweep, what failed: its own message may be hours above."""
        if self.failures and self.count > 1:
            listed = "\n".join(f"  {failure}" for failure in self.failures)
            print(f"{len(self.failures)} of {self.count} jobs failed:\n{listed}", file=sys.stderr)


def _cannot_write(error: OSError) -> str:
    return (
        f"Expected to write to {error.filename}. Received: {error.strerror}. "
        "Choose another directory with hydra.run.dir=DIR (with -m: hydra.sweep.dir=DIR)."
    )


def _remove_if_bare(workdir: Path) -> None:
    """Removes a directory in which Hydra alone has written: nothing half-written is left."""
    if HydraConfig.get().mode == RunMode.MULTIRUN or is_swept():
        return  # the sweep's other jobs are listed beside it; an empty one shows that it failed
    name = HydraConfig.get().job.name
    if workdir.is_dir() and {p.name for p in workdir.iterdir()} <= {".hydra", f"{name}.log"}:
        shutil.rmtree(workdir)
