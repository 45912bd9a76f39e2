"""The steps of an augmentation policy as functions of a photo and a random state.

`carcls.data.transforms` makes them from albumentations' own, which say what the arguments mean and
check them. For the same draws a step gives the picture that albumentations gives (a test compares
them), at a fraction of its price, and needs neither albumentations nor Keras to be imported: a
worker process that receives a `Policy` starts in a moment.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from random import Random
from typing import Any

import cv2
import numpy as np
import stringzilla  # comes with albumentations; its tables are many times faster than cv2.LUT

from carcls.data.images import resize

Range = tuple[float, float]  # a value is drawn uniformly between the two

_LEVELS = np.arange(256, dtype=np.float32)
_HUES = np.arange(256, dtype=np.int16)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that is done to a share of the photos.

    Args:
        p: Probability in [0, 1]; the weight of a step inside `OneOf`.
    """

    p: float

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        """`(height, width, 3)` uint8 to the same; `photo` itself stays as it was."""
        return photo


@dataclass(frozen=True)
class Policy:
    """Steps in a row: what happens to a photo is a pure function of the photo and a seed.

    It can be pickled. Not to be shared between threads.

    Args:
        steps: In the order in which they are applied.
        size: Side of the result in pixels; None: whatever the steps leave.
    """

    steps: tuple[Step, ...]
    size: int | None = None

    def __call__(self, photo: np.ndarray, seed: int) -> np.ndarray:
        """`(height, width, 3)` uint8 to the same or `(size, size, 3)`; may be `photo` itself."""
        random = Random(seed)
        for step in self.steps:
            if random.random() < step.p:
                photo = step(photo, random)
        if self.size is not None and photo.shape[:2] != (self.size, self.size):
            photo = resize(photo, self.size)
        return photo


@dataclass(frozen=True, kw_only=True)
class OneOf(Step):
    """One of several steps.

    Args:
        steps: To choose from.
        below: Of each step, the probability of it or of one before it.
    """

    steps: tuple[Step, ...]
    below: tuple[float, ...]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        return self.steps[bisect_right(self.below, random.random())](photo, random)


@dataclass(frozen=True, kw_only=True)
class ByAlbumentations(Step):
    """A step that albumentations itself applies.

    Args:
        transform: The `albumentations.BasicTransform`.
    """

    transform: Any

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        self.transform.set_random_state(np.random.default_rng(random.getrandbits(64)), random)
        return self.transform(image=photo, force_apply=True)["image"]


