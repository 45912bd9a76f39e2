"""From what Hydra composed to the dataclasses: every mistake is told by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from carcls.catalogue import check_preprocessing, check_weights, find_spec
from carcls.config.data import CifarData, CsvData, DataConfig, DemoData, FolderData, KaggleData
from carcls.config.entry_points import CompareConfig, EvaluateConfig, PredictConfig, TrainConfig
from carcls.config.explore import ExploreConfig
from carcls.config.network import AvgDenseHead, LinearHead, MaxDenseHead, MaxDropoutHead
from carcls.config.search import SearchConfig
from carcls.config.training import (
    AdamaxOptimizer,
    AdamOptimizer,
    AdamWOptimizer,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    PlateauSchedule,
    SgdOptimizer,
)
from carcls.errors import UserError

# Groups whose options differ in their fields: the option's name picks the dataclass.
OPTIONS: dict[str, dict[str, type]] = {
    "head": {
        "avg_dense": AvgDenseHead,
        "max_dense": MaxDenseHead,
        "max_dropout": MaxDropoutHead,
        "linear": LinearHead,
    },
    "optimizer": {
        "adamax": AdamaxOptimizer,
        "adam": AdamOptimizer,
        "adamw": AdamWOptimizer,
        "sgd": SgdOptimizer,
    },
    "schedule": {
        "plateau": PlateauSchedule,
        "exponential": ExponentialSchedule,
        "cosine": CosineSchedule,
        "cosine_high": CosineSchedule,
        "constant": ConstantSchedule,
    },
    "data": {
        "kaggle": KaggleData,
        "folder": FolderData,
        "csv": CsvData,
        "cifar": CifarData,
        "demo": DemoData,
    },
}


def to_config(cfg: DictConfig) -> TrainConfig:
    """Checks what Hydra composed from conf/train.yaml.

    Raises:
        UserError: If a key is unknown or missing, a type is wrong or a value is out of bounds.
    """
    config = _fit(TrainConfig, cfg)
    backbone = find_spec(config.backbone.name)
    check_preprocessing(backbone, config.backbone.preprocessing)
    check_weights(backbone, config.backbone.weights)
    _refuse_test_part(config.data, "train.py")
    sizes = {"image_size": config.image_size} | {
        f"finetune.stages.{name}.image_size": stage.image_size
        for name, stage in config.finetune.stages.items()
        if stage.image_size is not None
    }
    for key, size in sizes.items():
        if size < backbone.min_size:
            raise UserError(
                f"Expected {key} to be at least {backbone.min_size} px for {backbone.name} "
                f"(pretrained at {backbone.default_size}). Received: {key}={size}"
            )
    return config


def to_predict_config(cfg: DictConfig) -> PredictConfig:
    """Checks what Hydra composed from conf/predict.yaml.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(PredictConfig, cfg)


def to_evaluate_config(cfg: DictConfig) -> EvaluateConfig:
    """Checks what Hydra composed from conf/evaluate.yaml.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(EvaluateConfig, cfg)


def to_compare_config(cfg: DictConfig) -> CompareConfig:
    """Checks what Hydra composed from conf/compare.yaml.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(CompareConfig, cfg)


def to_explore_config(cfg: DictConfig) -> ExploreConfig:
    """Checks what Hydra composed from conf/explore.yaml.

    Raises:
        UserError: As `to_config`.
    """
    config = _fit(ExploreConfig, cfg)
    _refuse_test_part(config.data, "explore.py")
    return config


def to_search_config(cfg: DictConfig) -> SearchConfig:
    """Checks `search`, a part of what Hydra composed from conf/train.yaml.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(SearchConfig, cfg, "search.")


def to_data_config(values: dict[str, Any]) -> DataConfig:
    """The data section alone, as a run recorded it or as a caller puts it together.

    Raises:
        UserError: As `to_config`.
    """
    return _fit(_option("data", values.get("name")), OmegaConf.create(values), "data.")


def to_plain(config: Any) -> dict[str, Any]:
    """A config as plain dicts, lists and scalars, for JSON and for `to_config` again."""
    return OmegaConf.to_container(OmegaConf.structured(config))


def _refuse_test_part(data: DataConfig, script: str) -> None:
    if isinstance(data, CifarData) and data.part != "train":
        raise UserError(
            f"Expected data.part=train with {script}. Received: data.part={data.part}, which is "
            "for evaluate.py to measure with."
        )


def _option(group: str, name: str | None) -> type:
    if name not in OPTIONS[group]:
        raise UserError(
            f"Expected {group} to be one of {', '.join(OPTIONS[group])}. "
            f"Received: {group}.name={name}"
        )
    return OPTIONS[group][name]


def _fit(cls: type, cfg: DictConfig, prefix: str = "") -> Any:
    """`cfg` as an instance of `cls`, its groups as the dataclasses that their names pick.

    Args:
        prefix: Of the keys in messages, where `cfg` is a part of the whole.
    """
    schema = OmegaConf.structured(cls)
    if cls in (TrainConfig, ExploreConfig):
        for group in OPTIONS.keys() & schema.keys():
            schema[group] = OmegaConf.structured(_option(group, cfg[group].get("name")))
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, cfg))
    except ConfigKeyError as error:
        known = f"one of {', '.join(f.name for f in fields(error.object_type))}"
        raise UserError(f"Expected {known}. Received: {prefix}{error.full_key}") from error
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        where = f"{prefix}{error.full_key}: " if error.full_key else ""
        raise UserError(where + what) from error
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
