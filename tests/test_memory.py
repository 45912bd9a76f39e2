"""A batch that does not fit: halved once, the same number of photos a step, and said."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.heads import HEADS
from carcls.training.checkpoints import StageCheckpoint
from carcls.training.loop import train
from carcls.training.memory import halved, halved_before, is_out_of_memory
from carcls.training.resume import with_recorded
from tests.conftest import draw_competition
from tests.test_config import composed


class Cut(BaseException):
    """What no `except Exception` sees: as a kill."""


@keras.saving.register_keras_serializable("tests")
class SmallMemory(keras.layers.Layer):
    """Has room for so many photos of a training step; raises what TensorFlow raises."""

    def __init__(self, room: int, **arguments) -> None:
        super().__init__(**arguments)
        self.room = room

    def call(self, x, training=None):
        if training and hasattr(x, "numpy") and len(x) > self.room:  # building has no photos
            import tensorflow as tf

            raise tf.errors.ResourceExhaustedError(
                None, None, f"OOM when allocating tensor with shape[{len(x)},1280]"
            )
        return x

    def get_config(self):
        return super().get_config() | {"room": self.room}


def room_for(monkeypatch, photos: int) -> None:
    def head(x, config):
        return SmallMemory(photos)(keras.layers.GlobalMaxPooling2D()(x))

    monkeypatch.setitem(HEADS, "avg_dense", head)


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=8",
            "finetune.stages.all.batch_size=6", "~finetune.stages.top_half", "finetune.keep=last",
            "~finetune.stages.top_three_quarters", "finetune.stages.head.epochs=2",
            "finetune.stages.all.epochs=1", "runtime.eager=true",
            "runtime.preflight=false", *overrides,
        )
    )  # fmt: skip


def test_a_batch_that_does_not_fit_is_halved_once_and_said(
    tmp_path, tiny_backbone, monkeypatch, caplog
):
    room_for(monkeypatch, 4)
    config = small(draw_competition(tmp_path / "data", per_class=10), "data.balance=weights")
    train(config, tmp_path / "run")
    change = (
        "batch_size=4, 3 instead of 8, 6 with gradient_accumulation=2: the batch did not fit into "
        "the memory of the device"
    )
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["status"], facts["changed"]) == ("finished", [change])
    assert f"WARNING: {change} (OOM when allocating tensor with shape[8,1280]" in caplog.text
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.stage.tolist() == ["head", "head", "all"]


def test_what_was_halved_trains_as_if_it_had_been_asked_for(tmp_path, tiny_backbone, monkeypatch):
    """The weights, the random state and the optimizer are as they were before the failed step."""
    root = draw_competition(tmp_path / "data")
    for run, room, asked in (
        ("halved", 4, ()),
        ("asked", 99, ("batch_size=4", "finetune.stages.all.batch_size=3",
                       "gradient_accumulation=2")),
    ):  # fmt: skip
        room_for(monkeypatch, room)
        train(small(root, "finetune.stages.head.epochs=1", *asked), tmp_path / run)
    histories = [pd.read_csv(tmp_path / run / "history.csv") for run in ("halved", "asked")]
    columns = ["stage", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    pd.testing.assert_frame_equal(*(history[columns] for history in histories), rtol=1e-6)


def test_a_halved_run_that_is_cut_goes_on_with_half_batches(
    tmp_path, tiny_backbone, monkeypatch, caplog
):
    """It never asks for whole ones again, and ends with the numbers of the run that was not cut."""
    room_for(monkeypatch, 4)
    config = small(draw_competition(tmp_path / "data"))
    train(config, tmp_path / "whole")
    end_epoch, epochs = StageCheckpoint.on_epoch_end, []

    def cutting(self, epoch, logs=None):
        end_epoch(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == 1:
            raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(StageCheckpoint, "on_epoch_end", cutting)
        train(config, tmp_path / "run")
    caplog.clear()
    recorded = to_config(composed(f"resume='{tmp_path / 'run'}'"))
    train(with_recorded(recorded, ()), tmp_path / "run")
    assert "did not fit" not in caplog.text, "no whole batch was tried again"
    facts, unbroken = (
        json.loads((tmp_path / run / "run.json").read_text()) for run in ("run", "whole")
    )
    assert [session["from"] for session in facts["sessions"]] == [
        "the start", "stage 1/2 head, epoch 2",
    ]  # fmt: skip
    assert facts["changed"] == unbroken["changed"]
    histories = [pd.read_csv(tmp_path / run / "history.csv") for run in ("run", "whole")]
    columns = ["stage", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    pd.testing.assert_frame_equal(*(h[columns] for h in histories), check_exact=True)


def test_half_a_batch_that_does_not_fit_either_is_told(tmp_path, tiny_backbone, monkeypatch):
    room_for(monkeypatch, 3)
    config = small(draw_competition(tmp_path / "data"))
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert "Expected a batch to fit into the memory of the device. Received: " in str(error.value)
    assert "(batch_size=4, image_size=32). Lower batch_size, with gradient_accum" in str(
        error.value
    )
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "failed"
    assert len(facts["changed"]) == 1


def test_a_batch_of_one_photo_cannot_be_halved():
    config = to_config(composed("batch_size=16", "finetune.stages.all.batch_size=1"))
    with pytest.raises(UserError, match=r"Expected a batch to fit into the memory of the device"):
        halved(config, "OOM")


def test_half_a_batch_that_more_devices_cannot_share_is_told_when_a_run_goes_on():
    config = to_config(composed("batch_size=6", "finetune=frozen"))
    assert halved_before(config, 3).batch_size == 3
    assert halved_before(config, 3).gradient_accumulation == 2
    with pytest.raises(UserError) as error:
        halved_before(config, 2)
    assert str(error.value) == (
        "Expected batch_size to be a multiple of the 2 devices, such as 4, in the stage head. "
        "Received: batch_size=3, devices=1. The batches of this run were halved when they did not "
        "fit into the memory of the device. Go on with it on fewer devices (runtime.devices)."
    )


class OutOfMemoryError(RuntimeError):
    """By the name that torch gives it."""


class XlaRuntimeError(RuntimeError):
    """By the name that JAX gives it."""


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes"), True),
        (XlaRuntimeError("INVALID_ARGUMENT: shapes"), False),
        (MemoryError("a list"), False),
        (np.linalg.LinAlgError("singular"), False),
    ],
    ids=["torch", "jax", "jax, another", "the host", "numpy"],
)
def test_an_error_for_want_of_memory_is_known_by_its_name_or_text(error, is_it):
    assert is_out_of_memory(error) == is_it
    outer = ValueError("while it trained")
    outer.__cause__ = error
    assert is_out_of_memory(outer) == is_it
