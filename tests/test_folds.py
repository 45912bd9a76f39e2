"""`data.folds`: how photos are dealt out, and what the folds leave, together and as an ensemble."""

import json
import logging
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls import load_run
from carcls.config import to_config, to_predict_config
from carcls.data.folds import choose_folds
from carcls.data.records import TrainingPhotos
from carcls.errors import UserError
from carcls.plots import draw_folds
from carcls.prediction.ensemble import load_predictor
from carcls.prediction.members import describe, validate
from carcls.prediction.predict import predict
from carcls.run import set_aside
from carcls.training import folds as module
from carcls.training.inputs import prepare_inputs
from carcls.training.jobs import run_job
from carcls.training.resume import find_run
from tests.conftest import draw_competition, draw_photo, use_tiny_backbone
from tests.test_config import composed

SMALL = (
    "backbone=efficientnetlite0", "image_size=32", "batch_size=4", "runtime.eager=true",
    "runtime.workers=0", "finetune=frozen", "finetune.stages.head.epochs=2", "data.folds=2",
)  # fmt: skip


def small(root, *overrides: str):
    return to_config(composed(f"data.root='{root}'", *SMALL, *overrides))


@pytest.fixture(scope="module", autouse=True)
def _tiny_networks():
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        yield


class PressesCtrlC(logging.Handler):
    """A user who has seen enough when the epoch of the second fold is told."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.fold += record.getMessage().startswith("\nfold ")
        if self.fold == 2 and "epoch  1/" in record.getMessage():
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two folds: (root, workdir, metrics after Ctrl-C in the second, which then was resumed)."""
    folder = tmp_path_factory.mktemp("folds")
    root, workdir = draw_competition(folder / "data", per_class=5), folder / "run"
    config = small(root)
    user, log = PressesCtrlC(), logging.getLogger("carcls")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(user)
    try:
        stopped = run_job(config, workdir, prepare_inputs(config))
    finally:
        log.removeHandler(user)
        log.setLevel(level)
    assert stopped.interrupted
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "interrupted"
    written = (workdir / "fold_1" / "model.keras").stat().st_mtime_ns
    assert len(pd.read_csv(workdir / "fold_2" / "history.csv")) == 1
    again = replace(config, resume=str(workdir))
    assert not run_job(again, workdir, prepare_inputs(again)).interrupted
    assert (workdir / "fold_1" / "model.keras").stat().st_mtime_ns == written
    return root, workdir, stopped.metrics


def test_after_ctrl_c_the_summary_is_of_the_finished_folds(run):
    _, workdir, metrics = run
    assert [fold["fold"] for fold in metrics["folds"]] == [1]
    assert metrics["val_accuracy"] == metrics["folds"][0]["val_accuracy"]
    assert (metrics["n_train"], metrics["n_val"], metrics["val_accuracy_std"]) == (15, 8, None)
    assert not list(workdir.rglob("earlier_*"))


def test_a_resumed_run_goes_on_within_the_fold_that_was_stopped(run):
    facts = json.loads((run[1] / "fold_2" / "run.json").read_text())
    assert (facts["fold"], facts["status"], len(facts["sessions"])) == (2, "finished", 2)
    assert facts["sessions"][1]["from"] == "stage 1/1 head, epoch 2"


def test_a_fold_depends_neither_on_those_before_it_nor_on_being_stopped(run, tmp_path):
    root, workdir, _ = run
    config = small(root)
    module._train_fold(config, tmp_path / "alone", prepare_inputs(config).of_fold(2))
    histories = [pd.read_csv(p / "history.csv") for p in (tmp_path / "alone", workdir / "fold_2")]
    measured = [h[["loss", "accuracy", "val_loss", "val_accuracy"]] for h in histories]
    pd.testing.assert_frame_equal(*measured, rtol=1e-4)


def test_one_fold_is_not_gone_on_with_alone(run):
    fold = run[1] / "fold_1"
    with pytest.raises(UserError) as error:
        find_run([f"resume={fold}"])
    assert str(error.value) == (
        f"Expected resume to be a whole run. Received: {fold}, which is fold 1 of one. Go on with: "
        f"python train.py resume={run[1]}"
    )


def test_every_photo_is_predicted_once_by_the_fold_that_has_not_trained_on_it(run):
    root, workdir, _ = run
    text = {"id": str, "label": str, "predicted": str}
    table = pd.read_csv(workdir / "oof_predictions.csv", dtype=text)
    assert table.columns.tolist() == [
        "id", "label", "predicted", "fold", "p_007", "p_12", "p_red, wide"
    ]  # fmt: skip
    truth = pd.read_csv(root / "train.csv", dtype=str).set_index("Id").Category
    assert table.id.tolist() == prepare_inputs(small(root)).records.table.id.tolist()
    assert sorted(table.id) == sorted(truth.index)
    assert table.label.tolist() == truth[table.id].tolist()
    counts = table.groupby(["label", "fold"]).size()
    assert counts.between(2, 3).all() and len(counts) == 6
    for fold in (1, 2):
        own = pd.read_csv(workdir / f"fold_{fold}" / "val_predictions.csv", dtype=text)
        pd.testing.assert_frame_equal(
            table[table.fold == fold].drop(columns="fold").reset_index(drop=True), own
        )


