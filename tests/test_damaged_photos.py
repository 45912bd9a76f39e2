"""Damaged and hostile files: a photo or a PhotoError with its reason, nothing else."""

import re
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carcls.data import photo_decoding
from carcls.data.images import open_photo
from carcls.data.loader import Photos
from carcls.errors import PhotoError
from tests.test_images import RED, encoded, picture, reason

ROOT = Path(__file__).parent.parent
PHOTOS = {kind: encoded(picture(20, 14), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + png_chunk(b"IDAT", zlib.compress(bytes(64))) + png_chunk(b"IEND", b"")


CUT_OFF = "cut off: opened as far as it goes"
NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
KINDS = {
    "PNG": ("PNG", "RGB", {}),
    "PNG with a palette": ("PNG", "P", {}),
    "JPEG": ("JPEG", "RGB", {"quality": 95}),
    "JPEG in gray": ("JPEG", "L", {"quality": 95}),
    "JPEG in CMYK": ("JPEG", "CMYK", {"quality": 95}),
    "GIF": ("GIF", "P", {"interlace": 0}),
    "GIF with transparency": ("GIF", "P", {"interlace": 0, "transparency": 3}),
    "WEBP without loss": ("WEBP", "RGB", {"lossless": True}),
    "TIFF": ("TIFF", "RGB", {}),
    "PPM": ("PPM", "RGB", {}),
}


def cut(name: str, share: float) -> tuple[bytes, bytes]:
    kind, mode, options = KINDS[name]
    data = encoded(Image.fromarray(NOISE).convert(mode), kind, **options)
    return data, data[: int(len(data) * share)]


@pytest.mark.parametrize("name", KINDS)
def test_of_a_photo_that_lacks_its_end_the_rows_that_are_there_are_shown(name):
    whole, part = cut(name, 0.8)
    notes = []
    shown, complete = open_photo(part, notes=notes), open_photo(whole)
    assert notes == [CUT_OFF]
    assert shown.shape == complete.shape
    same = (shown == complete).all(axis=(1, 2))
    there = int(same.argmin())  # the rows above the first that differs
    assert 0.5 * len(same) <= there < len(same)


@pytest.mark.parametrize("name", KINDS)
def test_a_photo_of_which_most_is_missing_is_refused(name):
    why = reason(cut(name, 0.25)[1])
    share = re.fullmatch(r"truncated: (\d+)% of it is there", why)
    assert share is not None and int(share[1]) < 40


@pytest.mark.parametrize("min_side", [None, 8])
def test_a_jpeg_that_lacks_only_its_last_bytes_is_shown_whole(min_side):
    data, notes = encoded(picture(192, 128), "JPEG", quality=95), []
    shown = open_photo(data[:-2], min_side, notes)
    np.testing.assert_allclose(shown, open_photo(data, min_side), atol=1)
    assert notes == [CUT_OFF]


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["plain", "progressive"])
def test_the_size_asked_for_does_not_decide_whether_a_truncated_jpeg_opens(options):
    def opened(data: bytes, min_side: int | None) -> tuple[bool, list[str]]:
        notes = []
        try:
            open_photo(data, min_side, notes)
        except PhotoError:
            return False, notes
        return True, notes

    pixels = np.kron(NOISE[:40, :40], np.ones((20, 20, 1), np.uint8))
    data = encoded(Image.fromarray(pixels), "JPEG", quality=92, **options)
    sizes, outcomes = (None, 16, 50, 100, 200, 400), []
    for length in [*np.linspace(0.3, 0.55, 21) * len(data), *range(len(data) - 6, len(data))]:
        one, *others = [opened(data[: int(length)], min_side) for min_side in sizes]
        assert others == [one] * len(others), length
        outcomes.append(one[0])
    assert outcomes == sorted(outcomes) and outcomes[-1]
    if not options:
        assert not outcomes[0]


def test_a_progressive_jpeg_that_is_cut_off_is_shown_coarsely():
    pixels = cv2.resize(NOISE[:8, :8], (256, 256), interpolation=cv2.INTER_LINEAR)
    data = encoded(Image.fromarray(pixels), "JPEG", progressive=True, quality=90)
    starts = [m.start() for m in re.finditer(b"\xff\xda", data)]
    notes = []
    shown = open_photo(data[: starts[2] + 10], notes=notes)
    assert notes == [CUT_OFF]
    assert np.abs(shown.astype(int) - pixels).mean() < 12
    assert reason(data[: starts[1] - 5]) == "truncated: 0% of it is there"


@pytest.mark.parametrize(("kind", "options"), [("GIF", {"interlace": 1})])
def test_an_interlaced_photo_repeats_the_rows_above_those_that_are_missing(kind, options):
    rows = np.repeat(np.arange(64, dtype=np.uint8) * 4, 64).reshape(64, 64)
    image = Image.fromarray(rows // 2 * 2 + NOISE[..., 0] % 2).quantize(128)
    data, notes = encoded(image, kind, **options), []
    shown, whole = open_photo(data[: int(len(data) * 0.8)], notes=notes), open_photo(data)
    assert notes == [CUT_OFF]
    assert np.abs(shown.astype(int) - whole).max() <= 6  # never a row of another colour


def test_a_webp_that_lacks_its_end_is_shown_as_far_as_it_goes():
    pixels = cv2.resize(NOISE[:20, :20], (320, 320), interpolation=cv2.INTER_CUBIC)
    data, notes = encoded(Image.fromarray(pixels), "WEBP", quality=90), []
    shown, whole = open_photo(data[: int(len(data) * 0.8)], notes=notes), open_photo(data)
    there = int((shown == whole).all(axis=(1, 2)).argmin())
    assert notes == [CUT_OFF] and there > 120
    assert (shown[there + 32 :] == 0).all()
    assert reason(data[: len(data) // 4]) == "truncated: 25% of it is there"
    assert reason(data[:100]) == f"truncated: {100 / len(data):.0%} of it is there"


def test_cut_off_photos_are_noted_for_their_index_and_go_on_being_so(tmp_path):
    whole, part = cut("PNG", 0.8)
    paths = []
    for name, data in (("a", whole), ("b", b"no photo"), ("c", part), ("d", part[:100])):
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    photos = Photos([*paths, paths[2]], size=16)
    photos.decode_all(keep=True, workers=2, progress=lambda done: None)
    assert photos.notes == {2: CUT_OFF, 4: CUT_OFF}
    assert sorted(photos.errors) == [1, 3]
    assert photos.without_errors()[0].notes == {1: CUT_OFF, 2: CUT_OFF}


@pytest.mark.parametrize(
    "extra",
    [
        png_chunk(b"tEXt", b"Title\0car")[:-1] + b"!",  # a wrong checksum
        png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(50_000_000))),  # a bomb
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(5_000_000))),
    ],
    ids=["checksum", "text", "profile"],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_shows_whatever_stands_beside_its_picture(extra, place):
    data, notes = encoded(picture()), []
    end = data.find(b"IDAT") - 4 if place == "before" else len(data) - 12
    shown = open_photo(data[:end] + extra + data[end:], notes=notes)
    np.testing.assert_array_equal(shown, np.asarray(picture()))
    assert notes == []


def test_a_png_with_a_broken_header_is_refused():
    data = bytearray(encoded(picture()))
    data[17] ^= 1
    assert reason(bytes(data)) == "a damaged PNG"


def test_a_jpeg_of_endless_scans_is_taken_for_a_bomb():
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    assert reason(data[:-2] + data[last:-2] * 600 + data[-2:]) == (
        "too many pixels, taken for a decompression bomb"
    )


BOMB = "too many pixels, taken for a decompression bomb"


def with_scans(scans: int, side: int | None = None) -> bytes:
    """A sequential JPEG of so many scans, each of one colour and next to no bytes."""
    data = bytearray(encoded(picture(16, 16), "JPEG", subsampling=0))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    if side is not None:
        struct.pack_into(">HH", data, frame + 5, side, side)
    colours = [(data[frame + 10 + 3 * i], 0x11 if i else 0) for i in range(3)]
    again = [b"\xff\xda\0\x08\1" + bytes(colours[i % 3]) + b"\0\x3f\0" for i in range(scans)]
    return bytes(data[:scan]) + b"".join(again) + b"\xff\xd9"


def test_a_jpeg_that_goes_over_its_colours_again_and_again_is_taken_for_a_bomb():
    assert open_photo(with_scans(3)).shape == open_photo(with_scans(32)).shape == (16, 16, 3)
    started = time.perf_counter()
    assert reason(with_scans(33)) == BOMB
    assert reason(with_scans(3000, side=4000), min_side=150) == BOMB
    assert time.perf_counter() - started < 1.0


def test_a_progressive_jpeg_may_have_the_fewer_scans_the_larger_it_is(monkeypatch):
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    many = data[:-2] + data[last:-2] * 60 + data[-2:]
    scans = many.count(b"\xff\xda")
    monkeypatch.setattr(photo_decoding, "_MAX_SCANNED_PIXELS", scans * 48 * 32)
    assert open_photo(many).shape == (32, 48, 3)
    monkeypatch.setattr(photo_decoding, "_MAX_SCANNED_PIXELS", scans * 48 * 32 - 1)
    assert reason(many) == BOMB


def test_scans_of_thumbnails_and_of_further_frames_do_not_count():
    data = encoded(picture(), "JPEG", quality=95)
    segment = b"\xff\xe5" + struct.pack(">H", 2 + 200) + b"\xff\xda" * 100
    for odd in (data[:2] + segment + data[2:], data + b"\xff\xda" * 100):
        np.testing.assert_array_equal(open_photo(odd), open_photo(data))
    frames = [picture()] * 40
    mpo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert mpo.count(b"\xff\xda") == 40
    assert open_photo(mpo).shape == (32, 48, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [1.0, 0.8, 0.25], ids=["whole", "cut off", "refused"])
def test_of_large_photos_one_is_opened_at_a_time(monkeypatch, kind, share):
    def outcome(data: bytes) -> tuple[int, ...] | str:
        try:
            return open_photo(data).shape
        except PhotoError:
            return "refused"

    monkeypatch.setattr(photo_decoding, "_LARGE_PIXELS", 64 * 64 - 1)
    large, small = encoded(Image.fromarray(NOISE), kind), encoded(picture(63, 63), kind)
    large = large[: int(share * len(large))]
    expected = "refused" if share < 0.4 else (64, 64, 3)
    with ThreadPoolExecutor(4) as pool:
        with photo_decoding.ONE_LARGE_PHOTO:
            waiting = [pool.submit(outcome, large) for _ in range(3)]
            assert pool.submit(outcome, small).result() == (63, 63, 3)
            assert not wait(waiting, timeout=0.1).done
        assert [each.result(timeout=30) for each in waiting] == [expected] * 3


MEMORY = """
import re, sys
from pathlib import Path
from carcls.data.loader import Photos

def peak() -> int:
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
photos = Photos([sys.argv[1]] * 4, 8)
photos.decode_all(keep=True, workers=4, progress=lambda done: None)
print(photos.errors, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system tells no peak")
def test_four_large_photos_at_once_take_the_memory_of_one(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (5100, 5000), RED).save(path, compress_level=1)
    command = [sys.executable, "-c", MEMORY, str(path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    errors, taken = answer.rsplit(maxsplit=1)
    assert errors == "{}"
    assert int(taken) < 19 * 5100 * 5000  # one takes about 15 bytes a pixel


def test_a_large_jpeg_of_which_little_is_asked_for_does_not_wait(monkeypatch):
    monkeypatch.setattr(photo_decoding, "_LARGE_PIXELS", 100 * 100)
    data = encoded(picture(640, 640), "JPEG")
    with photo_decoding.ONE_LARGE_PHOTO, ThreadPoolExecutor(1) as pool:
        assert pool.submit(open_photo, data, 40).result(timeout=30).shape == (80, 80, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_writes_nothing_to_the_terminal(capfd):
    # Left out are TIFFs that are compressed: their library writes a line of its own.
    random = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "BMP", "ICO"):
        data = encoded(picture(64, 64), kind)
        for _ in range(40):
            changed = bytearray(data)
            for position in random.integers(0, len(data), 4):
                changed[position] = random.integers(0, 256)
            assert_photo_or_photo_error(bytes(changed), 8)
            assert_photo_or_photo_error(bytes(changed[: len(data) * 3 // 4]), None)
    assert capfd.readouterr() == ("", "")


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
