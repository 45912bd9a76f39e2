"""Preflight: a run is tried before anything long, and is the same with it and without."""

import json
import random
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models import classifier
from carcls.models.heads import HEADS
from carcls.training.loop import train
from carcls.training.preflight import check_disk, check_monitors, disk_for
from carcls.training.timing import epochs_alike, seconds_of_stages
from tests.conftest import draw_competition
from tests.test_config import composed
from tests.test_memory import room_for


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data"))


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=4",
            "finetune=full", "finetune.stages.all.epochs=1", *overrides,
        )
    )  # fmt: skip


def facts_of(workdir) -> dict:
    return json.loads((workdir / "run.json").read_text())


def test_a_run_is_bit_for_bit_the_same_with_and_without(root, tmp_path, tiny_backbone):
    """Dropout, BatchNorm that moves, the optimizer's moments and the schedule included."""
    overrides = (
        "optimizer=adamw", "schedule=cosine", "gradient_accumulation=3", "augmentation.mixup=1",
        "runtime.steps_per_execution=3",
    )  # fmt: skip
    weights, histories, drawn = [], [], []
    for preflight in ("true", "false"):
        config = small(root, "finetune.keep=last", f"runtime.preflight={preflight}", *overrides)
        train(config, tmp_path / preflight)
        model = classifier.load_classifier(tmp_path / preflight / "model.keras")
        weights.append(model.get_weights())
        history = pd.read_csv(tmp_path / preflight / "history.csv")
        histories.append(history.drop(columns=["seconds", "images_per_second"]))
        drawn.append(random.random())
        assert ("preflight" in facts_of(tmp_path / preflight)) == (preflight == "true")
        assert not list((tmp_path / preflight).glob(".preflight*"))
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert drawn[0] == drawn[1]


def test_what_was_found_is_printed_and_recorded(root, tmp_path, tiny_backbone, caplog):
    config = small(root, "runtime.eager=true", "finetune.batch_norm=frozen")
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    found = facts_of(tmp_path / "run")["preflight"]
    assert (found["batch_norm_held"], found["batch_norm_moving"]) == (2, 0)
    assert found["saved_difference"] < 1e-5
    assert found["loss"] > 0
    assert found["loader_photos_per_second"] > found["network_photos_per_second"] > 0
    assert found["plan_seconds"].keys() == {"all"}
    for line in (
        "monitor       val_accuracy is there",
        "one batch     goes through training, loss ",
        "batch norm    2 layers hold their statistics, 0 move them (finetune.batch_norm=frozen)",
        "saved model   predicts as the one in memory (differs by ",
        "MB free", "it keeps up", "plan          about 0:0",
    ):  # fmt: skip
        assert line in caplog.text


def test_batch_norm_that_moves_while_it_is_frozen_is_told(root, tmp_path, monkeypatch):
    @keras.saving.register_keras_serializable("tests")
    class Restless(keras.layers.BatchNormalization):
        def call(self, x, training=None):
            if training and hasattr(x, "numpy"):
                self.moving_mean.assign_add(keras.ops.ones_like(self.moving_mean))
            return super().call(x, training=training)

    def build(name: str, *, weights: str):
        photos = keras.Input((None, None, 3))
        return keras.Model(photos, Restless(name="norm")(photos))

    monkeypatch.setattr(classifier, "build_backbone", build)
    config = small(root, "finetune.batch_norm=frozen", "runtime.eager=true")
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert (
        "Expected the statistics of the BatchNorm layer norm to stay as they are in training. "
        "Received: they moved, with Keras"
    ) in str(error.value)
    assert facts_of(tmp_path / "run")["status"] == "failed"


def test_a_model_that_predicts_otherwise_when_it_was_loaded_is_told(
    root, tmp_path, tiny_backbone, monkeypatch
):
    @keras.saving.register_keras_serializable("tests")
    class Forgetful(keras.layers.Layer):
        """Loses its number when it is saved."""

        factor = 0.0

        def call(self, x):
            return x * self.factor

    def head(x, config):
        layer = Forgetful()
        layer.factor = 50.0
        return layer(keras.layers.GlobalMaxPooling2D()(x))

    monkeypatch.setitem(HEADS, "avg_dense", head)
    with pytest.raises(UserError, match=r"Expected the saved and loaded model to predict as the"):
        train(small(root, "runtime.eager=true"), tmp_path / "run")
    assert not list((tmp_path / "run").glob(".preflight*"))


def test_a_batch_that_does_not_fit_is_found_before_the_first_epoch(
    root, tmp_path, tiny_backbone, monkeypatch, caplog
):
    room_for(monkeypatch, 2)
    with caplog.at_level("INFO"):
        train(small(root, "runtime.eager=true"), tmp_path / "run")
    told = caplog.text
    assert (
        told.index("batch_size=2 instead of 4 with") < told.index("Preflight") < told.index("1/1")
    )
    assert facts_of(tmp_path / "run")["preflight"]["stage"] == "all"


def test_a_monitor_that_is_not_measured_is_told():
    config = to_config(composed("schedule.monitor=val_accuracy"))
    nobody = SimpleNamespace(is_val=np.zeros(3, bool))
    session = SimpleNamespace(config=config, inputs=nobody)
    with pytest.raises(UserError, match=r"Expected finetune\.monitor to be one of accuracy, loss"):
        check_monitors(session, {"loss", "accuracy"})
    session.inputs = SimpleNamespace(is_val=np.ones(3, bool))
    check_monitors(session, {"loss", "accuracy"})
    with pytest.raises(UserError, match=r"Received: schedule\.monitor=val_accuracy"):
        config.finetune.keep = "last"
        check_monitors(session, {"loss"})


def test_a_run_needs_room_for_two_generations_and_the_one_that_it_writes(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])  # 8 weights
    assert disk_for(model, tmp_path, has_soup=False)[0] == 3 * 5 * 8 * 4
    assert disk_for(model, tmp_path, has_soup=True)[0] == 3 * 7 * 8 * 4


def test_a_disk_that_does_not_suffice_is_told(tmp_path):
    check_disk(tmp_path, needed=100, free=100)
    with pytest.raises(UserError, match=r"Expected 75 MB of free disk .* Received: 12 MB\. Free"):
        check_disk(tmp_path, needed=75_000_000, free=12_000_000)


def test_the_time_of_a_plan_grows_with_photos_pixels_and_layers_that_train():
    stages = to_config(
        composed(
            "~finetune.stages.top_half", "~finetune.stages.top_three_quarters", "image_size=100",
            "finetune.stages.all.image_size=200", "finetune.stages.head.epochs=2",
            "finetune.stages.all.epochs=3",
        )
    )  # fmt: skip
    found = seconds_of_stages(
        stages, "head", photo_seconds=0.01, loading_seconds=0.001, start_seconds=5, num_train=100,
        num_val=10,
    )  # fmt: skip
    assert found["head"] == pytest.approx(5 + 2 * (100 * 0.011 + 10 * 0.01))
    assert found["all"] == pytest.approx(3 * 5 + 3 * (100 * (0.12 + 0.001) + 10 * 0.04))
    assert epochs_alike(stages, "head") == pytest.approx(3 * 4 * 3)
    assert epochs_alike(stages, "all") == 0
