"""How the network learns: augmentation, the plan of stages, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from carcls.config.checks import expect, expect_one_of


@dataclass(kw_only=True, slots=True)
class AugmentationConfig:
    """A policy: an ordered map of named albumentations steps, for training photos only."""

    name: str
    train: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """One `fit`: what trains, for how long, how fast."""

    epochs: int
    learning_rate: float  # at the start of the stage
    trainable: float = 1.0  # share of the backbone's layers, counted from the top

    def __post_init__(self) -> None:
        expect(self.epochs >= 1, "epochs to be at least 1", epochs=self.epochs)
        expect(
            self.learning_rate > 0, "learning_rate to be above 0", learning_rate=self.learning_rate
        )
        expect(
            0.0 <= self.trainable <= 1.0,
            "trainable to be a share in [0, 1]",
            trainable=self.trainable,
        )


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """The plan: which stages, and what is kept of them."""

    name: str
    stages: dict[str, StageConfig]
    keep: str = "best"  # best: by `monitor`, over all stages; last: the last epoch's weights
    monitor: str = "val_accuracy"  # what `best` and early stopping look at
    early_stopping_patience: int = 0  # epochs without a better `monitor`; 0: never stop early
    batch_norm: str = "train"  # in unfrozen layers: train, or frozen (statistics held still)

    def __post_init__(self) -> None:
        expect(len(self.stages) > 0, "at least one stage", stages=dict(self.stages))
        expect_one_of(("best", "last"), keep=self.keep)
        expect_one_of(("val_accuracy", "val_loss"), monitor=self.monitor)
        expect_one_of(("train", "frozen"), batch_norm=self.batch_norm)
        expect(
            self.early_stopping_patience >= 0,
            "early_stopping_patience to be 0 (off) or more",
            early_stopping_patience=self.early_stopping_patience,
        )


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """The optimizer; its learning rate is the default of every stage."""

    name: str
    learning_rate: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        expect(
            self.learning_rate > 0, "learning_rate to be above 0", learning_rate=self.learning_rate
        )


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """How the learning rate moves inside a stage; every stage starts it anew."""

    name: str


@dataclass(kw_only=True, slots=True)
class ConstantSchedule(ScheduleConfig):
    """The stage's learning rate throughout."""


@dataclass(kw_only=True, slots=True)
class PlateauSchedule(ScheduleConfig):
    """ReduceLROnPlateau: times `factor` after `patience` epochs without a better `monitor`."""

    factor: float
    patience: int
    min_learning_rate: float
    monitor: str = "val_loss"

    def __post_init__(self) -> None:
        expect(0.0 < self.factor < 1.0, "factor in (0, 1)", factor=self.factor)
        expect(self.patience >= 1, "patience to be at least 1 epoch", patience=self.patience)
        expect_one_of(("val_loss", "val_accuracy"), monitor=self.monitor)
