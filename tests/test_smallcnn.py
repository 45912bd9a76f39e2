"""The CIFAR study's network and its runs: the same function, the same settings, the same labels."""

import json
import math

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config, to_evaluate_config, to_predict_config
from carcls.errors import UserError
from carcls.evaluation.evaluate import evaluate
from carcls.models.backbones import build_backbone
from carcls.models.classifier import build_classifier
from carcls.models.imagenet import imagenet_classifier
from carcls.prediction.predict import predict
from carcls.training.loop import train
from tests.test_cifar import files_100, records_100, write
from tests.test_config import as_composed, composed, told


def of_the_study(num_classes: int) -> keras.Sequential:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    config = to_config(as_composed("experiment=cifar_study_fine"))
    return build_classifier(config.backbone, config.head, 10)


def test_of_32_px_it_is_the_studys_network_weight_for_weight(classifier):
    study = of_the_study(10)
    assert classifier.count_params() == study.count_params() == 258_762
    for mine, theirs in zip(classifier.weights, study.weights, strict=True):
        mine.assign(np.reshape(theirs, mine.shape))
    photos = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(np.asarray(classifier(photos)), np.asarray(study(photos)), atol=1e-6)


def test_its_weights_begin_as_the_studys_do():
    network = build_backbone("smallcnn", weights="none")
    for layer, fans in (("conv1", 9 * 3 + 9 * 32), ("dense1", 512 + 256), ("dense2", 256 + 128)):
        limit = math.sqrt(6 / fans)  # Glorot's, of a dense layer
        assert np.abs(network.get_layer(layer).kernel).max() == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize(("side", "map_side"), [(30, 1), (32, 1), (64, 5)])
def test_photos_may_be_larger_and_no_smaller_than_30_px(side, map_side):
    network = build_backbone("smallcnn", weights="none")
    assert network(np.zeros((1, side, side, 3))).shape == (1, map_side, map_side, 128)
    assert "Expected image_size to be at least 30 px for smallcnn" in told(
        "backbone=smallcnn", "image_size=29"
    )


def test_imagenet_weights_are_refused_before_anything_is_built(tmp_path):
    text = "Expected backbone.weights=none for smallcnn, which learns from scratch, or the path of"
    assert text in told("backbone=smallcnn", "backbone.weights=imagenet")
    with pytest.raises(UserError, match=text):
        build_backbone("smallcnn")
    with pytest.raises(UserError, match="Received: smallcnn, of which there are"):
        imagenet_classifier("smallcnn")
    network = build_backbone("smallcnn", weights="none")
    network.save_weights(tmp_path / "small.weights.h5")
    again = build_backbone("smallcnn", weights=str(tmp_path / "small.weights.h5"))
    np.testing.assert_array_equal(again.get_weights()[4], network.get_weights()[4])


def test_the_backbone_brings_its_plan_along_and_the_command_line_has_the_last_word():
    config = to_config(as_composed("backbone=smallcnn"))
    assert (config.image_size, config.batch_size, config.finetune.name) == (32, 32, "scratch")
    assert (config.head.name, config.augmentation.name) == ("linear", "none")
    assert (config.optimizer.name, config.schedule.name) == ("adam", "constant")
    config = to_config(as_composed("backbone=smallcnn", "image_size=64", "finetune=full"))
    assert (config.image_size, config.finetune.name, config.optimizer.name) == (
        64,
        "full",
        "adamax",
    )
    config = to_config(as_composed("experiment=cifar_study_fine", "backbone=efficientnetlite0"))
    assert (config.backbone.name, config.backbone.weights) == ("efficientnetlite0", "imagenet")


def test_the_study_is_its_published_settings():
    config = to_config(composed("experiment=cifar_study_fine"))
    (stage,) = config.finetune.stages.values()
    assert (config.data.name, config.backbone.name, config.image_size) == ("cifar", "smallcnn", 32)
    assert (config.optimizer.name, stage.learning_rate, stage.epochs) == ("adam", 1e-3, 20)
    assert (config.batch_size, config.head.dropout, config.augmentation.train) == (32, 0.0, {})
    assert (config.schedule.name, stage.label_smoothing, stage.ema_span) == ("constant", 0.0, 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    files = files_100()
    files["train.bin"] = records_100([(0, 0), (1, 1), (2, 0)] * 10)
    return write(tmp_path_factory.mktemp("cifar") / "data", files)


@pytest.fixture(scope="module")
def run(data):
    config = to_config(
        as_composed(
            "data=cifar", f"data.root='{data}'", "backbone=smallcnn", "runtime.eager=true",
            "finetune.stages.all.epochs=1", "runtime.preflight=false",
        )
    )  # fmt: skip
    train(config, data.parent / "run")
    return data.parent / "run"


def test_a_run_on_cifar_predicts_its_test_photos_and_says_how_many_are_right(run):
    submission = predict(
        to_predict_config(as_composed(f"ckpt='{run}'", name="predict")), run / "prediction"
    )
    assert submission.Id.tolist() == ["test/00000.png", "test/00001.png"]
    right = sum(submission.Category == ["apple", "tiger"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["test_accuracy"], metrics["n_test"], metrics["n_val"]) == (right / 2, 2, 6)


@pytest.mark.parametrize("source", [(), ("data=cifar",)])
def test_evaluate_measures_the_test_photos_with_part_test(source, run, data):
    root = [f"data.root='{data}'"] if source else []
    config = to_evaluate_config(
        as_composed(
            f"ckpt='{run}'", *source, *root, "data.part=test", "resamples=0", name="evaluate"
        )
    )
    metrics = evaluate(config, data.parent / "evaluation")
    assert metrics["n"] == 2
    table = pd.read_csv(data.parent / "evaluation" / "predictions.csv")
    assert table.id.tolist() == ["test/00000.png", "test/00001.png"]


def test_evaluate_measures_what_validated_without_it(run, data):
    config = to_evaluate_config(as_composed(f"ckpt='{run}'", "resamples=0", name="evaluate"))
    assert evaluate(config, data.parent / "evaluation")["n"] == 6


def test_a_plan_for_pretrained_networks_warns_of_random_weights(data, caplog):
    config = to_config(
        as_composed(
            "data=cifar", f"data.root='{data}'", "backbone=smallcnn", "finetune=fast",
            "~finetune.stages.all", "+finetune.stages.all={epochs: 1, learning_rate: 0.001}",
            "runtime.eager=true", "runtime.preflight=false",
        )
    )  # fmt: skip
    caplog.set_level("INFO", logger="carcls")
    train(config, data.parent / "fast")
    assert (
        "WARNING: the backbone has random weights, to whose features a head is fitted first: "
        "finetune=fast is for pretrained ones. finetune=scratch trains everything from the start."
    ) in caplog.text
