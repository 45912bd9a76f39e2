"""How accuracy falls as photos get worse: noise, a patch, and what happens to photos in the wild.

What is done to a photo depends on the seed, the kind and the photo's number alone, and is done at
one size for all networks, which then resize it to their own: they get the very same pixels, as far
as the photo became a square in the same way. A photo keeps its draw from one severity to the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from carcls.data.images import open_photo, resize
from carcls.errors import PhotoError
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.predictor import Predictor

Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]

_AT_ONCE = 512  # photos that are open together
_STUDY_SIZE = 224  # pixels, at which the study laid its patches


def add_noise(photo: np.ndarray, level: float, draws: np.random.Generator) -> np.ndarray:
    """Gaussian noise whose deviation is drawn uniformly from 0 to the level, clipped to 0–255."""
    deviation = draws.uniform(0, 1) * level
    noise = draws.standard_normal(photo.shape, np.float32)
    return np.clip(np.rint(photo + deviation * noise), 0, 255).astype(np.uint8)


def lay_patch(photo: np.ndarray, side: float, draws: np.random.Generator) -> np.ndarray:
    """A white square in the centre; its side is that on a photo of 224 px."""
    return _square(photo, side / _STUDY_SIZE, (0.5, 0.5), 255)


def occlude(photo: np.ndarray, share: float, draws: np.random.Generator) -> np.ndarray:
    """A grey square at a random place, whose side is a share of the photo's."""
    return _square(photo, share, draws.uniform(0, 1, 2), 127)


def blur(photo: np.ndarray, deviation: float, draws: np.random.Generator) -> np.ndarray:
    """Gaussian, its deviation in pixels of a photo of 224."""
    return cv2.GaussianBlur(photo, (0, 0), max(deviation * len(photo) / _STUDY_SIZE, 1e-3))


def compress(photo: np.ndarray, quality: float, draws: np.random.Generator) -> np.ndarray:
    """JPEG of a quality from 1 to 100."""
    _, data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def brighten(photo: np.ndarray, change: float, draws: np.random.Generator) -> np.ndarray:
    """All pixels up or down, at random, by a share of 255."""
    sign = draws.choice([-1, 1])
    return np.clip(np.rint(photo + sign * change * 255.0), 0, 255).astype(np.uint8)


def flatten(photo: np.ndarray, share: float, draws: np.random.Generator) -> np.ndarray:
    """Contrast: what is left of the distance of each pixel from the photo's mean."""
    mean = photo.mean()
    return np.clip(np.rint(mean + share * (photo - mean)), 0, 255).astype(np.uint8)


def rotate(photo: np.ndarray, degrees: float, draws: np.random.Generator) -> np.ndarray:
    """To the left or to the right, at random; what was outside is mirrored."""
    centre, sign = ((len(photo) - 1) / 2,) * 2, draws.choice([-1, 1])
    turn = cv2.getRotationMatrix2D(centre, float(sign * degrees), 1.0)
    return cv2.warpAffine(photo, turn, photo.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)


def _square(photo: np.ndarray, share: float, place: tuple[float, float], value: int) -> np.ndarray:
    size = len(photo)
    side = min(size, round(share * size))
    top, left = (round(at * (size - side)) for at in place)
    changed = photo.copy()
    changed[top : top + side, left : left + side] = value
    return changed


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way in which photos get worse.

    Attributes:
        corrupt: Does it to one photo, `(size, size, 3)` uint8.
        severities: From mild to bad; before them stands the photo as it is.
        unit: What the severities are.
    """

    corrupt: Corruption
    severities: tuple[float, ...]
    unit: str


# Of noise and patch as the study had them; it added noise and then threw the clipped result away, a
# slip that is not repeated. Those of `common` are mild to bad as a person sees them at 224 px.
KINDS: dict[str, dict[str, Kind]] = {
    "noise": {
        "noise": Kind(corrupt=add_noise, severities=tuple(range(10, 101, 10)), unit="level"),
    },
    "patch": {
        "patch": Kind(
            corrupt=lay_patch, severities=tuple(range(20, 161, 28)), unit="side of 224 px"
        ),
    },
    "common": {
        "blur": Kind(corrupt=blur, severities=(0.5, 1, 2, 3, 4), unit="deviation of 224 px"),
        "jpeg": Kind(corrupt=compress, severities=(50, 30, 20, 10, 5), unit="quality"),
        "brightness": Kind(corrupt=brighten, severities=(0.1, 0.2, 0.3, 0.4, 0.5), unit="share"),
        "contrast": Kind(corrupt=flatten, severities=(0.8, 0.6, 0.4, 0.2, 0.1), unit="share left"),
        "occlusion": Kind(
            corrupt=occlude, severities=(0.1, 0.2, 0.3, 0.4, 0.5), unit="side, a share"
        ),
        "rotation": Kind(corrupt=rotate, severities=(5, 10, 15, 20, 30), unit="degrees"),
    },
}


def corrupted(
    paths: list[str], size: int, mode: str, names: list[str], seed: int
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Photos at every severity of some kinds, a few hundred at a time.

    Args:
        paths: `n` photos that open.
        size: Side of the square in pixels.
        mode: How they become squares, see `carcls.data.images.resize`.
        names: Kinds, of any of `KINDS`.
        seed: Of what is drawn.

    Yields:
        The kind, the number of the severity (0: as it is), `(k,)` which of the photos, and
        `(k, size, size, 3)` uint8. A photo that does not open any more is left out.
    """
    for start in range(0, len(paths), _AT_ONCE):
        which, photos = [], []
        for index in range(start, min(start + _AT_ONCE, len(paths))):
            try:
                photos.append(resize(open_photo(paths[index], size), size, mode))
                which.append(index)
            except PhotoError:
                continue
        if not photos:
            continue
        for name in names:
            kind = _kind(name)
            yield name, 0, np.array(which), np.stack(photos)
            for number, severity in enumerate(kind.severities, start=1):
                changed = [
                    kind.corrupt(photo, severity, _draws(seed, name, index))
                    for index, photo in zip(which, photos, strict=True)
                ]
                yield name, number, np.array(which), np.stack(changed)


