"""`runtime.devices`: what several devices learn is what one learns with the same batch."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.classifier import load_classifier
from carcls.training import parallel
from carcls.training.memory import halved
from tests import processes
from tests.conftest import draw_competition
from tests.processes import ROOT
from tests.test_config import composed, told

SCRIPT = ROOT / "tests" / "two_devices.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """18 photos, of which 3 validate."""
    return draw_competition(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tensorflow_runs(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    result = processes.run(SCRIPT, str(data), str(folder), "still", "all_at_once", cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def losses(run: Path) -> list[np.ndarray]:
    return [np.array(steps) for steps in json.loads((run / "losses.json").read_text()).values()]


def histories(run: Path) -> list[pd.DataFrame]:
    columns = ["learning_rate", "loss", "accuracy", "val_loss", "val_accuracy"]
    return [pd.read_csv(run / number / "history.csv")[columns] for number in ("1", "2")]


def weights(run: Path) -> list[list[np.ndarray]]:
    return [load_classifier(run / number / "model.keras").get_weights() for number in ("1", "2")]


def facts(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_two_devices_of_tensorflow_have_the_losses_of_one(tensorflow_runs):
    run = tensorflow_runs / "still"
    one, two = losses(run)
    assert len(one) == 20
    # The head's BatchNorm, of shares of 2 photos, blows rounding up: seen was 1.05e-5 of 1.08.
    np.testing.assert_allclose(two, one, atol=1e-5, rtol=1e-5)
    assert one[0] != one[4], "it learns"
    pd.testing.assert_frame_equal(*histories(run), atol=1e-5)
    for ours, theirs in zip(*weights(run), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_clipping_accumulation_averages_weights_and_batch_norm_are_those_of_one(tensorflow_runs):
    run = tensorflow_runs / "all_at_once"
    np.testing.assert_allclose(*losses(run), atol=1e-5)
    pd.testing.assert_frame_equal(*histories(run), atol=1e-5)
    for ours, theirs in zip(*weights(run), strict=True):
        # Moving variances are around 100: rounding shows in the seventh digit, seen was 1.5e-6.
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_run_says_how_many_devices_it_had_and_leaves_a_model_like_any_other(tensorflow_runs):
    run = tensorflow_runs / "all_at_once"
    one, two = facts(run / "1"), facts(run / "2")
    assert (one["devices"], two["devices"]) == (1, 2)
    assert two["device"].endswith(", trained on 2 of 2 devices, cached features on one")
    assert two["status"] == "finished"
    assert two["preflight"]["loss"] == pytest.approx(one["preflight"]["loss"], abs=1e-5)
    assert two["preflight"]["batch_norm_moving"] == one["preflight"]["batch_norm_moving"] == 2
    # Nothing of the devices is in the file.
    one, two = (load_classifier(run / number / "model.keras") for number in ("1", "2"))
    assert one.get_layer("head_norm1").get_config() == two.get_layer("head_norm1").get_config()
    assert one.get_layer("head_dense").get_config() == two.get_layer("head_dense").get_config()
    metrics = [json.loads((run / number / "metrics.json").read_text()) for number in ("1", "2")]
    assert metrics[1]["val_nll"] == pytest.approx(metrics[0]["val_nll"], abs=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="jax is not installed: pip install jax, then KERAS_BACKEND=jax works",
)
def test_two_devices_of_jax_have_the_losses_of_one(data, tmp_path):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(data), str(tmp_path), "still", "all_at_once"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]),
             "KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    run = tmp_path / "still"
    one, two = losses(run)
    assert len(one) == 20
    np.testing.assert_allclose(two, one, atol=1e-4)
    pd.testing.assert_frame_equal(*histories(run), atol=1e-4)
    assert facts(run / "2")["devices"] == 2
    # A preflight too, and averages of the weights, which Keras leaves in two places at once here.
    np.testing.assert_allclose(*losses(tmp_path / "all_at_once"), atol=1e-4)
    pd.testing.assert_frame_equal(*histories(tmp_path / "all_at_once"), atol=1e-4)


def test_more_devices_than_there_are_and_what_there_is_are_told():
    config = to_config(composed("runtime.devices=16"))
    with pytest.raises(UserError) as told_error:
        parallel.set_up(config)
    message = str(told_error.value)
    assert message.startswith("Expected 16 devices (runtime.devices=16). Received: 1 device, CPU:0")
    assert "runtime.device=cpu cuts the CPU into as many, to try it" in message


def test_a_cpu_that_is_at_work_cannot_be_cut():
    float(keras.ops.sum(keras.ops.ones(2)))
    config = to_config(composed("runtime.devices=16", "runtime.device=cpu"))
    with pytest.raises(UserError, match=r"Expected a CPU that can be cut into 16 devices .*: one "):
        parallel.set_up(config)


def test_all_devices_of_one_are_one_and_this_is_said(caplog):
    with caplog.at_level("INFO"):
        devices = parallel.set_up(to_config(composed("runtime.devices=all", "batch_size=5")))
    assert (devices.count, devices.distribution) == (1, None)
    assert "runtime.devices=all: 1 device." in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("runtime.devices=0",), "Expected devices to be a number from 1, or all. Received: dev"),
        (("runtime.devices=some",), "Expected devices to be a number from 1, or all. Received: d"),
        (("runtime.devices=true",), "Expected devices to be a number from 1, or all. Received: d"),
        (
            ("runtime.devices=3",),
            "Expected batch_size to be a multiple of the 3 devices, such as 18, in the stage head. "
            "Received: batch_size=16, devices=3",
        ),
        (
            ("runtime.devices=8", "finetune.stages.all.batch_size=12"),
            "Expected batch_size to be a multiple of the 8 devices, such as 16, in the stage all. ",
        ),
    ],
)
def test_what_cannot_be_shared_is_told_before_keras_loads(overrides, message):
    assert told(*overrides).startswith(message)


def test_a_stage_on_cached_features_takes_one_device_and_any_batch():
    stage = to_config(composed("finetune=fast", "runtime.devices=2")).finetune.stages["head"]
    assert stage.feature_views
    to_config(composed("finetune=fast", "runtime.devices=2", "finetune.stages.head.batch_size=5"))
    several = parallel.Devices(2, "two", distribution=None)
    with several.scope(stage) as nothing:
        assert nothing is None


@pytest.mark.parametrize(
    ("backend", "overrides", "message"),
    [
        ("torch", (), r"Expected runtime.devices=1 with KERAS_BACKEND=torch, .*devices=2\. Take K"),
        ("tensorflow", ("runtime.jit=true",), r"Expected runtime.jit=null or false with several d"),
    ],
)
def test_a_backend_that_cannot_share_a_batch_is_told(backend, overrides, message, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(UserError, match=message):
        parallel.set_up(to_config(composed("runtime.devices=2", *overrides)))


def test_a_batch_that_halves_unevenly_for_its_devices_is_not_halved():
    config = to_config(composed("batch_size=12"))
    assert halved(config, "OOM", devices=3)[0].batch_size == 6
    with pytest.raises(UserError, match=r"Expected a batch to fit into the memory of the device"):
        halved(config, "OOM", devices=4)
