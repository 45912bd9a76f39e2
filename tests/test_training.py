import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.classifier import load_classifier
from carcls.run import read_model_info
from carcls.training.callbacks import Best, History, KeepWeights, StopOnSignal
from carcls.training.feed import Feed
from carcls.training.loop import train
from tests.conftest import FEW_LAYERS, draw_competition, use_tiny_backbone
from tests.test_config import composed
from tests.test_training_processes import workers_of

TWO_STAGES = (
    "~finetune.stages.top_half",
    "~finetune.stages.top_three_quarters",
    "finetune.stages.head.epochs=1",
    "finetune.stages.all.epochs=1",
)


def small(root: Path, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=4",
            "runtime.preflight=false", *overrides,
        )
    )  # fmt: skip


def quick(root: Path, *overrides: str):
    return to_config(
        composed(f"data.root='{root}'", *FEW_LAYERS, "image_size=32", "batch_size=4", *overrides)
    )


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A run of four stages, traced; (config, workdir, outcome)."""
    folder = tmp_path_factory.mktemp("staged")
    root = draw_competition(folder / "data", per_class=10)
    (root / "train" / "12" / "broken.jpg").write_bytes(b"<html>no photo</html>")
    with (root / "train.csv").open("a") as file:
        file.write("broken.jpg,12\n")
    stages = ["head", "top_half", "top_three_quarters", "all"]
    config = quick(
        root, "runtime.tensorboard=true", *(f"finetune.stages.{name}.epochs=2" for name in stages),
        "runtime.workers=2",
        "runtime.steps_per_execution=4",  # of 6 batches to train on and 2 to validate with
    )  # fmt: skip
    workdir = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        return config, workdir, train(config, workdir)


def test_a_run_leaves_everything_behind(staged):
    _, workdir, _ = staged
    assert {path.name for path in workdir.iterdir()} == {
        "model.keras", "run.json", "metrics.json", "history.csv", "val_predictions.csv",
        "curves.png", "tensorboard",
    }  # fmt: skip
    with Image.open(workdir / "curves.png") as picture:
        assert picture.size == (1200, 840)


def test_history_has_a_row_an_epoch(staged):
    history = pd.read_csv(staged[1] / "history.csv")
    assert history.epoch.tolist() == list(range(1, 9))
    assert (
        history.stage.tolist()
        == np.repeat(["head", "top_half", "top_three_quarters", "all"], 2).tolist()
    )
    assert (history.learning_rate == 1e-3).all()
    assert (history.images_per_second > 0).all()
    assert history.notna().all(axis=None)


def test_metrics_are_those_of_the_kept_model(staged):
    config, workdir, _ = staged
    metrics = json.loads((workdir / "metrics.json").read_text())
    history = pd.read_csv(workdir / "history.csv")
    best = history.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert metrics["kept_epoch"] == best.epoch
    assert metrics["val_accuracy"] == pytest.approx(best.val_accuracy, abs=1e-6)
    assert metrics["val_loss"] == pytest.approx(best.val_loss, abs=1e-6)
    assert [stage["name"] for stage in metrics["stages"]] == list(config.finetune.stages)
    assert [stage["epochs"] for stage in metrics["stages"]] == [2, 2, 2, 2]
    assert metrics["n_train"] + metrics["n_val"] == 30
    assert metrics["n_val"] == 6


def test_validation_predictions_are_a_row_a_photo_with_names_as_the_data_has_them(staged):
    _, workdir, _ = staged
    table = pd.read_csv(workdir / "val_predictions.csv", dtype={"label": str, "predicted": str})
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert table.columns.tolist() == [
        "id", "label", "predicted", "p_007", "p_12", "p_red, wide"
    ]  # fmt: skip
    assert (table.label == table.predicted).mean() == pytest.approx(metrics["val_accuracy"])
    assert table.label.value_counts().to_dict() == {"007": 2, "12": 2, "red, wide": 2}
    probs = table.filter(like="p_").to_numpy()
    assert probs.sum(1) == pytest.approx(np.ones(6), abs=1e-5)


def test_run_json_says_what_ran_and_what_was_left_out(staged):
    config, workdir, _ = staged
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["skipped"] == [{"id": "broken.jpg", "reason": "not an image but a web page"}]
    assert facts["config"]["finetune"]["stages"]["all"]["epochs"] == 2
    assert facts["versions"]["keras"] == keras.__version__
    assert len(facts["data_fingerprint"]) == 16
    info = read_model_info(workdir / "model.keras")
    assert info.class_names == ["007", "12", "red, wide"]
    assert info.class_counts == [8, 8, 8]
    assert (info.image_size, info.config["seed"]) == (32, config.seed)


def test_the_saved_model_carries_no_optimizer(staged):
    model = load_classifier(staged[1] / "model.keras")
    assert getattr(model, "optimizer", None) is None
    assert (staged[1] / "model.keras").stat().st_size < 1.2 * 4 * model.count_params() + 1e6


def test_a_loss_that_becomes_nan_at_once_is_told(tmp_path, tiny_backbone):
    root = draw_competition(tmp_path / "data")
    config = small(root, *TWO_STAGES, "finetune.stages.head.learning_rate=1e38")
    with pytest.raises(
        UserError, match=r"Nothing was kept, since no epoch ended well\. Try a lower"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "diverged"


def test_keep_last_keeps_the_last_epoch(tmp_path, tiny_backbone):
    root = draw_competition(tmp_path / "data")
    config = quick(root, *TWO_STAGES, "finetune.keep=last", "runtime.eager=true")
    outcome = train(config, tmp_path / "run")
    last = pd.read_csv(tmp_path / "run" / "history.csv").iloc[-1]
    assert outcome.metrics["kept_epoch"] == 2
    assert outcome.metrics["val_accuracy"] == pytest.approx(last.val_accuracy, abs=1e-6)


def test_a_gpu_that_is_not_there_is_told(tmp_path):
    root = draw_competition(tmp_path / "data")
    if "GPU" in {device.split(":")[0].upper() for device in keras.distribution.list_devices()}:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="Expected a GPU"):
        train(small(root, "runtime.device=gpu"), tmp_path / "run")


def logs(accuracy: float, loss: float) -> dict[str, float]:
    return {"loss": loss, "accuracy": accuracy, "val_accuracy": accuracy, "val_loss": loss}


def test_best_prefers_accuracy_then_loss_and_remembers_over_stages():
    best = Best("val_accuracy")
    assert best.improve(1, logs(0.5, 1.0))
    assert not best.improve(2, logs(0.5, 1.0))
    assert best.improve(3, logs(0.5, 0.9))
    assert not best.improve(4, logs(0.4, 0.1))
    assert not best.improve(5, logs(float("nan"), float("nan")))
    assert best.improve(6, logs(0.6, 2.0))
    assert best.epoch == 6


def test_best_by_loss_prefers_loss():
    best = Best("val_loss")
    assert best.improve(1, logs(0.9, 1.0))
    assert best.improve(2, logs(0.1, 0.5))


@pytest.mark.parametrize(("keep", "saved_after"), [("best", [1, 3]), ("last", [1, 2, 3])])
def test_weights_are_saved_after_each_epoch_that_is_kept(keep, saved_after):
    saved = []
    best = Best("val_accuracy")
    callback = KeepWeights(lambda: saved.append(epoch + 1), best, keep, first_epoch=10)
    for epoch, accuracy in enumerate([0.5, 0.4, 0.6]):
        callback.on_epoch_end(epoch, logs(accuracy, 1.0))
    assert saved == saved_after
    assert (best.epoch, best.kept_epoch) == (13, 13)


def test_an_epoch_that_diverged_is_never_kept():
    saved = []
    best = Best("val_accuracy")
    callback = KeepWeights(lambda: saved.append(1), best, "last", first_epoch=0)
    callback.on_epoch_end(0, logs(0.5, 1.0))
    callback.on_epoch_end(1, logs(0.9, 1.0) | {"val_loss": float("inf")})
    callback.on_epoch_end(2, logs(0.9, float("nan")))
    assert (saved, best.kept_epoch) == ([1], 1)


def test_the_speed_of_an_epoch_that_was_cut_short_counts_what_it_trained(tmp_path):
    history = History(tmp_path / "history.csv")
    history.start_stage("head", photos_per_epoch=1000, steps_per_epoch=100)
    history.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1)))
    history.on_epoch_begin(0)
    for batch in range(10):
        history.on_train_batch_end(batch)
    time.sleep(0.1)
    history.on_epoch_end(0, logs(0.5, 1.0))
    assert 0 < history.rows[0]["images_per_second"] <= 1000


def test_a_run_that_diverges_later_ends_with_what_it_kept(tmp_path, tiny_backbone):
    root = draw_competition(tmp_path / "data")
    config = small(
        root, *TWO_STAGES, "finetune.keep=last", "runtime.eager=true",
        "finetune.stages.all.trainable=0", "finetune.stages.all.learning_rate=1e30",
    )  # fmt: skip
    outcome = train(config, tmp_path / "run")
    assert outcome.metrics["kept_epoch"] == 1
    assert "epoch 1, the one kept before, is in" in outcome.divergence
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "diverged"


def test_a_second_ctrl_c_stops_at_once():
    said = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopOnSignal(said.append) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert len(said) == 1
    assert signal.getsignal(signal.SIGINT) is before


class CountingLoader:
    """Steps as batches: what `fit` is fed shows in their numbers."""

    def __init__(self) -> None:
        self.streams = 0

    def from_step(self, step: int):
        self.streams += 1
        while True:
            yield np.array([[step]]), np.array([0])
            step += 1


def test_a_batch_of_the_feed_is_a_function_of_its_number():
    loader = CountingLoader()
    feed = Feed(loader, first_step=100)
    asked = [0, 1, 0, 1, 2, 3, 7, 8, 0]
    assert [int(feed[i][0][0, 0]) for i in asked] == [100 + i for i in asked]
    assert loader.streams == 4, "calls in order share a stream"


def test_every_epoch_validates_on_all_validation_photos_once():
    seen = []

    class Record(keras.layers.Layer):
        def call(self, x):
            seen.append(int(x[0, 0]))
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((1,))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(Record()(x)))
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True, jit_compile=False)
    seen.clear()
    model.fit(
        Feed(CountingLoader(), 1000), steps_per_epoch=2, epochs=3, shuffle=False, verbose=0,
        validation_data=Feed(CountingLoader()), validation_steps=3,
    )  # fmt: skip
    assert [step for step in seen if step >= 1000] == [1000, 1001, 1002, 1003, 1004, 1005]
    validated = [step % 3 for step in seen if step < 1000]
    assert validated == [0, 1, 2] * 3


def test_no_process_outlives_a_run(staged):
    assert workers_of(os.getpid()) == []
