"""A tiny data set that every test can draw for itself."""

import csv
import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A first example may import something or share its core: slowness is no failure.
settings.register_profile("carcls", deadline=None)
settings.load_profile("carcls")

# Files that take a minute or so: begun first, so that no worker is left alone with one at the end.
LONG = (
    "test_backbones_in_stages", "test_resume", "test_training_processes", "test_experiments",
    "test_training", "test_ray", "test_notebook", "test_stages", "test_folds", "test_mistakes",
    "test_backbones", "test_applications", "test_explore", "test_prediction", "test_preflight",
    "test_ensemble", "test_api", "test_config", "test_feature_stage", "test_sweeps", "test_search",
    "test_devices",
)  # fmt: skip

# Ctrl-C is ignored by what a script starts with `&`, and by all that this starts; not by tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """What is unpacked and decoded goes away with the tests."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


def pytest_collection_finish() -> None:
    """What all test files have imported is not looked through for garbage, test after test."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONG, then the others; within a file the order stays."""
    rank = {f"{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


# A network of 18 layers, with random weights: it is built, trained, saved and loaded in half the
# time of EfficientNet-Lite0, and traced in a third. For runs in which the network is not the point.
FEW_LAYERS = ("backbone=vgg16", "backbone.weights=none")

COLOURS = {"007": (200, 40, 40), "12": (40, 180, 60), "red, wide": (50, 70, 210)}


def draw_photo(path: Path, colour: tuple[int, int, int], seed: int, size=(40, 30)) -> None:
    """A square of the class's colour on noise: told apart by any network in a few steps."""
    random = np.random.default_rng(seed)
    width, height = size
    pixels = random.integers(0, 90, (height, width, 3))
    top, left = random.integers(0, height // 3), random.integers(0, width // 3)
    pixels[top : top + height // 2, left : left + width // 2] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_csv(path: Path, rows: list[tuple], header: tuple = ("Id", "Category")) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def draw_competition(root: Path, per_class: int = 6, test: int = 5) -> Path:
    """A competition in folders: three classes with awkward names, `test` photos to predict."""
    rows, number = [], 0
    for name, colour in COLOURS.items():
        for _ in range(per_class):
            number += 1
            photo_id = f"{1000 + 7 * number % 1000}.png"
            draw_photo(root / "train" / name / photo_id, colour, number)
            rows.append((photo_id, name))
    write_csv(root / "train.csv", rows)
    ids = [f"{900 - 3 * i}.png" for i in range(test)]
    for i, photo_id in enumerate(ids):
        draw_photo(root / "test_upload" / photo_id, list(COLOURS.values())[i % 3], 500 + i)
    write_csv(root / "sample-submission.csv", [(photo_id, "007") for photo_id in ids])
    return root


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    return draw_competition(tmp_path / "competition")


def use_tiny_backbone(set_attribute) -> None:
    """Runs have a network of two convolutions instead of a pretrained one, which takes seconds."""
    from carcls.backend import keras
    from carcls.models import classifier

    def build(name: str, *, weights: str):
        layers = keras.layers
        x = photos = keras.Input((None, None, 3))
        for number, channels in enumerate((4, 8)):
            x = layers.Conv2D(channels, 3, strides=2, use_bias=False, name=f"conv{number}")(x)
            x = layers.BatchNormalization(name=f"norm{number}")(x)
            x = layers.ReLU(name=f"relu{number}")(x)
        return keras.Model(photos, x, name="tiny")

    set_attribute(classifier, "build_backbone", build)


@pytest.fixture
def tiny_backbone(monkeypatch):
    use_tiny_backbone(monkeypatch.setattr)
