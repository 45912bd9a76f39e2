"""Where the cars stand: the light and the landscape behind them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from carcls.data.demo_drawing.canvas import (
    BLACK,
    FRACTION_BITS,
    SUPERSAMPLING,
    WHITE,
    Camera,
    Canvas,
    mix,
)


@dataclass(frozen=True)
class Light:
    zenith: tuple[int, int, int]  # the sky, before the tint
    haze: tuple[int, int, int]  # the sky at the horizon; far things fade into it
    tint: tuple[float, float, float]
    likelihood: float
    lamps: bool = False  # are windows, street lamps and headlights lit?
    sun: tuple[int, int, int] | None = None  # also the moon


LIGHTS = (
    Light((74, 142, 214), (206, 228, 242), (1.0, 1.0, 0.98), 0.4, sun=(255, 252, 232)),
    Light((150, 163, 176), (214, 219, 221), (0.9, 0.93, 0.95), 0.2),
    Light((96, 128, 190), (255, 208, 150), (1.06, 0.95, 0.80), 0.18, sun=(255, 240, 196)),
    Light((88, 84, 156), (255, 170, 132), (0.88, 0.75, 0.78), 0.12, True, (255, 206, 140)),
    Light((22, 32, 78), (92, 110, 158), (0.62, 0.66, 0.84), 0.1, True, (250, 250, 240)),
)


@dataclass(frozen=True)
class Site:
    """What the painters of a landscape need to know."""

    canvas: Canvas
    camera: Camera
    light: Light
    rng: np.random.Generator

    def shrunk(self, factor: int) -> "Site":
        """The same view on an empty, smaller canvas."""
        canvas = Canvas(self.canvas.width // factor, self.canvas.height // factor)
        camera = replace(
            self.camera, focal=self.camera.focal / factor, centre=self.camera.centre / factor
        )
        return replace(self, canvas=canvas, camera=camera)


def ridge(site: Site, colour, height: float, waves: int) -> None:
    """Hills or mountains: a sum of sines above the horizon, fading into the haze below."""
    canvas, rng = site.canvas, site.rng
    x = np.linspace(-10, canvas.width + 10, 90)
    profile = sum(
        np.abs(np.sin(x / canvas.width * waves * k + rng.uniform(0, 6))) / k for k in (1, 2.3, 5.1)
    )
    foot = site.camera.horizon(x)
    top = foot - height * canvas.height * (0.15 + profile / 1.7)
    outline = np.concatenate([np.stack([x, top], 1), np.stack([x, foot + 2], 1)[::-1]])
    canvas.polygon(outline, colour, mix(colour, site.light.haze, 0.55))


def sea(site: Site, colour, height: float, glints: int) -> None:
    canvas, rng = site.canvas, site.rng
    x = np.array([-10, canvas.width + 10])
    top = np.stack([x, site.camera.horizon(x)], 1)
    water = np.concatenate([top, np.add(top[::-1], (0, height * canvas.height))])
    canvas.polygon(water, mix(colour, site.light.haze, 0.4), colour)
    for _ in range(glints):
        at = np.array([rng.uniform(0, canvas.width), 0.0])
        at[1] = site.camera.horizon(at[0]) + rng.uniform(0.1, 0.95) * height * canvas.height
        canvas.disc(at, rng.uniform(3, 15), 0.7, WHITE, alpha=0.4)


def windows(site: Site, left: float, right: float, top: float, foot: float, pitch: float) -> None:
    """A grid of panes on a wall, some of them lit once the lamps are on."""
    columns = np.arange(left + 0.6 * pitch, right - 0.6 * pitch, pitch)
    rows = np.arange(top + 0.8 * pitch, foot - pitch, 1.3 * pitch)
    if not columns.size or not rows.size:
        return
    corners = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 1, 2)
    panes = corners + np.array([[0, 0], [0.5, 0], [0.5, 0.75], [0, 0.75]]) * pitch
    lit = site.rng.random(len(panes)) < (0.5 if site.light.lamps else 0.0)
    for chosen, colour, glow in ((~lit, (92, 108, 126), 0), (lit, (255, 214, 130), 200)):
        fixed = list(np.round(panes[chosen] * 2**FRACTION_BITS).astype(np.int32))
        cv2.fillPoly(site.canvas.pixels, fixed, (*colour, glow), cv2.LINE_AA, FRACTION_BITS)


def skyline(site: Site, colour, height: float, _: int) -> None:
    canvas, rng = site.canvas, site.rng
    right = -rng.uniform(0, 20)
    while right < canvas.width:
        left, right = right, right + rng.uniform(0.07, 0.2) * canvas.height
        foot = float(site.camera.horizon((left + right) / 2)) + 4
        top = foot - height * canvas.height * rng.uniform(0.35, 1.0)
        wall = np.array([[left, top], [right, top], [right, foot], [left, foot]])
        tone = mix(colour, rng.uniform(90, 220, 3), 0.25)
        canvas.polygon(wall, tone, mix(tone, site.light.haze, 0.4))
        windows(site, left, right, top, foot, rng.uniform(5.5, 8.5))


def conifer(site: Site, foot, height: float, colour) -> None:
    for level, width in ((0.0, 0.25), (0.28, 0.2), (0.55, 0.14)):
        triangle = np.array([[-width, -level], [0, -level - 0.45], [width, -level]])
        site.canvas.polygon(triangle * height + foot, mix(colour, WHITE, 0.1 * level))


def broadleaf(site: Site, foot, height: float, colour) -> None:
    trunk = np.array([[-0.04, 0], [0.04, 0], [0.03, -0.6], [-0.03, -0.6]])
    site.canvas.polygon(trunk * height + foot, (92, 70, 52))
    for _ in range(9):
        at = foot - np.array([site.rng.normal(0, 0.16), site.rng.uniform(0.45, 0.9)]) * height
        tone = mix(colour, (230, 235, 150), site.rng.uniform(0, 0.25))
        radius = site.rng.uniform(0.1, 0.2) * height
        site.canvas.disc(at, radius, radius, tone)


def palm(site: Site, foot, height: float, colour) -> None:
    lean = site.rng.uniform(-0.2, 0.2)
    crown = foot + np.array([lean, -0.8]) * height
    site.canvas.line([foot, foot + np.array([0.3 * lean, -0.45]) * height, crown], (120, 92, 66), 3)
    for angle in np.linspace(-2.9, -0.2, 8) + site.rng.normal(0, 0.1, 8):
        reach = np.array([np.cos(angle), 0.7 * np.sin(angle)]) * 0.34 * height
        frond = [crown, crown + reach * 0.6 - (0, 4), crown + reach + (0, 0.1 * height),
                 crown + reach * 0.5 + (0, 2)]  # fmt: skip
        site.canvas.polygon(np.array(frond), mix(colour, WHITE, 0.1), colour)


def cactus(site: Site, foot, height: float, colour) -> None:
    arms = ([(0, 0), (0, -1)], [(0, -0.4), (-0.22, -0.4), (-0.22, -0.75)],
            [(0, -0.5), (0.2, -0.5), (0.2, -0.9)])  # fmt: skip
    for arm in arms:
        site.canvas.line(np.array(arm) * height + foot, colour, 0.11 * height)


def house(site: Site, foot, height: float, colour) -> None:
    (x, y), wall = foot, mix(colour, site.rng.uniform(150, 255, 3), 0.5)
    box = np.array([[-0.6, 0.05], [0.6, 0.05], [0.6, -0.55], [-0.6, -0.55]])
    site.canvas.polygon(box * height + foot, wall, mix(wall, BLACK, 0.15))
    roof = np.array([[-0.72, -0.52], [0.72, -0.52], [0.4, -1.0], [-0.4, -1.0]])
    site.canvas.polygon(roof * height + foot, (148, 84, 68), (116, 62, 54))
    windows(site, x - 0.6 * height, x + 0.6 * height, y - 0.55 * height, y, 0.24 * height)


def lamp_post(site: Site, foot, height: float, colour) -> None:
    top = foot - np.array([0, height])
    site.canvas.line([foot, top, np.add(top, (0.14 * height, 0))], colour, 2)
    glow = 1.0 if site.light.lamps else 0.0
    site.canvas.disc(np.add(top, (0.16 * height, 1)), 5, 2, (255, 236, 190), glow=glow)


def row_of(draw: Callable) -> Callable:
    """A painter that sets `count` things of about `height` along the horizon."""

    def painter(site: Site, colour, height: float, count: int) -> None:
        for x in np.sort(site.rng.uniform(-0.05, 1.05, count)) * site.canvas.width:
            foot = np.array([x, site.camera.horizon(x)])
            foot[1] += site.rng.uniform(0.005, 0.03) * site.canvas.height
            size = height * site.canvas.height * site.rng.uniform(0.65, 1.25)
            draw(site, foot, size, mix(colour, site.light.haze, 0.15))

    return painter


CONIFERS, BROADLEAVES, PALMS, CACTI, HOUSES, LAMP_POSTS = map(
    row_of, (conifer, broadleaf, palm, cactus, house, lamp_post)
)


@dataclass(frozen=True)
class Scene:
    ground: tuple[int, int, int]
    layers: tuple  # (painter, colour, height as a share of the picture, how many), far ones first
    road: tuple[int, int, int] | None = (104, 106, 112)
    marks: str = "lane"  # or "bays" or "none"


SCENES = {
    "city": Scene((150, 150, 148), (
        (skyline, (140, 152, 172), 0.5, 0), (skyline, (128, 120, 120), 0.3, 0),
        (BROADLEAVES, (84, 122, 72), 0.16, 5), (LAMP_POSTS, (70, 72, 78), 0.36, 3))),
    "hills": Scene((126, 158, 84), (
        (ridge, (122, 148, 172), 0.22, 5), (ridge, (112, 152, 92), 0.12, 8),
        (BROADLEAVES, (78, 124, 58), 0.15, 8))),
    "beach": Scene((224, 204, 160), (
        (ridge, (140, 160, 170), 0.05, 4), (sea, (52, 132, 168), 0.09, 26),
        (PALMS, (62, 122, 66), 0.34, 4)), road=(168, 158, 142), marks="none"),
    "forest": Scene((98, 116, 70), (
        (ridge, (96, 122, 116), 0.2, 6), (CONIFERS, (64, 98, 74), 0.34, 26),
        (CONIFERS, (44, 78, 54), 0.42, 18)), road=(122, 112, 98), marks="none"),
    "desert": Scene((214, 168, 116), (
        (ridge, (186, 120, 92), 0.2, 3), (ridge, (206, 146, 102), 0.08, 7),
        (CACTI, (92, 128, 84), 0.12, 6))),
    "snow": Scene((232, 238, 244), (
        (ridge, (176, 192, 214), 0.34, 7), (ridge, (214, 224, 236), 0.1, 5),
        (CONIFERS, (72, 100, 96), 0.2, 12)), road=(186, 192, 200), marks="none"),
    "parking": Scene((120, 122, 126), (
        (skyline, (168, 160, 150), 0.16, 0), (BROADLEAVES, (88, 128, 76), 0.12, 9),
        (LAMP_POSTS, (84, 86, 92), 0.4, 4)), road=None, marks="bays"),
    "village": Scene((134, 152, 96), (
        (ridge, (128, 150, 140), 0.12, 6), (HOUSES, (196, 180, 160), 0.15, 6),
        (BROADLEAVES, (92, 132, 66), 0.17, 6))),
}  # fmt: skip


def draw_landscape(site: Site) -> None:
    """Sky, one scene's layers and the ground, a little out of focus."""
    scene = SCENES[site.rng.choice(list(SCENES))]
    small = site.shrunk(SUPERSAMPLING)
    draw_sky(small)
    draw_ground(small, scene)
    for painter, colour, height, number in scene.layers:
        painter(small, colour, height * site.rng.uniform(0.8, 1.25), number)
    if site.rng.random() < 0.15:  # fog
        everything = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * small.canvas.pixels.shape[1::-1]
        small.canvas.polygon(everything, site.light.haze, alpha=site.rng.uniform(0.25, 0.6))
    blurred = cv2.GaussianBlur(small.canvas.pixels, (0, 0), site.rng.uniform(0.25, 1.6))
    site.canvas.pixels = cv2.resize(blurred, (site.canvas.width, site.canvas.height))


