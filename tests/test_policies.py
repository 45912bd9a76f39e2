"""The policies of the notebook beside `photo`: their numbers, measured on the photos they give."""

from pathlib import Path

import numpy as np
import pytest

from carcls.config import to_config
from carcls.data.transforms import build_augment
from tests.test_config import composed, options, told
from tests.test_transforms import GREY, noise, policy

SIDE = 600
BEFORE = np.array([(220.0, 240.0), (400.0, 260.0), (290.0, 400.0)])  # x, y of a blob per channel
LIGHT = {"type": "RandomBrightnessContrast", "p": 0.5, "brightness_by_max": True}


def blobs() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    channels = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 8.0**2)) for cx, cy in BEFORE]
    return np.rint(255 * np.stack(channels, axis=-1)).astype(np.uint8)


def centres(photo: np.ndarray) -> np.ndarray:
    """`(3, 2)` x and y of each channel's centre of mass."""
    y, x = np.mgrid[:SIDE, :SIDE]
    mass = photo.astype(float)
    total = mass.sum(axis=(0, 1))
    return np.stack(
        [(mass * x[..., None]).sum((0, 1)) / total, (mass * y[..., None]).sum((0, 1)) / total], -1
    )


def moves(augment, count: int) -> dict[str, np.ndarray]:
    """Shift as shares, scales, angle and shear in degrees of `count` photos, from three blobs."""
    photo, middle = blobs(), (SIDE - 1) / 2
    ones = np.ones((3, 1))
    before = np.linalg.inv(np.hstack([centres(photo) - middle, ones]))
    found = []
    for seed in range(count):
        after = centres(augment(photo, seed)) - middle
        (a, b), (c, d), shift = before @ after  # rows: where x, y and the middle go
        angle = np.degrees(np.arctan2(b, a))
        skew = np.degrees(np.arctan2(-c, d)) - angle  # of the axes from the right angle
        found.append((*(shift / SIDE), np.hypot(a, b), np.hypot(c, d), angle, skew))
    names = ("shift_x", "shift_y", "scale_x", "scale_y", "angle", "shear")
    return dict(zip(names, np.array(found).T, strict=True))


@pytest.fixture(scope="module")
def geometric_moves() -> dict[str, np.ndarray]:
    return moves(build_augment(policy("geometric")), 120)


@pytest.mark.parametrize(
    ("name", "middle", "limit", "tolerance"),
    [
        ("shift_x", 0, 0.1, 0.002),
        ("shift_y", 0, 0.1, 0.002),
        ("scale_x", 1, 0.1, 0.003),
        ("scale_y", 1, 0.1, 0.003),
        ("angle", 0, 5, 0.1),
        ("shear", 0, 0.1, 0.05),
    ],
)
def test_geometric_moves_photos_as_far_as_it_says_and_no_further(
    geometric_moves, name, middle, limit, tolerance
):
    away = geometric_moves[name] - middle
    assert np.abs(away).max() < limit + tolerance
    assert np.abs(away).max() > 0.8 * limit
    assert abs(away.mean()) < 0.25 * limit


def test_geometric_draws_each_move_and_each_axis_on_its_own(geometric_moves):
    drawn = np.array([geometric_moves[name] for name in ("shift_x", "shift_y", "scale_x",
                                                         "scale_y", "angle")])  # fmt: skip
    correlations = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlations).max() < 0.35
    assert np.abs(geometric_moves["scale_x"] - geometric_moves["scale_y"]).max() > 0.12


