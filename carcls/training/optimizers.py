"""Optimizers, and the callbacks that move their learning rate."""

from collections.abc import Callable

import keras

from carcls.config import OptimizerConfig, PlateauSchedule, ScheduleConfig


def _adamax(config: OptimizerConfig, learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adamax(
        learning_rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon
    )


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, float], keras.optimizers.Optimizer]] = {
    "adamax": _adamax,
}


def build_optimizer(config: OptimizerConfig, learning_rate: float) -> keras.optimizers.Optimizer:
    """A new optimizer, without memory of earlier stages."""
    return OPTIMIZERS[config.name](config, learning_rate)


def schedule_callbacks(schedule: ScheduleConfig) -> list[keras.callbacks.Callback]:
    """What moves the learning rate inside one stage; empty for a constant one."""
    if isinstance(schedule, PlateauSchedule):
        return [
            keras.callbacks.ReduceLROnPlateau(
                monitor=schedule.monitor,
                factor=schedule.factor,
                patience=schedule.patience,
                min_lr=schedule.min_learning_rate,
            )
        ]
    return []
