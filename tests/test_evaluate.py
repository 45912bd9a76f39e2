"""evaluate.py: which photos it measures with, and that its numbers are those of its predictions."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sklearn

from carcls.config import to_config, to_evaluate_config
from carcls.errors import UserError
from carcls.evaluation.evaluate import evaluate, evaluate_own
from carcls.evaluation.metrics import measure, most_confused
from carcls.evaluation.page import advice
from carcls.training.inputs import prepare_inputs
from carcls.training.jobs import run_job
from tests.conftest import COLOURS, draw_competition, draw_photo, use_tiny_backbone, write_csv
from tests.test_config import as_composed, composed

QUICK = (
    "backbone=efficientnetlite0", "image_size=32", "batch_size=4", "runtime.eager=true",
    "runtime.workers=0", "finetune=frozen", "finetune.stages.head.epochs=2", "head=linear",
    "runtime.preflight=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with data/, a run, and one of two folds."""
    folder = tmp_path_factory.mktemp("runs")
    root = draw_competition(folder / "data", per_class=8)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        for name, overrides in (("run", ()), ("folds", ("data.folds=2",))):
            config = to_config(composed(f"data.root='{root}'", *QUICK, *overrides))
            run_job(config, folder / name, prepare_inputs(config))
    return folder


def evaluated(workdir, *overrides: str) -> dict:
    config = as_composed("resamples=50", *overrides, name="evaluate")
    workdir.mkdir(exist_ok=True)
    return evaluate(to_evaluate_config(config), workdir)


@pytest.fixture(scope="module")
def own(runs, tmp_path_factory):
    """The run, measured with its own data: (metrics, where)."""
    workdir = tmp_path_factory.mktemp("own")
    for name in ("wrong.png", "confused.png", "attention_wrong.png", "attention_right.png"):
        (workdir / name).write_text("of an evaluation before")
    return evaluated(workdir, f"ckpt='{runs / 'run'}'"), workdir


def test_a_run_is_measured_with_the_photos_it_was_validated_with(own, runs):
    metrics, workdir = own
    saved = pd.read_csv(runs / "run" / "val_predictions.csv", dtype={"id": str})
    found = pd.read_csv(workdir / "predictions.csv", dtype={"id": str})
    assert sorted(found.id) == sorted(saved.id)
    of_run = json.loads((runs / "run" / "metrics.json").read_text())
    assert metrics["n"] == of_run["n_val"] == 6
    assert metrics["top1"] == pytest.approx(of_run["val_accuracy"])
    assert metrics["nll"] == pytest.approx(of_run["val_nll"], abs=1e-5)
    assert json.loads((workdir / "run.json").read_text())["left_out_as_trained_on"] == 18