def test_the_metrics_are_out_of_fold_and_those_of_each(run):
    _, workdir, _ = run
    metrics = json.loads((workdir / "metrics.json").read_text())
    own = [json.loads((workdir / f"fold_{i}" / "metrics.json").read_text()) for i in (1, 2)]
    table = pd.read_csv(workdir / "oof_predictions.csv", dtype=str)
    accuracies = [m["val_accuracy"] for m in own]
    assert metrics["val_accuracy"] == pytest.approx((table.label == table.predicted).mean())
    assert metrics["val_accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert metrics["val_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    columns = "p_" + table.label
    of_label = [float(table.loc[i, column]) for i, column in columns.items()]
    assert metrics["val_nll"] == pytest.approx(-np.mean(np.log(of_label)), abs=1e-4)
    assert metrics["val_loss"] == pytest.approx(
        (8 * own[0]["val_loss"] + 7 * own[1]["val_loss"]) / 15
    )
    (stage,) = metrics["stages"]
    assert (stage["name"], stage["epochs"]) == ("head", 4)
    assert stage["seconds"] == pytest.approx(sum(m["stages"][0]["seconds"] for m in own))
    assert [(f["n_train"], f["n_val"], f["status"]) for f in metrics["folds"]] == [
        (7, 8, "finished"), (8, 7, "finished")
    ]  # fmt: skip
    history = pd.read_csv(workdir / "history.csv")
    assert history[["fold", "stage", "epoch"]].to_numpy().tolist() == [
        [1, "head", 1], [1, "head", 2], [2, "head", 1], [2, "head", 2]
    ]  # fmt: skip
    with Image.open(workdir / "curves.png") as picture:
        assert picture.size == (1320, 600)


def test_predict_takes_the_folds_as_an_ensemble(run, tmp_path, caplog):
    root, workdir, _ = run
    config = composed(f"ckpt='{workdir}'", "runtime.workers=0", name="predict")
    with caplog.at_level("INFO"):
        predict(to_predict_config(config), tmp_path)
    submission = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    asked = pd.read_csv(root / "sample-submission.csv", dtype=str)
    assert submission.Id.tolist() == asked.Id.tolist()
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["ckpt"], facts["weights"]) == ([str(workdir)], [0.5, 0.5])
    members = json.loads((tmp_path / "metrics.json").read_text())["members"]
    assert [m["ckpt"] for m in members] == [str(workdir / f"fold_{i}") for i in (1, 2)]
    accuracy = json.loads((workdir / "metrics.json").read_text())["val_accuracy"]
    assert f"the network that has not seen it, they reach {accuracy:.2%}." in caplog.text


def test_a_run_of_folds_is_read_like_any_other(run):
    together = load_run(run[1])
    assert together.class_names == ["007", "12", "red, wide"]
    assert len(together.val_predictions) == 15
    assert len(together.curves().axes) == 2


def test_folds_together_count_as_much_as_another_run_and_share_its_weight(run, tmp_path):
    _, workdir, _ = run
    one, two = workdir / "fold_1", workdir / "fold_2"
    with pytest.raises(UserError, match="Expected every checkpoint of an ensemble once"):
        load_predictor([str(workdir), str(one)])
    other = tmp_path / "other"
    shutil.copytree(one, other)
    assert load_predictor([str(workdir), str(other)]).shares == [0.25, 0.25, 0.5]
    assert load_predictor([str(other), str(workdir)], [1, 4]).shares == [0.2, 0.4, 0.4]
    of_both = load_predictor([str(one), str(two)])
    assert "Out of fold, each photo by" in describe(of_both, validate(of_both))
    with pytest.raises(UserError, match="Expected weights with an ensemble only"):
        load_predictor([str(workdir)], [1])


def test_folds_that_are_not_finished_are_left_out_and_named(run, caplog):
    _, workdir, _ = run
    path = workdir / "fold_2" / "run.json"
    text = path.read_text()
    path.write_text(text.replace('"finished"', '"interrupted"'))
    try:
        predictor = load_predictor([str(workdir)])
    finally:
        path.write_text(text)
    assert predictor.name == str(workdir / "fold_1")
    assert "only 1 of 2 folds are finished: these predict." in caplog.text


def test_other_folds_set_aside_what_is_there(tmp_path, monkeypatch):
    root, workdir = draw_competition(tmp_path / "data"), tmp_path / "run"

    def fails(config, fold_dir, inputs):
        fold_dir.mkdir()
        raise UserError("Expected this. Received: that.")

    monkeypatch.setattr(module, "_train_fold", fails)
    for seed in (1, 2):
        config = small(root, f"seed={seed}")
        with pytest.raises(UserError, match=r"^In fold 1 of 2: Expected this\. Received: that\.$"):
            run_job(config, workdir, prepare_inputs(config))
        facts = json.loads((workdir / "run.json").read_text())
        assert (facts["status"], facts["folds"]) == ("failed", ["fold_1", "fold_2"])
    aside = workdir / "earlier_1"
    assert sorted(path.name for path in aside.iterdir()) == ["fold_1", "run.json"]
    assert json.loads((aside / "run.json").read_text())["config"]["seed"] == 1
    assert set_aside(workdir).name == "earlier_2"


