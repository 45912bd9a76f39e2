"""Where the photos come from; `carcls/data/sources.py` lists the readers."""

from __future__ import annotations

from dataclasses import dataclass

from carcls.config.checks import expect, expect_one_of


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where the photos are and how they become arrays; every source has at least these."""

    name: str
    root: str
    val_split: float = 0.2  # share of every class that validates
    resize: str = "squash"  # squash (aspect not kept), crop (centre), pad (black bars)
    on_error: str = "skip"  # a photo that cannot be opened: skip (counted, listed) or raise
    cache_dir: str | None = None  # where archives are unpacked; null: ~/.cache/carcls
    memory_limit_gb: float = 4.0  # decoded photos are kept in memory up to this, then read anew

    def __post_init__(self) -> None:
        expect(0.0 < self.val_split < 1.0, "val_split in (0, 1)", val_split=self.val_split)
        expect_one_of(("squash", "crop", "pad"), resize=self.resize)
        expect_one_of(("skip", "raise"), on_error=self.on_error)
        expect(
            self.memory_limit_gb >= 0,
            "memory_limit_gb to be 0 or more",
            memory_limit_gb=self.memory_limit_gb,
        )


@dataclass(kw_only=True, slots=True)
class KaggleData(DataConfig):
    """A competition as it is downloaded: two CSVs and two archives (or folders) of photos."""

    id_column: str = "Id"
    label_column: str = "Category"
    on_missing: str = "raise"  # a row of train.csv without a photo: raise, or skip (counted)

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        expect_one_of(("raise", "skip"), on_missing=self.on_missing)


@dataclass(kw_only=True, slots=True)
class DemoData(KaggleData):
    """Ten kinds of car, drawn into `root` on first use in the competition's layout."""

    seed: int = 42
    train_per_class: int = 60
    test_per_class: int = 20

    def __post_init__(self) -> None:
        KaggleData.__post_init__(self)
        for name in ("train_per_class", "test_per_class"):
            value = getattr(self, name)
            expect(value >= 2, f"{name} to be at least 2", **{name: value})


@dataclass(kw_only=True, slots=True)
class FolderData(DataConfig):
    """Class folders, or `train/` and `val/` that hold class folders."""