def draw_sky(site: Site) -> None:
    canvas, rng, light = site.canvas, site.rng, site.light
    foot = float(site.camera.horizon(canvas.width / 2)) + 0.05 * canvas.height
    sky = np.array([[0, min(-1.0, foot - 2)], [canvas.width, min(-1.0, foot - 2)],
                    [canvas.width, foot], [0, foot]])  # fmt: skip
    canvas.polygon(sky, light.zenith, light.haze)
    if light.sun and rng.random() < 0.6:
        at = rng.uniform((0.05, 0.04), (0.95, 0.3)) * (canvas.width, canvas.height)
        canvas.disc(at, 0.045 * canvas.height, 0.045 * canvas.height, light.sun, glow=0.8)
    for _ in range(rng.integers(0, 6)):
        at = rng.uniform((0, 0.03), (1, 0.35)) * (canvas.width, canvas.height)
        for _ in range(6):
            puff = at + rng.normal(0, 1, 2) * (0.07 * canvas.width, 0.012 * canvas.height)
            radius = rng.uniform(0.03, 0.07) * canvas.height
            canvas.disc(puff, 2 * radius, 0.6 * radius, mix(WHITE, light.haze, 0.3), alpha=0.35)


def draw_ground(site: Site, scene: Scene) -> None:
    canvas, rng = site.canvas, site.rng
    x = np.array([0, canvas.width])
    top = np.stack([x, site.camera.horizon(x)], 1)
    corners = np.array([[canvas.width, canvas.height + 2], [0, canvas.height + 2]])
    ground = np.concatenate([top, corners])
    canvas.polygon(ground, mix(scene.ground, site.light.haze, 0.35), scene.ground)
    if scene.road:
        strip(site, scene.road, (-4.5, 2.6))
    if scene.marks == "lane":
        for start in np.arange(-40, 40, 6) + rng.uniform(0, 6):
            strip(site, (222, 222, 214), (-1.95, -1.8), (start, start + 3))
        strip(site, mix(scene.road, WHITE, 0.35), (2.6, 2.75))
    if scene.marks == "bays":
        for start in (-9.3, -6.2, -3.1, 3.1, 6.2, 9.3):
            strip(site, (224, 224, 218), (-3.0, 2.2), (start - 0.06, start + 0.06))
        strip(site, (224, 224, 218), (-3.0, -2.88), (-9.3, 9.3))
    coarse = rng.normal(0, 5, (canvas.height // 3, canvas.width // 6)).astype(np.float32)
    grain = cv2.resize(coarse, (canvas.width, canvas.height), interpolation=cv2.INTER_CUBIC)
    floor = canvas.pixels[max(0, int(top[:, 1].max())) :]
    if floor.size:
        grain = grain[-len(floor) :]
        cv2.add(floor, cv2.merge([grain, grain, grain, 0 * grain]), floor, dtype=cv2.CV_8U)


def strip(site: Site, colour, z: tuple[float, float], x: tuple[float, float] = (-60, 60)) -> None:
    """A rectangle painted on the ground, clipped where it passes the camera."""
    along = np.linspace(*x, 60)
    edge_x, edge_z = np.concatenate([along, along[::-1]]), np.repeat(z, 60)
    edges = np.column_stack([edge_x, np.zeros(120), edge_z])
    ahead = edges[site.camera.depth(edges) > 1.0]
    if len(ahead) > 2:
        site.canvas.polygon(site.camera.project(ahead), colour)
