"""Photos that the report shows: what is confused, and what the network looked at."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from carcls import run as files
from carcls import runtime
from carcls.config import RuntimeConfig
from carcls.data.images import open_photo, resize
from carcls.errors import PhotoError, UserError
from carcls.prediction.members import run_dir
from carcls.prediction.predictor import Predictor
from carcls.training.own_process import can_fork, in_own_process

BOX = (208, 156)  # width and height in pixels, which every photo that is shown fits into
_PAIRS, _OF_PAIR = 4, 3
_WRONG, _RIGHT = 12, 9  # photos with maps


@dataclass(kw_only=True)
class Confused:
    """Photos of one class that were taken for another, and what that other one looks like.

    Attributes:
        label: The class that they are of.
        predicted: The class that they were taken for.
        count: How many were.
        of: How many photos the label has.
        taken: Paths of some of them, the surest first, with their confidence.
        typical: Paths of photos of `predicted` that were told right, the surest first, with theirs.
    """

    label: str
    predicted: str
    count: int
    of: int
    taken: list[tuple[str, float]]
    typical: list[tuple[str, float]]


@dataclass(kw_only=True)
class Case:
    """A photo with what spoke for one class in it, or for two.

    Attributes:
        photo: `(height, width, 3)` uint8, as much of it as the network sees; fits into `BOX`.
        label: Name of its class.
        classes: What it was taken for; then, if that is wrong, its label.
        probs: Of each of these.
        maps: `(len(classes), h, w)`, see `class_maps`.
    """

    photo: np.ndarray
    label: str
    classes: list[str]
    probs: list[float]
    maps: np.ndarray


def confused_photos(
    pairs: pd.DataFrame, paths: list[str], labels: np.ndarray, probs: np.ndarray, names: list[str]
) -> list[Confused]:
    """Photos of the classes that are confused most often.

    Args:
        pairs: See `most_confused`.
        paths: Of `n` photos.
        labels: `(n,)` integer class indices.
        probs: `(n, num_classes)`.
        names: Of the classes, in that order.
    """
    predicted, confidence = probs.argmax(1), probs.max(1)

    def surest(is_meant: np.ndarray) -> list[tuple[str, float]]:
        picks = np.flatnonzero(is_meant)
        picks = picks[np.argsort(-confidence[picks], kind="stable")][:_OF_PAIR]
        return [(paths[index], float(confidence[index])) for index in picks]

    found = []
    for pair in pairs.head(_PAIRS).itertuples():
        label, other = names.index(pair.label), names.index(pair.predicted)
        found.append(
            Confused(
                label=pair.label,
                predicted=pair.predicted,
                count=int(pair.photos),
                of=int(np.sum(labels == label)),
                taken=surest((labels == label) & (predicted == other)),
                typical=surest((labels == other) & (predicted == other)),
            )
        )
    return found


def has_validated(member: Predictor, photos: pd.DataFrame, names: list[str]) -> np.ndarray:
    """`(n,)` whether a run was validated with each photo.

    Args:
        member: Of a run.
        photos: id and label (index into the names) of `n` photos.
        names: Of the classes.
    """
    directory = run_dir(member)
    path = directory / files.VAL_PREDICTIONS if directory else None
    if path is None or not path.is_file():
        return np.zeros(len(photos), bool)
    saved = pd.read_csv(path, usecols=["id", "label"], dtype=str, keep_default_na=False)
    of_photos = pd.MultiIndex.from_arrays([photos.id, np.array(names, object)[photos.label]])
    return of_photos.isin(pd.MultiIndex.from_frame(saved))


def fitted(photo: np.ndarray) -> np.ndarray:
    """A photo as it is shown: its aspect kept, as large as fits into `BOX`."""
    height, width = photo.shape[:2]
    scale = min(BOX[0] / width, BOX[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def in_turn(labels: np.ndarray, probs: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Photos in the order in which they are shown, for as many as there is room.

    Args:
        labels: `(n,)` integer class indices.
        probs: `(n, num_classes)`.
        seed: Of the draw.

    Returns:
        Indices of the photos that are wrong, the surest first, and of the others, drawn.
    """
    is_wrong = probs.argmax(1) != labels
    wrong = np.flatnonzero(is_wrong)
    wrong = wrong[np.argsort(-probs.max(1)[wrong], kind="stable")]
    return wrong, np.random.default_rng(seed).permutation(np.flatnonzero(~is_wrong))


