"""What an evaluation leaves in its directory: numbers, tables, pictures and the report."""

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from carcls import run as files
from carcls.config import DataConfig, EvaluateConfig
from carcls.console import facts, progress_bar, table
from carcls.evaluation import coarse_classes, hierarchy_text, pictures
from carcls.evaluation.coarse_classes import CoarseClasses
from carcls.evaluation.measured_photos import MeasuredPhotos
from carcls.evaluation.metrics import NAMES, Metrics, measure, most_confused, shown_value
from carcls.evaluation.page import Content, Run, build_page
from carcls.evaluation.robustness import examples_of, kinds_of
from carcls.evaluation.robustness_of_runs import areas, compare_robustness
from carcls.evaluation.sheets import SHEETS, write_sheets
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.members import run_dir
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)

PER_CLASS, PREDICTIONS, CONFUSED = "per_class.csv", "predictions.csv", "confused.csv"
CLASSIFICATION = "classification_report.txt"  # scikit-learn's
CONFUSION, RELIABILITY, WRONG = "confusion.png", "reliability.png", "wrong.png"
REPORT = "report.html"
ROBUSTNESS, ROBUSTNESS_PLOT = "robustness.csv", "robustness.png"
EXAMPLES = "severities.png"
_PAIRS_SHOWN = 5
_OUTPUTS = (
    files.RUN, files.METRICS, PER_CLASS, CLASSIFICATION, PREDICTIONS, CONFUSED, CONFUSION,
    RELIABILITY, WRONG, REPORT, ROBUSTNESS, ROBUSTNESS_PLOT, EXAMPLES, *SHEETS,
    *coarse_classes.OUTPUTS,
)  # fmt: skip


def tell(
    predictor: Predictor | Ensemble | None,
    names: list[str],
    measured: MeasuredPhotos,
    config: EvaluateConfig,
    data: DataConfig | None,
    workdir: Path,
    coarse: CoarseClasses | None = None,
) -> tuple[Metrics, pd.DataFrame, dict[str, Any]]:
    """Measures what was said of photos, and writes everything that follows.

    Args:
        predictor: What said it; None where a file had it, as `config.predictions`.
        names: Of the classes, in the order of the probabilities.
        measured: The photos, and what was said.
        config: Of the evaluation.
        data: Where the photos come from, if that is known.
        workdir: Receives it all; an evaluation of something else that lies there is moved aside.
        coarse: What is to be said of coarse classes, if they have some.

    Returns:
        The metrics, the confused pairs, and what metrics.json holds.
    """
    members = predictor.members if predictor else []
    title = " + ".join(Path(ckpt).resolve().name for ckpt in config.ckpt or [config.predictions])
    where = config.predictions if data is None else str(data.root)
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
    worse = compare_robustness(predictor, measured.table, config, title) if predictor else None
    if worse is not None:
        written["robustness"] = areas(worse)
    run_facts = {
        **files.describe_environment(), "ckpt": config.ckpt, "predictions": config.predictions,
        "weights": predictor.shares if predictor else None,
        "tta": config.tta, "calibrated": config.calibrated, "data_root": where,
        "data_part": getattr(data, "part", None), **measured.facts,
    }  # fmt: skip
    if config.coarse_ckpt:
        run_facts["coarse_ckpt"] = config.coarse_ckpt
    _set_aside_other(workdir, run_facts)
    drawn = _write(workdir, predictor, metrics, pairs, measured, names, title)
    of_maps = ""
    if predictor:
        sheets, of_maps = write_sheets(
            workdir, predictor, measured.table, measured.probs, pairs, title=title,
            seed=config.seed, is_out_of_fold="out_of_fold" in measured.facts,
            machine=config.runtime,
        )  # fmt: skip
        drawn |= sheets
        run_facts["maps"] = of_maps
    if coarse:
        drawn |= coarse_classes.write(workdir, coarse.levels, title)
    if worse is not None:
        with files.replacing(workdir / ROBUSTNESS) as temporary:
            worse.to_csv(temporary, index=False)
        figure = pictures.draw_robustness(worse, title)
        drawn["robustness"] = figure.write(workdir / ROBUSTNESS_PLOT)
        first = members[0].info
        shown = examples_of(
            measured.table.path[0], first.image_size, first.resize, kinds_of(config.robustness),
            config.seed,
        )  # fmt: skip
        if all(steps for _, _, steps in shown):  # the photo is still there
            drawn["severities"] = pictures.draw_severities(shown).write(workdir / EXAMPLES)
    content = Content(
        title=title,
        made=f"{datetime.now():%Y-%m-%d %H:%M}, {files.command_line()}",
        where=where,
        unseen=measured.unseen,
        runs=[_run_of(member) for member in members],
        metrics=metrics,
        pairs=pairs,
        pictures=drawn,
        of_maps=of_maps,
        next_commands=_next_commands(config, data) if data else [],
        levels=coarse and coarse.levels,
    )
    files.write_text(workdir / REPORT, build_page(content))
    files.write_json(workdir / files.RUN, run_facts)
    files.write_json(workdir / files.METRICS, written)
    return metrics, pairs, written


