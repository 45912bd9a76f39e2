"""Damaged and hostile files: a photo or a PhotoError with its reason, nothing else."""

import csv
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carcls.data.images import open_photo
from carcls.errors import PhotoError
from tests.test_images import encoded, picture, reason

ODD = Path(__file__).parents[2] / "shared" / "data" / "odd"
PHOTOS = {kind: encoded(picture(20, 14), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_truncated_photo_is_refused_as_damaged(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert reason(data[: len(data) // 2]).startswith("damaged (")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(50_000, 50_000), (13_378, 13_378)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size):
    assert reason(png_header(*size)) == "too many pixels, taken for a decompression bomb"


def assert_photo_or_photo_error(data: bytes, min_side: int | None) -> None:
    try:
        photo = open_photo(data, min_side)
    except PhotoError as error:
        assert error.reason
    else:
        assert photo.ndim == 3 and photo.shape[2] == 3 and photo.dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    kind=st.sampled_from(sorted(PHOTOS)),
    changes=st.dictionaries(st.integers(0, 399), st.integers(0, 255), max_size=8),
    cut=st.none() | st.integers(0, 399),
    min_side=st.none() | st.integers(1, 40),
)
def test_changed_bytes_give_a_photo_or_a_photo_error(kind, changes, cut, min_side):
    data = bytearray(PHOTOS[kind])
    for position, value in changes.items():
        data[position % len(data)] = value
    assert_photo_or_photo_error(bytes(data[:cut]), min_side)


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM", b"P6"]), st.binary())
def test_random_bytes_give_a_photo_or_a_photo_error(start, rest):
    assert_photo_or_photo_error(start + rest, None)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.skipif(not ODD.is_dir(), reason="the collection of odd photos is not here")
def test_of_the_odd_photos_only_the_damaged_ones_are_refused():
    refused = {}
    with (ODD / "index.csv").open(newline="", encoding="utf-8") as file:
        listed = [(row["file"], row["category"]) for row in csv.DictReader(file)]
    for name, category in listed:
        try:
            photo = open_photo(ODD / name, min_side=64)
        except PhotoError as error:
            known = category if category != "fixture_pillow_tests" else name.split("__")[1]
            refused.setdefault(known, set()).add(error.reason.split(" (")[0])
        else:
            assert photo.ndim == 3 and photo.shape[2] == 3
    assert len(listed) == 47
    assert refused == {
        "corrupt_not_an_image": {"not an image but a web page"},
        "broken.png": {"not an image, or a damaged one"},
        "decompression_bomb.gif": {"too many pixels, taken for a decompression bomb"},
        "truncated_jpeg.jpg": {"damaged"},
        "truncated_image.png": {"damaged"},
    }
