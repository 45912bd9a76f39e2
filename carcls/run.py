"""A run directory: what is in it, and how it is written and read back. Imports no Keras.

model.keras           the kept weights, self-contained: `carcls.json` inside says the classes,
                      the image size and the resolved configuration
run.json              command, versions, data, device, wall time, and whatever was not as asked
metrics.json          val_accuracy, val_loss, seconds, stages
history.csv           a row an epoch
val_predictions.csv   a row a validation photo: id, label, prediction, probabilities
curves.png            loss and accuracy over all stages
stages/               while it is unfinished: what resuming needs, see training/generations.py

data.folds=5 leaves five of these, fold_1 to fold_5, and above them what they reach together:
oof_predictions.csv (out of fold: every photo once, by the network that has not trained on it), and
metrics.json, history.csv, curves.png and run.json of all. find_lr=true leaves lr_range.csv and
lr_range.png.
"""

import errno
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from carcls.errors import UserError

MODEL = "model.keras"
RUN = "run.json"
METRICS = "metrics.json"
HISTORY = "history.csv"
VAL_PREDICTIONS = "val_predictions.csv"
CURVES = "curves.png"
OOF_PREDICTIONS = "oof_predictions.csv"
LR_RANGE = "lr_range.csv"
LR_RANGE_PLOT = "lr_range.png"
PREDICTION = "prediction"  # the directory that predict.py writes to
EVALUATION = "evaluation"  # and that of evaluate.py
TENSORBOARD = "tensorboard"  # and that of runtime.tensorboard=true
STAGES = "stages"  # and that of the generations of an unfinished run

_METADATA = "carcls.json"  # the member of model.keras that is ours
_PACKAGES = ("carcls", "keras", "tensorflow", "jax", "torch", "albumentations", "numpy", "pillow")


@dataclass(kw_only=True)
class ModelInfo:
    """What it takes to predict with a model, apart from the model.

    Attributes:
        class_names: In the order of the model's outputs, as the data writes them.
        class_counts: Training photos of each class.
        image_size: Side of the input square in pixels.
        resize: How photos become squares, see `carcls.data.images.resize`.
        config: The run's resolved configuration.
    """

    class_names: list[str]
    class_counts: list[int]
    image_size: int
    resize: str
    config: dict[str, Any]


# What a training run leaves. Hydra has written its own for a new run already; the log goes on.
_OF_TRAINING = (
    MODEL, RUN, METRICS, HISTORY, VAL_PREDICTIONS, CURVES, PREDICTION, EVALUATION, TENSORBOARD,
    STAGES, OOF_PREDICTIONS, "fold_*", LR_RANGE, LR_RANGE_PLOT,
)  # fmt: skip


def set_aside(workdir: Path, names: Sequence[str] = _OF_TRAINING) -> Path | None:
    """Moves what an earlier run left in `workdir` into a directory of its own inside of it.

    Args:
        workdir: Where it lies.
        names: Of the files and directories that belong to it; a `*` stands for any text.

    Returns:
        That directory; None if there was no earlier run.
    """
    if not (workdir / RUN).is_file():
        return None
    number = 1
    while (workdir / f"earlier_{number}").exists():
        number += 1
    aside = workdir / f"earlier_{number}"
    aside.mkdir()
    for path in [path for name in names for path in workdir.glob(name)]:
        path.rename(aside / path.name)
    return aside


def fold_name(fold: int) -> str:
    """The directory of a fold, counted from 1, in the run of all folds."""
    return f"fold_{fold}"


def is_finished(workdir: Path) -> bool:
    """Whether the run in `workdir` came to its end, and left a model."""
    ended = read_json(workdir / RUN).get("status") in ("finished", "diverged")
    return ended and (workdir / MODEL).is_file() and (workdir / METRICS).is_file()


def all_folds(ckpt: str | Path) -> list[Path]:
    """The runs that `data.folds` has left or will leave in a directory, in order.

    None for anything else that `ckpt` may be, such as a single run.
    """
    with suppress(OSError, RuntimeError):  # a name that no file can have; a ~user there is not
        path = Path(ckpt).expanduser()
        if path.is_dir():
            return [path / name for name in read_json(path / RUN).get("folds", [])]
    return []


