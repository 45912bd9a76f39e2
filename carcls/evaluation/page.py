"""The report: plain HTML with its pictures in it, to be read from top to bottom."""

from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from carcls import pages
from carcls.console import duration
from carcls.evaluation.hierarchy import Levels
from carcls.evaluation.hierarchy_text import errors_in_words, rows_of_answers, rows_of_differences
from carcls.evaluation.metrics import NAMES, Metrics, shown_value

_WEAK = 0.15  # recall so far below the mean is worth a look
_WIDE = 0.05  # half of an interval of the accuracy, above which more photos are the best advice
_UNCALIBRATED = 0.05


@dataclass(kw_only=True)
class Run:
    """A network that was measured, as its directory tells of it.

    Attributes:
        name: As it was asked for.
        trained: Photos of each class that trained it, by name.
        stages: `stages` of its metrics.json; empty where there is none.
        curves: The picture of its training, a PNG file; or None.
    """

    name: str
    trained: dict[str, int]
    stages: list[dict[str, Any]]
    curves: bytes | None


@dataclass(kw_only=True)
class Content:
    """All that the page tells.

    Attributes:
        title: The runs' names.
        made: When, and with which command.
        where: The place of the photos.
        unseen: Why they are new to the network, in a sentence.
        runs: At least one.
        pairs: See `most_confused`.
        pictures: PNG files: confusion, reliability and, if anything is wrong, wrong; with
            `robustness=` robustness and severities; with levels hierarchy_precision and
            hierarchy_confusion; and what `write_sheets` has drawn.
        of_maps: What is to be said of the maps, see `write_sheets`.
        next_commands: What to run then.
        levels: What coarse classes say; None where there are none.
    """

    title: str
    made: str
    where: str
    unseen: str
    runs: list[Run]
    metrics: Metrics
    pairs: pd.DataFrame
    pictures: dict[str, bytes]
    of_maps: str
    next_commands: list[str]
    levels: Levels | None = None


def build_page(content: Content) -> str:
    """The whole of it, as text."""
    sections = {
        "data": ("What it was measured with", _data(content)),
        "training": ("How training went", _training(content)),
        "good": ("How good it is", _good(content)),
        "fails": ("Where it fails", _fails(content)),
        "hierarchy": ("Coarse and fine classes", _hierarchy(content)),
        "robustness": ("How it holds out", _robustness(content)),
        "next": ("What to do next", _next(content)),
    }
    return pages.page(
        f"What {content.title} is worth",
        content.made,
        _headline(content),
        sections,
        "predictions.csv has a row for each photo, per_class.csv one for each class, confused.csv "
        "one for each pair, metrics.json the numbers.",
    )


def _headline(content: Content) -> str:
    metrics = content.metrics
    boxes = []
    for name in ("top1", "balanced_accuracy", "macro_f1", "nll", "ece"):
        ends = metrics.intervals.get(name)
        between = (
            f"<br>{shown_value(name, ends[0])} to {shown_value(name, ends[1])}" if ends else ""
        )
        value = shown_value(name, metrics.values[name])
        boxes.append(f"<div><b>{value}</b><span>{NAMES[name]}{between}</span></div>")
    boxes.append(f"<div><b>{metrics.n:,}</b><span>photos</span></div>")
    return f'<div class="facts">{"".join(boxes)}</div>'


def _data(content: Content) -> str:
    rows = []
    for name, photos in _used(content.metrics)[["class", "photos"]].itertuples(index=False):
        trained = [run.trained.get(name) for run in content.runs]
        counts = " / ".join("?" if count is None else f"{count:,}" for count in trained) or "?"
        rows.append([escape(name), counts, f"{photos:,}"])
    return (
        f"<p>Labelled photos of {escape(content.where)}. {escape(content.unseen)}</p>"
        + pages.table(["class", "trained on", "measured with"], rows)
    )


def _used(metrics: Metrics) -> pd.DataFrame:
    """The classes that have photos or were predicted; a network may know a thousand others."""
    return metrics.per_class[(metrics.per_class.photos + metrics.per_class.predicted) > 0]