@dataclass(frozen=True, kw_only=True)
class Affine(Step):
    """Shifted, sheared, turned and scaled around the middle, in one warp.

    Args:
        shift: Of x and y, as shares of the width and the height; None draws none.
        shear: Of x and y, in degrees.
        scale: Of x and y.
        keep_ratio: Both axes take the scale of x.
        rotate: In degrees.
        interpolation, border: OpenCV's constants.
        fill: A value a channel, where the border is constant.
    """

    shift: tuple[Range, Range] | None
    shear: tuple[Range, Range]
    scale: tuple[Range, Range]
    keep_ratio: bool
    rotate: Range
    interpolation: int
    border: int
    fill: tuple[float, float, float]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        height, width = photo.shape[:2]
        x, y = [random.uniform(*limits) for limits in self.shift] if self.shift else (0, 0)
        shear_x, shear_y = (math.tan(math.radians(-random.uniform(*s))) for s in self.shear)
        scale_x, scale_y = (random.uniform(*limits) for limits in self.scale)
        if self.keep_ratio:
            scale_y = scale_x
        angle = math.radians(random.uniform(*self.rotate))
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = (cos - shear_x * sin) * scale_x, (sin + shear_x * cos) * scale_y
        c, d = (shear_y * cos - sin) * scale_x, (shear_y * sin + cos) * scale_y
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        right = middle_x + int(x * width) - a * middle_x - b * middle_y
        down = middle_y + int(y * height) - c * middle_x - d * middle_y
        matrix = np.array(((a, b, right), (c, d, down)))
        # OpenCV warps four channels in half of the time that it takes for three.
        moved = cv2.warpAffine(
            cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA),
            matrix,
            (width, height),
            flags=self.interpolation,
            borderMode=self.border,
            borderValue=self.fill,
        )
        return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(Step):
    """A part of the photo as a square (Szegedy et al., 2015); the middle if ten draws do not fit.

    Args:
        size: Side of the square in pixels; None: as large as the photo was.
        scale: Area of the part, as a share of the photo's.
        ratio: Width of the part by its height, drawn uniformly in its logarithm.
        interpolation: OpenCV's constant.
        area_to_shrink: Take the mean of an area where the part is larger than the result.
    """

    size: int | None
    scale: Range
    ratio: Range
    interpolation: int
    area_to_shrink: bool

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        left, top, width, height = self._part(*photo.shape[:2], random)
        part = photo[top : top + height, left : left + width]
        size = (self.size, self.size) if self.size else photo.shape[1::-1]  # width, height
        if (width, height) == size:
            return part
        how = self.interpolation
        if self.area_to_shrink and (width > size[0] or height > size[1]):
            how = cv2.INTER_AREA
        return cv2.resize(part, size, interpolation=how)

    def _part(self, height: int, width: int, random: Random) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part, in pixels."""
        smallest, largest = (share * height * width for share in self.scale)
        narrowest, widest = (math.log(ratio) for ratio in self.ratio)
        for _ in range(10):
            area = random.uniform(smallest, largest)
            ratio = math.exp(random.uniform(narrowest, widest))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                top = int((height - down + 1) * random.random())
                return int((width - across + 1) * random.random()), top, across, down
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        across, down = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (width - across) // 2, (height - down) // 2, across, down


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Step):
    """Mirrored, left to right."""

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        return cv2.flip(photo, 1)


@dataclass(frozen=True, kw_only=True)
class Blur(Step):
    """The mean of a square around each pixel.

    Args:
        sides: Of the square, in pixels, to choose from.
    """

    sides: tuple[int, ...]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        side = random.choice(self.sides)
        return cv2.blur(photo, (side, side))


@dataclass(frozen=True, kw_only=True)
class Sharpen(Step):
    """Each pixel set off from its eight neighbours.

    Args:
        alpha: Share of the sharpened photo in the result.
        lightness: By how much the middle of the kernel outweighs the neighbours.
    """

    alpha: Range
    lightness: Range

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        alpha, lightness = random.uniform(*self.alpha), random.uniform(*self.lightness)
        kernel = np.full((3, 3), -alpha, np.float32)
        kernel[1, 1] = 1 - alpha + alpha * (8 + lightness)
        return cv2.filter2D(photo, -1, kernel)


@dataclass(frozen=True, kw_only=True)
class GaussNoise(Step):
    """Normal noise, another value for each pixel and, with `per_channel`, for each channel.

    Args:
        std: As a share of 255.
        mean: As a share of 255.
        per_channel: Colours shift too; else light alone.
    """

    std: Range
    mean: Range
    per_channel: bool

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        std, mean = 255 * random.uniform(*self.std), 255 * random.uniform(*self.mean)
        height, width, channels = photo.shape
        # All channels as one: what is drawn is the same, and drawn faster.
        noise = np.empty((height, width * channels if self.per_channel else width), np.float32)
        cv2.setRNGSeed(random.randrange(2**16))
        cv2.randn(noise, (mean,), (std,))
        levels = noise.astype(np.int16)  # cut towards 0, as albumentations does
        levels = levels.reshape(photo.shape) if self.per_channel else cv2.merge([levels] * channels)
        return cv2.add(photo, levels, dtype=cv2.CV_8U)


@dataclass(frozen=True, kw_only=True)
class BrightnessContrast(Step):
    """Levels times 1 + contrast, plus 255 × brightness.

    Args:
        brightness: As a share of 255.
        contrast: Is added to the factor 1.
    """

    brightness: Range
    contrast: Range

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        factor = 1.0 + random.uniform(*self.contrast)
        return _look_up(photo, _levels(_LEVELS * factor + random.uniform(*self.brightness) * 255))


@dataclass(frozen=True, kw_only=True)
class RGBShift(Step):
    """Something added to each channel.

    Args:
        shifts: Of red, green and blue, as shares of 255.
    """

    shifts: tuple[Range, Range, Range]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        drawn = [int(random.uniform(*limits) * 255) for limits in self.shifts]
        return _look_up_channels(photo, [_levels(_LEVELS + shift) for shift in drawn])


@dataclass(frozen=True, kw_only=True)
class HueSaturationValue(Step):
    """Something added to hue (of 180), saturation and value (of 255); grey stays grey.

    Args:
        hue, saturation, value: What is added.
    """

    hue: Range
    saturation: Range
    value: Range

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        hue, saturation, value = (
            random.uniform(*limits) for limits in (self.hue, self.saturation, self.value)
        )
        saturations = _levels(_LEVELS + int(saturation))
        saturations[0] = 0
        return _in_hsv(photo, [_hues(hue), saturations, _levels(_LEVELS + int(value))])


@dataclass(frozen=True, kw_only=True)
class ColorJitter(Step):
    """Brightness, contrast and saturation times a factor, and hue shifted, in a random order.

    Args:
        brightness, contrast, saturation: Factors; 1 leaves it.
        hue: As a share of the circle.
    """

    brightness: Range
    contrast: Range
    saturation: Range
    hue: Range

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        limits = (self.brightness, self.contrast, self.saturation, self.hue)
        drawn = [random.uniform(*limit) for limit in limits]
        order = [0, 1, 2, 3]
        random.shuffle(order)
        for which in order:
            change = drawn[which]
            if which == 3:
                photo = photo if change == 0 else _in_hsv(photo, [_hues(180 * change), None, None])
            elif change != 1:
                photo = (_brighten, _contrast, _saturate)[which](photo, change)
        return photo


@dataclass(frozen=True, kw_only=True)
class Posterize(Step):
    """Fewer levels.

    Args:
        bits: The fewest and the most that are kept of each channel's eight.
    """

    bits: tuple[int, int]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        dropped = 8 - random.randint(*self.bits)
        return _look_up(photo, np.arange(256, dtype=np.uint8) >> dropped << dropped)


@dataclass(frozen=True, kw_only=True)
class Solarize(Step):
    """Levels from a threshold on are inverted.

    Args:
        threshold: As a share of 255.
    """

    threshold: Range

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        is_inverted = random.uniform(*self.threshold) * 255 <= _LEVELS
        return _look_up(photo, _levels(np.where(is_inverted, 255 - _LEVELS, _LEVELS)))


@dataclass(frozen=True, kw_only=True)
class AutoContrast(Step):
    """Each channel stretched to all of its levels."""

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        tables: list[np.ndarray | None] = []
        for channel in range(photo.shape[2]):
            # 255 itself is not counted, as in albumentations.
            counts = cv2.calcHist([photo], [channel], None, [256], [0, 255])
            present = np.flatnonzero(counts)
            low, high = (present[0], present[-1]) if len(present) else (0, 0)
            stretched = np.round((np.arange(256.0) - low) * (255 / max(high - low, 1)))
            tables.append(_levels(stretched) if high > low else None)
        return _look_up_channels(photo, tables)


@dataclass(frozen=True, kw_only=True)
class Equalize(Step):
    """Each channel with as many pixels of one level as of another."""

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(photo)])


@dataclass(frozen=True, kw_only=True)
class Erasing(Step):
    """A rectangle filled in (Zhong et al., 2020).

    Args:
        scale: Its area, as a share of the photo's.
        ratio: Its width by its height.
        fill: `random` (noise), `random_uniform` (one colour), or a value a channel.
    """

    scale: Range
    ratio: Range
    fill: str | tuple[float, float, float]

    def __call__(self, photo: np.ndarray, random: Random) -> np.ndarray:
        height, width = photo.shape[:2]
        smallest, largest = (share * height * width for share in self.scale)
        narrowest, widest = self.ratio
        largest = min(largest, narrowest * height**2, width**2 / widest)  # fits in any ratio
        if largest < smallest:
            return photo
        area, ratio = random.uniform(smallest, largest), random.uniform(narrowest, widest)
        down, across = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        top, left = random.randint(0, height - down), random.randint(0, width - across)
        fill: Any = self.fill
        if isinstance(fill, str):
            shape = (down, across, 3) if fill == "random" else (1, 3)
            generator = np.random.default_rng(random.randrange(2**32 - 1))
            fill = generator.integers(0, 256, shape, np.uint8)
        photo = photo.copy()
        photo[top : top + down, left : left + across] = fill
        return photo


def _levels(values: np.ndarray) -> np.ndarray:
    """`(256,)` values as a table of levels: cut to 0-255, and to whole numbers towards 0."""
    return np.clip(values, 0, 255).astype(np.uint8)


def _hues(shift: float) -> np.ndarray:
    """`(256,)` table that shifts OpenCV's hues, which go round at 180."""
    return np.mod(_HUES + shift, 180).astype(np.uint8)


def _look_up(photo: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A copy of any shape whose levels are those of the `(256,)` table."""
    result = photo.copy()
    stringzilla.translate(memoryview(result), memoryview(table), inplace=True)
    return result


def _look_up_channels(photo: np.ndarray, tables: list[np.ndarray | None]) -> np.ndarray:
    """The same with a table for each channel; None leaves a channel."""
    channels = cv2.split(photo)
    for channel, table in zip(channels, tables, strict=True):
        if table is not None:
            stringzilla.translate(memoryview(channel), memoryview(table), inplace=True)
    return cv2.merge(channels)


def _in_hsv(photo: np.ndarray, tables: list[np.ndarray | None]) -> np.ndarray:
    hsv = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(_look_up_channels(hsv, tables), cv2.COLOR_HSV2RGB)


def _brighten(photo: np.ndarray, factor: float) -> np.ndarray:
    return _look_up(photo, _levels(_LEVELS * factor))


def _contrast(photo: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    mean = cv2.sumElems(grey)[0] / grey.size
    return _look_up(photo, _levels(_LEVELS * factor + mean * (1 - factor)))


def _saturate(photo: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(photo, factor, grey, 1 - factor, 0)
