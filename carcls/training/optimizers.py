"""Optimizers, and what moves their learning rate inside a stage."""

from collections.abc import Callable

import keras

from carcls.config import (
    AdamaxOptimizer,
    AdamOptimizer,
    AdamWOptimizer,
    CosineSchedule,
    ExponentialSchedule,
    OptimizerConfig,
    PlateauSchedule,
    ScheduleConfig,
    SgdOptimizer,
)
from carcls.training.accumulation import accumulate, steps_of

Rate = float | keras.optimizers.schedules.LearningRateSchedule


def _adamax(config: AdamaxOptimizer, rate: Rate) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adamax(
        rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon
    )


def _adam(config: AdamOptimizer, rate: Rate) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(
        rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        amsgrad=config.amsgrad,
    )


def _adamw(config: AdamWOptimizer, rate: Rate) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(
        rate,
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        amsgrad=config.amsgrad,
    )


def _sgd(config: SgdOptimizer, rate: Rate) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, Rate], keras.optimizers.Optimizer]] = {
    "adamax": _adamax,
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
}


def build_optimizer(
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    learning_rate: float,
    steps: int,
    accumulation: int = 1,
) -> keras.optimizers.Optimizer:
    """A new optimizer, without memory of earlier stages.

    Args:
        optimizer: Which, and its numbers.
        schedule: How its learning rate moves from step to step.
        learning_rate: Of the stage: where it starts; with a warmup, its peak.
        steps: Batches planned for the stage.
        accumulation: Batches for one step of the optimizer, which is what a schedule counts.
    """
    rate = _rate(schedule, learning_rate, steps_of(steps, accumulation))
    return accumulate(OPTIMIZERS[optimizer.name](optimizer, rate), rate, accumulation)


def _rate(schedule: ScheduleConfig, learning_rate: float, steps: int) -> Rate:
    if isinstance(schedule, ExponentialSchedule):
        return keras.optimizers.schedules.ExponentialDecay(
            learning_rate, schedule.steps, schedule.rate, staircase=schedule.staircase
        )
    if isinstance(schedule, CosineSchedule):
        warmup_steps = round(schedule.warmup * steps)
        return keras.optimizers.schedules.CosineDecay(
            # The first step of a warmup is the first part of the peak: at 0 it would be lost.
            learning_rate / (warmup_steps + 1) if warmup_steps else learning_rate,
            decay_steps=max(steps - warmup_steps, 1),
            alpha=schedule.final,
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    return learning_rate


def schedule_callbacks(schedule: ScheduleConfig) -> list[keras.callbacks.Callback]:
    """What moves the learning rate from epoch to epoch; empty but for a plateau."""
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