def _training(content: Content) -> str:
    blocks = []
    for run in content.runs:
        if not run.stages and run.curves is None:
            continue
        rows = [
            [escape(stage["name"]), str(stage["epochs"] or "average"),
             _percent(stage["val_accuracy"]), duration(stage["seconds"])]
            for stage in run.stages
        ]  # fmt: skip
        block = f"<h3>{escape(run.name)}</h3>"
        if rows:
            block += pages.table(["stage", "epochs", "validation accuracy", "time"], rows)
        if run.curves is not None and sum(stage["epochs"] for stage in run.stages) > 1:
            block += pages.chart(run.curves, f"Accuracy and loss of {run.name} over its epochs")
        blocks.append(f'<div class="card">{block}</div>')
    return "".join(blocks)


def _good(content: Content) -> str:
    metrics = content.metrics
    rows = []
    for name, value in metrics.values.items():
        ends = metrics.intervals.get(name)
        between = f"{shown_value(name, ends[0])} to {shown_value(name, ends[1])}" if ends else ""
        rows.append([NAMES[name], shown_value(name, value), between])
    of_classes = [
        [escape(row[0]), f"{row.photos:,}", *map(_percent, (row.precision, row.recall, row.f1))]
        for row in _used(metrics).rename(columns={"class": "name"}).itertuples(index=False)
    ]
    return (
        pages.table(["", "measured", "95 % interval"], rows)
        + "<p>The interval is where the number would lie with other photos of the same kind, as "
        "many as these (bootstrap).</p><h3>Each class</h3>"
        "<p>Precision: of the photos taken for it, the share that is. Recall: of its photos, the "
        "share that was taken for it.</p>"
        + pages.table(["class", "photos", "precision", "recall", "F1"], of_classes)
        + "<h3>Labels and predictions</h3>"
        + pages.chart(content.pictures["confusion"], "Confusion matrix")
        + "<h3>Confidence</h3><p>Bars below the line: it is surer than it is right.</p>"
        + pages.chart(content.pictures["reliability"], "Reliability diagram")
    )


def _fails(content: Content) -> str:
    if not len(content.pairs):
        return "<p>Nowhere: every photo was told right.</p>" + _looked_at(content)
    rows = [
        [escape(pair.label), escape(pair.predicted), f"{pair.photos:,}", _percent(pair.share)]
        for pair in content.pairs.itertuples(index=False)
    ]
    text = "<h3>Classes that are confused</h3>" + pages.table(
        ["label", "taken for", "photos", "of the label's"], rows
    )
    drawn = content.pictures
    if "confused" in drawn:
        text += (
            "<p>On the left photos that were taken for another class, on the right what that class "
            "looks like; above each how sure it was.</p>"
            + pages.chart(drawn["confused"], "Photos of the classes most often confused")
        )
    if "wrong" in drawn:
        text += (
            "<h3>Wrong, the surest first</h3><p>What the network says, how sure it is, and the "
            "label. A wrong label is as likely here as a wrong prediction.</p>"
            + pages.chart(drawn["wrong"], "The photos it was surest about and wrong")
        )
    return text + _looked_at(content)


def _looked_at(content: Content) -> str:
    shown = {
        "attention_wrong": "What spoke for the wrong class and for the label, in each photo",
        "attention_right": "What spoke for the class in photos that were told right",
    }
    charts = [
        pages.chart(content.pictures[k], text) for k, text in shown.items() if k in content.pictures
    ]
    said = escape(content.of_maps)
    text = f"<p>{said}</p>" if said else ""
    if charts:
        text = (
            "<p>The brighter a place, the more it added to the score of the class that is named "
            "above it; both maps of a photo are of one scale, and what stays grey added nothing or "
            "spoke against the class. If the bright places lie beside the object, the network may "
            f'have learnt the background.</p><p class="muted">{said} Between places the colour is '
            "drawn smoothly: a map shows parts of a photo, no outlines, and it tells where, not "
            "what the network saw there. HiResCAM (Draelos and Carin, 2020), on the last feature "
            "map.</p>"
        )
    return f"<h3>What it looked at</h3>{text}{''.join(charts)}" if text else ""


