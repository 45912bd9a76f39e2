"""Class activation maps: that they light up what spoke for a class, where it stands."""

import numpy as np
import pytest

from carcls.backend import keras
from carcls.config import to_config
from carcls.evaluation.attention import NoMapsError, class_maps
from carcls.models.classifier import backbone_of, build_classifier
from tests.test_config import composed

RED, GREEN, BLUE = np.eye(3) * 255
KERNEL = np.array([[4, -1, 0.5], [0, 3, 0.5], [0, 0, 0.5]], np.float32)  # colours to classes


def pools_colours() -> keras.Model:
    """`(batch, 16, 16, 3)` to the mean colours of 4 × 4 places."""
    x = photos = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="same")(x)
    x = keras.layers.AveragePooling2D(4)(x)
    network = keras.Model(photos, x, name="colours")
    network.get_layer("same").set_weights([np.eye(3, dtype=np.float32)[None, None]])
    return network


def told_by_colour() -> keras.Model:
    """A classifier whose first class is red, whose second is green."""
    photos = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(photos)
    x = keras.layers.GlobalAveragePooling2D()(pools_colours()(x))
    probs = keras.layers.Dense(3, activation="softmax", name="probs")
    model = keras.Model(photos, probs(x))
    probs.set_weights([KERNEL, np.array([0.3, -0.2, 0.1], np.float32)])
    return model


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """One, grey, with a red patch in its top left corner and a green one at the lower right."""
    photo = np.full((1, 16, 16, 3), 20, np.uint8)
    photo[0, :4, :4], photo[0, 12:, 12:] = RED, GREEN
    return photo


def test_a_map_lights_up_where_the_class_is(photos):
    red, green = class_maps(told_by_colour(), photos, np.array([[0, 1]]))[0]
    assert red.shape == (4, 4)
    assert np.unravel_index(red.argmax(), red.shape) == (0, 0)
    assert np.unravel_index(green.argmax(), green.shape) == (3, 3)
    assert red[3, 3] < 0 and green[0, 0] < 0, "what speaks for another class speaks against it"


def test_after_a_mean_and_one_dense_layer_a_map_is_cam(photos):
    centred = KERNEL - KERNEL.mean(1, keepdims=True)  # what is common to all logits is no reason
    means = (photos / 255).reshape(1, 4, 4, 4, 4, 3).mean((2, 4))
    cam = np.moveaxis(means @ centred, -1, 1) / 16
    found = class_maps(told_by_colour(), photos, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(found, cam, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-6)


def test_photos_do_not_change_each_others_maps(photos):
    many = np.concatenate([np.rot90(photos, k, axes=(1, 2)) for k in range(11)])  # two batches
    classes = np.array([[k % 3, 1] for k in range(11)])
    found = class_maps(told_by_colour(), many, classes)
    assert found.shape == (11, 2, 4, 4)
    for k in (0, 7, 10):
        alone = class_maps(told_by_colour(), many[k : k + 1], classes[k : k + 1])
        np.testing.assert_allclose(found[k], alone[0], atol=1e-6)


def test_a_network_with_its_classifier_inside_has_the_same_maps(photos):
    network = pools_colours()
    inside = keras.layers.GlobalAveragePooling2D()(network.output)
    last = keras.layers.Dense(3, activation="softmax", use_bias=False)
    whole = keras.Model(network.input, last(inside))
    last.set_weights([KERNEL])
    inputs = keras.Input((None, None, 3))
    x = keras.ops.flip(keras.layers.Rescaling(1 / 255)(inputs), axis=2)  # an operation, no layer
    model = keras.Model(inputs, whole(x))
    classes = np.array([[0, 1]])
    expected = class_maps(told_by_colour(), photos[:, :, ::-1], classes)
    np.testing.assert_allclose(class_maps(model, photos, classes), expected, atol=1e-6)


@pytest.mark.parametrize("head", ["linear", "avg_dense", "max_dense", "max_dropout"])
def test_the_places_of_a_map_sum_to_the_score(head, tiny_backbone):
    """But for a constant: features larger by a share raise the score by that share of the sum."""
    keras.utils.set_random_seed(3)
    config = to_config(composed("backbone=efficientnetlite0", f"head={head}"))
    model = build_classifier(config.backbone, config.head, 4)
    photos = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    found = class_maps(model, photos, np.tile(np.arange(4), (2, 1)))
    scores = []
    for share in (0.0, 1e-2):
        norm = backbone_of(model).get_layer("norm1")
        gamma, beta, *statistics = norm.get_weights()
        norm.set_weights([gamma * (1 + share), beta * (1 + share), *statistics])
        logs = np.log(np.asarray(model(photos), np.float64))
        scores.append(logs - logs.mean(1, keepdims=True))
    expected = (scores[1] - scores[0]) / 1e-2
    np.testing.assert_allclose(found.sum((2, 3)), expected, rtol=2e-2, atol=1e-3)
    if head.startswith("max"):
        assert np.mean(found == 0) > 0.2, "places that the pool threw away"


def test_what_has_no_maps_is_told(photos):
    inputs = keras.Input((16, 16, 3))
    features = pools_colours()(inputs)
    x = keras.layers.GlobalAveragePooling2D()(features)
    logits_last = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(3)(x)))
    one_place = keras.layers.Dense(3)(
        keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(features))
    )
    flat = keras.Input((48,))
    no_map = keras.Model(flat, keras.layers.Dense(3)(keras.layers.Dense(4)(flat)))
    for model, text in (
        (logits_last, "it does not end in a dense layer"),
        (keras.Model(inputs, one_place), "its feature map has one place only"),
        (no_map, "no feature map stands before its last layers"),
    ):
        with pytest.raises(NoMapsError, match=text):
            class_maps(model, photos, np.array([[0, 1]]))
