"""What an optimizer gets, and what each schedule makes of the learning rate."""

import keras
import numpy as np
import pytest

from carcls.config import PlateauSchedule, to_config
from carcls.training.callbacks import AverageWeights
from carcls.training.optimizers import build_optimizer, schedule_callbacks
from tests.test_config import composed

SPAN = -1 / (99 * np.log(0.9))  # of 99 steps: a decay of 0.9 a step


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


def test_cosine_high_ends_at_four_tenths_of_the_stages_rate():
    found = rates("cosine_high", [10, 55, 100])
    np.testing.assert_allclose(found, [0.5, 0.5 * 0.7, 0.5 * 0.4], rtol=1e-4)


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
        (
            ("optimizer=adamax", "optimizer.beta_1=0.8"),
            keras.optimizers.Adamax,
            {"beta_1": 0.8, "global_clipnorm": None},
        ),
        (("optimizer=adam", "optimizer.amsgrad=true"), keras.optimizers.Adam, {"amsgrad": True}),
        (
            ("optimizer=adamw", "optimizer.weight_decay=0.3"),
            keras.optimizers.AdamW,
            {"weight_decay": 0.3, "amsgrad": False, "epsilon": 1e-7},
        ),
        (
            ("optimizer=sgd", "optimizer.nesterov=false", "optimizer.clip_norm=2"),
            keras.optimizers.SGD,
            {"momentum": 0.9, "nesterov": False, "global_clipnorm": 2.0},
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


def test_the_gradient_of_all_weights_together_is_cut_to_its_length():
    config = to_config(composed("optimizer=sgd", "schedule=constant", "optimizer.clip_norm=1"))
    optimizer = build_optimizer(config.optimizer, config.schedule, 1.0, steps=10)
    optimizer.momentum = 0.0
    variables = [keras.Variable(np.zeros(1)), keras.Variable(np.zeros(2))]
    optimizer.apply([keras.ops.array([3.0]), keras.ops.array([0.0, 4.0])], variables)
    np.testing.assert_allclose(variables[0].numpy(), [-0.6], rtol=1e-6)
    np.testing.assert_allclose(variables[1].numpy(), [0, -0.8], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "sgd"])
def test_a_step_that_is_centralized_leaves_the_mean_of_the_weights_of_an_output(name):
    shapes = {"dense": (6, 3), "conv": (3, 3, 2, 4), "depthwise": (3, 3, 4, 1), "bias": (4,)}
    draw = np.random.default_rng(0).normal
    starts = {kind: draw(size=shape).astype("float32") for kind, shape in shapes.items()}
    gradients = {kind: draw(0.5, 1.0, shape).astype("float32") for kind, shape in shapes.items()}
    moved = {}
    for centralize in ("false", "true"):
        config = to_config(
            composed(
                f"optimizer={name}", "schedule=constant", f"optimizer.centralize={centralize}",
                *(["optimizer.weight_decay=0"] if name == "adamw" else []),
            )
        )  # fmt: skip
        optimizer = build_optimizer(config.optimizer, config.schedule, 0.1, steps=10)
        variables = [keras.Variable(start, name=kind) for kind, start in starts.items()]
        for _ in range(2):
            optimizer.apply([keras.ops.array(value) for value in gradients.values()], variables)
        moved[centralize] = {v.name: v.numpy() - starts[v.name] for v in variables}
    for kind in ("dense", "conv"):
        found, plain = moved["true"][kind], moved["false"][kind]
        inputs = tuple(range(found.ndim - 1))
        np.testing.assert_allclose(found.mean(inputs), 0, atol=1e-6)
        expected = plain - plain.mean(inputs, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(plain.mean(inputs)).max() > 0.02
    for kind in ("depthwise", "bias"):
        np.testing.assert_allclose(moved["true"][kind], moved["false"][kind], atol=1e-6)


def dense_model() -> keras.Model:
    inputs = keras.Input((2,))
    x = keras.layers.Dense(2, kernel_initializer="ones", name="low")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="high")(x))


