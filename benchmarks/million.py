"""A CSV of a million rows that repeat real photos: index, split and first batch.

What train.py does before its first step, with its defaults and a cold cache, in a process of its
own; and in another one the parts of it that read no pixels. Prints a table, and last the seconds
and the peak of memory up to the first batch. The peak counts every worker process as if it shared
nothing with the others.

    python benchmarks/million.py [--rows N] [--photos DIR_OR_ARCHIVE]
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from photos import ROOT, add_photos_argument, photo_files

from carcls.config import TrainConfig, to_config
from carcls.data.photo_index import is_image
from carcls.data.records import TrainingPhotos
from carcls.data.sources import read_training_photos
from carcls.data.split import stratified_split
from carcls.training.inputs import Inputs, prepare_inputs

CLASSES = 10  # where the photos lie in one folder, which says no class


def write_rows(files: list[str], rows: int, csv: Path) -> Path:
    """Writes a CSV that repeats photos, each class about as often. Returns what ids start from."""
    root = Path(os.path.commonpath([Path(file).parent for file in files]))
    by_class = defaultdict(list)
    several = len({Path(file).parent for file in files}) > 1
    for number, file in enumerate(files):
        name = Path(file).parent.name if several else f"class {number % CLASSES}"
        by_class[name].append(Path(file).relative_to(root).as_posix())
    random = np.random.default_rng(0)
    names = list(by_class)
    pairs = [(photo_id, name) for name, ids in by_class.items() for photo_id in ids][:rows]
    for number in random.integers(0, len(names), rows - len(pairs)).tolist():
        ids = by_class[names[number]]
        pairs.append((ids[random.integers(len(ids))], names[number]))
    lines = ["Id,Category", *(f'"{photo_id}","{name}"' for photo_id, name in pairs)]
    csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def configured(csv: str, root: str, cache: str) -> TrainConfig:
    """The defaults of train.py with data=csv."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["data=csv"])
    cfg.data.csv, cfg.data.root, cfg.data.cache_dir = csv, root, cache
    return to_config(cfg)


def parts(config: TrainConfig) -> dict[str, Any]:
    """Seconds of what needs no pixels, one after the other."""
    seconds = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        seconds[name] = time.perf_counter() - started
        return result

    photos: TrainingPhotos = timed("index", lambda: read_training_photos(config.data))
    timed("fingerprint", photos.fingerprint)
    groups = timed(
        "photos of the rows", lambda: np.unique(photos.table.path, return_inverse=True)[1]
    )
    labels, share = photos.table.label.to_numpy(), config.data.val_split
    timed("split", lambda: stratified_split(labels, share, config.seed, groups))
    return {"seconds": seconds, "gib": gib(resource.RUSAGE_SELF)}


def first_batch(config: TrainConfig) -> dict[str, Any]:
    """Seconds until train.py would have its inputs, and then its first batch."""
    started = time.perf_counter()
    inputs: Inputs = prepare_inputs(config)
    prepared = time.perf_counter()
    loader = inputs.train(next(iter(config.finetune.stages.values())))
    images, _ = next(iter(loader.epoch()))
    seconds = {
        "index, cache and split, as train.py does it": prepared - started,
        f"first batch, {images.shape[0]} photos of {images.shape[1]} px": time.perf_counter()
        - prepared,
    }
    loader.close()
    workers = loader.workers * gib(resource.RUSAGE_CHILDREN)  # of which the largest is told
    return {"seconds": seconds, "gib": gib(resource.RUSAGE_SELF) + workers}


def gib(who: int) -> float:
    """The peak of a process's memory."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(who).ru_maxrss * unit / 2**30


MEASURES = {"parts": parts, "first_batch": first_batch}


def in_process(what: str, *where: Path) -> dict[str, Any]:
    """What one of `MEASURES` gives in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, *map(str, where)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=4, help="this script's own, for its processes")
    add_photos_argument(parser)
    arguments = parser.parse_args()
    if arguments.measure:
        what, *where = arguments.measure
        print(json.dumps(MEASURES[what](configured(*where))))
        return
    with photo_files(arguments.photos) as found, tempfile.TemporaryDirectory() as folder:
        files = [file for file in found if is_image(file)]
        if not files:
            sys.exit(f"Expected photos in {arguments.photos}. Received: {len(found)} other files.")
        csv = Path(folder) / "rows.csv"
        root = write_rows(files, arguments.rows, csv)
        where = csv, root, Path(folder) / "cache"
        alone, whole = in_process("parts", *where), in_process("first_batch", *where)
    print(f"{arguments.rows} rows of {len(files)} photos\n")
    for measured in (alone, whole):
        for name, seconds in measured["seconds"].items():
            print(f"{name:45} {seconds:7.2f} s")
        print(f"{'peak':45} {measured['gib']:7.2f} GiB\n")
    print(f"total {sum(whole['seconds'].values()):.1f} s, {whole['gib']:.2f} GiB")


if __name__ == "__main__":
    main()
