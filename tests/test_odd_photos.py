"""Photos as they are found in the wild: opened as a viewer shows them, or refused with a reason."""

import csv
import io
import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from carcls.data.images import list_photos, open_photo
from tests.test_damaged_photos import CUT_OFF, png_chunk
from tests.test_images import BLUE, GREEN, RED, UNDO, WHITE, encoded, picture, reason

ODD = Path(__file__).parents[2] / "shared" / "data" / "odd"
BOMB = "too many pixels, taken for a decompression bomb"
# Each as a person sees it: width and height, the mean colour, and what is noted about it.
SEEN = {
    "corrupt_not_an_image__1_220.__media_id_153424634796766.jpg": "not an image but a web page",
    "corrupt_not_an_image__1_462._5962076-bmw.jpg": "not an image but a web page",
    "exif_orientation__n03337140_file.JPEG": ((1600, 1200), (186, 130, 103)),
    "extreme_aspect__02955.jpg": ((501, 704), (49, 58, 127)),
    "extreme_aspect__04496.jpg": ((795, 200), (69, 108, 121)),
    "fixture_exif_orientation_1to8__Landscape_0.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_1.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_2.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_3.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_4.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_5.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_6.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_7.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_exif_orientation_1to8__Landscape_8.jpg": ((1800, 1200), (98, 116, 134)),
    "fixture_pillow_tests__broken.png": "a damaged PNG",
    "fixture_pillow_tests__decompression_bomb.gif": BOMB,
    "fixture_pillow_tests__hopper_bad_exif.jpg": ((500, 500), (125, 125, 125)),
    "fixture_pillow_tests__hopper_gray.jpg": ((128, 128), (85, 85, 85)),
    "fixture_pillow_tests__pil123p.png": ((162, 150), (190, 189, 172)),
    "fixture_pillow_tests__pil_sample_cmyk.jpg": ((100, 100), (30, 5, 7)),
    "fixture_pillow_tests__tRNS_null_1x1.png": ((1, 1), (255, 255, 255)),
    "fixture_pillow_tests__truncated_image.png": ((640, 480), (70, 102, 127), CUT_OFF),
    "fixture_pillow_tests__truncated_jpeg.jpg": ((100, 100), (128, 128, 127), CUT_OFF),
    "gif__00000201.gif": ((385, 500), (213, 203, 198)),
    "grayscale_L_jpeg__n03764736_milk_can.JPEG": ((333, 500), (76, 76, 76)),
    "grayscale_L_jpeg__n04371774_swing.JPEG": ((680, 423), (102, 102, 102)),
    "grayscale_L_jpeg__n04532670_viaduct.JPEG": ((500, 334), (126, 126, 126)),
    "jpeg_with_odd_extension__00000377.ashx": ((1920, 1280), (120, 112, 112)),
    "jpeg_with_odd_extension__00000557.png": ((480, 300), (113, 107, 95)),
    "jpeg_with_odd_extension__1_198._mclaren-p1-1-14-27mhztuer-manuell-schwarz.png": (
        (1280, 824),
        (99, 105, 106),
    ),
    "mpo_multi_frame__1_545._message-editor_2f1506372492857-lamborghinipurracangallery2.jpg": (
        (1214, 826),
        (98, 113, 114),
    ),
    "png_P_tr__1_154._bmw_14220dco_1b_angularfront.png": ((350, 233), (177, 174, 173)),
    "png_RGBA__1_292._2017-ferrari-488_1.png": ((640, 480), (190, 203, 210)),
    "png_RGBA__1_334._mclaren-mp412c-2011-2014-coupe-interior-3.png": ((500, 330), (198, 182, 163)),
    "png_RGBA__1_470._en-us-high-quality-ferrari-homepage.jpg": ((1280, 960), (86, 77, 74)),
    "png_named_jpg__1_68._lamborghini-huracan.jpg": ((458, 458), (208, 224, 208)),
    "png_rgb__00000032.png": ((500, 308), (23, 26, 30)),
    "png_rgb__00000148.png": ((500, 308), (22, 22, 23)),
    "png_rgb__00000170.png": ((500, 234), (196, 189, 188)),
    "tiny__08087.jpg": ((79, 41), (91, 103, 127)),
    "tiny__download_21_.jpeg": ((82, 46), (118, 120, 123)),
    "tiny__download_27_.jpeg": ((16, 16), (235, 232, 233)),
    "very_large__01-2024-ford-f-150-lightning-angular-front-jms.jpeg": (
        (6000, 4000),
        (138, 141, 131),
    ),
    "webp__proxy-image.webp": ((1600, 1063), (131, 128, 115)),
    "webp_with_other_extension__1_385._bmw-6-series.web": ((1080, 540), (162, 171, 171)),
    "webp_with_other_extension__1_394._19b7d83fab9d0e1278084762da3240d0x.jpg": (
        (320, 213),
        (185, 176, 130),
    ),
    "webp_with_other_extension__1_416._2017_36.png": ((320, 152), (146, 145, 149)),
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as on import; pytest resets


@pytest.mark.skipif(not ODD.is_dir(), reason="the collection of odd photos is not here")
@pytest.mark.parametrize("name", SEEN)
def test_an_odd_photo_is_shown_as_in_a_viewer_or_refused_with_its_reason(name):
    if isinstance(SEEN[name], str):
        assert reason(ODD / name) == SEEN[name]
        return
    size, colour, *noted = SEEN[name]
    notes = []
    shown = open_photo(ODD / name, notes=notes)
    assert (shown.shape[1], shown.shape[0], notes) == (*size, noted)
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), colour, atol=1.5)
    small = open_photo(ODD / name, min_side=64)
    assert min(small.shape[:2]) >= min(128, *size)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), colour, atol=2.5)


