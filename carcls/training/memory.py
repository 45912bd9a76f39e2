"""A batch that does not fit into the GPU's memory: halved once, and as many photos a step."""

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from carcls import run as files
from carcls.config import TrainConfig
from carcls.errors import UserError
from carcls.training.stages import Session

log = logging.getLogger(__name__)

# What the backends raise: tensorflow.errors.ResourceExhaustedError, torch.OutOfMemoryError (also
# of torch.cuda), and jax's JaxRuntimeError, which says RESOURCE_EXHAUSTED.
_NAMES = ("ResourceExhaustedError", "OutOfMemoryError")
_TEXTS = ("RESOURCE_EXHAUSTED", "CUDA out of memory", "OOM when allocating")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend says that its device has no memory left, or one of the error's causes."""
    while error is not None:
        names = {cls.__name__ for cls in type(error).__mro__}
        if names & set(_NAMES) or any(text in str(error) for text in _TEXTS):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def state_of(*owners: Any) -> Callable[[], None]:
    """Notes all variables of models and optimizers, random states and statistics included.

    Args:
        owners: Built; what has `variables`.

    Returns:
        A function that puts every value back.
    """
    variables = [variable for owner in owners for variable in owner.variables]
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]

    def restore() -> None:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    return restore


def halved(config: TrainConfig, reason: str, devices: int = 1) -> tuple[TrainConfig, str]:
    """The same plan in batches of half the size, two of them where one was.

    Args:
        config: Of the run.
        reason: The backend's own message.
        devices: That share a batch.

    Returns:
        The plan, and what was changed, in words.

    Raises:
        UserError: If a batch of some stage is one photo already, or half of it cannot be shared.
    """
    sizes = {
        name: stage.batch_size or config.batch_size
        for name, stage in config.finetune.stages.items()
    }
    if min(sizes.values()) < 2:
        raise _does_not_fit(config, reason)
    stages = {
        name: replace(stage, batch_size=sizes[name] // 2)
        for name, stage in config.finetune.stages.items()
    }
    accumulation = 2 * config.gradient_accumulation
    batches = ", ".join(map(str, dict.fromkeys(size // 2 for size in sizes.values())))
    was = ", ".join(map(str, dict.fromkeys(sizes.values())))
    change = (
        f"batch_size={batches} instead of {was} with gradient_accumulation={accumulation}: "
        "the batch did not fit into the memory of the device"
    )
    half = replace(
        config,
        batch_size=max(1, config.batch_size // 2),
        gradient_accumulation=accumulation,
        finetune=replace(config.finetune, stages=stages),
    )
    try:
        half.check_devices(devices)
    except ValueError as error:
        raise _does_not_fit(config, reason) from error
    return half, change


def halved_before(config: TrainConfig, devices: int) -> TrainConfig:
    """The plan of a run that is gone on with, and whose batches an earlier process has halved.

    Raises:
        UserError: If half a batch cannot be cut evenly for as many devices.
    """
    config, _ = halved(config, "")
    try:
        config.check_devices(devices)
    except ValueError as error:
        raise UserError(
            f"{error}. The batches of this run were halved when they did not fit into the memory "
            "of the device. Go on with it on fewer devices (runtime.devices)."
        ) from error
    return config


def within_memory(session: Session, run: Callable[[], Any]) -> Any:
    """Does what trains, and once more with half the batch if that does not fit.

    Args:
        session: The run. Its model gets the state back that it had; its plan is changed, and what
            was changed is printed and goes into `run.json`.
        run: Trains by the session's plan as it is then.

    Returns:
        What `run` returns.

    Raises:
        UserError: If half a batch does not fit either, or epochs were lost to an error that came
            after them.
    """
    restore, epochs = state_of(session.model), len(session.history.rows)
    try:
        return run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = _reason(error)
        if session.was_halved or len(session.history.rows) > epochs:
            raise _does_not_fit(session.config, reason) from error
    # Here, not in the handler: the error's traceback holds on to what filled the memory.
    session.config, change = halved(session.config, reason, session.devices.count)
    session.was_halved = True
    session.changes.append(change)
    files.add_to_json(session.workdir / files.RUN, changed=session.changes)
    log.warning(f"WARNING: {change} ({reason[:200]}).")
    gc.collect()
    restore()
    return within_memory(session, run)


def _reason(error: Exception) -> str:
    """The line of a message that is about memory; Keras wraps it in its own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if any(text in line for text in _TEXTS)]
    return (telling or lines or [type(error).__name__])[0]


def _does_not_fit(config: TrainConfig, reason: str) -> UserError:
    return UserError(
        f"Expected a batch to fit into the memory of the device. Received: {reason[:300]} "
        f"(batch_size={config.batch_size}, image_size={config.image_size}). Lower batch_size, "
        "with gradient_accumulation as many times higher, or image_size; try "
        "runtime.precision=mixed_float16 or a smaller backbone, and see that no other program "
        "uses the device."
    )
