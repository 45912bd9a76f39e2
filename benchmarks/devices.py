"""One run on one device and on several: whether they learn the same, and how fast they are.

Trains the same photos, with the same seed and the same batches, once on one device and once on
`--devices`: on GPUs where there are some, else on a CPU that is cut into as many (which shows that
it works, and no speed: the cores are the same). Dropout is off and BatchNorm held still, so that
nothing is left to chance. Each side is a process of its own. Prints the largest difference of the
losses of the first 20 steps, the steps a second of both, and the ratio of these last.

    python benchmarks/devices.py [--devices 2] [--backbone smallcnn] [--image-size 32]
        [--batch-size 32] [--steps 40] [--eager]
    KERAS_BACKEND=jax python benchmarks/devices.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

COMPARED = 20  # steps


def cell(arguments: Namespace) -> None:
    """Trains on so many devices; prints the loss of each step, and when it was over, as JSON."""
    from hydra import compose, initialize_config_dir

    from carcls.backend import keras
    from carcls.config import to_config
    from carcls.data.demo import draw_demo
    from carcls.training.callbacks import History
    from carcls.training.loop import train

    root, side = Path(arguments.folder), arguments.image_size
    data = root / "photos"
    if not data.is_dir():
        draw_demo(data, train_per_class=-(-arguments.batch_size * 5 // 8), test_per_class=1)
    device = "auto" if has_gpu(keras.backend.backend()) else "cpu"
    num_photos = 10 * -(-arguments.batch_size * 5 // 8) * 4 // 5  # a fifth validates
    epochs = -(-max(arguments.steps, COMPARED) // -(-num_photos // arguments.batch_size))
    options = [
        "data=folder", f"data.root='{data / 'train'}'", "data.val_split=0.2", "finetune=full",
        f"backbone={arguments.backbone}", "backbone.weights=none", f"image_size={side}",
        f"batch_size={arguments.batch_size}", f"finetune.stages.all.epochs={epochs}",
        "finetune.early_stopping_patience=0", "finetune.batch_norm=frozen", "head=max_dropout",
        "finetune.stochastic_depth=false", "head.dropout=0", "optimizer=sgd",
        "optimizer.learning_rate=0.01", "schedule=constant", "augmentation=none",
        f"runtime.device={device}", f"runtime.devices={arguments.cell}",
        f"runtime.eager={str(arguments.eager).lower()}", "runtime.preflight=false",
        f"data.cache_dir='{root}'",
    ]  # fmt: skip
    losses, ends = [], []

    def note(history: History, batch: int, logs: dict) -> None:
        losses.append(float(logs["loss"]))  # of the epoch so far; waits for the devices
        ends.append(time.perf_counter())
        on_train_batch_end(history, batch, logs)

    on_train_batch_end, History.on_train_batch_end = History.on_train_batch_end, note
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", options))
    workdir = root / str(arguments.cell)
    train(config, workdir)
    device = json.loads((workdir / "run.json").read_text())["device"]
    print(json.dumps({"device": device, "losses": losses, "ends": ends}))


def has_gpu(backend: str) -> bool:
    """Whether the backend can use one, looked up without a word to its devices."""
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    from carcls.sweeps.processes import visible_gpus

    return bool(visible_gpus())


def in_own_process(arguments: list[str], folder: str, devices: int) -> dict:
    """What `cell` prints."""
    command = [sys.executable, __file__, *arguments, f"--cell={devices}", f"--folder={folder}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{devices} devices: status {result.returncode}\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def steps_a_second(found: dict) -> float:
    """By the median step, without the first ones, which wait for graphs."""
    return 1 / float(np.median(np.diff(found["ends"])[5:]))


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--backbone", default="smallcnn")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--eager", action="store_true", help="without graphs")
    parser.add_argument("--cell", type=int, help="devices of this process, which prints no table")
    parser.add_argument("--folder", help="where the processes leave what they make")
    arguments = parser.parse_args()
    if arguments.cell:
        cell(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [in_own_process(sys.argv[1:], folder, n) for n in (1, arguments.devices)]
    one, several = (np.array(side["losses"][:COMPARED]) for side in found)
    print(
        f"{arguments.backbone}, {arguments.image_size} px, batches of {arguments.batch_size}, "
        f"{len(found[0]['losses'])} steps; keras on {os.environ.get('KERAS_BACKEND', 'tensorflow')}"
    )
    print(f"{'devices':>8} {'steps/s':>8} {'first loss':>11} {'20th loss':>10}  device")
    rates = [steps_a_second(side) for side in found]
    for devices, rate, side in zip((1, arguments.devices), rates, found, strict=True):
        first, last = side["losses"][0], side["losses"][COMPARED - 1]
        print(f"{devices:8} {rate:8.1f} {first:11.6f} {last:10.6f}  {side['device']}")
    print(
        f"largest difference of the losses of {COMPARED} steps: {np.abs(one - several).max():.1e}"
    )
    print(f"ratio {rates[1] / rates[0]:.2f}")


if __name__ == "__main__":
    main()
