"""Photos as the network's square, and which files are photos."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carcls.data.images import list_photos, resize

RED = (200, 30, 40)


def test_squash_averages_when_shrinking_and_keeps_no_aspect():
    photo = np.zeros((2, 4, 3), np.uint8)
    photo[:, 2:] = 200
    photo[:, 1] = 100
    assert resize(photo, 2)[..., 0].tolist() == [[50, 200], [50, 200]]
    assert resize(photo, 1)[0, 0].tolist() == [125] * 3


def test_crop_cuts_the_centre_and_pad_adds_black_bars():
    photo = np.zeros((2, 6, 3), np.uint8)
    photo[:] = np.array([10, 20, 30, 40, 50, 60])[None, :, None]
    assert resize(photo, 2, "crop")[..., 0].tolist() == [[30, 40], [30, 40]]
    wide = resize(photo, 6, "pad")[..., 0]
    assert wide.tolist() == [[0] * 6] * 2 + [[10, 20, 30, 40, 50, 60]] * 2 + [[0] * 6] * 2
    tall = resize(photo.transpose(1, 0, 2), 6, "pad")[..., 0]
    assert tall.tolist() == wide.T.tolist()
    assert resize(photo, 3, "pad")[..., 0].tolist() == [[0] * 3, [15, 35, 55], [0] * 3]


def test_a_photo_of_the_right_size_stays_as_it_is():
    photo = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    for mode in ("squash", "crop", "pad"):
        np.testing.assert_array_equal(resize(photo, 9, mode), photo)


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 64),
    st.sampled_from(["squash", "crop", "pad"]),
)  # fmt: skip
def test_any_photo_becomes_a_square_of_its_colour(height, width, size, mode):
    square = resize(np.full((height, width, 3), RED, np.uint8), size, mode)
    assert square.shape == (size, size, 3) and square.dtype == np.uint8
    shows = (square == RED).all(axis=-1)
    assert shows.any()
    assert shows.all() if mode != "pad" else (square[~shows] == 0).all()


def test_listing_takes_any_name_but_hidden_ones_and_what_systems_leave_behind(tmp_path):
    for name in (
        "b.JPG",
        "a/c.ashx",
        "a/Thumbs.db",
        ".hidden.jpg",
        ".trash/d.jpg",
        "__MACOSX/e.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_photos(tmp_path) == [tmp_path / "b.JPG", tmp_path / "a" / "c.ashx"]
