"""The photos that the page shows: which, how small, and as the network will see them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from omegaconf import OmegaConf

from carcls.config import AugmentationConfig, ExploreConfig
from carcls.data.images import open_photo, resize
from carcls.data.preparing import photo_seed
from carcls.data.transforms import build_augment
from carcls.data.workers import Workers
from carcls.errors import PhotoError
from carcls.exploration.findings import Finding, Group
from carcls.exploration.look import as_jpeg, shrunk
from carcls.exploration.looks import Looks
from carcls.exploration.photos import Found

CONF = Path(__file__).parents[2] / "conf"
PICTURE_SIDE = 180  # pixels, of the longer side
GROUPS_SHOWN = 60
OF_A_GROUP = 6
OF_A_KIND = 12  # photos that are tiny, dark and so on
_EXAMPLES = 480  # of all classes together
_MOST_BYTES = 7_000_000  # of all pictures of photos; the page is a third larger, and has others
_NETWORK_PHOTOS = 4
_DRAWS = 3  # of each policy for each photo
_LARGEST_DRAW = 240  # pixels; what the network sees unaugmented is shown in full


@dataclass(kw_only=True)
class PolicyPictures:
    """What a policy makes of a few photos.

    Attributes:
        name: As in `augmentation=NAME`.
        about: What its file says at its head.
        draws: JPEG files: of each photo, several draws; one where nothing is drawn.
    """

    name: str
    about: str
    draws: list[list[bytes]]


def choose_examples(
    found: Found, looks: Looks, photos_per_class: int, seed: int
) -> dict[str, list[int]]:
    """Indices of photos of each class, drawn at random: a class's do not depend on the others."""
    _, labels, parts = found.columns
    chosen = {}
    of_each = min(photos_per_class, max(1, _EXAMPLES // len(found.class_names)))
    good = np.flatnonzero(looks.opens & (parts != "test"))
    order = np.argsort(labels[good], kind="stable")
    names, starts = np.unique(labels[good][order], return_index=True)
    ends = [*starts[1:], len(good)]
    members = {
        name: good[order[start:end]] for name, start, end in zip(names, starts, ends, strict=False)
    }
    for number, name in enumerate(found.class_names):
        random = np.random.default_rng([seed, number])
        photos = random.permutation(members.get(name, good[:0]))[:of_each]
        chosen[name] = sorted(photos.tolist())
    return dict(list(chosen.items())[:_EXAMPLES]) if of_each else {}


def shown_of_group(found: Found, group: Group) -> list[int]:
    """Places of the members that are shown: the first of each part and class, then the others."""
    _, labels, parts = found.columns
    seen, firsts, others = set(), [], []
    for place, index in enumerate(group.members):
        key = (parts[index], labels[index])
        (others if key in seen else firsts).append(place)
        seen.add(key)
    return sorted((firsts + others)[:OF_A_GROUP])


def shown_of_kind(findings: list[Finding], kind: str) -> list[Finding]:
    """The first findings of a kind whose photos open."""
    return [f for f in findings if f.finding == kind and f.index is not None][:OF_A_KIND]


def take_pictures(
    indices: Iterable[int], paths: list[str], workers: Workers, progress: Callable[[int], None]
) -> dict[int, bytes]:
    """Small JPEG files by index, until the page would become too large to mail."""
    wanted = list(dict.fromkeys(indices))
    pictures, num_bytes = {}, 0
    jobs = (("picture", paths[index], PICTURE_SIDE) for index in wanted)
    for index, jpeg in zip(wanted, workers.map(jobs), strict=False):
        num_bytes += len(jpeg)
        if num_bytes > _MOST_BYTES:
            break
        pictures[index] = jpeg
        progress(1)
    return pictures


def choose_for_network(examples: dict[str, list[int]], seed: int) -> list[int]:
    """Indices of a few photos, each of another class."""
    firsts = [indices[0] for indices in examples.values() if indices]
    random = np.random.default_rng(seed)
    return sorted(random.permutation(firsts)[:_NETWORK_PHOTOS].tolist())


def seen_by_network(paths: list[str], config: ExploreConfig) -> list[bytes]:
    """What the network gets of photos to validate with, to the pixel: PNG files."""
    squares = (_square(path, config.image_size, config.data.resize) for path in paths)
    return [cv2.imencode(".png", square[..., ::-1])[1].tobytes() for square in squares]


def draw_policies(
    policies: dict[str, tuple[AugmentationConfig, str]], paths: list[str], config: ExploreConfig
) -> list[PolicyPictures]:
    """The same photos after each policy, as the first epochs of a training would have them.

    Args:
        policies: What `read_policies` gives.
        paths: Of the photos.
    """
    drawn = []
    for name, (policy, about) in policies.items():
        augment = build_augment(policy.train, config.image_size)
        draws = []
        for number, path in enumerate(paths):
            square = _square(path, policy.working_size(config.image_size), config.data.resize)
            seeds = [photo_seed(config.seed, epoch, number) for epoch in range(_DRAWS)]
            photos = [augment(square, seed) for seed in seeds] if augment else [square]
            draws.append([as_jpeg(shrunk(photo, _LARGEST_DRAW)) for photo in photos])
        drawn.append(PolicyPictures(name=name, about=about, draws=draws))
    return drawn


def read_policies() -> dict[str, tuple[AugmentationConfig, str]]:
    """All of conf/augmentation by name, with what each file says at its head."""
    policies = {}
    for path in sorted((CONF / "augmentation").glob("*.yaml")):
        schema = OmegaConf.structured(AugmentationConfig)
        policy = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(path)))
        policies[path.stem] = policy, _head(path.read_text(encoding="utf-8"))
    return policies


def _head(yaml: str) -> str:
    """The first paragraph of comments."""
    lines = []
    for line in yaml.splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        lines.append(text)
    return " ".join(lines)


def _square(path: str, size: int, mode: str) -> np.ndarray:
    try:
        return resize(open_photo(path, min_side=size), size, mode)
    except PhotoError:  # gone since it was looked at
        return np.zeros((size, size, 3), np.uint8)
