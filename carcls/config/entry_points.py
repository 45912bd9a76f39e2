"""What each entry point takes as a whole, and the machine that it runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from carcls.catalogue import find_spec
from carcls.config.checks import expect, expect_image_size, expect_one_of
from carcls.config.data import DataConfig
from carcls.config.network import BackboneConfig, HeadConfig
from carcls.config.training import (
    MIXING,
    AugmentationConfig,
    FinetuneConfig,
    OptimizerConfig,
    ScheduleConfig,
    StageConfig,
)

# Times the size that it was pretrained at, at which a backbone knows things as well or better:
# 224 to 288 (Touvron et al., 2019, Fixing the train-test resolution discrepancy).
_LARGEST = 9 / 7


@dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """The machine's side: nothing here changes what is learnt, except `precision`."""

    device: str = "auto"  # auto, cpu, gpu (an error when there is none)
    devices: Any = 1  # that one run trains on, a number; all: all GPUs
    workers: int | None = None  # processes that prepare photos; 0: none; null: one a core
    deterministic: bool = False  # bit for bit the same on a repeat, at some cost in speed
    precision: str = "float32"  # float32, mixed_float16, mixed_bfloat16
    jit: bool | None = None  # XLA; null: on JAX, which has no other compiler, and nowhere else
    steps_per_execution: int = 1  # batches that run without a look at callbacks and Ctrl-C
    eager: bool = False  # no graph: slow, for looking inside and for tests
    tensorboard: bool = False  # also write TensorBoard events into the run
    preflight: bool = True  # a few steps and checks before anything long
    checkpoint_minutes: float = 10.0  # between states that a long epoch can be gone on from; 0: off

    def __post_init__(self) -> None:
        expect_one_of(("auto", "cpu", "gpu"), device=self.device)
        expect(
            self.devices == "all" or (type(self.devices) is int and self.devices >= 1),
            "devices to be a number from 1, or all",
            devices=self.devices,
        )
        expect_one_of(("float32", "mixed_float16", "mixed_bfloat16"), precision=self.precision)
        expect(
            self.workers is None or self.workers >= 0,
            "workers to be 0 or more, or null for one a core",
            workers=self.workers,
        )
        expect(
            self.steps_per_execution >= 1,
            "steps_per_execution to be at least 1",
            steps_per_execution=self.steps_per_execution,
        )
        expect(
            0 <= self.checkpoint_minutes < math.inf,
            "checkpoint_minutes to be 0 (at the ends of epochs only) or more",
            checkpoint_minutes=self.checkpoint_minutes,
        )
        expect(
            not (self.jit and self.eager),
            "jit to be null or false with eager=true: XLA compiles a graph, and there is none",
            jit=self.jit,
            eager=self.eager,
        )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """All of `python train.py`."""

    backbone: BackboneConfig
    head: HeadConfig
    augmentation: AugmentationConfig
    finetune: FinetuneConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    data: DataConfig
    runtime: RuntimeConfig
    image_size: int
    batch_size: int
    seed: int
    target: str = "fine"  # classes to learn: those of the data, or the coarse ones of `hierarchy`
    hierarchy: str | None = None  # a CSV of fine,coarse or cifar100; null: the data's own, if any
    gradient_accumulation: int = 1  # batches whose gradients are averaged for one step
    find_lr: bool = False  # look for a learning rate, train nothing
    resume: str | None = None  # a run that this one goes on with; auto: its own, if unfinished

    def __post_init__(self) -> None:
        # A path that has become absolute there becomes so here: a run records one and the same.
        self.hierarchy = self.data.hierarchy or self.hierarchy
        if (self.data.target, self.data.hierarchy) != (self.target, self.hierarchy):
            self.data = replace(self.data, target=self.target, hierarchy=self.hierarchy)
        expect_image_size(self.image_size)
        expect(self.batch_size >= 1, "batch_size to be at least 1", batch_size=self.batch_size)
        expect(
            self.gradient_accumulation >= 1,
            "gradient_accumulation to be at least 1 batch a step",
            gradient_accumulation=self.gradient_accumulation,
        )
        expect(0 <= self.seed < 2**32, "seed to be from 0 to 2**32 - 1", seed=self.seed)
        expect(
            not (self.find_lr and self.data.folds),
            "find_lr=true without data.folds: look for a learning rate first, then train the folds "
            "with it",
            find_lr=self.find_lr,
            folds=self.data.folds,
        )
        for name, stage in self.finetune.stages.items():
            listed = stage.callbacks or ()
            expect_image_size(self.train_size(stage))
            expect(
                "plateau" not in listed or self.schedule.name == "plateau",
                f"schedule=plateau, since the stage {name} lists plateau among its callbacks: "
                "ReduceLROnPlateau and a schedule cannot both move the learning rate",
                schedule=self.schedule.name,
            )
            expect(
                "tensorboard" not in listed or self.runtime.tensorboard,
                f"runtime.tensorboard=true, since the stage {name} lists tensorboard among its "
                "callbacks",
                tensorboard=self.runtime.tensorboard,
            )

        # A run that is gone on with has batches of its own, see carcls.training.resume.
        if self.runtime.devices != "all" and self.resume is None:
            self.check_devices(self.runtime.devices)

    def check_devices(self, count: int) -> None:
        """Looks whether every batch can be cut into even shares, for as many devices.

        Raises:
            ValueError: If one cannot.
        """
        for name, stage in self.finetune.stages.items():
            size = stage.batch_size or self.batch_size
            expect(
                size % count == 0 or stage.feature_views > 0,
                f"batch_size to be a multiple of the {count} devices, such as "
                f"{-(-size // count) * count}, in the stage {name}",
                batch_size=size,
                devices=self.runtime.devices,
            )

    def train_size(self, stage: StageConfig) -> int:
        """Side in pixels of the photos that a stage trains on; it validates at its image_size."""
        return round((stage.image_size or self.image_size) * stage.train_scale)

    def enlarged_to(self, stage: StageConfig) -> int | None:
        """Side in pixels that the network enlarges a stage's photos to; None: it does not.

        `finetune.enlarge` goes no further than 9/7 of the size that the backbone was pretrained at.
        `enlarge` of the stage does.
        """
        size = max(self.train_size(stage), stage.image_size or self.image_size)
        side = size
        if self.backbone.weights != "none":
            pretrained = find_spec(self.backbone.name).default_size
            largest = round(_LARGEST * pretrained)
            side = max(size, min(largest, round(self.finetune.enlarge * size)))
        side = round(stage.enlarge * side)
        return side if side > size else None

    def enlarged_sides(self) -> dict[str, int | None]:
        """`enlarged_to` of every stage, by its name."""
        return {name: self.enlarged_to(stage) for name, stage in self.finetune.stages.items()}

    def mixing(self, stage: StageConfig) -> dict[str, float] | None:
        """By the names of MIXING, how a stage mixes its photos.

        None if it does not, as one on cached features never does.
        """
        own = {name: getattr(stage, name) for name in MIXING}
        values = {
            name: getattr(self.augmentation, name) if value is None else value
            for name, value in own.items()
        }
        mixes = values["mix_probability"] > 0 and (values["mixup"] > 0 or values["cutmix"] > 0)
        return values if mixes and not stage.feature_views else None

    def labels_are_shares(self, stage: StageConfig) -> bool:
        """Whether the labels of a stage's photos are shares of classes, not the number of one."""
        return self.mixing(stage) is not None or stage.label_smoothing > 0


