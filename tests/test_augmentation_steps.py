"""Our own steps beside albumentations': the same pictures for the same draws, drawn as often."""

import pickle
import random
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from carcls.data.augmentation_steps import ByAlbumentations, OneOf, RandomResizedCrop, Step
from carcls.data.transforms import build_augment, build_pipeline
from tests.test_config import options
from tests.test_transforms import noise, policy

ROOT = Path(__file__).parent.parent
POLICIES = [name for name in options("augmentation") if name != "none"]
STILL = {
    "type": "Affine", "p": 1.0, "translate_percent": {"x": [0, 0], "y": [0, 0]},
}  # fmt: skip


def scene(height: int, width: int) -> np.ndarray:
    """Soft shapes in many colours and some grain; read-only, as in a file mapped into memory."""
    coarse = cv2.resize(noise(5, (9, 9, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    grained = coarse.astype(int) + noise(6, coarse.shape) % 17 - 8
    photo = np.clip(grained, 0, 255).astype(np.uint8)
    photo.flags.writeable = False
    return photo


class NumpyDraws:
    """What albumentations draws from NumPy's generator, drawn from Python's instead."""

    def __init__(self, python_random: random.Random, is_drawing_seeds: bool) -> None:
        self.random, self.is_drawing_seeds = python_random, is_drawing_seeds

    def integers(self, low: int, high: int) -> int:  # a seed of other generators
        return self.random.randrange(low, high) if self.is_drawing_seeds else 0

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def shuffle(self, order: list[int]) -> None:
        self.random.shuffle(order)

    def choice(self, count: int, p: list[float]) -> int:
        return int(np.searchsorted(np.cumsum(p)[:-1], self.random.random(), side="right"))


def by_albumentations(pipeline, photo: np.ndarray, seed: int) -> np.ndarray:
    """What albumentations makes of a photo with the draws that `Policy` makes for the seed."""
    drawn = random.Random(seed)

    def share(step) -> None:
        step.py_random = drawn
        # RGBShift draws a seed for noise that it does not make.
        step.random_generator = NumpyDraws(drawn, type(step).__name__ != "RGBShift")
        if hasattr(step, "transforms_ps"):
            for member in step.transforms:
                share(member)

    for step in pipeline.transforms:
        share(step)
        if drawn.random() < step.p:
            photo = step(image=photo, force_apply=True)["image"]
    return photo


def assert_same_pictures(steps: dict, size: int | None, photo: np.ndarray, count: int) -> None:
    augment, pipeline = build_augment(steps, size), build_pipeline(steps, size)
    different = []
    for seed in range(count):
        ours = augment(photo, seed).astype(int)
        away = np.abs(ours - by_albumentations(pipeline, photo, seed))
        # A sum in another order can be off in its last digit, and then a level once in a while.
        assert away.max() <= 1 and (away > 0).mean() < 1e-3
        different.append(away.any())
    assert np.mean(different) <= 0.1


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_gives_the_pictures_of_albumentations_for_the_same_draws(name):
    assert_same_pictures(policy(name), 96, scene(96, 96), 150)


@pytest.mark.parametrize(
    "step",
    [
        {**STILL, "rotate": [-180, 180], "border_mode": "reflect"},
        {**STILL, "scale": [0.5, 1.5], "rotate": 30, "interpolation": "cubic"},
        {**STILL, "scale": {"x": [0.5, 0.7], "y": [1, 2]}, "fill": [200, 30, 90]},
        {**STILL, "shear": {"x": [-40, 40], "y": [-30, 30]}, "fill": 77},
        {**STILL, "translate_percent": 0.3, "keep_ratio": True, "scale": [0.5, 2]},
        {"type": "Blur", "blur_limit": [3, 9]},
        {"type": "GaussNoise", "std_range": [0.1, 0.3], "mean_range": [-0.2, 0.2]},
        {"type": "GaussNoise", "std_range": [0.1, 0.3], "per_channel": False},
        {"type": "RandomBrightnessContrast", "brightness_limit": 0.9, "contrast_limit": 0.9},
        {"type": "RGBShift", "r_shift_limit": 255, "g_shift_limit": 0.3, "b_shift_limit": [9, 9]},
        {"type": "HueSaturationValue", "hue_shift_limit": 180, "sat_shift_limit": 255},
        {"type": "ColorJitter", "brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.5},
        {"type": "Posterize", "num_bits": [1, 7]},
        {"type": "Solarize", "threshold_range": [0.0, 1.0]},
        {"type": "Sharpen", "alpha": [0.0, 1.0], "lightness": [0.0, 3.0]},
        {"type": "Erasing", "fill": "random_uniform"},
        {"type": "Equalize"},
        {"type": "AutoContrast", "method": "pil"},
        {"type": "NoOp"},
    ],
    ids=lambda step: step["type"],
)
def test_a_step_gives_the_pictures_of_albumentations_for_the_same_draws(step):
    steps = {"step": {**step, "p": 1.0}}
    assert "ByAlbumentations" not in repr(build_augment(steps))
    assert_same_pictures(steps, None, scene(64, 81), 25)


@pytest.mark.parametrize("how", [{}, {"area_for_downscale": "image"}, {"interpolation": "cubic"}])
@pytest.mark.parametrize(("scale", "ratio"), [((0.1, 1), (0.5, 2)), ((0.9, 1), (3, 4))])
def test_a_crop_is_that_of_albumentations_for_the_same_draws(how, scale, ratio):
    crop = {"type": "RandomResizedCrop", "p": 1.0, "scale": scale, "ratio": ratio, **how}
    assert_same_pictures({"crop": crop}, 40, scene(64, 81), 40)


def test_what_all_pixels_or_none_of_a_level_do_is_that_of_albumentations():
    photo = np.full((20, 20, 3), 255, np.uint8)
    photo[..., 1] = 7
    for step in ({"type": "AutoContrast", "method": "pil"}, {"type": "Equalize"}):
        assert_same_pictures({"step": {**step, "p": 1.0}}, None, photo, 1)


def test_a_rectangle_of_one_given_colour_is_erased():
    step = {"type": "Erasing", "p": 1.0, "scale": [0.25, 0.25], "ratio": [1, 1], "fill": [9, 8, 7]}
    erased = build_augment({"erase": step})(np.full((40, 40, 3), 100, np.uint8), 3)
    is_erased = (erased == [9, 8, 7]).all(axis=2)
    rows, columns = is_erased.any(axis=1), is_erased.any(axis=0)
    assert (rows.sum(), columns.sum(), is_erased.sum()) == (20, 20, 400)
    assert (erased[~is_erased] == 100).all()
    wide = {**step, "ratio": [8, 8]}  # in no square fits a quarter of it in that ratio
    assert (build_augment({"erase": wide})(np.full((40, 40, 3), 100, np.uint8), 3) == 100).all()


def test_arguments_that_our_steps_lack_are_left_to_albumentations():
    photo = noise(3, (20, 30, 3))
    step = {
        "type": "Affine", "p": 1.0, "translate_px": {"x": [3, 3], "y": [0, 0]},
        "border_mode": "reflect_101",
    }  # fmt: skip
    augment = pickle.loads(pickle.dumps(build_augment({"move": step})))
    assert isinstance(augment.steps[0], ByAlbumentations)
    moved = np.pad(photo, ((0, 0), (3, 0), (0, 0)), mode="reflect")[:, :30]
    np.testing.assert_array_equal(augment(photo, 0), moved)
    noisy = {"type": "GaussNoise", "p": 0.5, "noise_scale_factor": 0.5}
    augment, again = build_augment({"noise": noisy}), build_augment({"noise": noisy})
    pictures = [augment(photo, seed) for seed in range(40)]
    assert 10 < sum(np.array_equal(picture, photo) for picture in pictures) < 30
    for seed in reversed(range(40)):
        np.testing.assert_array_equal(again(photo, seed), pictures[seed])


def distance(these: np.ndarray, those: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest gap between two distributions' sums."""
    both = np.sort(np.concatenate([these, those]))
    sums = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (these, those)]
    return np.abs(sums[0] - sums[1]).max()


@pytest.mark.parametrize("name", ["photo", "strong"])
def test_pictures_are_distributed_as_with_albumentations_own_random_state(name):
    count, size = 1200, 24
    photo, steps = scene(size, size), policy(name)
    augment, pipeline = build_augment(steps, size), build_pipeline(steps, size)
    ours, theirs = [], []
    for seed in range(count):
        ours.append(augment(photo, seed))
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed + count))
        theirs.append(pipeline(image=photo)["image"])
    weights = np.random.default_rng(1).normal(size=(8, photo.size))
    limit = 1.95 * np.sqrt(2 / count)  # passed once in a thousand times by chance
    changed = [np.array([np.any(x != photo) for x in pictures]) for pictures in (ours, theirs)]
    assert abs(changed[0].mean() - changed[1].mean()) < 0.06
    for projection in weights:
        levels = [np.reshape(pictures, (count, -1)) @ projection for pictures in (ours, theirs)]
        assert distance(*levels) < limit


def test_one_of_chooses_by_weight():
    class Which(Step):
        def __call__(self, photo, random):
            return self.p

    one_of = OneOf(p=1, steps=tuple(Which(p=p) for p in (1, 2, 5)), below=(1 / 8, 3 / 8))
    drawn = random.Random(3)
    counts = np.bincount([one_of(None, drawn) for _ in range(8000)], minlength=6)[[1, 2, 5]]
    expected = np.array([1000, 2000, 5000])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # χ² of 2, one in a thousand


def test_crops_have_the_areas_and_ratios_they_say():
    crop = RandomResizedCrop(
        p=1, size=None, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), interpolation=1, area_to_shrink=True
    )
    drawn = random.Random(0)
    parts = np.array([crop._part(276, 276, drawn) for _ in range(4000)])
    left, top, width, height = parts.T
    areas, ratios = width * height / 276**2, width / height
    assert 0.498 < areas.min() < 0.51 and 0.99 < areas.max() <= 1
    assert 0.745 < ratios.min() < 0.76 and 1.32 < ratios.max() < 1.34
    assert abs(np.log(ratios).mean()) < 0.01
    assert left.min() == top.min() == 0
    assert (left + width).max() == (top + height).max() == 276


def test_a_part_that_ten_draws_do_not_find_is_the_middle():
    crop = RandomResizedCrop(
        p=1, size=8, scale=(1.0, 1.0), ratio=(2.0, 2.0), interpolation=1, area_to_shrink=False
    )
    assert crop._part(100, 100, random.Random(0)) == (0, 25, 100, 50)
    assert crop._part(20, 100, random.Random(0)) == (30, 0, 40, 20)


def test_a_policy_can_be_pickled_and_then_needs_no_albumentations():
    augment, photo = build_augment(policy("strong"), 24), scene(28, 28)
    assert pickle.loads(pickle.dumps(augment)) == augment
    expected = [zlib.crc32(augment(photo, seed)) for seed in range(20)]
    code = (
        "import pickle, sys, zlib\n"
        "augment, photo = pickle.load(sys.stdin.buffer)\n"
        "import carcls.data.transforms\n"
        "heavy = {'albumentations', 'pandas', 'keras', 'scipy'} & set(sys.modules)\n"
        "print([zlib.crc32(augment(photo, seed)) for seed in range(20)], heavy)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((augment, photo)),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert answer.stdout.decode().strip() == f"{expected} set()"


@pytest.mark.parametrize("name", POLICIES)
def test_every_step_of_our_policies_is_our_own(name):
    assert "ByAlbumentations" not in repr(build_augment(policy(name), 40))
