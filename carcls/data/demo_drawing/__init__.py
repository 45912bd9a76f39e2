"""Draws one photo of one kind of car.

Pictures have four channels: red, green, blue and glow, the share of a surface's colour that is its
own light and so survives the night. The landscape is drawn in the photo's size, as it ends up out
of focus; the car on top of it is drawn twice as large.
"""

import cv2
import numpy as np

from carcls.data.demo_drawing.bodies import BODIES, varied
from carcls.data.demo_drawing.canvas import SUPERSAMPLING, Camera, Canvas
from carcls.data.demo_drawing.car import CarPainter
from carcls.data.demo_drawing.landscape import LIGHTS, Site, draw_foreground, draw_landscape

CLASS_NAMES: tuple[str, ...] = tuple(sorted(BODIES))


def draw_photo(category: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One photo of one kind of car. `(height, width, 3)` uint8 RGB."""
    canvas = Canvas(size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    body = varied(BODIES[category], rng)
    camera = Camera.framing(body.size, canvas, rng)
    light = LIGHTS[rng.choice(len(LIGHTS), p=[light.likelihood for light in LIGHTS])]
    site = Site(canvas, camera, light, rng)
    draw_landscape(site)
    CarPainter(site, body).draw()
    draw_foreground(site)
    return develop(site)


def develop(site: Site) -> np.ndarray:
    """The canvas as a camera would have taken it: light, bloom, exposure, blur and noise.

    Returns:
        `(height, width, 3)` uint8 RGB, `SUPERSAMPLING` times smaller than the canvas.
    """
    canvas, rng = site.canvas, site.rng
    size = canvas.width // SUPERSAMPLING, canvas.height // SUPERSAMPLING
    raw = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        raw = raw[:, ::-1]
    photo, glow = raw[..., :3].astype(np.float32), raw[..., 3:] / np.float32(255)
    tint = np.float32(site.light.tint * rng.normal(1.0, 0.03, 3))
    bloom = 0.8 * cv2.GaussianBlur(photo * glow, (0, 0), 5.0) if site.light.lamps else 0.0
    photo *= tint + (1 - tint) * glow
    photo += bloom
    x, y = np.linspace(-1, 1, size[0])[None, :, None], np.linspace(-1, 1, size[1])[:, None, None]
    vignette = 1 - rng.uniform(0, 0.22) * (x**2 + y**2)
    middle, contrast = 110.0, rng.uniform(0.85, 1.15)
    photo *= np.float32(vignette * rng.uniform(0.88, 1.25) * contrast)
    photo += middle * (1 - contrast)
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.2, 0.8))
    noise = rng.standard_normal((*photo.shape[:2], 1), dtype=np.float32)
    photo += noise * np.float32(rng.uniform(1, 6))
    return np.clip(photo, 0, 255, out=photo).astype(np.uint8)
