"""The report: plain HTML with its pictures in it, to be read from top to bottom."""

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from carcls import exploration
from carcls.console import duration
from carcls.evaluation.metrics import NAMES, Metrics, shown_value

_ROWS = 200  # of a table; the CSV has all
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
            `robustness=` robustness; and what `write_sheets` has drawn.
        of_maps: What is to be said of the maps, see `write_sheets`.
        next_commands: What to run then.
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


def build_page(content: Content) -> str:
    """The whole of it, as text."""
    style = Path(exploration.__file__).with_name("page.css").read_text(encoding="utf-8")
    sections = {
        "data": ("What it was measured with", _data(content)),
        "training": ("How training went", _training(content)),
        "good": ("How good it is", _good(content)),
        "fails": ("Where it fails", _fails(content)),
        "robustness": ("How it holds out", _robustness(content)),
        "next": ("What to do next", _next(content)),
    }
    sections = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{inside}</section>\n'
        for key, (title, inside) in sections.items()
    )
    title = escape(content.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What {title} is worth</title>\n<style>\n{style}"
        "img.chart { max-width: 100%; border-radius: 12px; background: #fff; }\n"
        "img.chart + img.chart { margin-top: 16px; }\n"
        f'</style></head>\n<body>\n<header><h1>What {title} is worth</h1><p class="muted">'
        f"{escape(content.made)}</p>{_headline(content)}<nav>{links}</nav></header>\n"
        f"<main>\n{body}<footer>predictions.csv has a row for each photo, per_class.csv one for "
        "each class, confused.csv one for each pair, metrics.json the numbers.</footer></main>"
        "</body></html>\n"
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
        counts = " / ".join("?" if count is None else f"{count:,}" for count in trained)
        rows.append([escape(name), counts, f"{photos:,}"])
    return f"<p>Labelled photos of {escape(content.where)}. {escape(content.unseen)}</p>" + _table(
        ["class", "trained on", "measured with"], rows
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
            [escape(stage["name"]), str(stage["epochs"]), _percent(stage["val_accuracy"]),
             duration(stage["seconds"])]
            for stage in run.stages
        ]  # fmt: skip
        block = f"<h3>{escape(run.name)}</h3>"
        if rows:
            block += _table(["stage", "epochs", "validation accuracy", "time"], rows)
        if run.curves is not None and sum(stage["epochs"] for stage in run.stages) > 1:
            block += _chart(run.curves, f"Accuracy and loss of {run.name} over its epochs")
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
        _table(["", "measured", "95 % interval"], rows)
        + "<p>The interval is where the number would lie with other photos of the same kind, as "
        "many as these (bootstrap).</p><h3>Each class</h3>"
        "<p>Precision: of the photos taken for it, the share that is. Recall: of its photos, the "
        "share that was taken for it.</p>"
        + _table(["class", "photos", "precision", "recall", "F1"], of_classes)
        + "<h3>Labels and predictions</h3>"
        + _chart(content.pictures["confusion"], "Confusion matrix")
        + "<h3>Confidence</h3><p>Bars below the line: it is surer than it is right.</p>"
        + _chart(content.pictures["reliability"], "Reliability diagram")
    )


def _fails(content: Content) -> str:
    if not len(content.pairs):
        return "<p>Nowhere: every photo was told right.</p>" + _looked_at(content)
    rows = [
        [escape(pair.label), escape(pair.predicted), f"{pair.photos:,}", _percent(pair.share)]
        for pair in content.pairs.itertuples(index=False)
    ]
    return (
        "<h3>Classes that are confused</h3>"
        + _table(["label", "taken for", "photos", "of the label's"], rows)
        + "<p>On the left photos that were taken for another class, on the right what that class "
        "looks like; above each how sure it was.</p>"
        + _chart(content.pictures["confused"], "Photos of the classes most often confused")
        + "<h3>Wrong, the surest first</h3><p>What the network says, how sure it is, and the "
        "label. A wrong label is as likely here as a wrong prediction.</p>"
        + _chart(content.pictures["wrong"], "The photos it was surest about and wrong")
        + _looked_at(content)
    )


def _looked_at(content: Content) -> str:
    shown = {
        "attention_wrong": "What spoke for the wrong class and for the label, in each photo",
        "attention_right": "What spoke for the class in photos that were told right",
    }
    charts = [
        _chart(content.pictures[k], text) for k, text in shown.items() if k in content.pictures
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


def _robustness(content: Content) -> str:
    if "robustness" not in content.pictures:
        return ""
    return (
        "<p>Accuracy and loss as photos get worse. Every network gets the very same pixels, "
        "resized to its own size; robustness.csv has the numbers.</p>"
        + _chart(content.pictures["robustness"], "Accuracy and NLL over severity")
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
    return (f"<ul>{items}</ul>" if items else "") + f"<pre>{commands}</pre>"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML; all but the first are numbers, set to the right."""
    kind = ["", *[' class="n"'] * (len(columns) - 1)]
    head = "".join(f"<th{k}>{name}</th>" for k, name in zip(kind, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True)) + "</tr>"
        for row in rows[:_ROWS]
    )
    more = f'<p class="muted">And {len(rows) - _ROWS:,} more.</p>' if len(rows) > _ROWS else ""
    return f'<div class="card scroll"><table><tr>{head}</tr>{body}</table></div>{more}'


def _chart(png: bytes, about: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img class="chart" alt="{escape(about)}" src="data:image/png;base64,{data}">'


def _percent(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.1%}"