def test_the_numbers_are_those_of_the_saved_predictions(own):
    metrics, workdir = own
    rows = pd.read_csv(workdir / "predictions.csv")
    assert metrics["top1"] == pytest.approx(np.mean(rows.label == rows.predicted))
    expected = sklearn.f1_score(rows.label, rows.predicted, average="macro", zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(expected)
    low, high = metrics["intervals"]["top1"]
    assert 0 <= low <= metrics["top1"] <= high <= 1
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
    report = sklearn.classification_report(
        rows.label, rows.predicted, digits=4, zero_division=0, output_dict=True
    )
    text = (workdir / "classification_report.txt").read_text()
    (macro,) = re.findall(r"macro avg +([\d.]+) +([\d.]+) +([\d.]+) +6", text)
    for found, name in zip(macro, ("precision", "recall", "f1-score"), strict=True):
        assert float(found) == pytest.approx(report["macro avg"][name], abs=1e-4)
    of_classes = pd.read_csv(workdir / "per_class.csv", dtype={"class": str})
    assert of_classes["class"].tolist() == ["007", "12", "red, wide"]
    assert of_classes.photos.sum() == 6
    wrong = rows[rows.label != rows.predicted]
    assert pd.read_csv(workdir / "confused.csv").photos.sum() == len(wrong)


def test_the_pictures_are_there_and_the_sheets_only_when_there_is_what_they_show(own):
    metrics, workdir = own
    drawn = {path.name for path in workdir.glob("*.png")}
    expected = {"confusion.png", "reliability.png"}
    if metrics["top1"] < 1:
        expected |= {"wrong.png", "confused.png", "attention_wrong.png"}
    if metrics["top1"] > 0:
        expected |= {"attention_right.png"}
    assert drawn == expected
    for name in drawn:
        assert np.asarray(Image.open(workdir / name).convert("L")).std() > 10


def test_the_report_stands_alone_and_tells_the_same_numbers(own, runs):
    metrics, workdir = own
    html = (workdir / "report.html").read_text()
    assert f"<b>{metrics['top1']:.2%}</b><span>accuracy<br>" in html
    low, high = metrics["intervals"]["top1"]
    assert f"{low:.2%} to {high:.2%}" in html
    assert "red, wide" in html
    assert f"Labelled photos of {runs / 'data'}." in html
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "What it was measured with", "How training went", "How good it is", "Where it fails",
        "What to do next",
    ]  # fmt: skip
    sources = re.findall(r'src="(.{22})', html)
    assert len(sources) == 3 + 3 * (metrics["top1"] < 1) + (metrics["top1"] > 0)
    assert "<h3>What it looked at</h3>" in html
    assert set(sources) == {"data:image/png;base64,"}
    assert not re.search(r"(?:href|src)=\"(?!#|data:)", html), "nothing is fetched"
    assert f"python predict.py ckpt={runs / 'run'} images=PHOTO" in html


def test_advice_follows_from_the_numbers():
    labels = np.repeat([0, 1, 2], 20)
    predicted = np.where(labels == 2, 1, labels)  # the third is always taken for the second
    probs = np.full((60, 3), 0.01)
    probs[np.arange(60), predicted] = 0.98
    metrics = measure(probs, labels, ["a", "b", "c"], seed=0, resamples=100)
    found = advice(metrics, most_confused(metrics, ["a", "b", "c"]))
    assert found[0].startswith("60 photos tell the accuracy to ±1")
    assert found[1] == ("Classes that are seldom recognised: c (0%). More photos of these first.")
    assert found[2].startswith("c is taken for b most often, 20 times.")
    assert found[3].startswith("On average it is 31% surer than it is right")
    right = measure(np.eye(3)[labels], labels, ["a", "b", "c"], seed=0, resamples=100)
    assert advice(right, most_confused(right, ["a", "b", "c"])) == []


def new_photos(folder, per_class: int = 2):
    for name, colour in COLOURS.items():
        for number in range(per_class):
            draw_photo(folder / name / f"new{number}.png", colour, 900 + number + len(name))
    return folder


def test_other_photos_are_measured_but_for_copies_of_those_it_trained_on(runs, tmp_path, caplog):
    root = new_photos(tmp_path / "new")
    validated = set(pd.read_csv(runs / "run" / "val_predictions.csv", dtype=str).id)
    trained = [p for p in (runs / "data" / "train" / "12").iterdir() if p.name not in validated]
    shutil.copy(trained[0], root / "12" / "renamed.png")
    with caplog.at_level("INFO"):
        metrics = evaluated(
            tmp_path / "out", f"ckpt='{runs / 'run'}'", "data=folder", f"data.root='{root}'"
        )
    assert metrics["n"] == 6
    assert "1 others trained the network, or are copies of photos that did" in caplog.text
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert not found.path.str.contains("renamed").any()


