"""What can be configured: the dataclasses that the YAML under conf/ must fit, with their checks.

The YAML holds the values, these hold the types and the limits. `to_config` turns what Hydra
composed into them, so that every mistake is told by name before anything heavy is imported.
"""

from carcls.config.data import (
    SHIPPED_HIERARCHIES,
    CifarData,
    CsvData,
    DataConfig,
    DemoData,
    FolderData,
    KaggleData,
    with_absolute_paths,
)
from carcls.config.entry_points import (
    CompareConfig,
    EvaluateConfig,
    PredictConfig,
    RuntimeConfig,
    TrainConfig,
)
from carcls.config.explore import ExploreConfig
from carcls.config.network import (
    AvgDenseHead,
    BackboneConfig,
    HeadConfig,
    LinearHead,
    MaxDenseHead,
    MaxDropoutHead,
)
from carcls.config.reading import (
    to_compare_config,
    to_config,
    to_data_config,
    to_evaluate_config,
    to_explore_config,
    to_plain,
    to_predict_config,
    to_search_config,
)
from carcls.config.search import SearchConfig
from carcls.config.training import (
    AdamaxOptimizer,
    AdamOptimizer,
    AdamWOptimizer,
    AugmentationConfig,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    FinetuneConfig,
    OptimizerConfig,
    PlateauSchedule,
    ScheduleConfig,
    SgdOptimizer,
    StageConfig,
)

__all__ = [
    "SHIPPED_HIERARCHIES",
    "AdamOptimizer",
    "AdamWOptimizer",
    "AdamaxOptimizer",
    "AugmentationConfig",
    "AvgDenseHead",
    "BackboneConfig",
    "CifarData",
    "CompareConfig",
    "ConstantSchedule",
    "CosineSchedule",
    "CsvData",
    "DataConfig",
    "DemoData",
    "EvaluateConfig",
    "ExploreConfig",
    "ExponentialSchedule",
    "FinetuneConfig",
    "FolderData",
    "HeadConfig",
    "KaggleData",
    "LinearHead",
    "MaxDenseHead",
    "MaxDropoutHead",
    "OptimizerConfig",
    "PlateauSchedule",
    "PredictConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "SearchConfig",
    "SgdOptimizer",
    "StageConfig",
    "TrainConfig",
    "to_compare_config",
    "to_config",
    "to_data_config",
    "to_evaluate_config",
    "to_explore_config",
    "to_plain",
    "to_predict_config",
    "to_search_config",
    "with_absolute_paths",
]
