"""The augmentation policies: the published numbers, pure functions, mistakes told by name."""

import warnings
from pathlib import Path

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from carcls.data.transforms import build_augment, seeded
from carcls.errors import UserError

CONF = Path(__file__).parents[1] / "conf" / "augmentation"
GREY = np.full((80, 100, 3), 128, np.uint8)
FLIP = {"type": "HorizontalFlip", "p": 0.5}


def policy(name: str) -> dict:
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))["train"]


def only(step: str, **changes) -> dict:
    """The photo policy's one step, always applied."""
    return {step: {**policy("photo")[step], "p": 1.0, **changes}}


def noise(seed: int, shape=(80, 100, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def mistake(**steps) -> str:
    with pytest.raises(UserError) as caught:
        build_augment(steps)
    return str(caught.value)


def test_photo_has_the_notebooks_numbers():
    light = {"type": "RandomBrightnessContrast", "p": 0.5, "brightness_by_max": True}
    assert policy("photo") == {
        "blur": {"type": "Blur", "p": 0.07, "blur_limit": [3, 7]},
        "noise": {
            "type": "GaussNoise", "p": 0.07, "std_range": [0.0124, 0.0277],
            "mean_range": [0.0, 0.0], "per_channel": True, "noise_scale_factor": 1.0,
        },
        "affine": {
            "type": "Affine", "p": 0.65,
            "translate_percent": {"x": [-0.08, 0.08], "y": [-0.08, 0.08]},
            "scale": [0.95, 1.05], "keep_ratio": True, "rotate": [-20, 20], "shear": [0.0, 0.0],
            "interpolation": "linear", "border_mode": "reflect_101",
        },
        "colour": {
            "type": "HueSaturationValue", "p": 0.5,
            "hue_shift_limit": [-20, 20], "sat_shift_limit": [-30, 30],
            "val_shift_limit": [-20, 20],
        },
        "flip": {"type": "HorizontalFlip", "p": 0.5},
        "light": {
            "type": "OneOf", "p": 0.5,
            "steps": {
                "strong": {**light, "brightness_limit": [-0.2, 0.2], "contrast_limit": [-0.2, 0.2]},
                "weak": {**light, "brightness_limit": [-0.1, 0.1], "contrast_limit": [-0.1, 0.1]},
            },
        },
    }  # fmt: skip
    assert list(policy("photo")) == ["blur", "noise", "affine", "colour", "flip", "light"]


def test_none_is_no_augmentation():
    assert policy("none") == {}
    assert build_augment(policy("none")) is None


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_policy_is_one_that_can_be_built(name):
    augment = build_augment(policy(name))
    assert (augment is None) == (name == "none")
    if augment is not None:
        assert augment(GREY, 3).shape == GREY.shape


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_augmenting_is_a_pure_function_of_photo_and_seed(seeds_before, seed):
    photo = noise(1)
    original = photo.copy()
    fresh, used = build_augment(policy("photo")), build_augment(policy("photo"))
    for other in seeds_before:
        used(noise(2, (31, 17, 3)), other)
    np.random.seed(seeds_before[0])
    augmented = used(photo, seed)
    np.testing.assert_array_equal(augmented, fresh(photo, seed))
    np.testing.assert_array_equal(augmented, used(photo, seed))
    assert augmented.shape == photo.shape and augmented.dtype == np.uint8
    np.testing.assert_array_equal(photo, original)


def test_other_seeds_give_other_photos():
    augment = build_augment(policy("photo"))
    assert len({augment(noise(1), seed).tobytes() for seed in range(100)}) > 90


def test_the_noise_has_a_variance_of_10_to_50():
    augment = build_augment(only("noise"))
    photos = [augment(GREY, seed).astype(float) for seed in range(300)]
    # The library cuts the noise to whole numbers, towards 0, which narrows it by about 0.38.
    variances = np.array([(photo.std() + 0.38) ** 2 for photo in photos])
    assert 9.5 < variances.min() < 12 and 46 < variances.max() < 51
    assert abs(np.mean(photos) - 128) < 0.1
    assert np.mean([photo.std(axis=-1).mean() for photo in photos]) > 2  # each channel has its own


def fitted_similarity(augment, seed: int) -> tuple[float, float, float, float]:
    """Shift as shares of width and height, scale and angle, measured from four dots."""
    width, height = 200, 160
    dots = np.array([(60, 50), (140, 50), (60, 110), (140, 110)])
    photo = np.zeros((height, width, 3), np.uint8)
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.int16)
    for (x, y), colour in zip(dots.tolist(), colours.tolist(), strict=True):
        cv2.circle(photo, (x, y), 5, colour, -1)
    moved = augment(photo, seed).astype(np.int16)
    centres = []
    for colour in colours:
        y, x = np.nonzero(np.abs(moved - colour).max(axis=-1) < 90)
        centres.append((x.mean(), y.mean()))
    origin, there = dots - dots.mean(axis=0), np.array(centres) - np.mean(centres, axis=0)
    before, after = origin @ [1, 1j], there @ [1, 1j]
    turn = (after * before.conj()).sum() / (abs(before) ** 2).sum()
    assert np.abs(after - turn * before).max() < 1  # one scale for both axes, no shear
    shift = (np.mean(centres, axis=0) - dots.mean(axis=0)) / (width, height)
    return (*shift, abs(turn), np.degrees(np.angle(turn)))


def test_the_affine_step_moves_photos_as_far_as_it_says_and_no_further():
    augment = build_augment(only("affine"))
    moves = np.array([fitted_similarity(augment, seed) for seed in range(150)])
    limits = np.array([0.08, 0.08, 0.05, 20.0])
    away = np.abs(moves - [0, 0, 1, 0]) / limits
    assert (away.max(axis=0) < [1.05, 1.05, 1.15, 1.05]).all()  # dots are found to a pixel
    assert (away.max(axis=0) > 0.9).all()
    assert (np.abs((moves - [0, 0, 1, 0]).mean(axis=0)) < 0.2 * limits).all()


def test_half_of_the_photos_are_flipped():
    augment, photo = build_augment({"flip": policy("photo")["flip"]}), noise(1)
    results = [augment(photo, seed) for seed in range(1000)]
    flipped = [np.array_equal(result, photo[:, ::-1]) for result in results]
    kept = [np.array_equal(result, photo) for result in results]
    assert sum(flipped) + sum(kept) == 1000
    assert 440 < sum(flipped) < 560


def test_steps_are_drawn_apart_from_each_other():
    light = {"type": "RandomBrightnessContrast", "contrast_limit": [0, 0]}
    steps = {
        "flip": FLIP,
        "lighter": {**light, "p": 0.5, "brightness_limit": [0.2, 0.2]},
        "change": {
            "type": "OneOf",
            "p": 0.5,
            "steps": {"any": {**light, "p": 1.0, "brightness_limit": [-0.4, 0.4]}},
        },
    }
    augment, photo = build_augment(steps), np.full((4, 4, 3), 120, np.uint8)
    photo[:, :2] = 100
    seen = [augment(photo, seed)[0, [0, -1], 0].astype(int) for seed in range(2000)]
    flipped = np.array([left > right for left, right in seen])
    levels = np.array([min(pair) for pair in seen])
    for applied in (levels == 100, levels == 151):  # neither, or lighter alone: a quarter each
        assert 0.20 < applied.mean() < 0.30
        assert abs(flipped[applied].mean() - 0.5) < 0.1
    changes = levels[(levels != 100) & (levels != 151)]
    assert 0.4 < (changes > 125).mean() < 0.6  # a group's draw does not tell its member's


def test_one_of_applies_one_of_its_steps_as_often_as_its_p():
    light = {"type": "RandomBrightnessContrast", "p": 0.5, "contrast_limit": [0, 0]}
    steps = {
        "up": {**light, "brightness_limit": [0.2, 0.2]},
        "down": {**light, "brightness_limit": [-0.2, -0.2]},
    }
    augment = build_augment({"light": {"type": "OneOf", "p": 0.5, "steps": steps}})
    levels = [int(augment(GREY, seed)[0, 0, 0]) for seed in range(1000)]
    counts = {level: levels.count(level) for level in set(levels)}
    assert set(counts) == {128 - 51, 128, 128 + 51}
    assert 440 < counts[128] < 560 and abs(counts[77] - counts[179]) < 100


def test_a_step_that_is_no_map_with_a_type_is_named():
    expected = (
        "Expected the augmentation step 'flip' to be a map with a type, such as "
        "{type: HorizontalFlip, p: 0.5}. Received: "
    )
    assert mistake(flip="HorizontalFlip") == expected + "HorizontalFlip"
    assert mistake(flip={"p": 0.5}) == expected + "{'p': 0.5}"


@pytest.mark.parametrize("kind", ["Hflip", None, ["HorizontalFlip"]])
def test_an_unknown_type_is_told_with_those_there_are(kind):
    text = mistake(flip={"type": kind})
    assert text.startswith("Expected the type of the augmentation step 'flip' to be one of Affine,")
    assert text.endswith(f", OneOf. Received: type={kind}")


def test_an_unknown_argument_is_named_and_no_other_thread_hears_of_it():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters)
        text = mistake(noise={"type": "GaussNoise", "var_limit": [10, 50]})
        assert warnings.filters == before
    assert text == (
        "Expected arguments that GaussNoise takes in the augmentation step 'noise'. "
        "Received: Argument(s) 'var_limit' are not valid for transform GaussNoise"
    )


