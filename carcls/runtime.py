"""Seeds, precision and devices: what is set once, before the first layer is built."""

import os
from contextlib import suppress

from carcls.config import RuntimeConfig
from carcls.data.workers import default_workers
from carcls.errors import UserError


def set_up(runtime: RuntimeConfig, seed: int) -> str:
    """Applies `runtime` to Keras and its backend.

    Returns:
        The device in words.

    Raises:
        UserError: If a GPU is asked for and there is none, or several steps an execution are and
            the backend has no such thing.
    """
    import keras

    if runtime.steps_per_execution > 1 and keras.backend.backend() == "torch":
        raise UserError(
            "Expected runtime.steps_per_execution=1 with KERAS_BACKEND=torch, where Keras runs one "
            f"step at a time. Received: runtime.steps_per_execution={runtime.steps_per_execution}. "
            "Leave it at 1, or take another backend."
        )
    if runtime.deterministic:  # before the backend looks at its devices
        _make_deterministic(keras.backend.backend())
    device = _choose_device(keras.backend.backend(), runtime.device)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(runtime.precision)
    return device


def uses_xla(runtime: RuntimeConfig) -> bool:
    """Whether training steps are compiled with XLA (on torch: with torch.compile).

    Without it JAX computes every operation of a step on its own, which took three times as long
    where it was measured; TensorFlow has its graphs, and was faster with those alone.
    """
    import keras

    if runtime.jit is None:
        return keras.backend.backend() == "jax" and not runtime.eager
    return runtime.jit


def _choose_device(backend: str, wanted: str) -> str:
    gpus = _GPUS[backend](wanted == "cpu")
    if wanted == "gpu" and not gpus:
        raise UserError(
            f"Expected a GPU (runtime.device=gpu). Received: none that {backend} can use. "
            "Check nvidia-smi and the driver, in Docker --gpus all; or set runtime.device=auto."
        )
    if gpus:
        return f"{', '.join(gpus)} ({backend})"
    return f"CPU, {default_workers()} cores ({backend})"


def _tensorflow_gpus(hide: bool) -> list[str]:
    import tensorflow as tf

    if hide:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError as error:  # from Python, where something ran before
            raise UserError(
                "Expected no GPU (runtime.device=cpu). Received: one that this process uses "
                "already. Start Python anew, or hide it with CUDA_VISIBLE_DEVICES=-1."
            ) from error
    gpus = tf.config.get_visible_devices("GPU")
    with suppress(RuntimeError):  # likewise: then the memory is taken already
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)  # leave room for others
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return [detail.get("device_name", "GPU") for detail in details]


def _jax_gpus(hide: bool) -> list[str]:
    import jax

    if hide:
        jax.config.update("jax_platforms", "cpu")
    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def _torch_gpus(hide: bool) -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if hide and gpus:  # Keras chose one when it was imported
        raise UserError(
            f"Expected no GPU (runtime.device=cpu). Received: {', '.join(gpus)}, which Keras takes "
            "on torch. Hide it with CUDA_VISIBLE_DEVICES= in the environment."
        )
    return gpus


_GPUS = {"tensorflow": _tensorflow_gpus, "jax": _jax_gpus, "torch": _torch_gpus}


def _make_deterministic(backend: str) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    else:  # XLA on the CPU repeats itself; on a GPU it has to be told
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops"
