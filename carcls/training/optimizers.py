"""Optimizers, and what moves their learning rate inside a stage."""

import math
from collections.abc import Callable, Mapping
from typing import Any

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
    ema_span: float = 0.0,
    shares: Mapping[str, float] | None = None,
) -> keras.optimizers.Optimizer:
    """A new optimizer, without memory of earlier stages.

    Args:
        optimizer: Which, and its numbers.
        schedule: How its learning rate moves from step to step.
        learning_rate: Of the stage: where it starts; with a warmup, its peak.
        steps: Batches planned for the stage.
        accumulation: Batches for one step of the optimizer, which is what a schedule counts.
        ema_span: Of an exponential moving average of the weights, which the optimizer then also
            keeps: after this share of the steps a weight counts 1/e of what it did; 0: none.
        shares: Path of a variable to the share of the learning rate that it learns at (and of the
            weight decay, which goes with the rate); 1 for those that are missing.
    """
    rate = _rate(schedule, learning_rate, steps_of(steps, accumulation))
    built = accumulate(OPTIMIZERS[optimizer.name](optimizer, rate), rate, accumulation)
    built.global_clipnorm = optimizer.clip_norm or None
    if ema_span:  # Keras moves the average after every batch
        built.use_ema, built.ema_momentum = True, math.exp(-1 / (ema_span * steps))
    if optimizer.centralize:
        _centralize(built)
    if shares:
        _set_shares(built, shares)
    return built


def _centralize(optimizer: keras.optimizers.Optimizer) -> None:
    """Takes out of every step what it has in common for all weights of an output.

    Yong et al., 2020, Gradient Centralization, applied to the step instead, which Adam has scaled.
    What comes out of a ReLU is never negative, so that a step of one sign moves an output for all
    photos alike, and by far the most. Batch norm that trains takes that out again, batch norm that
    is held still does not. Vectors are left alone, and kernels of depthwise convolutions, whose
    outputs see one channel each.
    """
    update_step = optimizer.update_step

    def update_centralized(gradient: Any, variable: Any, learning_rate: Any) -> None:
        if len(variable.shape) < 2 or variable.shape[-1] == 1:
            update_step(gradient, variable, learning_rate)
            return
        before = keras.ops.copy(variable)
        update_step(gradient, variable, learning_rate)
        change = keras.ops.subtract(variable, before)
        inputs = range(len(variable.shape) - 1)  # all axes but that of the outputs, the last
        change = keras.ops.subtract(change, keras.ops.mean(change, inputs, keepdims=True))
        optimizer.assign(variable, keras.ops.add(before, change))

    optimizer.update_step = update_centralized


def _set_shares(optimizer: keras.optimizers.Optimizer, shares: Mapping[str, float]) -> None:
    """Lets each variable learn, and its weights decay, at its own share of the learning rate.

    Keras has one rate for all. Each of its optimizers updates one variable after the other with
    `update_step(gradient, variable, learning_rate)`; to scale gradients instead would do nothing
    with Adam, which divides by their size.
    """
    update_step = optimizer.update_step
    # Keras would decay all of them at the full rate.
    weight_decay, optimizer.weight_decay = optimizer.weight_decay, None

    def update_at_share(gradient: Any, variable: Any, learning_rate: Any) -> None:
        number = optimizer._get_variable_index(variable)  # as Keras' own optimizers find a state
        rate = learning_rate * shares.get(optimizer._trainable_variables[number].path, 1.0)
        if weight_decay:
            optimizer.assign_sub(variable, variable * (weight_decay * rate))
        update_step(gradient, variable, rate)

    optimizer.update_step = update_at_share


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
