"""Training photos a second: this project's loader against other ways to feed a network.

All but the first do the same work: decoded photos of 240 px, each under the `photo` policy with a
seed of its own, to batches of 16. The first is what the notebook did: Keras' ImageDataGenerator
(the `geometric` moves), which reads its files in one process. Prints a table, then the two ratios.

    python benchmarks/loader.py [--photos DIR_OR_ARCHIVE] [--workers N]
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import add_photos_argument, photo_files, policy

from carcls.data.loader import Loader
from carcls.data.photos import Photos
from carcls.data.preparing import photo_seed
from carcls.data.transforms import build_augment
from carcls.data.workers import default_workers

SIZE, BATCH, SEED = 240, 16, 42
ROUNDS = 12
COUNTED, WARM_UP = 96, 16  # batches
STEPS = policy("photo")


class Work:
    """Batch `s` of the stream, for candidates that have no loader of their own."""

    def __init__(self, photos: Photos) -> None:
        self.pixels = photos.pixels.array[photos.rows]
        self._augment = None

    def __len__(self) -> int:
        return len(self.pixels) // BATCH

    def photo(self, epoch: int, index: int, augment: Callable) -> np.ndarray:
        return augment(self.pixels[index], photo_seed(SEED, epoch, index))

    def batch(self, step: int) -> np.ndarray:
        """`(16, 240, 240, 3)` uint8."""
        if self._augment is None:  # in each process or thread its own
            self._augment = build_augment(STEPS)
        epoch, number = divmod(step, len(self))
        order = np.random.default_rng([SEED, epoch]).permutation(len(self) * BATCH)
        chosen = order[number * BATCH :][:BATCH]
        return np.stack([self.photo(epoch, int(index), self._augment) for index in chosen])

    def __getstate__(self) -> dict:
        return {"pixels": self.pixels, "_augment": None}


def ours(photos: Photos, workers: int) -> Iterator[np.ndarray]:
    count = len(photos) // BATCH * BATCH
    loader = Loader(
        photos, np.arange(count), np.zeros(len(photos)), batch_size=BATCH, shuffle=True,
        augment=build_augment(STEPS), seed=SEED, workers=workers,
    )  # fmt: skip
    try:
        for images, _ in loader.from_step(0):
            yield images
    finally:
        loader.close()


def threads(photos: Photos, workers: int) -> Iterator[np.ndarray]:
    works = [Work(photos) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        ahead = []
        for step in range(10**9):
            ahead.append(pool.submit(works[step % workers].batch, step))
            if len(ahead) > 3 * workers:
                yield ahead.pop(0).result()


def keras_py_dataset(photos: Photos, workers: int) -> Iterator[np.ndarray]:
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

    class Dataset(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=workers, use_multiprocessing=True)
            self.work = Work(photos)

        def __len__(self) -> int:
            return 10**5

        def __getitem__(self, step: int) -> np.ndarray:
            return self.work.batch(step)

    enqueuer = OrderedEnqueuer(Dataset(), workers=workers, use_multiprocessing=True)
    enqueuer.start()
    try:
        yield from enqueuer.get()
    finally:
        enqueuer.stop()


def tf_data(photos: Photos, workers: int) -> Iterator[np.ndarray]:
    import tensorflow as tf

    work = Work(photos)
    augments = [build_augment(STEPS) for _ in range(4 * workers)]  # of each call in flight its own

    def photo(epoch: np.int64, index: np.int64) -> np.ndarray:
        augment = augments.pop()
        try:
            return work.photo(int(epoch), int(index), augment)
        finally:
            augments.append(augment)

    def plan() -> Iterator[tuple[int, int]]:
        for epoch in range(10**6):
            for index in np.random.default_rng([SEED, epoch]).permutation(len(work) * BATCH):
                yield epoch, int(index)

    spec = (tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(plan, output_signature=spec)
    dataset = dataset.map(
        lambda epoch, index: tf.numpy_function(photo, [epoch, index], tf.uint8),
        num_parallel_calls=workers,
        deterministic=True,
    )
    yield from dataset.batch(BATCH).prefetch(4).as_numpy_iterator()


def grain_processes(photos: Photos, workers: int) -> Iterator[np.ndarray]:
    import grain

    work = Work(photos)
    dataset = (
        grain.MapDataset.range(10**5)
        .map(work.batch)
        .to_iter_dataset()
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    )
    yield from dataset


def notebook(files: list[str], _: int) -> Iterator[np.ndarray]:
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "all").mkdir()
        for number, file in enumerate(files):
            shutil.copy(file, Path(folder) / "all" / f"{number}.jpg")
        generator = ImageDataGenerator(
            rotation_range=5, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.1,
            zoom_range=0.1, fill_mode="reflect",
        )  # fmt: skip
        flow = generator.flow_from_directory(
            folder, (SIZE, SIZE), batch_size=BATCH, class_mode=None, seed=SEED
        )
        yield from flow


OURS = "ours: processes, shared memory"
ONE = "ours, in one process"
NOTEBOOK = "the notebook's ImageDataGenerator"
OTHERS = {
    NOTEBOOK: notebook,
    "threads": threads,
    "Keras PyDataset, multiprocessing": keras_py_dataset,
    "tf.data, numpy functions": tf_data,
    "grain, mp_prefetch": grain_processes,
}


def decoded(files: list[str], workers: int) -> Photos:
    photos = Photos(files, SIZE)
    photos.decode_all(keep=True, workers=workers, progress=lambda count: None)
    return photos


def rate(batches: Iterator[np.ndarray]) -> float:
    """Photos a second over the next batches, after those that were made meanwhile."""
    for _ in range(WARM_UP):
        next(batches)
    started = time.perf_counter()
    count = sum(len(next(batches)) for _ in range(COUNTED))
    return count / (time.perf_counter() - started)


def measure_other(name: str, files: list[str], workers: int) -> tuple[float, str]:
    """The best of some rounds, and a hash of a batch that all should make alike."""
    photos = files if name == NOTEBOOK else decoded(files, workers)
    batches = OTHERS[name](photos, workers)
    first = [next(batches) for _ in range(WARM_UP)]
    rates = [rate(batches) for _ in range(2 if name == NOTEBOOK else 4)]
    return max(rates), _digest(first[3])


def measure_ours(photos: Photos, workers: int) -> tuple[float, float, str]:
    """In one process, and in several: measured in turns, the best round of each."""
    streams = [ours(photos, 0), ours(photos, workers)]
    first = [[next(stream) for _ in range(WARM_UP)] for stream in streams]
    digests = {_digest(batches[3]) for batches in first}
    if len(digests) > 1:
        sys.exit("The number of processes changes the batches.")
    rates = [[rate(stream) for stream in streams] for _ in range(ROUNDS)]
    streams[1].close()
    return *np.max(rates, axis=0), digests.pop()


def _digest(batch: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(batch)).hexdigest()


def in_a_process(name: str, files: list[str], workers: int) -> tuple[float, str] | None:
    """`measure_other` where it disturbs nobody; None if a package is missing."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as listed:
        json.dump(files, listed)
        listed.flush()
        command = [sys.executable, __file__, "--only", name, listed.name, str(workers)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = answer.stderr.strip().splitlines()[-1]
        print(f"{name:38} not measured: {reason}")
        return None
    speed, digest = answer.stdout.split()[-2:]
    return float(speed), digest


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add_photos_argument(parser)
    parser.add_argument("--workers", type=int, default=default_workers())
    arguments = parser.parse_args()
    with photo_files(arguments.photos) as files:
        workers = arguments.workers
        print(f"{len(files)} photos, {SIZE} px, batches of {BATCH}, {workers} workers\n")
        print(f"{'':38} {'photos/s':>9}  same batches")
        rates = {}
        for name in OTHERS:
            measured = in_a_process(name, files, workers)
            if measured is not None:
                rates[name] = measured
        photos = decoded(files, workers)
        one, several, digest = measure_ours(photos, workers)
    rates |= {ONE: (one, digest), OURS: (several, digest)}
    for name, (speed, its_digest) in rates.items():
        same = "-" if name == NOTEBOOK else "yes" if its_digest == digest else "no"
        print(f"{name:38} {speed:9.0f}  {same}")
    print()
    if NOTEBOOK in rates:
        print(f"ours / the notebook's ImageDataGenerator: ratio {several / rates[NOTEBOOK][0]:.2f}")
    print(f"ours / in one process: ratio {several / one:.2f}")


if __name__ == "__main__":
    if "--only" in sys.argv:
        name, listed, count = sys.argv[2:]
        print(*measure_other(name, json.loads(Path(listed).read_text()), int(count)))
        sys.stdout.flush()
        os._exit(0)  # some candidates' processes would keep it alive
    main()