def _set_aside_other(workdir: Path, run_facts: dict[str, Any]) -> None:
    """Moves away what was measured of other runs, photos or views; clears what is written anew."""
    before = files.read_json(workdir / files.RUN)
    same = ("predictions", "weights", "tta", "calibrated", "data_root", "data_part", "coarse_ckpt")
    are_others = any(before.get(name) != run_facts.get(name) for name in same)
    was, now = ([Path(ckpt).resolve() for ckpt in f.get("ckpt", [])] for f in (before, run_facts))
    if before and (are_others or was != now):
        aside = files.set_aside(workdir, _OUTPUTS)
        log.info(f"{files.shown(workdir)} held another evaluation: it is in {files.shown(aside)}.")
    for name in (WRONG, ROBUSTNESS, ROBUSTNESS_PLOT, EXAMPLES, *SHEETS, *coarse_classes.OUTPUTS):
        (workdir / name).unlink(missing_ok=True)


def _write(
    workdir: Path,
    predictor: Predictor | Ensemble | None,
    metrics: Metrics,
    pairs: pd.DataFrame,
    measured: MeasuredPhotos,
    names: list[str],
    title: str,
) -> dict[str, bytes]:
    """Writes tables and pictures; returns these, PNG files by name without its ending."""
    shown, probs = measured.table, measured.probs
    predicted = probs.argmax(1)
    of_names = np.array(names, object)
    predictions = pd.DataFrame(
        {"id": shown.id, "path": shown.path, "label": of_names[shown.label],
         "predicted": of_names[predicted]}
    )  # fmt: skip
    tables = {PER_CLASS: metrics.per_class, CONFUSED: pairs}
    if predictor:  # else they are in a file already
        columns = pd.DataFrame(probs, columns=[f"p_{name}" for name in names])
        tables[PREDICTIONS] = pd.concat([predictions, columns], axis=1)
    for name, rows in tables.items():
        with files.replacing(workdir / name) as temporary:
            rows.to_csv(temporary, index=False)
    used = np.flatnonzero(metrics.per_class.photos + metrics.per_class.predicted)
    report = classification_report(
        shown.label, predicted, labels=used, target_names=of_names[used].tolist(), digits=4,
        zero_division=0,
    )  # fmt: skip
    files.write_text(workdir / CLASSIFICATION, report)
    drawn = {
        CONFUSION: pictures.draw_confusion(
            metrics.confusion[np.ix_(used, used)], of_names[used].tolist(), title
        ),
        RELIABILITY: pictures.draw_reliability(metrics, title),
    }
    wrong = np.flatnonzero(predicted != shown.label.to_numpy())
    if len(wrong) and (shown.path != "").all():
        surest = wrong[np.argsort(-probs[wrong].max(1), kind="stable")]
        drawn[WRONG] = pictures.draw_wrong(
            predictions.iloc[surest], probs.max(1)[surest], f"{title}: wrong, the surest first"
        )
    return {Path(name).stem: figure.write(workdir / name) for name, figure in drawn.items()}


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


def summary(
    workdir: Path,
    metrics: Metrics,
    pairs: pd.DataFrame,
    of_severities: dict[str, dict[str, float]],
    coarse: CoarseClasses | None,
) -> str:
    """For the terminal: the numbers, the pairs, and where everything lies."""
    rows = []
    for name, value in metrics.values.items():
        ends = metrics.intervals.get(name)
        between = " to ".join(shown_value(name, end) for end in ends) if ends else ""
        rows.append([NAMES[name], shown_value(name, value), between])
    text = f"\n{table(['', 'measured', '95 % interval'], rows)}\n"
    for pair in pairs.head(_PAIRS_SHOWN).itertuples():
        text += f"\n{pair.label} taken for {pair.predicted}: {pair.photos} ({pair.share:.0%})"
    if of_severities:
        kinds = list(next(iter(of_severities.values())))
        rows = [
            [model, *(f"{of[kind]:.1%}" for kind in kinds)] for model, of in of_severities.items()
        ]
        text += f"\n\n{table(['mean accuracy over severities', *kinds], rows)}"
    if coarse:
        text += f"\n\n{hierarchy_text.summary(coarse.levels)}"
    places = [
        ("report", REPORT),
        ("each photo", PREDICTIONS), ("each class", PER_CLASS), ("", CLASSIFICATION),
        ("pairs", CONFUSED),
        ("pictures", CONFUSION), ("", RELIABILITY), ("", WRONG), *(("", name) for name in SHEETS),
        ("", ROBUSTNESS_PLOT), ("", EXAMPLES),
        ("coarse classes", coarse_classes.TABLE), ("", coarse_classes.PRECISION),
        ("numbers", files.METRICS),
    ]  # fmt: skip
    listed = [(what, str(files.shown(workdir / name))) for what, name in places
              if (workdir / name).is_file()]  # fmt: skip
    return f"{text}\n\n{facts(listed)}"