def test_photos_that_all_trained_the_network_measure_nothing(runs, tmp_path):
    validated = set(pd.read_csv(runs / "run" / "val_predictions.csv", dtype=str).id)
    for path in (runs / "data" / "train").rglob("*.png"):
        if path.name not in validated:
            target = tmp_path / "seen" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    with pytest.raises(UserError) as error:
        evaluated(
            tmp_path / "out", f"ckpt='{runs / 'run'}'", "data=folder",
            f"data.root='{tmp_path / 'seen'}'",
        )  # fmt: skip
    assert str(error.value) == (
        f"Expected photos that the run has not trained on. Received: {tmp_path / 'seen'}, all of "
        "whose 18 photos trained a network. Measure with others: data=folder data.root=DIR."
    )


def test_classes_that_do_not_match_are_named_on_both_sides(runs, tmp_path):
    root = new_photos(tmp_path / "new")
    (root / "007").rename(root / "008")
    with pytest.raises(UserError) as error:
        evaluated(tmp_path / "out", f"ckpt='{runs / 'run'}'", "data=folder", f"data.root='{root}'")
    assert str(error.value) == (
        f"Expected photos of the classes that {runs / 'run'} knows. Received: {root}, of whose 3 "
        "classes it does not know 1: 008. Of its own 3 the data lacks 1: 007. Name both alike, or "
        "leave classes out with data.exclude=FILE."
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_of_folds_each_photo_is_measured_by_the_one_that_has_not_seen_it(runs, tmp_path):
    metrics = evaluated(tmp_path / "out", f"ckpt='{runs / 'folds'}'")
    of_run = json.loads((runs / "folds" / "metrics.json").read_text())
    assert metrics["n"] == of_run["n_val"] == 24
    assert metrics["top1"] == pytest.approx(of_run["val_accuracy"])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["out_of_fold"] is True
    with pytest.raises(UserError, match="Expected no tta, calibrated or robustness with a run"):
        evaluated(tmp_path / "out", f"ckpt='{runs / 'folds'}'", "tta=flip")


def test_folds_are_an_ensemble_for_other_photos(runs, tmp_path):
    root = new_photos(tmp_path / "new")
    metrics = evaluated(
        tmp_path / "out", f"ckpt='{runs / 'folds'}'", "data=folder", f"data.root='{root}'",
        "resamples=0", "tta=flip",
    )  # fmt: skip
    assert (metrics["n"], metrics["intervals"]) == (6, {})


def test_a_model_without_its_run_is_measured_with_a_warning(runs, tmp_path, caplog):
    shutil.copy(runs / "run" / "model.keras", tmp_path / "mine.keras")
    metrics = evaluated(tmp_path / "out", f"ckpt='{tmp_path / 'mine.keras'}'")
    assert metrics["n"] == 24
    assert f"it is not known which photos trained {tmp_path / 'mine.keras'}" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ((), "Expected ckpt=RUN, the directory of a trained run"),
        (("ckpt=efficientnetlite0",), "Expected data=OPTION with efficientnetlite0"),
        (("ckpt=nowhere",), "nowhere"),
        (("ckpt=x", "tta=rotate"), "Expected tta to be one of none, flip, flip"),
        (("ckpt=x", "resamples=-1"), "Expected resamples to be 0 or more. Received: resamples=-1"),
        (("ckpt=x", "robustness=[noise,fog]"), "Expected robustness to be one of noise, patch, co"),
        (("ckpt=x", "batch_size=0"), "Expected batch_size to be at least 1"),
    ],
)
def test_mistakes_are_told(overrides, text, tmp_path):
    with pytest.raises(UserError, match=text):
        evaluated(tmp_path / "out", *overrides)


def test_how_runs_hold_out_is_drawn_beside_what_they_are_worth(runs, tmp_path):
    shutil.copytree(runs / "run", tmp_path / "copy")
    root, out = new_photos(tmp_path / "new"), tmp_path / "out"
    options = ("data=folder", f"data.root='{root}'", "resamples=0")
    metrics = evaluated(
        out, f"ckpt=['{runs / 'run'}','{tmp_path / 'copy'}']", "robustness=patch", *options
    )
    assert np.asarray(Image.open(out / "severities.png").convert("L")).std() > 10
    rows = pd.read_csv(out / "robustness.csv")
    assert rows.groupby("model").size().to_dict() == {"run": 7, "copy": 7}
    first, second = (rows[rows.model == model].accuracy.to_numpy() for model in ("run", "copy"))
    np.testing.assert_array_equal(first, second)  # the same network and the same pixels
    assert metrics["robustness"]["run"]["patch"] == pytest.approx(np.trapezoid(first) / 6)
    assert rows.n.unique().tolist() == [6]
    assert "How it holds out" in (out / "report.html").read_text()
    evaluated(out, f"ckpt='{runs / 'run'}'", *options)
    assert not list(out.glob("robustness*")), "of another evaluation"


