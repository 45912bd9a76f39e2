"""From the user's photos to the two loaders of a training run. Imports no Keras."""

import functools
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from carcls.config import StageConfig, TrainConfig
from carcls.console import progress_bar
from carcls.data.balance import class_weights
from carcls.data.folds import choose_folds, pooled
from carcls.data.loader import Loader
from carcls.data.mixing import mix_batch
from carcls.data.photos import Photos, near_duplicates
from carcls.data.pixel_cache import CacheReport, CacheSettings, decode_once
from carcls.data.records import TrainingPhotos, examples, opened_in_part
from carcls.data.sources import read_training_photos
from carcls.data.split import stratified_split
from carcls.data.transforms import build_augment
from carcls.data.workers import workers_for
from carcls.errors import UserError

log = logging.getLogger(__name__)

# Where photos are not decoded once, each is opened before the split all the same, so that the cache
# changes nothing; of more than this, those that cannot be opened are told when they are met.
_OPENED_FIRST = 100_000


@dataclass(kw_only=True)
class Inputs:
    """What a run trains on and validates with.

    Attributes:
        records: All photos, but for those that could not be opened.
        is_val: `(n,)` bool over `records.table`; none are True when all of them train.
        photos: The same photos as pixels, at the working size of the first stage.
        cache: Whether they are decoded once, a report for every size so far.
        fingerprint: Of the data as it was found.
        config: Of the run.
        seconds: What it took to prepare all this.
        folds: `(n,)` the fold, counted from 1, that each photo validates in; None without folds.
        fold: Which of them validates here.
        changes: What was not as the data has it, in words.
        groups: `(n,)` numbers, the same for photos that must stay together; None: each file is one.
    """

    records: TrainingPhotos
    is_val: np.ndarray
    photos: Photos
    cache: list[CacheReport]
    fingerprint: str
    config: TrainConfig
    seconds: float
    folds: np.ndarray | None = None
    fold: int | None = None
    changes: list[str] = field(default_factory=list)
    groups: np.ndarray | None = None
    _other_sizes: dict[tuple[int, bool], Photos] = field(default_factory=dict, repr=False)

    @property
    def lost(self) -> dict[int, str]:
        """Index of a photo to why it could not be opened, later than before the split."""
        return {index: why for photos in self._every for index, why in photos.errors.items()}

    @property
    def notes(self) -> dict[int, str]:
        """Index of a photo that was opened only in part to what was odd about it."""
        return {index: note for photos in self._every for index, note in photos.notes.items()}

    @property
    def _every(self) -> list[Photos]:
        return [self.photos, *self._other_sizes.values()]

    def train(self, stage: StageConfig) -> Loader:
        """Batches to train on, in the size and number that the stage asks for."""
        config = self.config
        size = config.train_size(stage)
        policy, mixing = config.augmentation, config.mixing(stage)
        photos = self._at(policy.working_size(size), of_validation=False)
        return self._loader(
            photos,
            ~self.is_val,
            stage,
            shuffle=True,
            is_balanced=config.data.balance == "sampling",
            weigh=config.data.balance == "weights",
            augment=build_augment(policy.train, size),
            size=size,
            mix=functools.partial(
                mix_batch,
                mixup=mixing["mixup"],
                cutmix=mixing["cutmix"],
                probability=mixing["mix_probability"],
            )
            if mixing
            else None,
            label_smoothing=stage.label_smoothing,
        )

    def train_as_validated(self, stage: StageConfig) -> Loader:
        """The photos to train on as validation would show them: in its size, not augmented."""
        photos = self._at(stage.image_size or self.config.image_size, of_validation=False)
        return self._loader(photos, ~self.is_val, stage)

    def val(self, stage: StageConfig) -> Loader | None:
        """Batches to validate with, as a stage sees them; None when all photos train."""
        if not self.is_val.any():
            return None
        photos = self._at(stage.image_size or self.config.image_size, of_validation=True)
        return self._loader(photos, self.is_val, stage)

    def of_fold(self, fold: int) -> "Inputs":
        """The same photos, another fold of which validates; none is decoded twice for it."""
        return replace(
            self,
            is_val=self.folds == fold,
            fold=fold,
            cache=list(self.cache),
            seconds=0.0,
            # Those to validate with are others now.
            _other_sizes={key: photos for key, photos in self._other_sizes.items() if not key[1]},
        )

    def class_counts(self) -> list[int]:
        """Training photos of each class."""
        labels = self.records.table.label.to_numpy()[~self.is_val]
        return np.bincount(labels, minlength=len(self.records.class_names)).tolist()

    def _at(self, size: int, of_validation: bool) -> Photos:
        """The photos at a size: all, or only those to validate with, where that is less work."""
        if size == self.photos.size:
            return self.photos
        for key in ((size, False), (size, of_validation)):
            if key in self._other_sizes:
                return self._other_sizes[key]
        chosen = np.flatnonzero(self.is_val) if of_validation else np.arange(len(self.photos))
        paths, mode = self.photos.paths, self.photos.resize_mode
        some = Photos([paths[index] for index in chosen], size, mode)
        self.cache.append(_decode(some, self.config))
        if some.errors and self.config.data.on_error == "raise":
            raise _cannot_be_opened(some)
        photos = Photos(paths, size, mode, some.pixels)
        if some.rows is not None:
            photos.rows = np.full(len(paths), -1)
            photos.rows[chosen] = some.rows
        photos.errors = {int(chosen[index]): why for index, why in some.errors.items()}
        photos.notes = {int(chosen[index]): note for index, note in some.notes.items()}
        self._other_sizes[size, of_validation] = photos
        return photos

    def _loader(
        self,
        photos: Photos,
        chosen: np.ndarray,
        stage: StageConfig,
        weigh: bool = False,
        **options: Any,
    ) -> Loader:
        indices = np.flatnonzero(chosen)
        if lost := self.lost:
            indices = indices[~np.isin(indices, list(lost))]
            if not len(indices):
                raise _cannot_be_opened(photos)
        config = self.config
        labels = self.records.table.label.to_numpy()
        num_classes = len(self.records.class_names)
        return Loader(
            photos,
            indices,
            labels,
            batch_size=stage.batch_size or config.batch_size,
            seed=config.seed,
            workers=config.runtime.workers,
            on_error=config.data.on_error,
            num_classes=num_classes if config.labels_are_shares(stage) else None,
            class_weights=class_weights(labels[indices], num_classes) if weigh else None,
            **options,
        )


