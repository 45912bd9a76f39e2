"""Augmentation policies: an ordered map of named steps, made into a function of photo and seed.

albumentations says what a step's arguments are and checks them; all of it stays behind this module
(2.0.8 is its last MIT release), which imports it only when a policy is made, since that takes half
a second. What is made can be pickled: a worker process that receives it imports none of it.
"""

import copy
import os
import random
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import cv2
import numpy as np

from carcls.data import augmentation_steps as own
from carcls.errors import UserError

_TYPES = (
    "Affine", "AutoContrast", "Blur", "ColorJitter", "Equalize", "Erasing", "GaussNoise",
    "HorizontalFlip", "HueSaturationValue", "NoOp", "Posterize", "RGBShift",
    "RandomBrightnessContrast", "RandomResizedCrop", "Sharpen", "Solarize",
)  # fmt: skip
_CONSTANTS = {
    "interpolation": {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC},
    "border_mode": {"reflect": cv2.BORDER_REFLECT, "reflect_101": cv2.BORDER_REFLECT_101},
}

Augment = Callable[[np.ndarray, int], np.ndarray]


def build_augment(
    steps: Mapping[str, Mapping[str, Any]], size: int | None = None
) -> own.Policy | None:
    """A policy as a function of a photo and a seed. Not to be shared between threads.

    Args:
        steps: Name to `{type: TRANSFORM, p: PROBABILITY, ...arguments}`, applied in order. A
            `OneOf` has `steps` of its own and applies one of them.
        size: Side of the result in pixels: what `RandomResizedCrop` gives, and what a photo that
            no step brought to it is resized to in the end. None leaves photos as large as they are.

    Returns:
        `augment(photo, seed)`, `(height, width, 3)` uint8 to the same or `(size, size, 3)`, a pure
        function of its two arguments; it can be pickled. None when there is no step.

    Raises:
        UserError: If a transform or an argument of it is not known, by the step's name.
    """
    if not steps:
        return None
    built = build_pipeline(steps, size).transforms
    return own.Policy(tuple(_own_step(transform, size) for transform in built), size)


def build_pipeline(steps: Mapping[str, Mapping[str, Any]], size: int | None = None) -> Any:
    """The same policy as albumentations applies it: slower, and what `build_augment` is held to.

    Args:
        steps, size: As in `build_augment`.

    Returns:
        An `albumentations.Compose` of the steps.

    Raises:
        UserError: If a transform or an argument of it is not known, by the step's name.
    """
    return _albumentations().Compose(
        [_build_step(name, step, size) for name, step in steps.items()]
    )


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
    A = _albumentations()  # noqa: N806
    if not isinstance(pipeline, A.BaseCompose | A.BasicTransform):
        raise UserError(
            "Expected an augmentation made of albumentations, such as "
            f"albumentations.Compose([albumentations.HorizontalFlip()]). Received: {pipeline!r}"
        )
    pipeline = copy.deepcopy(pipeline)
    if not isinstance(pipeline, A.Compose):
        pipeline = A.Compose([pipeline])
    # All steps draw from the same two, one after the other. With a seed for the pipeline, each
    # would get its own pair of the same seed: they would draw alike, so that either most of them
    # apply or none; and a seed for each step costs more than what most of them do.
    python_random, generator = random.Random(), np.random.default_rng(0)
    pipeline.set_random_state(generator, python_random)

    def augment(photo: np.ndarray, seed: int) -> np.ndarray:
        python_random.seed(seed)
        generator.bit_generator.state = np.random.PCG64(seed).state
        return pipeline(image=photo)["image"]

    return augment


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import else
    import albumentations

    return albumentations


def _build_step(name: str, step: Mapping[str, Any], size: int | None) -> Any:
    if not isinstance(step, Mapping) or "type" not in step:
        raise UserError(
            f"Expected the augmentation step '{name}' to be a map with a type, such as "
            f"{{type: HorizontalFlip, p: 0.5}}. Received: {step}"
        )
    arguments = {key: value for key, value in step.items() if key != "type"}
    kind = step["type"]
    if kind == "OneOf":
        return _build_one_of(name, size, **arguments)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise UserError(
            f"Expected the type of the augmentation step '{name}' to be one of "
            f"{', '.join([*_TYPES, 'OneOf'])}. Received: type={kind}"
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
    if kind == "RandomResizedCrop":
        if "size" in arguments:
            raise UserError(
                f"Expected no size in the augmentation step '{name}', since it gives photos the "
                f"size that the network sees. Received: size={arguments['size']}"
            )
        arguments["size"] = (size or 1, size or 1)
    try:
        # strict: an unknown argument is an error. (Made one by a filter of warnings, it would
        # reach into the threads that open photos meanwhile.)
        if kind == "Erasing":
            _check_colour(arguments.get("fill", 0))
        return getattr(_albumentations(), kind)(**arguments, strict=True)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Expected arguments that {kind} takes in the augmentation step '{name}'. "
            f"Received: {reason}"
        ) from error


