"""Photos predicted a second, from their files, against what the network alone can do.

efficientnetlite0 at 150 px over 6,675 photos, as many as the competition's. The network alone gets
the same batch again and again: as the predictor runs it, its BatchNorm folded (see folding.py), and
as Keras runs it. They are measured in turns, the processes that open photos started anew in each.
Prints the ratios of the medians last.

    python benchmarks/predict.py [--photos DIR_OR_ARCHIVE] [--count N]
"""

import itertools
import os
import time
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import add_photos_argument, photo_files

import carcls.backend  # noqa: F401
from carcls.models.imagenet import imagenet_classifier
from carcls.prediction.predictor import Predictor

SIZE, BATCH, ROUNDS = 150, 32, 3


def rate_alone(model: Any, seconds: float) -> float:
    """Photos a second without opening any."""
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
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
    model, plain = predictor.model(), imagenet_classifier("efficientnetlite0", weights="imagenet")
    rates = []
    with photo_files(arguments.photos) as files:
        paths = list(itertools.islice(itertools.cycle(files), arguments.count))
        predictor(paths[:BATCH])  # traces the network
        rate_alone(plain, 0.1)
        for part in np.array_split(np.array(paths), ROUNDS):
            started = time.perf_counter()
            predictor(part.tolist(), batch_size=BATCH)
            seconds = time.perf_counter() - started
            rates.append(
                (len(part) / seconds, *(rate_alone(m, seconds / 4) for m in (model, plain)))
            )
            print(
                "from files {:.1f} photos/s, the network {:.1f}, by Keras {:.1f}".format(*rates[-1])
            )
    rate, alone, by_keras = np.median(rates, axis=0)
    print(
        f"{len(paths)} photos from files {rate:.1f} photos/s, the network alone {alone:.1f}, "
        f"as Keras runs it {by_keras:.1f}"
    )
    print(f"from files / the network alone: ratio {rate / alone:.2f}")
    print(f"from files / the network alone as Keras runs it: ratio {rate / by_keras:.2f}")


if __name__ == "__main__":
    main()
