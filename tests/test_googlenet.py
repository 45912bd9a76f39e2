"""GoogLeNet: with the same numbers for weights it is torchvision's, at every size."""

from pathlib import Path

import keras
import numpy as np
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.backbones import build_backbone, preprocessing_layers
from carcls.models.googlenet import googlenet
from carcls.models.torch_weights import load_googlenet
from tests.fixtures.random_googlenet import NUM_CLASSES, SIZES, photo, tensor
from tests.test_config import composed
from tests.torch_writer import whole, write_legacy, write_zip

FIXTURE = Path(__file__).parent / "fixtures" / "googlenet.npz"  # of make_torch_fixtures.py


@pytest.fixture(scope="module")
def tensors():
    """The state dict that torchvision's network had."""
    with np.load(FIXTURE) as file:
        shapes = [tuple(map(int, text.split())) for text in file["shapes"]]
        return {
            str(name): tensor(name, shape)
            for name, shape in zip(file["names"], shapes, strict=True)
        }


def write(path, tensors, writer=write_zip):
    return writer(path, {n: whole(str(i), t) for i, (n, t) in enumerate(tensors.items())})


@pytest.fixture(scope="module")
def pth(tensors, tmp_path_factory):
    return write(tmp_path_factory.mktemp("googlenet") / "googlenet.pth", tensors)


@pytest.fixture(scope="module")
def classifier():
    return googlenet(include_top=True, num_classes=NUM_CLASSES)


@pytest.fixture(scope="module")
def loaded(classifier, pth):
    load_googlenet(classifier, pth)
    return classifier


@pytest.fixture(scope="module")
def backbone(pth):
    return build_backbone("googlenet", weights=str(pth))


def preprocessed(height, width):
    x = photo(height, width)[np.newaxis]
    for layer in preprocessing_layers("googlenet"):
        x = layer(x)
    return x


def output(network, x):
    return np.asarray(network(x, training=False))


@pytest.mark.parametrize("number", range(len(SIZES)), ids=[f"{h}x{w}" for h, w in SIZES])
def test_the_same_weights_give_the_logits_of_torchvision(loaded, number):
    with np.load(FIXTURE) as file:
        expected = file["logits"][number]
    x = preprocessed(*SIZES[number])
    logits = keras.Model(loaded.input, loaded.get_layer("fc").output)
    np.testing.assert_allclose(output(logits, x)[0], expected, rtol=0, atol=1e-4)
    probs = np.exp(expected - expected.max())
    np.testing.assert_allclose(output(loaded, x)[0], probs / probs.sum(), rtol=0, atol=1e-5)


def test_the_backbone_is_the_classifier_without_its_top(loaded, backbone, tensors):
    x = preprocessed(67, 101)
    features = output(backbone, x)
    assert features.shape == (1, 2, 3, 1024)
    pooled = features.mean((1, 2))[0]
    logits = keras.Model(loaded.input, loaded.get_layer("fc").output)
    expected = tensors["fc.weight"] @ pooled + tensors["fc.bias"]
    np.testing.assert_allclose(output(logits, x)[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(15, 15, (1, 1)), (31, 32, (1, 1)), (33, 97, (1, 3)), (66, 150, (2, 5))],
)
def test_the_feature_map_has_the_size_of_torchvisions(backbone, height, width, shape):
    features = output(backbone, np.zeros((1, height, width, 3), np.float32))
    assert features.shape == (1, *shape, 1024)


def test_it_has_the_parameters_that_torchvision_publishes():
    with keras.StatelessScope():  # which spares the numbers
        network = googlenet(include_top=True)
    sizes = [int(np.prod(weight.shape)) for weight in network.trainable_weights]
    assert sum(sizes) == 6_624_904
    assert network.output_shape == (None, 1000)


def test_logits_and_probabilities_stay_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with keras.StatelessScope():
            network = googlenet(include_top=True, num_classes=3)
    finally:
        keras.config.set_dtype_policy(policy)
    assert network.get_layer("inception5b").output.dtype == "float16"
    assert network.get_layer("fc").output.dtype == network.output.dtype == "float32"


