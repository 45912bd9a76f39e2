"""What can be configured: the dataclasses that the YAML under conf/ must fit, with their checks.

The YAML holds the values, these hold the types and the limits. `to_config` turns what Hydra
composed into them, so that every mistake is told by name before anything heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from carcls.catalogue import check_preprocessing, find_spec
from carcls.errors import UserError


def _expect(condition: bool, expected: str, **received: Any) -> None:
    if not condition:
        shown = ", ".join(f"{name}={value}" for name, value in received.items())
        raise ValueError(f"Expected {expected}. Received: {shown}")


def _expect_one_of(choices: tuple[str, ...], **received: Any) -> None:
    ((name, value),) = received.items()
    _expect(value in choices, f"{name} to be one of {', '.join(choices)}", **received)


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
        _expect(0.0 <= self.dropout < 1.0, "dropout in [0, 1)", dropout=self.dropout)
        _expect(self.units >= 1, "units to be at least 1", units=self.units)


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
        _expect(self.epochs >= 1, "epochs to be at least 1", epochs=self.epochs)
        _expect(
            self.learning_rate > 0, "learning_rate to be above 0", learning_rate=self.learning_rate
        )
        _expect(
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
        _expect(len(self.stages) > 0, "at least one stage", stages=dict(self.stages))
        _expect_one_of(("best", "last"), keep=self.keep)
        _expect_one_of(("val_accuracy", "val_loss"), monitor=self.monitor)
        _expect_one_of(("train", "frozen"), batch_norm=self.batch_norm)
        _expect(
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
        _expect(
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
        _expect(0.0 < self.factor < 1.0, "factor in (0, 1)", factor=self.factor)
        _expect(self.patience >= 1, "patience to be at least 1 epoch", patience=self.patience)
        _expect_one_of(("val_loss", "val_accuracy"), monitor=self.monitor)


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
        _expect(0.0 < self.val_split < 1.0, "val_split in (0, 1)", val_split=self.val_split)
        _expect_one_of(("squash", "crop", "pad"), resize=self.resize)
        _expect_one_of(("skip", "raise"), on_error=self.on_error)
        _expect(
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
        _expect_one_of(("raise", "skip"), on_missing=self.on_missing)


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
            _expect(value >= 2, f"{name} to be at least 2", **{name: value})


@dataclass(kw_only=True, slots=True)
class FolderData(DataConfig):
    """Class folders, or `train/` and `val/` that hold class folders."""


@dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """The machine's side: nothing here changes what is learnt, except `precision`."""

    device: str = "auto"  # auto, cpu, gpu (an error when there is none)
    workers: int | None = None  # threads that prepare photos; null: one a core
    deterministic: bool = False  # bit for bit the same on a repeat, at some cost in speed
    precision: str = "float32"  # float32, mixed_float16, mixed_bfloat16
    jit: bool = False  # XLA: pays off on long stages, costs a compilation a stage
    eager: bool = False  # no graph: slow, for looking inside and for tests
    tensorboard: bool = False  # also write TensorBoard events into the run

    def __post_init__(self) -> None:
        _expect_one_of(("auto", "cpu", "gpu"), device=self.device)
        _expect_one_of(("float32", "mixed_float16", "mixed_bfloat16"), precision=self.precision)
        _expect(
            self.workers is None or self.workers >= 1,
            "workers to be at least 1, or null for one a core",
            workers=self.workers,
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

    def __post_init__(self) -> None:
        _expect(
            1 <= self.image_size <= 4096,
            "image_size to be from 1 to 4096 pixels",
            image_size=self.image_size,
        )
        _expect(self.batch_size >= 1, "batch_size to be at least 1", batch_size=self.batch_size)
        _expect(self.seed >= 0, "seed to be 0 or more", seed=self.seed)


@dataclass(kw_only=True, slots=True)
class PredictConfig:
    """All of `python predict.py`."""

    ckpt: str | None
    images: Any  # null, or one path, folder or glob, or a list of them
    data: dict[str, Any] | None  # what differs from the data that the run was trained on
    output: str | None
    top: int
    batch_size: int
    runtime: RuntimeConfig

    def __post_init__(self) -> None:
        _expect(self.top >= 1, "top to be at least 1", top=self.top)
        _expect(self.batch_size >= 1, "batch_size to be at least 1", batch_size=self.batch_size)


# Groups whose options differ in their fields: the option's name picks the dataclass.
OPTIONS: dict[str, dict[str, type]] = {
    "head": {"avg_dense": AvgDenseHead},
    "optimizer": {"adamax": OptimizerConfig},
    "schedule": {"plateau": PlateauSchedule, "constant": ConstantSchedule},
    "data": {"kaggle": KaggleData, "folder": FolderData, "demo": DemoData},
}


def to_config(cfg: DictConfig) -> TrainConfig:
    """Checks what Hydra composed from conf/train.yaml.

    Raises:
        UserError: If a key is unknown or missing, a type is wrong or a value is out of bounds.
    """
    config = _fit(TrainConfig, cfg)
    backbone = find_spec(config.backbone.name)
    check_preprocessing(backbone, config.backbone.preprocessing)
    if config.image_size < backbone.min_size:
        raise UserError(
            f"Expected image_size to be at least {backbone.min_size} px for {backbone.name} "
            f"(pretrained at {backbone.default_size}). Received: image_size={config.image_size}"
        )
    return config


def to_predict_config(cfg: DictConfig) -> PredictConfig:
    """Checks what Hydra composed from conf/predict.yaml.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(PredictConfig, cfg)


def to_data_config(values: dict[str, Any]) -> DataConfig:
    """The data section alone, as a run recorded it or as a caller puts it together.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(_option("data", values.get("name")), OmegaConf.create(values))


def to_plain(config: Any) -> dict[str, Any]:
    """A config as plain dicts, lists and scalars, for JSON and for `to_config` again."""
    return OmegaConf.to_container(OmegaConf.structured(config))


def _option(group: str, name: str | None) -> type:
    if name not in OPTIONS[group]:
        raise UserError(
            f"Expected {group} to be one of {', '.join(OPTIONS[group])}. "
            f"Received: {group}.name={name}"
        )
    return OPTIONS[group][name]


def _fit(cls: type, cfg: DictConfig) -> Any:
    """`cfg` as an instance of `cls`, its groups as the dataclasses that their names pick."""
    schema = OmegaConf.structured(cls)
    if cls is TrainConfig:
        for group in OPTIONS:
            schema[group] = OmegaConf.structured(_option(group, cfg[group].get("name")))
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, cfg))
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        where = f"{error.full_key}: " if error.full_key else ""
        raise UserError(where + what) from error
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
