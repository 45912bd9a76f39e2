"""Ten kinds of car as data.

A body is its side view in metres, x from the rear (0) to the front and y up from the ground.
"""

from dataclasses import dataclass, replace

import numpy as np

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Body:
    outline: tuple[tuple[float, float, float], ...]  # x, y, corner radius; rear over roof to front
    belt: float  # the height above which the body leans in
    wheels: tuple[float, float]  # x of the axles
    wheel_radius: float = 0.33
    width: float = 1.8
    glass: tuple[Points, ...] = ()  # side windows
    doors: tuple[float, ...] = ()  # x of the shut lines
    windshield: Points = ()  # upper, lower edge
    rear_window: Points = ()  # lower, upper edge
    lamps: tuple[float, float] = (0.62, 0.76)  # from height, to height
    open_top: tuple[float, float] | None = None  # from x, to x: a cockpit or a load bed
    seats: tuple[float, ...] = ()  # x of seats that show above an open top
    fender: float = 0.0  # radius of a separate fender, in wheel radii
    rails: Points = ()  # roof rails
    spare_wheel: bool = False  # on the tail

    @property
    def size(self) -> tuple[float, float, float]:
        """Length, height and width in metres."""
        xs, ys, _ = zip(*self.outline, strict=True)
        return max(xs) - min(xs), max(ys), self.width


