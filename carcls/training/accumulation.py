"""Gradient accumulation: several batches for one step of the optimizer.

Keras' optimizers do it (`gradient_accumulation_steps`): they add up the gradients of so many
batches, and take a step with their mean. Two things of theirs (Keras 3.15, `base_optimizer.py`)
need a hand: a learning-rate schedule is given the number of batches, not that of steps, and
would run so many times too fast; and so would weights averaged by `use_ema`, whose average moves
after every batch.

The batches that are left over at the end of an epoch count towards the first step of the next
one; what is left over at the end of a stage is lost. The mean is one of batches: photos of the
short last batch of an epoch count a little more. BatchNorm, where it trains, sees one batch at a
time.
"""

from typing import Any

import keras

from carcls.config import TrainConfig
from carcls.errors import UserError


class EverySoMany(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of steps, for an optimizer that counts batches.

    Args:
        schedule: The learning rate as a function of the optimizer's step.
        batches: For each step.
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, batches: int
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.batches = batches

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` batches."""
        return self.schedule(keras.ops.floor_divide(step, self.batches))

    def get_config(self) -> dict:
        return {"schedule": self.schedule, "batches": self.batches}


def accumulate(
    optimizer: keras.optimizers.Optimizer,
    rate: float | keras.optimizers.schedules.LearningRateSchedule,
    batches: int,
) -> keras.optimizers.Optimizer:
    """Lets a new optimizer take a step for every so many batches.

    Args:
        optimizer: As it was made, and not yet built.
        rate: Its learning rate, a schedule of which counts steps.
        batches: For each step; 1 changes nothing.

    Returns:
        The same optimizer.
    """
    if batches > 1:
        optimizer.gradient_accumulation_steps = batches
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            optimizer.learning_rate = EverySoMany(rate, batches)
    return optimizer


def steps_of(batches: int, accumulation: int) -> int:
    """Whole steps that the optimizer takes in so many batches; at least 1, for a schedule."""
    return max(1, batches // accumulation)


def check_accumulation(config: TrainConfig, num_photos: int) -> None:
    """Tells before the training if a stage would end before its first step.

    Args:
        config: Of the run.
        num_photos: That train.

    Raises:
        UserError: If `gradient_accumulation` is more than all batches of a stage.
    """
    for name, stage in config.finetune.stages.items():
        batches = stage.epochs * -(-num_photos // (stage.batch_size or config.batch_size))
        if config.gradient_accumulation > batches:
            raise UserError(
                f"Expected gradient_accumulation to be at most {batches}, all batches of the stage "
                f"{name}. Received: gradient_accumulation={config.gradient_accumulation}. With "
                "more, the stage would end before the optimizer's first step: lower it, or the "
                "batch_size."
            )
