"""What ImageDataAugmentor's arguments may be here; what makes no sense is refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from carcls.errors import UserError

_CLASS_MODES = ("categorical", "sparse", "binary", None)
NORMALISE = "Normalise with preprocess_input=, or inside the network."
_SHOW = "No photo is written to disk; show_data() shows them."
# Arguments of the original that have one meaning here: its name, the value it may have, and why.
_FIXED: dict[str, tuple[Any, str]] = {
    "featurewise_center": (False, NORMALISE),
    "samplewise_center": (False, NORMALISE),
    "featurewise_std_normalization": (False, NORMALISE),
    "samplewise_std_normalization": (False, NORMALISE),
    "zca_whitening": (False, NORMALISE),
    "augment_mode": ("image", "Masks are not supported."),
    "input_augment_mode": ("image", "Masks are not supported."),
    "label_augment_mode": (None, "Labels are classes, which are not augmented."),
    "preprocess_labels": (None, "Labels are classes; change them in the dataframe."),
    "augment_seed": (None, "Augmentation and order follow seed=."),
    "data_format": ("channels_last", "Batches are (photos, height, width, 3)."),
    "dtype": ("float32", "Batches are float32."),
    "color_mode": ("rgb", "Every photo is opened as RGB."),
    "interpolation": (None, "Photos shrink by area and grow by cubic interpolation."),
    "keep_aspect_ratio": (False, "Photos are resized to the square, their aspect is not kept."),
    "follow_links": (False, "Links to folders are not followed."),
    "weight_col": (None, "Weigh classes with class_weight= of fit."),
    "save_to_dir": (None, _SHOW),
    "save_prefix": ("", _SHOW),
    "save_format": ("png", _SHOW),
}


def refuse(where: str, others: Mapping[str, Any]) -> None:
    """What cannot be done is said by name; the original's own defaults pass."""
    for name, value in others.items():
        if name not in _FIXED:
            raise UserError(
                f"Expected arguments that {where} takes. Received: {name}={value!r}, which it does "
                "not know. Photos are changed by augment=, a pipeline of albumentations."
            )
        allowed, why = _FIXED[name]
        if value is not None and value != allowed:
            raise UserError(f"Expected {where} without {name}=. Received: {name}={value!r}. {why}")


@dataclass(frozen=True)
class Flow:
    """What both `flow_from_…` are told, checked."""

    target_size: tuple[int, int]
    class_mode: str | None
    batch_size: int
    shuffle: bool
    seed: int
    subset: str | None

    def __post_init__(self) -> None:
        if self.class_mode not in _CLASS_MODES:
            raise UserError(
                "Expected class_mode to be categorical, sparse, binary or None. Received: "
                f"class_mode={self.class_mode!r}. This project's networks tell classes apart."
            )
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UserError(
                "Expected batch_size to be a whole number above 0. "
                f"Received: batch_size={self.batch_size}"
            )
        if self.subset not in ("training", "validation", None):
            raise UserError(
                "Expected subset to be training, validation or None. "
                f"Received: subset={self.subset!r}"
            )
        size = self.target_size
        if not isinstance(size, tuple | list) or len(size) != 2 or not 1 <= size[0] == size[1]:
            raise UserError(
                "Expected target_size to be a square of pixels, such as (224, 224): photos are "
                f"squares here. Received: target_size={size}"
            )

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return int(self.target_size[0])


def checked_seed(seed: int | None) -> int | None:
    """The seed, or None for another one every time."""
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise UserError(
            f"Expected seed to be a whole number of at least 0, or None. Received: seed={seed!r}"
        )
    return None if seed is None else int(seed)
