import cv2
import numpy as np
import pytest

from carcls.data import duplicates
from carcls.data.demo_drawing import CLASS_NAMES, draw_photo
from carcls.data.duplicates import (
    FLAT,
    colour_thumb,
    distances,
    join,
    near_duplicate_groups,
    perceptual_hash,
)

RANDOM = np.random.default_rng(0)


def drawn(count: int) -> list[np.ndarray]:
    return [
        draw_photo(CLASS_NAMES[i % len(CLASS_NAMES)], (320, 240), np.random.default_rng([7, i]))
        for i in range(count)
    ]


def hashed(photos: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.array([perceptual_hash(photo) for photo in photos], np.uint64)
    return hashes, np.array([colour_thumb(photo) for photo in photos])


def saved_at_40(photo: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)


def marked(photo: np.ndarray) -> np.ndarray:
    return cv2.putText(photo.copy(), "example.com", (150, 225), 0, 0.7, (255, 255, 255), 2)


def cropped(photo: np.ndarray) -> np.ndarray:
    return photo[3:236, 5:315]  # 3 % of each side


CHANGES = {
    "resized": lambda photo: cv2.resize(photo, (160, 120), interpolation=cv2.INTER_LINEAR),
    "saved at quality 40": saved_at_40,
    "marked": marked,
    "lighter": lambda photo: np.clip(photo * 1.1, 0, 255).astype(np.uint8),
    "darker": lambda photo: (photo * 0.9).astype(np.uint8),
    "cropped": cropped,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_photo_and_its_copy_are_one_group_and_no_other_photo_is(change):
    photos = drawn(40)
    copies = [CHANGES[change](photo) for photo in photos]
    groups = near_duplicate_groups(*hashed(photos + copies))
    found = groups[40:] == np.arange(40)
    assert found.mean() >= {"cropped": 0.9, "marked": 0.95}.get(change, 1.0)
    np.testing.assert_array_equal(groups[:40], np.arange(40))
    np.testing.assert_array_equal(groups[40:][~found], np.arange(40, 80)[~found])


def test_the_hash_is_64_bits_half_of_them_set():
    hashes, thumbs = hashed(drawn(3))
    assert hashes.dtype == np.uint64
    assert np.bitwise_count(hashes).tolist() == [32, 32, 32]
    assert thumbs.shape == (3, 8, 8, 3)
    assert distances(hashes[:1], ~hashes[:1]).tolist() == [64]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (16, 16), (4000, 3)])
def test_a_photo_of_any_size_has_a_hash(size):
    photo = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    assert isinstance(perceptual_hash(photo), np.uint64)
    assert colour_thumb(photo).shape == (8, 8, 3)


def test_photos_of_one_colour_are_close_to_none_not_even_to_each_other():
    photos = [np.full((30, 40, 3), level, np.uint8) for level in (0, 0, 255, 255)]
    hashes, thumbs = hashed(photos)
    assert (hashes == FLAT).all()
    assert near_duplicate_groups(hashes, thumbs).tolist() == [0, 1, 2, 3]


def test_photos_of_one_shape_in_other_colours_are_not_the_same():
    (photo,) = drawn(1)
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    light = (200 - 0.5 * gray).astype(np.uint8)
    other = np.dstack([gray, gray, light])  # another blue, nearly the same gray
    hashes, thumbs = hashed([photo, other])
    assert distances(hashes[:1], hashes[1:])[0] <= 10
    assert near_duplicate_groups(hashes, thumbs).tolist() == [0, 1]


def test_the_copies_of_copies_are_one_group_with_its_first_photo_as_its_name():
    base = np.uint64(0x0F0F_3333_5555_00FF)
    far = base ^ np.uint64(0xFFFF_FFFF_0000_0000)
    hashes = np.array([far, base, base ^ np.uint64(0x3FF), base ^ np.uint64(0xFFFFF)], np.uint64)
    thumbs = np.repeat(hashed(drawn(1))[1], 4, axis=0)
    assert distances(hashes[1], hashes).tolist() == [32, 0, 10, 20]
    assert near_duplicate_groups(hashes, thumbs).tolist() == [0, 1, 1, 1]
    assert near_duplicate_groups(hashes, thumbs, max_distance=9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("max_distance", [0, 3, 10, 11])
def test_what_is_found_in_bands_is_what_comparing_all_pairs_finds(max_distance, monkeypatch):
    random = np.random.default_rng(max_distance)
    hashes = random.integers(1, 2**64, 600, np.uint64)
    for place in range(300, 600):  # copies of the first half, up to 14 bits away
        bits = random.choice(64, random.integers(0, 15), replace=False)
        flips = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
        hashes[place] = hashes[random.integers(0, 300)] ^ flips
    thumbs = np.repeat(hashed(drawn(1))[1], 600, axis=0)
    expected = near_duplicate_groups(hashes, thumbs, max_distance)
    monkeypatch.setattr(duplicates, "_FEW", 0)
    np.testing.assert_array_equal(near_duplicate_groups(hashes, thumbs, max_distance), expected)
    assert len(set(expected)) < 600


def test_photos_that_are_there_thousands_of_times_are_no_more_work_than_once():
    hashes, thumbs = hashed(drawn(20))
    which = RANDOM.integers(0, 20, 200_000)
    groups = near_duplicate_groups(hashes[which], thumbs[which])
    first = np.array([np.argmax(which == photo) for photo in range(20)])
    np.testing.assert_array_equal(groups, first[which])


def test_a_crowd_of_frames_of_one_scene_is_one_group_without_comparing_all_pairs(monkeypatch):
    random = np.random.default_rng(3)
    flips = np.uint64(1) << random.integers(0, 64, (8_000, 2)).astype(np.uint64)
    hashes = np.uint64(0x0123_4567_89AB_CDEF) ^ flips[:, 0] ^ flips[:, 1]
    thumbs = np.repeat(hashed(drawn(1))[1], len(hashes), axis=0)
    thumbs[:, 0, 0, 0] = random.integers(0, 5, len(hashes))  # hardly different, but not equal
    compared = []
    count = distances

    def counted(left, right):
        compared.append(len(left))
        return count(left, right)

    monkeypatch.setattr(duplicates, "distances", counted)
    assert set(near_duplicate_groups(hashes, thumbs, max_distance=3)) == {0}
    assert sum(compared) < len(hashes) ** 2 / 10


def test_groups_are_joined_through_a_chain_of_pairs():
    groups = np.arange(6)
    join(groups, np.array([5, 3, 1]), np.array([3, 1, 0]))
    assert groups.tolist() == [0, 0, 2, 0, 4, 0]
    join(groups, np.array([], int), np.array([], int))
    assert groups.tolist() == [0, 0, 2, 0, 4, 0]


def test_no_photos_have_no_groups():
    empty = np.zeros(0, np.uint64), np.zeros((0, 8, 8, 3), np.uint8)
    assert near_duplicate_groups(*empty).tolist() == []


def test_mistakes_are_told():
    hashes, thumbs = hashed(drawn(2))
    with pytest.raises(ValueError, match=r"a thumb of 8×8 for each of 2 hashes\. Received: \(1, 8"):
        near_duplicate_groups(hashes, thumbs[:1])
    with pytest.raises(ValueError, match=r"from 0 to 11\. Received: max_distance=12"):
        near_duplicate_groups(hashes, thumbs, 12)
