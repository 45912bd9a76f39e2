"""Opening photos: what a person sees, whatever the file."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from carcls.data.images import open_photo, resize
from carcls.errors import PhotoError

RED, GREEN, BLUE, WHITE = (200, 30, 40), (20, 160, 60), (40, 60, 220), (255, 255, 255)
UNDO = {  # what a viewer does for an orientation, undone, writes the file that has it
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Red top left, green top right, blue below: no flip or turn of it looks the same."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason(source, **options) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(source, **options)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("min_side", [None, 8])
def test_every_exif_orientation_shows_the_same_picture(orientation, min_side):
    image = picture(192, 128)
    if UNDO[orientation] is not None:
        image = image.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = open_photo(encoded(image, "JPEG", exif=exif, quality=95), min_side)
    height, width = shown.shape[:2]
    assert (width, height) == ((192, 128) if min_side is None else (24, 16))
    corners = shown[[2, 2, -3, -3], [2, -3, 2, -3]].astype(int)
    np.testing.assert_allclose(corners, [RED, GREEN, BLUE, BLUE], atol=12)


def test_grayscale_one_bit_and_plain_palettes_become_rgb():
    gray = open_photo(encoded(Image.new("L", (3, 2), 77)))
    assert gray.shape == (2, 3, 3) and gray.dtype == np.uint8
    assert (gray == 77).all()
    one_bit = Image.fromarray(np.array([[True, False]]))
    assert open_photo(encoded(one_bit)).tolist() == [[[255] * 3, [0] * 3]]
    palette = picture().quantize(4)
    np.testing.assert_array_equal(open_photo(encoded(palette)), np.asarray(palette.convert("RGB")))


def test_what_is_transparent_shows_white():
    clear = {"RGBA": (*RED, 0), "LA": (77, 0)}
    for mode, colour in clear.items():
        assert (open_photo(encoded(Image.new(mode, (2, 2), colour))) == 255).all(), mode
    half = open_photo(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert half.tolist() == [[[127, 127, 127]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    shown = open_photo(encoded(palette, transparency=0))
    assert shown.tolist() == [[list(WHITE), list(GREEN)]]
    rgb = open_photo(encoded(picture(2, 2), transparency=RED))
    assert rgb[0].tolist() == [list(WHITE), list(GREEN)]


def test_cmyk_shows_its_colours_even_with_a_profile_that_is_broken():
    cmyk = picture().convert("CMYK")
    for options in ({}, {"icc_profile": b"no profile"}):
        shown = open_photo(encoded(cmyk, "JPEG", quality=95, **options))
        np.testing.assert_allclose(shown[2, 2], RED, atol=15)
        np.testing.assert_allclose(shown[-3, 2], BLUE, atol=15)


def clear_ink_profile() -> bytes:
    """The smallest ICC profile of a printer: only its black ink shows on white paper."""
    identity = struct.pack(">9i", *(1 << 16 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4
    table += bytes([255, 128, 128, 0, 128, 128]) * 8 + bytes(range(256)) * 3
    header = struct.pack(
        ">I4sI4s4s4s12s4s", 0, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"", b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)  # lit by D50
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    profile = header.ljust(128, b"\0") + tags + table
    return struct.pack(">I", len(profile)) + profile[4:]


def test_cmyk_follows_its_colour_profile():
    # Pillow converts without black ink: by this profile nothing of the picture is to be seen.
    shown = open_photo(encoded(picture().convert("CMYK"), "TIFF", icc_profile=clear_ink_profile()))
    np.testing.assert_allclose(shown, np.full((32, 48, 3), 255), atol=3)


def test_a_colour_profile_of_another_kind_of_picture_leaves_the_plain_conversion():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    shown = open_photo(encoded(picture().convert("CMYK"), "TIFF", icc_profile=profile))
    np.testing.assert_allclose(shown[2, 2], RED, atol=3)


def test_sixteen_bits_are_scaled_to_eight():
    pixels = np.array([[0, 257 * 77, 65535]], np.uint16)
    shown = open_photo(encoded(Image.fromarray(pixels)))
    assert shown[..., 0].tolist() == [[0, 77, 255]]
    assert (shown == shown[..., :1]).all()


@pytest.mark.parametrize(
    ("pixels", "shown"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-5.0, np.nan, 300.0]], np.float32), [0, 0, 255]),
        (np.array([[0.0, 77.0, 255.5]], np.float32), [0, 77, 255]),  # a filter overshot
        (np.array([[0.0, 77.0, 900.0]], np.float32), [0, 77, 255]),
        (np.array([[0.0, 257 * 77.0, 65535.0]], np.float32), [0, 77, 255]),
        (np.array([[0, 77, 255]], np.int32), [0, 77, 255]),
        (np.array([[0, 257 * 77, 65535]], np.int32), [0, 77, 255]),
    ],
)
def test_32_bits_and_floats_are_scaled_by_what_is_in_them(pixels, shown):
    assert open_photo(encoded(Image.fromarray(pixels), "TIFF"))[0, :, 0].tolist() == shown


def test_of_several_frames_the_first_is_shown():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for kind, tolerance in (("GIF", 0), ("PNG", 0), ("TIFF", 0), ("MPO", 3)):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(open_photo(data)[1, 1], RED, atol=tolerance, err_msg=kind)


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture()))
    np.testing.assert_array_equal(open_photo(str(path)), np.asarray(picture()))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (b"  \n<!DOCTYPE html><html>", "not an image but a web page"),
        (b"<HTML><body>404</body>", "not an image but a web page"),
        (b"Id,Category\n1.jpg,3\n", "not an image but text"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "a PostScript document (EPS), which needs converting to JPEG",
        ),
    ],
    ids=["empty", "doctype", "html", "csv", "postscript, which would start a program"],
)
def test_what_is_no_photo_says_why(tmp_path, data, why):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert reason(path) == why
    assert reason(data) == why


def test_missing_files_and_directories_say_so(tmp_path):
    assert reason(tmp_path / "none.jpg") == "no such file"
    assert reason(tmp_path) == "a directory, not a file"


@pytest.mark.parametrize("side", [1, 16])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_tiny_photos_open(kind, side):
    data = encoded(Image.new("RGB", (side, side), RED), kind, quality=95)
    np.testing.assert_allclose(
        open_photo(data, min_side=240), np.full((side, side, 3), RED), atol=3
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as on import; pytest resets the filters
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12",
    ],
)
def test_broken_exif_is_ignored(exif):
    shown = open_photo(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert shown.shape == (32, 48, 3)
    np.testing.assert_allclose(shown[2, 2], RED, atol=12)


@pytest.mark.parametrize("width, height", [(1600, 1100), (700, 2300)])
@pytest.mark.parametrize("min_side", [60, 137])
def test_a_jpeg_decoded_at_a_reduced_scale_looks_the_same(width, height, min_side):
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 120 + 128
    data = encoded(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=90)
    full, reduced = open_photo(data), open_photo(data, min_side)
    assert full.shape == (height, width, 3)
    assert 2 * min_side <= min(reduced.shape[:2]) < min(height, width)
    difference = resize(full, min_side).astype(int) - resize(reduced, min_side)
    assert np.abs(difference).mean() < 1.0
