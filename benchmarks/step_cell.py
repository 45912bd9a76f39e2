"""One cell of benchmarks/step.py, measured in a process that does nothing else."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from photos import ROOT, policy

# Which of timm's networks is the backbone; the first one that the installed timm has.
IN_TIMM = {
    "efficientnetb3": ("tf_efficientnet_b3",),
    "xception": ("legacy_xception", "xception41"),
    "inceptionv3": ("inception_v3",),
    "resnet101v2": ("resnetv2_101",),
    "efficientnetlite0": ("tf_efficientnet_lite0",),
}
NUM_CLASSES, ROUNDS = 10, 5
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|ResourceExhausted|out of memory|OOM|MemoryError")


@dataclass(kw_only=True)
class Cell:
    """What one process measures."""

    side: str  # ours or timm
    backbone: str
    precision: str = "float32"
    xla: bool = False
    steps_per_execution: int = 1
    image_size: int
    batch_size: int
    steps: int  # a round
    seconds: float
    photos: list[str] = field(default_factory=list)  # files for the loader
    cache: str = ""  # a folder for their pixels


@dataclass(kw_only=True)
class Measured:
    """What it found: photos a second, a number a round, and why there are none."""

    synthetic: list[float] = field(default_factory=list)
    loader: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)  # by torch.compile
    note: str = ""

    def say(self) -> None:
        """Tells the parent process, which takes what was said last."""
        print(f"\n{json.dumps(asdict(self))}", flush=True)


def measure_ours(cell: Cell) -> None:
    """The step that train.py compiles; see the top of this file."""
    started = time.perf_counter()
    from hydra import compose, initialize_config_dir

    from carcls import runtime
    from carcls.backend import keras
    from carcls.config import to_config
    from carcls.models.classifier import build_classifier
    from carcls.training.epochs import Epochs
    from carcls.training.feed import Feed
    from carcls.training.stages import compile_stage

    overrides = [
        f"backbone={cell.backbone}", "backbone.weights=none", "finetune=full", "head=avg_dense",
        "optimizer=adamax", f"image_size={cell.image_size}", f"batch_size={cell.batch_size}",
        f"runtime.precision={cell.precision}", f"runtime.jit={str(cell.xla).lower()}",
        f"runtime.steps_per_execution={cell.steps_per_execution}",
    ]  # fmt: skip
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", overrides))
    runtime.set_up(config.runtime, seed=config.seed)
    model = build_classifier(config.backbone, config.head, NUM_CLASSES)
    stage = config.finetune.stages["all"]
    steps = -(-cell.steps // cell.steps_per_execution) * cell.steps_per_execution
    fitted = compile_stage(model, config, stage, steps)

    class Rounds(keras.callbacks.Callback):
        """Times epochs until the time is up. Keras has waited for the device when it calls."""

        def __init__(self, share: float, warm_up: int = 0) -> None:
            super().__init__()
            self.until, self.warm_up = started + share * cell.seconds, warm_up
            self.rates: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            if epoch >= self.warm_up:
                self.rates.append(steps * cell.batch_size / (now - self.began))
            self.model.stop_training = now > self.until and bool(self.rates)

    def fit(data: Any, steps: int, epochs: int, callbacks: Sequence = ()) -> None:
        fitted.fit(
            data, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0,
            callbacks=list(callbacks),
        )  # fmt: skip

    found = Measured()
    batch = _synthetic_batch(cell)
    fit(_repeated(batch), 2 * cell.steps_per_execution, 1)
    rounds = Rounds(share=0.5)
    fit(_repeated(batch), steps, ROUNDS, [rounds])
    found.synthetic = rounds.rates
    found.say()
    feed = Feed(_loader(cell))
    try:
        batches = Epochs(feed, steps)
        # As in train.py, where a look at the loss after every execution waits for the device.
        looks = [
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.LambdaCallback(on_epoch_begin=batches.start),
        ]
        rounds = Rounds(share=0.8, warm_up=1)  # the processes start, and are ahead at first
        fit(batches, steps, ROUNDS + 1, [*looks, rounds])
    finally:
        feed.close()
    found.loader = rounds.rates
    found.say()


def _loader(cell: Cell) -> Any:
    """The training loader, on photos that were decoded once."""
    import numpy as np

    from carcls.data.loader import Loader
    from carcls.data.photos import Photos
    from carcls.data.pixel_cache import CacheSettings, decode_once
    from carcls.data.transforms import build_augment
    from carcls.data.workers import default_workers

    photos = Photos(cell.photos, cell.image_size)
    settings = CacheSettings(folder=Path(cell.cache), limit_bytes=50e9)
    decode_once(photos, settings, default_workers(), lambda _: None)
    indices = np.arange(len(photos) // cell.batch_size * cell.batch_size)  # whole batches
    return Loader(
        photos, indices, np.zeros(len(photos), int), batch_size=cell.batch_size, shuffle=True,
        augment=build_augment(policy("photo"), cell.image_size),
    )  # fmt: skip


def _synthetic_batch(cell: Cell) -> tuple[Any, Any]:
    """`(batch, size, size, 3)` uint8 and `(batch,)` int32."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (cell.batch_size, cell.image_size, cell.image_size, 3)
    images = random.integers(0, 256, shape, np.uint8)
    return images, random.integers(0, NUM_CLASSES, cell.batch_size, np.int32)


