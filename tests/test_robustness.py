"""Corruptions as they say they are, the same for everyone, and the curves that follow."""

from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from carcls.evaluation import robustness
from carcls.evaluation.robustness import (
    KINDS,
    area,
    corrupted,
    kinds_of,
    measure_robustness,
    num_passes,
)
from tests.conftest import draw_photo

EVERY = {name: kind for of_group in KINDS.values() for name, kind in of_group.items()}


@pytest.fixture
def photo() -> np.ndarray:
    smooth = np.linspace(40, 200, 224)
    texture = np.random.default_rng(0).normal(0, 8, (224, 224, 3))
    return (np.add.outer(smooth, smooth)[..., None] / 2 + texture).round().astype(np.uint8)


def draws() -> np.random.Generator:
    return np.random.default_rng(3)


def test_noise_is_as_strong_as_its_level_says_and_clipped():
    grey = np.full((200, 200, 3), 128, np.uint8)
    stds = [
        robustness.add_noise(grey, 20, np.random.default_rng(seed)).std() for seed in range(200)
    ]
    assert 0 <= min(stds) < 1.5
    assert 18.5 < max(stds) < 20.5
    assert np.mean(stds) == pytest.approx(10, abs=1), "deviations are uniform from 0 to the level"
    white = robustness.add_noise(np.full((50, 50, 3), 255, np.uint8), 100, draws())
    assert white.max() == 255
    assert white.min() > 0, "nothing wraps around"


def test_the_patch_is_white_in_the_centre_and_scales_with_the_photo():
    for size in (224, 112):
        black = np.zeros((size, size, 3), np.uint8)
        rows, columns = np.nonzero(robustness.lay_patch(black, 104, draws())[..., 0] == 255)
        side = 104 * size // 224
        start = (size - side) // 2
        assert (rows.min(), rows.max() + 1) == (start, start + side)
        assert (columns.min(), columns.max() + 1) == (start, start + side)
    assert KINDS["patch"]["patch"].severities == (20, 48, 76, 104, 132, 160)
    assert KINDS["noise"]["noise"].severities == (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@pytest.mark.parametrize("name", EVERY)
def test_a_photo_changes_more_with_every_severity(name, photo):
    kind = EVERY[name]
    changed = [kind.corrupt(photo, severity, draws()) for severity in kind.severities]
    far = [np.abs(each.astype(float) - photo).mean() for each in changed]
    assert all(each.shape == photo.shape and each.dtype == np.uint8 for each in changed)
    assert far[0] > 0
    assert all(one < other + 1e-9 for one, other in pairwise(far)), far


def test_the_original_is_left_as_it_was(photo):
    before = photo.copy()
    for kind in EVERY.values():
        kind.corrupt(photo, kind.severities[-1], draws())
    np.testing.assert_array_equal(photo, before)


@pytest.fixture
def paths(tmp_path) -> list[str]:
    for number in range(5):
        draw_photo(tmp_path / f"{number}.png", (200, 40 * number, 60), number)
    return [str(tmp_path / f"{number}.png") for number in range(5)]


def pixels(paths, seed=1, names=("noise", "occlusion")) -> dict:
    found = {}
    for name, step, which, photos in corrupted(paths, 32, "squash", list(names), seed):
        for index, photo in zip(which, photos, strict=True):
            found[name, step, int(index)] = photo
    return found


def test_the_same_seed_gives_the_same_pixels_however_many_are_open(paths, monkeypatch):
    first = pixels(paths)
    monkeypatch.setattr(robustness, "_AT_ONCE", 2)
    again = pixels(paths)
    assert first.keys() == again.keys()
    assert len(first) == 5 * (11 + 6)
    for key, photo in first.items():
        np.testing.assert_array_equal(photo, again[key])
    other = pixels(paths, seed=2)
    assert not np.array_equal(first["noise", 10, 0], other["noise", 10, 0])
    np.testing.assert_array_equal(first["noise", 0, 0], other["noise", 0, 0])
    alone = pixels(paths, names=["occlusion"])
    np.testing.assert_array_equal(first["occlusion", 5, 3], alone["occlusion", 5, 3])


class Brightness:
    """Two classes: bright photos or not; as sure as the photo is bright."""

    info = SimpleNamespace(image_size=32, resize="squash")

    def __init__(self) -> None:
        self.members = [self]

    def __call__(self, photos, *, tta, batch_size, workers, resize_mode):
        assert (tta, resize_mode) == ("flip", "squash")
        bright = photos.reshape(len(photos), -1).mean(1) / 255
        return SimpleNamespace(probs=np.stack([1 - bright, bright], 1).astype(np.float32))


def test_accuracy_and_loss_are_those_of_the_changed_photos(tmp_path):
    for number, value in enumerate((20, 20, 235, 235)):
        draw_photo(tmp_path / f"{number}.png", (value,) * 3, number)
        black_or_white = np.full((32, 32, 3), value, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), black_or_white)
    photos = pd.DataFrame(
        {"path": [str(tmp_path / f"{n}.png") for n in range(4)], "label": [0, 0, 1, 1]}
    )
    done = []
    rows = measure_robustness(
        Brightness(),
        photos,
        ["patch", "contrast"],
        size=64,
        seed=0,
        tta="flip",
        batch_size=2,
        progress=done.append,
    )
    assert rows.kind.tolist() == ["patch"] * 7 + ["contrast"] * 6
    assert sum(done) == 4 * num_passes(["patch", "contrast"]) == 4 * 13
    patch = rows[rows.kind == "patch"]
    # The largest patch covers 51 % of a black photo: 0.51 × 255 + 0.49 × 20 is above the middle.
    assert patch.accuracy.tolist() == [1, 1, 1, 1, 1, 1, 0.5]
    share = (46 / 64) ** 2
    dark, bright = share + (1 - share) * 20 / 255, share + (1 - share) * 235 / 255
    assert patch.nll.iloc[-1] == pytest.approx(-np.log([1 - dark, bright]).mean(), abs=1e-3)
    assert area(patch) == pytest.approx((6 - 0.25) / 6)
    assert rows[rows.kind == "contrast"].accuracy.tolist() == [1] * 6
    assert np.isnan(rows.severity[0])


def test_common_is_six_kinds():
    assert kinds_of(["noise", "common"]) == [
        "noise", "blur", "jpeg", "brightness", "contrast", "occlusion", "rotation",
    ]  # fmt: skip
    assert num_passes(kinds_of(["common"])) == 36
