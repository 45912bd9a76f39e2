"""From the user's photos to batches. Imports neither Keras nor a backend of it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`ImageDataAugmentor`, which imports Keras, when it is asked for."""
    if name != "ImageDataAugmentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from carcls.data.image_data_augmentor import ImageDataAugmentor

    return ImageDataAugmentor
