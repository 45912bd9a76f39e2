"""A loss that becomes NaN or infinite: the run stops, names the batch and is no success."""

import json

import keras
import numpy as np
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.heads import HEADS
from carcls.training.inputs import prepare_inputs
from carcls.training.loop import train
from tests.conftest import draw_competition
from tests.test_config import composed


@keras.saving.register_keras_serializable("tests")
class NanAt(keras.layers.Layer):
    """The features; NaN, or infinite, from one call in training on."""

    def __init__(self, call: int, value: float = float("nan"), **arguments) -> None:
        super().__init__(**arguments)
        self.at, self.value, self.calls = call, value, 0

    def call(self, x, training=None):
        if training and hasattr(x, "numpy"):  # a call with photos; building is none
            self.calls += 1
            if self.calls == self.at:
                return x + self.value
        return x

    def get_config(self):
        return super().get_config() | {"call": -1}


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=4",
            "finetune=frozen", "finetune.stages.head.epochs=3", "runtime.eager=true",
            "runtime.preflight=false", *overrides,
        )
    )  # fmt: skip


def nan_at(monkeypatch, call: int, value: float = float("nan")) -> None:
    def head(x, config):
        return NanAt(call, value)(keras.layers.GlobalMaxPooling2D()(x))

    monkeypatch.setitem(HEADS, "avg_dense", head)


def test_the_batch_is_named_and_the_best_before_is_kept(tmp_path, tiny_backbone, monkeypatch):
    config = small(draw_competition(tmp_path / "data"), "finetune.keep=last")
    inputs = prepare_inputs(config)
    loader = inputs.train(config.finetune.stages["head"])  # 15 photos, 4 batches an epoch
    nan_at(monkeypatch, call=4 + 3)
    outcome = train(config, tmp_path / "run", inputs)
    photos = inputs.records.table.iloc[loader.order(1)[8:12]]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "diverged"
    assert facts["nan_batch"] == {
        "stage": "head", "epoch": 2, "batches": [3, 3], "ids": photos.id.tolist(),
        "paths": photos.path.tolist(),
    }  # fmt: skip
    assert outcome.metrics["kept_epoch"] == 1
    assert outcome.divergence == (
        f"The loss became NaN or infinite in batch 3 of epoch 2 (stage head), of these photos: "
        f"{', '.join(photos.path)}. Training stopped there; epoch 1, the one kept before, is in "
        f"{tmp_path / 'run' / 'model.keras'}. Try a lower optimizer.learning_rate (or "
        "finetune.stages.NAME.learning_rate), runtime.precision=float32 if it is another one, or "
        "look for broken photos among these."
    )


def test_with_several_steps_an_execution_all_photos_of_it_are_named(
    tmp_path, tiny_backbone, monkeypatch
):
    root = draw_competition(tmp_path / "data")
    config = small(root, "runtime.steps_per_execution=3")
    inputs = prepare_inputs(config)
    loader = inputs.train(config.finetune.stages["head"])
    nan_at(monkeypatch, call=4, value=float("inf"))  # alone in the second execution
    with pytest.raises(UserError, match=r"NaN or infinite in batch 4 of epoch 1 .* Nothing was"):
        train(config, tmp_path / "run", inputs)
    nan_at(monkeypatch, call=6)
    config = small(root, "runtime.steps_per_execution=3", "batch_size=2")
    with pytest.raises(UserError, match=r"NaN or infinite in one of the batches 4 to 6 of epoch 1"):
        train(config, tmp_path / "run", prepare_inputs(config))
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    table = inputs.records.table
    assert facts["nan_batch"]["ids"] == table.id.iloc[loader.order(0)[6:12]].tolist()
    assert (facts["status"], facts["nan_batch"]["batches"]) == ("diverged", [4, 6])


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_the_loader_says_which_photos_are_in_a_batch(tmp_path, balance):
    config = small(draw_competition(tmp_path / "data"), f"data.balance={balance}", "batch_size=5")
    loader = prepare_inputs(config).train(config.finetune.stages["head"])
    steps = range(2 * len(loader), 4 * len(loader))
    batches = [labels for epoch in (2, 3) for _, labels in loader.epoch(epoch)]
    for step, labels in zip(steps, batches, strict=True):
        np.testing.assert_array_equal(loader.labels[loader.indices_of(step)], labels)
