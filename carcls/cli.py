"""What the entry points share: paths past Hydra's grammar, one message for a user's mistake.

Imports neither Keras nor pandas, so that `--help` answers at once.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from carcls.errors import UserError

STATUS_USER_ERROR = 2
STATUS_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_PATH_KEYS = frozenset(
    (
        "ckpt",
        "images",
        "output",
        "data.root",
        "data.cache_dir",
        "backbone.weights",
        "hydra.run.dir",
        "hydra.sweep.dir",
    )
)
_CONF = str(Path(__file__).parent.parent / "conf")


def run_app(config_name: str, job: Callable[[DictConfig, Path], None]) -> None:
    """Composes conf/<config_name>.yaml with the command line, runs `job(cfg, workdir)`, exits.

    A UserError is told in one message and ends this job only, so that a sweep goes on; the exit
    status is 2 then, and 130 after Ctrl-C.
    """
    failures: list[Exception] = []
    started: list[Path] = []

    def task(cfg: DictConfig) -> None:
        workdir = Path(HydraConfig.get().runtime.output_dir)
        started.append(workdir)
        try:
            job(cfg, workdir)
        except UserError as error:
            failures.append(error)
            print(f"error: {error}", file=sys.stderr)
            _remove_if_bare(workdir)
        except BaseException:
            _remove_if_bare(workdir)
            raise

    os.environ["HYDRA_FULL_ERROR"] = "1"  # leaves exceptions to us
    sys.argv[1:] = quote_paths(sys.argv[1:])
    task.__module__ = "__main__"
    try:
        hydra.main(version_base="1.3", config_path=_CONF, config_name=config_name)(task)()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STATUS_INTERRUPTED)
    except (HydraException, OmegaConfBaseException) as error:  # a key or a value of its grammar
        causes = [error, error.__cause__] if error.__cause__ else [error]
        print("\n".join(str(cause) for cause in causes), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if started:
            raise
        failures.append(error)  # Hydra makes the output directory before the job starts
        print(
            f"error: Expected to write to {error.filename}. Received: {error.strerror}. "
            "Choose another directory with hydra.run.dir=DIR (with -m: hydra.sweep.dir=DIR).",
            file=sys.stderr,
        )
    if failures:
        sys.exit(STATUS_USER_ERROR)


def quote_paths(arguments: list[str]) -> list[str]:
    """Quotes path-valued arguments, so that what the shell hands over is what is opened.

    Hydra's grammar refuses ordinary file names (spaces at the end, `=`, brackets, Cyrillic, `~`).
    Left as they are: values that are quoted already, lists `[a,b]` and, with -m, comma-separated
    choices, unless a file of that very name exists; and null.
    """
    is_sweep = any(argument in ("-m", "--multirun") for argument in arguments)
    return [_quoted(argument, is_sweep) for argument in arguments]


def _quoted(argument: str, is_sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in _PATH_KEYS or not value or value == "null":
        return argument
    is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    is_list = value.startswith("[") and value.endswith("]")
    is_choice = is_sweep and ("," in value or value.startswith(("glob(", "choice(")))
    if (is_quoted or is_list or is_choice) and not _exists(value):
        return argument
    # Inside of Hydra's quotes a backslash counts only before a quote, and at the end.
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    if not key.startswith("hydra."):
        value = value.replace("${", "\\${")  # a file's name, not an interpolation
    return f"{key}='{value}'"


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except OSError:  # too long for a path
        return False


def _remove_if_bare(workdir: Path) -> None:
    """Removes a directory in which Hydra alone has written: nothing half-written is left."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return  # the sweep's other jobs are listed beside it; an empty one shows that it failed
    name = HydraConfig.get().job.name
    if workdir.is_dir() and {p.name for p in workdir.iterdir()} <= {".hydra", f"{name}.log"}:
        shutil.rmtree(workdir)
