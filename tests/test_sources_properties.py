"""What holds for any CSV, any tree of folders and any split."""

import csv
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.config import to_data_config
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.data.layout import PART_OF
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.data.split import stratified_split

TEXT = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
FOLDERS = TEXT.filter(  # names that are nobody's leftovers and no part of a split
    lambda name: (
        not name.startswith(".") and name not in SYSTEM_LEFTOVERS and name.lower() not in PART_OF
    )
)
SEPARATORS = st.sampled_from([",", ";", "\t", "|"])
QUOTINGS = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
SEEDS = st.integers(0, 2**32)


@st.composite
def tables(draw) -> list[tuple[str, str, bool]]:
    """Rows of id, class and whether there is a photo; at least two classes have one."""
    names = draw(st.lists(TEXT, min_size=2, max_size=5, unique=True))
    rows = [
        (f"{i}-{draw(TEXT)}.jpg", names[i] if i < 2 else draw(st.sampled_from(names)))
        for i in range(draw(st.integers(2, 12)))
    ]
    present = [i < 2 or draw(st.booleans()) for i in range(len(rows))]
    return draw(st.permutations([(*row, p) for row, p in zip(rows, present, strict=True)]))


def write_table(path: Path, rows: list[tuple], separator: str, quoting: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting)
        writer.writerows([("note", "Id", "Category"), *(("x, y; z", *row) for row in rows)])


def put_photos(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"\x89PNG")  # no more than its start is looked at


def named(photos) -> dict[str, str]:
    return {row.id: photos.class_names[row.label] for row in photos.table.itertuples()}


@settings(max_examples=40)
@given(tables(), SEPARATORS, QUOTINGS, st.sampled_from(["kaggle", "csv"]))
def test_every_row_is_a_photo_of_its_class_or_is_listed(
    tmp_path_factory, rows, separator, quoting, source
):
    root = tmp_path_factory.mktemp("table")
    write_table(root / "train.csv", [row[:2] for row in rows], separator, quoting)
    put_photos(root / "train", [photo_id for photo_id, _, present in rows if present])
    values = {"name": source, "root": str(root), "on_missing": "skip"}
    if source == "csv":
        values["csv"] = "train.csv"
    photos = read_training_photos(to_data_config(values))
    assert named(photos) == {photo_id: name for photo_id, name, present in rows if present}
    assert photos.table.id.tolist() == sorted(named(photos))
    assert photos.skipped == [
        (photo_id, "no photo") for photo_id, _, present in rows if not present
    ]
    assert all(Path(row.path).name == row.id for row in photos.table.itertuples())


@settings(max_examples=40)
@given(st.lists(TEXT, min_size=1, max_size=10, unique=True), SEPARATORS, QUOTINGS, st.data())
def test_what_is_to_be_predicted_has_exactly_the_samples_ids_in_its_order(
    tmp_path_factory, ids, separator, quoting, data
):
    root = tmp_path_factory.mktemp("sample")
    ids = [f"{i}-{name}" for i, name in enumerate(ids)]
    present = data.draw(st.sets(st.sampled_from(ids), min_size=1))
    ids = data.draw(st.permutations(ids))
    write_table(root / "sample_submission.csv", [(i, "0") for i in ids], separator, quoting)
    put_photos(root / "test", sorted(present | {"another"}))
    photos = read_test_photos(to_data_config({"name": "kaggle", "root": str(root)}))
    assert photos.ids == ids
    assert [path is not None for path in photos.paths] == [i in present for i in ids]
    assert {Path(path).name for path in photos.paths if path} == present


@settings(max_examples=40)
@given(
    st.dictionaries(FOLDERS, st.sets(FOLDERS, min_size=1, max_size=4), min_size=2, max_size=5),
    st.booleans(),
)
def test_every_photo_of_a_tree_has_the_class_of_its_folder(tmp_path_factory, tree, in_train):
    root = tmp_path_factory.mktemp("tree")
    prefix = "train/" if in_train else ""
    for name, files in tree.items():
        put_photos(root / prefix / name, sorted(files))
    photos = read_training_photos(to_data_config({"name": "folder", "root": str(root)}))
    assert named(photos) == {f"{prefix}{name}/{f}": name for name, fs in tree.items() for f in fs}
    assert photos.skipped == []


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 99), SEEDS, st.data())
def test_a_split_keeps_every_class_on_both_sides_whatever_the_order_of_the_rows(
    tmp_path_factory, counts, percent, seed, data
):
    root = tmp_path_factory.mktemp("split")
    rows = [(f"{k}-{i}.jpg", f"class {k}") for k, n in enumerate(counts) for i in range(n)]
    put_photos(root / "train", [photo_id for photo_id, _ in rows])

    def drawn() -> set[str]:
        photos = read_training_photos(to_data_config({"name": "kaggle", "root": str(root)}))
        is_val = stratified_split(photos.table.label.to_numpy(np.int32), percent / 100, seed)
        return set(photos.table.id[is_val])

    write_table(root / "train.csv", rows, ",", csv.QUOTE_MINIMAL)
    val = drawn()
    assert drawn() == val
    write_table(root / "train.csv", data.draw(st.permutations(rows)), ",", csv.QUOTE_MINIMAL)
    assert drawn() == val
    for k, n in enumerate(counts):
        validate = sum(photo_id.startswith(f"{k}-") for photo_id in val)
        assert validate == 0 if n == 1 else 1 <= validate < n
        assert abs(validate - n * percent / 100) <= 1
