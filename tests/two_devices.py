"""Trains the same runs on one device and on two, cut out of the CPU; test_devices.py compares them.

A process for both: a network of one device is not told that there is another. Usage:

    python two_devices.py DATA DIR NAME...     with names of RUNS
"""

import json
import sys
from pathlib import Path

from carcls.backend import keras
from carcls.config import to_config
from carcls.training import parallel
from carcls.training.callbacks import History
from carcls.training.loop import train
from tests.conftest import use_tiny_backbone
from tests.test_config import composed

RUNS = {
    # Of 15 photos the last 3 of an epoch are uneven shares; 20 steps.
    "still": (
        "finetune.stages.all.epochs=5", "finetune.batch_norm=frozen", "batch_size=4",
        "runtime.preflight=false",
    ),
    # All that Keras does otherwise on several devices; of the last batch, 1 photo, one gets none.
    "all_at_once": (
        "finetune.stages.all.epochs=2", "batch_size=14", "optimizer=adamw",
        "optimizer.clip_norm=0.5", "optimizer.centralize=true", "gradient_accumulation=2",
        "finetune.stages.all.ema_span=0.5",
        "finetune.stages.all.bottom_rate=0.3", "schedule=cosine", "data.balance=weights",
        "finetune.stages.all.label_smoothing=0.1",
        "+finetune.stages.last_head.feature_views=1", "+finetune.stages.last_head.epochs=1",
        "+finetune.stages.last_head.trainable=0", "+finetune.stages.last_head.learning_rate=1e-3",
    ),
}  # fmt: skip


def losses_of(options: tuple[str, ...], workdir: Path) -> list[float]:
    """Trains; the losses as callbacks are told them, step by step."""
    losses = []

    def note(history: History, batch: int, logs: dict) -> None:
        losses.append(float(logs["loss"]))
        on_train_batch_end(history, batch, logs)

    on_train_batch_end, History.on_train_batch_end = History.on_train_batch_end, note
    try:
        train(to_config(composed(*options)), workdir)
    finally:
        History.on_train_batch_end = on_train_batch_end
    return losses


def main(data: str, folder: Path, names: list[str]) -> None:
    use_tiny_backbone(setattr)
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
    else:
        parallel._cut_tensorflow_cpu(2)
    for name in names:
        found = {
            devices: losses_of(
                (
                    f"data.root='{data}'", "image_size=32", "finetune=full", "head.dropout=0",
                    "head.units=16", "runtime.device=cpu", "runtime.workers=0", *RUNS[name],
                    f"runtime.eager={str(keras.backend.backend() == 'tensorflow').lower()}",
                    f"runtime.devices={devices}",
                ),
                folder / name / str(devices),
            )
            for devices in (1, 2)
        }  # fmt: skip
        (folder / name / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
