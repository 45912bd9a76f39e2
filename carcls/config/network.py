"""What the network is made of: backbone and head."""

from __future__ import annotations

from dataclasses import dataclass

from carcls.config.checks import expect


@dataclass(kw_only=True, slots=True)
class BackboneConfig:
    """The pretrained network under the head."""

    name: str
    weights: str = "imagenet"  # imagenet, none, or the path of a weights file
    preprocessing: str = "native"  # native, or unit: x/255, as the notebook fed three of its four


@dataclass(kw_only=True, slots=True)
class HeadConfig:
    """The layers on top of the backbone; `carcls/models/heads.py` builds them."""

    name: str
    dropout: float

    def __post_init__(self) -> None:
        expect(0.0 <= self.dropout < 1.0, "dropout in [0, 1)", dropout=self.dropout)


@dataclass(kw_only=True, slots=True)
class AvgDenseHead(HeadConfig):
    """Average pool, batch norm, dropout, dense relu, batch norm, dense softmax."""

    units: int
    l2_bias: float
    l2_activity: float

    def __post_init__(self) -> None:
        HeadConfig.__post_init__(self)
        expect(self.units >= 1, "units to be at least 1", units=self.units)
        for name in ("l2_bias", "l2_activity"):
            value = getattr(self, name)
            expect(value >= 0.0, f"{name} to be 0 (off) or more", **{name: value})


@dataclass(kw_only=True, slots=True)
class MaxDenseHead(HeadConfig):
    """Max pool, dense relu, batch norm, dropout, perhaps a smaller dense relu, dense softmax."""

    units: int
    units2: int  # of the dense layer before the last; 0: there is none
    dropout2: float  # after it

    def __post_init__(self) -> None:
        HeadConfig.__post_init__(self)
        expect(self.units >= 1, "units to be at least 1", units=self.units)
        expect(self.units2 >= 0, "units2 to be 0 (no such layer) or more", units2=self.units2)
        expect(0.0 <= self.dropout2 < 1.0, "dropout2 in [0, 1)", dropout2=self.dropout2)


@dataclass(kw_only=True, slots=True)
class MaxDropoutHead(HeadConfig):
    """Max pool, dropout, dense softmax."""


@dataclass(kw_only=True, slots=True)
class LinearHead(HeadConfig):
    """Average pool, dropout, dense softmax."""
