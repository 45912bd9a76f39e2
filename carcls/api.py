"""What the entry points do, from Python: `from carcls import train, predict, load_run`.

The same configuration under conf/ is composed and checked, so a run is the same whoever started it.
A user's mistake raises `carcls.errors.UserError` with the message that the command line prints.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from carcls import run as files
from carcls.config import TrainConfig, to_config, to_predict_config
from carcls.errors import UserError
from carcls.quoting import quoted
from carcls.trained_run import Run

_CONF = str(Path(__file__).parent.parent / "conf")


def train(
    root: str | Path | None = None,
    *,
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **choices: Any,
) -> Run:
    """Trains as `python train.py` does.

    `train("photos", data="folder", backbone="efficientnetlite0", finetune="frozen",
    settings={"finetune.stages.head.epochs": 3})`

    Args:
        root: Where the photos are, `data.root`.
        workdir: Where the run goes; None: `outputs/<date>_<time>_<backbone>_<finetune>`.
        settings: Any value of the configuration by its dotted name; `"~finetune.stages.NAME": None`
            drops a stage.
        quiet: Print nothing.
        **choices: An option a group (`backbone=`, `head=`, `augmentation=`, `finetune=`,
            `optimizer=`, `schedule=`, `data=`, `experiment=`), `image_size=`, `batch_size=`,
            `seed=`; `resume=`: a run to go on with, or `auto`: this one's own, if it is unfinished.

    Returns:
        The run, also when Ctrl-C has cut it short. With `settings={"data.folds": 5}` that of all
        folds, which predicts as their ensemble; with `{"find_lr": True}` one without a network,
        whose directory has `lr_range.csv`.

    Raises:
        UserError: If the configuration or the data is not as it should be, or the loss became NaN
            or infinite; what was kept before that is in the run's directory.
    """
    values = {**choices, **(settings or {})}
    if root is not None:
        values["data.root"] = str(root)
    if values.get("resume"):
        return _resumed(values, workdir, quiet)
    config = to_config(_composed("train", values))
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.backbone.name}_{config.finetune.name}"
    path = Path("outputs", name) if workdir is None else Path(workdir).expanduser()
    return _trained(config, path, quiet)


def _resumed(values: dict[str, Any], workdir: str | Path | None, quiet: bool) -> Run:
    """`train` where there is a run to go on with, or may be."""
    from carcls.training.resume import AlreadyFinishedError, find_run, with_recorded

    overrides = _overrides(values)
    if workdir is not None:
        overrides.append(f"hydra.run.dir={quoted(str(workdir))}")
    try:
        path = find_run(overrides)
    except AlreadyFinishedError as finished:
        return load_run(finished.run)
    if path is None:
        return train(workdir=workdir, settings=values | {"resume": None}, quiet=quiet)
    config = replace(to_config(_composed("train", values)), resume=str(path))
    return _trained(with_recorded(config, overrides), path, quiet)


def _trained(config: TrainConfig, path: Path, quiet: bool) -> Run:
    with _said(path / "train.log", quiet):
        from carcls.training.inputs import prepare_inputs

        inputs = prepare_inputs(config)  # its mistakes are told before Keras loads
        from carcls.training.jobs import run_job

        outcome = run_job(config, path, inputs)
    if outcome.divergence:  # `load_run` gives what was kept before
        raise UserError(outcome.divergence)
    return Run(path) if config.find_lr else load_run(path)  # the first leaves no network


def load_run(path: str | Path) -> Run:
    """A run that was trained before, here or from the command line.

    Raises:
        UserError: If there is none in that directory.
    """
    if files.finished_folds(path):
        return Run(Path(path).expanduser())
    model = files.find_model(path)
    files.read_model_info(model)
    return Run(model.parent)


def predict(
    ckpt: Run | str | Path | Sequence[Run | str | Path],
    *,
    root: str | Path | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    weights: Sequence[float] | None = None,
    tta: str = "none",
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **choices: Any,
) -> pd.DataFrame:
    """Predicts as `python predict.py` does, and leaves the same files.

    Args:
        ckpt: A run, its directory or a `.keras` file; a list of them: an ensemble.
        root: Where the data to predict is; None: the data that the run was trained on.
        images: Loose photos instead: a file, a folder, a glob or a list of them.
        weights: What each of several runs counts.
        tta: `none`, `flip` or `flip+scale`.
        workdir: Where the files go; None: `prediction/` in the first run.
        settings: Any other value by its dotted name.
        quiet: Print nothing.
        **choices: `data=`, `output=`, `top=`, `batch_size=`.

    Returns:
        The submission: id and category, in the sample's order; with `images`, a row for each of
        the likeliest classes of each photo: path, rank, class, probability, error.

    Raises:
        UserError: If a checkpoint, the data or the photos are not as they should be.
    """
    members = list(ckpt) if isinstance(ckpt, list | tuple) else [ckpt]
    ckpts = [str(member.path if isinstance(member, Run) else member) for member in members]
    values = {**choices, **(settings or {}), "ckpt": ckpts, "tta": tta}
    if root is not None:
        values["data.root"] = str(root)
    if images is not None:
        is_one = isinstance(images, str | Path)
        values["images"] = str(images) if is_one else [str(image) for image in images]
    if weights is not None:
        values["weights"] = list(weights)
    config = to_predict_config(_composed("predict", values))
    path = (
        Path(files.directory_in_run(files.PREDICTION, ckpts))
        if workdir is None
        else Path(workdir).expanduser()
    )
    from carcls.prediction import predict as prediction

    with _said(path / "predict.log", quiet):
        return prediction.predict(config, path)


def _composed(name: str, values: Mapping[str, Any]) -> DictConfig:
    """The configuration that the command line would compose.

    Raises:
        UserError: If a key or an option does not exist.
    """
    try:
        with hydra.initialize_config_dir(_CONF, version_base="1.3"):
            return hydra.compose(name, _overrides(values))
    except (HydraException, OmegaConfBaseException) as error:
        causes = [error, error.__cause__] if error.__cause__ else [error]
        raise UserError("\n".join(map(str, causes))) from error


def _overrides(values: Mapping[str, Any]) -> list[str]:
    """Values by their dotted names, as the command line has them."""
    return [
        key if key.startswith("~") else f"{key}={_override(value)}" for key, value in values.items()
    ]


def _override(value: Any) -> str:
    """A value as Hydra's grammar has it."""
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_override(item) for item in value) + "]"
    return quoted(str(value))


@contextmanager
def _said(logfile: Path, quiet: bool) -> Iterator[None]:
    """Writes what the run says to its log and, unless `quiet`, prints it."""
    logger = logging.getLogger("carcls")
    handlers: list[logging.Handler] = [_LateFileHandler(logfile)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if not quiet:
        handlers.append(logging.StreamHandler(sys.stdout))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # else a notebook with a handler of its own says all of it again
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


class _LateFileHandler(logging.FileHandler):
    """A log file that is made, with its directory, when there is something to write to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True, encoding="utf-8")

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()
