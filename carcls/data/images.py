"""From a photo's bytes to the pixels a person sees, and from those to the network's square."""

import io
import os
import warnings
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from carcls.errors import PhotoError

SYSTEM_LEFTOVERS = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))
# What photos come as. Pillow opens more, EPS for one, for which it would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
# A photo of more pixels is taken for a decompression bomb (Pillow's own limit, said once).
_MAX_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
# Odd metadata is no reason to complain about a photo that opens.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_photo(source: str | Path | bytes, min_side: int | None = None) -> np.ndarray:
    """Opens a photo as a person sees it.

    The content decides the format, not the name. EXIF orientation is applied, transparency shows
    white, palettes, grayscale, CMYK (by its colour profile where it has one) and 16 bits become
    RGB; of several frames the first is taken.

    Args:
        source: A file, or a file's bytes.
        min_side: When given, a codec that can decode at a reduced scale (JPEG) may do so, as long
            as both sides keep at least twice this many pixels.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        PhotoError: If it cannot be opened, with the reason.
    """
    name = "<bytes>" if isinstance(source, bytes) else source
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_FORMATS) as image:
            return _to_rgb(image, min_side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(name, "too many pixels, taken for a decompression bomb") from error
    except Image.UnidentifiedImageError as error:
        raise PhotoError(name, _why_not_an_image(source)) from error
    except FileNotFoundError as error:
        raise PhotoError(name, "no such file") from error
    except IsADirectoryError as error:
        raise PhotoError(name, "a directory, not a file") from error
    except PermissionError as error:
        raise PhotoError(name, "no permission to read it") from error
    except Exception as error:
        # Decoders raise nearly anything on damaged data; whatever it is, it is this photo's.
        raise PhotoError(name, f"damaged ({error or type(error).__name__})") from error


def _why_not_an_image(source: str | Path | bytes) -> str:
    if isinstance(source, bytes):
        head = source[:256]
    else:
        with Path(source).open("rb") as file:
            head = file.read(256)
    if not head:
        return "an empty file"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return "not an image but a web page"
    return "not an image, or a damaged one"


def _to_rgb(image: Image.Image, min_side: int | None) -> np.ndarray:
    if image.width * image.height > _MAX_PIXELS:
        raise Image.DecompressionBombError
    if min_side is not None:
        image.draft(image.mode, (2 * min_side, 2 * min_side))
    image.load()
    profile = image.info.get("icc_profile")
    with suppress(Exception):  # unreadable EXIF: the pixels are shown as they lie, as viewers do
        image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image, profile)
    elif image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return np.asarray(image.convert("RGB"))


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            return ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the plain conversion still shows the photo
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit integers scaled by their range; 32-bit and float ones by what is in them."""
    pixels = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or (pixels.min() >= 0 and 255 < pixels.max() <= 65535):
        pixels = pixels / 257.0
    elif image.mode == "F" and pixels.min() >= 0.0 and pixels.max() <= 1.0:
        pixels = pixels * 255.0
    return Image.fromarray(np.clip(np.rint(np.nan_to_num(pixels)), 0, 255).astype(np.uint8))


def resize(image: np.ndarray, size: int, mode: str = "squash") -> np.ndarray:
    """A photo as the network's square: area interpolation to shrink, cubic to grow.

    Args:
        image: `(height, width, 3)` uint8.
        size: Side of the result in pixels.
        mode: `squash` (aspect not kept), `crop` (short side to `size`, centre cut out) or `pad`
            (long side to `size`, black bars).

    Returns:
        `(size, size, 3)` uint8.
    """
    height, width = image.shape[:2]
    if mode == "squash":
        return _interpolate(image, size, size)
    side = min(height, width) if mode == "crop" else max(height, width)
    image = _interpolate(
        image, max(1, round(height * size / side)), max(1, round(width * size / side))
    )
    height, width = image.shape[:2]
    top, left = abs(height - size) // 2, abs(width - size) // 2
    if mode == "crop":
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + height, left : left + width] = image
    return square


def _interpolate(image: np.ndarray, height: int, width: int) -> np.ndarray:
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    if smaller != image.shape[:2]:
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if (height, width) != smaller:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def list_photos(folder: Path) -> list[Path]:
    """The files below `folder`, sorted; hidden ones and what systems leave behind left out.

    Any name counts, since a photo's content says what it is; a file that is no photo is told when
    it is opened.
    """
    found = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_leftover(name))
        found += [Path(base, name) for name in sorted(files) if not _is_leftover(name)]
    return found


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_LEFTOVERS
