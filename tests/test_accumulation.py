"""Gradient accumulation: several small batches are one large one."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.models.classifier import build_classifier
from carcls.training.accumulation import check_accumulation
from carcls.training.optimizers import build_optimizer
from carcls.training.stages import compile_stage
from tests.test_config import composed


def weights_after(batch_size: int, accumulation: int, optimizer: str) -> list[np.ndarray]:
    """Of a classifier without dropout, BatchNorm held still, after two epochs of three steps."""
    keras.utils.set_random_seed(3)
    config = to_config(
        composed(
            f"optimizer={optimizer}", "schedule=cosine", "finetune=full", "head=max_dropout",
            "head.dropout=0", "finetune.stages.all.epochs=2", "finetune.batch_norm=frozen",
            f"gradient_accumulation={accumulation}", f"batch_size={batch_size}",
            "optimizer.learning_rate=0.01", "runtime.eager=true",
        )
    )  # fmt: skip
    model = build_classifier(config.backbone, config.head, 3)
    photos = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(48) % 3
    stage = config.finetune.stages["all"]
    fitted = compile_stage(model, config, stage, 48 // batch_size)
    fitted.fit(photos, labels, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_two_batches_of_8_for_a_step_give_the_weights_of_batches_of_16(tiny_backbone, optimizer):
    """Schedule, momentum and weight decay included."""
    large = weights_after(16, 1, optimizer)
    small = weights_after(8, 2, optimizer)
    untold = weights_after(8, 1, optimizer)
    for one, two in zip(large, small, strict=True):
        np.testing.assert_allclose(two, one, atol=2e-5)
    assert max(np.abs(a - b).max() for a, b in zip(large, untold, strict=True)) > 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "constant"])
def test_a_schedule_counts_steps_and_not_batches(schedule):
    config = to_config(composed(f"schedule={schedule}"))
    found = []
    for accumulation in (1, 4):
        optimizer = build_optimizer(
            config.optimizer, config.schedule, 0.5, 200 * accumulation, accumulation
        )
        rates = []
        for step in (0, 10, 40, 199):
            for batch in (0, accumulation - 1):  # of the step
                optimizer._iterations.assign(step * accumulation + batch)
                rates.append(float(optimizer.learning_rate))
        found.append(rates)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_without_accumulation_the_optimizer_is_as_it_was():
    config = to_config(composed("schedule=exponential"))
    optimizer = build_optimizer(config.optimizer, config.schedule, 0.5, 100)
    assert optimizer.gradient_accumulation_steps is None
    assert optimizer.get_config()["learning_rate"]["class_name"] == "ExponentialDecay"


def test_more_batches_for_a_step_than_a_stage_has_are_told():
    config = to_config(composed("gradient_accumulation=120", "finetune=full"))
    check_accumulation(config, num_photos=15 * 16)  # 8 epochs of 15 batches
    with pytest.raises(UserError, match=r"at most 112, all batches of the stage all\. Received: "):
        check_accumulation(config, num_photos=14 * 16)
    check_accumulation(replace(config, gradient_accumulation=1), num_photos=1)


def test_no_batch_for_a_step_is_told():
    with pytest.raises(UserError, match=r"Expected gradient_accumulation to be at least 1 batch"):
        to_config(composed("gradient_accumulation=0"))
