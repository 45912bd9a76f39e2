"""Several networks that answer as one: the mean of their probabilities."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from carcls.data.records import examples
from carcls.errors import UserError
from carcls.prediction.imagenet import split_pretrained
from carcls.prediction.predictor import PhotosToPredict, Predicted, Predictor
from carcls.run import all_folds, finished_folds

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Ensemble:
    """Networks of any backbone and image size that know the same classes, in whatever order.

    Called as a `Predictor`. Its members are loaded and asked one after another, so that it takes
    the memory of one and the time of all.

    Args:
        members: At least two.
        weights: What each counts, relative to the others; None: all the same.

    Raises:
        UserError: If the members know different classes, one is there twice, or the weights do not
            fit them.
    """

    members: list[Predictor]
    weights: list[float] | None = None
    shares: list[float] = field(init=False)  # the weights, made to sum to 1

    def __post_init__(self) -> None:
        self.shares = shares(self.weights, len(self.members))
        _check_members_differ(self.members)
        _check_classes_agree(self.members)

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities: that of the first member."""
        return self.members[0].class_names

    def num_views(self, tta: str) -> int:
        """How many times a photo goes through a network, over all members."""
        return sum(member.num_views(tta) for member in self.members)

    def __call__(
        self,
        photos: PhotosToPredict,
        *,
        tta: str = "none",
        batch_size: int = 32,
        workers: int | None = None,
        progress: Callable[[int], None] | None = None,
        resize_mode: str | None = None,
    ) -> Predicted:
        """Predicts `n` photos, see `Predictor.__call__`.

        A photo that one member cannot open has an error, whatever the others make of it.
        """
        total = np.zeros((len(photos), len(self.class_names)))
        errors, notes = {}, {}
        for member, share in zip(self.members, self.shares, strict=True):
            predicted = member(
                photos,
                tta=tta,
                batch_size=batch_size,
                workers=workers,
                progress=progress,
                resize_mode=resize_mode,
            )
            member.release()
            total += share * in_order(predicted.probs, member.class_names, self.class_names)
            errors |= predicted.errors
            notes |= predicted.notes
        return Predicted(probs=total.astype(np.float32), errors=errors, notes=notes)


def load_predictor(
    ckpts: list[str], weights: list[float] | None = None, *, is_calibrated: bool = False
) -> Predictor | Ensemble:
    """The network, or the ensemble, that `ckpt=` means. Imports no Keras, loads no network.

    Args:
        ckpts: Run directories and `.keras` files, a run of several folds standing for all of them;
            or pretrained networks, each by its name or as NAME:PATH with a file of its weights.
        weights: See `Ensemble`; one a checkpoint, which folds share.
        is_calibrated: Each at its own temperature, see `Predictor.from_run`.

    Raises:
        UserError: If one does not exist, or they do not go together.
    """
    shares(weights, len(ckpts))  # told before any file is looked at
    ckpts, weights = with_folds(ckpts, weights)
    pretrained = [split_pretrained(ckpt) if not _exists(ckpt) else None for ckpt in ckpts]
    if any(pretrained) and not all(pretrained):
        names = [ckpt for ckpt, is_name in zip(ckpts, pretrained, strict=True) if is_name]
        raise UserError(
            "Expected ckpt to list runs, or pretrained networks, whose classes are ImageNet's. "
            f"Received: both, {examples(names)} and {len(ckpts) - len(names)} of a run."
        )
    if all(pretrained):
        if is_calibrated:
            raise UserError(
                f"Expected calibrated=true with trained runs. Received: {examples(ckpts)}, "
                "pretrained, without validation photos to fit a temperature to."
            )
        members = [Predictor.pretrained(name, weights) for name, weights in pretrained]
    else:
        members = [Predictor.from_run(ckpt, is_calibrated=is_calibrated) for ckpt in ckpts]
    return members[0] if len(members) == 1 else Ensemble(members=members, weights=weights)