def _repeated(batch: tuple[Any, Any]) -> Any:
    """One batch without end, as near to the device as `fit` takes it."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(batch).repeat()
    on_device = tuple(keras.ops.convert_to_tensor(array) for array in batch)

    class Repeated(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index: int) -> tuple:
            return on_device

    return Repeated()


def measure_timm(cell: Cell) -> None:
    """timm's network in PyTorch, trained as their users do; first as it is, then compiled."""
    started = time.perf_counter()
    import timm
    import torch

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TensorFlow computes so of itself
    name = next(name for name in IN_TIMM[cell.backbone] if timm.is_model(name))
    network = timm.create_model(name, pretrained=False, num_classes=NUM_CLASSES)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adamax(network.parameters(), lr=1e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    dtype = torch.float16 if cell.precision == "mixed_float16" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    images, labels = (torch.from_numpy(array).to(device) for array in _synthetic_batch(cell))
    labels = labels.long()

    def step(forward: Callable) -> None:
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1  # channels last, as it lies
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=cell.precision != "float32"):
            loss = loss_of(forward(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def rates(forward: Callable, until: float) -> list[float]:
        for _ in range(2):
            step(forward)
        found = []
        while len(found) < ROUNDS and (not found or time.perf_counter() < until):
            if on_gpu:
                torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(cell.steps):
                step(forward)
            if on_gpu:
                torch.cuda.synchronize()
            found.append(cell.steps * cell.batch_size / (time.perf_counter() - began))
        return found

    measured = Measured(note=name)
    measured.synthetic = rates(network, started + 0.3 * cell.seconds)
    measured.say()
    try:
        measured.compiled = rates(torch.compile(network), started + 0.8 * cell.seconds)
    except Exception as error:  # it has many ways to fail, and the answer is the same to all
        if OUT_OF_MEMORY.search(str(error)):
            raise
        told = str(error).strip().splitlines() or [type(error).__name__]
        measured.note = f"{name}; torch.compile failed: {told[0][:100]}"
    measured.say()


def describe_device() -> None:
    """Prints the device, whether it is a GPU, and the backend, as JSON."""
    from carcls import runtime
    from carcls.backend import keras
    from carcls.config import RuntimeConfig

    device = runtime.set_up(RuntimeConfig(), seed=0)
    on_gpu = not device.startswith("CPU")
    print(f"\n{json.dumps([device, on_gpu, keras.backend.backend()])}")


def measure_here(argument: str) -> None:
    """What a process is started for: "device", or a cell as JSON."""
    if argument == "device":
        describe_device()
        return
    cell = Cell(**json.loads(argument))
    {"ours": measure_ours, "timm": measure_timm}[cell.side](cell)
