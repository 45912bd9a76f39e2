"""Augmentation policies: an ordered map of named steps, made into one albumentations pipeline.

All of albumentations stays behind this module (2.0.8 is its last MIT release).
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from carcls.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import otherwise
import albumentations as A  # noqa: N812

_TRANSFORMS = {
    cls.__name__: cls
    for cls in (
        A.Affine,
        A.Blur,
        A.GaussNoise,
        A.HorizontalFlip,
        A.HueSaturationValue,
        A.RGBShift,
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
    return seeded(A.Compose([_build_step(name, step) for name, step in steps.items()]))


def seeded(pipeline: Any) -> Augment:
    """Any albumentations pipeline as a function of a photo and a seed. Not to be shared by threads.

    Args:
        pipeline: A `Compose`, another group of steps, or a single one. It is copied.

    Returns:
        `augment(photo, seed)`, what the pipeline makes of the photo: a pure function of its two
        arguments as far as the steps draw from albumentations' own random state.

    Raises:
        UserError: If it is nothing of albumentations.
    """
    if not isinstance(pipeline, A.BaseCompose | A.BasicTransform):
        raise UserError(
            "Expected an augmentation made of albumentations, such as "
            f"albumentations.Compose([albumentations.HorizontalFlip()]). Received: {pipeline!r}"
        )
    pipeline = copy.deepcopy(pipeline)
    if not isinstance(pipeline, A.Compose):
        pipeline = A.Compose([pipeline])
    nodes = [pipeline, *_descendants(pipeline)]

    def augment(photo: np.ndarray, seed: int) -> np.ndarray:
        # Each its own: the pipeline would hand one seed to all steps, which then draw alike, so
        # that either most of them apply or none. Parents first, since they hand theirs down.
        seeds = np.random.SeedSequence(seed).generate_state(len(nodes))
        for node, own_seed in zip(nodes, seeds.tolist(), strict=True):
            node.set_random_seed(own_seed)
        return pipeline(image=photo)["image"]

    return augment


def _descendants(group: A.BaseCompose) -> Iterator[Any]:
    """Every step below, a group before its members."""
    for step in group.transforms:
        yield step
        if isinstance(step, A.BaseCompose):
            yield from _descendants(step)


def _build_step(name: str, step: Mapping[str, Any]) -> Any:
    if not isinstance(step, Mapping) or "type" not in step:
        raise UserError(
            f"Expected the augmentation step '{name}' to be a map with a type, such as "
            f"{{type: HorizontalFlip, p: 0.5}}. Received: {step}"
        )
    arguments = {key: value for key, value in step.items() if key != "type"}
    kind = step["type"]
    if kind == "OneOf":
        return _build_one_of(name, **arguments)
    if not isinstance(kind, str) or kind not in _TRANSFORMS:
        raise UserError(
            f"Expected the type of the augmentation step '{name}' to be one of "
            f"{', '.join([*_TRANSFORMS, 'OneOf'])}. Received: type={kind}"
        )
    for key, constants in _CONSTANTS.items():
        if key in arguments:
            if not isinstance(arguments[key], str) or arguments[key] not in constants:
                raise UserError(
                    f"Expected {key} of the augmentation step '{name}' to be one of "
                    f"{', '.join(constants)}. Received: {key}={arguments[key]}"
                )
            arguments[key] = constants[arguments[key]]
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        # strict: an unknown argument is an error. (Made one by a filter of warnings, it would
        # reach into the threads that open photos meanwhile.)
        return _TRANSFORMS[kind](**arguments, strict=True)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Expected arguments that {kind} takes in the augmentation step '{name}'. "
            f"Received: {reason}"
        ) from error


def _build_one_of(name: str, /, steps: Any = None, p: Any = 0.5, **unknown: Any) -> A.OneOf:
    where = f"in the augmentation step '{name}'"
    if unknown:
        raise UserError(
            f"Expected arguments that OneOf takes {where}: steps, p. Received: {', '.join(unknown)}"
        )
    if not isinstance(steps, Mapping) or not steps:
        raise UserError(f"Expected steps, a map of steps by name, {where}. Received: steps={steps}")
    if not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise UserError(f"Expected p to be in [0, 1] {where}. Received: p={p}")
    members = [_build_step(f"{name}.{key}", step) for key, step in steps.items()]
    if not any(member.p for member in members):
        raise UserError(
            f"Expected a step with p above 0 to choose {where}. Received: p=0 in each of "
            f"{', '.join(steps)}. To leave it out: p=0 in '{name}' itself."
        )
    return A.OneOf(members, p=p)
