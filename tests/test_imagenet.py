"""ImageNet's classes by whatever people call them, and networks with their own classifier."""

import keras
import numpy as np
import pytest

from carcls.errors import UserError
from carcls.evaluation.cost import count_flops
from carcls.models.imagenet import imagenet_classifier
from carcls.prediction.ensemble import load_predictor
from carcls.prediction.imagenet import class_names, matching_classes, split_pretrained


@pytest.mark.parametrize(
    "name", ["n02930766", "n02930766-cab", "n02930766_taxi", "468", "0468", "cab", "Cab", " cab "]
)
def test_a_class_is_known_by_synset_index_and_name(name):
    assert matching_classes([name], "photos/") == [468]


def test_names_may_have_underscores_and_hyphens_for_blanks():
    names = ["great_white_shark", "Shih Tzu", "hand-held_computer", "Cardigan", "cardigan"]
    assert matching_classes(names, "photos/") == [2, 155, 590, 264, 474]


def test_every_class_has_a_name_of_its_own():
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    assert names[134] == "crane (n02012849)"
    assert matching_classes(names, "photos/") == list(range(1000))


def test_what_is_no_class_of_imagenet_is_named():
    with pytest.raises(UserError) as error:
        matching_classes(["cab", "sedan", "n99999999", "1000"], "photos/")
    assert "photos/, of whose 4 classes 3 are none: sedan, n99999999, 1000" in str(error.value)


def test_a_name_that_two_classes_have_is_refused_with_both_synsets():
    with pytest.raises(UserError, match=r"crane in photos/, which two have.*n02012849 or"):
        matching_classes(["cab", "crane"], "photos/")


def test_two_folders_of_one_class_are_refused():
    with pytest.raises(UserError, match="468 and cab, which are both cab"):
        matching_classes(["468", "cab"], "photos/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vgg16", ("vgg16", "imagenet")),
        ("DenseNet121", ("DenseNet121", "imagenet")),
        ("vgg16:weights/a:b.h5", ("vgg16", "weights/a:b.h5")),
        ("vgg16:", None),
        ("outputs/run", None),
        ("alexnet", None),
    ],
)
def test_a_pretrained_network_is_a_name_and_perhaps_a_path(text, expected):
    assert split_pretrained(text) == expected


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """MobileNetV2 with its classifier and random weights: as Keras builds it, and a file of it."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network.save_weights(path)
    return network, path


def test_weights_by_path_give_the_network_that_keras_has(mobilenet):
    network, path = mobilenet
    found = imagenet_classifier("mobilenetv2", weights=str(path))
    photos = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = np.asarray(network(photos / 127.5 - 1))
    np.testing.assert_allclose(np.asarray(found(photos)), expected, rtol=1e-4, atol=1e-7)
    assert found.output_shape == (None, 1000)
    # 300 million multiplications are what its authors published (arXiv 1801.04381, table 4).
    assert count_flops(found, 224) / 2e6 == pytest.approx(300, rel=0.01)


def test_weights_of_another_network_are_refused(mobilenet):
    with pytest.raises(UserError, match="the weights of efficientnetlite0 with its"):
        imagenet_classifier("efficientnetlite0", weights=str(mobilenet[1]))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"NAME:PATH\) to be a weights file.*nothing\.h5, where"):
        imagenet_classifier("mobilenetv2", weights=str(tmp_path / "nothing.h5"))


def test_a_network_takes_its_own_size_and_photos_are_cut_as_imagenet_has_them():
    one = load_predictor(["efficientnetlite2"])
    assert (one.image_size, one.info.resize, one.name) == (260, "imagenet", "efficientnetlite2")
    with pytest.raises(UserError, match=r"calibrated=true with trained runs.*efficientnetlite2"):
        load_predictor(["efficientnetlite2"], is_calibrated=True)
