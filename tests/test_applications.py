"""Classes of keras.applications: the facts in the catalogue are Keras' own, for each of them."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from carcls.catalogue import APPLICATIONS, find_spec
from carcls.errors import UserError
from carcls.models.backbones import build_backbone, preprocessing_layers
from tests.test_backbones import images, output, write_legacy_h5

ONE_OF_EACH_FAMILY = [
    *("VGG16", "ResNet50", "ResNet50V2", "Xception", "InceptionV3", "DenseNet121", "MobileNet"),
    *("MobileNetV2", "MobileNetV3Small", "NASNetMobile", "EfficientNetB0", "EfficientNetV2B0"),
    "ConvNeXtTiny",
]


def keras_build(name, size, **kwargs):
    options = {"include_top": False, "weights": None, "input_shape": (*size, 3)} | kwargs
    return getattr(keras.applications, find_spec(name).application)(**options)


def test_the_table_holds_exactly_the_classes_of_keras():
    of_keras = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(APPLICATIONS) == of_keras
    assert len(APPLICATIONS) == len(of_keras) == 40


@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_refuses_photos_smaller_than_the_smallest_size(name):
    size = find_spec(name).min_size
    with pytest.raises(ValueError, match=f"Input size must be at least {size}x{size}"):
        keras_build(name, (size - 1, size))


@pytest.mark.parametrize("name", [name for name in APPLICATIONS if "NetV3" not in name])
def test_the_default_size_is_the_one_that_keras_has_weights_for(name):
    size = find_spec(name).default_size
    with pytest.raises(ValueError, match=rf"`input_shape` should be \({size}, {size}, 3\)"):
        keras_build(name, (1, 1), include_top=True, weights="imagenet")


@pytest.mark.parametrize("name", APPLICATIONS)
def test_native_preprocessing_is_that_of_keras(name):
    module = sys.modules[getattr(keras.applications, name).__module__]
    photos = np.random.default_rng(1).uniform(0, 255, (2, 3, 4, 3)).astype(np.float32)
    x = photos
    for layer in preprocessing_layers(name):
        x = layer(x)
    np.testing.assert_allclose(x, module.preprocess_input(photos.copy()), rtol=1e-5, atol=2e-5)


# Weights that cannot be fetched.


@pytest.fixture
def asked_for(monkeypatch, tmp_path):
    """The names of files that Keras looks for, in an empty cache and without a network."""
    names = []
    get_file = keras.src.utils.file_utils.get_file

    def remember(fname, *args, **kwargs):
        names.append(fname)
        return get_file(fname, *args, **kwargs)

    def refuse(*_):
        raise keras.src.utils.file_utils.urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", remember)
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return names


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_without_a_network_the_error_names_the_file_and_three_ways_out(name, asked_for, tmp_path):
    with pytest.raises(UserError) as error, keras.StatelessScope():  # which spares the numbers
        build_backbone(name)
    spec = find_spec(name)
    file = spec.weights_file
    assert asked_for == [file]
    message = str(error.value)
    assert f"Expected Keras to fetch the ImageNet weights of {spec.name}, {file}." in message
    assert "Received: URL fetch failure on https://storage.googleapis.com/" in message
    assert "None -- Name or service not known" in message
    assert f"1. backbone.weights=PATH with the file {file}" in message
    assert f"Keras' cache as {tmp_path / 'models' / file}, where it is found" in message
    assert "2. backbone=efficientnetlite0" in message
    assert "3. backbone.weights=none" in message


def test_the_cache_is_in_the_home_directory_unless_set_otherwise(asked_for, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    with pytest.raises(UserError, match=r"as ~/\.keras/models/vgg16_weights_tf_dim_order\S+h5, wh"):
        build_backbone("vgg16")


def test_what_keras_does_not_build_with_torch_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match=r"=tensorflow or jax for nasnetmobile, .*=torch\. Change"):
        build_backbone("nasnetmobile", weights="none")


# One network for every size.


def with_statistics(network):
    """Give each batch norm statistics, scale and shift that are not 0 and 1."""
    rng = np.random.default_rng(3)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            ranges = [(0.8, 1.2), (-0.3, 0.3), (-0.1, 0.1), (0.7, 1.3)]
            layer.set_weights([rng.uniform(*limits, shape) for limits in ranges])
    return network


def weighted(network):
    return [layer.name for layer in network.layers if layer.weights]


@pytest.fixture(scope="module")
def networks():
    names = ["mobilenetv2", "nasnetmobile", "MobileNetV3Small", "MobileNet"]
    return {name: with_statistics(build_backbone(name, weights="none")) for name in names}


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("mobilenetv2", 96, 64),
        ("mobilenetv2", 75, 97),
        ("mobilenetv2", 32, 33),
        ("nasnetmobile", 75, 32),  # maps of 37, 19, 10, 5, 3 and 15, 8, 4, 2, 1
        ("MobileNetV3Small", 96, 64),
        ("MobileNetV3Small", 75, 97),
        ("MobileNet", 75, 96),
    ],
)
def test_a_network_for_any_size_is_the_one_that_keras_builds_for_this_size(
    networks, name, height, width
):
    ours, of_keras = networks[name], keras_build(name, (height, width))
    of_keras.set_weights(ours.get_weights())
    photos = images(2, height, width, 3)
    photos = photos / 127.5 - 1 if find_spec(name).preprocessing == "tf" else photos
    expected = output(of_keras, photos)
    assert ours.input_shape == (None, None, None, 3)
    assert len(ours.layers) == len(of_keras.layers)
    assert weighted(ours) == weighted(of_keras)  # in files of weights the order tells whose is what
    assert expected.std() > 0.01
    np.testing.assert_allclose(output(ours, photos), expected, atol=1e-4 * expected.std())


def test_mobilenetv2_without_a_size_from_keras_is_another_network(networks):
    """The trap that `needs_size` is for; when Keras mends it, this test says so."""
    of_keras = keras_build("mobilenetv2", (None, None))
    of_keras.set_weights(networks["mobilenetv2"].get_weights())
    photos = images(1, 65, 65, 3) / 127.5 - 1
    assert output(of_keras, photos).shape == (1, 2, 2, 1280)  # 33, 17, 9, 5 padded as if even
    assert output(networks["mobilenetv2"], photos).shape == (1, 3, 3, 1280)


@pytest.mark.parametrize(("name", "channels"), [("vgg16", 512), ("resnet50", 2048)])
def test_networks_that_keras_builds_without_a_size_leave_a_map_of_the_smallest_photo(
    name, channels
):
    network = build_backbone(name, weights="none")
    assert output(network, images(1, 32, 32, 3)).shape == (1, 1, 1, channels)


# Weights by path, and models that are saved.


def test_every_efficientnet_divides_by_the_root_of_the_standard_deviation():
    """Keras inserts that with weights="imagenet" alone; B3 is tested to the number elsewhere."""
    network = build_backbone("EfficientNetB0", weights="none")
    rescalings = [x.scale for x in network.layers if isinstance(x, keras.layers.Rescaling)]
    roots = [0.229**-0.5, 0.224**-0.5, 0.225**-0.5]
    assert rescalings == [pytest.approx(1 / 255), pytest.approx(roots)]


def test_imagenet_and_a_path_to_the_same_file_give_one_network(networks, tmp_path, monkeypatch):
    mobilenet = networks["mobilenetv2"]
    legacy = write_legacy_h5(mobilenet, tmp_path / "notop.h5")
    mobilenet.save_weights(tmp_path / "new.weights.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(legacy))
    photos = images(1, 50, 64, 3) / 127.5 - 1
    expected = output(mobilenet, photos)
    for weights in ("imagenet", str(legacy), str(tmp_path / "new.weights.h5")):
        network = build_backbone("mobilenetv2", weights=weights)
        assert network.name == mobilenet.name == "mobilenetv2_1.00_224"
        np.testing.assert_array_equal(output(network, photos), expected)


@pytest.mark.parametrize("file_name", ["notop.h5", "new.weights.h5"])
@pytest.mark.parametrize("name", ["vgg16", "MobileNetV3Small"])
def test_weights_of_another_network_are_told(networks, tmp_path, file_name, name):
    path = tmp_path / file_name
    if file_name == "notop.h5":
        write_legacy_h5(networks["mobilenetv2"], path)
    else:
        networks["mobilenetv2"].save_weights(path)
    with pytest.raises(UserError) as error:
        build_backbone(name, weights=str(path))
    message = str(error.value)
    assert f"Expected {path} to hold the weights of {name} without its classifier" in message
    assert "Received a file that does not fit: " in message
    assert f"Give the file made for {name} without its top" in message


LOAD = """
import json, sys
import keras, numpy as np
outputs = {}
for name in ("caffe", "nasnetmobile", "MobileNetV3Small", "ConvNeXtTiny"):
    model = keras.saving.load_model(f"{name}.keras", compile=False, safe_mode=True)
    assert "carcls" not in model.to_json() and "Lambda" not in model.to_json()
    outputs[name] = np.asarray(model(np.load("photos.npy"), training=False)).tolist()
assert not any("carcls" in name for name in sys.modules)
print(json.dumps(outputs))
"""


def test_saved_models_load_with_plain_keras_in_a_fresh_process(networks, tmp_path):
    """`Flip` before VGG and in NASNet, arithmetic in MobileNetV3, `LayerScale` in ConvNeXt."""
    convnext = build_backbone("ConvNeXtTiny", weights="none")
    scaled = convnext.get_layer("convnext_tiny_stage_0_block_0_layer_scale")
    convnext = keras.Model(convnext.input, scaled.output)  # all of it takes long to run
    bodies = {"caffe": lambda x: x, "ConvNeXtTiny": convnext, **networks}
    photos = images(1, 45, 64, 3)
    np.save(tmp_path / "photos.npy", photos)
    expected = {}
    for name in ("caffe", "nasnetmobile", "MobileNetV3Small", "ConvNeXtTiny"):
        inputs = x = keras.Input((None, None, 3))
        for layer in preprocessing_layers("vgg16" if name == "caffe" else name):
            x = layer(x)
        x = keras.layers.GlobalAveragePooling2D()(bodies[name](x))
        model = keras.Model(inputs, x)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = output(model, photos)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOAD]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    for name, values in json.loads(answer.stdout).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
