"""`evaluate.py`: what a run is worth, measured on photos that it has not trained on."""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import DataConfig, EvaluateConfig, RuntimeConfig
from carcls.console import UNFOLDED, facts, progress_bar, table
from carcls.data.records import TrainingPhotos, examples, opened_in_part
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.evaluation import coarse_classes, hierarchy_text, pictures
from carcls.evaluation.coarse_classes import CoarseClasses, find_coarse_classes
from carcls.evaluation.metrics import NAMES, Metrics, measure, most_confused, shown_value
from carcls.evaluation.page import Content, Run, build_page
from carcls.evaluation.photos import PhotosToMeasure, ids_and_labels, photos_to_measure
from carcls.evaluation.robustness import area, measure_robustness, names_of, num_passes
from carcls.evaluation.sheets import SHEETS, write_sheets
from carcls.prediction.ensemble import Ensemble, load_predictor
from carcls.prediction.job import predict_photos
from carcls.prediction.members import run_dir
from carcls.prediction.predict import data_to_predict
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)

PER_CLASS, PREDICTIONS, CONFUSED = "per_class.csv", "predictions.csv", "confused.csv"
CONFUSION, RELIABILITY, WRONG = "confusion.png", "reliability.png", "wrong.png"
REPORT = "report.html"
ROBUSTNESS, ROBUSTNESS_PLOT = "robustness.csv", "robustness.png"
_PAIRS_SHOWN = 5
_OUTPUTS = (
    files.RUN, files.METRICS, PER_CLASS, PREDICTIONS, CONFUSED, CONFUSION, RELIABILITY, WRONG,
    REPORT, ROBUSTNESS, ROBUSTNESS_PLOT, *SHEETS, *coarse_classes.OUTPUTS,
)  # fmt: skip


@dataclass(kw_only=True)
class _Measured:
    """Photos and what was said of them.

    Attributes:
        table: id, path and label of `n` photos.
        probs: `(n, num_classes)`.
        facts: For `run.json`.
        unseen: Why the photos are new to the network, in a sentence.
    """

    table: pd.DataFrame
    probs: np.ndarray
    facts: dict[str, Any]
    unseen: str


def evaluate(config: EvaluateConfig, workdir: Path) -> dict[str, Any]:
    """Measures a run, or several as an ensemble, and writes all that follows into `workdir`.

    Returns:
        What `metrics.json` holds: top1, top5, nll, ece and others, `n`, and `intervals`.

    Raises:
        UserError: If a checkpoint or the data are not as they should be.
    """
    if not config.ckpt:
        raise UserError(
            "Expected ckpt=RUN, the directory of a trained run (or a .keras file). Received: none."
        )
    if (workdir / files.MODEL).is_file() or files.all_folds(workdir):
        raise UserError(
            "Expected a directory of its own for the evaluation. Received: "
            f"hydra.run.dir={files.shown(workdir)}, which holds a run. Leave it out: "
            f"{files.EVALUATION}/ in the run is the default."
        )
    predictor = load_predictor(config.ckpt, config.weights, is_calibrated=config.calibrated)
    members = predictor.members
    data, is_own = data_to_measure(members[0], config.data)
    data = coarse_classes.with_hierarchy_of(config, data)
    records, coarse = find_coarse_classes(config, data, read_training_photos(data), predictor)
    measured = _out_of_fold(config, records, predictor.class_names) if is_own else None
    if is_own and config.calibrated:
        log.warning(
            "WARNING: the temperature was fitted to these very photos: how well calibrated it "
            "is, others tell (data=folder data.root=DIR)."
        )
    if measured is None:
        where = str(data.root)
        trained = [*members, *(coarse.members if coarse else [])]
        measured = _predicted(predictor, photos_to_measure(records, trained, where), config, where)
    if coarse and coarse.network:
        ask = coarse.look_up if "out_of_fold" in measured.facts else coarse.predict
        is_told = ask(measured.table, predictor.class_names, config)
        table_of_photos = measured.table[is_told].reset_index(drop=True)
        measured = replace(measured, table=table_of_photos, probs=measured.probs[is_told])
    metrics, pairs, written = _tell(predictor, measured, config, data, workdir, coarse)
    log.info(_summary(workdir, metrics, pairs, written.get("robustness", {}), coarse))
    return written