def _hierarchy(content: Content) -> str:
    levels = content.levels
    if levels is None:
        return ""
    of_classes = levels.of_coarse["summed"][["class", "photos"]]
    precisions = [of_one.precision.map(_percent) for of_one in levels.of_coarse.values()]
    columns = [of_classes["class"].map(escape), of_classes.photos.map("{:,}".format), *precisions]
    names = {"rolled_up": "rolled up", "summed": "summed", "coarse": "coarse network"}
    inside = errors_in_words(levels)
    return (
        f"<p>Its {len(content.metrics.per_class)} classes lie in {len(levels.coarse_names)} coarse "
        f"ones. {inside}</p>"
        + pages.table(
            ["", "accuracy", "balanced accuracy", "F1", "mean precision", "NLL"],
            rows_of_answers(levels),
        )
        + "<h3>Precision of a coarse class</h3>"
        + pages.table(
            ["class", "photos", *(names[name] for name in levels.of_coarse)],
            [list(row) for row in zip(*columns, strict=True)],
        )
        + pages.chart(content.pictures["hierarchy_confusion"], "Confusion matrix of coarse classes")
        + "<h3>Precision of a fine class, against that of its coarse class</h3><p>Rolled-up: what "
        "the likeliest fine class says of the coarse one. Below zero: the fine class is the harder "
        "question. A cross: no photo was taken for the class. hierarchy.csv has the numbers.</p>"
        + pages.table(["difference", "mean", "95 % interval"], rows_of_differences(levels))
        + pages.chart(content.pictures["hierarchy_precision"], "Differences of precision")
    )


def _robustness(content: Content) -> str:
    if "robustness" not in content.pictures:
        return ""
    severities = content.pictures.get("severities")
    return (
        "<p>Accuracy and loss as photos get worse. Every network gets the very same pixels, "
        "resized to its own size; robustness.csv has the numbers.</p>"
        + pages.chart(content.pictures["robustness"], "Accuracy and NLL over severity")
        + (pages.chart(severities, "One photo at every severity") if severities else "")
    )


def advice(metrics: Metrics, pairs: pd.DataFrame) -> list[str]:
    """What the numbers suggest, in words, the most useful first."""
    found = []
    ends = metrics.intervals.get("top1")
    if ends and (ends[1] - ends[0]) / 2 > _WIDE:
        found.append(
            f"{metrics.n} photos tell the accuracy to ±{50 * (ends[1] - ends[0]):.0f} points: "
            "differences between runs below that mean nothing. Measure with more photos."
        )
    of_classes = metrics.per_class
    weak = of_classes[of_classes.recall < metrics.values["balanced_accuracy"] - _WEAK]
    if len(weak):
        named = weak.sort_values("recall").head(3)
        listed = ", ".join(f"{row[0]} ({row[4]:.0%})" for row in named.itertuples(index=False))
        found.append(f"Classes that are seldom recognised: {listed}. More photos of these first.")
    if len(pairs):
        pair = pairs.iloc[0]
        found.append(
            f"{pair.label} is taken for {pair.predicted} most often, {pair.photos} times. Look at "
            "their photos: are the labels right, and could a person tell them at this size? If so, "
            "a larger image_size may help."
        )
    rows = metrics.reliability
    gap = float((rows.photos * (rows.confidence - rows.accuracy)).sum() / rows.photos.sum())
    if metrics.values["ece"] > _UNCALIBRATED and abs(gap) > _UNCALIBRATED / 2:
        found.append(
            f"On average it is {abs(gap):.0%} {'surer' if gap > 0 else 'less sure'} than it is "
            "right: do not read its probabilities as chances."
        )
    return found


def _next(content: Content) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in advice(content.metrics, content.pairs))
    commands = escape("\n".join(content.next_commands))
    return (f"<ul>{items}</ul>" if items else "") + (f"<pre>{commands}</pre>" if commands else "")


def _percent(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.1%}"
