"""Names and tables exactly as they are written."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carcls.data.records import TrainingPhotos, file_facts, is_plain_integer, sorted_class_names
from carcls.data.tables import read_csv
from carcls.errors import UserError

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "2", "-1"], ["-1", "2", "10"]),
        (["10", "2", "007"], ["007", "10", "2"]),
        (["b", "a", "Ä", "日本", "NA", ""], ["", "NA", "a", "b", "Ä", "日本"]),
    ],
)
def test_integers_sort_by_value_and_other_names_as_text(names, expected):
    assert sorted_class_names(names) == expected


@given(st.text() | st.integers().map(str))
def test_a_plain_integer_is_one_that_is_written_as_it_would_be(name):
    written_so = name.isascii() and name.lstrip("-").isdigit() and name.count("-") <= 1
    assert is_plain_integer(name) == (written_so and str(int(name)) == name)


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6))
def test_a_csv_gives_every_value_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("Id", "Category"), *rows])
    assert list(read_csv(path, ("Id", "Category")).itertuples(index=False, name=None)) == rows


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_column(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffId,Category\n1.jpg,007\n", encoding="utf-8")
    assert read_csv(tmp_path / "a.csv", ("Id", "Category")).to_numpy().tolist() == [
        ["1.jpg", "007"]
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"id,Category\n1,2\n", "Expected the columns Id, Category in {}. Received: id, Category. "
         "Lacking: Id. Columns are named by data.id_column, data.label_column and, with data=csv,"),
        (b"Id,Category\n1.jpg,red, wide\n", "Expected rows of 2 values, as many as columns, in {}. "
         'Received: rows with more. A value that holds a comma is written in quotes: "a, b".'),
        (b"Id,Category\n1,2\n1,2,3\n", "Expected a CSV file whose rows have no more values "
         "than its header. Received: {}: Error tokenizing data. C error: Expected 2 fields in "
         "line 3, saw 3."),
        (b"", "Expected a CSV file with a header. Received: {}, empty."),
        (b"\xff\xfeI\0d\0", "Expected a CSV file in UTF-8. Received: {}: 'utf-8' codec"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_csv_is_told(tmp_path, content, text):
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_csv(path, ("Id", "Category"))
    assert str(caught.value).startswith(text.format(path))


def test_numbers_of_thousands_of_digits_are_numbers():
    names = ["9" * 5000, "10", "-" + "9" * 5000, "9" * 4999 + "8"]
    assert sorted_class_names(names) == [names[2], names[1], names[3], names[0]]


def photos_of(folder: Path, rows: list[tuple[str, int]]) -> TrainingPhotos:
    """The photos of id and label, each file as long as its name."""
    for photo_id, _ in rows:
        (folder / photo_id).write_text(photo_id)
    table = pd.DataFrame(rows, columns=["id", "label"])
    return TrainingPhotos(
        table=table.assign(path=[str(folder / photo_id) for photo_id in table.id]),
        class_names=["a", "b"],
    )


def test_the_fingerprint_is_of_class_names_ids_labels_and_sizes(tmp_path):
    photos = photos_of(tmp_path, [("x", 0), ("yy", 1), ("x", 0)])
    (tmp_path / "yy").unlink()
    text = "a\nb" + "x\x000\x001\n" + "yy\x001\x00-1\n" + "x\x000\x001\n"
    assert photos.fingerprint() == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_file_is_asked_for_its_size_and_time_once(tmp_path):
    photos = photos_of(tmp_path, [("x", 0), ("yy", 1), ("x", 0), ("zzz", 1)])
    for time, name in enumerate(("x", "yy")):
        os.utime(tmp_path / name, ns=(0, 10**18 + time))
    (tmp_path / "zzz").unlink()
    expected = np.array([[1, 10**18], [2, 10**18 + 1], [1, 10**18], [-1, -1]])
    np.testing.assert_array_equal(np.transpose(photos.file_facts()), expected)
    (tmp_path / "x").write_text("more")
    np.testing.assert_array_equal(np.transpose(photos.file_facts()), expected)
    photos.table = photos.table.iloc[[2, 1]].reset_index(drop=True)
    np.testing.assert_array_equal(np.transpose(photos.file_facts()), expected[[2, 1]])
    assert [facts.dtype for facts in photos.file_facts()] == [np.int64, np.int64]


def test_facts_of_other_files_are_asked_for_anew(tmp_path):
    photos = photos_of(tmp_path, [("x", 0), ("yy", 1)])
    photos.file_facts()
    (tmp_path / "other").write_text("other")
    photos.table = photos.table.assign(path=[str(tmp_path / "other"), str(tmp_path / "x")])
    assert photos.file_facts()[0].tolist() == [5, 1]
    assert [facts.tolist() for facts in file_facts([])] == [[], []]


def test_names_in_no_encoding_have_a_fingerprint():
    name = os.fsdecode(b"caf\xe9.png")
    table = pd.DataFrame({"id": [name], "path": ["nowhere"], "label": [0]})
    photos = TrainingPhotos(table=table, class_names=[name])
    expected = hashlib.sha256(b"caf\xe9.pngcaf\xe9.png\0" + b"0\0-1\n").hexdigest()[:16]
    assert photos.fingerprint() == expected