def data_to_measure(member: Predictor, wanted: dict[str, Any] | None) -> tuple[DataConfig, bool]:
    """As `data_to_predict`; a network as ImageNet left it has no data of its own."""
    if member.model_path is None and (wanted or {}).get("name") is None:
        raise UserError(
            f"Expected data=OPTION with {member.name}, which has no run with data of its own: "
            "data=folder data.root=DIR, its folders called by ImageNet's synsets, indices or names."
            " Received: none."
        )
    return data_to_predict(member.info, wanted)


def evaluate_own(workdir: Path, records: TrainingPhotos) -> Path | None:
    """The report of a run that has just been trained, from what it said of its validation photos.

    Args:
        workdir: Of the run; its `evaluation/` receives what `evaluate` writes.
        records: Its photos.

    Returns:
        The report; None where no photo validated.
    """
    config = EvaluateConfig(ckpt=str(workdir), data=None, batch_size=1, runtime=RuntimeConfig())
    predictor = load_predictor(config.ckpt)
    names = predictor.class_names
    measured = _out_of_fold(config, records, names)
    if measured is None:
        path = workdir / files.VAL_PREDICTIONS
        if not path.is_file():
            return None
        unseen = "They validated: none has trained the network, but they chose the epoch."
        measured = _saved(path, records, names, unseen, {"as_trained": True})
    data, _ = data_to_predict(predictor.members[0].info, None)
    _, coarse = find_coarse_classes(config, data, records, predictor)
    folder = workdir / files.EVALUATION
    folder.mkdir(exist_ok=True)
    _tell(predictor, measured, config, data, folder, coarse)
    log.info(facts([("report", str(files.shown(folder / REPORT)))], UNFOLDED))
    return folder / REPORT


def _tell(
    predictor: Predictor | Ensemble,
    measured: _Measured,
    config: EvaluateConfig,
    data: DataConfig,
    workdir: Path,
    coarse: CoarseClasses | None,
) -> tuple[Metrics, pd.DataFrame, dict[str, Any]]:
    """Measures, and writes everything; returns the metrics, confused pairs and `metrics.json`."""
    members, names = predictor.members, predictor.class_names
    title = " + ".join(Path(ckpt).resolve().name for ckpt in config.ckpt)
    labels = measured.table.label.to_numpy()
    with progress_bar() as bar:  # a million photos take half a minute
        task = bar.add_task("measuring", total=config.resamples, note="resamples")
        metrics = measure(
            measured.probs, labels, names, seed=config.seed, resamples=config.resamples,
            progress=lambda: bar.advance(task),
        )  # fmt: skip
    pairs = most_confused(metrics, names)
    written = {
        **metrics.values, "n": metrics.n,
        "intervals": {name: list(ends) for name, ends in metrics.intervals.items()},
    }  # fmt: skip
    if coarse:
        written["hierarchy"] = coarse.measure(measured.probs, labels, names, metrics, config)
    worse = _robustness(predictor, measured.table, config, title)
    if worse is not None:
        written["robustness"] = _areas(worse)
    run_facts = {
        **files.describe_environment(), "ckpt": config.ckpt, "weights": predictor.shares,
        "tta": config.tta, "calibrated": config.calibrated, "data_root": str(data.root),
        "data_part": getattr(data, "part", None), **measured.facts,
    }  # fmt: skip
    if config.coarse_ckpt:
        run_facts["coarse_ckpt"] = config.coarse_ckpt
    _set_aside_other(workdir, run_facts)
    drawn = _write(workdir, metrics, pairs, measured, names, title)
    sheets, of_maps = write_sheets(
        workdir, predictor, measured.table, measured.probs, pairs, title=title, seed=config.seed,
        is_out_of_fold="out_of_fold" in measured.facts, machine=config.runtime,
    )  # fmt: skip
    drawn |= sheets
    run_facts["maps"] = of_maps
    if coarse:
        drawn |= coarse_classes.write(workdir, coarse.levels, title)
    if worse is not None:
        with files.replacing(workdir / ROBUSTNESS) as temporary:
            worse.to_csv(temporary, index=False)
        with files.replacing(workdir / ROBUSTNESS_PLOT) as temporary:
            pictures.draw_robustness(worse, title).savefig(temporary, format="png")
        drawn["robustness"] = (workdir / ROBUSTNESS_PLOT).read_bytes()
    content = Content(
        title=title,
        made=f"{datetime.now():%Y-%m-%d %H:%M}, {files.command_line()}",
        where=str(data.root),
        unseen=measured.unseen,
        runs=[_run_of(member) for member in members],
        metrics=metrics,
        pairs=pairs,
        pictures=drawn,
        of_maps=of_maps,
        next_commands=_next_commands(config, data),
        levels=coarse and coarse.levels,
    )
    files.write_text(workdir / REPORT, build_page(content))
    files.write_json(workdir / files.RUN, run_facts)
    files.write_json(workdir / files.METRICS, written)
    return metrics, pairs, written