def look(
    member: Predictor,
    paths: np.ndarray,
    labels: np.ndarray,
    probs: np.ndarray,
    names: list[str],
    *,
    seed: int,
    machine: RuntimeConfig,
) -> tuple[list[Case], list[Case]] | str:
    """What a network looked at in photos that are wrong, and in some that are right.

    A photo that does not open any more gives its place to the next.

    Args:
        member: The network.
        paths: `(n,)` of photos.
        labels: `(n,)` integer class indices.
        probs: `(n, num_classes)` what was said of them.
        names: Of the classes, in that order; those of the network in any.
        seed: Of the draw of the right ones.
        machine: What the network runs on.

    Returns:
        Both, of which one may be empty; or why there are none, in a few words.
    """
    arguments = (member, paths, labels, probs, names, seed)
    # Folds train in processes of their own as long as this one has no Keras, see folds.py; and a
    # sweep goes on to the next run in this process.
    if can_fork():
        return in_own_process(_look_anew, machine, *arguments)
    return _look(*arguments)


def _look_anew(machine: RuntimeConfig, *arguments: Any) -> tuple[list[Case], list[Case]] | str:
    import carcls.backend  # noqa: F401

    runtime.set_up(machine, seed=0)
    return _look(*arguments)


def _look(
    member: Predictor,
    paths: np.ndarray,
    labels: np.ndarray,
    probs: np.ndarray,
    names: list[str],
    seed: int,
) -> tuple[list[Case], list[Case]] | str:
    size, mode = member.info.image_size, member.info.resize
    of_network = [member.class_names.index(name) for name in names]
    squares, asked, both = [], [], ([], [])
    for order, most, cases in zip(
        in_turn(labels, probs, seed), (_WRONG, _RIGHT), both, strict=True
    ):
        for index in order:
            if len(cases) == most:
                break
            try:
                photo = open_photo(paths[index], max(size, *BOX))
            except PhotoError:  # gone since it was predicted
                continue
            said, label = int(probs[index].argmax()), int(labels[index])
            squares.append(resize(photo, size, mode))
            asked.append([of_network[said], of_network[label]])
            cases.append(_case(photo, mode, said, label, probs[index], names))
    if not squares:
        return "there is no photo that opens"
    maps = _maps(member, np.stack(squares), np.array(asked))
    if isinstance(maps, str):
        return maps
    for case, of_photo in zip(both[0] + both[1], maps, strict=True):
        case.maps = of_photo[: len(case.classes)]
    return both


def _case(
    photo: np.ndarray, mode: str, said: int, label: int, probs: np.ndarray, names: list[str]
) -> Case:
    """Without its maps."""
    shown = photo if mode == "squash" else resize(photo, max(BOX), mode)
    classes = list(dict.fromkeys((said, label)))
    return Case(
        photo=fitted(shown),
        label=names[label],
        classes=[names[number] for number in classes],
        probs=[float(probs[number]) for number in classes],
        maps=np.zeros((len(classes), 1, 1), np.float32),
    )


def _maps(member: Predictor, photos: np.ndarray, classes: np.ndarray) -> np.ndarray | str:
    """`class_maps`, or why there are none: a report without is better than none."""
    from carcls.evaluation.attention import NoMapsError, class_maps
    from carcls.training.memory import is_out_of_memory

    try:
        return class_maps(member.model(), photos, classes)
    except (NoMapsError, UserError) as error:
        return str(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return "the device has no memory left for it"
    finally:
        member.release()