def names_of(ckpts: list[str]) -> list[str]:
    """What runs and networks are called: the last part of a path, all of it where two have that."""
    short = [
        Path(ckpt).expanduser().resolve().name if _exists(ckpt) else ckpt.partition(":")[0]
        for ckpt in ckpts
    ]
    counts = Counter(short)
    return [name if counts[name] == 1 else ckpt for name, ckpt in zip(short, ckpts, strict=True)]


def _exists(ckpt: str) -> bool:
    try:
        return Path(ckpt).expanduser().exists()
    except (OSError, RuntimeError):  # a name that no file can have; a ~user there is not
        return False


def with_folds(
    ckpts: list[str], weights: list[float] | None
) -> tuple[list[str], list[float] | None]:
    """Puts the folds of a run in its place: together they count as much as any other checkpoint.

    Says which folds are not finished: they are left out.
    """
    folds = [[str(path) for path in finished_folds(ckpt)] for ckpt in ckpts]
    if not any(folds):
        return ckpts, weights
    for ckpt, finished in zip(ckpts, folds, strict=True):
        planned = len(all_folds(ckpt))
        if 0 < len(finished) < planned:
            log.warning(
                f"WARNING: of {ckpt} only {len(finished)} of {planned} folds are finished: these "
                "predict."
            )
    members = [finished or [ckpt] for ckpt, finished in zip(ckpts, folds, strict=True)]
    counts = [1.0] * len(ckpts) if weights is None else weights
    expanded = [w / len(of_one) for of_one, w in zip(members, counts, strict=True) for _ in of_one]
    names = [name for of_one in members for name in of_one]
    return names, expanded if len(names) > 1 else None


def shares(weights: list[float] | None, num_members: int) -> list[float]:
    """What each member counts; sums to 1.

    Raises:
        UserError: If there are not as many weights as members, one is negative or no number, or
            all are 0.
    """
    if weights is None:
        return [1 / num_members] * num_members
    received = f"Received: weights=[{','.join(f'{weight:g}' for weight in weights)}]"
    if num_members < 2:
        raise UserError(
            "Expected weights with an ensemble only, ckpt=[RUN,RUN]. "
            f"{received} with one checkpoint. Leave weights out."
        )
    if len(weights) != num_members:
        raise UserError(
            f"Expected as many weights as checkpoints, {num_members}. "
            f"{received}, which are {len(weights)}."
        )
    if not np.all(np.isfinite(weights)) or min(weights) < 0 or sum(weights) == 0:
        raise UserError(f"Expected weights of 0 or more, not all of them 0. {received}.")
    return [weight / sum(weights) for weight in weights]


def in_order(probs: np.ndarray, class_names: list[str], wanted: list[str]) -> np.ndarray:
    """`(n, num_classes)` probabilities with their columns in the order of other names.

    Args:
        probs: In the order of `class_names`.
        class_names: The same names as `wanted`, in any order.
    """
    column_of = {name: column for column, name in enumerate(class_names)}
    return probs[:, [column_of[name] for name in wanted]]


def _check_members_differ(members: list[Predictor]) -> None:
    seen: dict[str, str] = {}
    for member in members:
        same = str(member.model_path.resolve()) if member.model_path else member.name
        if same in seen:
            names = " and ".join(dict.fromkeys((seen[same], member.name)))
            raise UserError(
                f"Expected every checkpoint of an ensemble once. Received twice: {names}. "
                "What counts more than the others gets a larger number in weights=[2,1]."
            )
        seen[same] = member.name


def _check_classes_agree(members: list[Predictor]) -> None:
    """By name: the order does not matter."""
    known = list(dict.fromkeys(name for member in members for name in member.class_names))
    lacking = []
    for member in members:
        absent = [name for name in known if name not in set(member.class_names)]
        if absent:
            lacking.append(f"{member.name} lacks {examples(absent)}")
    if lacking:
        raise UserError(
            "Expected the checkpoints of an ensemble to know the same classes. "
            f"Received: {'; '.join(lacking)}. Predict with each on its own, or train them on the "
            "same data."
        )
