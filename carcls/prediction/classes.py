"""Whether a run knows the classes of other data than its own."""

import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd

from carcls.config import CifarData, CsvData, DataConfig, FolderData
from carcls.data.hierarchy import names_as_targeted
from carcls.data.kaggle import SAMPLE_CSV, TRAIN_CSV
from carcls.data.layout import SPLIT_NAMES, existing_root, unwrapped
from carcls.data.records import examples, sorted_class_names
from carcls.data.sources import SOURCES
from carcls.data.tables import read_csv
from carcls.errors import UserError

log = logging.getLogger(__name__)


def check_classes(config: DataConfig, class_names: list[str]) -> None:
    """Refuses data of which a run knows no class; data without labels is any run's.

    Classes that it does not know beside some that it does are said: photos of other things may lie
    there, and the photos to predict may be of the rest.

    Args:
        config: The data to predict.
        class_names: What the run knows.

    Raises:
        UserError: If none of the data's labels names a class that is among them.
    """
    names, where = labels_in(config)
    names = names_as_targeted(names, config)
    unknown = [name for name in names if name not in set(class_names)]
    if unknown and len(unknown) < len(names):
        log.warning(
            f"WARNING: {where} has {len(unknown)} of {len(names)} classes that the run does not "
            f"know: {examples(unknown)}. Photos of them are taken for what it knows."
        )
    elif unknown:
        raise UserError(
            f"Expected photos of the classes that the run knows, {examples(class_names, 12)}. "
            f"Received: {where}, with {len(unknown)} that it does not know: {examples(unknown)}. "
            f"Train a run on this data (python train.py data={config.name}), or predict its photos "
            "as what the run knows with images=PATH."
        )


def labels_in(config: DataConfig) -> tuple[list[str], Path | str]:
    """The class names that the data's labels say, and the file or folder that holds them.

    Where a CSV has the labels, the labelled photos need not be there. No names where there are no
    labels, or none that can be read: a prediction can do without.
    """
    try:
        if isinstance(config, FolderData):
            return _of_folders(config), config.root
        if isinstance(config, CifarData):  # the photos to predict have labels themselves
            return _of_folders(replace(config, part="test")), config.root
        csv = _labels_csv(config)
        return ([], config.root) if csv is None else (_of_csv(csv, config), csv)
    except UserError:
        return [], config.root


def _of_folders(config: FolderData | CifarData) -> list[str]:
    config = replace(config, exclude=None, val_ids=None, on_missing="skip")
    return SOURCES[config.name].read_training_photos(config).class_names


def _labels_csv(config: DataConfig) -> Path | None:
    if isinstance(config, CsvData):
        path = Path(config.csv).expanduser() if config.csv else None
        places = [] if path is None else [path, Path(config.root).expanduser() / path]
        return next((place for place in places if place.is_file()), None)
    names = (TRAIN_CSV, *SAMPLE_CSV)
    root = existing_root(config, TRAIN_CSV)
    root = unwrapped(root, config, lambda folder: any((folder / name).is_file() for name in names))
    return root / TRAIN_CSV if (root / TRAIN_CSV).is_file() else None


def _of_csv(csv: Path, config: DataConfig) -> list[str]:
    separator = getattr(config, "separator", None)
    split = getattr(config, "split_column", None)
    columns = (config.label_column,) if split is None else (config.label_column, split)
    table = read_csv(csv, columns, separator="\t" if separator == "tab" else separator)
    names: pd.Series = table[config.label_column]
    if split is not None:  # what is to be predicted may have a placeholder for a label
        names = names[~table[split].str.strip().str.lower().isin(SPLIT_NAMES["test"])]
    return sorted_class_names([name for name in names if name])