BODIES: dict[str, Body] = {
    "beetle": Body(
        outline=((0.3, 0.34, 0.1), (0.1, 0.5, 0.1), (0.24, 0.98, 0.35), (0.72, 1.46, 0.45),
                 (1.5, 1.68, 0.6), (2.2, 1.56, 0.3), (2.52, 1.06, 0.1), (3.2, 1.02, 0.5),
                 (3.66, 0.62, 0.3), (3.6, 0.34, 0.1)),
        belt=1.0, wheels=(0.86, 2.98), wheel_radius=0.34, width=1.6, doors=(1.34, 2.4),
        glass=(((0.7, 1.06), (0.92, 1.38), (1.26, 1.5), (1.32, 1.06)),
               ((1.42, 1.06), (1.4, 1.52), (2.06, 1.46), (2.3, 1.06))),
        windshield=((2.21, 1.53), (2.5, 1.1)), rear_window=((0.46, 1.2), (0.78, 1.5)),
        fender=1.7, lamps=(0.62, 0.86),
    ),
    "convertible": Body(
        outline=((0.06, 0.32, 0.1), (0.0, 0.6, 0.1), (0.1, 0.84, 0.14), (1.1, 0.9, 0.1),
                 (2.6, 0.88, 0.1), (3.8, 0.74, 0.25), (4.15, 0.53, 0.14), (4.1, 0.3, 0.1)),
        belt=0.88, wheels=(0.84, 3.34), wheel_radius=0.34, doors=(1.4, 2.5),
        open_top=(1.02, 2.52), seats=(1.2, 1.82), windshield=((2.18, 1.36), (2.62, 0.88)),
        lamps=(0.53, 0.66),
    ),
    "hatchback": Body(
        outline=((0.08, 0.33, 0.1), (0.0, 0.62, 0.12), (0.03, 0.98, 0.1), (0.28, 1.48, 0.16),
                 (0.75, 1.57, 0.3), (1.8, 1.55, 0.3), (2.72, 1.04, 0.15), (3.3, 0.9, 0.2),
                 (3.56, 0.62, 0.14), (3.53, 0.3, 0.1)),
        belt=1.02, wheels=(0.6, 2.9), width=1.7, doors=(1.3, 2.5),
        glass=(((0.36, 1.06), (0.52, 1.42), (1.2, 1.47), (1.22, 1.05)),
               ((1.32, 1.05), (1.3, 1.47), (1.78, 1.45), (2.48, 1.04))),
        windshield=((1.82, 1.53), (2.68, 1.07)), rear_window=((0.05, 1.03), (0.28, 1.46)),
    ),
    "limousine": Body(
        outline=((0.05, 0.35, 0.1), (0.0, 0.62, 0.1), (0.05, 0.98, 0.1), (0.8, 1.04, 0.1),
                 (1.4, 1.43, 0.22), (5.35, 1.46, 0.3), (6.2, 1.0, 0.2), (7.25, 0.86, 0.25),
                 (7.5, 0.62, 0.12), (7.46, 0.32, 0.1)),
        belt=1.0, wheels=(1.0, 6.55), doors=(1.4, 2.35, 4.3, 5.25, 6.1),
        glass=(((1.05, 1.06), (1.5, 1.36), (2.1, 1.38), (2.1, 1.05)),
               ((2.2, 1.05), (2.2, 1.38), (3.22, 1.39), (3.22, 1.05)),
               ((3.3, 1.05), (3.3, 1.39), (4.28, 1.39), (4.28, 1.04)),
               ((4.36, 1.04), (4.36, 1.39), (5.3, 1.38), (5.95, 1.0))),
        windshield=((5.4, 1.43), (6.15, 1.03)), rear_window=((0.84, 1.06), (1.36, 1.4)),
    ),
    "minibus": Body(
        outline=((0.05, 0.36, 0.06), (0.0, 0.5, 0.05), (0.0, 2.4, 0.2), (0.2, 2.6, 0.2),
                 (5.05, 2.58, 0.35), (5.6, 1.35, 0.12), (5.86, 1.0, 0.12), (5.86, 0.34, 0.1)),
        belt=1.4, wheels=(1.25, 4.7), wheel_radius=0.38, width=2.1, doors=(3.98, 4.9),
        glass=(((0.22, 1.4), (0.24, 2.14), (1.06, 2.14), (1.06, 1.4)),
               ((1.16, 1.4), (1.16, 2.14), (2.0, 2.14), (2.0, 1.4)),
               ((2.1, 1.4), (2.1, 2.14), (2.94, 2.14), (2.94, 1.4)),
               ((3.04, 1.4), (3.04, 2.14), (3.92, 2.14), (3.92, 1.4)),
               ((4.04, 1.4), (4.04, 2.14), (4.98, 2.14), (5.34, 1.3))),
        windshield=((5.12, 2.42), (5.56, 1.45)), rear_window=((0.0, 1.4), (0.0, 2.2)),
        lamps=(0.7, 0.9),
    ),
    "pickup": Body(
        outline=((0.05, 0.5, 0.06), (0.0, 0.6, 0.05), (0.0, 1.12, 0.04), (2.2, 1.12, 0.03),
                 (2.26, 1.72, 0.12), (2.5, 1.8, 0.12), (3.25, 1.78, 0.2), (3.85, 1.2, 0.1),
                 (5.0, 1.1, 0.15), (5.28, 0.92, 0.1), (5.28, 0.46, 0.1)),
        belt=1.14, wheels=(1.05, 4.32), wheel_radius=0.41, width=1.9, doors=(2.3, 3.72),
        glass=(((2.4, 1.2), (2.44, 1.66), (3.2, 1.66), (3.68, 1.2)),),
        windshield=((3.28, 1.75), (3.8, 1.25)), rear_window=((2.21, 1.2), (2.25, 1.66)),
        open_top=(0.08, 2.16), lamps=(0.8, 0.98),
    ),
    "sedan": Body(
        outline=((0.05, 0.35, 0.1), (0.0, 0.62, 0.1), (0.05, 0.98, 0.1), (0.8, 1.03, 0.12),
                 (1.45, 1.42, 0.25), (2.45, 1.45, 0.3), (3.35, 1.0, 0.2), (4.4, 0.86, 0.25),
                 (4.68, 0.62, 0.12), (4.65, 0.32, 0.1)),
        belt=1.0, wheels=(0.98, 3.75), doors=(1.42, 2.26, 3.2),
        glass=(((1.04, 1.06), (1.52, 1.36), (2.18, 1.38), (2.2, 1.04)),
               ((2.3, 1.04), (2.28, 1.38), (2.45, 1.38), (3.14, 1.0))),
        windshield=((2.52, 1.42), (3.3, 1.03)), rear_window=((0.84, 1.05), (1.4, 1.39)),
    ),
    "suv": Body(
        outline=((0.08, 0.54, 0.08), (0.0, 0.7, 0.08), (0.0, 1.2, 0.08), (0.06, 1.86, 0.1),
                 (0.3, 1.96, 0.12), (2.6, 1.94, 0.14), (3.0, 1.32, 0.06), (4.1, 1.24, 0.1),
                 (4.3, 1.08, 0.08), (4.3, 0.52, 0.08)),
        belt=1.25, wheels=(0.9, 3.46), wheel_radius=0.45, width=1.9, doors=(1.12, 1.98, 2.9),
        glass=(((0.22, 1.29), (0.26, 1.78), (0.98, 1.79), (1.0, 1.29)),
               ((1.12, 1.29), (1.1, 1.79), (1.92, 1.79), (1.93, 1.29)),
               ((2.04, 1.29), (2.03, 1.79), (2.52, 1.78), (2.8, 1.29))),
        windshield=((2.63, 1.9), (2.97, 1.37)), rear_window=((0.01, 1.34), (0.05, 1.78)),
        spare_wheel=True, lamps=(0.9, 1.1),
    ),
    "van": Body(
        outline=((0.05, 0.36, 0.06), (0.0, 0.5, 0.05), (0.02, 2.0, 0.15), (0.15, 2.18, 0.14),
                 (3.3, 2.18, 0.35), (4.2, 1.3, 0.15), (4.85, 1.06, 0.2), (5.0, 0.72, 0.12),
                 (4.97, 0.33, 0.1)),
        belt=1.3, wheels=(1.0, 4.08), wheel_radius=0.36, width=1.95, doors=(1.5, 2.85, 3.98),
        glass=(((2.98, 1.32), (2.98, 1.88), (3.4, 1.88), (4.0, 1.26)),),
        windshield=((3.42, 2.08), (4.16, 1.35)), rear_window=((0.01, 1.4), (0.02, 1.9)),
        lamps=(0.72, 0.92),
    ),
    "wagon": Body(
        outline=((0.08, 0.33, 0.1), (0.0, 0.62, 0.1), (0.02, 0.98, 0.1), (0.34, 1.42, 0.12),
                 (0.6, 1.48, 0.14), (2.85, 1.47, 0.3), (3.75, 1.0, 0.2), (4.75, 0.86, 0.25),
                 (5.02, 0.6, 0.12), (4.98, 0.32, 0.1)),
        belt=1.0, wheels=(1.02, 4.05), doors=(1.55, 2.52, 3.55),
        glass=(((0.36, 1.05), (0.56, 1.36), (1.4, 1.39), (1.44, 1.05)),
               ((1.54, 1.05), (1.5, 1.39), (2.42, 1.39), (2.44, 1.04)),
               ((2.54, 1.04), (2.52, 1.39), (2.83, 1.39), (3.5, 1.0))),
        windshield=((2.91, 1.44), (3.69, 1.03)), rear_window=((0.06, 1.04), (0.33, 1.4)),
        rails=((0.5, 1.48), (2.75, 1.48)),
    ),
}  # fmt: skip


