"""What a file is that cannot be shown as a photo, told by its first bytes."""

import re
import struct
from contextlib import suppress
from typing import BinaryIO

from PIL import TiffImagePlugin

_CONVERT = "which needs converting to JPEG"
_UNPACK = "which needs unpacking"
RAW = f"a camera's RAW photo, {_CONVERT}"
_STARTS = {  # what a file that is no photo starts with
    b"%PDF": f"a PDF document, {_CONVERT}",
    b"8BPS": f"a Photoshop document, {_CONVERT}",
    b"%!PS": f"a PostScript document (EPS), {_CONVERT}",
    b"\xc5\xd0\xd3\xc6": f"a PostScript document (EPS), {_CONVERT}",
    b"\xff\x0a": f"JPEG XL, {_CONVERT}",
    b"\0\0\0\x0cJXL ": f"JPEG XL, {_CONVERT}",
    b"FUJIFILMCCD-RAW": RAW,
    b"IIRO": RAW,
    b"IIRS": RAW,
    b"MMOR": RAW,
    b"IIU\0": RAW,
    b"FOVb": RAW,
    b"\0MRM": RAW,
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


class RefusedError(Exception):
    """Becomes the `PhotoError`, which knows the name too."""


def is_raw(file: BinaryIO) -> bool:
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


def why_not_a_photo(data: bytes) -> str:
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
        return RAW
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