def _draws(seed: int, name: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, *name.encode()])


def measure_robustness(
    predictor: Predictor | Ensemble,
    photos: pd.DataFrame,
    names: list[str],
    *,
    size: int,
    seed: int,
    tta: str,
    batch_size: int,
    progress: Callable[[int], None],
) -> pd.DataFrame:
    """Accuracy and NLL at every severity.

    Args:
        predictor: What is measured; several networks look at photos cut as for the first.
        photos: path and label (index into its classes) of each.
        names: Of kinds, see `kinds_of`.
        size: Side of the square that photos are changed at, in pixels.
        seed: Of what is drawn.
        tta: Views to average over, see `carcls.prediction.tta`.
        batch_size: Photos that go through a network together.
        progress: Called with the number of photos done at a severity.

    Returns:
        A row a severity: kind, step (0: photos as they are), severity, unit, n, accuracy, nll.
    """
    mode, labels = predictor.members[0].info.resize, photos.label.to_numpy()
    sums: dict[tuple[str, int], np.ndarray] = {}
    stream = corrupted(photos.path.tolist(), size, mode, names, seed)
    as_they_are: dict[int, np.ndarray] = {}  # the same for every kind
    for name, step, which, pixels in stream:
        if step == 0 and which[0] in as_they_are:
            probs = as_they_are[which[0]]
        else:
            predicted = predictor(
                pixels, tta=tta, batch_size=batch_size, workers=0, resize_mode="squash"
            )
            probs = predicted.probs
            if step == 0:
                as_they_are[which[0]] = probs
        of_label = probs[np.arange(len(which)), labels[which]].astype(float)
        found = [len(which), (probs.argmax(1) == labels[which]).sum(),
                 -np.log(np.maximum(of_label, 1e-12)).sum()]  # fmt: skip
        sums[name, step] = sums.get((name, step), np.zeros(3)) + found
        progress(len(which))
    rows = []
    for name in names:
        kind = _kind(name)
        for step, severity in enumerate((None, *kind.severities)):
            n, right, nll = sums[name, step]
            rows.append((name, step, severity, kind.unit, int(n), right / n, nll / n))
    columns = ["kind", "step", "severity", "unit", "n", "accuracy", "nll"]
    return pd.DataFrame(rows, columns=columns)


def examples_of(
    path: str, size: int, mode: str, names: list[str], seed: int
) -> list[tuple[str, str, list[tuple[str, np.ndarray]]]]:
    """One photo at every severity of some kinds, as `draw_severities` takes them.

    Args:
        path: A photo that opens.
        size: As for `corrupted`, and the next three too.
        mode: How it becomes a square.
        names: Of the kinds.
        seed: Of what is drawn.
    """
    steps: dict[str, list[tuple[str, np.ndarray]]] = {name: [] for name in names}
    for name, number, _, photos in corrupted([path], size, mode, names, seed):
        severity = f"{_kind(name).severities[number - 1]:g}" if number else "as it is"
        steps[name].append((severity, photos[0]))
    return [(name, _kind(name).unit, steps[name]) for name in names]


def kinds_of(groups: list[str]) -> list[str]:
    """The kinds that noise, patch or common mean."""
    return [name for group in groups for name in KINDS[group]]


def num_passes(names: list[str]) -> int:
    """How many times each photo is predicted."""
    return sum(1 + len(_kind(name).severities) for name in names)


def _kind(name: str) -> Kind:
    return next(of_group[name] for of_group in KINDS.values() if name in of_group)


def area(rows: pd.DataFrame) -> float:
    """Mean accuracy over severities, by trapezia: the area under the curve, 1 at most.

    Args:
        rows: Of one network and one kind, ordered from the photo as it is to the worst; steps of
            severity count the same.
    """
    values = rows.accuracy.to_numpy()
    return float(np.trapezoid(values) / (len(values) - 1))