def test_scaling_to_minus_1_to_1_is_what_transform_input_makes_of_torchs_normalisation():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rgb = np.arange(256.0)[:, np.newaxis]
    transformed = (rgb / 255 - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    np.testing.assert_allclose(transformed, np.repeat(rgb / 127.5 - 1, 3, 1), atol=1e-14)
    x = np.repeat(rgb, 3, 1)[np.newaxis, np.newaxis].astype(np.uint8)
    for layer in preprocessing_layers("googlenet"):
        x = layer(x)
    np.testing.assert_allclose(np.asarray(x)[0, 0], transformed, atol=1e-6)


# Weights by path.


def test_the_old_format_gives_the_same_network(backbone, tensors, tmp_path):
    """Of one trained by the user: other classes, no auxiliary heads, no counts of batches."""
    kept = {
        name: value
        for name, value in tensors.items()
        if not name.startswith("aux") and not name.endswith("num_batches_tracked")
    }
    kept |= {"fc.weight": np.ones((3, 1024), np.float32), "fc.bias": np.ones(3, np.float32)}
    path = write(tmp_path / "old.pth", kept, write_legacy)
    network = build_backbone("googlenet", weights=str(path))
    for ours, theirs in zip(network.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"inception4c.branch3.1.bn.running_var": None},
            "it has no tensor inception4c.branch3.1.bn.running_var for layer inception4c_branch3_1",
        ),
        (
            {"inception5a.branch3.1.conv.weight": np.zeros((128, 32, 5, 5), np.float32)},
            "inception5a.branch3.1.conv.weight makes (5, 5, 32, 128), while layer inception5a_bran",
        ),
        (
            {"inception6a.branch1.conv.weight": np.zeros(2, np.float32)},
            "1 tensors too many, among them inception6a.branch1.conv.weight",
        ),
        (
            {"fc.weight": np.zeros((2, 1024), np.float32)},
            "fc.weight makes (1024, 2), while layer fc has (1024, 40)",
        ),
        ({"fc.bias": None}, "it has no tensor fc.bias for layer fc"),
    ],
)
def test_weights_that_do_not_fit_are_told_and_none_is_loaded(
    classifier, tensors, tmp_path, change, reason
):
    before = classifier.get_layer("conv1_conv").get_weights()
    changed = {name: value + value.dtype.type(1) for name, value in (tensors | change).items()
               if value is not None and not name.startswith("aux")}  # fmt: skip
    path = write(tmp_path / "other.pth", changed)
    with pytest.raises(UserError) as error:
        load_googlenet(classifier, path)
    message = str(error.value)
    assert message.startswith(f"Expected {path} to hold the weights of googlenet. Received: those")
    assert reason in message
    assert message.endswith("Give the file made for googlenet, or change the backbone.")
    np.testing.assert_array_equal(classifier.get_layer("conv1_conv").get_weights(), before)


def test_imagenet_is_refused_before_anything_is_read_and_the_ways_out_are_told():
    with pytest.raises(UserError) as error:
        to_config(composed("backbone=googlenet"))
    with pytest.raises(UserError) as at_build:
        build_backbone("googlenet", weights="imagenet")
    message = str(error.value)
    assert message == str(at_build.value)
    assert message.startswith("Expected backbone.weights to be a path, or none, for googlenet, who")
    assert "Received: backbone.weights=imagenet\nThere are three ways out:\n" in message
    file = "googlenet-1378be20.pth"
    assert f"1. backbone.weights=PATH with torchvision's file {file};" in message
    assert "2. backbone=efficientnetlite0" in message
    assert "3. backbone.weights=none" in message


@pytest.mark.parametrize("weights", ["none", "/somewhere/googlenet.pth"])
def test_a_path_and_none_pass_the_config(weights):
    overrides = ("backbone=googlenet", f"backbone.weights={weights}", "image_size=15")
    assert to_config(composed(*overrides)).backbone.weights == weights


def test_photos_that_leave_no_feature_map_are_refused():
    with pytest.raises(UserError, match="image_size to be at least 15 px for googlenet"):
        to_config(composed("backbone=googlenet", "backbone.weights=none", "image_size=14"))
