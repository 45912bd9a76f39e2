"""ImageNet's 1000 classes, and which of them the classes of other data are. Imports no Keras."""

import csv
import re
from collections import Counter
from functools import cache
from importlib.resources import files

from carcls.catalogue import is_backbone
from carcls.data.records import examples
from carcls.errors import UserError

_SYNSET = re.compile(r"(n\d{8})(?:[ _-].*)?", re.ASCII)  # n02930766, and n02930766-cab


@cache
def class_names() -> list[str]:
    """In the order of the networks' outputs; of a name that two classes have, with its synset."""
    rows = _rows()
    counts = Counter(row["name"] for row in rows)
    return [
        row["name"] if counts[row["name"]] == 1 else f"{row['name']} ({row['synset']})"
        for row in rows
    ]


def matching_classes(names: list[str], where: str) -> list[int]:
    """Which of the 1000 classes are meant by synset, index or name (in any case, `_` for a blank).

    Args:
        names: As folders or labels are called.
        where: Their place, for messages.

    Returns:
        The index of each.

    Raises:
        UserError: If one is none of them, may be two of them, or is another one's class too.
    """
    found = [_meant(name) for name in names]
    unknown = [name for name, meant in zip(names, found, strict=True) if not meant]
    if unknown:
        raise UserError(
            "Expected classes that are ImageNet's: called by synset (n02930766), index (0 to 999) "
            f"or name (cab). Received: {where}, of whose {len(names)} classes {len(unknown)} are "
            f"none: {examples(unknown)}. Rename these, or leave them out with data.exclude=FILE; a "
            "network that is to know them is trained first."
        )
    for name, meant in zip(names, found, strict=True):
        if len(meant) > 1:
            synsets = " or ".join(_rows()[index]["synset"] for index in meant)
            raise UserError(
                f"Expected a name of one ImageNet class. Received: {name} in {where}, which two "
                f"have. Call it by its synset: {synsets}."
            )
    indices = [meant[0] for meant in found]
    taken: dict[int, str] = {}
    for name, index in zip(names, indices, strict=True):
        if index in taken:
            raise UserError(
                f"Expected every class of ImageNet once. Received: {where}, with {taken[index]} "
                f"and {name}, which are both {class_names()[index]}. Put their photos together."
            )
        taken[index] = name
    return indices


def split_pretrained(text: str) -> tuple[str, str] | None:
    """The name and the weights of a pretrained network, "imagenet" or the path after a colon.

    None for anything else, such as a run.
    """
    name, colon, weights = text.partition(":")
    if not is_backbone(name) or (colon and not weights):
        return None
    return name, weights or "imagenet"


@cache
def _rows() -> list[dict[str, str]]:
    source = files("carcls.models") / "imagenet_classes.csv"
    with source.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def _by_key() -> dict[str, list[int]]:
    keys: dict[str, list[int]] = {}
    for index, row in enumerate(_rows()):
        for key in {str(index), row["synset"], _plain(row["name"]), _plain(class_names()[index])}:
            keys.setdefault(key, []).append(index)
    return keys


def _meant(name: str) -> list[int]:
    """The classes that a name may be."""
    synset = _SYNSET.fullmatch(name.strip())
    key = synset[1] if synset else _plain(name)
    if key.isdecimal():
        key = str(int(key))  # 007 is 7
    found = _by_key().get(key, [])
    exact = [index for index in found if class_names()[index] == name.strip().replace("_", " ")]
    return exact or found  # Cardigan is a dog, cardigan is not


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()
