"""The sources of photos by name; each module has `read_training_photos` and `read_test_photos`.

A source leaves out what `data.exclude` names (`selection.drop_excluded`); what else holds for all
of them is done here.
"""

import logging
from collections import defaultdict

from carcls.config import DataConfig
from carcls.data import cifar, csv_table, demo_source, folder, kaggle
from carcls.data.hierarchy import read_hierarchy, with_hierarchy
from carcls.data.records import TestPhotos, TrainingPhotos, examples
from carcls.data.selection import with_val_ids
from carcls.errors import UserError

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
    """The photos to train on and to validate with, labelled as `config.target` says.

    Says how many were left out, and why.

    Raises:
        UserError: If they are not there or not as the source expects them, or their hierarchy is
            not as it should be.
    """
    photos = SOURCES[config.name].read_training_photos(config)
    if config.val_ids is not None:
        photos = with_val_ids(photos, config)
    photos = with_hierarchy(photos, config)
    _say_what_was_left_out(photos)
    return photos


def read_test_photos(config: DataConfig) -> TestPhotos:
    """The photos to predict for a submission.

    Raises:
        UserError: If they are not there or not as the source expects them.
    """
    photos = SOURCES[config.name].read_test_photos(config)
    if photos.truth is not None and config.target == "coarse":
        photos.truth = _coarse_truth(photos.truth, config)
    return photos


def _coarse_truth(truth: dict[str, str], config: DataConfig) -> dict[str, str] | None:
    """The same with coarse labels; None, which is said, where no hierarchy tells them."""
    try:
        if config.hierarchy is None:  # the data comes with it, and its photos to train on tell it
            hierarchy = SOURCES[config.name].read_training_photos(config).hierarchy or {}
        else:
            hierarchy = read_hierarchy(config.hierarchy)
        return {photo_id: hierarchy[name] for photo_id, name in truth.items()}
    except UserError as error:  # a prediction can do without
        reason = str(error)
    except KeyError as error:
        reason = f"The hierarchy has no coarse class for {error}."
    log.warning(f"WARNING: how many of the photos are told right cannot be said. {reason}")
    return None


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
