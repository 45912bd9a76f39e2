"""What `runtime` sets: the compiler, the precision, and several steps an execution."""

import io
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from carcls.config import RuntimeConfig, to_config
from carcls.errors import UserError
from carcls.models.heads import HEADS
from carcls.runtime import set_up, uses_xla
from carcls.training import callbacks
from carcls.training.callbacks import History, ProgressLine, StopOnSignal
from carcls.training.epochs import Epochs
from carcls.training.feed import Feed
from tests import processes
from tests.test_config import composed, told

STEPS, VAL_STEPS = 5, 3  # an epoch


class Numbered:
    """A loader whose batches differ, the last of an epoch smaller: what is fed shows in a fit."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def from_step(self, step: int):
        while True:
            size = 4 if (step + 1) % self.steps else 3
            random = np.random.default_rng(step)
            yield random.normal(size=(size, 3)).astype(np.float32), random.integers(0, 2, size)
            step += 1

    def close(self) -> None:
        """Holds nothing."""


def fitted(steps_per_execution: int, *watchers: keras.callbacks.Callback, epochs: int = 2):
    """A network that was fed as a stage is; its fit's history."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(x))
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)  # every step counts
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"],
        steps_per_execution=steps_per_execution, jit_compile=False,
    )  # fmt: skip
    batches = Epochs(Feed(Numbered(STEPS)), STEPS)
    next_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=batches.start)
    history = model.fit(
        batches, steps_per_epoch=STEPS, epochs=epochs, shuffle=False, verbose=0,
        validation_data=Epochs(Feed(Numbered(VAL_STEPS)), VAL_STEPS), validation_steps=VAL_STEPS,
        callbacks=[next_epoch, *watchers],
    )  # fmt: skip
    return model, history.history


@pytest.mark.parametrize("steps_per_execution", [2, 7])
def test_several_steps_an_execution_train_and_validate_on_the_same_batches(steps_per_execution):
    (one, expected), (several, received) = fitted(1), fitted(steps_per_execution)
    assert int(several.optimizer.iterations) == 2 * STEPS
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert received[name] == pytest.approx(expected[name], abs=1e-6), name
    for ours, theirs in zip(several.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_an_epoch_that_a_stop_cut_short_counts_whole_executions(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    history, stop = History(tmp_path / "history.csv"), StopOnSignal(print, 2)
    history.start_stage("all", photos_per_epoch=19, steps_per_epoch=STEPS)

    def pass_time(epoch: int, logs: dict | None = None) -> None:
        stop.requested = epoch == 1
        clock.now += 10

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=pass_time)
    no_validation_time = keras.callbacks.LambdaCallback(
        on_test_begin=lambda logs: setattr(history, "_trained", None)
    )
    model, _ = fitted(2, history, watch, stop, no_validation_time, epochs=3)
    assert int(model.optimizer.iterations) == STEPS + 2
    assert [row["images_per_second"] for row in history.rows] == [1.9, round(19 * 2 / 5 / 10, 1)]


def test_a_loss_that_is_nan_ends_an_epoch_after_the_execution(capsys):
    poison = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: poison.model.set_weights(
            [np.full_like(weight, np.nan) for weight in poison.model.get_weights()]
        )
    )
    model, history = fitted(2, poison, keras.callbacks.TerminateOnNaN())
    assert int(model.optimizer.iterations) == 2
    assert np.isnan(history["loss"]).tolist() == [True]


def test_the_bar_is_full_at_the_end_of_an_epoch_and_not_fuller(tmp_path, monkeypatch):
    bar = Progress(console=Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setattr(callbacks, "progress_bar", lambda: bar)
    history = History(tmp_path / "history.csv")
    history.start_stage("all", photos_per_epoch=19, steps_per_epoch=STEPS)
    line = ProgressLine(history, print, "1/1 all", epochs=1, epochs_after=0, steps=STEPS)
    line.on_epoch_begin(0)
    done = []
    for batch in (1, 3, 5):  # as Keras numbers the last steps of executions of 2
        line.on_train_batch_end(batch)
        done.append(bar.tasks[0].completed)
    line.on_train_end()
    assert done == [2, 4, 5]


@pytest.mark.parametrize(("steps", "when"), [(1, "after this batch"), (8, "within 8 batches")])
def test_a_stop_says_when_it_comes(steps, when):
    said = []
    StopOnSignal(said.append, steps)._on_signal(2, None)
    assert said == [
        f"\nStopping {when}: measuring and saving what was reached. Ctrl-C again stops at once."
    ]


@pytest.mark.parametrize(
    ("backend", "runtime", "answer"),
    [
        ("jax", RuntimeConfig(), True),
        ("jax", RuntimeConfig(eager=True), False),
        ("jax", RuntimeConfig(jit=False), False),
        ("tensorflow", RuntimeConfig(), False),
        ("tensorflow", RuntimeConfig(jit=True), True),
        ("torch", RuntimeConfig(), False),
    ],
)
def test_xla_is_used_where_asked_for_and_on_jax(backend, runtime, answer, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert uses_xla(runtime) is answer


def test_what_cannot_be_run_together_is_told(monkeypatch):
    assert told("runtime.steps_per_execution=0") == (
        "Expected steps_per_execution to be at least 1. Received: steps_per_execution=0"
    )
    assert told("runtime.jit=true", "runtime.eager=true") == (
        "Expected jit to be null or false with eager=true: XLA compiles a graph, and there is "
        "none. Received: jit=True, eager=True"
    )
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match=r"Expected runtime.steps_per_execution=1 with KERAS_BACKE"):
        set_up(RuntimeConfig(steps_per_execution=4), seed=0)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_default_head_trains_under_mixed_precision(policy):
    features = keras.Input((2, 2, 8))
    x = HEADS["avg_dense"](features, to_config(composed()).head)
    probs = keras.layers.Dense(2, activation="softmax", dtype="float32")(x)
    model = keras.Model(features, probs)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    # Activities whose squares add up to more than float16 holds, 65504.
    loss = model.train_on_batch(np.full((4, 2, 2, 8), 100.0), np.array([0, 1, 0, 1]))
    assert np.isfinite(loss)
    model.get_layer("head_dense").set_weights([np.full((8, 256), 5.0), np.full(256, 300.0)])
    assert np.isfinite(model.train_on_batch(np.ones((4, 2, 2, 8)), np.array([0, 1, 0, 1])))


def test_what_keras_imports_is_not_looked_through_for_garbage(tmp_path):
    script = tmp_path / "count.py"
    script.write_text(
        "import gc\n"
        "before = gc.get_freeze_count()\n"
        "import carcls.backend\n"
        "print(before, gc.get_freeze_count() > 100_000, gc.isenabled())\n"
    )
    result = processes.run(script, cwd=tmp_path)
    assert result.stdout == "0 True True\n", result.stderr
