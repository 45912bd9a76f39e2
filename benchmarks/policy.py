"""Photos a second that one process augments, against albumentations' own pipeline.

Both sides apply the same policy to the same photos of the size at which they are kept, each photo
with a seed of its own. Theirs: `Compose`, its steps seeded one by one before each photo, as it must
be for what happens to a photo to depend on a seed alone. Prints a table, the best of several
rounds in turns, and, last, the ratio for `photo`. Usage: python benchmarks/policy.py
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from carcls.data.demo_drawing import BODIES, draw_photo  # noqa: E402
from carcls.data.transforms import Augment, build_augment, build_pipeline  # noqa: E402

SIZE, PHOTOS, ROUNDS = 240, 300, 7
POLICIES = ("geometric", "photo_no_brightness", "photo_rgb", "strong", "photo")


def step_by_step(pipeline: Any) -> Augment:
    """An albumentations pipeline as a pure function of a photo and a seed, the plain way."""
    nodes = [pipeline, *below(pipeline)]

    def augment(photo: np.ndarray, seed: int) -> np.ndarray:
        seeds = np.random.SeedSequence(seed).generate_state(len(nodes))
        for node, own_seed in zip(nodes, seeds.tolist(), strict=True):
            node.set_random_seed(own_seed)
        return pipeline(image=photo)["image"]

    return augment


def below(group: Any) -> Iterator[Any]:
    """Every step in it, a group before its members."""
    for step in group.transforms:
        yield step
        if hasattr(step, "transforms_ps"):
            yield from below(step)


def seconds(augment: Augment, photos: list[np.ndarray]) -> float:
    """What it takes to augment all of them."""
    started = time.perf_counter()
    for seed, photo in enumerate(photos):
        augment(photo, seed)
    return time.perf_counter() - started


def main() -> None:
    cv2.setNumThreads(0)  # as in a worker process
    print(f"photos/s at {SIZE} px, one process, best of {ROUNDS} rounds in turns")
    print(f"{'policy':20} {'albumentations':>15} {'carcls':>8} {'ratio':>7}")
    for name in POLICIES:
        config = OmegaConf.load(ROOT / f"conf/augmentation/{name}.yaml")
        steps = OmegaConf.to_container(config.train)
        side = round(SIZE * config.working_scale)
        photos = drawn_photos(side)
        sides = (step_by_step(build_pipeline(steps, SIZE)), build_augment(steps, SIZE))
        rounds = [[seconds(augment, photos) for augment in sides] for _ in range(ROUNDS)]
        theirs, ours = (PHOTOS / best for best in np.min(rounds, axis=0))
        print(f"{name:20} {theirs:15.0f} {ours:8.0f} {ours / theirs:7.2f}")
    print(f"ratio {ours / theirs:.2f}")


def drawn_photos(side: int) -> list[np.ndarray]:
    """One demo photo of each kind over and over, so that levels and edges are those of photos."""
    generator = np.random.default_rng(0)
    drawn = [draw_photo(kind, (side, side), generator) for kind in BODIES]
    return [drawn[i % len(drawn)] for i in range(PHOTOS)]


if __name__ == "__main__":
    main()
