"""Awkward classes: what people call them, and how many photos they have, in every source."""

from pathlib import Path

import numpy as np
import pytest

from carcls.config import to_data_config
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.data.split import stratified_split
from tests.conftest import write_csv

SOURCES = ("kaggle", "folder", "csv")
NAMES = [
    "007", "7", "Škoda Octavia", "красная машина", "日本車", "🚗", "red, wide", 'the "fast" one',
    "it's", "semi;colon", "pipe|tab\tname", "NA", "null", "nan", "True", "1e3", "-1", "0.5", "Id",
    "#1", "=1+1", "%s {x} ${y}", "a\\b", "con", "~", "-", " leading", "trailing ", "e\u0301",
    "a*b?", "[bracket]", "x" * 100, "train", "images",
]  # fmt: skip
ODD_PATHS = ["a/b", "..", "../up", "/absolute", "."]  # names, but no folder's


def photos_of(root: Path, name: str, counts: dict[str, int], layout: str = "class folders"):
    """The training photos of a source that is drawn with so many photos of each class."""
    rows = [(f"{k}-{i}.jpg", c) for k, c in enumerate(counts) for i in range(counts[c])]
    for photo_id, c in rows:
        path = root / "train" / (c if layout == "class folders" else "") / photo_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo")  # reading a source opens none
    write_csv(root / "train.csv", rows)
    values = {"name": name, "root": str(root)}
    if name == "csv":
        values = {"name": name, "csv": str(root / "train.csv")}
    return read_training_photos(to_data_config(values)), rows


def named(photos) -> list[tuple[str, str]]:
    return sorted(
        (Path(row.path).name, photos.class_names[row.label]) for row in photos.table.itertuples()
    )


def split_counts(photos, val_split: float = 0.2) -> list[tuple[int, int]]:
    """How many photos of each class train and validate."""
    labels = photos.table.label.to_numpy()
    is_val = stratified_split(labels, val_split, seed=42)
    sides = [np.bincount(labels[s], minlength=len(photos.class_names)) for s in (~is_val, is_val)]
    return [(int(train), int(val)) for train, val in zip(*sides, strict=True)]


@pytest.mark.parametrize("name", SOURCES)
def test_class_names_are_kept_as_they_are_written(tmp_path, name):
    photos, rows = photos_of(tmp_path, name, dict.fromkeys(NAMES, 2))
    assert photos.class_names == sorted(NAMES)
    assert named(photos) == sorted(rows)
    assert split_counts(photos) == [(1, 1)] * len(NAMES)


@pytest.mark.parametrize("name", ["kaggle", "csv"])
def test_a_csv_may_name_classes_as_no_folder_can_be_named(tmp_path, name):
    photos, rows = photos_of(tmp_path, name, dict.fromkeys(ODD_PATHS + NAMES, 2), "flat")
    assert photos.class_names == sorted(ODD_PATHS + NAMES)
    assert named(photos) == sorted(rows)


@pytest.mark.parametrize("name", SOURCES)
def test_leading_zeros_tell_classes_apart_and_numbers_are_in_numeric_order(tmp_path, name):
    photos, _ = photos_of(tmp_path / "a", name, {"7": 2, "07": 2, "007": 2, "10": 2})
    assert photos.class_names == ["007", "07", "10", "7"]
    photos, _ = photos_of(tmp_path / "b", name, {"10": 2, "9": 2, "0": 2})
    assert photos.class_names == ["0", "9", "10"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_classs_only_photo_trains(tmp_path, name):
    photos, _ = photos_of(tmp_path, name, {"one": 1, "many": 10, "two": 2})
    assert photos.class_names == ["many", "one", "two"]
    assert split_counts(photos) == [(8, 2), (1, 0), (1, 1)]
    assert split_counts(photos, 0.99) == [(1, 9), (1, 0), (1, 1)]


@pytest.mark.parametrize("name", SOURCES)
def test_two_classes_are_enough(tmp_path, name):
    photos, _ = photos_of(tmp_path, name, {"yes": 5, "no": 5})
    assert (photos.class_names, split_counts(photos)) == (["no", "yes"], [(4, 1), (4, 1)])


@pytest.mark.parametrize("name", SOURCES)
def test_a_thousand_classes_are_split_as_ten_are(tmp_path, name):
    photos, rows = photos_of(tmp_path, name, {str(i): 2 + i % 2 for i in range(1000)})
    assert photos.class_names == [str(i) for i in range(1000)]
    assert len(photos.table) == len(rows) == 2500
    assert split_counts(photos) == [(1 + i % 2, 1) for i in range(1000)]


def test_a_class_may_be_missing_in_the_validation_that_comes_with_the_data(tmp_path):
    photos_of(tmp_path, "folder", {"a": 2, "b": 2})
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "v.jpg").write_bytes(b"photo")
    photos = read_training_photos(to_data_config({"name": "folder", "root": str(tmp_path)}))
    assert photos.class_names == ["a", "b"]
    assert photos.table.label[photos.table.is_val].tolist() == [0]

    rows = [("0-0.jpg", "a", "train"), ("0-1.jpg", "a", "val"), ("1-0.jpg", "b", "train")]
    write_csv(tmp_path / "split.csv", rows, ("Id", "Category", "part"))
    values = {"name": "csv", "csv": str(tmp_path / "split.csv"), "split_column": "part"}
    photos = read_training_photos(to_data_config(values))
    assert photos.class_names == ["a", "b"]
    assert photos.table.is_val.tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["kaggle", "csv"])
def test_ids_to_predict_are_kept_as_they_are_written_and_in_their_order(tmp_path, name):
    ids = [f"{odd}.jpg" for odd in NAMES if odd not in ("a\\b",)] + ["007", "nowhere", "NaN"]
    for photo_id in ids[:-2]:
        path = tmp_path / "test" / photo_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo")
    write_csv(tmp_path / "sample_submission.csv", [(photo_id, "0") for photo_id in ids[::-1]])
    values = {"name": "kaggle", "root": str(tmp_path)}
    if name == "csv":
        values = {"name": "csv", "test_csv": str(tmp_path / "sample_submission.csv")}
    tested = read_test_photos(to_data_config(values))
    assert tested.ids == ids[::-1]
    assert [path and Path(path).name for path in tested.paths] == [None, None, *ids[:-2][::-1]]
