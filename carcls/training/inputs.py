"""From the user's photos to the two loaders of a training run. Imports no Keras."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from carcls.config import StageConfig, TrainConfig
from carcls.console import progress_bar
from carcls.data.loader import Loader, Photos, default_workers
from carcls.data.records import TrainingPhotos, examples, opened_in_part
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
        is_val: `(n,)` bool over `records.table`; none are True when all of them train.
        photos: The same photos as pixels, at the size that was asked for last.
        notes: Photos that were opened only in part, as (id, what was odd).
        lost: Index of a photo to why it could be opened no longer, later than at the start.
        fingerprint: Of the data as it was found.
        config: Of the run.
        seconds: What it took to prepare all this.
    """

    records: TrainingPhotos
    is_val: np.ndarray
    photos: Photos
    notes: list[tuple[str, str]]
    fingerprint: str
    config: TrainConfig
    seconds: float
    lost: dict[int, str] = field(default_factory=dict)

    def train(self, stage: StageConfig) -> Loader:
        """Batches to train on, in the size and number that the stage asks for."""
        self._resize(stage)
        self.lost |= self.photos.errors
        return self._loader(
            self.photos,
            ~self.is_val,
            stage,
            shuffle=True,
            augment=lambda: build_augment(self.config.augmentation.train),
        )

    def val(self, stage: StageConfig) -> Loader | None:
        """Batches to validate with, as a stage sees them; None when all photos train."""
        if not self.is_val.any():
            return None
        size = stage.image_size or self.config.image_size
        if self.photos.size == size:
            return self._loader(self.photos, self.is_val, stage)
        # After a later stage of another size: not worth decoding the training photos for.
        paths, mode = self.photos.paths, self.photos.resize_mode
        return self._loader(Photos(paths, size, mode), self.is_val, stage)

    def class_counts(self) -> list[int]:
        """Training photos of each class."""
        labels = self.records.table.label.to_numpy()[~self.is_val]
        return np.bincount(labels, minlength=len(self.records.class_names)).tolist()

    def _resize(self, stage: StageConfig) -> None:
        size = stage.image_size or self.config.image_size
        if size != self.photos.size:
            self.photos.pixels = None  # room for the new ones
            self.photos = Photos(self.photos.paths, size, self.photos.resize_mode)
            if _fits_in_memory(self.photos, self.config):
                _decode(self.photos, True, self._workers)

    def _loader(
        self, photos: Photos, chosen: np.ndarray, stage: StageConfig, **options: Any
    ) -> Loader:
        return Loader(
            photos,
            np.array([i for i in np.flatnonzero(chosen) if i not in self.lost], int),
            self.records.table.label.to_numpy(),
            batch_size=stage.batch_size or self.config.batch_size,
            seed=self.config.seed,
            workers=self._workers,
            **options,
        )

    @property
    def _workers(self) -> int:
        return self.config.runtime.workers or default_workers()


def _fits_in_memory(photos: Photos, config: TrainConfig) -> bool:
    return photos.bytes_in_memory() <= config.data.memory_limit_gb * 1e9


def prepare_inputs(config: TrainConfig) -> Inputs:
    """Finds the photos, opens each once, at the first stage's size, and splits them.

    Raises:
        UserError: If the data is not as expected, or a photo cannot be opened and
            `data.on_error` is `raise`.
    """
    started = time.perf_counter()
    # A policy's mistakes are told before minutes of decoding.
    build_augment(config.augmentation.train)
    records = read_training_photos(config.data)
    if config.data.refit:
        records.table = records.table.drop(columns="is_val", errors="ignore")
    fingerprint = records.fingerprint()
    first = next(iter(config.finetune.stages.values()))
    size = first.image_size or config.image_size
    photos = Photos(records.table.path.tolist(), size, config.data.resize)
    _decode(photos, _fits_in_memory(photos, config), config.runtime.workers or default_workers())
    records, photos = _without_unreadable(records, photos, config.data.on_error)
    if photos.notes:
        log.info(opened_in_part([records.table.id.iloc[i] for i in sorted(photos.notes)]))
    return Inputs(
        records=records,
        is_val=_choose_validation(records, config),
        photos=photos,
        notes=[(records.table.id.iloc[i], note) for i, note in sorted(photos.notes.items())],
        fingerprint=fingerprint,
        config=config,
        seconds=time.perf_counter() - started,
    )


def _choose_validation(records: TrainingPhotos, config: TrainConfig) -> np.ndarray:
    labels = records.table.label.to_numpy()
    if config.data.refit:
        return np.zeros(len(labels), bool)
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
    absent = sorted(set(labels) - set(labels[~is_val]))
    if absent:
        names = [records.class_names[i] for i in absent]
        raise UserError(
            "Expected at least one photo to train on in every class. "
            f"Received photos to validate with only, in: {examples(names)}."
        )
    return is_val


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
