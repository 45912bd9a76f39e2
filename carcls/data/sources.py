"""The sources of photos by name; each module has `read_training_photos` and `read_test_photos`.

A source leaves out what `data.exclude` names (`selection.drop_excluded`); what else holds for all
of them is done here.
"""

import logging
from collections import defaultdict

from carcls.config import DataConfig
from carcls.data import cifar, csv_table, demo_source, folder, kaggle
from carcls.data.records import TestPhotos, TrainingPhotos, examples
from carcls.data.selection import with_val_ids

log = logging.getLogger(__name__)

SOURCES = {
    "kaggle": kaggle,
    "folder": folder,
    "csv": csv_table,
    "cifar": cifar,
    "demo": demo_source,
}
_REASONS_SHOWN = 5


def read_training_photos(config: DataConfig) -> TrainingPhotos:
    """The photos to train on and to validate with.

    Says how many were left out, and why.

    Raises:
        UserError: If they are not there or not as the source expects them.
    """
    photos = SOURCES[config.name].read_training_photos(config)
    if config.val_ids is not None:
        photos = with_val_ids(photos, config)
    _say_what_was_left_out(photos)
    return photos


def read_test_photos(config: DataConfig) -> TestPhotos:
    """The photos to predict for a submission.

    Raises:
        UserError: If they are not there or not as the source expects them.
    """
    return SOURCES[config.name].read_test_photos(config)


def _say_what_was_left_out(photos: TrainingPhotos) -> None:
    if not photos.skipped:
        return
    ids_of = defaultdict(list)
    for photo_id, reason in photos.skipped:
        ids_of[reason].append(photo_id)
    said = [f"{len(ids)} × {reason} ({examples(ids)})" for reason, ids in ids_of.items()]
    has_folders = any(photo_id.endswith("/") for photo_id, _ in photos.skipped)
    what = "rows, photos or folders" if has_folders else "rows or photos"
    log.info(
        f"Left out {len(photos.skipped)} {what}, {len(photos.table)} remain: "
        f"{examples(said, _REASONS_SHOWN)}. All are listed in run.json."
    )
