"""From a photo's bytes to the pixels a person sees, and from those to the network's square."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from carcls.data.photo_colours import to_rgb
from carcls.data.photo_decoding import decode
from carcls.data.photo_kinds import RefusedError
from carcls.errors import PhotoError, UserError

_IMAGENET_MARGIN = 32  # px, "crop padding" of EfficientNet (github.com/tensorflow/tpu)
SYSTEM_LEFTOVERS = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))


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
        with _reading(source) as file, ExitStack() as held:
            return to_rgb(decode(file, min_side, [] if notes is None else notes, held))
    except RefusedError as error:
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
        raise RefusedError("a directory, not a file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for someone to write to it
        raise RefusedError("a pipe or a device, not a file")
    return Path(source).open("rb")


def resize(image: np.ndarray, size: int, mode: str = "squash") -> np.ndarray:
    """A photo as the network's square: area interpolation to shrink, cubic to grow.

    Args:
        image: `(height, width, 3)` uint8.
        size: Side of the result in pixels.
        mode: `squash` (aspect not kept), `crop` (short side to `size`, centre cut out), `pad`
            (long side to `size`, black bars) or `imagenet`, as pretrained networks are measured:
            short side to `size` + 32 px (256 of 224), centre cut out.

    Returns:
        `(size, size, 3)` uint8.
    """
    height, width = image.shape[:2]
    if mode == "squash":
        return _interpolate(image, size, size)
    side = max(height, width) if mode == "pad" else min(height, width)
    target = size + _IMAGENET_MARGIN if mode == "imagenet" else size
    image = _interpolate(
        image, max(1, round(height * target / side)), max(1, round(width * target / side))
    )
    height, width = image.shape[:2]
    top, left = abs(height - size) // 2, abs(width - size) // 2
    if mode != "pad":
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


def list_photos(folder: Path, follow_links: bool = True) -> list[Path]:
    """The files of `walk_photos`, in its order."""
    return [Path(base, name) for base, names in walk_photos(folder, follow_links) for name in names]


def walk_photos(folder: Path, follow_links: bool = True) -> Iterator[tuple[str, list[str]]]:
    """The files below `folder`, sorted; hidden ones and what systems leave behind left out.

    Any name counts, since a photo's content says what it is; a file that is no photo is told when
    it is opened. A linked folder is followed, unless what it links to is listed already.

    Args:
        folder: Where to look.
        follow_links: Whether linked folders are.

    Yields:
        A folder with files, and their names: a path a file costs more where there are a million.

    Raises:
        UserError: If a folder cannot be read: its photos would be missing without a word.
    """
    listed = [Path(os.path.realpath(folder))]
    walk = os.walk(folder, onerror=_raise_unreadable, followlinks=follow_links)
    for base, folders, files in walk:
        folders[:] = [
            name
            for name in sorted(folders)
            if not _is_leftover(name) and _is_followed(Path(base, name), listed)
        ]
        names = sorted(name for name in files if not _is_leftover(name))
        if names:
            yield base, names


def _is_followed(path: Path, listed: list[Path]) -> bool:
    """Whether a folder is no link or leads to photos not in `listed`, which it then joins."""
    if not path.is_symlink():
        return True
    target = Path(os.path.realpath(path))
    if listed[0].is_relative_to(target):  # upwards, and so round and round
        return False
    for folder in listed:
        if target.is_relative_to(folder):
            inside = target.relative_to(folder).parts
            if not any(map(_is_leftover, inside)):  # hidden ones are not listed by themselves
                return False
    listed.append(target)
    return True


def _raise_unreadable(error: OSError) -> None:
    raise UserError(
        f"Expected a folder of photos that can be read. Received: {error.filename}: "
        f"{error.strerror}."
    ) from error


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_LEFTOVERS