def prepare_inputs(config: TrainConfig) -> Inputs:
    """Finds the photos, decodes each once, at the first stage's size, and splits them.

    Raises:
        UserError: If the data is not as expected, or a photo cannot be opened and
            `data.on_error` is `raise`.
    """
    started = time.perf_counter()
    # A policy's mistakes are told before minutes of decoding.
    build_augment(config.augmentation.train, config.image_size)
    records = read_training_photos(config.data)
    changes: list[str] = []
    if config.data.refit:
        records.table = records.table.drop(columns="is_val", errors="ignore")
    elif config.data.folds:
        records, changes = pooled(records, config.data.folds)
    fingerprint = records.fingerprint()
    first = next(iter(config.finetune.stages.values()))
    size = config.augmentation.working_size(config.train_size(first))
    photos = Photos(records.table.path.tolist(), size, config.data.resize)
    cache = [_decode(photos, config, before_the_split=True)]
    records, photos = _without_unreadable(records, photos, config.data.on_error)
    if photos.notes:
        log.info(opened_in_part([records.table.id.iloc[i] for i in sorted(photos.notes)]))
    folds = None
    if config.data.folds:
        groups = _groups(photos, config)
        folds = choose_folds(records, config.data.folds, config.seed, groups)
        is_val = folds == 1
    else:
        is_val, groups = _choose_validation(records, photos, config)
    return Inputs(
        records=records,
        is_val=is_val,
        folds=folds,
        fold=None if folds is None else 1,
        changes=changes,
        groups=groups,
        photos=photos,
        cache=cache,
        fingerprint=fingerprint,
        config=config,
        seconds=time.perf_counter() - started,
    )


