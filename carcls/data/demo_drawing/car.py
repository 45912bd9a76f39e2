"""The one painter that draws every kind of car.

It gives the side view of a body a width, lets it lean in above the belt line and taper towards its
ends, and draws what the camera sees: strips across the car from tail to nose, then the flank that
faces the camera. Whether the photo is mirrored in the end is no concern of it.
"""

import cv2
import numpy as np

from carcls.data.demo_drawing.bodies import Body, Points, rounded
from carcls.data.demo_drawing.canvas import BLACK, CIRCLE, WHITE, mix
from carcls.data.demo_drawing.landscape import Site

# Every kind comes in every colour: white, silver, grey, black, reds, blues, greens, warm tones.
PAINTS = ((240, 240, 238), (192, 196, 200), (120, 124, 130), (44, 46, 52), (196, 36, 38),
          (128, 26, 40), (34, 84, 170), (30, 48, 92), (112, 176, 214), (34, 104, 74),
          (150, 196, 160), (236, 190, 50), (232, 116, 40), (206, 186, 150), (110, 74, 52),
          (120, 60, 130))  # fmt: skip
SUN = np.array([0.35, 0.93])  # direction to the light in the side view


class CarPainter:
    """Draws one car, standing at the origin, into a site."""

    def __init__(self, site: Site, body: Body) -> None:
        self.site, self.canvas, self.camera, self.rng = site, site.canvas, site.camera, site.rng
        self.body = body
        self.outline = rounded(body.outline)
        self.half_length = np.abs(self.outline[:, 0]).max()
        self.sill = self.outline[[0, -1], 1].mean()
        self.lean = self.rng.uniform(0.12, 0.3)
        paint = np.array(PAINTS[self.rng.integers(len(PAINTS))])
        self.paint = np.clip(paint + self.rng.normal(0, 8, 3), 12, 250)
        self.trim = np.array(self.rng.choice([28.0, 48.0, 190.0])) * np.ones(3)  # or chrome
        self.pixels_per_metre = self.camera.focal / self.camera.depth(np.zeros((1, 3)))[0]

    def draw(self) -> None:
        self.draw_shadow()
        self.draw_underside()
        self.draw_hull()
        self.draw_seats()
        self.draw_end(front=True)
        self.draw_end(front=False)
        if self.body.spare_wheel:
            self.draw_spare_wheel()
        self.draw_flank()
        self.draw_glass()
        self.draw_wheels()
        self.draw_trim()

    # --- Geometry

    def half_width(self, xy) -> np.ndarray:
        x, y = np.asarray(xy)[:, 0], np.asarray(xy)[:, 1]
        half = self.body.width / 2 - self.lean * np.maximum(0.0, y - self.body.belt)
        return half * (1 - 0.13 * np.minimum(1.0, np.abs(x) / self.half_length) ** 5)

    def on_flank(self, xy, side: float = 1.0) -> np.ndarray:
        """Side-view metres to pixels, on the flank (1), on the far side (-1) or between."""
        xy = np.asarray(xy, float)
        return self.camera.project(np.column_stack([xy, side * self.half_width(xy)]))

    def faces_camera(self, start, end) -> bool:
        """Is the outside of a strip, drawn in the outline's direction, turned to the camera?"""
        normal = np.array([start[1] - end[1], end[0] - start[0]])
        return float(normal @ (self.camera.eye[:2] - start)) > 0

    def panel(self, start, end, sides=(-1.0, 1.0), colour=None, bottom=None, **style) -> None:
        """A strip across the car from `start` to `end`, if the camera sees it."""
        start, end = np.asarray(start)[:2], np.asarray(end)[:2]
        if self.faces_camera(start, end):
            edges = [self.on_flank([start, end], side) for side in sides]
            corners = np.concatenate([edges[0], edges[1][::-1]])
            self.canvas.polygon(corners, colour, bottom, **style)

    def end_x(self, y, front: bool) -> np.ndarray:
        """Where nose or tail is at height `y`."""
        points = self.outline[::-1] if front else self.outline
        rising = np.append(np.diff(points[:, 1]) > 0, False)
        last = max(2, int(np.argmin(rising)))
        return np.interp(y, points[:last, 1], points[:last, 0])

    def wheel_points(self, x: float, radius: float, side: float) -> np.ndarray:
        circle = CIRCLE * radius + (x, self.body.wheel_radius)
        z = np.full(len(circle), side * (self.body.width / 2 - 0.02))
        return self.camera.project(np.column_stack([circle, z]))

    # --- Parts, from the ground up and from the back to the front

    def draw_shadow(self) -> None:
        """A soft shadow, longer on the side away from the light and darkest under the car."""
        shade = np.zeros(self.canvas.pixels.shape[:2], np.uint8)
        reach, half = self.rng.uniform(0.1, 0.8), self.body.width / 2
        for grown, dark in ((reach, 110), (0.0, 190)):
            x0, x1 = -self.half_length - 0.3 * grown, self.half_length + grown
            corners = [(x0, 0, -half - grown), (x1, 0, -half - grown),
                       (x1, 0, half + 0.4 * grown), (x0, 0, half + 0.4 * grown)]  # fmt: skip
            cv2.fillPoly(shade, [self.camera.project(corners).astype(np.int32)], dark)
        blur = 0.09 * self.pixels_per_metre
        small = cv2.resize(shade, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), blur / 2), shade.shape[::-1])
        light = cv2.merge([255 - soft] * 4)
        self.canvas.pixels = cv2.multiply(self.canvas.pixels, light, scale=1 / 255)

    def draw_underside(self) -> None:
        radius = self.body.wheel_radius
        for x in self.body.wheels:
            self.canvas.polygon(self.wheel_points(x, radius, -0.97), (20, 20, 22))
        x0, x1 = self.outline[0, 0] + 0.45, self.outline[-1, 0] - 0.45
        low, high = 0.6 * self.sill, self.sill + 0.15
        hull = [(x, y, z) for x in (x0, x1) for y in (low, high) for z in (-0.7, 0.7)]
        pixels = self.camera.project(hull).astype(np.float32)
        self.canvas.polygon(cv2.convexHull(pixels)[:, 0], (16, 16, 18))
        for x in self.body.wheels:  # the near tyres' width
            self.canvas.polygon(self.wheel_points(x, radius, 0.78), (22, 22, 24))

    def draw_hull(self) -> None:
        """Roof, bonnet, nose and tail as strips across the car, the far ones first."""
        points, light = self.outline, self.site.light
        middles = (points[1:] + points[:-1]) / 2
        depth = self.camera.depth(np.column_stack([middles, np.zeros(len(middles))]))
        for i in np.argsort(-depth):
            along = points[i + 1] - points[i]
            normal = np.array([-along[1], along[0]]) / max(1e-6, np.linalg.norm(along))
            colour = self.paint * (0.6 + 0.42 * max(0.0, normal @ SUN))
            colour = mix(colour, light.haze, 0.3 * max(0.0, normal[1]) ** 2)
            if normal[1] > 0.5 and self.is_open(middles[i][0]):
                colour = np.array([38.0, 36.0, 36.0])
            self.panel(points[i], points[i + 1], colour=np.clip(colour, 0, 255))
        for edge in (self.body.rear_window, self.body.windshield):
            if edge:
                self.draw_pane(edge)

    def is_open(self, x: float) -> bool:
        return self.body.open_top is not None and self.body.open_top[0] < x < self.body.open_top[1]

    def draw_pane(self, edge: Points) -> None:
        """Windshield or rear window: framed, the sky mirrored in it."""
        free_standing = bool(self.body.seats)
        sky = mix(self.site.light.haze, (40, 52, 62), 0.45)
        alpha = 0.55 if free_standing else 1.0
        self.panel(*edge, sides=(-0.86, 0.86), colour=sky, bottom=(44, 54, 62), alpha=alpha)
        self.panel(*edge, sides=(-0.3, 0.1), colour=WHITE, alpha=0.14)

    def draw_spare_wheel(self) -> None:
        """A wheel in its cover on the tail; the flank, drawn later, may hide some of it."""
        radius, height = 0.85 * self.body.wheel_radius, self.body.belt - 0.18
        x = self.end_x(height, front=False)
        near, far = (
            np.column_stack([np.full(len(CIRCLE), at), CIRCLE * radius + (height, 0.0)])
            for at in (x, x - 0.24)
        )
        drum = self.camera.project(np.concatenate([near, far])).astype(np.float32)
        self.canvas.polygon(cv2.convexHull(drum)[:, 0], (30, 30, 33))
        if self.camera.eye[0] < x - 0.24:
            cover = np.column_stack([far[:, 0], CIRCLE * 0.8 * radius + (height, 0.0)])
            self.canvas.polygon(self.camera.project(cover), self.paint, self.paint * 0.6)

    def draw_end(self, front: bool) -> None:
        """Lamps, plate, grille and bumper on the nose or on the tail."""
        low, high = self.body.lamps
        night = self.site.light.lamps

        def decal(y0, y1, sides, colour, glow=0.0):
            x0, x1 = self.end_x([y0, y1], front) + (0.012 if front else -0.012)
            edge = ((x1, y1), (x0, y0)) if front else ((x0, y0), (x1, y1))
            self.panel(*edge, sides=sides, colour=colour, glow=glow)

        bumper = self.sill + 0.18
        decal(self.sill, bumper, (-0.98, 0.98), mix(self.paint, self.trim, 0.6))
        if front:
            decal(low - 0.06, high - 0.01, (-0.45, 0.45), (30, 31, 34))
            for y in np.linspace(low - 0.02, high - 0.05, 3):
                decal(y, y + 0.02, (-0.43, 0.43), (150, 152, 156))
        plate = bumper - 0.02 if front else bumper + 0.1
        decal(plate - 0.1, plate, (-0.22, 0.22), (236, 236, 228))
        lamp = (255, 246, 214) if front else (196, 24, 26)
        for sides in ((-0.94, -0.6), (0.6, 0.94)):
            decal(low, high, sides, lamp, glow=1.0 if night else 0.0)

    def draw_seats(self) -> None:
        """Seats, and often a driver, rise from an open cockpit."""
        tone = mix((150, 90, 60), (40, 40, 44), self.rng.random())
        driver = self.rng.random() < 0.6
        for side in (-0.42, 0.42):
            for x in self.body.seats:
                seat = np.array([[-0.12, -0.3], [0.22, -0.3], [0.04, 0.2], [-0.16, 0.2]])
                self.canvas.polygon(self.on_flank(np.add(seat, (x, self.body.belt)), side), tone)
            if driver and self.body.seats and side > 0:
                self.draw_person(self.body.seats[-1] + 0.12, self.body.belt + 0.12, side)

    def draw_person(self, x: float, y: float, side: float, within=None) -> None:
        shirt, skin = self.rng.uniform(60, 170, 3), (198, 152, 122)
        for centre, radius, colour in (((x, y - 0.12), (0.16, 0.2), shirt),
                                       ((x, y + 0.17), (0.1, 0.12), skin)):  # fmt: skip
            person = self.on_flank(CIRCLE * radius + centre, side)
            self.canvas.polygon(person, mix(colour, BLACK, 0.35 if within is not None else 0),
                                within=within)  # fmt: skip

    def draw_flank(self) -> None:
        """The side: a gradient, the darker lower half, the edge of light along the belt."""
        flank = self.on_flank(self.outline)
        self.flank_mask = self.canvas.mask(flank)
        light = mix(self.paint, self.site.light.haze, 0.16)
        self.canvas.polygon(flank, light, self.paint * 0.74)
        x0, x1 = -self.half_length, self.half_length
        belt, sill, within = self.body.belt, self.sill, self.flank_mask
        middle = sill + 0.5 * (belt - sill)
        lower = [(x0, sill - 0.1), (x1, sill - 0.1), (x1, middle), (x0, middle)]
        self.canvas.polygon(self.on_flank(lower), BLACK, alpha=0.2, within=within)
        skirt = [(x0, sill - 0.1), (x1, sill - 0.1), (x1, sill + 0.1), (x0, sill + 0.1)]
        self.canvas.polygon(self.on_flank(skirt), self.trim, alpha=0.6, within=within)
        for height, colour, alpha in ((belt - 0.09, WHITE, 0.32), (belt - 0.13, BLACK, 0.16)):
            edge = np.add([(x0, -0.05), (x1, -0.08), (x1, -0.05), (x0, -0.02)], (0, height))
            self.canvas.polygon(self.on_flank(edge), colour, alpha=alpha, within=within)
        seam, top = mix(self.paint, BLACK, 0.6), belt + 0.02
        for x in self.body.doors:
            bow = [(x, sill + 0.1), (x + 0.03, middle), (x, top)]
            self.canvas.line(self.on_flank(bow), seam, 0.018 * self.pixels_per_metre)
        for x in self.body.doors[:-1]:
            handle = [(x + 0.1, top - 0.2), (x + 0.26, top - 0.2), (x + 0.26, top - 0.16),
                      (x + 0.1, top - 0.16)]  # fmt: skip
            self.canvas.polygon(self.on_flank(handle), self.trim)

    def draw_glass(self) -> None:
        """Side windows: sky above, dark below, somebody behind them, two bands of light across."""
        sky = mix(self.site.light.haze, (36, 44, 52), 0.55)
        slant, people = self.rng.uniform(0.1, 0.4), self.rng.random() < 0.5
        for number, pane in enumerate(self.body.glass):
            corners = rounded([(*p, 0.05) for p in (*pane, *pane[:2])])[1:-1]
            pixels = self.on_flank(corners)
            mask = self.canvas.mask(pixels)
            self.canvas.polygon(pixels, sky, (34, 40, 46))
            (x0, y0), (x1, y1) = np.min(pane, 0), np.max(pane, 0)
            if people and number == len(self.body.glass) - 1:
                self.draw_person(x0 + 0.3 * (x1 - x0), y0 + 0.16, 0.8, mask)
            for share, width in ((0.25, 0.14), (0.52, 0.05)):
                x = x0 + share * (x1 - x0)
                band = [(x, y0), (x + width, y0), (x + width + slant, y1), (x + slant, y1)]
                self.canvas.polygon(self.on_flank(band), WHITE, alpha=0.22, within=mask)
            self.canvas.line(pixels, self.trim * 0.8, 0.025 * self.pixels_per_metre, closed=True)

    def draw_wheels(self) -> None:
        radius, spokes = self.body.wheel_radius, int(self.rng.choice([0, 5, 6, 8, 10]))
        rim = mix((206, 208, 212), (70, 72, 76), self.rng.random() ** 2)
        turn = self.rng.uniform(0, 2 * np.pi)
        for x in self.body.wheels:
            if self.body.fender:
                fender = self.wheel_points(x, radius * self.body.fender, 1.0)
                above = self.canvas.mask(self.on_flank([(-9, self.sill), (9, self.sill),
                                                        (9, 3), (-9, 3)]))  # fmt: skip
                self.canvas.polygon(fender, mix(self.paint, WHITE, 0.25), self.paint * 0.55,
                                    within=above)  # fmt: skip
                self.canvas.polygon(self.wheel_points(x, radius * 1.14, 1.0), (14, 14, 16))
            arch = self.wheel_points(x, radius * 1.16, 1.0)
            self.canvas.polygon(arch, (14, 14, 16), within=self.flank_mask)
            self.canvas.polygon(self.wheel_points(x, radius, 1.0), (30, 30, 33))
            self.canvas.polygon(self.wheel_points(x, radius * 0.7, 1.0), rim, rim * 0.7)
            if spokes:
                self.draw_spokes(x, spokes, turn, rim)
            self.canvas.polygon(self.wheel_points(x, radius * 0.16, 1.0), rim * 0.6)

    def draw_spokes(self, x: float, spokes: int, turn: float, rim: np.ndarray) -> None:
        """Cuts the gaps between the spokes out of the rim."""
        for k in range(spokes):
            angles = turn + 2 * np.pi * (k + np.array([0.2, 0.8, 0.66, 0.34])) / spokes
            reach = self.body.wheel_radius * np.array([0.62, 0.62, 0.22, 0.22])
            gap = np.stack([np.cos(angles) * reach + x, np.sin(angles) * reach], 1)
            gap[:, 1] += self.body.wheel_radius
            z = np.full((4, 1), self.body.width / 2 - 0.02)
            self.canvas.polygon(self.camera.project(np.hstack([gap, z])), rim * 0.22)

    def draw_trim(self) -> None:
        """What stands out from the flank: lamps around the corner, mirror, rails, screen pillar."""
        low, high = self.body.lamps
        night = 1.0 if self.site.light.lamps else 0.0
        for front, inward, colour in ((True, -1, (255, 246, 214)), (False, 1, (196, 24, 26))):
            (x0, x1), width = self.end_x([low, high], front) + 0.03 * inward, 0.26 * inward
            lamp = [(x0, low), (x1, high), (x1 + width, high), (x0 + 0.6 * width, low)]
            if self.body.fender:  # round eyes
                lamp = CIRCLE * (high - low) / 2 + ((x0 + x1) / 2 + 0.14 * inward, (low + high) / 2)
            self.canvas.polygon(self.on_flank(lamp), colour, glow=night, within=self.flank_mask)
        if self.body.rails:
            rail = np.add(self.body.rails, (0, 0.05))
            self.canvas.line(self.on_flank(rail), (50, 52, 56), 0.05 * self.pixels_per_metre)
        thick = 0.05 * self.pixels_per_metre
        if self.body.seats:
            for side in (-0.86, 0.86):
                self.canvas.line(self.on_flank(self.body.windshield, side), self.trim, thick)
            top = [self.on_flank(self.body.windshield[:1], side)[0] for side in (-0.86, 0.86)]
            self.canvas.line(top, self.trim, thick)
        at = np.add(self.body.windshield[1], (-0.3, 0.08))
        mirror = self.on_flank(CIRCLE * (0.1, 0.07) + at, 1.12)
        self.canvas.polygon(mirror, mix(self.paint, WHITE, 0.12), self.paint * 0.5)
