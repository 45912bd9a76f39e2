"""What `explore.py` takes as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from carcls.config.checks import expect, expect_image_size
from carcls.config.data import DataConfig
from carcls.config.entry_points import RuntimeConfig


@dataclass(kw_only=True, slots=True)
class ExploreConfig:
    """All of `python explore.py`."""

    data: DataConfig
    runtime: RuntimeConfig
    image_size: int  # of the pictures that show what the network will see, in pixels
    photos_per_class: int  # that are shown; fewer where there are many classes
    max_distance: int  # of near duplicates: bits of 64 in which their hashes differ
    seed: int  # of the photos that are shown

    def __post_init__(self) -> None:
        expect_image_size(self.image_size)
        expect(
            0 <= self.photos_per_class <= 100,
            "photos_per_class from 0 to 100",
            photos_per_class=self.photos_per_class,
        )
        expect(
            0 <= self.max_distance <= 11,
            "max_distance from 0 to 11 bits of 64",
            max_distance=self.max_distance,
        )
        expect(0 <= self.seed < 2**32, "seed to be from 0 to 2**32 - 1", seed=self.seed)
