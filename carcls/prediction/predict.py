"""Predicting with a trained run, with several, or with a network as ImageNet left it.

Keras is imported when all that can be wrong without it has been looked at: it takes seconds.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import DataConfig, PredictConfig, to_data_config
from carcls.console import facts
from carcls.data.records import examples, opened_in_part
from carcls.data.sources import read_test_photos
from carcls.errors import UserError
from carcls.prediction.classes import check_classes
from carcls.prediction.ensemble import Ensemble, load_predictor, names_of
from carcls.prediction.job import (
    describe_ensemble,
    predict_photos,
    run_facts_of,
    set_aside_other,
    write_metrics,
)
from carcls.prediction.loose_photos import predict_loose_photos
from carcls.prediction.members import different_data, run_dir
from carcls.prediction.predictor import Predictor
from carcls.prediction.submission import Submission, make_submission, write_submission

log = logging.getLogger(__name__)


def predict(config: PredictConfig, workdir: Path) -> pd.DataFrame:
    """Writes a submission, or the likeliest classes of `config.images`, into `workdir`.

    Returns:
        What it wrote: see `make_submission` and `likeliest`.

    Raises:
        UserError: If a checkpoint, the data or the photos are not as they should be.
    """
    _check_networks_asked(config)
    _check_outputs(config, workdir)
    changes = [name for name, value in (config.data or {}).items() if value is not None]
    if config.images is not None and changes:
        raise UserError(
            "Expected images=PATH, loose photos, or other data with data.…, but not both. "
            f"Received: images={config.images} and {', '.join(f'data.{n}' for n in changes)}."
        )
    if config.models:
        networks = {
            name: load_predictor([model], is_calibrated=config.calibrated)
            for name, model in zip(names_of(config.models), config.models, strict=True)
        }
        return predict_loose_photos(networks, config, workdir)
    predictor = load_predictor(config.ckpt, config.weights, is_calibrated=config.calibrated)
    if config.images is not None:
        return predict_loose_photos({"": predictor}, config, workdir)
    if predictor.members[0].model_path is None:
        raise UserError(
            f"Expected images=PATH with ckpt={predictor.members[0].name}, which knows ImageNet's "
            "classes only. Received: none. For a submission, train a run first."
        )
    return _predict_submission(predictor, config, workdir)


def _check_networks_asked(config: PredictConfig) -> None:
    """Either ckpt=, which answers as one, or models=, each on its own."""
    if config.ckpt and config.models:
        raise UserError(
            "Expected ckpt=, networks that answer as one, or models=, each on its own, but not "
            f"both. Received: ckpt=[{','.join(config.ckpt)}] and "
            f"models=[{','.join(config.models)}]."
        )
    if config.models and config.images is None:
        raise UserError(
            "Expected images=PATH with models=[…], which shows what each of them says of photos. "
            "Received: none. For a submission: ckpt=RUN."
        )
    if config.models and config.weights is not None:
        raise UserError(
            "Expected weights with an ensemble, ckpt=[RUN,RUN]. Received: weights with models=, "
            "each of which answers on its own."
        )
    if config.plot and config.images is None:
        raise UserError(
            "Expected images=PATH with plot=true, which draws photos with their likeliest classes. "
            "Received: none."
        )
    if not config.ckpt and not config.models:
        raise UserError(
            "Expected ckpt=RUN, the directory of a trained run (or a .keras file). Received: none."
        )


def _check_outputs(config: PredictConfig, workdir: Path) -> None:
    """Whether what will be written can have its place."""
    if config.output is not None:
        output = Path(config.output)
        wrong = "which is no file name or is a directory"
        try:
            is_file_name = bool(output.name) and not output.expanduser().is_dir()
        except (OSError, RuntimeError) as error:  # too long for a name; a ~user there is not
            is_file_name, wrong = False, getattr(error, "strerror", None) or str(error)
        if not is_file_name:
            raise UserError(
                f"Expected output to be a file to write. Received: output={config.output}, {wrong}."
            )
        kinds = [".csv"] if config.images is None else [".csv", ".json"]
        if output.suffix.lower() not in kinds:
            raise UserError(
                f"Expected output to end in {' or '.join(kinds)}, which is what is written. "
                f"Received: output={config.output}."
            )
    if (workdir / files.MODEL).is_file() or files.all_folds(workdir):
        raise UserError(
            "Expected a directory of its own for the prediction. Received: "
            f"hydra.run.dir={files.shown(workdir)}, which holds a run, whose {files.RUN} and "
            f"{files.METRICS} would be lost. Leave it out: {files.PREDICTION}/ in the run is the "
            "default."
        )


def _predict_submission(
    predictor: Predictor | Ensemble, config: PredictConfig, workdir: Path
) -> pd.DataFrame:
    first = predictor.members[0]
    info = first.info
    data, is_own = data_to_predict(info, config.data)
    if is_own and data.name != "demo" and not Path(data.root).exists():
        raise UserError(
            f"Expected the data that the run was trained on in {data.root}. Received: no such "
            "directory. Say where it is now with data.root=DIR, or predict loose photos with "
            "images=PATH."
        )
    test = read_test_photos(data)
    if not is_own:
        check_classes(data, info.class_names)
    metrics = describe_ensemble(predictor)
    roots = different_data(predictor.members) if is_own else []
    if roots:
        which = ", ".join(dict.fromkeys(roots))
        if len(set(roots)) == 1:
            which = f"other photos of {which} or with other labels"
        log.info(
            f"The runs were trained on different data ({which}); predicted is that of the first, "
            f"{data.root}.\n"
        )
    present = [i for i, path in enumerate(test.paths) if path is not None]
    predicted = predict_photos(predictor, [test.paths[i] for i in present], config)
    reason_of = dict(test.reasons)
    reason_of |= {test.ids[present[row]]: reason for row, reason in predicted.errors.items()}
    probs_of = {
        test.ids[i]: predicted.probs[row]
        for row, i in enumerate(present)
        if row not in predicted.errors
    }
    submission = make_submission(
        test.ids, probs_of, reason_of, info.class_names, info.class_counts, test.columns
    )
    set_aside_other(predictor.shares, config, workdir)
    output = Path(config.output).expanduser() if config.output else workdir / "submission.csv"
    written = write_submission(submission, output)
    notes = {test.ids[present[row]]: note for row, note in sorted(predicted.notes.items())}
    run_facts = run_facts_of(predictor.shares, config, notes) | {
        "data_root": data.root,
        "rows": len(test.ids),
        "predicted": len(probs_of),
        "filled": [{"id": i, "reason": r} for i, r in submission.filled.itertuples(index=False)],
    }
    files.write_json(workdir / files.RUN, run_facts)
    if notes:
        log.info(opened_in_part(list(notes)) + "\n")
    _say_filled(submission, info, len(test.ids), written[-1])
    log.info(_what_was_written(written, submission))
    scores = _score(submission, test.truth or {})
    write_metrics(workdir, metrics | scores)
    directory = run_dir(first)
    if scores and is_own and directory and len(predictor.members) == 1 and config.tta == "none":
        files.add_to_json(directory / files.METRICS, **scores)  # it is the run's own number
    return submission.table


def data_to_predict(
    info: files.ModelInfo, wanted: dict[str, Any] | None
) -> tuple[DataConfig, bool]:
    """The data that is meant, and whether it is what the run was trained on.

    Args:
        info: Of the run.
        wanted: What differs from its data; with `name` another source altogether.
    """
    changes = {key: value for key, value in (wanted or {}).items() if value is not None}
    if "name" in changes:  # data=OPTION: another source altogether
        return to_data_config(changes), False
    # Runs before 0.3 have a setting that there is no more, and that predicting never needed.
    own = {key: value for key, value in info.config["data"].items() if key != "memory_limit_gb"}
    if own["name"] == "demo" and "root" in changes:  # other data than what would be drawn
        drawn = ("seed", "train_per_class", "test_per_class")
        own = {k: v for k, v in own.items() if k not in drawn} | {"name": "kaggle"}
    csv_changes = {"csv", "test_csv"} & set(changes)
    if csv_changes and own.get("csv") and own["root"] == str(Path(own["csv"]).parent):
        own = {**own, "root": None}  # it followed from the run's CSV: now from the other one
    same_part = changes.get("part", own.get("part")) == own.get("part")  # of data=cifar
    is_own = not csv_changes and "root" not in changes and same_part
    return to_data_config({**own, **changes}), is_own


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


def _score(submission: Submission, truth: dict[str, str]) -> dict[str, Any]:
    """Says the true accuracy of the photos whose labels are known; returns it for `metrics.json`.

    Args:
        submission: What was predicted.
        truth: Label by id.
    """
    pairs = submission.table.itertuples(index=False)
    hits = [truth[photo_id] == category for photo_id, category in pairs if photo_id in truth]
    if not hits:
        return {}
    accuracy = float(np.mean(hits))
    log.info(f"\ntest accuracy {accuracy:.2%} of {len(hits)} photos (their labels are known)")
    return {"test_accuracy": accuracy, "n_test": len(hits)}
