"""`runtime.devices`: one run on several devices of a host.

A batch is cut into as many shares, each device computes one, and their gradients are added up. What
is learnt is what one device learns with the same batch, but for rounding and for dropout.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras

from carcls import runtime
from carcls.config import RuntimeConfig, StageConfig, TrainConfig
from carcls.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Devices:
    """Those that a run trains on.

    Attributes:
        count: How many.
        in_words: What they are.
        distribution: Of the backend, with a `scope()`; None for one device.
    """

    count: int = 1
    in_words: str = ""
    distribution: Any = None

    def scope(self, stage: StageConfig | None = None) -> AbstractContextManager:
        """The context to make a network in and to train it in.

        Args:
            stage: That trains in it. One on cached features takes one device: most of its time goes
                to a regression on the cores.
        """
        if self.distribution is None or (stage is not None and stage.feature_views):
            return nullcontext()
        return self.distribution.scope()


def set_up(config: TrainConfig) -> Devices:
    """`carcls.runtime.set_up` for a training, which may have several devices.

    Raises:
        UserError: If there are fewer devices than asked for, or a batch cannot be cut evenly; and
            that of `carcls.runtime.set_up`.
    """
    backend, asked = keras.backend.backend(), config.runtime.devices
    if asked != 1:
        _check_backend(backend, config.runtime)
    if config.runtime.device == "cpu" and asked not in (1, "all"):
        _CUT_CPU[backend](asked)  # before the backend looks at its devices
    device = runtime.set_up(config.runtime, config.seed)
    names = _NAMES[backend]() if backend in _NAMES else [device]
    count = len(names) if asked == "all" else asked
    if count > len(names):
        raise _too_few(device, names, asked)
    if asked == "all":
        _check_batches(config, count)
        log.info(f"runtime.devices=all: {_numbered(count)}.")
    if len(names) > 1:
        device = f"{device}, trained on {count} of {_numbered(len(names))}"
    if count == 1:
        return Devices(in_words=device)
    if any(stage.feature_views for stage in config.finetune.stages.values()):
        device += ", cached features on one"
    return Devices(count, device, _DISTRIBUTIONS[backend](names[:count]))


def model_to_fit(model: keras.Model) -> keras.Model:
    """A second model over the layers of one, to be fitted on the devices of the present scope."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():
            from carcls.training.mirrored import Mirrored

            return Mirrored(model.input, model.output)
    if backend == "jax" and keras.distribution.distribution() is not None:
        from carcls.training.sharded import Sharded

        return Sharded(model.input, model.output)
    return keras.Model(model.input, model.output)


def _check_backend(backend: str, wanted: RuntimeConfig) -> None:
    if backend == "torch":
        raise UserError(
            "Expected runtime.devices=1 with KERAS_BACKEND=torch, on which Keras trains on one. "
            f"Received: runtime.devices={wanted.devices}. Take KERAS_BACKEND=tensorflow or jax."
        )
    if backend == "tensorflow" and wanted.jit:
        raise UserError(
            "Expected runtime.jit=null or false with several devices on TensorFlow, where XLA "
            f"compiles for one. Received: runtime.jit=true, runtime.devices={wanted.devices}. "
            "Leave one of them out, or take KERAS_BACKEND=jax."
        )


def _check_batches(config: TrainConfig, count: int) -> None:
    try:
        config.check_devices(count)
    except ValueError as error:
        raise UserError(str(error)) from error


def _numbered(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _too_few(device: str, names: list[str], asked: int) -> UserError:
    if names[0].lower().startswith("cpu"):
        advice = (
            "runtime.device=cpu cuts the CPU into as many, to try it; on GPUs, check nvidia-smi "
            "and CUDA_VISIBLE_DEVICES"
        )
    else:
        advice = "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or set runtime.devices=all"
    return UserError(
        f"Expected {asked} devices (runtime.devices={asked}). Received: {_numbered(len(names))}, "
        f"{', '.join(names)} ({device}). {advice}."
    )


def _tensorflow_names() -> list[str]:
    import tensorflow as tf

    if gpus := tf.config.get_visible_devices("GPU"):
        return [f"GPU:{number}" for number in range(len(gpus))]
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = tf.config.get_logical_device_configuration(cpu) or [cpu]
    return [f"CPU:{number}" for number in range(len(parts))]


def _mirrored(names: list[str]) -> Any:
    from carcls.training.mirrored import strategy_of

    return strategy_of(names)


def _sharded(names: list[str]) -> Any:
    from carcls.training.sharded import Distribution

    return Distribution(devices=names, auto_shard_dataset=False)


def _cut_tensorflow_cpu(count: int) -> None:
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    before = tf.config.get_logical_device_configuration(cpu)
    if before is not None and len(before) >= count:
        return
    try:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise _is_used(count) from error


def _cut_jax_cpu(count: int) -> None:
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if len(jax.devices("cpu")) < count:
            raise _is_used(count) from error


def _is_used(count: int) -> UserError:
    return UserError(
        f"Expected a CPU that can be cut into {count} devices (runtime.device=cpu "
        f"runtime.devices={count}). Received: one that this process uses already. Start Python "
        "anew, and set this before anything else runs."
    )


_NAMES = {"tensorflow": _tensorflow_names, "jax": keras.distribution.list_devices}
_CUT_CPU = {"tensorflow": _cut_tensorflow_cpu, "jax": _cut_jax_cpu}
_DISTRIBUTIONS = {"tensorflow": _mirrored, "jax": _sharded}
