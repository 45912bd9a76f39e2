"""Every head, on photos that every policy has been at."""

import keras
import numpy as np
import pytest

from carcls.config import to_config
from carcls.data.transforms import build_augment
from carcls.models.classifier import backbone_of, build_classifier
from carcls.models.freezing import freeze
from carcls.models.heads import HEADS
from tests.test_config import composed, options

LAYERS = {  # as the design lists them, up to the last dense layer
    "avg_dense": [
        "GlobalAveragePooling2D", "BatchNormalization", "Dropout", "Dense", "BatchNormalization",
    ],
    "max_dense": ["GlobalMaxPooling2D", "Dense", "BatchNormalization", "Dropout"],
    "max_dropout": ["GlobalMaxPooling2D", "Dropout"],
    "linear": ["GlobalAveragePooling2D", "Dropout"],
}  # fmt: skip


def head_layers(head: str, *overrides: str) -> list[keras.Layer]:
    config = to_config(composed(f"head={head}", *overrides))
    features = keras.Input((4, 4, 8))
    return keras.Model(features, HEADS[head](features, config.head)).layers[1:]


@pytest.mark.parametrize("head", options("head"))
def test_a_head_has_the_layers_that_are_documented(head):
    assert [type(layer).__name__ for layer in head_layers(head)] == LAYERS[head]


def test_the_numbers_of_max_dense():
    layers = head_layers("max_dense", "head.units2=64")
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == [*LAYERS["max_dense"], "Dense", "Dropout"]
    assert (layers[1].units, layers[4].units) == (256, 64)
    assert {layers[1].activation, layers[4].activation} == {keras.activations.relu}
    assert (layers[3].rate, layers[5].rate) == (0.5, 0.25)


def test_the_numbers_of_avg_dense_and_max_dropout():
    _, _, dropout, dense, _ = head_layers("avg_dense")
    assert (dropout.rate, dense.units) == (0.25, 256)
    assert float(dense.bias_regularizer.l2) == pytest.approx(1e-3)
    assert float(dense.activity_regularizer.l2) == pytest.approx(1e-4)
    assert head_layers("max_dropout")[1].rate == 0.3


def test_a_linear_head_has_its_dropout():
    assert head_layers("linear")[1].rate == 0.2


@pytest.mark.parametrize("head", options("head"))
def test_every_head_learns_from_photos_of_every_policy(head, tiny_backbone):
    config = to_config(composed(f"head={head}", "backbone=efficientnetlite0"))
    model = build_classifier(config.backbone, config.head, num_classes=2)
    freeze(backbone_of(model), 0.0, "train")
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    photo = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    before = model.get_layer("probs").get_weights()[0]
    for policy in options("augmentation"):
        augment = build_augment(composed(f"augmentation={policy}").augmentation.train)
        photos = np.stack([augment(photo, seed) if augment else photo for seed in range(2)])
        assert np.isfinite(model.train_on_batch(photos, np.array([0, 1])))
        after = model.get_layer("probs").get_weights()[0]
        assert np.abs(after - before).max() > 0
        before = after
