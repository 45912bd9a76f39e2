"""What can be configured: the dataclasses that the YAML under conf/ must fit, with their checks.

The YAML holds the values, these hold the types and the limits. `to_config` turns what Hydra
composed into them, so that every mistake is told by name before anything heavy is imported.
"""

from carcls.config.data import DataConfig, DemoData, FolderData, KaggleData
from carcls.config.entry_points import PredictConfig, RuntimeConfig, TrainConfig
from carcls.config.network import AvgDenseHead, BackboneConfig, HeadConfig
from carcls.config.reading import to_config, to_data_config, to_plain, to_predict_config
from carcls.config.training import (
    AugmentationConfig,
    ConstantSchedule,
    FinetuneConfig,
    OptimizerConfig,
    PlateauSchedule,
    ScheduleConfig,
    StageConfig,
)

__all__ = [
    "AugmentationConfig",
    "AvgDenseHead",
    "BackboneConfig",
    "ConstantSchedule",
    "DataConfig",
    "DemoData",
    "FinetuneConfig",
    "FolderData",
    "HeadConfig",
    "KaggleData",
    "OptimizerConfig",
    "PlateauSchedule",
    "PredictConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "StageConfig",
    "TrainConfig",
    "to_config",
    "to_data_config",
    "to_plain",
    "to_predict_config",
]