@pytest.mark.skipif(not ODD.is_dir(), reason="the collection of odd photos is not here")
def test_every_odd_photo_is_accounted_for():
    with (ODD / "index.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"] for row in csv.DictReader(file)} == set(SEEN)
    assert len(SEEN) == 47


def assert_picture(shown: np.ndarray, atol: float = 12) -> None:
    """The picture of `picture`, whatever its size."""
    height, width = shown.shape[:2]
    rows, columns = [height // 8, height // 8, -3, -3], [width // 8, -width // 8, 3, -3]
    np.testing.assert_allclose(shown[rows, columns], [RED, GREEN, BLUE, BLUE], atol=atol)


TO_CONVERT = "which needs converting to JPEG"
NO_PHOTOS = [
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"HEIC, {TO_CONVERT}"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", f"HEIC, {TO_CONVERT}"),
    (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "a damaged AVIF"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", f"a camera's RAW photo, {TO_CONVERT}"),
    (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video, not a photo"),
    (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "a video, not a photo"),
    (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1webm", "a video, not a photo"),
    (b"RIFF\x24\0\0\0AVI LIST", "a video or sound, not a photo"),
    (b"\xff\x0a\xfa\x7f\1\x90", f"JPEG XL, {TO_CONVERT}"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", f"JPEG XL, {TO_CONVERT}"),
    (b"%PDF-1.7\n%\xe2\xe3", f"a PDF document, {TO_CONVERT}"),
    (b"8BPS\0\1\0\0\0\0\0\0\0\3", f"a Photoshop document, {TO_CONVERT}"),
    (b"FUJIFILMCCD-RAW 0201", f"a camera's RAW photo, {TO_CONVERT}"),
    (b"II*\0\x10\0\0\0CR\2\0", f"a camera's RAW photo, {TO_CONVERT}"),
    (b'<?xml version="1.0"?>\n<svg width="9"></svg>', f"SVG, a drawing, {TO_CONVERT}"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", f"SVG, a drawing, {TO_CONVERT}"),
    (b"PK\3\4\x14\0\0\0", "a ZIP archive, which needs unpacking"),
    (b"\x1f\x8b\x08\0", "a gzip archive, which needs unpacking"),
    (b"Rar!\x1a\7\1\0", "a RAR archive, which needs unpacking"),
    (b'{"error": "not found"}', "not an image but text"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "not an image but text"),
    ("Автомобиль не найден".encode(), "not an image but text"),
    (b"\xef\xbb\xbf<!-- x --><!DOCTYPE html><html>", "not an image but a web page"),
    ("\ufeff<html><body>404".encode("utf-16-le"), "not an image but a web page"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
        "a git-lfs pointer, not the photo: run git lfs pull",
    ),
    (bytes(5000), "nothing but zeros, as a failed copy leaves behind"),
    (
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff\xe0\0\x10JFIF",
        "something else before the photo, as a failed download leaves behind",
    ),
    (b"\xff\xd8\xff", "a damaged JPEG"),
    (b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
    (b"GIF89a", "a damaged GIF"),
    (b"RIFF\x24\0\0\0WEBP", "truncated: 27% of it is there"),
    (bytes(range(256)) * 9, "not an image, or a damaged one"),
]


@pytest.mark.parametrize(("data", "why"), NO_PHOTOS, ids=[repr(d[:16]) for d, _ in NO_PHOTOS])
def test_what_is_no_photo_says_what_it_is(tmp_path, data, why):
    (tmp_path / "photo.jpg").write_bytes(data)
    assert reason(tmp_path / "photo.jpg") == why
    assert reason(data, min_side=240) == why


@pytest.mark.parametrize(
    "tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}, {262: 32803}], ids=["DNG", "NEF", "CFA"]
)
def test_a_raw_photo_is_not_shown_as_its_thumbnail(tags):
    data = encoded(picture(), "TIFF", tiffinfo=tags)
    if 262 in tags:  # which Pillow writes as it likes
        entry = struct.pack("<HHI", 262, 3, 1)
        data = data.replace(entry + b"\2\0", entry + struct.pack("<H", 32803))
    assert reason(data) == f"a camera's RAW photo, {TO_CONVERT}"


def test_a_tiff_with_smaller_copies_in_it_is_a_photo():
    assert_picture(open_photo(encoded(picture(), "TIFF", tiffinfo={254: 0, 330: 8})))


def test_rare_jpegs_say_what_they_are():
    frame = struct.pack(">BHHBBBB", 12, 8, 8, 1, 1, 0x11, 0)
    for marker, why in (
        (0xC1, f"a JPEG of 12 bits a colour, {TO_CONVERT} of 8"),
        (0xF7, f"JPEG-LS, {TO_CONVERT}"),
    ):
        header = struct.pack(">BBH", 0xFF, marker, 2 + len(frame)) + frame
        assert reason(b"\xff\xd8" + header + bytes(90)) == why


def test_an_arithmetic_jpeg_opens():
    tables = b"\xff\xdb\0\x43\0" + bytes([1] * 64)
    frame = b"\xff\xc9\0\x0b\x08\0\x10\0\x10\1\1\x11\0"
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(8)
    notes = []
    shown = open_photo(b"\xff\xd8" + tables + frame + scan + b"\xff\xd9", notes=notes)
    assert shown.shape == (16, 16, 3) and notes == []


def test_what_follows_a_photo_does_not_matter():
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        notes = []
        shown = open_photo(encoded(picture(), kind) + b"garbage" * 50, notes=notes)
        np.testing.assert_array_equal(shown, open_photo(encoded(picture(), kind)), err_msg=kind)
        assert notes == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8, 9])
def test_orientation_counts_in_every_format_and_odd_ones_do_not(kind, orientation):
    image = picture(96, 64)
    if UNDO.get(orientation) is not None:
        image = image.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = open_photo(encoded(image, kind, exif=exif, quality=95))
    assert shown.shape == (64, 96, 3)
    assert_picture(shown)


VARIANTS = {
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True, "quality": 95}),
    "JPEG without subsampling": ("JPEG", "RGB", {"subsampling": 0, "quality": 95}),
    "JPEG in CMYK": ("JPEG", "CMYK", {"quality": 95}),
    "palette": ("PNG", "P", {}),
    "palette with transparency in bytes": ("PNG", "P", {"transparency": b"\xff" * 9}),
    "BMP": ("BMP", "RGB", {}),
    "BMP with alpha": ("BMP", "RGBA", {}),
    "BMP with a palette": ("BMP", "P", {}),
    "tiled TIFF": ("TIFF", "RGB", {"tiffinfo": {322: 16, 323: 16}}),
    "LZW TIFF": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "JPEG TIFF": ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}),
    "CMYK TIFF": ("TIFF", "CMYK", {}),
    "big TIFF": ("TIFF", "RGB", {"big_tiff": True}),
    "YCbCr TIFF": ("TIFF", "YCbCr", {}),
    "lossless WebP": ("WEBP", "RGBA", {"lossless": True}),
    "AVIF": ("AVIF", "RGB", {"quality": 95}),
    "JPEG 2000": ("JPEG2000", "RGB", {}),
    "PPM": ("PPM", "RGB", {}),
    "interlaced GIF": ("GIF", "P", {"interlace": 1}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_of_a_format_shows_the_same_picture(name):
    kind, mode, options = VARIANTS[name]
    image = picture(96, 64)
    image = image.quantize(9) if mode == "P" else image.convert(mode)
    notes = []
    shown = open_photo(encoded(image, kind, **options), notes=notes)
    assert shown.shape == (64, 96, 3) and notes == []
    assert_picture(shown)


def test_an_icon_shows_its_largest_picture():
    shown = open_photo(encoded(picture(64, 64), "ICO", sizes=[(16, 16), (48, 48)]))
    assert shown.shape == (48, 48, 3)
    assert_picture(shown, atol=25)


def test_a_tiff_in_lab_shows_its_colours():
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert_picture(open_photo(encoded(lab, "TIFF")))


def test_sixteen_bits_a_colour_become_eight():
    pixels = np.asarray(picture())[..., ::-1].astype(np.uint16) * 257
    for kind in (".png", ".tiff"):
        shown = open_photo(cv2.imencode(kind, pixels)[1].tobytes())
        np.testing.assert_array_equal(shown, np.asarray(picture()), err_msg=kind)


def test_a_tiff_of_floating_colours_says_that_it_is_rare():
    data = cv2.imencode(".tiff", np.zeros((4, 4, 3), np.float32))[1].tobytes()
    assert reason(data) == "a TIFF that is damaged or of a rare kind"


def test_bitmaps_of_old_programs_open():
    rows = b"".join(struct.pack("<4H", *[0x7C00] * 4) for _ in range(4))  # 16 bits: red
    header = struct.pack("<IiiHHIIiiII", 40, 4, -4, 1, 16, 0, len(rows), 0, 0, 0, 0)  # top down
    data = b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows
    assert open_photo(data).tolist() == [[[255, 0, 0]] * 4] * 4
    packed = bytes([4, 1, 0, 0, 4, 0, 0, 1])  # run lengths: a green row, a red row, the end
    colours = bytes([0, 0, 255, 0, 0, 255, 0, 0])  # red, green
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(packed), 0, 0, 2, 0)
    data = b"BM" + struct.pack("<IHHI", 62 + len(packed), 0, 0, 62) + header + colours + packed
    assert open_photo(data).tolist() == [[[255, 0, 0]] * 4, [[0, 255, 0]] * 4]


def test_what_the_first_frame_of_a_gif_leaves_uncovered_shows_white():
    data = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    struct.pack_into("<HH", data, 6, 8, 6)  # the canvas is larger
    frame = data.find(b",\0\0\0\0\4\0\4\0")
    struct.pack_into("<HH", data, frame + 1, 2, 1)  # and the frame begins at 2, 1
    shown = open_photo(bytes(data))
    assert shown.shape == (6, 8, 3)
    assert (shown[1:5, 2:6] == shown[1, 2]).all() and (shown[1, 2] != 255).any()
    assert (shown[0] == 255).all() and (shown[:, :2] == 255).all() and (shown[5] == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_shown(kind):
    other = Image.new("RGB", (96, 64), WHITE)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(96, 64), kind, save_all=True, append_images=[other], **options)
    assert_picture(open_photo(data), atol=3)


def wide_profile() -> bytes:
    """sRGB with its red and blue swapped: nobody overlooks that it counts."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.find(b"rXYZ"), data.find(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_colour_profile_changes_what_is_seen(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    data = encoded(picture(96, 64), kind, icc_profile=wide_profile(), **options)
    shown = open_photo(data)
    np.testing.assert_allclose(shown[-3, 3], BLUE[::-1], atol=12)
    np.testing.assert_allclose(open_photo(data, 8)[2, 2], RED[::-1], atol=12)


def test_a_colour_profile_counts_where_a_photo_is_transparent_in_part():
    image = picture(96, 64).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 32))
    shown = open_photo(encoded(image, icc_profile=wide_profile()))
    assert shown[2, 2].tolist() == list(WHITE)
    np.testing.assert_allclose(shown[-3, 3], BLUE[::-1], atol=12)


def test_a_profile_that_is_srgb_or_broken_or_of_another_kind_changes_no_pixel():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"broken", srgb[:200]):
        for image in (picture(), picture().convert("L"), picture().convert("RGBA")):
            shown = open_photo(encoded(image, icc_profile=profile))
            np.testing.assert_array_equal(shown, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (16, 16), (2, 16)])
@pytest.mark.parametrize("min_side", [None, 240])
def test_no_shape_is_too_odd(size, min_side):
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        shown = open_photo(encoded(Image.new("RGB", size, RED), kind, quality=95), min_side)
        assert shown.shape == (size[1], size[0], 3)
        np.testing.assert_allclose(shown[0, 0], RED, atol=8)


def test_a_bomb_is_refused_before_it_takes_memory():
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    started = time.perf_counter()
    assert reason(start + png_chunk(b"IDAT", zlib.compress(bytes(1000)))) == BOMB
    gif = bytearray(encoded(Image.new("L", (4, 4)), "GIF"))
    struct.pack_into("<HH", gif, 6, 60_000, 60_000)
    assert reason(bytes(gif)) == BOMB
    jpeg = bytearray(encoded(picture(), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.find(b"\xff\xc0") + 5, 60_000, 60_000)
    assert reason(bytes(jpeg)) == BOMB
    assert time.perf_counter() - started < 1.0


def test_a_large_photo_opens_fast_where_it_need_not_be_large():
    file = io.BytesIO()
    picture(6000, 4000).save(file, "JPEG")
    started = time.perf_counter()
    shown = open_photo(file.getvalue(), min_side=240)
    assert time.perf_counter() - started < 0.5
    assert shown.shape == (500, 750, 3)
    assert_picture(shown)


def test_links_are_followed_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(picture()))
    (tmp_path / "link").symlink_to("photo.png")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for ever
    np.testing.assert_array_equal(open_photo(tmp_path / "link"), np.asarray(picture()))
    assert reason(tmp_path / "dangling") == "a link to a file that does not exist"
    assert reason(tmp_path / "loop") == "cannot be read (Too many levels of symbolic links)"
    assert reason(tmp_path / "pipe") == "a pipe or a device, not a file"
    assert reason("/dev/zero") == "a pipe or a device, not a file"
    assert reason(tmp_path / ("n" * 300)) == "cannot be read (File name too long)"
    assert list_photos(tmp_path)  # which only lists


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(picture()))
    (tmp_path / "photo.png").chmod(0)
    assert reason(tmp_path / "photo.png") == "no permission to read it"
