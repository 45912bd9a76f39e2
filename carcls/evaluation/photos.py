"""Which photos may tell how good a network is: labelled, of its classes, and not trained on."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from carcls import run as files
from carcls.config import to_data_config
from carcls.data.records import TrainingPhotos, examples, file_facts
from carcls.data.sources import SOURCES
from carcls.errors import UserError
from carcls.prediction.imagenet import matching_classes
from carcls.prediction.members import run_dir
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PhotosToMeasure:
    """Photos that a network has not trained on.

    Attributes:
        table: A row a photo: id, path, label (index into the network's classes).
        trained_on: How many others were left out because a network has trained on them.
        unknown: Names of checkpoints of which it is not known what they trained on.
    """

    table: pd.DataFrame
    trained_on: int
    unknown: list[str]


def photos_to_measure(
    records: TrainingPhotos, members: list[Predictor], where: str
) -> PhotosToMeasure:
    """Leaves out what a network has trained on: it would say nothing of other photos.

    A photo is known again by its path, and a copy of it by its content.

    Args:
        records: Labelled photos.
        members: The networks, whose labels are those of the first.
        where: The records' place, for messages.

    Raises:
        UserError: If the data has classes that the first does not know, or no photo is left.
    """
    table = records.table[["id", "path", "label"]].reset_index(drop=True)
    table["label"] = np.array(class_indices(records, members[0], where))[table.label]
    is_known, unknown = np.zeros(len(table), bool), []
    for member in members:
        trained = _trained_on(member)
        if trained is None:
            unknown.append(member.name)
        else:
            is_known |= _are_among(table.path.tolist(), trained)
    if is_known.all():
        raise UserError(
            f"Expected photos that {'the runs have' if len(members) > 1 else 'the run has'} not "
            f"trained on. Received: {where}, all of whose {len(table)} photos trained a network. "
            "Measure with others: data=folder data.root=DIR."
        )
    return PhotosToMeasure(
        table=table[~is_known].reset_index(drop=True),
        trained_on=int(is_known.sum()),
        unknown=unknown,
    )


def class_indices(records: TrainingPhotos, member: Predictor, where: str) -> list[int]:
    """What a network calls the classes of the data.

    Args:
        records: Labelled photos.
        member: The network; one as ImageNet left it knows classes by synset, index and name.
        where: The records' place, for messages.

    Returns:
        Of each of `records.class_names` its index in the network's own.

    Raises:
        UserError: If it does not know one.
    """
    if member.model_path is None:
        return matching_classes(records.class_names, where)
    index_of = {name: index for index, name in enumerate(member.class_names)}
    strange = [name for name in records.class_names if name not in index_of]
    if strange:
        lacking = [name for name in member.class_names if name not in set(records.class_names)]
        raise UserError(
            f"Expected photos of the classes that {member.name} knows. Received: {where}, of "
            f"whose {len(records.class_names)} classes it does not know {len(strange)}: "
            f"{examples(strange)}. "
            f"Of its own {len(member.class_names)} the data lacks {len(lacking)}"
            f"{f': {examples(lacking)}' if lacking else ''}. Name both alike, or leave classes out "
            "with data.exclude=FILE."
        )
    return [index_of[name] for name in records.class_names]


def _trained_on(member: Predictor) -> list[str] | None:
    """Paths of the photos that a network has trained on; None where that cannot be told."""
    directory, config = run_dir(member), member.info.config.get("data")
    if directory is None or config is None:
        return None
    try:
        config = to_data_config(
            {key: value for key, value in config.items() if key != "memory_limit_gb"}
        )
        records = SOURCES[config.name].read_training_photos(config)
    except UserError:  # the photos are elsewhere by now
        return None
    path = directory / files.VAL_PREDICTIONS
    if not path.is_file():  # data.refit
        return records.table.path.tolist()
    saved = pd.read_csv(path, usecols=["id", "label"], dtype=str, keep_default_na=False)
    has_validated = ids_and_labels(records).isin(pd.MultiIndex.from_frame(saved))
    return records.table.path[~has_validated].tolist()


def ids_and_labels(records: TrainingPhotos) -> pd.MultiIndex:
    """What tells photos apart: an id may stand for several, in folders of different classes."""
    names = np.array(records.class_names, object)[records.table.label]
    return pd.MultiIndex.from_arrays([records.table.id.astype(str), names], names=["id", "label"])


def _are_among(paths: list[str], others: list[str]) -> np.ndarray:
    """`(n,)` whether a photo is one of the others, or has the same bytes as one."""
    real = {os.path.realpath(path) for path in others}
    found = np.array([os.path.realpath(path) in real for path in paths])
    rest = np.flatnonzero(~found)
    sizes, _ = file_facts([paths[index] for index in rest])
    of_others, _ = file_facts(others)
    alike = np.isin(sizes, of_others[of_others > 0])
    if not alike.any():
        return found
    wanted = np.isin(of_others, sizes[alike])
    contents = {_digest(others[index]) for index in np.flatnonzero(wanted)}
    for index in rest[alike]:
        found[index] = _digest(paths[index]) in contents
    return found


def _digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
