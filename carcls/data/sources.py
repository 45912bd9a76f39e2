"""The sources of photos by name; each module has `read_training_photos` and `read_test_photos`."""

from carcls.config import DataConfig
from carcls.data import demo_source, folder, kaggle
from carcls.data.records import TestPhotos, TrainingPhotos

SOURCES = {"kaggle": kaggle, "folder": folder, "demo": demo_source}


def read_training_photos(config: DataConfig) -> TrainingPhotos:
    """The photos to train on and to validate with.

    Raises:
        UserError: If they are not there or not as the source expects them.
    """
    return SOURCES[config.name].read_training_photos(config)


def read_test_photos(config: DataConfig) -> TestPhotos:
    """The photos to predict for a submission.

    Raises:
        UserError: If they are not there or not as the source expects them.
    """
    return SOURCES[config.name].read_test_photos(config)
