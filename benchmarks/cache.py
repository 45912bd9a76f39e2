"""What a cold cache costs: decoding every photo once and then an epoch, against an epoch that
decodes on the way. Both start their processes, and both augment with the `photo` policy at 240 px.

Prints seconds, and last the ratio of the first epochs. The second epoch is printed too: it is what
the cache is for.

    python benchmarks/cache.py [--photos DIR_OR_ARCHIVE] [--workers N] [--repeat TIMES]
"""

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photos import add_photos_argument, photo_files, policy

from carcls.data.loader import Loader
from carcls.data.photos import Photos
from carcls.data.pixel_cache import CacheSettings, decode_once
from carcls.data.transforms import build_augment
from carcls.data.workers import default_workers

SIZE, ROUNDS = 240, 4


def first_and_second_epoch(photos: Photos, workers: int, prepare: Callable[[], None]) -> list:
    """Seconds of both; the first with `prepare` and with the start of the processes."""
    started = time.perf_counter()
    prepare()
    loader = Loader(
        photos, np.arange(len(photos)), np.zeros(len(photos)), batch_size=16, shuffle=True,
        augment=build_augment(policy("photo")), workers=workers,
    )  # fmt: skip
    seconds = []
    for epoch in range(2):
        for _ in loader.epoch(epoch):
            pass
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    loader.close()
    return seconds


def on_the_fly(files: list[str], workers: int) -> list:
    return first_and_second_epoch(Photos(files, SIZE), workers, lambda: None)


def cold(files: list[str], workers: int) -> list:
    with tempfile.TemporaryDirectory() as folder:
        photos, settings = Photos(files, SIZE), CacheSettings(folder=Path(folder), limit_bytes=1e12)

        def prepare() -> None:
            report = decode_once(photos, settings, workers, lambda count: None)
            if report.state != "built":
                sys.exit(f"The cache could not be built: {report.reason}.")

        return first_and_second_epoch(photos, workers, prepare)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add_photos_argument(parser)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--repeat", type=int, default=5, help="copies of every photo")
    arguments = parser.parse_args()
    with photo_files(arguments.photos) as files, tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.repeat):  # other names: a file is decoded once
            for index, file in enumerate(list(files[: len(files) // number])):
                link = Path(folder) / f"{number}_{index}{Path(file).suffix}"
                link.symlink_to(Path(file).absolute())
                files.append(str(link))
        rounds = [
            (on_the_fly(files, arguments.workers), cold(files, arguments.workers))
            for _ in range(ROUNDS)
        ]
    without, with_cache = np.min(rounds, axis=0)
    print(f"{len(files)} photos, {SIZE} px, {arguments.workers} workers\n")
    print(f"{'seconds':30} {'first epoch':>12} {'second':>8}")
    print(f"{'decoding on the fly':30} {without[0]:12.2f} {without[1]:8.2f}")
    print(f"{'cache, cold at first':30} {with_cache[0]:12.2f} {with_cache[1]:8.2f}")
    print(f"\nfirst epoch, cold cache / on the fly: ratio {with_cache[0] / without[0]:.2f}")


if __name__ == "__main__":
    main()