def _build_one_of(
    name: str, size: int | None, /, steps: Any = None, p: Any = 0.5, **unknown: Any
) -> Any:
    where = f"in the augmentation step '{name}'"
    if unknown:
        raise UserError(
            f"Expected arguments that OneOf takes {where}: steps, p. Received: {', '.join(unknown)}"
        )
    if not isinstance(steps, Mapping) or not steps:
        raise UserError(f"Expected steps, a map of steps by name, {where}. Received: steps={steps}")
    if not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise UserError(f"Expected p to be in [0, 1] {where}. Received: p={p}")
    members = [_build_step(f"{name}.{key}", step, size) for key, step in steps.items()]
    if not any(member.p for member in members):
        raise UserError(
            f"Expected a step with p above 0 to choose {where}. Received: p=0 in each of "
            f"{', '.join(steps)}. To leave it out: p=0 in '{name}' itself."
        )
    return _albumentations().OneOf(members, p=p)


def _own_step(t: Any, size: int | None) -> own.Step:
    """What albumentations' step does, as our own step where there is one for its arguments."""
    p = t.p
    match type(t).__name__:
        case "OneOf":
            members = tuple(_own_step(member, size) for member in t.transforms)
            *below, _ = accumulate(t.transforms_ps)
            return own.OneOf(p=p, steps=members, below=tuple(below))
        case "NoOp":
            return own.Step(p=p)
        case "Affine" if not (_moves_pixels(t) or t.fit_output or t.balanced_scale):
            return own.Affine(
                p=p,
                shift=t.translate_percent and _both_axes(t.translate_percent),
                shear=_both_axes(t.shear),
                scale=_both_axes(t.scale),
                keep_ratio=t.keep_ratio,
                rotate=t.rotate,
                interpolation=t.interpolation,
                border=t.border_mode,
                fill=_three(t.fill),
            )
        case "RandomResizedCrop":
            return own.RandomResizedCrop(
                p=p,
                size=size,
                scale=t.scale,
                ratio=t.ratio,
                interpolation=t.interpolation,
                area_to_shrink=t.area_for_downscale is not None,
            )
        case "HorizontalFlip":
            return own.HorizontalFlip(p=p)
        case "Blur":
            return own.Blur(p=p, sides=tuple(range(t.blur_limit[0], t.blur_limit[1] + 1, 2)))
        case "Sharpen" if t.method == "kernel":
            return own.Sharpen(p=p, alpha=t.alpha, lightness=t.lightness)
        case "GaussNoise" if t.noise_scale_factor == 1:
            return own.GaussNoise(
                p=p, std=t.std_range, mean=t.mean_range, per_channel=t.per_channel
            )
        case "RandomBrightnessContrast" if t.brightness_by_max and not t.ensure_safe_range:
            return own.BrightnessContrast(
                p=p, brightness=t.brightness_limit, contrast=t.contrast_limit
            )
        case "RGBShift":
            return own.RGBShift(p=p, shifts=tuple(t.noise_params["ranges"]))
        case "HueSaturationValue":
            return own.HueSaturationValue(
                p=p, hue=t.hue_shift_limit, saturation=t.sat_shift_limit, value=t.val_shift_limit
            )
        case "ColorJitter":
            return own.ColorJitter(
                p=p,
                brightness=t.brightness,
                contrast=t.contrast,
                saturation=t.saturation,
                hue=t.hue,
            )
        case "Posterize" if isinstance(t.num_bits, tuple):
            return own.Posterize(p=p, bits=t.num_bits)
        case "Solarize":
            return own.Solarize(p=p, threshold=t.threshold_range)
        case "AutoContrast" if t.method == "pil" and not t.cutoff and t.ignore is None:
            return own.AutoContrast(p=p)
        case "Equalize" if t.mode == "cv" and t.by_channels and t.mask is None:
            return own.Equalize(p=p)
        case "Erasing" if not str(t.fill).startswith("inpaint"):
            fill = t.fill if isinstance(t.fill, str) else _three(t.fill)
            return own.Erasing(p=p, scale=t.scale, ratio=t.ratio, fill=fill)
    return own.ByAlbumentations(p=p, transform=t)


def _check_colour(fill: Any) -> None:
    """Raises ValueError for a fill that no photo can take; albumentations would find out later."""
    if isinstance(fill, str):
        return
    levels = _three(fill)
    if len(levels) != 3 or any(not 0 <= v <= 255 or v != int(v) for v in levels):
        raise ValueError(f"fill={fill}, where a whole level from 0 to 255, or three, can be")


def _moves_pixels(affine: Any) -> bool:
    """Whether the shift is given in pixels: no shift at all is 0 of them."""
    limits = affine.translate_px or {}
    return any(any(limit) for limit in limits.values())


def _both_axes(limits: Mapping[str, Any]) -> tuple[own.Range, own.Range]:
    return limits["x"], limits["y"]


def _three(fill: Any) -> tuple[float, float, float]:
    """A value for each channel."""
    return tuple(fill) if isinstance(fill, tuple | list) else (fill,) * 3
