"""Draws one photo of one kind of car.

Pictures have four channels: red, green, blue and glow, the share of a surface's colour that is its
own light and so survives the night. The landscape is drawn in the photo's size, as it ends up out
of focus; the car on top of it is drawn twice as large.
"""

import cv2
import numpy as np

from carcls.data.demo_drawing.bodies import BODIES, varied
from carcls.data.demo_drawing.canvas import BLACK, SUPERSAMPLING, WHITE, Camera, Canvas, mix
from carcls.data.demo_drawing.car import CarPainter
from carcls.data.demo_drawing.landscape import LIGHTS, Site, draw_landscape

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


def draw_foreground(site: Site) -> None:
    """Now and then a post or a bush stands in the way, or it rains or snows."""
    canvas, rng = site.canvas, site.rng
    x, way = rng.uniform(0.1, 0.9) * canvas.width, rng.random()
    if way < 0.07:
        half = rng.uniform(0.008, 0.02) * canvas.width
        foot = canvas.height + 5
        post = np.array([[x - half, -5], [x + half, -5], [x + half, foot], [x - half, foot]])
        canvas.polygon(post, mix((96, 84, 70), (150, 156, 160), rng.random()))
        canvas.polygon(post - (half * 0.6, 0), WHITE, alpha=0.15)
    elif way < 0.2:
        tone = mix((70, 112, 56), (170, 160, 80), rng.random())
        for _ in range(40):
            at = (x + rng.normal(0, 0.07) * canvas.width, canvas.height * rng.normal(1.0, 0.07))
            size = rng.uniform(0.01, 0.035) * canvas.width
            leaf = mix(tone, BLACK if rng.random() < 0.5 else WHITE, rng.uniform(0, 0.3))
            canvas.disc(at, size, 0.7 * size, leaf)
    weather = rng.random()
    if weather < 0.08:
        fall = np.array([rng.uniform(-6, 6), rng.uniform(22, 40)])
        for at in rng.uniform((0, 0), (canvas.width, canvas.height), (160, 2)):
            canvas.line([at, at + fall], (188, 196, 206), 1)
    elif weather < 0.14:
        for at in rng.uniform((0, 0), (canvas.width, canvas.height), (140, 2)):
            size = rng.uniform(1, 4)
            canvas.disc(at, size, size, (244, 246, 250))


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
    photo *= np.float32(vignette * rng.uniform(0.9, 1.2) * contrast)
    photo += middle * (1 - contrast)
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.2, 0.8))
    noise = rng.standard_normal((*photo.shape[:2], 1), dtype=np.float32)
    photo += noise * np.float32(rng.uniform(1, 5))
    return np.clip(photo, 0, 255, out=photo).astype(np.uint8)
