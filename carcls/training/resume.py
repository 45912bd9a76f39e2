"""Which run `resume=` means, and with which configuration it goes on. Imports no Keras."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf, open_dict

from carcls import run as files
from carcls.config import TrainConfig, to_config, to_plain, with_absolute_paths
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.quoting import quote_paths
from carcls.swept import is_swept
from carcls.training import generations
from carcls.training.refit import without_validation

_CONF = str(Path(__file__).parent.parent.parent / "conf")
_ASKS_ONLY = ("--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--version")
_ENDED = ("finished", "diverged")
# What a run may be gone on with differently: it changes nothing that is learnt, and the photos are
# compared with those that the run began with.
FREE = (
    "runtime.workers", "runtime.device", "runtime.devices", "runtime.tensorboard",
    "runtime.checkpoint_minutes",
    "data.cache_dir", "data.cache_limit", "resume",
)  # fmt: skip
MOVED = ("data.root", "data.csv", "data.test_csv")


class AlreadyFinishedError(Exception):
    """There is nothing to go on with. Its message says so.

    Args:
        run: The run directory.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(
            f"{files.shown(run)} is finished already, and stays as it is. Predict with: "
            f"python predict.py ckpt={files.shell_quoted(run)}"
        )
        self.run = run


def resuming(arguments: list[str]) -> list[str]:
    """The command line of a run that is gone on with, before Hydra makes a directory for it.

    Returns:
        The same where nothing is to be resumed; else with the run as `resume` and as
        `hydra.run.dir`, and without a word to Hydra's own record of how the run was started.

    Raises:
        UserError: If there is no such run, or it would become another one.
    """
    if any(argument in _ASKS_ONLY for argument in arguments):
        return arguments
    try:
        run = find_run(arguments)
    except AlreadyFinishedError as finished:
        print(finished)
        sys.exit(0)
    rest = [argument for argument in arguments if _key(argument) != "resume"]
    if run is None:
        return rest
    rest = [argument for argument in rest if _key(argument) != "hydra.run.dir"]
    return [*rest, f"resume={run}", f"hydra.run.dir={run}", "hydra.output_subdir=null"]


def find_run(arguments: Sequence[str]) -> Path | None:
    """The run that a command line goes on with; None to start one.

    Args:
        arguments: Overrides as the shell hands them over, `resume=` among them or not.

    Raises:
        UserError: If there is no such run, or it would become another one.
        AlreadyFinishedError: If it has nothing left to do.
    """
    wanted = _value(arguments, "resume")
    if wanted in (None, "", "null"):
        return None
    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise UserError(
            f"Expected resume without -m: it goes on with one run. Received: resume={wanted} -m. "
            "A sweep goes on by itself when its command is started again; one of its runs with "
            "resume=SWEEP/RUN."
        )
    rest = [argument for argument in arguments if _key(argument) != "resume"]
    if wanted == "auto":
        return _own_run(rest)
    run = Path(wanted).expanduser()
    if is_swept():  # whose sweep may have been killed a moment ago
        generations.wait_until_free(run)
    recorded = _recorded(run)
    if recorded is None:
        raise UserError(
            f"Expected resume to be a run directory with {files.RUN} in it, or auto. "
            f"Received: {run}, which {_state_of(run)}."
        )
    facts = files.read_json(run / files.RUN)
    status = facts.get("status")
    if facts.get("fold"):
        raise UserError(
            f"Expected resume to be a whole run. Received: {run}, which is fold {facts['fold']} of "
            f"one. Go on with: {how_to_go_on(run)}"
        )
    if status == "finished":
        raise AlreadyFinishedError(run)
    if status in _ENDED:
        raise UserError(
            f"Expected a run that can go on. Received: {files.shown(run)}, whose loss became NaN "
            "or infinite, and would again. Start a new one, with a lower optimizer.learning_rate."
        )
    elsewhere = _value(rest, "hydra.run.dir")
    if elsewhere is not None and Path(elsewhere).expanduser().absolute() != run.absolute():
        raise UserError(
            f"Expected no hydra.run.dir with resume={run}, which goes on inside of that directory. "
            f"Received: hydra.run.dir={elsewhere}. Leave it out."
        )
    _refuse_changes([a for a in rest if _key(a) != "hydra.run.dir"], recorded, run)
    return run


