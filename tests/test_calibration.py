"""Temperatures: fitted to validation photos, kept with the run, used when asked for."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.config import to_config, to_predict_config
from carcls.errors import UserError
from carcls.models.probabilities import at_temperature, fit_temperature
from carcls.prediction.ensemble import load_predictor
from carcls.prediction.predict import predict
from carcls.training.loop import train
from tests.conftest import draw_competition, use_tiny_backbone
from tests.test_config import composed


def drawn(temperature: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits were multiplied by a temperature: that much too sure."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (n, 5))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (random.random((n, 1)) > true.cumsum(1)).sum(1)
    sure = np.exp(logits * temperature)
    return (sure / sure.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_made_them_too_sure_is_found(temperature):
    probs, labels = drawn(temperature)
    assert fit_temperature(probs, labels) == pytest.approx(temperature, rel=0.05)


def test_it_stays_within_limits_where_all_is_right_or_wrong():
    right = np.array([[0.6, 0.4], [0.6, 0.4]])
    assert fit_temperature(right, np.array([0, 0])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(right, np.array([1, 1])) == pytest.approx(20, rel=0.01)


@settings(deadline=None)
@given(temperature=st.floats(0.05, 20), seed=st.integers(0, 1000))
def test_a_temperature_changes_how_sure_and_not_what(temperature, seed):
    probs = np.random.default_rng(seed).dirichlet(np.ones(4), 10).astype(np.float32)
    found = at_temperature(probs, temperature)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), probs.argmax(1))
    assert found.dtype == np.float32
    is_surer = found.max(1) >= probs.max(1) - 1e-6
    assert (
        is_surer if temperature < 1 else ~is_surer | (found.max(1) <= probs.max(1) + 1e-6)
    ).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    root = draw_competition(folder / "data", per_class=6)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        train(
            to_config(
                composed(
                    f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32",
                    "batch_size=4", "finetune=frozen", "finetune.stages.head.epochs=1",
                    "head=linear", "runtime.eager=true", "runtime.preflight=false",
                )
            ),
            folder / "run",
        )  # fmt: skip
    return folder / "run"


def test_a_run_keeps_the_temperature_of_its_validation_photos(run):
    saved = pd.read_csv(run / "val_predictions.csv", dtype={"label": str})
    names = [column.removeprefix("p_") for column in saved if column.startswith("p_")]
    probs = saved.filter(like="p_").filter(regex="^p_").to_numpy()
    labels = np.array([names.index(label) for label in saved.label])
    kept = json.loads((run / "metrics.json").read_text())["temperature"]
    assert kept == pytest.approx(fit_temperature(probs, labels), rel=1e-2)


def predicted(run, workdir, *overrides: str) -> np.ndarray:
    workdir.mkdir(exist_ok=True)
    predict(to_predict_config(composed(f"ckpt='{run}'", *overrides, name="predict")), workdir)
    table = pd.read_csv(workdir / "submission_probabilities.csv", index_col=0)
    return table.to_numpy(np.float32)


def test_predict_uses_it_when_asked_for(run, tmp_path):
    temperature = json.loads((run / "metrics.json").read_text())["temperature"]
    plain = predicted(run, tmp_path / "out")
    calibrated = predicted(run, tmp_path / "out", "calibrated=true")
    np.testing.assert_allclose(calibrated, at_temperature(plain, temperature), atol=2e-5)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["calibrated"] is True
    assert (tmp_path / "out" / "earlier_1" / "submission.csv").is_file()


def test_a_model_without_a_temperature_is_refused(run, tmp_path):
    shutil.copy(run / "model.keras", tmp_path / "alone.keras")
    with pytest.raises(UserError) as error:
        load_predictor([str(tmp_path / "alone.keras")], is_calibrated=True)
    assert str(error.value) == (
        "Expected calibrated=true with a run whose metrics.json has a temperature: one of carcls "
        f"0.5 or later, with validation photos. Received: {tmp_path / 'alone.keras'}, without. "
        "Leave calibrated out."
    )
    with pytest.raises(UserError, match="Expected calibrated=true with trained runs"):
        load_predictor(["efficientnetlite0"], is_calibrated=True)
