"""What is learnt of one photo by opening it; runs in the processes of `carcls.data.workers`."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from carcls.data.duplicates import FLAT, THUMB_SIDE, colour_thumb, perceptual_hash
from carcls.data.images import open_photo
from carcls.errors import PhotoError

_LOOKED_AT_SIDE = 64  # pixels: opened at twice as many where the codec can, which is a lot faster
_QUALITY = 78  # of JPEG
_DIGEST_BYTES = 16
_TURNED = range(5, 9)  # the EXIF orientations that lie on their side

cv2.setNumThreads(0)  # its own threads would fight the processes


@dataclass(kw_only=True, slots=True)
class Look:
    """What one look at a photo gives.

    Attributes:
        num_bytes: Of the file; -1 where there is none.
        file_digest: Of the file's bytes.
        width, height: In pixels, as a person sees the photo: turned as its EXIF says.
        format: What it is, whatever its name says: JPEG, PNG.
        brightness, contrast: Mean and standard deviation of its gray levels, from 0 to 255.
        hash, thumb: See `carcls.data.duplicates`.
        note: What is odd about a photo that opens.
        error: Why it does not open; then nothing but the first two is known.
    """

    num_bytes: int = -1
    file_digest: bytes = b""
    width: int = 0
    height: int = 0
    format: str = ""
    brightness: float = np.nan
    contrast: float = np.nan
    hash: int = int(FLAT)
    thumb: bytes = bytes(3 * THUMB_SIDE**2)
    note: str = ""
    error: str = ""


def tasks(setup: None) -> Callable[[tuple], Any]:
    """The function that does one job, a tuple of its name and its arguments, the path first."""
    by_name = {"look": look, "pixels": digest_of_pixels, "picture": picture}
    return lambda job: by_name[job[0]](*job[1:])


def look(path: str) -> Look:
    """Opens a photo once, at a reduced scale where that is enough."""
    seen = Look()
    with suppress(OSError):
        seen.num_bytes = Path(path).stat().st_size
    notes: list[str] = []
    try:
        photo = open_photo(path, min_side=_LOOKED_AT_SIDE, notes=notes)
        with Path(path).open("rb") as file:
            seen.file_digest = hashlib.file_digest(file, _digest).digest()
    except PhotoError as error:
        seen.error = error.reason
        return seen
    except OSError as error:  # gone since it was opened
        seen.error = f"cannot be read ({error.strerror})"
        return seen
    seen.note = "; ".join(notes)
    seen.format, size = _format_and_size(path)
    seen.height, seen.width = size or photo.shape[:2]
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(gray)
    seen.brightness, seen.contrast = float(mean[0, 0]), float(deviation[0, 0])
    seen.hash = int(perceptual_hash(photo))
    seen.thumb = colour_thumb(photo).tobytes()
    return seen


def digest_of_pixels(path: str) -> bytes:
    """Of all pixels in full size: the same for the same picture in another format."""
    try:
        photo = open_photo(path)
    except PhotoError:  # gone meanwhile
        return b""
    return hashlib.blake2b(
        photo.tobytes(), digest_size=_DIGEST_BYTES, key=repr(photo.shape).encode()
    ).digest()


def picture(path: str, side: int) -> bytes:
    """A photo as a JPEG file, its longer side at most `side` pixels; empty if it is gone."""
    try:
        photo = open_photo(path, min_side=side // 2)
    except PhotoError:
        return b""
    return as_jpeg(shrunk(photo, side))


def shrunk(photo: np.ndarray, side: int) -> np.ndarray:
    """A photo with its longer side at most `side` pixels."""
    height, width = photo.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return photo
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def as_jpeg(photo: np.ndarray) -> bytes:
    """`(height, width, 3)` uint8 RGB as a JPEG file."""
    _, jpeg = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes()


def _digest() -> Any:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def _format_and_size(path: str) -> tuple[str, tuple[int, int] | None]:
    """The format, and `(height, width)` in full where the photo may have been opened smaller."""
    try:
        with Image.open(path) as image:
            if image.format not in ("JPEG", "MPO"):
                return image.format or "", None
            orientation = None
            with suppress(Exception):  # unreadable EXIF: shown as it lies
                orientation = image.getexif().get(ExifTags.Base.Orientation)
            return image.format, image.size if orientation in _TURNED else image.size[::-1]
    except Exception:  # opened all the same: mended on the way, see `carcls.data.photo_decoding`
        return "", None
