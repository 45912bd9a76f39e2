"""From a photo's bytes to its pixels, also where the file is cut off or damaged."""

import fcntl
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from contextlib import ExitStack, suppress
from typing import BinaryIO

import numpy as np
from PIL import Image

from carcls.data.photo_kinds import RAW, RefusedError, is_raw, why_not_a_photo


class OneAtATime:
    """A lock for threads, and for processes too where they share the file `file`."""

    def __init__(self) -> None:
        self.file: int | None = None
        self._lock = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1 and self.file is not None:
            fcntl.lockf(self.file, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        if self._depth == 1 and self.file is not None:
            fcntl.lockf(self.file, fcntl.LOCK_UN)
        self._depth -= 1
        self._lock.release()


# What photos come as. Pillow opens more, EPS for one, for which it would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
# A photo of more pixels is taken for a decompression bomb (Pillow's own limit, said once).
_MAX_PIXELS = 178_956_970
# A JPEG's scans go over the whole picture, each of them, however few bytes it has. A progressive
# one has about ten, any other one for each colour at most.
_MAX_SCANS = {True: 500, False: 32}  # by whether it is progressive
_MAX_SCANNED_PIXELS = 20 * _MAX_PIXELS  # of all scans together
# Where a JPEG's segment begins, also after data, in which FF is followed by 0 or by D0-D7.
_MARKER = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
_JUDGED_SIDE = 128  # at this `min_side` it is judged how much of a photo is there
# Decoding takes up to 16 bytes a pixel: of photos above this size one is opened at a time.
_LARGE_PIXELS = 25_000_000
ONE_LARGE_PHOTO = OneAtATime()
# Pillow's usual blocks of 16 MB are kept for each thread once freed; larger ones are given back.
Image.core.set_block_size(64 << 20)
_ENOUGH = 0.4  # share of the rows of a photo that is cut off from which on it is worth showing
Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
# Odd metadata is no reason to complain about a photo that opens; what does not open is told once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(file: BinaryIO, min_side: int | None, notes: list[str], held: ExitStack) -> Image.Image:
    """Decodes a photo, in whatever mode it comes.

    Args:
        file: Its bytes.
        min_side: See `carcls.data.images.open_photo`.
        notes: Receives what is not as it should be.
        held: Receives `ONE_LARGE_PHOTO` if the photo is large; to be closed when its pixels are
            done with.

    Raises:
        RefusedError: With the reason, if it is no photo or too little of it is there.
        Image.DecompressionBombError: If it has too many pixels or scans.
        Exception: Whatever the decoder raises on damaged data.
    """
    if is_raw(file):
        raise RefusedError(RAW)  # Pillow would show its thumbnail
    try:
        return _decoded(file, min_side, notes, held)
    except (RefusedError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        file.seek(0)
        data = file.read(1 << 18)
        with suppress(Image.UnidentifiedImageError):
            if data.startswith(b"\x89PNG"):
                mended = io.BytesIO(_without_extras(data + file.read()))
                return _decoded(mended, min_side, notes, held)
            if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
                return _rescued_webp(data + file.read(), notes)
        if isinstance(error, Image.UnidentifiedImageError):
            raise RefusedError(why_not_a_photo(data)) from error
        raise


def _opened(file: BinaryIO, min_side: int | None) -> Image.Image:
    """The header read, the size checked, the scale settled; nothing decoded."""
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    if image.width * image.height > _MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.format in ("JPEG", "MPO"):
        _check_scans(file, image)
    if min_side is not None:
        image.draft(image.mode, (2 * min_side, 2 * min_side))
    return image


def _check_scans(file: BinaryIO, image: Image.Image) -> None:
    allowed = min(
        _MAX_SCANS["progressive" in image.info],
        _MAX_SCANNED_PIXELS // (image.width * image.height),
    )
    file.seek(0)
    if _count_scans(file.read()) > allowed:
        raise Image.DecompressionBombError


def _count_scans(data: bytes) -> int:
    """The scans of a JPEG's first picture, not of its thumbnails or of what follows it."""
    scans, position = 0, 2
    while (found := _MARKER.search(data, position)) and found[0] != b"\xff\xd9":
        marker, position = found[0][1], found.end()
        if marker >= 0xC0:  # the others have no length
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == 0xDA
    return scans


def _decoded(
    file: BinaryIO, min_side: int | None, notes: list[str], held: ExitStack
) -> Image.Image:
    image = _opened(file, min_side)
    if image.width * image.height > _LARGE_PIXELS:
        held.enter_context(ONE_LARGE_PHOTO)
    frame = image.tile[0][1] if image.format == "GIF" and image.tile else None
    try:
        image.load()
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        file.seek(0)
        image = _rescued(file.read(), min_side, error, notes)
    if frame is not None and frame != (0, 0, *image.size):
        # What the first frame leaves uncovered is transparent, whatever colour Pillow gives it.
        canvas = Image.new("RGBA", image.size)
        canvas.paste(image.crop(frame).convert("RGBA"), frame[:2])
        return canvas
    return image


def _rescued(data: bytes, min_side: int | None, error: Exception, notes: list[str]) -> Image.Image:
    """What there is of a photo that could not be decoded to its end."""
    # Judged at one scale, so that the size asked for does not decide whether a photo opens.
    image, missing = _what_is_there(data, _JUDGED_SIDE)
    cut_off, is_jpeg = "truncat" in str(error), image.format in ("JPEG", "MPO")
    _check_share(1.0 - missing.mean(), cut_off, error)
    if missing.any() or "progressive" in image.info:
        notes.append(f"{'cut off' if cut_off else 'damaged'}: opened as far as it goes")
        if is_jpeg and cut_off:
            image = _opened(io.BytesIO(data + b"\xff\xd9"), min_side)  # the end that it lacks
            image.load()
            return image
    if is_jpeg:
        image, missing = _what_is_there(data, min_side)
    # Interlaced: the last pass brings every second row, until then the one above stands for it.
    for row in np.flatnonzero(missing[1:] & ~missing[:-1]) + 1:
        image.paste(image.crop((0, row - 1, image.width, row)), (0, row))
    return image


def _what_is_there(data: bytes, min_side: int | None) -> tuple[Image.Image, np.ndarray]:
    """What can be decoded, black elsewhere, and `(height,)` bool, which rows are missing.

    Pillow's own switch for this holds for all threads at once. Here the photo is decoded into a
    black and into a white picture: a row in which they differ is one that was not decoded.
    """
    black, white = (_decoded_onto(fill, data, min_side) for fill in (b"\0", b"\xff"))
    pixels = np.asarray(black)
    missing = (pixels != np.asarray(white)).reshape(len(pixels), -1).any(axis=1)
    if black.format == "GIF" and "transparency" in black.info:
        missing |= (pixels == black.info["transparency"]).all(axis=1)
    # A progressive JPEG comes coarse first: its third scan begins when the first details are there.
    if "progressive" in black.info and _count_scans(data) >= 3:
        missing[:] = False
    return black, missing


def _check_share(share: float, cut_off: bool, error: Exception) -> None:
    if share >= _ENOUGH:
        return
    if cut_off:
        raise RefusedError(f"truncated: {share:.0%} of it is there") from error
    raise RefusedError(f"damaged ({error or type(error).__name__})") from error


def _decoded_onto(fill: bytes, data: bytes, min_side: int | None) -> Image.Image:
    image = _opened(io.BytesIO(data), min_side)
    if image.format != "GIF" or "transparency" not in image.info:  # that one Pillow fills itself
        size = len(Image.new(image.mode, image.size).tobytes())
        image.im = Image.frombytes(image.mode, image.size, fill * size).im
    with suppress(Exception):  # the one that is known
        image.load()
    image.tile = []  # what is decoded is all there will be
    return image


def _rescued_webp(data: bytes, notes: list[str]) -> Image.Image:
    """A WebP that lacks its end, which its decoder takes only whole: zeros stand for the rest.

    They decode to something; with a few bytes less to something else, from the same row on.
    """
    length = 8 + struct.unpack("<I", data[4:8].ljust(4, b"\0"))[0]
    error = RefusedError("a damaged WebP")
    if length <= len(data):
        raise error
    _check_share(len(data) / length, True, error)
    try:
        image, other = (
            _opened(io.BytesIO(part + bytes(length - len(part))), None)
            for part in (data, data[:-16])
        )
        pixels, others = np.array(image.convert("RGB")), np.asarray(other.convert("RGB"))
    except (OSError, SyntaxError):
        raise RefusedError("truncated, and its decoder shows nothing of it") from error
    differs = (pixels != others).any(axis=(1, 2))
    there = int(differs.argmax()) if differs.any() else len(pixels)
    _check_share(there / len(pixels), True, error)
    notes.append("cut off: opened as far as it goes")
    pixels[there:] = 0
    shown = Image.fromarray(pixels)
    shown.info.update(image.info)
    return shown


def _without_extras(data: bytes) -> bytes:
    """A PNG without what need not be there: texts, profiles and whatever fails its checksum."""
    kept, position = [data[:8]], 8
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        chunk = data[position : position + 12 + length]
        position += len(chunk)
        is_whole = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (
            kind in (b"tRNS", b"eXIf") and is_whole
        ):
            kept.append(chunk)
    return b"".join(kept)
