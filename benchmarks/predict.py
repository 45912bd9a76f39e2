"""Photos predicted a second, from their files, against what the network alone can do.

efficientnetlite0 at 150 px over 6,675 photos, as many as the competition's. The network alone gets
the same batch again and again; it is measured before and after. Prints the ratio last.

    python benchmarks/predict.py [--photos DIR_OR_ARCHIVE] [--count N]
"""

import itertools
import os
import time
from argparse import ArgumentParser
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import add_photos_argument, photo_files

import carcls.backend  # noqa: F401
from carcls.prediction.predictor import Predictor

SIZE, BATCH = 150, 32
ALONE_SECONDS = 10.0


def rate_alone(predictor: Predictor) -> float:
    """Photos a second without opening any."""
    model = predictor.load()
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8)
    for _ in range(3):
        model.predict_on_batch(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < ALONE_SECONDS:
        model.predict_on_batch(batch)
        count += BATCH
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add_photos_argument(parser)
    parser.add_argument("--count", type=int, default=6675)
    arguments = parser.parse_args()
    predictor = Predictor.pretrained("efficientnetlite0")
    predictor.info = replace(predictor.info, image_size=SIZE, resize="squash")
    with photo_files(arguments.photos) as files:
        paths = list(itertools.islice(itertools.cycle(files), arguments.count))
        predictor(paths[:BATCH])  # the network is loaded and traced
        before = rate_alone(predictor)
        started = time.perf_counter()
        predictor(paths, batch_size=BATCH)
        rate = len(paths) / (time.perf_counter() - started)
        after = rate_alone(predictor)
    alone = (before + after) / 2
    print(f"the network alone       {alone:7.1f} photos/s ({before:.1f} before, {after:.1f} after)")
    print(f"{len(paths)} photos from files {rate:7.1f} photos/s")
    print(f"from files / the network alone: ratio {rate / alone:.2f}")


if __name__ == "__main__":
    main()
