"""Networks of keras.applications, the same ones for photos of any size.

Given a size, Keras builds the published networks. Without one it pads some of them as if every
feature map had an even size, and cannot build others. `keras_application` gives what Keras builds
for a size, for every size, of standard layers only.
"""

import os
import re
from http.client import HTTPException
from pathlib import Path

import keras

from carcls.catalogue import BackboneSpec
from carcls.errors import UserError

IMAGENET_STD = (0.229, 0.224, 0.225)


def keras_application(
    spec: BackboneSpec, weights: str | None, *, include_top: bool = False
) -> keras.Model:
    """A network of keras.applications, for photos of any size.

    Args:
        spec: What to build; `spec.application` names the class.
        weights: "imagenet", which Keras downloads into its cache, or None for random ones.
        include_top: Whether to keep its classifier of ImageNet's 1000 classes.

    Returns:
        A functional model. In: `(batch, height, width, 3)`, height and width free. Out: the
        `(batch, h, w, channels)` feature map. Layers are named and numbered as Keras does. With the
        top `(batch, 1000)` probabilities, and a VGG takes photos of 224 px only.

    Raises:
        UserError: If the weights cannot be had, or Keras has no such network for this backend.
    """
    if spec.application == "NASNetMobile" and keras.backend.backend() == "torch":
        raise UserError(
            f"Expected KERAS_BACKEND=tensorflow or jax for {spec.name}, which Keras does not build "
            "with torch. Received: KERAS_BACKEND=torch. Change it, or the backbone."
        )
    build = getattr(keras.applications, spec.application)
    size = spec.default_size if spec.needs_size or include_top else None
    try:
        network = build(include_top=include_top, weights=weights, input_shape=(size, size, 3))
    except Exception as error:
        # Keras raises a bare `Exception` when a download fails.
        if weights is None or not (
            type(error) is Exception or isinstance(error, (OSError, ValueError, HTTPException))
        ):
            raise
        raise UserError(
            (_no_download_of_classifier if include_top else _no_download)(spec, error)
        ) from error
    if not size or any(isinstance(layer, keras.layers.Flatten) for layer in network.layers):
        return network
    return _for_any_size(network, spec.size_dependent_padding or "")


def weights_file_with_top(spec: BackboneSpec) -> str:
    """What Keras downloads for the network with its classifier."""
    return re.sub("_no_?top(_v2)?", "", spec.weights_file)


def _no_download_of_classifier(spec: BackboneSpec, error: Exception) -> str:
    """As `_no_download`, for the network with its classifier."""
    file = weights_file_with_top(spec)
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models", file)
    return (
        f"Expected Keras to fetch the ImageNet weights of {spec.name} with its classifier, {file}. "
        f"Received: {error}\n"
        "Without a network there are two ways out:\n"
        f"  1. {spec.name}:PATH with that file, fetched elsewhere (or put it into Keras' cache as "
        f"{cached}, where it is found by itself);\n"
        "  2. efficientnetlite0, efficientnetlite1 or efficientnetlite2, whose weights come with "
        "pip packages."
    )


def _no_download(spec: BackboneSpec, error: Exception) -> str:
    """What to tell a user whose machine cannot fetch the weights."""
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models", spec.weights_file)
    return (
        f"Expected Keras to fetch the ImageNet weights of {spec.name}, {spec.weights_file}. "
        f"Received: {error}\n"
        "Without a network there are three ways out:\n"
        f"  1. backbone.weights=PATH with the file {spec.weights_file}, fetched elsewhere (or put "
        f"it into Keras' cache as {cached}, where it is found without any option);\n"
        "  2. backbone=efficientnetlite0, efficientnetlite1 or efficientnetlite2, whose weights "
        "come with pip packages;\n"
        "  3. backbone.weights=none, which trains from scratch."
    )


def _for_any_size(network: keras.Model, padding_names: str) -> keras.Model:
    """The network that Keras built for one photo size, for every size.

    Keras pads before a strided convolution or pool by amounts that it takes from the size of the
    photo (`imagenet_utils.correct_pad`): for a kernel of 3, one row below a feature map of even
    height, and one above and one below an odd one (of 240 px: the 15x15 one). Here the amount is
    settled at run time.

    Before convolutions, "same" padding does that. The padding layers stay as `Identity`, so that
    layers are numbered and counted as in Keras.

    Before pools (NASNet's) it does not: "same" pools leave the padding out of maximum and mean,
    Keras' count its zeros. But seen from the lower right corner the windows always start one row
    into the padding. So the map is turned over, padded by one all round, pooled, and turned back.

    An EfficientNet gets the division by the square root of ImageNet's standard deviation, which
    Keras inserts with weights="imagenet" only (github.com/tensorflow/tensorflow/issues/49930).
    """
    pads = [layer for layer in network.layers if re.fullmatch(padding_names, layer.name)]
    padded = {id(pad.output): pad.name for pad in pads}
    pools = [layer for layer in network.layers if _is_pool(layer) and id(layer.input) in padded]
    pad_names = {pad.name for pad in pads}
    pool_names = {pool.name for pool in pools}
    turned_pad_names = {padded[id(pool.input)] for pool in pools}
    has_std = any(_divides_by_std(layer) for layer in network.layers)

    def clone(layer: keras.Operation) -> keras.Operation:
        if layer.name in turned_pad_names:
            return keras.layers.ZeroPadding2D(1, name=layer.name)  # all of these pools are 3x3
        if layer.name in pad_names:
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        if id(layer.input) in padded and layer.name not in pool_names:
            config["padding"] = "same"
        return type(layer).from_config(config)

    def call(layer: keras.Operation, *args, **kwargs) -> keras.KerasTensor:
        if layer.name in turned_pad_names:
            args = (_turn(args[0]),)
        outputs = layer(*args, **kwargs)
        if layer.name in pool_names:
            outputs = _turn(outputs)
        if isinstance(layer, keras.layers.Normalization) and not has_std:
            scale = [std**-0.5 for std in IMAGENET_STD]
            outputs = keras.layers.Rescaling(scale, name="rescaling_std")(outputs)
        return outputs

    photos = keras.Input((None, None, 3), name=network.layers[0].name)
    clone_of = keras.models.clone_model(network, photos, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.weights:
            clone_of.get_layer(layer.name).set_weights(layer.get_weights())
    for layer in clone_of.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies, which set_weights leaves as they were
    return clone_of


def _turn(feature_map: keras.KerasTensor) -> keras.KerasTensor:
    """Turns `(batch, h, w, channels)` by 180 degrees."""
    return keras.ops.flip(feature_map, axis=(1, 2))


def _is_pool(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D)


def _divides_by_std(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, list | tuple)
