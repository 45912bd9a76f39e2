"""`find_lr`: what a sweep says, and what the command leaves."""

import json
import math
import sys

import numpy as np
import pandas as pd
import pytest

from carcls import runtime
from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.classifier import build_classifier, enlarged_side
from carcls.plots import draw_lr_range
from carcls.training import find_lr as module
from carcls.training.find_lr import judged, smoothed, stages_by_share, until_diverged
from carcls.training.inputs import prepare_inputs
from carcls.training.jobs import run_job
from tests.conftest import FEW_LAYERS, draw_competition
from tests.test_config import composed

RATES = np.geomspace(1e-6, 1, 100)
# Falls most steeply at 1e-4, is least at 1e-2.
VALLEY = np.where(RATES < 1e-2, 2 - np.tanh(np.log10(RATES) + 4), 1 + (np.log10(RATES) + 2) ** 2)


def test_the_suggestion_is_the_smaller_of_the_steepest_descent_and_a_tenth_of_the_least():
    sweep = judged("head", RATES, VALLEY)
    assert sweep.steepest == pytest.approx(1e-4, rel=0.2)
    assert sweep.tenth == pytest.approx(1e-3, rel=0.6)
    assert sweep.suggested == sweep.steepest
    late = judged("head", RATES, np.where(RATES < 1e-3, 2.0, 1.0) + 5 * (RATES > 2e-3))
    assert late.suggested == late.tenth < late.steepest


def test_noise_of_a_batch_moves_the_suggestion_little():
    noise = np.random.default_rng(0).normal(0, 0.3, (20, 100))
    found = np.array([judged("head", RATES, VALLEY + row).suggested for row in noise])
    assert np.exp(np.abs(np.log(found / 1e-4)).max()) < 6


def test_steepest_is_looked_for_before_the_least_only():
    jagged = VALLEY.copy()
    jagged[90:] = np.linspace(30, 0.9, 10)  # falls fast, but after it ran away
    jagged[-1] = 20
    assert judged("head", RATES, jagged).suggested == pytest.approx(1e-4, rel=0.2)


@pytest.mark.parametrize("losses", [np.linspace(1, 3, 50), np.full(50, 2.0), np.array([2.3])])
def test_a_loss_that_does_not_fall_suggests_nothing(losses):
    sweep = judged("head", RATES[: len(losses)], losses)
    assert (sweep.steepest, sweep.tenth, sweep.suggested) == (None, None, None)


def test_smoothing_keeps_what_is_constant_and_is_not_late():
    np.testing.assert_allclose(smoothed(np.full(7, 2.0)), 2.0)
    peak = smoothed(np.eye(41)[20])
    assert peak.argmax() == 20
    np.testing.assert_allclose(peak[10:31], peak[10:31][::-1])