@pytest.mark.parametrize("value", ["mirror", 4, ["reflect"]])
def test_a_wrong_constant_is_told_with_those_there_are(value):
    assert mistake(affine={"type": "Affine", "border_mode": value}) == (
        "Expected border_mode of the augmentation step 'affine' to be one of reflect, reflect_101. "
        f"Received: border_mode={value}"
    )


@pytest.mark.parametrize(
    "step",
    [{**FLIP, "p": 7}, {**FLIP, "p": "often"}, {"type": "GaussNoise", "std_range": [0.5, 0]}],
)
def test_a_value_out_of_bounds_names_the_step(step):
    assert "takes in the augmentation step 'x'. Received: 1 validation error" in mistake(x=step)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Expected steps, a map of steps by name, in the augmentation step 'x'. "
             "Received: steps=None"),
        ({"steps": [FLIP]}, "Expected steps, a map of steps by name, in the augmentation step "
             f"'x'. Received: steps={[FLIP]}"),
        ({"steps": {"a": FLIP}, "p": 7}, "Expected p to be in [0, 1] in the augmentation step "
             "'x'. Received: p=7"),
        ({"steps": {"a": FLIP}, "name": 1}, "Expected arguments that OneOf takes in the "
             "augmentation step 'x': steps, p. Received: name"),
        ({"steps": {"a": {**FLIP, "p": 0}}}, "Expected a step with p above 0 to choose in the "
             "augmentation step 'x'. Received: p=0 in each of a. To leave it out: p=0 in 'x' "
             "itself."),
    ],
)  # fmt: skip
def test_mistakes_in_a_one_of_are_told_as_such(arguments, text):
    assert mistake(x={"type": "OneOf", **arguments}) == text