def test_geometric_mirrors_the_border_with_its_last_pixel_twice():
    still = {
        **policy("geometric")["affine"], "rotate": [0, 0], "shear": [0, 0],
        "scale": [1.0, 1.0], "translate_percent": {"x": [0.1, 0.1], "y": [-0.2, -0.2]},
    }  # fmt: skip
    photo = noise(3, (50, 60, 3))
    moved = build_augment({"affine": still})(photo, 0)
    mirrored = np.pad(photo, ((10, 10), (6, 6), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(moved, mirrored[20:70, 0:60])


def test_geometric_never_flips(geometric_moves):
    assert (geometric_moves["scale_x"] > 0.8).all() and (geometric_moves["scale_y"] > 0.8).all()
    assert np.abs(geometric_moves["angle"]).max() < 6 and list(policy("geometric")) == ["affine"]


def test_photo_rgb_differs_from_photo_in_three_steps():
    steps, photo = policy("photo_rgb"), policy("photo")
    assert list(steps) == ["blur", "noise", "affine", "rgb", "colour", "flip", "light"]
    assert steps["affine"] == {**photo["affine"], "p": 0.7}
    assert steps["rgb"] == {
        "type": "RGBShift", "p": 0.5, "r_shift_limit": [-20, 20], "g_shift_limit": [-20, 20],
        "b_shift_limit": [-20, 20],
    }  # fmt: skip
    assert steps["light"] == {
        "type": "OneOf",
        "p": 0.3,
        "steps": {
            "strong": {**LIGHT, "brightness_limit": [-0.3, 0.3], "contrast_limit": [-0.3, 0.3]},
            "weak": {**LIGHT, "brightness_limit": [-0.1, 0.1], "contrast_limit": [-0.1, 0.1]},
        },
    }
    for name in ("blur", "noise", "colour", "flip"):
        assert steps[name] == photo[name]


def test_photo_rgb_shifts_each_channel_of_half_of_the_photos_by_up_to_20():
    augment = build_augment({"rgb": policy("photo_rgb")["rgb"]})
    shifts = np.array([augment(GREY, seed)[0, 0].astype(int) - 128 for seed in range(1000)])
    shifted = shifts[(shifts != 0).any(axis=1)]
    assert 440 < len(shifted) < 560
    # The library cuts the shift to whole numbers, towards 0, so that 20 itself is never reached.
    assert np.abs(shifted).max(axis=0).tolist() == [19, 19, 19]
    assert np.abs(np.corrcoef(shifted.T) - np.eye(3)).max() < 0.2


def test_photo_rgb_changes_the_light_of_three_photos_in_ten():
    augment = build_augment({"light": policy("photo_rgb")["light"]})
    levels = np.array([augment(GREY, seed)[0, 0, 0] for seed in range(1000)], int)
    assert 240 < (levels != 128).sum() < 360
    # ±0.3 of 255 by brightness, and on top ±0.3 of what is there by contrast
    assert 128 + 77 < levels.max() <= 128 * 1.3 + 77 and 12 <= levels.min() < 128 - 77


def test_photo_no_brightness_is_photo_without_its_last_step():
    photo = policy("photo")
    assert list(photo)[-1] == "light"
    assert policy("photo_no_brightness") == {k: v for k, v in photo.items() if k != "light"}
    assert list(policy("photo_no_brightness")) == list(photo)[:-1]
    without = build_augment(policy("photo_no_brightness"))
    never = build_augment({**photo, "light": {**photo["light"], "p": 0.0}})
    for seed in range(30):
        np.testing.assert_array_equal(without(noise(1), seed), never(noise(1), seed))


@pytest.mark.parametrize("name", [name for name in options("augmentation") if name != "none"])
def test_a_policy_is_a_pure_function_that_keeps_shape_and_type(name):
    augment, again = build_augment(policy(name)), build_augment(policy(name))
    photo = noise(4, (45, 63, 3))
    results = [augment(photo, seed) for seed in range(20)]
    assert {result.shape for result in results} == {(45, 63, 3)}
    assert {result.dtype for result in results} == {np.dtype(np.uint8)}
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(again(photo, seed), results[seed])
    assert len({result.tobytes() for result in results}) > 15
    np.testing.assert_array_equal(photo, noise(4, (45, 63, 3)))


@pytest.mark.parametrize("name", options("augmentation"))
def test_composing_a_policy_keeps_its_name_and_the_order_of_its_steps(name):
    composition = composed(f"augmentation={name}").augmentation
    assert composition.name == name == Path(name).stem
    assert list(composition.train) == list(policy(name))


def test_strong_has_the_steps_of_its_sources():
    steps = policy("strong")
    assert list(steps) == ["crop", "flip", "colour", "trivial", "erase"]
    assert steps["crop"] == {
        "type": "RandomResizedCrop", "p": 1.0, "scale": [0.5, 1.0], "ratio": [0.75, 1.3333],
        "interpolation": "linear",
    }  # fmt: skip
    assert list(steps["trivial"]["steps"]) == [
        "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "posterize",
        "solarize", "autocontrast", "equalize", "sharpness", "brightness", "contrast", "saturation",
    ]  # fmt: skip
    assert {step["p"] for step in steps["trivial"]["steps"].values()} == {1.0}
    assert steps["erase"] == {
        "type": "Erasing", "p": 0.25, "scale": [0.02, 0.25], "ratio": [0.3, 3.3], "fill": "random",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "name", "limit"), [("shear_x", "shear", 17), ("rotate", "angle", 30)]
)
def test_strong_draws_strengths_uniformly_from_both_sides(step, name, limit):
    away = moves(build_augment({"one": policy("strong")["trivial"]["steps"][step]}), 60)[name]
    assert 0.8 * limit < np.abs(away).max() < 1.02 * limit
    assert abs(away.mean()) < 0.25 * limit
    assert abs((np.abs(away) < limit / 2).mean() - 0.5) < 0.2


def test_strong_erases_a_quarter_of_the_photos():
    augment = build_augment({"erase": policy("strong")["erase"]})
    shares = np.array([(augment(GREY, seed) != 128).any(axis=2).mean() for seed in range(1000)])
    erased = shares[shares > 0]
    assert 210 < len(erased) < 290
    assert 0.019 < erased.min() < 0.03
    # A quarter of a square; of this oblong, what fits at any ratio: 0.3 × 80 × 80 of 80 × 100.
    assert 0.23 < erased.max() < 0.242


@pytest.mark.parametrize("name", options("augmentation"))
def test_every_policy_says_how_photos_are_kept_and_mixed(name):
    config = to_config(
        composed(f"augmentation={name}", "augmentation.mixup=0.2", "augmentation.cutmix=1",
                 "augmentation.mix_probability=0.5")
    )  # fmt: skip
    stage = config.finetune.stages["head"]
    assert config.mixing(stage) == {"mixup": 0.2, "cutmix": 1.0, "mix_probability": 0.5}
    config = to_config(composed(f"augmentation={name}"))
    mixes = name == "moderate"
    assert (config.mixing(stage) is not None) == mixes
    config = config.augmentation
    mixed = (config.mixup, config.cutmix, config.mix_probability)
    assert mixed == ((0.2, 1.0, 0.5) if mixes else (0.0, 0.0, 1.0))
    crops = "crop" in config.train  # of which it needs more pixels than the network takes
    assert config.working_scale == (1.15 if crops else 1.0)
    assert config.working_size(240) == (276 if crops else 240)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("working_scale=0.9", "Expected working_scale from 1 to 2, times the network's input. "
         "Received: working_scale=0.9"),
        ("working_scale=3", "Received: working_scale=3.0"),
        ("mixup=-0.1", "Expected mixup from 0 (off) to 100. Received: mixup=-0.1"),
        ("cutmix=nan", "Expected cutmix from 0 (off) to 100. Received: cutmix=nan"),
        ("mix_probability=2", "Expected mix_probability to be a share in [0, 1]. "
         "Received: mix_probability=2.0"),
    ],
)  # fmt: skip
def test_a_wrong_way_of_keeping_or_mixing_photos_is_told(override, text):
    assert text in told(f"augmentation.{override}")


def test_mixing_no_batch_is_no_mixing():
    overrides = ("augmentation.mixup=0.2", "augmentation.mix_probability=0")
    config = to_config(composed(*overrides))
    assert config.mixing(config.finetune.stages["head"]) is None
