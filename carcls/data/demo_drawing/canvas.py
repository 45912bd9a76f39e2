"""What the demo is drawn with: a canvas that takes polygons and a pinhole camera."""

from dataclasses import dataclass

import cv2
import numpy as np

SUPERSAMPLING = 2  # the canvas is so many times larger than the photo
FRACTION_BITS = 4  # OpenCV takes polygons in sixteenths of a pixel
ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
CIRCLE = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
WHITE, BLACK = np.full(3, 255.0), np.zeros(3)


def mix(colour, other, share) -> np.ndarray:
    """`colour` with a share of `other` in it."""
    return np.asarray(colour) * (1.0 - share) + np.asarray(other) * share


class Canvas:
    """A picture that takes polygons."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = np.zeros((self.height, self.width, 4), np.uint8)

    def polygon(self, points, colour, bottom=None, *, alpha=1.0, glow=0.0, within=None) -> None:
        """Fills a polygon, plain or from `colour` at its top to `bottom` at its foot.

        Args:
            points: `(n, 2)` in pixels.
            colour: RGB, 0 to 255.
            bottom: RGB at the polygon's foot, if it is to be a gradient.
            alpha: Opacity.
            glow: The share of the colour that is the polygon's own light.
            within: A mask as `mask` returns it: nothing is painted outside.
        """
        fixed = self._fixed(points)
        if bottom is None and alpha == 1.0 and within is None:
            cv2.fillPoly(self.pixels, [fixed], (*colour, 255 * glow), cv2.LINE_AA, FRACTION_BITS)
            return
        x, y, across, down = (v >> FRACTION_BITS for v in cv2.boundingRect(fixed))
        left, right = max(0, x), min(self.width, x + across + 3)
        top, foot = max(0, y), min(self.height, y + down + 3)
        if left >= right or top >= foot:
            return
        share = np.zeros((foot - top, right - left), np.uint8)
        cv2.fillPoly(share, [fixed - (left << FRACTION_BITS, top << FRACTION_BITS)],
                     255, cv2.LINE_AA, FRACTION_BITS)  # fmt: skip
        if within is not None:
            share = cv2.multiply(share, within[top:foot, left:right], scale=1 / 255)
        share = share * np.float32(alpha / 255)
        ramp = np.linspace(0, 1, foot - top, dtype=np.float32)[:, None]
        column = np.full((foot - top, 1, 4), 255 * glow, np.uint8)
        column[:, 0, :3] = mix(colour, colour if bottom is None else bottom, ramp)
        source = np.repeat(column, right - left, axis=1)
        box = self.pixels[top:foot, left:right]
        box[:] = cv2.blendLinear(source, box, share, 1 - share)

    def disc(self, centre, radius_x, radius_y, colour, bottom=None, **style) -> None:
        self.polygon(CIRCLE * (radius_x, radius_y) + centre, colour, bottom, **style)

    def line(self, points, colour, thickness: float, closed: bool = False) -> None:
        cv2.polylines(
            self.pixels, [self._fixed(points)], closed, (*colour, 0), max(1, round(thickness)),
            cv2.LINE_AA, FRACTION_BITS,
        )  # fmt: skip

    def mask(self, points) -> np.ndarray:
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_AA, FRACTION_BITS)
        return mask

    @staticmethod
    def _fixed(points) -> np.ndarray:
        return np.round(np.asarray(points) * 2**FRACTION_BITS).astype(np.int32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; x runs along the car, y up, z from the car towards the camera (metres)."""

    eye: np.ndarray
    axes: np.ndarray  # rows: right, down, forward
    focal: float  # pixels
    centre: np.ndarray  # where the optical axis meets the canvas, pixels

    @classmethod
    def framing(cls, size, canvas: Canvas, rng: np.random.Generator) -> "Camera":
        """Looks at a box of (length, height, width) metres so that it fills a drawn share."""
        length, height, width = size
        yaw = np.deg2rad(rng.triangular(-46, 0, 46))
        distance = rng.uniform(1.5, 2.6) * max(length, 4.0)
        eye = np.array(
            [distance * np.sin(yaw), rng.uniform(0.9, 2.4), width / 2 + distance * np.cos(yaw)]
        )
        forward = np.array([0.0, height / 2, 0.0]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        down, roll = np.cross(forward, right), np.deg2rad(rng.normal(0.0, 1.2))
        axes = np.stack(
            [
                right * np.cos(roll) + down * np.sin(roll),
                down * np.cos(roll) - right * np.sin(roll),
                forward,
            ]
        )
        corners = np.array(
            [
                [x, y, z]
                for x in (-length / 2, length / 2)
                for y in (0.0, height)
                for z in (-width / 2, width / 2)
            ]
        )
        plain = cls(eye, axes, 1.0, np.zeros(2)).project(corners)
        low, high = plain.min(0), plain.max(0)
        share = rng.uniform(0.74, 0.95) * canvas.width, rng.uniform(0.6, 0.8) * canvas.height
        focal = float(min(share / (high - low)))
        room = (np.array([canvas.width, canvas.height]) - (high - low) * focal) / 2
        drift = rng.uniform((-0.9, 0.0), (0.9, 0.55)) * room  # there is more sky than road
        middle = np.array([canvas.width, canvas.height]) / 2 + drift
        return cls(eye, axes, focal, middle - (low + high) / 2 * focal)

    def project(self, points) -> np.ndarray:
        """(n, 3) metres to (n, 2) pixels."""
        local = (np.asarray(points) - self.eye) @ self.axes.T
        return local[:, :2] / np.maximum(local[:, 2:], 0.05) * self.focal + self.centre

    def depth(self, points) -> np.ndarray:
        return (np.asarray(points) - self.eye) @ self.axes[2]

    def horizon(self, x) -> np.ndarray:
        """The horizon's height, in pixels, at pixel column `x`."""
        ahead = self.axes[2] * (1, 0, 1)
        aside = np.array([-ahead[2], 0.0, ahead[0]])
        (x0, y0), (x1, y1) = self.project(self.eye + 1e5 * np.stack([ahead, ahead + aside]))
        return y0 + (np.asarray(x) - x0) * (y1 - y0) / (x1 - x0)
