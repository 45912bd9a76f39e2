"""Predicting with a trained run, or with a network as ImageNet left it.

Keras is imported when all that can be wrong without it has been looked at: it takes seconds.
"""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carcls import run as files
from carcls import runtime
from carcls.catalogue import BACKBONES
from carcls.config import DataConfig, PredictConfig, to_data_config
from carcls.console import facts, progress_bar, table
from carcls.data.loader import Loader, Photos
from carcls.data.records import examples
from carcls.data.sources import read_test_photos
from carcls.errors import UserError
from carcls.models.probabilities import predict_probs
from carcls.prediction.photos import find_photos, likeliest
from carcls.prediction.submission import Submission, make_submission, write_submission

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

_PHOTOS_SHOWN = 20  # on the terminal; the CSV has all


@dataclass(kw_only=True)
class Predictor:
    """A model with what it takes to feed it and to read its answer."""

    model: keras.Model
    class_names: list[str]
    image_size: int
    resize: str

    def __call__(
        self, paths: list[str], batch_size: int, workers: int | None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """`(n, num_classes)` probabilities, and the reason for each photo that has none."""
        photos = Photos(paths, self.image_size, self.resize)
        loader = Loader(photos, np.arange(len(paths)), None, batch_size=batch_size, workers=workers)
        if not paths:
            return np.zeros((0, len(self.class_names)), np.float32), {}
        with progress_bar() as bar:
            task = bar.add_task("predicting", total=len(paths), note="")
            probs = predict_probs(self.model, loader, lambda count: bar.advance(task, count))
        return probs, photos.errors


def predict(config: PredictConfig, workdir: Path) -> None:
    """Writes a submission, or the likeliest classes of `config.images`, into `workdir`.

    Raises:
        UserError: If the checkpoint, the data or the photos are not as they should be.
    """
    if not config.ckpt:
        raise UserError(
            "Expected ckpt=RUN, the directory of a trained run (or a .keras file). Received: none."
        )
    output = Path(config.output or "file").expanduser()
    if config.output == "" or not output.name or output.is_dir():
        raise UserError(
            f"Expected output to be a file to write. Received: output={config.output}, "
            "which is no file name or is a directory."
        )
    pretrained = config.ckpt in BACKBONES and not Path(config.ckpt).exists()
    if pretrained:
        if config.images is None:
            raise UserError(
                f"Expected images=PATH with ckpt={config.ckpt}, which knows ImageNet's classes "
                "only. Received: none. For a submission, train a run first."
            )
        find_photos(config.images)  # its mistakes are told before the network is built
        _predict_photos(_pretrained_predictor(config), config, workdir)
        return
    model_path = files.find_model(config.ckpt)
    info = files.read_model_info(model_path)
    if config.images is not None:
        find_photos(config.images)
        _predict_photos(_run_predictor(model_path, info, config), config, workdir)
    else:
        _predict_submission(model_path, info, config, workdir)


def _run_predictor(model_path: Path, info: files.ModelInfo, config: PredictConfig) -> Predictor:
    import carcls.backend  # noqa: F401
    from carcls.models.classifier import load_classifier

    runtime.set_up(config.runtime, seed=0)
    return Predictor(
        model=load_classifier(model_path),
        class_names=info.class_names,
        image_size=info.image_size,
        resize=info.resize,
    )


def _pretrained_predictor(config: PredictConfig) -> Predictor:
    import carcls.backend  # noqa: F401
    from carcls.models.backbones import imagenet_classifier

    runtime.set_up(config.runtime, seed=0)
    source = package_files("carcls.models") / "imagenet_classes.csv"
    with source.open(encoding="utf-8", newline="") as file:
        class_names = [row["name"] for row in csv.DictReader(file)]
    return Predictor(
        model=imagenet_classifier(config.ckpt),
        class_names=class_names,
        image_size=BACKBONES[config.ckpt].default_size,
        resize="crop",  # ImageNet's networks are trained and measured on centre crops
    )


def _predict_photos(predictor: Predictor, config: PredictConfig, workdir: Path) -> None:
    paths = find_photos(config.images)
    probs, errors = predictor(paths, config.batch_size, config.runtime.workers)
    reasons = [f"{paths[i]} ({reason})" for i, reason in sorted(errors.items())]
    if len(reasons) == len(paths):
        raise UserError(f"Expected photos that can be opened. Received: {examples(reasons)}.")
    good = [i for i in range(len(paths)) if i not in errors]
    good_paths = [paths[i] for i in good]
    rows = likeliest(good_paths, probs[good], predictor.class_names, config.top)
    output = Path(config.output).expanduser() if config.output else workdir / "photos.csv"
    with files.replacing(output) as temporary:
        rows.to_csv(temporary, index=False)
    files.write_json(workdir / files.RUN, _run_facts(config) | {"not_opened": reasons})
    shown = rows[rows.path.isin(good_paths[:_PHOTOS_SHOWN])]
    log.info(
        table(
            ["photo", "rank", "class", "probability"],
            [
                [path if rank == 1 else "", str(rank), name, f"{probability:.1%}"]
                for path, rank, name, probability in shown.itertuples(index=False)
            ],
        )
    )
    if reasons:
        log.info(f"\n{len(reasons)} of {len(paths)} cannot be opened: {examples(reasons)}")
    more = f" (the first {_PHOTOS_SHOWN} are shown)" if len(good) > _PHOTOS_SHOWN else ""
    log.info(f"\n{len(good)} photos{more}; all of it in {files.shown(output)}")


def _predict_submission(
    model_path: Path, info: files.ModelInfo, config: PredictConfig, workdir: Path
) -> None:
    data, is_own = _data_to_predict(info, config)
    if is_own and data.name != "demo" and not Path(data.root).exists():
        raise UserError(
            f"Expected the data that the run was trained on in {data.root}. Received: no such "
            "directory. Say where it is now with data.root=DIR, or predict loose photos with "
            "images=PATH."
        )
    test = read_test_photos(data)
    predictor = _run_predictor(model_path, info, config)
    present = [i for i, path in enumerate(test.paths) if path is not None]
    paths = [test.paths[i] for i in present]
    probs, errors = predictor(paths, config.batch_size, config.runtime.workers)
    reason_of = dict.fromkeys(
        (test.ids[i] for i in set(range(len(test.ids))) - set(present)), "no photo of that Id"
    )
    reason_of |= {test.ids[present[row]]: reason for row, reason in errors.items()}
    probs_of = {test.ids[i]: probs[row] for row, i in enumerate(present) if row not in errors}
    submission = make_submission(
        test.ids, probs_of, reason_of, info.class_names, info.class_counts, test.columns
    )
    output = Path(config.output).expanduser() if config.output else workdir / "submission.csv"
    written = write_submission(submission, output)
    run_facts = _run_facts(config) | {
        "data_root": data.root,
        "rows": len(test.ids),
        "predicted": len(probs_of),
        "filled": [{"id": i, "reason": r} for i, r in submission.filled.itertuples(index=False)],
    }
    files.write_json(workdir / files.RUN, run_facts)
    _say_filled(submission, info, len(test.ids), written[-1])
    log.info(_what_was_written(written, submission))
    if test.truth is not None:
        _score(submission, test.truth, workdir, model_path.parent if is_own else None)


def _data_to_predict(info: files.ModelInfo, config: PredictConfig) -> tuple[DataConfig, bool]:
    """The data to predict, and whether it is what the run was trained on."""
    own = info.config["data"]
    changes = {key: value for key, value in (config.data or {}).items() if value is not None}
    if "name" in changes:  # data=OPTION: another source altogether
        return to_data_config(changes), False
    if own["name"] == "demo" and "root" in changes:  # other data than what would be drawn
        drawn = ("seed", "train_per_class", "test_per_class")
        own = {k: v for k, v in own.items() if k not in drawn} | {"name": "kaggle"}
    return to_data_config({**own, **changes}), "root" not in changes


def _run_facts(config: PredictConfig) -> dict[str, Any]:
    return {**files.describe_environment(), "ckpt": str(config.ckpt)}


def _say_filled(
    submission: Submission, info: files.ModelInfo, num_rows: int, listed_in: Path
) -> None:
    if not len(submission.filled):
        return
    fallback = info.class_names[int(np.argmax(info.class_counts))]
    reasons = submission.filled.reason.value_counts()
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.items())
    ids = examples(submission.filled.iloc[:, 0].tolist())
    log.warning(
        f"WARNING: {len(submission.filled)} of {num_rows} rows have no photo to predict from "
        f"and got the most frequent class, {fallback}: {counted}. "
        f"These are {ids}; all are listed in {files.shown(listed_in)}."
    )


def _what_was_written(written: list[Path], submission: Submission) -> str:
    names = ["submission", "probabilities", "filled rows"]
    category = submission.table.columns[1]
    counts = submission.table[category].value_counts()
    pairs = [(name, str(files.shown(path))) for name, path in zip(names, written, strict=False)]
    pairs.append(("rows", f"{len(submission.table)}, {len(submission.filled)} of them filled"))
    shares = [f"{name} ({count})" for name, count in counts.items()]
    pairs.append(("predicted", examples(shares, 12)))
    return facts(pairs)


def _score(
    submission: Submission, truth: dict[str, str], workdir: Path, own_run: Path | None
) -> None:
    """Says the true accuracy, and notes it here and, for a run's own data, in the run."""
    pairs = submission.table.itertuples(index=False)
    hits = [truth[photo_id] == category for photo_id, category in pairs if photo_id in truth]
    if not hits:
        return
    accuracy = float(np.mean(hits))
    for directory in {workdir, own_run} - {None}:
        files.add_to_json(directory / files.METRICS, test_accuracy=accuracy, n_test=len(hits))
    log.info(f"\ntest accuracy {accuracy:.2%} of {len(hits)} photos (their labels are known)")
