"""How the network learns: augmentation, the plan of stages, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from carcls.config.checks import expect, expect_image_size, expect_one_of


@dataclass(kw_only=True, slots=True)
class AugmentationConfig:
    """What happens to training photos alone, one by one and in pairs."""

    name: str
    working_scale: float = 1.0  # photos are kept this many times larger than the network's input
    mixup: float = 0.0  # alpha of MixUp's Beta distribution; 0: off
    cutmix: float = 0.0  # alpha of CutMix's; 0: off; with both on each takes half of the batches
    mix_probability: float = 1.0  # share of the batches that are mixed
    train: dict[str, Any] = field(default_factory=dict)  # a policy: named steps, in order

    def __post_init__(self) -> None:
        expect(
            1.0 <= self.working_scale <= 2.0,
            "working_scale from 1 to 2, times the network's input",
            working_scale=self.working_scale,
        )
        _expect_mixing(self)

    def working_size(self, image_size: int) -> int:
        """Side of the square that photos are kept at, in pixels, for a network's input."""
        return round(image_size * self.working_scale) if self.train else image_size


MIXING = ("mixup", "cutmix", "mix_probability")  # see `carcls.data.mixing`


def _expect_mixing(config: AugmentationConfig | StageConfig) -> None:
    for name in ("mixup", "cutmix"):
        alpha = getattr(config, name)
        expect(
            alpha is None or 0.0 <= alpha <= 100.0, f"{name} from 0 (off) to 100", **{name: alpha}
        )
    share = config.mix_probability
    expect(
        share is None or 0.0 <= share <= 1.0,
        "mix_probability to be a share in [0, 1]",
        mix_probability=share,
    )


STAGE_CALLBACKS = ("plateau", "early_stopping", "tensorboard")


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """One `fit`: what trains, for how long, how fast, on what."""

    epochs: int
    learning_rate: float  # at the start of the stage
    trainable: float = 1.0  # share of the backbone's layers, counted from the top
    image_size: int | None = None  # null: that of the run
    train_scale: float = 1.0  # side of the photos that train, as a share of image_size
    enlarge: float = 1.0  # times that the network enlarges photos beyond what the plan does
    batch_size: int | None = None  # null: that of the run
    bottom_rate: float = 1.0  # the backbone's first layer learns at this share of learning_rate
    label_smoothing: float = 0.0  # share of each label that is spread over all classes
    mixup: float | None = None  # null, as for the next two: the policy's
    cutmix: float | None = None
    mix_probability: float | None = None
    ema_span: float = 0.0  # share of the stage's steps that an average of weights spans; 0: off
    soup: int = 1  # trainings of the stage from the same start, whose weights are averaged
    callbacks: list[str] | None = None  # which of STAGE_CALLBACKS run; null: all that are set up
    feature_views: int = 0  # views a photo whose features are cached, for the head to be fitted on

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
        if self.image_size is not None:
            expect_image_size(self.image_size)
        if self.batch_size is not None:
            expect(self.batch_size >= 1, "batch_size to be at least 1", batch_size=self.batch_size)
        expect(
            0.0 < self.bottom_rate <= 1.0,
            "bottom_rate to be a share in (0, 1]",
            bottom_rate=self.bottom_rate,
        )
        expect(
            0.25 <= self.train_scale <= 4.0,
            "train_scale to be a share from 0.25 to 4",
            train_scale=self.train_scale,
        )
        expect(1.0 <= self.enlarge <= 4.0, "enlarge from 1 (off) to 4", enlarge=self.enlarge)
        _expect_mixing(self)
        for name in ("label_smoothing", "ema_span"):
            value = getattr(self, name)
            expect(0.0 <= value < 1.0, f"{name} in [0, 1), 0: off", **{name: value})
        expect(1 <= self.soup <= 20, "soup from 1 (off) to 20 trainings", soup=self.soup)
        for callback in self.callbacks or ():
            expect_one_of(STAGE_CALLBACKS, callbacks=callback)
        expect(
            0 <= self.feature_views <= 100,
            "feature_views from 0 (off: an ordinary stage) to 100",
            feature_views=self.feature_views,
        )
        if self.feature_views:
            expect(
                self.trainable == 0 and self.epochs == 1,
                "trainable=0 and epochs=1 of a stage with feature_views, which fits the head alone "
                "and at once",
                trainable=self.trainable,
                epochs=self.epochs,
                feature_views=self.feature_views,
            )
            unused = {"bottom_rate": 1.0, "label_smoothing": 0.0, "ema_span": 0.0, "soup": 1}
            unused |= dict.fromkeys(MIXING)
            expect(
                all(getattr(self, name) in (value, None) for name, value in unused.items()),
                "a stage with feature_views to leave bottom_rate, label_smoothing, ema_span, soup "
                "and mixing alone, which are for training in steps",
                **{name: getattr(self, name) for name in unused},
            )

    def runs(self, callback: str) -> bool:
        """Whether this stage lets `callback`, one of STAGE_CALLBACKS, run."""
        return self.callbacks is None or callback in self.callbacks


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """The plan: which stages, and what is kept of them."""

    name: str
    stages: dict[str, StageConfig]
    keep: str = "best"  # best: by `monitor`, over all stages; last: the last epoch's weights
    monitor: str = "val_accuracy"  # what `best` and early stopping look at
    early_stopping_patience: int = 0  # epochs without a better `monitor`; 0: never stop early
    batch_norm: str = "train"  # in unfrozen layers: train, or frozen (statistics held still)
    stochastic_depth: bool = True  # false: no block is skipped, in a network that skips some
    enlarge: float = 1.0  # times that the network enlarges photos, at most; 1: off

    def __post_init__(self) -> None:
        expect(len(self.stages) > 0, "at least one stage", stages=dict(self.stages))
        expect_one_of(("best", "last"), keep=self.keep)
        expect_one_of(("val_accuracy", "val_loss"), monitor=self.monitor)
        expect_one_of(("train", "frozen"), batch_norm=self.batch_norm)
        expect(1.0 <= self.enlarge <= 16.0, "enlarge from 1 (off) to 16", enlarge=self.enlarge)
        expect(
            self.early_stopping_patience >= 0,
            "early_stopping_patience to be 0 (off) or more",
            early_stopping_patience=self.early_stopping_patience,
        )
        for name, stage in self.stages.items():
            expect(
                "early_stopping" not in (stage.callbacks or ()) or self.early_stopping_patience > 0,
                f"finetune.early_stopping_patience above 0, since the stage {name} lists "
                "early_stopping among its callbacks",
                early_stopping_patience=self.early_stopping_patience,
            )

    @property
    def epochs(self) -> int:
        """Of all stages; a soup has those of each of its trainings."""
        return sum(stage.epochs * stage.soup for stage in self.stages.values())


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """The optimizer; its learning rate is the default of every stage."""

    name: str
    learning_rate: float
    clip_norm: float = 0.0  # length that the gradient of all weights is cut to; 0: off
    centralize: bool = False  # no step changes the mean of the weights of an output

    def __post_init__(self) -> None:
        expect(self.clip_norm >= 0, "clip_norm to be 0 (off) or more", clip_norm=self.clip_norm)
        expect(
            self.learning_rate > 0, "learning_rate to be above 0", learning_rate=self.learning_rate
        )


