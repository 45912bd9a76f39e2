"""Augmentation policies: an ordered map of named steps, made into one albumentations pipeline.

All of albumentations stays behind this module (2.0.8 is its last MIT release).
"""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from carcls.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import otherwise
import albumentations as A  # noqa: E402, N812

_GROUPS = {"OneOf": A.OneOf}
_TRANSFORMS = {
    cls.__name__: cls
    for cls in (
        A.Affine,
        A.Blur,
        A.GaussNoise,
        A.HorizontalFlip,
        A.HueSaturationValue,
        A.RandomBrightnessContrast,
    )
}
_CONSTANTS = {
    "interpolation": {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC},
    "border_mode": {"reflect": cv2.BORDER_REFLECT, "reflect_101": cv2.BORDER_REFLECT_101},
}

Augment = Callable[[np.ndarray, int], np.ndarray]


def build_augment(steps: Mapping[str, Mapping[str, Any]]) -> Augment | None:
    """A policy as a function of a photo and a seed. Not to be shared between threads.

    Args:
        steps: Name to `{type: TRANSFORM, p: PROBABILITY, ...arguments}`, applied in order. A
            `OneOf` has `steps` of its own and applies one of them.

    Returns:
        `augment(photo, seed)`, `(height, width, 3)` uint8 to the same, a pure function of its two
        arguments; None when there is no step.

    Raises:
        UserError: If a transform or an argument of it is not known, by the step's name.
    """
    if not steps:
        return None
    pipeline = A.Compose([_build_step(name, step) for name, step in steps.items()])

    def augment(photo: np.ndarray, seed: int) -> np.ndarray:
        pipeline.set_random_seed(seed)
        return pipeline(image=photo)["image"]

    return augment


def _build_step(name: str, step: Mapping[str, Any]) -> Any:
    if not isinstance(step, Mapping) or "type" not in step:
        raise UserError(
            f"Expected the augmentation step '{name}' to be a map with a type, such as "
            f"{{type: HorizontalFlip, p: 0.5}}. Received: {step}"
        )
    arguments = {key: value for key, value in step.items() if key != "type"}
    kind = step["type"]
    if kind in _GROUPS:
        members = [_build_step(f"{name}.{k}", v) for k, v in arguments.pop("steps", {}).items()]
        return _checked(name, _GROUPS[kind], {"transforms": members, **arguments})
    if kind not in _TRANSFORMS:
        raise UserError(
            f"Expected the type of the augmentation step '{name}' to be one of "
            f"{', '.join([*_TRANSFORMS, *_GROUPS])}. Received: type={kind}"
        )
    for key, constants in _CONSTANTS.items():
        if key in arguments:
            if arguments[key] not in constants:
                raise UserError(
                    f"Expected {key} of the augmentation step '{name}' to be one of "
                    f"{', '.join(constants)}. Received: {key}={arguments[key]}"
                )
            arguments[key] = constants[arguments[key]]
    return _checked(name, _TRANSFORMS[kind], arguments)


def _checked(name: str, cls: type, arguments: dict[str, Any]) -> Any:
    arguments = {k: tuple(v) if isinstance(v, list) and k != "transforms" else v
                 for k, v in arguments.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown argument is only a warning there
            return cls(**arguments)
    except (UserWarning, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Expected arguments that {cls.__name__} takes in the augmentation step '{name}'. "
            f"Received: {reason}"
        ) from error