@pytest.mark.parametrize("fill", [300, -5, [1, 2], [1.5, 2, 3]])
def test_a_colour_that_no_photo_can_take_is_told_before_the_training(fill):
    assert mistake(x={"type": "Erasing", "p": 1.0, "fill": fill}).endswith(
        f"Received: fill={fill if isinstance(fill, int) else tuple(fill)}, where a whole level "
        "from 0 to 255, or three, can be"
    )


def test_a_mistake_inside_a_one_of_is_named_by_its_path():
    text = mistake(x={"type": "OneOf", "steps": {"inner": "Blur"}})
    assert text.startswith("Expected the augmentation step 'x.inner' to be a map with a type")


def some_pipeline() -> A.Compose:
    return A.Compose(
        [
            A.SomeOf([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Transpose(p=0.5)], n=2),
            A.Sequential([A.Affine(rotate=(-20, 20), p=0.5), A.GaussNoise(p=0.5)], p=0.8),
        ],
        p=0.7,
    )


@settings(max_examples=15)
@given(st.integers(0, 2**64), st.integers(0, 2**32))
def test_any_pipeline_becomes_a_pure_function_of_photo_and_seed(seed, other):
    photo, first, second = noise(1, (40, 40, 3)), seeded(some_pipeline()), seeded(some_pipeline())
    second(noise(2, (25, 25, 3)), other)
    np.testing.assert_array_equal(first(photo, seed), second(photo, seed))
    np.testing.assert_array_equal(photo, noise(1, (40, 40, 3)))