@pytest.mark.parametrize("name", ["adam", "adamax", "adamw", "sgd"])
def test_a_variable_moves_and_decays_at_its_own_share_of_the_learning_rate(name):
    config = to_config(
        composed(f"optimizer={name}", "schedule=constant", "optimizer.centralize=false")
    )
    moved = []
    for shares in (None, {"low/kernel": 0.25}):
        model = dense_model()
        before = [v.numpy() for v in model.trainable_variables]
        optimizer = build_optimizer(config.optimizer, config.schedule, 0.1, 10, shares=shares)
        gradients = [keras.ops.ones_like(v) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
        after = [v.numpy() for v in model.trainable_variables]
        moved.append([a - b for a, b in zip(after, before, strict=True)])
    paths = [v.path for v in model.trainable_variables]
    assert paths[0] == "low/kernel"
    np.testing.assert_allclose(moved[1][0], 0.25 * moved[0][0], rtol=1e-4)
    for full, shared in zip(moved[0][1:], moved[1][1:], strict=True):
        np.testing.assert_allclose(shared, full, rtol=1e-4)
    assert np.all(moved[0][0] < -0.01)


def test_weight_decay_is_the_same_with_shares_of_one():
    ends = []
    for shares in (None, {"low/kernel": 1.0}):
        config = to_config(
            composed(
                "optimizer=adamw", "schedule=constant", "optimizer.weight_decay=0.5",
                "optimizer.centralize=false",
            )
        )  # fmt: skip
        model = dense_model()
        optimizer = build_optimizer(config.optimizer, config.schedule, 0.1, 10, shares=shares)
        for _ in range(3):
            gradients = [0.1 * keras.ops.ones_like(v) for v in model.trainable_variables]
            optimizer.apply(gradients, model.trainable_variables)
        ends.append([v.numpy() for v in model.trainable_variables])
    for plain, shared in zip(*ends, strict=True):
        np.testing.assert_allclose(shared, plain, rtol=1e-6)
    assert ends[0][0].max() < 1 - 3 * 0.1  # it decays on top of what Adam moves


def test_the_moving_average_is_validated_and_kept_and_the_trained_weights_go_on():
    config = to_config(composed("optimizer=sgd", "schedule=constant", "optimizer.momentum=0"))
    model = dense_model()
    optimizer = build_optimizer(config.optimizer, config.schedule, 0.01, 99, ema_span=SPAN)
    model.compile(optimizer, loss="mse")
    average = AverageWeights()
    seen, validated = [], []
    data = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(model.layers[1].kernel.numpy()),
        on_test_end=lambda logs: validated.append(model.layers[1].kernel.numpy()),
    )
    model.fit(
        *data, validation_data=data, batch_size=2, epochs=3, verbose=0,
        callbacks=[average, watch, average.back],
    )  # fmt: skip
    expected, averages = seen[0], []
    for step, kernel in enumerate(seen):
        expected = kernel if step == 0 else 0.9 * expected + 0.1 * kernel
        averages.append(expected)
    np.testing.assert_allclose(validated, averages[1::2], rtol=1e-5)
    # The next epoch goes on from what was trained: a step never jumps back to the average.
    steps = np.abs(np.diff(seen, axis=0)).max(axis=(1, 2))
    assert np.all(np.diff(steps) < 0)
    # And the average stays in the model.
    np.testing.assert_allclose(model.layers[1].kernel.numpy(), averages[-1], rtol=1e-5)


def test_the_average_forgets_as_fast_with_accumulated_batches():
    config = to_config(composed("optimizer=sgd", "schedule=constant", "optimizer.momentum=0"))
    averages = []
    for accumulation in (1, 2):
        variable = keras.Variable([1.0])
        optimizer = build_optimizer(
            config.optimizer, config.schedule, 0.1, 99 * accumulation, accumulation, SPAN
        )
        for _ in range(40 * accumulation):
            optimizer.apply([keras.ops.ones((1,))], [variable])
        averages.append(float(optimizer._model_variables_moving_average[0][0]))
    assert variable.numpy() == pytest.approx(1 - 40 * 0.1, rel=1e-5)
    # Half a step apart: with two batches a step the average sees each weight twice, from its first.
    assert averages[1] == pytest.approx(averages[0], abs=0.1)
    assert averages[0] > -2.5  # far behind the weights