def test_a_sweep_ends_when_the_smoothed_loss_is_four_times_its_least():
    assert list(until_diverged([1.0] * 5 + [30.0] * 5)) == [1.0] * 5 + [30.0] * 1
    assert list(until_diverged([1.0, 0.5, math.nan, 0.1])) == [1.0, 0.5]
    assert list(until_diverged([math.inf])) == []
    assert len(list(until_diverged([2.0] * 100))) == 100


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A test of four stages, whose first two train nothing of the backbone: (workdir, outcome)."""
    folder = tmp_path_factory.mktemp("find_lr")
    root = draw_competition(folder / "data", per_class=4)
    config = to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=4",
            "runtime.eager=true", "runtime.workers=0", "find_lr=true", "head=max_dropout",
            "schedule=cosine", "~finetune.stages.all", "finetune.enlarge=1.5",
            # By its layers both are the same, which shows whether the weights were restored.
            "finetune.stages.top_half.trainable=0",
            "finetune.stages.top_three_quarters.trainable=0.001",
        )
    )  # fmt: skip
    steps, argv = module.STEPS, sys.argv
    module.STEPS = 7
    sys.argv = [
        "/x/train.py", "data.root='a b'", "hydra.run.dir='/r'", "find_lr=true", "optimizer=sgd"
    ]  # fmt: skip
    try:
        outcome = run_job(config, folder / "run", prepare_inputs(config))
        command = module._command({"head": 0.0003, "all": 1e-5})
    finally:
        module.STEPS, sys.argv = steps, argv
    return folder / "run", outcome, command


def test_find_lr_leaves_numbers_a_picture_and_no_model(found):
    workdir, outcome, _ = found
    assert {path.name for path in workdir.iterdir()} == {
        "run.json", "lr_range.csv", "lr_range.png"
    }  # fmt: skip
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "find_lr"
    assert facts["enlarged_to"] == {"head": 48, "top_half": 48, "top_three_quarters": 48}
    assert facts["suggestions"] == outcome.metrics["suggestions"]
    assert list(facts["suggestions"]) == ["head", "top_half", "top_three_quarters"]
    assert facts["suggestions"]["head"] == facts["suggestions"]["top_half"]


def test_rates_grow_exponentially_and_every_share_starts_from_the_same_network(found):
    table = pd.read_csv(found[0] / "lr_range.csv")
    assert table.stage.unique().tolist() == ["head", "top_three_quarters"]
    first, second = (rows.reset_index(drop=True) for _, rows in table.groupby("stage"))
    np.testing.assert_allclose(first.learning_rate, np.geomspace(1e-6, 1, 7)[: len(first)])
    assert first.step.tolist() == list(range(1, len(first) + 1))
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-3)
    assert first.loss.nunique() == len(first)


def test_the_command_that_is_shown_trains_with_what_was_found(found):
    assert found[2] == (
        "python train.py 'data.root=a b' optimizer=sgd finetune.stages.head.learning_rate=0.0003 "
        "finetune.stages.all.learning_rate=1e-05"
    )


def test_stages_in_which_the_same_share_trains_share_a_test():
    config = to_config(composed("finetune.stages.top_half.trainable=1"))
    assert stages_by_share(config) == {
        0.0: ["head"], 1.0: ["top_half", "all"], 0.75: ["top_three_quarters"]
    }  # fmt: skip


def test_a_stage_on_cached_features_has_no_rate_to_look_for():
    config = to_config(composed("finetune=fast"))
    assert stages_by_share(config) == {1.0: ["all"]}
    with pytest.raises(UserError) as error:
        stages_by_share(to_config(composed("finetune=probe")))
    assert str(error.value) == (
        "Expected find_lr=true with a plan that has a stage with a learning rate. Received: "
        "finetune=probe, whose heads are fitted on cached features, without one. Leave find_lr "
        "out, or choose another plan, as finetune=fast."
    )


def test_with_gradient_accumulation_a_step_is_so_many_batches(tmp_path, monkeypatch):
    """The weights stay as they are within a step, so its loss is the mean of its batches'."""
    monkeypatch.setattr(module, "STEPS", 1)
    root = draw_competition(tmp_path / "data", per_class=2)

    def losses(**changes):
        config = to_config(
            composed(
                f"data.root='{root}'", *FEW_LAYERS, "image_size=32", "runtime.eager=true",
                "runtime.workers=0", "augmentation=none", "head=linear", "head.dropout=0",
                *(f"{key}={value}" for key, value in changes.items()),
            )
        )  # fmt: skip
        runtime.set_up(config.runtime, config.seed)
        inputs = prepare_inputs(config)
        model = build_classifier(config.backbone, config.head, 10)
        stage = config.finetune.stages["head"]
        return module._swept(model, config, stage, inputs, "head")[1]

    whole, halves = losses(batch_size=8), losses(batch_size=4, gradient_accumulation=2)
    np.testing.assert_allclose(whole, halves, rtol=1e-4)


def test_rates_are_looked_for_in_a_network_that_enlarges_as_the_stage_does(tmp_path, monkeypatch):
    sides = []

    def swept(model, config, stage, inputs, name):
        sides.append(enlarged_side(model))
        return RATES, VALLEY

    monkeypatch.setattr(module, "_swept", swept)
    config = to_config(
        composed(
            f"data.root='{draw_competition(tmp_path / 'data')}'", "backbone=efficientnetlite0",
            "image_size=32", "finetune.enlarge=1.5", "finetune.stages.top_half.enlarge=1.25",
            "finetune.stages.all.enlarge=2", "find_lr=true", "schedule=cosine",
        )
    )  # fmt: skip
    module.find_lr(config, tmp_path / "run", prepare_inputs(config))
    assert sides == [48, 60, 48, 96]


def test_the_picture_has_a_panel_a_sweep_with_its_suggestion():
    flat = judged("all (trainable=1)", RATES[:30], np.full(30, 2.0))
    figure = draw_lr_range([judged("head (trainable=0)", RATES, VALLEY), flat, flat], "a run")
    assert [axis.get_visible() for axis in figure.axes] == [True, True, True, False]
    first, second = figure.axes[:2]
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels[:2] == ["batch", "smoothed"]
    assert labels[2].startswith("steepest descent: ") and labels[4].startswith("suggested: ")
    np.testing.assert_array_equal(first.lines[0].get_ydata(), VALLEY)
    assert len(second.get_legend().get_texts()) == 2
    assert first.get_xscale() == "log"