def varied(body: Body, rng: np.random.Generator) -> Body:
    """The same kind of car from another maker: stretched, raised and bent as one piece."""
    length = body.outline[-1][0]
    stretch, tall, roof = rng.uniform(0.95, 1.05), rng.uniform(0.96, 1.05), rng.uniform(0.94, 1.06)
    bend, phase = rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi)

    def moved(point):
        x, y, *rest = point
        x = (x - length / 2) * stretch + bend * np.sin(2 * np.pi * x / length + phase)
        y = min(y, body.belt) * tall + max(0.0, y - body.belt) * roof
        return (x, y, *(r * rng.uniform(0.6, 1.4) for r in rest))

    def across(xs):
        return tuple(moved((x, 0.0))[0] for x in xs)

    def shape(points):
        return tuple(moved(point) for point in points)

    return replace(
        body,
        outline=shape(body.outline), glass=tuple(shape(pane) for pane in body.glass),
        belt=body.belt * tall, wheels=across(body.wheels), doors=across(body.doors),
        wheel_radius=body.wheel_radius * rng.uniform(0.94, 1.1),
        windshield=shape(body.windshield), rear_window=shape(body.rear_window),
        lamps=tuple(y * tall for y in body.lamps), seats=across(body.seats),
        open_top=across(body.open_top) if body.open_top else None, rails=shape(body.rails),
        fender=body.fender * rng.uniform(0.95, 1.05),
    )  # fmt: skip


def rounded(outline) -> np.ndarray:
    """Cuts each corner with a quadratic Bézier curve. `(n, 3)` in, `(m, 2)` out."""
    corners = np.asarray(outline)
    xy, pieces = corners[:, :2], [corners[:1, :2]]
    t = np.linspace(0, 1, 6)[:, None]
    for before, corner, after, radius in zip(xy, xy[1:], xy[2:], corners[1:, 2], strict=False):
        ends = []
        for other in (before, after):
            reach = np.linalg.norm(other - corner)
            ends.append(corner + (other - corner) * min(radius / reach, 0.45))
        pieces.append(ends[0] * (1 - t) ** 2 + corner * 2 * t * (1 - t) + ends[1] * t**2)
    return np.concatenate([*pieces, xy[-1:]])