def _set_aside_other(workdir: Path, run_facts: dict[str, Any]) -> None:
    """Moves away what was measured of other runs, photos or views; clears what is written anew."""
    before = files.read_json(workdir / files.RUN)
    same = ("weights", "tta", "calibrated", "data_root", "data_part", "coarse_ckpt")
    are_others = any(before.get(name) != run_facts.get(name) for name in same)
    was, now = ([Path(ckpt).resolve() for ckpt in f.get("ckpt", [])] for f in (before, run_facts))
    if before and (are_others or was != now):
        aside = files.set_aside(workdir, _OUTPUTS)
        log.info(f"{files.shown(workdir)} held another evaluation: it is in {files.shown(aside)}.")
    for name in (WRONG, ROBUSTNESS, ROBUSTNESS_PLOT, *SHEETS, *coarse_classes.OUTPUTS):
        (workdir / name).unlink(missing_ok=True)


def _out_of_fold(
    config: EvaluateConfig, records: TrainingPhotos, names: list[str]
) -> _Measured | None:
    """What the folds of one run said of the photos that they had not trained on, if it is that."""
    path = Path(config.ckpt[0]) / files.OOF_PREDICTIONS
    if len(config.ckpt) > 1 or not path.is_file():
        return None
    if config.tta != "none" or config.calibrated or config.robustness:
        raise UserError(
            "Expected no tta, calibrated or robustness with a run of several folds on its own "
            "photos, each of which only one fold has not trained on: what the folds saved is "
            f"measured. Received: tta={config.tta}, calibrated={str(config.calibrated).lower()}, "
            f"robustness=[{','.join(config.robustness)}]. Measure with other photos: data=folder "
            "data.root=DIR."
        )
    unseen = "Each was predicted by the one fold that has not trained on it."
    return _saved(path, records, names, unseen, {"out_of_fold": True})


def _saved(
    path: Path, records: TrainingPhotos, names: list[str], unseen: str, facts: dict[str, Any]
) -> _Measured:
    """What a run has saved of its validation photos, with where these are."""
    saved = pd.read_csv(path, dtype={"id": str, "label": str}, keep_default_na=False)
    paths = dict(zip(ids_and_labels(records), records.table.path, strict=True))
    found = pd.Series(
        [paths.get(key) for key in zip(saved.id, saved.label, strict=True)], dtype=str
    )
    is_there = found.notna()
    saved, found = (part[is_there].reset_index(drop=True) for part in (saved, found))
    if not is_there.all():
        log.warning(f"WARNING: {np.sum(~is_there)} photos are not there any more: left out.")
    index_of = {name: index for index, name in enumerate(names)}
    table = pd.DataFrame({"id": saved.id, "path": found, "label": saved.label.map(index_of)})
    probs = saved[[f"p_{name}" for name in names]].to_numpy(np.float32)
    return _Measured(table=table, probs=probs, facts=facts, unseen=unseen)