@dataclass(kw_only=True, slots=True)
class PredictConfig:
    """All of `python predict.py`."""

    ckpt: Any  # a run, a .keras file or a pretrained network, or a list: an ensemble; here a list
    images: Any  # null, or one path, folder or glob, or a list of them
    data: dict[str, Any] | None  # what differs from the data that the run was trained on
    output: str | None
    top: int
    batch_size: int
    runtime: RuntimeConfig
    weights: Any = None  # what each of several checkpoints counts, a list; null: all the same
    tta: str = "none"  # none, flip, flip+scale: views of a photo that are averaged
    calibrated: bool = False  # at the temperature that the validation photos gave
    models: Any = None  # what each of several says of `images`, side by side; here a list
    plot: bool = False  # draw the photos of `images` with their likeliest classes

    def __post_init__(self) -> None:
        _check_networks(self)
        self.models = list(dict.fromkeys(_networks(models=self.models)))
        expect(self.top >= 1, "top to be at least 1", top=self.top)


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """All of `python evaluate.py`."""

    ckpt: Any  # as in PredictConfig, and the next six too
    data: dict[str, Any] | None
    batch_size: int
    runtime: RuntimeConfig
    weights: Any = None
    tta: str = "none"
    calibrated: bool = False
    resamples: int = 1000  # of the bootstrap behind the intervals; 0: no intervals
    seed: int = 42  # of these, and of the noise and so on
    robustness: Any = None  # noise, patch or common, or a list: how accuracy falls with severity
    hierarchy: str | None = None  # of the run's classes; null: that of the run or of the data
    coarse_ckpt: Any = None  # a run trained on coarse classes, or a list: an ensemble; here a list
    predictions: str | None = None  # a CSV of label and p_<class>, instead of ckpt

    def __post_init__(self) -> None:
        _check_networks(self)
        self.coarse_ckpt = _networks(coarse_ckpt=self.coarse_ckpt)
        wanted = self.robustness
        if not isinstance(wanted, list | tuple):
            wanted = [] if wanted is None else [wanted]
        for kind in wanted:
            expect_one_of(("noise", "patch", "common"), robustness=kind)
        self.robustness = list(dict.fromkeys(wanted))
        expect(self.resamples >= 0, "resamples to be 0 or more", resamples=self.resamples)
        expect(self.seed >= 0, "seed to be 0 or more", seed=self.seed)