def test_a_pipeline_is_applied_as_often_as_its_own_p():
    augment, photo = seeded(A.Compose([A.HorizontalFlip(p=1.0)], p=0.7)), noise(1)
    flipped = [not np.array_equal(augment(photo, seed), photo) for seed in range(1000)]
    assert 640 < sum(flipped) < 760


def test_a_single_step_is_a_pipeline_too():
    np.testing.assert_array_equal(seeded(A.HorizontalFlip(p=1.0))(noise(1), 5), noise(1)[:, ::-1])


def test_steps_of_a_seeded_pipeline_are_drawn_apart_from_each_other():
    grey = np.full((4, 4, 3), 100, np.uint8)
    grey[:, :2], grey[:2] = 110, grey[:2] + 40
    lighter = {"brightness_limit": (0.2, 0.2), "contrast_limit": (0, 0), "p": 0.5}
    augment = seeded(
        A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.5),
                A.OneOf([A.RandomBrightnessContrast(**lighter), A.Transpose(p=0.5)], p=0.5),
            ]
        )
    )
    found = [augment(grey, seed).tobytes() for seed in range(2000)]
    counts = sorted(found.count(picture) for picture in set(found))
    # Each flip or none: 4 pictures; as often as they are, lightened or turned over instead: 8 more,
    # of which the turned ones are half as many as there would be if all were different.
    assert len(counts) == 12 and sum(counts) == 2000
    assert all(85 < count < 170 for count in counts[:8])
    assert all(210 < count < 295 for count in counts[8:])


@pytest.mark.parametrize("name", ["photo", "strong", "geometric"])
@pytest.mark.parametrize("side", [20, 24, 31])
def test_with_a_size_the_photo_always_comes_out_in_it(name, side):
    augment = build_augment(policy(name), 24)
    for seed in range(20):
        assert augment(noise(1, (side, side, 3)), seed).shape == (24, 24, 3)


def test_a_photo_that_no_step_brings_to_the_size_is_resized_in_the_end():
    photo = noise(1, (48, 48, 3))
    shrunk = cv2.resize(photo[:, ::-1], (20, 20), interpolation=cv2.INTER_AREA)
    flipped = build_augment({"flip": {**FLIP, "p": 1.0}}, 20)(photo, 3)
    np.testing.assert_array_equal(flipped, shrunk)
    crop = {"type": "RandomResizedCrop", "p": 0.0}
    shrunk = cv2.resize(photo, (20, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(build_augment({"crop": crop}, 20)(photo, 3), shrunk)


def test_a_crop_without_a_size_keeps_that_of_the_photo():
    crop = {"type": "RandomResizedCrop", "p": 1.0, "scale": [0.25, 0.25], "ratio": [1, 1]}
    photo = noise(1, (32, 32, 3))
    cropped = build_augment({"crop": crop})(photo, 3)
    parts = [
        cv2.resize(photo[y : y + 16, x : x + 16], (32, 32)) for y in range(17) for x in range(17)
    ]
    assert sum(np.array_equal(cropped, part) for part in parts) == 1


def test_a_crop_takes_no_size_of_its_own():
    crop = {"type": "RandomResizedCrop", "p": 1.0, "size": [224, 224]}
    assert mistake(crop=crop) == (
        "Expected no size in the augmentation step 'crop', since it gives photos the size that the "
        "network sees. Received: size=(224, 224)"
    )


def test_the_pipeline_that_is_seeded_stays_as_it_was():
    pipeline = A.Compose([A.HorizontalFlip(p=0.5)], seed=3)
    before = pipeline.transforms[0].py_random.getstate()
    seeded(pipeline)(noise(1), 17)
    assert pipeline.transforms[0].py_random.getstate() == before and pipeline.seed == 3


def test_what_is_nothing_of_albumentations_is_told():
    with pytest.raises(UserError) as caught:
        seeded("flip")
    assert str(caught.value) == (
        "Expected an augmentation made of albumentations, such as "
        "albumentations.Compose([albumentations.HorizontalFlip()]). Received: 'flip'"
    )