def with_recorded(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """The configuration of the run that `config.resume` names, for it to go on with.

    Args:
        config: What Hydra composed.
        overrides: The command line's; what may change, such as `runtime.workers`, is taken over.

    Raises:
        UserError: If the run's batches cannot be shared among as many devices as now.
    """
    recorded = _recorded(Path(config.resume))
    given = {_key(override) for override in overrides}
    for key in given.intersection((*FREE, *MOVED)):
        if "." in key:
            group, name = key.split(".")
            setattr(getattr(recorded, group), name, getattr(getattr(config, group), name))
    try:
        if recorded.runtime.devices != "all":
            recorded.check_devices(recorded.runtime.devices)
    except ValueError as error:
        raise UserError(str(error)) from error
    return replace(recorded, resume=config.resume)


def check_unchanged(workdir: Path, fingerprint: str) -> None:
    """Looks once more, when the photos are known and the directory is our own.

    Raises:
        UserError: If the photos are others than the run's, or another process has ended the run.
    """
    facts = files.read_json(workdir / files.RUN)
    if facts.get("status") in _ENDED:
        raise UserError(
            f"Expected a run that can go on. Received: {files.shown(workdir)}, which another "
            "process has finished meanwhile."
        )
    if facts.get("data_fingerprint", fingerprint) != fingerprint:
        raise UserError(
            f"Expected the photos that {files.shown(workdir)} was trained on so far (fingerprint "
            f"{facts['data_fingerprint']} in {files.RUN}). Received: fingerprint {fingerprint}: "
            "photos were added, removed, relabelled or changed. Put them back, or start a new run."
        )


def open_session(workdir: Path, state: dict[str, Any] | None, where: str) -> list[dict[str, Any]]:
    """The run's sessions, one for each process that has trained it, with ours as the last.

    Args:
        workdir: The run directory.
        state: Of the generation that is gone on from; it knows how long a session that was killed
            had lasted when it wrote it.
        where: What the session begins with, in words.
    """
    sessions = list(files.read_json(workdir / files.RUN).get("sessions", []))
    is_of_last = state is not None and state["session"] == len(sessions)
    if is_of_last and sessions[-1]["seconds"] is None:
        sessions[-1]["seconds"] = round(state["seconds"], 1)
    return [
        *sessions,
        {
            "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            "from": where,
            "command": files.command_line(),
            "seconds": None,  # until it ends; of a killed one what its last generation said
        },
    ]


def goes_on(config: TrainConfig, run: Path) -> bool:
    """Whether a run can go on in a directory: `config`'s own, begun and not ended.

    Args:
        config: Of the run that is to be trained there.
        run: Its directory, which need not exist.
    """
    has_ended = files.read_json(run / files.RUN).get("status") in _ENDED
    return not has_ended and is_run_of(config, run)


def is_run_of(config: TrainConfig, run: Path) -> bool:
    """Whether a directory holds a run of that configuration, but for what is the machine's.

    Args:
        config: As it would be trained.
        run: The directory, which need not exist.
    """
    recorded = _recorded(run)
    return recorded is not None and not _differences(_normal(config), recorded)


def how_to_go_on(workdir: Path) -> str:
    """The command that goes on with a run; with all folds, if it is one of them."""
    if files.read_json(workdir / files.RUN).get("fold"):
        workdir = workdir.parent
    return f"python train.py resume={files.shell_quoted(workdir)}"


@contextmanager
def telling_how_to_go_on(workdir: Path, close_session: Callable[[], list]) -> Iterator[None]:
    """Notes in `run.json` that the run failed, and adds to the message how to go on.

    Args:
        workdir: The run directory.
        close_session: Gives the sessions, ours among them with its end.
    """
    try:
        yield
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt)
        with suppress(UserError):  # the disk may be full
            status = "interrupted" if is_stopped else "failed"
            files.add_to_json(workdir / files.RUN, status=status, sessions=close_session())
        if isinstance(error, UserError):
            raise UserError(f"{error} Then go on with: {how_to_go_on(workdir)}") from error
        if not is_stopped:
            print(f"Go on with: {how_to_go_on(workdir)}", file=sys.stderr)
        raise