def finished_folds(ckpt: str | Path) -> list[Path]:
    """Those of `all_folds` that are finished: what such a directory predicts with."""
    return [path for path in all_folds(ckpt) if is_finished(path)]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; renamed to `path` if nothing went wrong, else removed.

    Raises:
        UserError: If the disk is full or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        temporary.replace(path)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error
    finally:
        with suppress(OSError):  # not there, or in a directory that is none
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> str:
    """Why a file of a run could not be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = ""
        with suppress(OSError):  # its directory may be gone
            free = f", {shutil.disk_usage(path.parent).free / 1e6:.0f} MB free there"
        return (
            f"Expected room to write {path}. Received: {error.strerror}{free}. What was written "
            "before is whole; free some space."
        )
    return (
        f"Expected to write {path}. Received: {error.strerror or error}. "
        "What was written before is whole; free some space or choose another place."
    )


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a whole JSON file or nothing."""
    text = json.dumps(values, indent=2, ensure_ascii=False, default=plain, allow_nan=False)
    write_text(path, text + "\n")


def plain(value: Any) -> Any:
    """What JSON cannot write, a number of NumPy or a path, as what it can; for `json.dumps`."""
    return value.item() if hasattr(value, "item") else str(value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run; an empty dict where there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"Expected JSON that a run wrote. Received: {path}: {error}. Remove or mend it."
        ) from error


def add_to_json(path: Path, **values: Any) -> None:
    """Adds to a JSON file of a run, or replaces what is there under the same names."""
    write_json(path, {**read_json(path), **values})


def describe_environment() -> dict[str, Any]:
    """Command, versions, machine and commit, for `run.json`."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": command_line(),
        "versions": versions,
        "platform": platform.platform(),
        "git_commit": _git_commit(),
    }


def command_line() -> str:
    """What this process was started with."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _git_commit() -> str | None:
    if commit := os.environ.get("CARCLS_COMMIT"):  # the image has no repository
        return commit
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def embed_model_info(keras_file: Path, info: ModelInfo) -> None:
    """Puts `info` into a `.keras` file, which is a zip archive that Keras reads by member name."""
    with zipfile.ZipFile(keras_file, "a") as archive:
        archive.writestr(_METADATA, json.dumps(asdict(info), ensure_ascii=False))


def find_model(ckpt: str | Path) -> Path:
    """The `.keras` file that `ckpt` means: a run directory's, or the file itself.

    Raises:
        UserError: If there is none.
    """
    path, exists = Path(ckpt), False
    with suppress(OSError, RuntimeError):  # a name that no file can have; a ~user there is not
        path = path.expanduser()
        exists = path.exists()
    expected = f"Expected ckpt to be a run directory with {MODEL} in it, or a .keras file."
    if not exists:
        raise UserError(f"{expected} Received: {path}, which does not exist.")
    model = path / MODEL if path.is_dir() else path
    if not model.is_file():
        holds = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
        state = f"holds {', '.join(holds[:5])}" if holds else "is empty"
        raise UserError(f"{expected} Received: {path}, which {state}.")
    return model


def directory_in_run(kind: str, ckpt: str | Sequence[str] | None) -> str:
    """Where a prediction goes by default: into the first checkpoint's run, else below outputs/.

    Args:
        kind: PREDICTION or EVALUATION.
        ckpt: As it was asked for.
    """
    first = ckpt if isinstance(ckpt, str) or not ckpt else ckpt[0]
    with suppress(OSError, RuntimeError):  # a name that no file can have is told later
        path = Path(str(first)).expanduser() if first else None
        if path is not None and path.exists():
            return str((path if path.is_dir() else path.parent) / kind)
    return f"outputs/{datetime.now():%Y-%m-%d_%H-%M-%S}_{kind}"


def read_model_info(model: Path) -> ModelInfo:
    """What `embed_model_info` put into a `.keras` file.

    Raises:
        UserError: If the file is no such checkpoint.
    """
    expected = f"Expected a checkpoint that train.py wrote. Received: {model}, "
    try:
        with zipfile.ZipFile(model) as archive:
            return ModelInfo(**json.loads(archive.read(_METADATA)))
    except zipfile.BadZipFile as error:
        raise UserError(f"{expected}which is not a .keras file or is damaged.") from error
    except KeyError as error:
        raise UserError(f"{expected}which does not say its classes ({_METADATA}).") from error
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{expected}which cannot be read: {error}.") from error


def shown(path: Path) -> Path:
    """A path as a person reads it: relative to here where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def shell_quoted(path: Path) -> str:
    """A path as one word of a shell's command line."""
    return shlex.quote(str(shown(path)))
