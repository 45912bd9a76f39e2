"""`data=cifar`: the binary files of CIFAR-10 and CIFAR-100, unpacked once into photos.

All else works on files of photos, which have a path and an id: `train/00042.png` is the 43rd record
of the files to train on.
"""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from carcls.config import CifarData
from carcls.console import progress_bar
from carcls.data.archives import default_cache_dir
from carcls.data.cifar_files import Records, read_records
from carcls.data.records import TestPhotos, TrainingPhotos, labelled
from carcls.data.selection import drop_excluded
from carcls.errors import UserError

log = logging.getLogger(__name__)

_AT_ONCE = 500  # photos
_THREADS = 4  # they wait for the disk


def read_training_photos(config: CifarData) -> TrainingPhotos:
    """The photos of `data.part` with their fine classes, and the coarse class of each of these."""
    records = read_records(config, config.part)
    hierarchy = records.hierarchy()
    table = pd.DataFrame(_ids_and_paths(records, config), columns=["id", "path"])
    table["name"] = np.array(records.fine_names, object)[records.fine]
    where = f"the {config.part} part of {records.folder}"
    table, excluded = drop_excluded(table, config, where)
    table = table.reset_index(drop=True)
    photos = labelled(table[["id", "path"]], table.name, excluded, where)
    if hierarchy is not None:
        photos.hierarchy = {name: hierarchy[name] for name in photos.class_names}
    return photos


def read_test_photos(config: CifarData) -> TestPhotos:
    """The test photos, whose classes are known."""
    records = read_records(config, "test")
    ids, paths = zip(*_ids_and_paths(records, config), strict=True)
    names = (records.fine_names[label] for label in records.fine)
    return TestPhotos(
        ids=list(ids),
        paths=list(paths),
        columns=("Id", "Category"),
        truth=dict(zip(ids, names, strict=True)),
    )


def _ids_and_paths(records: Records, config: CifarData) -> list[tuple[str, str]]:
    """Id and file of every record."""
    cache = None if config.cache_dir is None else Path(config.cache_dir).expanduser()
    folder = unpack_photos(records, cache)
    names = [f"{records.part}/{index:05}.png" for index in range(len(records.fine))]
    return [(name, f"{folder}/{name}") for name in names]


def unpack_photos(records: Records, cache_dir: Path | None = None) -> Path:
    """The folder that holds every record as a PNG file, written there by the first call.

    It is keyed by path, size and time of the records' files, is built under a temporary name and
    renamed when whole, so that runs may share it at the same time.

    Args:
        records: What is unpacked.
        cache_dir: Where to. None: `default_cache_dir()`.

    Raises:
        UserError: If it cannot be written.
    """
    cache = (cache_dir or default_cache_dir()) / "unpacked"
    facts = [(path.resolve(), path.stat()) for path in records.files]
    key = "\n".join(f"{path}\n{info.st_size}\n{info.st_mtime_ns}" for path, info in facts)
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = cache / f"{records.folder.name}-{records.part}-{digest}"
    if target.is_dir():
        return target
    building = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=cache))
        with progress_bar() as bar:
            name = f"unpacking the {records.part} photos of {records.layout.name}"
            task = bar.add_task(name, total=len(records.fine), note="")
            _write_all(records, building, lambda count: bar.advance(task, count))
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another run was faster; its copy is as good
                raise
    except OSError as error:
        raise UserError(
            f"Unpacking {records.folder} into {cache} failed: {error.strerror or error}. "
            "Choose another place with data.cache_dir=DIR."
        ) from error
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    log.info(
        f"The {len(records.fine)} {records.part} photos of {records.folder}, in "
        f"{records.layout.name}'s layout, are files in {target} now."
    )
    return target


def _write_all(records: Records, folder: Path, progress: Callable[[int], None]) -> None:
    """Writes every record as `part/number.png`."""
    (folder / records.part).mkdir()
    starts = np.cumsum([0, *map(len, records.pixels)])
    tasks = [
        (pixels[first : first + _AT_ONCE], folder / records.part, int(start) + first)
        for pixels, start in zip(records.pixels, starts, strict=False)
        for first in range(0, len(pixels), _AT_ONCE)
    ]
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            for count in threads.map(lambda task: _write(*task), tasks):
                progress(count)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _write(pixels: np.ndarray, folder: Path, first: int) -> int:
    """Writes `(n, 3, 32, 32)` uint8 RGB planes as photos numbered from `first`; returns `n`."""
    for index, photo in enumerate(pixels, start=first):
        bgr = np.ascontiguousarray(photo[::-1].transpose(1, 2, 0))
        _, png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        (folder / f"{index:05}.png").write_bytes(png)
    return len(pixels)
