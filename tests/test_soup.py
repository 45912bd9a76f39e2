"""Soups: a stage that is trained several times from one start, and the average of all."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.classifier import load_classifier
from carcls.training.callbacks import Best
from carcls.training.loop import train
from carcls.training.soup import Soup, number_in_soup, spelled_out
from carcls.training.soup_stage import _what_was_better
from carcls.training.timing import epochs_alike
from tests.test_config import composed, told

TWO_OF_TWO = (
    "image_size=32", "batch_size=8", "finetune=full", "finetune.stages.all.epochs=2",
    "finetune.stages.all.soup=2", "runtime.eager=true", "runtime.workers=0",
    "runtime.preflight=false", "head.units=8",
)  # fmt: skip


def soups(competition, *overrides):
    return to_config(composed(f"data.root='{competition}'", *TWO_OF_TWO, *overrides))


@pytest.fixture
def trainings(monkeypatch):
    """The weights that each training of a soup began and ended with."""
    seen = SimpleNamespace(began=[], ended=[])
    begin, add = Soup.begin, Soup.add

    def note_start(soup, model, number):
        begin(soup, model, number)
        seen.began.append([weight.copy() for weight in model.get_weights()])

    def note_end(soup, model):
        add(soup, model)
        seen.ended.append([weight.copy() for weight in model.get_weights()])

    monkeypatch.setattr(Soup, "begin", note_start)
    monkeypatch.setattr(Soup, "add", note_end)
    return seen


def test_each_training_of_a_soup_is_a_stage_and_so_is_their_average():
    plan = to_config(composed("finetune.stages.top_half.soup=2")).finetune
    stages = spelled_out(plan).stages
    assert list(stages) == [
        "head", "top_half_1", "top_half_2", "top_half", "top_three_quarters", "all",
    ]  # fmt: skip
    assert [stage.soup for stage in stages.values()] == [1, 1, 1, 2, 1, 1]
    assert stages["top_half_2"].trainable == plan.stages["top_half"].trainable == 0.5
    numbers = [number_in_soup(spelled_out(plan), name) for name in stages]
    assert numbers == [0, 1, 2, 0, 0, 0]
    assert plan.epochs == 10 + 2 * 10 + 10 + 15
    assert spelled_out(to_config(composed()).finetune) == to_config(composed()).finetune


def test_a_stage_that_is_called_as_a_training_of_a_soup_is_told():
    config = to_config(
        composed("finetune.stages.head.soup=3", "+finetune.stages.head_2=${finetune.stages.all}")
    )
    message = "Expected another name than head_2 for a stage: the trainings of the stage head are "
    with pytest.raises(UserError, match=message):
        spelled_out(config.finetune)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("finetune.stages.all.soup=0",), "Expected soup from 1 (off) to 20 trainings. Rec"),
        (("finetune.stages.all.soup=21",), "Expected soup from 1 (off) to 20 trainings. Rec"),
        (
            ("finetune=fast", "finetune.stages.head.soup=2"),
            "Expected a stage with feature_views to leave bottom_rate, label_smoothing, ema_span, "
            "soup and mixing alone",
        ),
    ],
)
def test_what_is_no_soup_is_told(overrides, message):
    assert told(*overrides).startswith(message)


def test_the_average_of_what_began_alike_and_trained_apart_is_kept(
    competition, tmp_path, tiny_backbone, trainings
):
    run = tmp_path / "run"
    train(soups(competition, "finetune.keep=last", "optimizer.learning_rate=0.02"), run)
    (one, two), (first, second) = trainings.began, trainings.ended
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(first, second, strict=True)), "apart"
    kept = load_classifier(run / "model.keras").get_weights()
    for weight, a, b in zip(kept, first, second, strict=True):
        np.testing.assert_allclose(weight, (a + b) / 2, atol=1e-7)
    rows = pd.read_csv(run / "history.csv")
    assert rows.stage.tolist() == ["all_1", "all_1", "all_2", "all_2", "all"]
    assert rows.learning_rate.isna().tolist() == [False] * 4 + [True]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["kept_epoch"] == 5
    assert metrics["val_accuracy"] == pytest.approx(rows.val_accuracy[4])
    assert metrics["val_loss"] == pytest.approx(rows.val_loss[4])
    stages = [(stage["name"], stage["epochs"]) for stage in metrics["stages"]]
    assert stages == [("all_1", 2), ("all_2", 2), ("all", 0)]
    assert json.loads((run / "run.json").read_text())["config"]["finetune"]["stages"].keys() == {
        "all"
    }


def test_an_average_that_is_worse_than_what_it_is_of_is_not_kept(
    competition, tmp_path, tiny_backbone, monkeypatch, caplog
):
    def ruin(soup, model, count):
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])

    monkeypatch.setattr(Soup, "finish", ruin)
    with caplog.at_level("INFO"):
        train(soups(competition), tmp_path / "run")
    assert "2/3 all_2 epoch  2/2" in caplog.text
    assert "3/3 all: the average of 2 trainings   val_loss nan" in caplog.text
    change = "finetune.stages.all.soup=2: the average was not kept, its val_loss is nan"
    assert f"WARNING: {change}. Kept is the best epoch so far, " in caplog.text
    assert json.loads((tmp_path / "run" / "run.json").read_text())["changed"] == [change]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["kept_epoch"] < 5
    assert np.isfinite(metrics["val_loss"])


def test_an_average_without_validation_photos_is_kept(competition, tmp_path, tiny_backbone):
    train(soups(competition, "data.refit=true", "schedule=constant"), tmp_path / "run")
    rows = pd.read_csv(tmp_path / "run" / "history.csv")
    assert rows.stage.iloc[-1] == "all"
    assert rows[["loss", "accuracy", "val_loss", "val_accuracy"]].iloc[-1].isna().all()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["kept_epoch"] == len(rows)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("monitor", "accuracy", "loss", "before", "ends", "reason"),
    [
        ("val_accuracy", 0.1, 0.55, [], [0.5, 0.6], None),
        ("val_accuracy", 0.9, 0.56, [], [0.5, 0.6], "its val_loss is 0.5600, that of its trainings "
         "0.5500 on average"),
        ("val_accuracy", 0.8, 0.5, [0.8, 0.3], [0.5, 0.5], None),
        ("val_accuracy", 0.8, 0.5, [0.81, 0.3], [0.5, 0.5], "its val_accuracy is 0.8000, the best "
         "before it had 0.8100"),
        ("val_loss", 0.1, 0.5, [0.6, 0.5], [0.5, 0.6], None),
        ("val_loss", 0.9, 0.5, [0.4, 0.9], [0.5, 0.6], "its val_loss is 0.5000, the best before it "
         "had 0.4000"),
        ("val_loss", 0.9, float("inf"), [], [0.5, 0.6], "its val_loss is inf"),
    ],
)  # fmt: skip
def test_an_average_is_worth_keeping_if_nothing_before_it_was_better(
    monitor, accuracy, loss, before, ends, reason
):
    """The better epochs of a training before its end do not count."""
    stage = to_config(composed("finetune.stages.all.soup=2")).finetune.stages["all"]
    rows = [{"stage": "head", monitor: value} for value in before]
    for number, end in enumerate(ends, start=1):
        rows += [
            {"stage": f"all_{number}", "val_accuracy": 0.95, "val_loss": each}
            for each in (0.95, 0.01, end)
        ]
    session = SimpleNamespace(
        config=SimpleNamespace(finetune=SimpleNamespace(monitor=monitor)),
        history=SimpleNamespace(rows=rows),
        best=Best(monitor),
    )
    logs = {"val_loss": loss, "val_accuracy": accuracy}
    assert _what_was_better(session, "all", stage, logs) == reason


def test_a_soup_takes_as_long_as_all_of_its_trainings():
    overrides = ("finetune.stages.all.soup=4", "~finetune.stages.last_head")
    config = to_config(composed("finetune=fast", *overrides))
    config.finetune = spelled_out(config.finetune)
    assert epochs_alike(config, "all_1") == 3 * config.finetune.stages["all"].epochs
    assert epochs_alike(config, "all_4") == 0