def _own_run(arguments: Sequence[str]) -> Path | None:
    """The newest unfinished run of the same command on the same photos."""
    config, run_dir = _composed(arguments)
    is_given = _value(arguments, "hydra.run.dir") is not None
    folders = [run_dir] if is_given else list(run_dir.parent.glob("*/"))
    for run in sorted(folders, key=_last_written, reverse=True):
        with suppress(UserError):  # a directory of something else
            recorded = _recorded(run)
            if recorded is None or _differences(config, recorded):
                continue
            facts = files.read_json(run / files.RUN)
            if facts.get("status") == "finished" and is_given:
                raise AlreadyFinishedError(run)
            if facts.get("status") in _ENDED:
                continue
            fingerprint = read_training_photos(config.data).fingerprint()
            if facts.get("data_fingerprint", fingerprint) == fingerprint:
                return run
            print(f"{files.shown(run)} is unfinished, but its photos have changed: a new run.")
    return None


def _last_written(run: Path) -> float:
    for name in (files.RUN, ".hydra/config.yaml"):
        if (run / name).is_file():
            return (run / name).stat().st_mtime
    return 0.0


def _recorded(run: Path) -> TrainConfig | None:
    """The resolved configuration of a run; None where there is no run.

    One that was killed before it had a run.json is known from what Hydra wrote first.
    """
    with suppress(OSError):  # a name that no file can have
        if values := files.read_json(run / files.RUN).get("config"):
            return to_config(OmegaConf.create(values))
        hydras = run / ".hydra"
        if not (hydras / "config.yaml").is_file() or not (hydras / "hydra.yaml").is_file():
            return None
        if OmegaConf.load(hydras / "hydra.yaml").hydra.job.name != "train":
            return None
        config = to_config(OmegaConf.load(hydras / "config.yaml"))
        with chdir(OmegaConf.load(hydras / "hydra.yaml").hydra.runtime.cwd):
            return _normal(config)
    return None


def _normal(config: TrainConfig) -> TrainConfig:
    """As a run records it, see `carcls.training.loop.train`."""
    config = replace(config, data=with_absolute_paths(config.data), resume=None)
    return without_validation(config)[0] if config.data.refit else config


def _state_of(run: Path) -> str:
    try:
        names = sorted(p.name for p in run.iterdir() if not p.name.startswith("."))
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"is {error.strerror}"
    return f"holds {', '.join(names[:5])}" if names else "is empty"


def _composed(arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """The configuration that a command line means, and the directory that its run would have."""
    with hydra.initialize_config_dir(_CONF, version_base="1.3"):
        cfg = hydra.compose("train", quote_paths(list(arguments)), return_hydra_config=True)
    run_dir = Path(cfg.hydra.run.dir)
    with open_dict(cfg):
        del cfg["hydra"]
    return _normal(to_config(cfg)), run_dir


def _refuse_changes(arguments: Sequence[str], recorded: TrainConfig, run: Path) -> None:
    given = [a for a in arguments if _key(a) not in (*FREE, *MOVED)]
    given = [a for a in given if not _key(a).startswith("hydra") and not a.startswith("-")]
    if not given:
        return
    differing = _differences(_composed(arguments)[0], recorded, (*FREE, *MOVED))
    values = _flat(to_plain(recorded))
    groups = {key.partition(".")[0] for key in values}
    refused = []
    for argument in given:
        key = _key(argument)
        its = [d for d in differing if d == key or d.startswith(f"{key}.")]
        if its or (differing and key.partition(".")[0] not in groups):
            has = f" (the run has {its[0]}={values.get(its[0])})" if its else ""
            refused.append(f"{argument}{has}")
    if refused:
        free = ", ".join(key for key in (*FREE, *MOVED) if key != "resume")
        raise UserError(
            f"Expected nothing with resume={run} that changes what is trained: it goes on as it "
            f"was started. Received: {', '.join(refused)}. Leave that out, or start a new run. "
            f"What may change is {free}."
        )


def _differences(one: TrainConfig, other: TrainConfig, free: Sequence[str] = FREE) -> list[str]:
    """Keys whose values differ, but for those that are free to."""
    first, second = _flat(to_plain(one)), _flat(to_plain(other))
    keys = dict.fromkeys((*first, *second))
    missing = object()
    return [
        key
        for key in keys
        if key not in free and first.get(key, missing) != second.get(key, missing)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to the values of a nested dict; the order of stages and steps counts too."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat[f"{prefix}{key}"] = list(value)
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _value(arguments: Sequence[str], key: str) -> str | None:
    """Of the last override of `key`, without quotes."""
    for argument in reversed(arguments):
        if _key(argument) == key and "=" in argument:
            value = argument.partition("=")[2]
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            return value[1:-1] if is_quoted else value
    return None
