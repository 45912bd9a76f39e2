"""From the user's photos to the two loaders of a training run. Imports no Keras."""

import logging
import time
from dataclasses import dataclass

import numpy as np

from carcls.config import TrainConfig
from carcls.console import progress_bar
from carcls.data.loader import Loader, Photos, default_workers
from carcls.data.records import TrainingPhotos, examples
from carcls.data.sources import read_training_photos
from carcls.data.split import stratified_split
from carcls.data.transforms import build_augment
from carcls.errors import UserError

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Inputs:
    """What a run trains on and validates with.

    Attributes:
        records: All photos that could be opened.
        is_val: `(n,)` bool over `records.table`.
        train, val: The loaders.
        fingerprint: Of the data as it was found.
        in_memory: Whether the decoded photos are kept in memory.
        seconds: What it took to prepare all this.
    """

    records: TrainingPhotos
    is_val: np.ndarray
    train: Loader
    val: Loader
    fingerprint: str
    in_memory: bool
    seconds: float

    def class_counts(self) -> list[int]:
        """Training photos of each class."""
        labels = self.records.table.label.to_numpy()[~self.is_val]
        return np.bincount(labels, minlength=len(self.records.class_names)).tolist()


def prepare_inputs(config: TrainConfig) -> Inputs:
    """Finds the photos, opens each once, splits them and sets the loaders up.

    Raises:
        UserError: If the data is not as expected, or a photo cannot be opened and
            `data.on_error` is `raise`.
    """
    started = time.perf_counter()
    # A policy's mistakes are told before minutes of decoding.
    build_augment(config.augmentation.train)
    records = read_training_photos(config.data)
    fingerprint = records.fingerprint()
    photos = Photos(records.table.path.tolist(), config.image_size, config.data.resize)
    in_memory = photos.bytes_in_memory() <= config.data.memory_limit_gb * 1e9
    workers = config.runtime.workers or default_workers()
    _decode(photos, in_memory, workers)
    records, photos = _without_unreadable(records, photos, config.data.on_error)

    labels = records.table.label.to_numpy()
    if "is_val" in records.table:
        is_val = records.table.is_val.to_numpy()
    else:
        is_val = stratified_split(labels, config.data.val_split, config.seed)
    for name, count in (("train on", np.sum(~is_val)), ("validate with", np.sum(is_val))):
        if count == 0:
            raise UserError(
                f"Expected photos to {name}. Received: none of {len(labels)}. "
                "At least one class needs two photos."
            )
    common = {"batch_size": config.batch_size, "seed": config.seed, "workers": workers}
    return Inputs(
        records=records,
        is_val=is_val,
        train=Loader(
            photos,
            np.flatnonzero(~is_val),
            labels,
            shuffle=True,
            augment=lambda: build_augment(config.augmentation.train),
            **common,
        ),
        val=Loader(photos, np.flatnonzero(is_val), labels, **common),
        fingerprint=fingerprint,
        in_memory=in_memory,
        seconds=time.perf_counter() - started,
    )


def _decode(photos: Photos, keep: bool, workers: int) -> None:
    with progress_bar() as bar:
        task = bar.add_task("opening photos", total=len(photos), note="")
        photos.decode_all(
            keep=keep, workers=workers, progress=lambda count: bar.advance(task, count)
        )
    if not keep:
        log.info(
            f"{photos.bytes_in_memory() / 1e9:.1f} GB of decoded photos exceed "
            "data.memory_limit_gb: photos are decoded anew in every epoch."
        )


def _without_unreadable(
    records: TrainingPhotos, photos: Photos, on_error: str
) -> tuple[TrainingPhotos, Photos]:
    if not photos.errors:
        return records, photos
    reasons = [f"{photos.paths[i]} ({reason})" for i, reason in sorted(photos.errors.items())]
    if on_error == "raise" or len(reasons) == len(photos):
        advice = " Leave them out with data.on_error=skip." if len(reasons) < len(photos) else ""
        raise UserError(
            f"Expected photos that can be opened. Received {len(reasons)} of {len(photos)} that "
            f"cannot: {examples(reasons)}.{advice}"
        )
    log.info(
        f"Left out {len(reasons)} of {len(photos)} photos, which cannot be opened: "
        f"{examples(reasons)}. All are listed in run.json."
    )
    bad = [(records.table.id.iloc[i], reason) for i, reason in sorted(photos.errors.items())]
    photos, good = photos.without_errors()
    table = records.table[good].reset_index(drop=True)
    lost = sorted(set(range(len(records.class_names))) - set(table.label))
    if lost:
        names = [records.class_names[i] for i in lost]
        raise UserError(
            f"Expected at least one photo that can be opened in every class. "
            f"Received none in: {examples(names)}."
        )
    return TrainingPhotos(
        table=table, class_names=records.class_names, skipped=records.skipped + bad
    ), photos
