"""The whole network: photos in, class probabilities out."""

import tempfile
import zipfile
from pathlib import Path

import keras

from carcls.config import BackboneConfig, HeadConfig
from carcls.errors import UserError
from carcls.models.backbones import build_backbone, preprocessing_layers
from carcls.models.heads import HEADS
from carcls.run import ModelInfo, embed_model_info, replacing


def build_classifier(backbone: BackboneConfig, head: HeadConfig, num_classes: int) -> keras.Model:
    """Builds preprocessing, backbone and head as one model.

    It takes `(batch, height, width, 3)` RGB in 0–255, uint8 or float, of any size that the
    backbone allows, and gives `(batch, num_classes)` float32 probabilities, also under mixed
    precision.

    Args:
        backbone: Which, and its weights.
        head: What goes on top of it.
        num_classes: Outputs.
    """
    x = photos = keras.Input((None, None, 3), name="photos")
    for layer in preprocessing_layers(backbone.name, backbone.preprocessing):
        x = layer(x)
    network = build_backbone(backbone.name, weights=backbone.weights)
    x = network(x)  # (batch, h, w, channels)
    x = HEADS[head.name](x, head)  # (batch, features)
    probs = keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name="probs")(x)
    return keras.Model(photos, probs, name="classifier")


def backbone_of(model: keras.Model) -> keras.Model:
    """The backbone inside of a classifier."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def enlarged_side(model: keras.Model) -> int | None:
    """Side in pixels that a classifier brings its photos to; None: they stay as they are.

    Args:
        model: What `seen_at` gave, or a part of it that begins with the photos.
    """
    sides = (layer.height for layer in model.layers if isinstance(layer, keras.layers.Resizing))
    return next(sides, None)


def seen_at(model: keras.Model, side: int | None) -> keras.Model:
    """The classifier of the same layers that brings its photos to a side before it sees them.

    Args:
        model: What `build_classifier` gave, or this.
        side: In pixels, for photos of every size; None: they stay as they are.

    Returns:
        `model` itself if that is what it does.
    """
    if enlarged_side(model) == side:
        return model
    x = photos = keras.Input((None, None, 3), name="photos")
    if side is not None:
        x = keras.layers.Resizing(side, side, dtype="float32", name="enlarged")(x)
    for layer in model.layers[1:]:  # a classifier is a chain
        if not isinstance(layer, keras.layers.Resizing):
            x = layer(x)
    return keras.Model(photos, x, name=model.name)


def up_to(model: keras.Model, name: str) -> keras.Model:
    """The classifier's layers from the photos to the one of a name, themselves.

    Not by the layer's output, which is that of the first classifier that it was part of.
    """
    x = model.input
    for layer in model.layers[1:]:
        x = layer(x)
        if layer.name == name:
            break
    return keras.Model(model.input, x)


def save_classifier(model: keras.Model, info: ModelInfo, path: Path) -> None:
    """Writes a self-contained `.keras` file, or nothing."""
    with replacing(path) as temporary:
        model.save(temporary)
        embed_model_info(temporary, info)


def restore_weights(model: keras.Model, path: Path) -> None:
    """Puts the weights of a `.keras` file back into the model that was saved there."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        # Keras would seek about in the compressed member, which takes seconds.
        model.load_weights(archive.extract("model.weights.h5", folder))


def load_classifier(path: Path) -> keras.Model:
    """Loads what `save_classifier` wrote; executes nothing from the file, downloads nothing.

    Raises:
        UserError: If Keras cannot load it.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"Expected a .keras file that Keras {keras.__version__} can load. "
            f"Received: {path}: {reason}"
        ) from error
