"""From a photo's bytes to the pixels a person sees, and from those to the network's square."""

import io
import logging
import os
import re
import stat
import struct
import warnings
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from carcls.errors import PhotoError

SYSTEM_LEFTOVERS = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))
# What photos come as. Pillow opens more, EPS for one, for which it would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
# A photo of more pixels is taken for a decompression bomb (Pillow's own limit, said once).
_MAX_PIXELS = 178_956_970
_MAX_SCANS = 500  # of a progressive JPEG, where each goes over the whole picture; ten are usual
_ENOUGH = 0.4  # share of the rows of a photo that is cut off from which on it is worth showing
_SRGB_TOLERANCE = 3  # levels of 255 that a profile may be off and still be taken for sRGB
Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
# Odd metadata is no reason to complain about a photo that opens; what does not open is told once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_CONVERT = "which needs converting to JPEG"
_UNPACK = "which needs unpacking"
_RAW = f"a camera's RAW photo, {_CONVERT}"
_STARTS = {  # what a file that is no photo starts with
    b"%PDF": f"a PDF document, {_CONVERT}",
    b"8BPS": f"a Photoshop document, {_CONVERT}",
    b"%!PS": f"a PostScript document (EPS), {_CONVERT}",
    b"\xc5\xd0\xd3\xc6": f"a PostScript document (EPS), {_CONVERT}",
    b"\xff\x0a": f"JPEG XL, {_CONVERT}",
    b"\0\0\0\x0cJXL ": f"JPEG XL, {_CONVERT}",
    b"FUJIFILMCCD-RAW": _RAW,
    b"IIRO": _RAW,
    b"IIRS": _RAW,
    b"MMOR": _RAW,
    b"IIU\0": _RAW,
    b"FOVb": _RAW,
    b"\0MRM": _RAW,
    b"PK\3\4": f"a ZIP archive, {_UNPACK}",
    b"PK\5\6": f"a ZIP archive, {_UNPACK}",
    b"\x1f\x8b": f"a gzip archive, {_UNPACK}",
    b"BZh": f"a bzip2 archive, {_UNPACK}",
    b"\xfd7zXZ": f"an xz archive, {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive, {_UNPACK}",
    b"Rar!": f"a RAR archive, {_UNPACK}",
    b"\x1a\x45\xdf\xa3": "a video, not a photo",
    b"\0\0\1\xba": "a video, not a photo",
    b"\0\0\1\xb3": "a video, not a photo",
    b"FLV\1": "a video, not a photo",
    b"OggS": "sound or a video, not a photo",
    b"ID3": "sound, not a photo",
    b"version https://git-lfs.github.com/": "a git-lfs pointer, not the photo: run git lfs pull",
    b"\xff\xd8\xff": "a damaged JPEG",
    b"\x89PNG\r\n\x1a\n": "a damaged PNG",
    b"GIF8": "a damaged GIF",
    b"BM": "a damaged BMP",
    b"II*\0": "a TIFF that is damaged or of a rare kind",
    b"MM\0*": "a TIFF that is damaged or of a rare kind",
    b"II+\0": "a TIFF that is damaged or of a rare kind",
    b"MM\0+": "a TIFF that is damaged or of a rare kind",
    b"\0\0\0\x0cjP  ": "a damaged JPEG 2000",
    b"\xff\x4f\xff\x51": "a damaged JPEG 2000",
}


class _RefusedError(Exception):
    """Becomes the `PhotoError`, which knows the name too."""


