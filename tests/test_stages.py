"""What a stage may have of its own, and runs without validation photos."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.config import to_config
from carcls.data.split import stratified_split
from carcls.errors import UserError
from carcls.models.classifier import build_classifier, enlarged_side, load_classifier
from carcls.run import read_model_info
from carcls.training.callbacks import Best
from carcls.training.inputs import prepare_inputs
from carcls.training.loop import train
from carcls.training.refit import without_validation
from carcls.training.report import plan
from carcls.training.timing import forward_cost, photo_cost
from tests.conftest import FEW_LAYERS, draw_competition
from tests.test_config import composed

pytestmark = pytest.mark.usefixtures("tiny_backbone")

SMALL = (
    *FEW_LAYERS, "image_size=32", "batch_size=4", "runtime.eager=true", "runtime.preflight=false",
)  # fmt: skip
TWO_STAGES = (
    "~finetune.stages.top_half",
    "~finetune.stages.top_three_quarters",
    "finetune.stages.head.epochs=1",
    "finetune.stages.all.epochs=1",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data"), per_class=5)


def small(root, *overrides: str):
    return to_config(composed(f"data.root='{root}'", *SMALL, *overrides))


def test_a_stage_has_its_own_size_batch_and_rate_and_the_model_says_which_it_kept(
    root, tmp_path, caplog
):
    config = small(
        root, *TWO_STAGES, "finetune.keep=last", "finetune.stages.all.image_size=48",
        "finetune.stages.all.batch_size=6", "finetune.stages.all.learning_rate=0.002",
    )  # fmt: skip
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    rows = [line.split() for line in caplog.text.splitlines() if "of 7 " in line]
    assert [row[-3:] for row in rows] == [["32", "px", "4"], ["48", "px", "6"]]
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.learning_rate.tolist() == [0.001, 0.002]
    assert read_model_info(tmp_path / "run" / "model.keras").image_size == 48
    log = json.loads((tmp_path / "run" / "run.json").read_text())["config"]["finetune"]["stages"]
    assert (log["all"]["image_size"], log["head"]["image_size"]) == (48, None)


def test_photos_come_in_the_size_and_number_that_a_stage_asks_for(root):
    config = small(
        root, "finetune.stages.all.image_size=48", "finetune.stages.all.batch_size=6",
        "augmentation=none",
    )  # fmt: skip
    inputs = prepare_inputs(config)
    head, full = config.finetune.stages["head"], config.finetune.stages["all"]
    shapes = [[images.shape for images, _ in inputs.train(stage).epoch()] for stage in (head, full)]
    assert shapes == [[(4, 32, 32, 3)] * 3, [(6, 48, 48, 3)] * 2]
    # Validation at the earlier stage's size does not disturb what the later one trains on.
    (images, labels), *_ = inputs.val(head).epoch()
    assert images.shape == (3, 32, 32, 3)
    assert [report.size for report in inputs.cache] == [32, 48]  # nothing is decoded twice
    direct = prepare_inputs(config).val(head)
    np.testing.assert_array_equal(next(direct.epoch())[0], images)
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_a_stage_runs_only_the_callbacks_that_it_lists(root, tmp_path):
    still = (  # nothing gets better
        "finetune=frozen", "finetune.stages.head.epochs=3", "finetune.early_stopping_patience=1",
        "schedule.patience=1", "schedule.monitor=val_accuracy", "optimizer.learning_rate=1e-12",
        "schedule.min_learning_rate=0", "head=linear",
    )  # fmt: skip
    config = small(
        root, *still, "runtime.tensorboard=true",
        "finetune.stages.head.callbacks=[plateau]",
    )  # fmt: skip
    train(config, tmp_path / "run")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(history) == 3, "early stopping is not listed"
    assert history.learning_rate.iloc[-1] < history.learning_rate.iloc[0]
    assert not (tmp_path / "run" / "tensorboard").exists()

    config = small(root, *still, "finetune.stages.head.callbacks=[early_stopping]")
    train(config, tmp_path / "other")
    history = pd.read_csv(tmp_path / "other" / "history.csv")
    assert len(history) == 2
    assert history.learning_rate.nunique() == 1, "plateau is not listed"


def test_a_refit_trains_on_all_photos_and_says_that_no_validation_number_exists(
    root, tmp_path, caplog
):
    config = small(root, "finetune=frozen", "finetune.stages.head.epochs=2", "data.refit=true")
    with caplog.at_level("INFO"):
        outcome = train(config, tmp_path / "run")
    assert (outcome.metrics["n_train"], outcome.metrics["n_val"]) == (15, 0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["val_accuracy"] is None
    assert metrics["val_loss"] is None
    assert metrics["stages"][0]["val_accuracy"] is None
    assert metrics["kept_epoch"] == 2
    assert not (tmp_path / "run" / "val_predictions.csv").exists()
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.val_accuracy.isna().all()
    assert history.accuracy.notna().all()
    assert "no validation number exists" in caplog.text
    assert "15 to train, none to validate (data.refit=true)" in caplog.text
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["changed"] == [
        "finetune.keep=last: no epoch can be told to be the best",
        "finetune.early_stopping_patience=0: every stage runs to its end",
        "schedule.monitor=loss: that of the training photos",
    ]
    for change in facts["changed"]:
        assert f"data.refit has no validation photos, so {change}." in caplog.text
    assert read_model_info(tmp_path / "run" / "model.keras").class_counts == [5, 5, 5]
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size == (1200, 840)


def test_a_refit_changes_nothing_that_does_not_look_at_validation():
    config = to_config(composed("schedule=cosine", "finetune.keep=last", "data.refit=true"))
    assert without_validation(config) == (config, [])
    config = to_config(
        composed(
            "data.refit=true", "finetune=full",
            "finetune.stages.all.callbacks=[plateau,early_stopping]",
        )
    )  # fmt: skip
    changed, _ = without_validation(config)
    assert changed.finetune.stages["all"].callbacks == ["plateau"]


def test_a_class_that_only_validates_is_told(tmp_path):
    for part, names in (("train", ("a", "b")), ("val", ("a", "b"))):
        for name in names:
            draw = draw_competition(tmp_path / "unused", per_class=1, test=0)
            photo = next(draw.rglob("*.png"))
            target = tmp_path / "photos" / part / name / f"{part}.png"
            target.parent.mkdir(parents=True)
            target.write_bytes(photo.read_bytes())
    (tmp_path / "photos" / "train" / "b" / "train.png").write_bytes(b"<html>")
    config = small(tmp_path / "photos", "data=folder", "data.root=" + str(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"Expected at least one photo to train on in every class"):
        prepare_inputs(config)


def test_classes_without_validation_photos_are_named(tmp_path, caplog):
    root = draw_competition(tmp_path / "data", per_class=4)
    rows = (root / "train.csv").read_text().splitlines()
    of_12 = [row for row in rows if row.endswith(",12")]
    (root / "train.csv").write_text("\n".join(row for row in rows if row not in of_12[1:]) + "\n")
    config = small(root, *TWO_STAGES, "data.on_missing=skip")
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2])
    assert not stratified_split(labels, 0.2, 42)[4]
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    assert "2 to validate (20% of every class, seed 42), none of 12;" in caplog.text


def test_a_photo_that_is_gone_at_a_later_stage_is_left_out_and_told(tmp_path, caplog):
    root = draw_competition(tmp_path / "data", per_class=4)
    config = small(
        root, *TWO_STAGES, "finetune.stages.all.image_size=48", "augmentation=none",
        "finetune.keep=last",
    )  # fmt: skip
    inputs = prepare_inputs(config)
    train_row, val_row = np.flatnonzero(~inputs.is_val)[0], np.flatnonzero(inputs.is_val)[0]
    gone = inputs.records.table.iloc[[train_row, val_row]]
    for path in gone.path:
        Path(path).unlink()
    with caplog.at_level("INFO"):
        outcome = train(config, tmp_path / "run", inputs)
    stage = config.finetune.stages["all"]
    assert train_row not in inputs.train(stage).indices
    assert len(inputs.train(stage).indices) == 8
    listed = json.loads((tmp_path / "run" / "run.json").read_text())["lost"]
    assert sorted(photo["id"] for photo in listed) == sorted(gone.id)
    assert {photo["reason"] for photo in listed} == {"no such file"}
    assert "WARNING: 2 photos could not be opened while training went on" in caplog.text
    written = pd.read_csv(tmp_path / "run" / "val_predictions.csv")
    assert len(written) == outcome.metrics["n_val"] == 2
    assert gone.id.iloc[1] not in set(written.id)
    assert (written.label.astype(str) == written.predicted.astype(str)).mean() == pytest.approx(
        outcome.metrics["val_accuracy"]
    )


def test_a_stage_that_kept_nothing_is_gone_on_from(root, tmp_path, monkeypatch):
    config = small(root, *TWO_STAGES)
    improve = Best.improve
    monkeypatch.setattr(
        Best, "improve", lambda self, epoch, logs: epoch > 1 and improve(self, epoch, logs)
    )
    assert train(config, tmp_path / "run").metrics["kept_epoch"] == 2


@pytest.mark.parametrize(
    ("limit", "how"),
    [(1, "decoded once (0 MB in the cache)"), (0, "decoded anew in every epoch")],
)
def test_the_plan_says_who_chose_the_validation_photos_and_how_photos_are_read(
    root, tmp_path, limit, how
):
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(pd.read_csv(root / "train.csv").Id[:3]))
    config = small(
        root, f"data.cache_limit={limit}", f"data.val_ids='{ids}'",
    )  # fmt: skip
    inputs = prepare_inputs(config)
    told = plan(config, inputs, build_classifier(config.backbone, config.head, 3), "CPU")
    told = " ".join(told.split())
    assert "12 to train, 3 to validate (those of data.val_ids), none of 12, red, wide;" in told
    assert how in told


@pytest.mark.parametrize(
    ("enlarge", "more", "sides"),
    [
        (1.5, 1.0, {"head": 48, "all": 48}),
        (1.5, 1.25, {"head": 48, "all": 60}),
        (1.0, 1.25, {"head": None, "all": 40}),
        (1.0, 1.0, {"head": None, "all": None}),
    ],
)
def test_enlarging_is_said_and_recorded(root, tmp_path, enlarge, more, sides, caplog):
    config = small(
        root, *TWO_STAGES, "backbone.weights=imagenet", f"finetune.enlarge={enlarge}",
        f"finetune.stages.all.enlarge={more}", "finetune.keep=last",
    )  # fmt: skip
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    told = re.findall(r"32 px, enlarged to (\d+)", caplog.text)
    assert told == [str(side) for side in sides.values() if side]
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["enlarged_to"] == sides
    assert recorded["status"] == "finished"
    kept = load_classifier(tmp_path / "run" / "model.keras")
    assert enlarged_side(kept) == sides["all"]


def test_photos_that_a_stage_enlarges_cost_what_they_are_enlarged_to(root):
    config = small(root, *TWO_STAGES, "finetune.stages.all.enlarge=2")
    head, everything = config.finetune.stages.values()
    assert photo_cost(config, everything) == 4 * 3 * photo_cost(config, head)
    assert forward_cost(config, everything) == 4 * forward_cost(config, head)


def test_a_head_fitted_anew_may_see_photos_larger_than_those_that_trained(root, tmp_path):
    """Whatever it is kept at, the file predicts what the validation photos were measured with."""
    for enlarge in (1.0, 1.5):
        config = small(
            root, "finetune=fast", "augmentation=none", "finetune.enlarge=1",
            "finetune.stages.all.epochs=1", f"finetune.stages.last_head.enlarge={enlarge}",
            "data.val_split=0.4", "finetune.keep=last",
        )  # fmt: skip
        train(config, tmp_path / str(enlarge))
    found = [pd.read_csv(tmp_path / name / "history.csv") for name in ("1.0", "1.5")]
    stages = ["head", "all", "last_head"]
    assert found[0].stage.tolist() == found[1].stage.tolist() == stages
    same = found[0].val_loss == found[1].val_loss
    assert same.tolist() == [True, True, False], "only what sees them larger differs"
    kept = load_classifier(tmp_path / "1.5" / "model.keras")
    assert enlarged_side(kept) == 48
    metrics = json.loads((tmp_path / "1.5" / "metrics.json").read_text())
    assert metrics["val_nll"] == pytest.approx(found[1].val_loss.iloc[-1], abs=1e-5)