@dataclass(kw_only=True, slots=True)
class CompareConfig:
    """All of `python compare.py`."""

    models: Any  # runs, .keras files and pretrained networks, also with weights as NAME:PATH
    data: dict[str, Any] | None  # as in PredictConfig; null: what the first model was trained on
    batch_size: int
    runtime: RuntimeConfig
    resamples: int = 1000  # of the bootstrap behind the intervals; 0: no intervals
    seed: int = 42

    def __post_init__(self) -> None:
        self.models = list(dict.fromkeys(_networks(models=self.models)))
        expect(self.batch_size >= 1, "batch_size to be at least 1", batch_size=self.batch_size)
        expect(self.resamples >= 0, "resamples to be 0 or more", resamples=self.resamples)
        expect(self.seed >= 0, "seed to be 0 or more", seed=self.seed)


def _networks(**given: Any) -> list[str]:
    """A list of what may be one: runs and the like, under the key that they are given as."""
    ((key, value),) = given.items()
    items = value if isinstance(value, list | tuple) else [value]
    if items in ([None], [""]):
        items = []
    expect(
        all(isinstance(item, str | int | PurePath) and item != "" for item in items),
        f"{key} to be a run, or a list of runs",
        **given,
    )
    return [str(item) for item in items]


def _check_networks(config: PredictConfig | EvaluateConfig) -> None:
    """Checks which networks are asked, and how; makes lists of what may be one."""
    config.ckpt = _networks(ckpt=config.ckpt)
    if config.weights is not None:
        expect(
            isinstance(config.weights, list | tuple)
            and all(isinstance(weight, int | float) for weight in config.weights),
            "weights to be a list of numbers, one a checkpoint, such as [2,1]",
            weights=config.weights,
        )
        config.weights = [float(weight) for weight in config.weights]
    expect(config.batch_size >= 1, "batch_size to be at least 1", batch_size=config.batch_size)
    expect_one_of(("none", "flip", "flip+scale"), tta=config.tta)
