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


@dataclass(kw_only=True, slots=True)
class AvgDenseHead(HeadConfig):
    """Average pool, batch norm, dropout, dense relu, batch norm, dense softmax."""

    dropout: float
    units: int
    l2_bias: float
    l2_activity: float

    def __post_init__(self) -> None:
        expect(0.0 <= self.dropout < 1.0, "dropout in [0, 1)", dropout=self.dropout)
        expect(self.units >= 1, "units to be at least 1", units=self.units)