def _choose_validation(
    records: TrainingPhotos, photos: Photos, config: TrainConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """`(n,)` bool, and the groups that were kept on one side, where some have several photos."""
    labels, groups = records.table.label.to_numpy(), None
    if config.data.refit:
        return np.zeros(len(labels), bool), None
    if "is_val" in records.table:
        is_val = records.table.is_val.to_numpy()
        if config.data.group_near_duplicates:
            log.warning(
                "WARNING: data.group_near_duplicates has no effect: the data says which photos "
                "validate."
            )
    else:
        groups = _groups(photos, config)
        is_val = stratified_split(records.strata(), config.data.val_split, config.seed, groups)
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
    return is_val, groups


def _groups(photos: Photos, config: TrainConfig) -> np.ndarray | None:
    """`(n,)` numbers, the same for photos that must not be on both sides of the split."""
    _, groups = photos.files()
    if config.data.group_near_duplicates:
        workers = workers_for(len(photos), config.runtime.workers)
        with progress_bar() as bar:
            task = bar.add_task("looking for near duplicates", total=len(photos), note="")
            groups = near_duplicates(photos, workers, lambda count: bar.advance(task, count))
        several = np.bincount(groups)[groups] > 1
        log.info(
            f"{several.sum()} of {len(photos)} photos have near duplicates: in "
            f"{len(np.unique(groups[several]))} groups, each on one side of the split."
        )
    return groups if len(np.unique(groups)) < len(photos) else None


def _decode(photos: Photos, config: TrainConfig, before_the_split: bool = False) -> CacheReport:
    data = config.data
    folder = None if data.cache_dir is None else Path(data.cache_dir).expanduser()
    settings = CacheSettings(folder=folder, limit_bytes=data.cache_limit * 1e9)
    num_files = len(set(photos.paths))
    workers = workers_for(num_files, config.runtime.workers)
    with progress_bar() as bar:
        task = bar.add_task("opening photos", total=num_files, note="")

        def progress(count: int) -> None:
            bar.advance(task, count)

        report = decode_once(photos, settings, workers, progress)
        if report.state == "off":
            log.info(
                f"Photos are read anew in every epoch: decoded to {photos.size} px they would take "
                f"{report.num_bytes / 1e9:.1f} GB, {report.reason}."
            )
            if before_the_split and num_files <= _OPENED_FIRST:
                photos.decode_all(keep=False, workers=workers, progress=progress)
            elif before_the_split:
                log.info(
                    f"These are more than {_OPENED_FIRST:,} photos: those that cannot be opened "
                    "are told when they are met, and another one of their batch stands in."
                )
    return report


def _without_unreadable(
    records: TrainingPhotos, photos: Photos, on_error: str
) -> tuple[TrainingPhotos, Photos]:
    if not photos.errors:
        return records, photos
    if on_error == "raise" or len(photos.errors) == len(photos):
        raise _cannot_be_opened(photos)
    log.info(
        f"Left out {len(photos.errors)} of {len(photos)} photos, which cannot be opened: "
        f"{_reasons(photos)}. All are listed in run.json."
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
        table=table,
        class_names=records.class_names,
        skipped=records.skipped + bad,
        hierarchy=records.hierarchy,
    ), photos


def _reasons(photos: Photos) -> str:
    reasons = [f"{photos.paths[i]} ({reason})" for i, reason in sorted(photos.errors.items())]
    return examples(reasons)


def _cannot_be_opened(photos: Photos) -> UserError:
    are_all = len(photos.errors) == len(photos)
    return UserError(
        f"Expected photos that can be opened. Received {len(photos.errors)} of {len(photos)} that "
        f"cannot: {_reasons(photos)}."
        + ("" if are_all else " Leave them out with data.on_error=skip.")
    )
