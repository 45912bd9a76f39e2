"""What an optimizer gets, and what each schedule makes of the learning rate."""

import keras
import numpy as np
import pytest

from carcls.config import PlateauSchedule, to_config
from carcls.training.optimizers import build_optimizer, schedule_callbacks
from tests.test_config import composed


def rates(schedule: str, steps: list[int], *overrides: str, planned: int = 100) -> np.ndarray:
    config = to_config(composed(f"schedule={schedule}", *overrides))
    optimizer = build_optimizer(config.optimizer, config.schedule, 0.5, planned)
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return np.array(found)


def test_exponential_multiplies_by_its_rate_every_so_many_steps():
    steps = [0, 50, 100, 250]
    expected = 0.5 * 0.95 ** (np.array(steps) / 100)
    np.testing.assert_allclose(rates("exponential", steps), expected, rtol=1e-5)
    stairs = 0.5 * 0.95 ** np.array([0, 0, 1, 2])
    np.testing.assert_allclose(
        rates("exponential", steps, "schedule.staircase=true"), stairs, rtol=1e-5
    )


def test_cosine_warms_up_to_the_stages_rate_and_falls_to_its_final_share():
    steps = np.arange(101)
    found = rates("cosine", steps.tolist(), "schedule.final=0.1")
    np.testing.assert_allclose(found[:11], np.linspace(0.5 / 11, 0.5, 11), rtol=1e-5)
    after = (steps[10:] - 10) / 90
    expected = 0.5 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * after)))
    np.testing.assert_allclose(found[10:], expected, rtol=1e-4)


def test_cosine_without_warmup_starts_at_the_stages_rate():
    found = rates("cosine", [0, 50, 100, 150], "schedule.warmup=0")
    np.testing.assert_allclose(found, [0.5, 0.25, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_others_leave_the_rate_to_callbacks(schedule):
    np.testing.assert_allclose(rates(schedule, [0, 99]), [0.5, 0.5])
    callbacks = schedule_callbacks(to_config(composed(f"schedule={schedule}")).schedule)
    assert [type(callback) for callback in callbacks] == (
        [keras.callbacks.ReduceLROnPlateau] if schedule == "plateau" else []
    )


def test_a_plateau_is_what_its_configuration_says():
    schedule = PlateauSchedule(
        name="plateau", factor=0.1, patience=3, min_learning_rate=1e-5, monitor="val_accuracy"
    )
    (callback,) = schedule_callbacks(schedule)
    assert (callback.factor, callback.patience, callback.min_lr) == (0.1, 3, 1e-5)
    assert callback.monitor == "val_accuracy"


@pytest.mark.parametrize(
    ("overrides", "kind", "numbers"),
    [
        (("optimizer=adamax", "optimizer.beta_1=0.8"), keras.optimizers.Adamax, {"beta_1": 0.8}),
        (("optimizer=adam", "optimizer.amsgrad=true"), keras.optimizers.Adam, {"amsgrad": True}),
        (
            ("optimizer=adamw", "optimizer.weight_decay=0.3"),
            keras.optimizers.AdamW,
            {"weight_decay": 0.3, "amsgrad": False, "epsilon": 1e-7},
        ),
        (
            ("optimizer=sgd", "optimizer.nesterov=false"),
            keras.optimizers.SGD,
            {"momentum": 0.9, "nesterov": False},
        ),
    ],
)
def test_every_number_of_an_optimizer_reaches_keras(overrides, kind, numbers):
    config = to_config(composed(*overrides))
    optimizer = build_optimizer(config.optimizer, config.schedule, 0.25, steps=10)
    assert type(optimizer) is kind
    found = optimizer.get_config()
    assert {name: found[name] for name in numbers} == numbers
    assert found["learning_rate"] == pytest.approx(0.25)