def photos(labels: list[int]) -> TrainingPhotos:
    names = ["a", "b", "c"]
    table = pd.DataFrame({"id": [f"{i}.png" for i in range(len(labels))], "label": labels})
    return TrainingPhotos(table=table, class_names=names)


def test_a_class_with_nothing_to_train_on_in_one_of_the_folds_is_told():
    with pytest.raises(UserError) as error:
        choose_folds(photos([0, 0, 0, 1, 2, 2]), 3, 0, np.array([0, 1, 2, 3, 4, 4]))
    assert "Received all photos of a class in one fold: b (1), c (2)." in str(error.value)
    assert "The smallest class has 1 photo; the same photo" in str(error.value)
    assert "exclude=FILE" in str(error.value)


def test_more_folds_than_photos_are_told():
    with pytest.raises(UserError, match=r"Received: 6 different photos with data\.folds=7"):
        choose_folds(photos([0, 0, 1, 1, 2, 2]), 7, 0, None)


def test_a_split_of_the_data_is_dealt_out_too_and_this_is_said(tmp_path, caplog):
    for part, count in (("train", 4), ("val", 2)):
        for name in ("a", "b"):
            for i in range(count):
                draw_photo(tmp_path / part / name / f"{i}.png", (9, 60, 30), seed=i)
    (tmp_path / "val" / "a" / "copy.png").write_bytes(
        (tmp_path / "train" / "a" / "0.png").read_bytes()
    )
    with caplog.at_level("INFO"):
        inputs = prepare_inputs(small(tmp_path, "data=folder", f"data.root='{tmp_path}'"))
    said = "The data says that 5 of its 13 photos validate. With data.folds=2 every photo does once"
    assert said in caplog.text
    assert inputs.changes[0].startswith(said)
    fold_of = dict(zip(inputs.records.table.id, inputs.folds, strict=True))
    assert fold_of["train/a/0.png"] == fold_of["val/a/copy.png"], "the same photo"
    second = inputs.of_fold(2)
    np.testing.assert_array_equal(second.is_val, ~inputs.is_val)


def test_no_photo_is_decoded_twice_for_another_fold(tmp_path):
    root = draw_competition(tmp_path / "data", per_class=4)
    config = small(root, "finetune.stages.head.image_size=48", "augmentation=strong")
    stage, inputs = config.finetune.stages["head"], prepare_inputs(config)
    assert [report.size for report in inputs.cache] == [55]
    for fold, sizes in ((1, [55, 48]), (2, [55, 48, 48])):
        inputs = inputs.of_fold(fold)
        (images, _), *_ = inputs.val(stage).epoch()
        assert images.shape == (4, 48, 48, 3) and images.any(axis=(1, 2, 3)).all()
        assert [report.size for report in inputs.cache] == sizes
    halves = [report.num_bytes for report in inputs.cache[1:]]
    assert halves == [6 * 48 * 48 * 3] * 2


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.folds=1", "Expected folds to be 0 (off) or 2 or more. Received: folds=1"),
        ("data.refit=true", "Expected data.folds=NUMBER, with which every photo validates once"),
        ("data.val_ids=ids.txt", "neither with data.val_ids=FILE, which says which do"),
        ("find_lr=true", "Expected find_lr=true without data.folds: look for a learning rate"),
    ],
)
def test_what_does_not_go_with_folds_is_told(tmp_path, override, text):
    with pytest.raises(UserError) as error:
        small(tmp_path, override)
    assert text in str(error.value)


def test_the_picture_of_folds_has_a_curve_and_a_point_each():
    history = pd.DataFrame(
        {"fold": [1, 1, 2], "stage": "head", "epoch": [1, 2, 1], "val_accuracy": [0.2, 0.6, 0.5]}
    )
    folds = [
        {"fold": 1, "val_accuracy": 0.6, "kept_epoch": 2},
        {"fold": 2, "val_accuracy": 0.5, "kept_epoch": 1},
    ]
    figure = draw_folds(history, {"val_accuracy": 0.55, "folds": folds}, "a run")
    curves, reached = figure.axes
    assert figure.get_suptitle() == "a run"
    assert curves.lines[0].get_ydata().tolist() == [0.2, 0.6]
    assert curves.lines[1].get_xydata().tolist() == [[2, 0.6]]
    assert [line.get_xydata().tolist() for line in reached.lines[:2]] == [[[1, 0.6]], [[2, 0.5]]]
    assert reached.get_title() == "out of fold 55.0%"
    assert curves.lines[-1].get_ydata() == [0.55, 0.55]
