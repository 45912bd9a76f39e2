"""Any mode, depth and colour profile as the RGB that a screen shows."""

import io
from contextlib import suppress
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps

_SRGB_TOLERANCE = 3  # levels of 255 that a profile may be off and still be taken for sRGB


def to_rgb(image: Image.Image) -> np.ndarray:
    """`(height, width, 3)` uint8 of a decoded photo, turned as its EXIF orientation says."""
    profile = image.info.get("icc_profile")
    with suppress(Exception):  # unreadable EXIF: the pixels are shown as they lie, as viewers do
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image, profile)
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    elif image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if profile:
            alpha = rgba.getchannel("A")
            rgba = _to_srgb(rgba.convert("RGB"), profile)
            rgba.putalpha(alpha)
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    elif profile:
        image = _to_srgb(image if image.mode == "L" else image.convert("RGB"), profile)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            return ImageCms.applyTransform(image, _transform(profile, "CMYK"))
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the plain conversion still shows the photo
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Of an image in mode RGB or L; as it is where the profile says nothing new, or is broken."""
    if _changes_colours(profile, image.mode):
        return ImageCms.applyTransform(image, _transform(profile, image.mode))
    return image


@lru_cache(maxsize=64)  # photos of one source carry the same profile
def _changes_colours(profile: bytes, mode: str) -> bool:
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
    before = Image.fromarray(colours if mode == "RGB" else levels[None])
    try:
        after = ImageCms.applyTransform(before, _transform(profile, mode))
    except (ImageCms.PyCMSError, OSError):
        return False
    difference = np.asarray(after).astype(int) - np.asarray(before.convert("RGB"))
    return bool(np.abs(difference).max() > _SRGB_TOLERANCE)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit integers scaled by their range; 32-bit and float ones by what is in them."""
    pixels = np.asarray(image).astype(np.float32)
    # Floats of 8 bits may go a little beyond 255, where a filter or a resize overshot.
    of_8_bits = 1000.0 if image.mode == "F" else 255
    if image.mode.startswith("I;16") or (pixels.min() >= 0 and of_8_bits < pixels.max() <= 65535):
        pixels /= 257.0
    elif image.mode == "F" and pixels.min() >= 0.0 and pixels.max() <= 1.0:
        pixels *= 255.0
    return Image.fromarray(np.clip(np.rint(np.nan_to_num(pixels)), 0, 255).astype(np.uint8))