def _predicted(
    predictor: Predictor | Ensemble, photos: PhotosToMeasure, config: EvaluateConfig, where: str
) -> _Measured:
    """Predicts the photos, says what cannot be opened, and leaves it out."""
    say_photos(photos, where)
    predicted = predict_photos(predictor, photos.table.path.tolist(), config)
    ids = photos.table.id
    opens = np.setdiff1d(np.arange(len(photos.table)), list(predicted.errors))
    if not len(opens):
        raise UserError(
            f"Expected photos that can be opened. Received: {where}, none of whose "
            f"{len(photos.table)} can: {examples(list(predicted.errors.values()))}."
        )
    if predicted.notes:
        log.info(opened_in_part([ids.iloc[index] for index in sorted(predicted.notes)]))
    if predicted.errors:
        named = examples([ids.iloc[index] for index in sorted(predicted.errors)])
        log.warning(f"WARNING: {len(predicted.errors)} photos cannot be opened: {named}.")
    facts_of_photos = {
        "left_out_as_trained_on": photos.trained_on,
        "training_photos_unknown_of": photos.unknown,
        "not_opened": [
            {"id": ids.iloc[i], "reason": why} for i, why in sorted(predicted.errors.items())
        ],
        "notes": [{"id": ids.iloc[i], "note": note} for i, note in sorted(predicted.notes.items())],
    }
    table_of_photos = photos.table.iloc[opens].reset_index(drop=True)
    unseen = "None of them, and no byte-for-byte copy of one, has trained the network."
    if photos.unknown:
        unseen = f"It is not known which photos trained {examples(photos.unknown)}."
    return _Measured(
        table=table_of_photos,
        probs=predicted.probs[opens],
        facts=facts_of_photos,
        unseen=unseen,
    )


def say_photos(photos: PhotosToMeasure, where: str) -> None:
    log.info(f"{len(photos.table)} photos of {where} to measure with.")
    if photos.trained_on:
        log.info(
            f"{photos.trained_on} others trained the network, or are copies of photos that did: "
            "they are left out."
        )
    if photos.unknown:
        log.warning(
            f"WARNING: it is not known which photos trained {examples(photos.unknown)}: photos "
            "that did would be measured as if they were new."
        )


def _write(
    workdir: Path, metrics: Metrics, pairs: pd.DataFrame, measured: _Measured, names: list[str],
    title: str,
) -> dict[str, bytes]:  # fmt: skip
    """Writes tables and pictures; returns these, PNG files by name without its ending."""
    shown, probs = measured.table, measured.probs
    predicted = probs.argmax(1)
    of_names = np.array(names, object)
    predictions = pd.DataFrame(
        {"id": shown.id, "path": shown.path, "label": of_names[shown.label],
         "predicted": of_names[predicted]}
    )  # fmt: skip
    columns = pd.DataFrame(probs, columns=[f"p_{name}" for name in names])
    tables = {
        PREDICTIONS: pd.concat([predictions, columns], axis=1),
        PER_CLASS: metrics.per_class,
        CONFUSED: pairs,
    }
    for name, rows in tables.items():
        with files.replacing(workdir / name) as temporary:
            rows.to_csv(temporary, index=False)
    used = np.flatnonzero(metrics.per_class.photos + metrics.per_class.predicted)
    drawn = {
        CONFUSION: pictures.draw_confusion(
            metrics.confusion[np.ix_(used, used)], of_names[used].tolist(), title
        ),
        RELIABILITY: pictures.draw_reliability(metrics, title),
    }
    wrong = np.flatnonzero(predicted != shown.label.to_numpy())
    if len(wrong):
        surest = wrong[np.argsort(-probs[wrong].max(1), kind="stable")]
        drawn[WRONG] = pictures.draw_wrong(
            predictions.iloc[surest], probs.max(1)[surest], f"{title}: wrong, the surest first"
        )
    pngs = {}
    for name, figure in drawn.items():
        with files.replacing(workdir / name) as temporary:
            figure.savefig(temporary, format="png")
        pngs[Path(name).stem] = (workdir / name).read_bytes()
    return pngs