def test_a_run_ends_with_its_own_report(runs, tmp_path):
    for name, n in (("run", 6), ("folds", 24)):
        shutil.copytree(runs / name, tmp_path / name)
        config = to_config(composed(f"data.root='{runs / 'data'}'", *QUICK))
        records = prepare_inputs(config).records
        report = evaluate_own(tmp_path / name, records)
        metrics = json.loads((report.parent / "metrics.json").read_text())
        of_run = json.loads((tmp_path / name / "metrics.json").read_text())
        assert (metrics["n"], metrics["top1"]) == (n, pytest.approx(of_run["val_accuracy"]))
        html = report.read_text()
        assert f"<h1>What {name} is worth</h1>" in html
        of_fold = "The photos are among those that fold_1 was validated with, the maps are its own"
        assert (of_fold in html) == (name == "folds")
    assert (
        "They validated: none has trained the network, but they chose what was kept."
        in (tmp_path / "run" / "evaluation" / "report.html").read_text()
    )
    (tmp_path / "run" / "val_predictions.csv").unlink()
    assert evaluate_own(tmp_path / "run", records) is None


def test_photos_of_one_name_in_two_classes_are_told_apart(tmp_path):
    """Else a photo that trained would be taken for its namesake that validated."""
    root, rows = tmp_path / "data", []
    for number in range(6):
        for name, colour in (("a", (200, 40, 40)), ("b", (40, 180, 60))):
            draw_photo(root / "train" / name / f"{number}.png", colour, 10 * number + ord(name))
            rows.append((f"{number}.png", name))
    write_csv(root / "train.csv", rows)
    overrides = (f"data.root='{root}'", "data.val_split=0.34")
    config = to_config(composed(*QUICK, *overrides))
    inputs = prepare_inputs(config)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        run_job(config, tmp_path / "run", inputs)
    metrics = evaluated(tmp_path / "out", f"ckpt='{tmp_path / 'run'}'")
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    table = inputs.records.table
    assert sorted(found.path) == sorted(table.path[inputs.is_val])
    evaluate_own(tmp_path / "run", inputs.records)
    own = pd.read_csv(tmp_path / "run" / "evaluation" / "predictions.csv")
    assert sorted(own.path) == sorted(table.path[inputs.is_val])
    assert metrics["n"] == len(own)


def test_an_evaluation_of_other_photos_is_kept(runs, tmp_path, caplog, monkeypatch):
    out = tmp_path / "out"
    evaluated(out, f"ckpt='{runs / 'run'}'")
    monkeypatch.chdir(runs)
    first = evaluated(out, "ckpt=run")
    assert not (out / "earlier_1").exists(), "the same run by another name"
    root = new_photos(tmp_path / "new")
    with caplog.at_level("INFO"):
        evaluated(out, f"ckpt='{runs / 'run'}'", "data=folder", f"data.root='{root}'")
    assert f"{out} held another evaluation: it is in {out / 'earlier_1'}." in caplog.text
    assert json.loads((out / "earlier_1" / "metrics.json").read_text()) == first
    for name in ("report.html", "attention_right.png"):
        assert (out / "earlier_1" / name).is_file()


def test_a_run_is_not_written_over(runs):
    with pytest.raises(UserError, match="Expected a directory of its own for the evaluation"):
        evaluated(runs / "run", f"ckpt='{runs / 'run'}'")
