"""Coarse classes over those of the data: makes over models, CIFAR-100's 20 over its 100.

The CIFAR-100 file has the names and the order of the data's own `fine_label_names.txt`
(Krizhevsky, 2009, "Learning multiple layers of features from tiny images").
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from carcls.config import SHIPPED_HIERARCHIES, DataConfig
from carcls.data.records import TrainingPhotos, examples, sorted_class_names
from carcls.data.tables import read_csv
from carcls.errors import UserError

log = logging.getLogger(__name__)

_FINE, _COARSE = "fine", "coarse"
_NAMED = 12  # classes that a message names


def read_hierarchy(hierarchy: str) -> dict[str, str]:
    """Coarse class by fine class, as a file has it.

    Args:
        hierarchy: A CSV with the columns fine and coarse, between which stands any of , ; tab |, or
            one of `SHIPPED_HIERARCHIES`. Spaces around names do not count.

    Raises:
        UserError: If it is no such file, a cell is empty, or a fine class has several rows.
    """
    path = _path(hierarchy)
    if not path.is_file():
        state = "is a directory" if path.is_dir() else "does not exist"
        raise UserError(
            f"Expected hierarchy to be a CSV file with the columns {_FINE},{_COARSE}, or "
            f"{' or '.join(SHIPPED_HIERARCHIES)}. Received: hierarchy={hierarchy}, which {state}. "
            "Say where it is with hierarchy=FILE."
        )
    hint = "It has a row a class: its name as the data writes it, and its coarse class."
    table = read_csv(path, (_FINE, _COARSE), separator=None, hint=hint)
    table = table.apply(lambda column: column.str.strip())
    has_gap = (table == "").any(axis=1)
    if has_gap.any():
        gaps = table[has_gap].itertuples(index=False)
        named = [f"fine={row.fine or '?'} coarse={row.coarse or '?'}" for row in gaps]
        raise UserError(
            f"Expected a fine and a coarse class in every row of {path}. Received an empty cell "
            f"in {len(named)}: {examples(named, _NAMED)}. Fill it, or take the row out."
        )
    is_double = table.fine.duplicated(keep=False)
    if is_double.any():
        of_class = table[is_double].groupby(_FINE, sort=False).coarse
        named = [f"{fine} ({', '.join(coarse)})" for fine, coarse in of_class]
        raise UserError(
            f"Expected every fine class once in {path}. Received more than once: "
            f"{examples(named, _NAMED)}. Keep one row of each."
        )
    return dict(zip(table.fine, table.coarse, strict=True))


def with_hierarchy(
    photos: TrainingPhotos, config: DataConfig, *, is_quiet: bool = False
) -> TrainingPhotos:
    """The photos with the hierarchy that `config` names, labelled as its `target` says.

    A file takes the place of the hierarchy that the data may come with.

    Args:
        photos: As the source has read them.
        config: Of the source.
        is_quiet: Do not say what was done.

    Raises:
        UserError: If the hierarchy cannot be read, lacks a class of the photos, or there is none or
            only one coarse class where the target is coarse.
    """
    if config.hierarchy is not None:
        photos = replace(photos, hierarchy=read_hierarchy(config.hierarchy))
    if photos.hierarchy is None:
        if config.target == "coarse":
            raise UserError(
                f"Expected hierarchy=FILE with target=coarse, a CSV with the columns {_FINE},"
                f"{_COARSE} that says the coarse class of each class, or "
                f"{' or '.join(SHIPPED_HIERARCHIES)}. Received: target=coarse, hierarchy=null, and "
                f"data={config.name}, which comes with none."
            )
        return photos
    source = "the data's hierarchy" if config.hierarchy is None else str(_path(config.hierarchy))
    names = photos.class_names
    check_covered(names, photos.hierarchy, "the data", source)
    others = [name for name in photos.hierarchy if name not in set(names)]
    if others and not is_quiet:
        log.info(
            f"{source} also has {len(others)} class{'' if len(others) == 1 else 'es'} that the "
            f"data does not have, which changes nothing: {examples(others)}."
        )
    if config.target == "fine":
        return photos
    coarse = rolled_up(photos, source)
    if not is_quiet:
        log.info(
            f"target=coarse: the {len(names)} classes of the data became "
            f"{len(coarse.class_names)}, {examples(coarse.class_names, _NAMED)}, by {source}."
        )
    return coarse


def check_covered(names: list[str], hierarchy: dict[str, str], whose: str, source: str) -> None:
    """Refuses a hierarchy that lacks one of the classes.

    Args:
        names: The classes.
        hierarchy: Coarse class by fine class.
        whose: What has these classes, for the message.
        source: Where the hierarchy is from.

    Raises:
        UserError: If it lacks some, by name.
    """
    lacking = [name for name in names if name not in hierarchy]
    if lacking:
        unused = [name for name in hierarchy if name not in set(names)]
        but = f" It has {examples(unused, _NAMED)}, which are no classes there." if unused else ""
        raise UserError(
            f"Expected a coarse class for each of the {len(names)} classes of {whose} in {source}. "
            f"Received none for {len(lacking)}: {examples(lacking, _NAMED)}.{but} Add a row for "
            "each, with the name as the data writes it."
        )


def rolled_up(photos: TrainingPhotos, source: str) -> TrainingPhotos:
    """The photos with their coarse classes as labels.

    The fine ones stay in a column `fine`, by which photos are split: runs of both targets then
    validate with the same photos, and can be compared.

    Args:
        photos: With a hierarchy that covers their classes.
        source: Where it is from.

    Raises:
        UserError: If all of them are of one coarse class.
    """
    of_class = [photos.hierarchy[name] for name in photos.class_names]
    names = sorted_class_names(of_class)
    if len(names) < 2:
        raise UserError(
            f"Expected at least two coarse classes in {source}. Received: {names[0]} for all "
            f"{len(of_class)} classes of the data. A classifier needs two or more."
        )
    index = {name: number for number, name in enumerate(names)}
    label_of = np.array([index[name] for name in of_class], np.int32)
    fine = photos.table.label.to_numpy()
    table = photos.table.assign(label=label_of[fine], fine=fine)
    return replace(photos, table=table, class_names=names, hierarchy=None)


def names_as_targeted(names: list[str], config: DataConfig) -> list[str]:
    """Class names of the data as a run on it calls them; what the file lacks stays as it is."""
    if config.target == "fine" or config.hierarchy is None:
        return names
    hierarchy = read_hierarchy(config.hierarchy)
    return sorted_class_names([hierarchy.get(name, name) for name in names])


def _path(hierarchy: str) -> Path:
    if hierarchy in SHIPPED_HIERARCHIES:
        return Path(__file__).with_name(f"{hierarchy}_hierarchy.csv")
    return Path(hierarchy).expanduser()
