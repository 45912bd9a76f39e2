"""EfficientNet-Lite: its shape, and that with its published weights it knows what it sees."""

import importlib.util
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from carcls.catalogue import BACKBONES
from carcls.models.efficientnet_lite import efficientnet_lite
from carcls.models.imagenet import imagenet_classifier

LITE = ("efficientnetlite0", "efficientnetlite1", "efficientnetlite2")
PHOTOS = {
    "chelsea.png": ("skimage", "data"),  # a tabby cat's face
    "coffee.png": ("skimage", "data"),  # a cup of espresso
    "camera.png": ("skimage", "data"),  # a man at a camera on a tripod, grey
    "rocket.jpg": ("skimage", "data"),  # a rocket on its pad
    "motorcycle_left.png": ("skimage", "data"),  # a motorcycle in a garage
    "flower.jpg": ("sklearn", "datasets/images"),  # one dahlia
    "china.jpg": ("sklearn", "datasets/images"),  # a pavilion of the Summer Palace
}
CATS = {281, 282, 283, 284, 285}
ESPRESSO, TRIPOD, MISSILE, DAISY, PALACE = {967}, {872}, {657}, {985}, {698}
MOPED_OR_SCOOTER = {665, 670}  # the nearest classes to a motorcycle
RIGHT_FIRST = [
    *((variant, "chelsea.png", CATS) for variant in LITE),
    *((variant, "coffee.png", ESPRESSO) for variant in LITE),
    *((variant, "camera.png", TRIPOD) for variant in LITE),
    *((variant, "motorcycle_left.png", MOPED_OR_SCOOTER) for variant in LITE),
    ("efficientnetlite0", "flower.jpg", DAISY),
    ("efficientnetlite1", "flower.jpg", DAISY),
    ("efficientnetlite1", "china.jpg", PALACE),
    ("efficientnetlite2", "china.jpg", PALACE),
    ("efficientnetlite2", "rocket.jpg", MISSILE),
]


def photo(name, size):
    """`(1, size, size, 3)` uint8 RGB of a photo that a package ships; nothing is downloaded."""
    package, folder = PHOTOS[name]
    found = importlib.util.find_spec(package)
    path = None if found is None else Path(found.origin).parent / folder / name
    if path is None or not path.is_file():
        pytest.skip(f"the photo {name} comes with the package {package}")
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    resized = cv2.resize(bgr, (size, size), interpolation=cv2.INTER_AREA)
    return resized[np.newaxis, ..., ::-1]


@pytest.fixture(scope="module")
def classifiers():
    return {variant: imagenet_classifier(variant) for variant in LITE}


def probs_of(classifiers, variant, name):
    model = classifiers[variant]
    return np.asarray(model(photo(name, BACKBONES[variant].default_size), training=False))[0]


@pytest.mark.parametrize(("variant", "name", "right"), RIGHT_FIRST)
def test_with_its_published_weights_it_recognises_real_photos(classifiers, variant, name, right):
    probs = probs_of(classifiers, variant, name)
    assert int(probs.argmax()) in right
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)


def test_it_is_sure_of_a_plain_photo(classifiers):
    assert probs_of(classifiers, "efficientnetlite0", "coffee.png")[967] > 0.85
    assert probs_of(classifiers, "efficientnetlite0", "camera.png")[872] > 0.9


def test_a_rocket_that_is_not_first_is_second(classifiers):
    probs = probs_of(classifiers, "efficientnetlite0", "rocket.jpg")  # first: a drilling platform
    assert np.argsort(-probs)[1] == 657


def test_the_classifier_takes_rgb_and_not_bgr(classifiers):
    rgb = photo("coffee.png", 224)
    model = classifiers["efficientnetlite0"]
    as_rgb, as_bgr = np.asarray(model(np.concatenate([rgb, rgb[..., ::-1]]), training=False))
    assert as_rgb[967] > as_bgr[967] + 0.1


@pytest.mark.parametrize(
    ("variant", "parameters"),  # published as 4.7, 5.4 and 6.1 million
    [
        ("efficientnetlite0", 4_652_008),
        ("efficientnetlite1", 5_416_680),
        ("efficientnetlite2", 6_092_072),
    ],
)
def test_each_variant_has_its_published_size(classifiers, variant, parameters):
    weights = classifiers[variant].trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in weights) == parameters


def test_the_feature_map_is_a_32nd_of_any_photo_rounded_up():
    network = efficientnet_lite("efficientnetlite0")
    assert network.output_shape == (None, None, None, 1280)
    features = network(np.zeros((2, 64, 97, 3), np.float32), training=False)
    assert features.shape == (2, 2, 4, 1280)


def test_layers_are_named_as_in_keras():
    ours = {layer.name for layer in efficientnet_lite("efficientnetlite0").layers}
    assert {"stem_conv", "stem_bn", "block1a_dwconv", "block2b_drop", "block2b_add"} <= ours
    assert {"block7a_project_bn", "top_conv", "top_bn", "top_activation"} <= ours
    assert "block1a_expand_conv" not in ours


def test_drop_connect_grows_from_block_to_block():
    network = efficientnet_lite("efficientnetlite0")  # 16 blocks
    assert network.get_layer("block2b_drop").rate == pytest.approx(0.2 * 2 / 16)
    assert network.get_layer("block6d_drop").rate == pytest.approx(0.2 * 14 / 16)


def test_probabilities_stay_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = efficientnet_lite("efficientnetlite0", include_top=True, num_classes=3)
    finally:
        keras.config.set_dtype_policy(policy)
    assert network.get_layer("top_activation").output.dtype == "float16"
    assert network.output.dtype == "float32"
    assert network.output_shape == (None, 3)


def test_two_layers_of_one_shape_start_different():
    network = efficientnet_lite("efficientnetlite0")
    first, second = (network.get_layer(f"block4{ab}_expand_conv").kernel for ab in "bc")
    assert first.shape == second.shape
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.01


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"Expected variant to be one of .*Received: 'lite9'"):
        efficientnet_lite("lite9")