def open_photo(
    source: str | Path | bytes, min_side: int | None = None, notes: list[str] | None = None
) -> np.ndarray:
    """Opens a photo as a person sees it.

    The content decides the format, not the name. EXIF orientation and colour profiles are applied,
    transparency shows white, palettes, grayscale, CMYK and 16 bits become RGB; of several frames
    the first is taken. Of a photo that is cut off or damaged the rows that are there are shown, if
    these are about half or more.

    Args:
        source: A file, or a file's bytes.
        min_side: When given, a codec that can decode at a reduced scale (JPEG) may do so, as long
            as both sides keep at least twice this many pixels.
        notes: Receives what is not as it should be about a photo that opens.

    Returns:
        `(height, width, 3)` uint8, RGB.

    Raises:
        PhotoError: If it cannot be opened, with the reason.
    """
    name = "<bytes>" if isinstance(source, bytes) else source
    try:
        with _reading(source) as file:
            return _to_rgb(_loaded(file, min_side, [] if notes is None else notes))
    except _RefusedError as error:
        raise PhotoError(name, str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(name, "too many pixels, taken for a decompression bomb") from error
    except FileNotFoundError as error:
        dangles = not isinstance(source, bytes) and Path(source).is_symlink()
        reason = "a link to a file that does not exist" if dangles else "no such file"
        raise PhotoError(name, reason) from error
    except PermissionError as error:
        raise PhotoError(name, "no permission to read it") from error
    except MemoryError as error:
        raise PhotoError(name, "too large for the memory that is free") from error
    except Exception as error:
        # Decoders raise nearly anything on damaged data; whatever it is, it is this photo's.
        if isinstance(error, OSError) and error.errno is not None:
            raise PhotoError(name, f"cannot be read ({error.strerror})") from error
        raise PhotoError(name, f"damaged ({error or type(error).__name__})") from error


def _reading(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    mode = Path(source).stat().st_mode
    if stat.S_ISDIR(mode):
        raise _RefusedError("a directory, not a file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for someone to write to it
        raise _RefusedError("a pipe or a device, not a file")
    return Path(source).open("rb")


def _loaded(file: BinaryIO, min_side: int | None, notes: list[str]) -> Image.Image:
    """The photo decoded, in whatever mode it comes."""
    if _is_raw(file):
        raise _RefusedError(_RAW)  # Pillow would show its thumbnail
    try:
        return _decoded(file, min_side, notes)
    except (_RefusedError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        file.seek(0)
        data = file.read(1 << 18)
        with suppress(Image.UnidentifiedImageError):
            if data.startswith(b"\x89PNG"):
                mended = io.BytesIO(_without_extras(data + file.read()))
                return _decoded(mended, min_side, notes)
            if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
                return _rescued_webp(data + file.read(), notes)
        if isinstance(error, Image.UnidentifiedImageError):
            raise _RefusedError(_why_not_a_photo(data)) from error
        raise


def _opened(file: BinaryIO, min_side: int | None) -> Image.Image:
    """The header read, the size checked, the scale settled; nothing decoded."""
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    if image.width * image.height > _MAX_PIXELS:
        raise Image.DecompressionBombError
    if min_side is not None:
        image.draft(image.mode, (2 * min_side, 2 * min_side))
    return image


def _decoded(file: BinaryIO, min_side: int | None, notes: list[str]) -> Image.Image:
    image = _opened(file, min_side)
    if image.info.get("progressive"):
        file.seek(0)
        if file.read().count(b"\xff\xda") > _MAX_SCANS:
            raise Image.DecompressionBombError
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
    """What there is of a photo that could not be decoded to its end.

    Pillow's own switch for this holds for all threads at once. Here the photo is decoded into a
    black and into a white picture: a row in which they differ is one that was not decoded.
    """
    black, white = (_decoded_onto(fill, data, min_side) for fill in (b"\0", b"\xff"))
    pixels = np.asarray(black)
    missing = (pixels != np.asarray(white)).reshape(len(pixels), -1).any(axis=1)
    if black.format == "GIF" and "transparency" in black.info:
        missing |= (pixels == black.info["transparency"]).all(axis=1)
    cut_off, progressive = "truncat" in str(error), bool(black.info.get("progressive"))
    # A progressive JPEG comes coarse first: its third scan begins when the first details are there.
    if progressive and data.count(b"\xff\xda") >= 3:
        missing[:] = False
    _check_share(1.0 - missing.mean(), cut_off, error)
    if not (missing.any() or progressive):
        return black
    notes.append(f"{'cut off' if cut_off else 'damaged'}: opened as far as it goes")
    if black.format in ("JPEG", "MPO") and cut_off:
        image = _opened(io.BytesIO(data + b"\xff\xd9"), min_side)  # the end that it lacks
        image.load()
        return image
    # Interlaced: the last pass brings every second row, until then the one above stands for it.
    for row in np.flatnonzero(missing[1:] & ~missing[:-1]) + 1:
        black.paste(black.crop((0, row - 1, black.width, row)), (0, row))
    return black


def _check_share(share: float, cut_off: bool, error: Exception) -> None:
    if share >= _ENOUGH:
        return
    if cut_off:
        raise _RefusedError(f"truncated: {share:.0%} of it is there") from error
    raise _RefusedError(f"damaged ({error or type(error).__name__})") from error


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
    error = _RefusedError("a damaged WebP")
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
        raise _RefusedError("truncated, and its decoder shows nothing of it") from error
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


def _is_raw(file: BinaryIO) -> bool:
    """Whether a TIFF is a camera's: its first picture is then a thumbnail, or no picture yet."""
    head = file.read(10)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    with suppress(Exception):  # a damaged one is told by whoever opens it
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[:8])
        file.seek(tags.next)
        tags.load(file)
        photometric, compression, subfile = (tags.get(tag, 0) for tag in (262, 259, 254))
        return (
            head[8:] == b"CR"
            or 50706 in tags  # DNGVersion
            or photometric in (32803, 34892)  # colour filter array, linear raw
            or compression in (32767, 32769, 32770, 34713, 65535)  # of the makers of cameras
            or (subfile == 1 and 330 in tags)  # a thumbnail, with the photo in a sub-directory
        )
    return False


def _why_not_a_photo(data: bytes) -> str:
    if not data:
        return "an empty file"
    if not data.strip(b"\0"):
        return "nothing but zeros, as a failed copy leaves behind"
    for start, what in _STARTS.items():
        if data.startswith(start):
            return (_rare_jpeg(data) or what) if start == b"\xff\xd8\xff" else what
    if data[4:8] == b"ftyp":
        return _kind_of_box(data[8:64])
    if data.startswith(b"RIFF"):
        return "a video or sound, not a photo"
    if b"\xff\xd8\xff" in data[:1024]:
        return "something else before the photo, as a failed download leaves behind"
    return _kind_of_text(data[:4096])


def _rare_jpeg(data: bytes) -> str | None:
    position = 2
    while data[position : position + 1] == b"\xff" and position + 5 <= len(data):
        marker, length, bits = struct.unpack(">xBHB", data[position : position + 5])
        if marker == 0xF7:
            return f"JPEG-LS, {_CONVERT}"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None if bits == 8 else f"a JPEG of {bits} bits a colour, {_CONVERT} of 8"
        position += 2 + length
    return None


def _kind_of_box(brands: bytes) -> str:
    """Of a file in the container of ISO, which photos and videos share, by its brands."""
    if brands.startswith(b"crx "):
        return _RAW
    if brands.startswith((b"avif", b"avis")):
        return "a damaged AVIF"
    if brands.startswith((b"hei", b"hev", b"mif1", b"msf1")):
        return f"HEIC, {_CONVERT}"
    return "a video, not a photo"


def _kind_of_text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.replace(b"\0", b"")[2:]  # UTF-16
    text = data.decode("utf-8", "ignore")
    is_garbage = len(text.encode()) < 0.9 * len(data)
    text = text.lstrip("\ufeff \t\r\n").lower()
    if "<svg" in text:
        return f"SVG, a drawing, {_CONVERT}"
    if text.startswith("<") and re.search("<(!doctype html|html|head|body|script)", text):
        return "not an image but a web page"
    if is_garbage or re.search("[\0-\x08\x0e-\x1a\x7f]", text):
        return "not an image, or a damaged one"
    return "not an image but text"


def _to_rgb(image: Image.Image) -> np.ndarray:
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
    return np.asarray(image.convert("RGB"))


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
    if image.mode.startswith("I;16") or (pixels.min() >= 0 and 255 < pixels.max() <= 65535):
        pixels /= 257.0
    elif image.mode == "F" and pixels.min() >= 0.0 and pixels.max() <= 1.0:
        pixels *= 255.0
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