def _robustness(
    predictor: Predictor | Ensemble, photos: pd.DataFrame, config: EvaluateConfig, title: str
) -> pd.DataFrame | None:
    """How each checkpoint holds out, a row a severity; None if that was not asked for."""
    if not config.robustness:
        return None
    names = names_of(config.robustness)
    models = [(title, predictor)]
    if len(config.ckpt) > 1:
        models = [
            (Path(ckpt).name, load_predictor([ckpt], is_calibrated=config.calibrated))
            for ckpt in config.ckpt
        ]
    parts = []
    size = max(member.image_size for _, of_model in models for member in of_model.members)
    with progress_bar() as bar:
        total = len(models) * num_passes(names) * len(photos)
        task = bar.add_task("robustness", total=total, note=", ".join(config.robustness))
        for model, of_model in models:
            rows = measure_robustness(
                of_model,
                _labels_for(of_model, predictor, photos),
                names,
                size=size,
                seed=config.seed,
                tta=config.tta,
                batch_size=config.batch_size,
                progress=lambda count: bar.advance(task, count),
            )
            rows.insert(0, "model", model)
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _labels_for(
    one: Predictor | Ensemble, all_of_them: Predictor | Ensemble, photos: pd.DataFrame
) -> pd.DataFrame:
    """The photos with labels as one checkpoint counts its classes."""
    names = all_of_them.class_names
    return photos.assign(label=[one.class_names.index(names[label]) for label in photos.label])


def _areas(worse: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean accuracy over severities, by model and kind."""
    return {
        model: {kind: area(rows) for kind, rows in of_model.groupby("kind", sort=False)}
        for model, of_model in worse.groupby("model", sort=False)
    }


def _run_of(member: Predictor) -> Run:
    """What a network's run directory tells of it, where it lies in one."""
    info, directory = member.info, run_dir(member)
    curves, stages = None, []
    if directory is not None:
        stages = files.read_json(directory / files.METRICS).get("stages", [])
        path = directory / files.CURVES
        curves = path.read_bytes() if path.is_file() else None
    return Run(
        name=str(files.shown(Path(member.name))),
        trained=dict(zip(info.class_names, info.class_counts, strict=bool(info.class_counts))),
        stages=stages,
        curves=curves,
    )


def _next_commands(config: EvaluateConfig, data: DataConfig) -> list[str]:
    ckpts = ",".join(files.shell_quoted(Path(ckpt)) for ckpt in config.ckpt)
    ckpt = f"[{ckpts}]" if len(config.ckpt) > 1 else ckpts
    return [
        f"python predict.py ckpt={ckpt} images=PHOTO",
        f"python explore.py data={data.name} data.root={files.shell_quoted(Path(data.root))}",
        f"python evaluate.py ckpt={ckpt} data=folder data.root=OTHER",
    ]


def _summary(
    workdir: Path,
    metrics: Metrics,
    pairs: pd.DataFrame,
    areas: dict[str, dict[str, float]],
    coarse: CoarseClasses | None,
) -> str:
    rows = []
    for name, value in metrics.values.items():
        ends = metrics.intervals.get(name)
        between = " to ".join(shown_value(name, end) for end in ends) if ends else ""
        rows.append([NAMES[name], shown_value(name, value), between])
    text = f"\n{table(['', 'measured', '95 % interval'], rows)}\n"
    for pair in pairs.head(_PAIRS_SHOWN).itertuples():
        text += f"\n{pair.label} taken for {pair.predicted}: {pair.photos} ({pair.share:.0%})"
    if areas:
        kinds = list(next(iter(areas.values())))
        rows = [[model, *(f"{of[kind]:.1%}" for kind in kinds)] for model, of in areas.items()]
        text += f"\n\n{table(['mean accuracy over severities', *kinds], rows)}"
    if coarse:
        text += f"\n\n{hierarchy_text.summary(coarse.levels)}"
    places = [
        ("report", REPORT),
        ("each photo", PREDICTIONS), ("each class", PER_CLASS), ("pairs", CONFUSED),
        ("pictures", CONFUSION), ("", RELIABILITY), ("", WRONG), *(("", name) for name in SHEETS),
        ("", ROBUSTNESS_PLOT),
        ("coarse classes", coarse_classes.TABLE), ("", coarse_classes.PRECISION),
        ("numbers", files.METRICS),
    ]  # fmt: skip
    listed = [(what, str(files.shown(workdir / name))) for what, name in places
              if (workdir / name).is_file()]  # fmt: skip
    return f"{text}\n\n{facts(listed)}"
