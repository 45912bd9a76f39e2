"""The demo data set: its layout, its reproducibility, and that shape alone tells its classes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.data.demo import CLASS_NAMES, DEMO_VERSION, demo_is_drawn, draw_demo
from carcls.data.demo_drawing import draw_photo

COUNTS = {"train_per_class": 2, "test_per_class": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "demo"
    draw_demo(root, seed=7, workers=1, **COUNTS)
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_there_are_ten_kinds_named_by_lowercase_words():
    assert len(set(CLASS_NAMES)) == 10
    assert all(name.isalpha() and name.islower() for name in CLASS_NAMES)


def test_photos_lie_where_the_tables_say(drawn):
    train, test = pd.read_csv(drawn / "train.csv"), pd.read_csv(drawn / "test-labels.csv")
    listed = {f"train/{row.Category}/{row.Id}" for row in train.itertuples()}
    listed |= {f"test_upload/{photo_id}" for photo_id in test.Id}
    assert {name for name in contents(drawn) if name.endswith(".jpg")} == listed
    assert Counter(train.Category) == dict.fromkeys(CLASS_NAMES, 2)
    assert Counter(test.Category) == dict.fromkeys(CLASS_NAMES, 1)


def test_ids_are_six_digits_and_occur_once(drawn):
    tables = [pd.read_csv(drawn / name) for name in ("train.csv", "test-labels.csv")]
    ids = pd.concat(tables).Id
    assert ids.is_unique
    assert ids.str.fullmatch(r"\d{6}\.jpg").all()


def test_the_order_of_the_ids_does_not_sort_the_classes(drawn):
    train = pd.read_csv(drawn / "train.csv")
    assert train.Id.is_monotonic_increasing
    repeats = (train.Category == train.Category.shift()).sum()
    assert repeats < len(CLASS_NAMES) / 2  # sorted classes would give one repeat in each of ten


def test_the_sample_submission_asks_for_the_test_ids(drawn):
    sample = pd.read_csv(drawn / "sample-submission.csv")
    assert set(sample.Id) == set(pd.read_csv(drawn / "test-labels.csv").Id)
    assert set(sample.Category) == {CLASS_NAMES[0]}


def test_photos_are_colour_jpegs_of_several_sizes(drawn):
    sizes = set()
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    assert (320, 240) in sizes
    assert len(sizes) > 2


def test_the_overview_shows_a_row_for_each_class(drawn):
    with Image.open(drawn / "overview.png") as sheet:
        width, height = sheet.size
    assert height > 100 * len(CLASS_NAMES)
    assert width > 300


def test_a_drawn_set_is_recognised_and_another_is_not(drawn, tmp_path):
    assert demo_is_drawn(drawn, seed=7, **COUNTS)
    assert not demo_is_drawn(drawn, seed=8, **COUNTS)
    assert not demo_is_drawn(drawn, seed=7, train_per_class=3, test_per_class=1)
    assert not demo_is_drawn(tmp_path / "nothing", seed=7, **COUNTS)
    facts = {"version": DEMO_VERSION, "seed": 7, **COUNTS, "size": [320, 240]}
    assert json.loads((drawn / "demo.json").read_text()) == facts


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(drawn, tmp_path):
    draw_demo(tmp_path / "demo", seed=7, workers=3, **COUNTS)
    assert contents(tmp_path / "demo") == contents(drawn)


def test_another_seed_gives_other_photos_and_ids(drawn, tmp_path):
    draw_demo(tmp_path / "demo", seed=8, **COUNTS)
    photos = [
        {data for name, data in contents(root).items() if name.endswith(".jpg")}
        for root in (drawn, tmp_path / "demo")
    ]
    assert not photos[0] & photos[1]
    train = [pd.read_csv(root / "train.csv") for root in (drawn, tmp_path / "demo")]
    assert set(train[0].Id) != set(train[1].Id)


def test_progress_counts_every_photo(tmp_path):
    calls = []
    draw_demo(
        tmp_path / "demo",
        train_per_class=1,
        test_per_class=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, error):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise error

    with pytest.raises(error):
        draw_demo(tmp_path / "demo", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_root_that_exists_is_refused_and_untouched(tmp_path):
    root = tmp_path / "demo"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="Expected root to be a folder that is not there"):
        draw_demo(root)
    assert contents(root) == {"mine.txt": b"mine"}
    assert list(tmp_path.iterdir()) == [root]


def test_an_empty_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: train_per_class=0, test_per_class=1"):
        draw_demo(tmp_path / "demo", train_per_class=0, test_per_class=1)
    assert not list(tmp_path.iterdir())


def colours(photo: np.ndarray) -> np.ndarray:
    """Mean colour and a histogram of 4 x 4 x 4 colours. `(67,)`"""
    cells = (photo // 64).reshape(-1, 3) @ (16, 4, 1)
    histogram = np.bincount(cells, minlength=64) / len(cells)
    return np.concatenate([photo.mean((0, 1)) / 255, histogram])


def test_colour_does_not_tell_the_classes():
    features = np.array(
        [
            [
                colours(draw_photo(name, (80, 60), np.random.default_rng([5, k, i])))
                for i in range(30)
            ]
            for k, name in enumerate(CLASS_NAMES)
        ]
    )  # (classes, photos, features)
    for part in (features[..., :3], features[..., 3:]):
        centroids = part[:, :20].mean(1)
        distances = np.linalg.norm(part[:, 20:, None] - centroids, axis=-1)
        accuracy = (distances.argmin(-1) == np.arange(10)[:, None]).mean()
        assert accuracy < 0.25  # chance is 0.1