@dataclass(kw_only=True, slots=True)
class AdamaxOptimizer(OptimizerConfig):
    """Adamax (Kingma and Ba, 2014, section 7.1)."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        for name in ("beta_1", "beta_2"):
            value = getattr(self, name)
            expect(0.0 <= value < 1.0, f"{name} in [0, 1)", **{name: value})
        expect(self.epsilon > 0, "epsilon to be above 0", epsilon=self.epsilon)


@dataclass(kw_only=True, slots=True)
class AdamOptimizer(AdamaxOptimizer):
    """Adam (Kingma and Ba, 2014), by choice with AMSGrad (Reddi et al., 2018)."""

    amsgrad: bool = False


@dataclass(kw_only=True, slots=True)
class AdamWOptimizer(AdamOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    weight_decay: float

    def __post_init__(self) -> None:
        AdamOptimizer.__post_init__(self)
        expect(
            self.weight_decay >= 0, "weight_decay to be 0 or more", weight_decay=self.weight_decay
        )


@dataclass(kw_only=True, slots=True)
class SgdOptimizer(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    momentum: float
    nesterov: bool

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        expect(0.0 <= self.momentum < 1.0, "momentum in [0, 1)", momentum=self.momentum)


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
        expect(
            self.min_learning_rate >= 0,
            "min_learning_rate to be 0 or more",
            min_learning_rate=self.min_learning_rate,
        )
        expect_one_of(("val_loss", "val_accuracy", "loss", "accuracy"), monitor=self.monitor)


@dataclass(kw_only=True, slots=True)
class ExponentialSchedule(ScheduleConfig):
    """Times `rate` every `steps` steps: gradually, or all at once with `staircase`."""

    rate: float
    steps: int
    staircase: bool

    def __post_init__(self) -> None:
        expect(0.0 < self.rate < 1.0, "rate in (0, 1)", rate=self.rate)
        expect(self.steps >= 1, "steps to be at least 1", steps=self.steps)


@dataclass(kw_only=True, slots=True)
class CosineSchedule(ScheduleConfig):
    """A linear warmup, then half a cosine down to `final` (Loshchilov and Hutter, 2017)."""

    warmup: float  # share of the stage's steps
    final: float  # share of the stage's learning rate that it ends at

    def __post_init__(self) -> None:
        expect(0.0 <= self.warmup < 1.0, "warmup in [0, 1)", warmup=self.warmup)
        expect(0.0 <= self.final <= 1.0, "final in [0, 1]", final=self.final)
