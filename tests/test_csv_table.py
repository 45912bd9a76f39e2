"""`data=csv`: any CSV, with the photos wherever it says."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from carcls.config import to_data_config
from carcls.data.rows import NEIGHBOUR
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.errors import UserError
from tests.conftest import write_csv

HEADER = ("path", "kind")
ROWS = [(f"{kind}/{i}.jpg", kind) for kind in ("coupe", "van") for i in range(4)]


def touch(*paths: Path) -> None:
    """Files in place of photos: reading a source opens none."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo")


def config(csv: Path | str | None, **values):
    named = {"id_column": "path", "label_column": "kind", **values}
    return to_data_config({"name": "csv", "csv": csv if csv is None else str(csv), **named})


def training(csv: Path | str, **values):
    return read_training_photos(config(csv, **values))


def mistake(csv: Path | str | None, read=read_training_photos, **values) -> str:
    with pytest.raises(UserError) as caught:
        read(config(csv, **values))
    return str(caught.value)


def pairs(photos) -> list[tuple[str, str]]:
    return [(row.id, photos.class_names[row.label]) for row in photos.table.itertuples()]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """`cars/labels.csv` with the photos of `ROWS` below `cars/photos`."""
    root = tmp_path / "cars"
    touch(*(root / "photos" / name for name, _ in ROWS))
    write_csv(root / "labels.csv", ROWS, HEADER)
    return root / "labels.csv"


def test_the_photos_lie_below_the_folder_of_the_csv(table):
    photos = training(table)
    assert pairs(photos) == ROWS
    assert photos.table.path.tolist() == [str(table.parent / "photos" / name) for name, _ in ROWS]
    assert (list(photos.table), photos.skipped) == (["id", "path", "label"], [])


def test_the_photos_lie_below_a_root_of_their_own(table, tmp_path):
    moved = table.rename(tmp_path / "elsewhere.csv")
    assert pairs(training(moved, root=str(tmp_path / "cars" / "photos"))) == ROWS
    assert pairs(training(moved, root=str(tmp_path / "cars"))) == ROWS


def test_the_csv_is_looked_for_from_here_and_then_below_the_root(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training("cars/labels.csv").table.path[0] == "cars/photos/coupe/0.jpg"
    assert pairs(training("labels.csv", root="cars")) == ROWS
    assert mistake("label.csv", root="cars") == (
        "Expected data.csv to be a CSV file. Received: label.csv. Looked for "
        f"{tmp_path / 'label.csv'} and {tmp_path / 'cars' / 'label.csv'}."
    )
    assert mistake("no/label.csv") == (
        "Expected data.csv to be a CSV file. Received: no/label.csv. Looked for "
        f"{tmp_path / 'no' / 'label.csv'}."
    )
    monkeypatch.chdir(table.parent)
    assert pairs(training("labels.csv")) == ROWS


def test_a_csv_must_be_named():
    assert mistake(None) == (
        "Expected data.csv=FILE, a CSV with the columns path,kind (others: data.id_column, "
        "data.label_column). Received: none."
    )


@pytest.mark.parametrize("inside", [False, True])
def test_the_root_may_be_an_archive_with_or_without_the_csv(table, tmp_path, inside):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(table.parent.rglob("*.*")):
            if inside or path != table:
                zipped.write(path, path.relative_to(tmp_path).as_posix())
    cache = str(tmp_path / "cache")
    csv = "labels.csv" if inside else table
    assert pairs(training(csv, root=str(archive), cache_dir=cache)) == ROWS


def test_ids_may_start_with_the_roots_own_name(table, tmp_path):
    rows = [(f"photos/{name}", kind) for name, kind in ROWS]
    write_csv(tmp_path / "all.csv", rows, HEADER)
    assert pairs(training(tmp_path / "all.csv", root=str(table.parent / "photos"))) == rows


def test_ids_may_be_whole_paths_below_the_root_or_those_of_windows(table, tmp_path):
    rows = [(str(table.parent / "photos" / ROWS[0][0]), "coupe")]
    rows += [(name.replace("/", "\\"), kind) for name, kind in ROWS[1:]]
    write_csv(table, rows, HEADER)
    assert sorted(pairs(training(table))) == sorted(rows)


@pytest.mark.parametrize(
    "photo_id",
    ["../secret.jpg", "{}/secret.jpg", "x/../../secret.jpg", "..\\secret.jpg", "photos/../../s"],
)
def test_no_id_leads_out_of_the_root(table, tmp_path, photo_id):
    touch(tmp_path / "secret.jpg")
    write_csv(table, [*ROWS, (photo_id.format(tmp_path), "van")], HEADER)
    photos = training(table, on_missing="skip")
    assert photos.skipped == [(photo_id.format(tmp_path), "no photo")]
    text = mistake(table)
    assert ("Photos are looked for below data.root only." in text) == photo_id.startswith("{")


def test_ids_are_found_by_a_unique_name_only(table):
    write_csv(table, [("0.jpg", "coupe"), ("0.jpg", "van"), ("1.jpg", "SUV")], HEADER)
    text = mistake(table)  # the class's folder tells the first two apart, not the last
    assert "Received none for 1: 1.jpg. More than one photo fits 1.jpg." in text


def test_a_name_in_another_folder_is_another_photo(table):
    (table.parent / "photos" / "coupe" / "3.jpg").unlink()
    touch(table.parent / "photos" / "old" / "3.jpg")
    assert training(table, on_missing="skip").skipped == [("coupe/3.jpg", "no photo")]


def test_ids_without_a_suffix_or_with_one_in_another_case_find_their_photos(table):
    (table.parent / "photos" / "coupe" / "0.jpg").rename(table.parent / "photos/coupe/0.JPG")
    rows = [ROWS[0], *((name.removesuffix(".jpg"), kind) for name, kind in ROWS[1:])]
    write_csv(table, rows, HEADER)
    assert sorted(pairs(training(table))) == sorted(rows)


@pytest.mark.parametrize(
    ("separator", "given"),
    [(",", None), (";", None), ("\t", None), ("|", None), ("\t", "tab"), (";", ";"), ("#", "#")],
)
def test_the_separator_is_found_out_or_given(table, separator, given):
    lines = [separator.join(('"note, or; not"', *row)) for row in [HEADER, *ROWS]]
    table.write_text("\n".join(lines), encoding="utf-8-sig")
    assert pairs(training(table, separator=given)) == ROWS


def test_a_separator_is_one_character():
    with pytest.raises(UserError) as caught:
        config("x.csv", separator=", ")
    assert str(caught.value) == (
        "Expected separator to be one character or tab, or null to find it out. "
        "Received: separator=, "
    )


def test_columns_must_differ():
    with pytest.raises(UserError, match=r"to be three different columns.*label_column=path"):
        config("x.csv", label_column="path")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("path;label\n1;2", "Expected the columns path, kind in {}. Received: path, label. "
         "Lacking: kind. Columns are named by data.id_column, data.label_column and, with "
         "data=csv, data.split_column; what stands between them by data.separator."),
        ("path,kind\nü,1".encode("latin-1"), "Expected a CSV file in UTF-8. Received: {}: 'utf-8' "
         "codec can't decode byte 0xfc in position 10: invalid start byte. Save it again in "
         "UTF-8."),
        ("", "Expected a CSV file with a header. Received: {}, empty."),
        ("path,kind\n", "Expected at least two classes in {}. Received: 0 photos of no class. "
         "A classifier needs photos of two or more classes."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_csv_is_told(table, content, text):
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert mistake(table) == text.format(table)


def test_a_split_column_says_which_validate_and_which_are_predicted(table):
    splits = ["train", " Training", "VAL", "test", "trn", "dev", "Validation", "Test"]
    rows = [(*row, split) for row, split in zip(ROWS, splits, strict=True)]
    write_csv(table, rows, (*HEADER, "part"))
    photos = training(table, split_column="part")
    assert pairs(photos) == [ROWS[i] for i in (0, 1, 2, 4, 5, 6)]
    assert photos.table.is_val.tolist() == [False, False, True, False, True, True]
    assert photos.table.is_val.dtype == bool
    tested = read_test_photos(config(table, split_column="part"))
    assert (tested.ids, tested.columns) == (["coupe/3.jpg", "van/3.jpg"], ("path", "kind"))
    assert [Path(path).name for path in tested.paths] == ["3.jpg", "3.jpg"]
    assert tested.truth == {"coupe/3.jpg": "coupe", "van/3.jpg": "van"}


def test_a_split_column_that_says_anything_else_is_a_mistake(table):
    rows = [(*row, s) for row, s in zip(ROWS, ["train", "holdout", "", "holdout"] * 2, strict=True)]
    write_csv(table, rows, (*HEADER, "part"))
    assert mistake(table, split_column="part") == (
        f"Expected every row of {table} to say in column part one of train (training, trn) or "
        "val (valid, validation, validate, dev, development) or test (testing, tst). "
        "Received: '' in 2 rows, 'holdout' in 4 rows."
    )
    assert "Lacking: split." in mistake(table, split_column="split")


def test_a_split_column_without_validation_leaves_it_to_the_share_and_says_so(table, caplog):
    rows = [(*row, "test" if row[0].endswith("3.jpg") else "train") for row in ROWS]
    write_csv(table, rows, (*HEADER, "part"))
    with caplog.at_level("INFO"):
        photos = training(table, split_column="part")
    assert (len(photos.table), "is_val" in photos.table) == (6, False)
    assert caplog.messages == [
        f"no row of {table} says val in part: the share data.val_split of its 6 rows to train on "
        "validates"
    ]


def test_rows_to_predict_need_no_label_and_make_no_class(table):
    rows = [(*row, "train") for row in ROWS]
    rows += [("9.jpg", "", "test"), ("8.jpg", "tank", "test"), ("7.jpg", "van", "test")]
    write_csv(table, rows, (*HEADER, "part"))
    touch(table.parent / "9.jpg")
    assert training(table, split_column="part").class_names == ["coupe", "van"]
    tested = read_test_photos(config(table, split_column="part"))
    assert tested.ids == ["9.jpg", "8.jpg", "7.jpg"]
    assert tested.paths == [str(table.parent / "9.jpg"), None, None]
    assert tested.reasons == dict.fromkeys(["8.jpg", "7.jpg"], "no photo of that Id")
    assert tested.truth == {"7.jpg": "van"}, "nothing is trained to say tank"


def test_another_csv_lists_what_to_predict_in_its_order(table):
    ids = ["van/2.jpg", "coupe/1", "no such.jpg"]
    write_csv(table.parent / "test.csv", [(i,) for i in ids], ("path",))
    tested = read_test_photos(config(table, test_csv=str(table.parent / "test.csv")))
    assert (tested.ids, tested.truth, tested.columns) == (ids, None, HEADER)
    assert tested.paths == [
        str(table.parent / "photos" / "van" / "2.jpg"),
        str(table.parent / "photos" / "coupe" / "1.jpg"),
        None,
    ]
    alone = config(None, test_csv=str(table.parent / "test.csv"))  # nothing to train on is needed
    assert read_test_photos(alone).paths == tested.paths


@pytest.mark.parametrize(
    ("names", "truth"),
    [
        (("0", "0"), None),  # a sample submission's placeholder
        (("coupe", "van"), {"van/2.jpg": "coupe", "van/1.jpg": "van"}),
        (("", "van"), {"van/1.jpg": "van"}),
    ],
)
def test_labels_of_what_to_predict_are_known_unless_they_are_a_placeholder(table, names, truth):
    csv = table.parent / "test.csv"
    write_csv(csv, list(zip(["van/2.jpg", "van/1.jpg"], names, strict=True)), HEADER)
    assert read_test_photos(config(table, test_csv=str(csv))).truth == truth


def test_without_anything_to_predict_the_ways_to_name_it_are_told(table):
    assert mistake(table, read_test_photos) == (
        "Expected data.test_csv=FILE, which lists what to predict, or data.split_column=NAME, "
        "whose rows of test are predicted. Received: neither. To predict photos without a CSV: "
        "images=PATH."
    )
    write_csv(table, [(*row, "train") for row in ROWS], (*HEADER, "part"))
    assert mistake(table, read_test_photos, split_column="part") == (
        f"Expected rows of {table} that say test in part, to predict. Received: none. Name another "
        "CSV with data.test_csv=FILE, or photos with images=PATH."
    )
    csv = table.parent / "test.csv"
    write_csv(csv, [("a.jpg",), ("b.jpg",), ("a.jpg",)], ("path",))
    assert mistake(table, read_test_photos, test_csv=str(csv)) == (
        f"Expected every Id exactly once in {csv}. Received twice: a.jpg"
    )


def test_photos_in_a_root_of_their_own_need_a_row_unless_they_are_to_be_predicted(table, tmp_path):
    csv = table.rename(tmp_path / "labels.csv")
    root = tmp_path / "cars" / "photos"
    touch(root / "new" / "a.jpg", root / "b.jpg")
    assert mistake(csv, root=str(root)) == (
        f"Expected a row in {csv} for every photo below {root}. Received none for 2: b.jpg, "
        "new/a.jpg. Name the CSV of photos to predict with data.test_csv. Leave them out with "
        "data.on_missing=skip."
    )
    assert training(csv, root=str(root), on_missing="skip").skipped == [
        ("b.jpg", "no row in labels.csv"),
        ("new/a.jpg", "no row in labels.csv"),
    ]
    write_csv(tmp_path / "test.csv", [("a.jpg",), ("b.jpg",)], ("path",))
    photos = training(csv, root=str(root), test_csv=str(tmp_path / "test.csv"))
    assert (pairs(photos), photos.skipped) == (ROWS, [])
    rows = [(*row, "train") for row in ROWS] + [("a.jpg", "", "test"), ("b.jpg", "", "test")]
    write_csv(csv, rows, (*HEADER, "part"))
    assert training(csv, root=str(root), split_column="part").skipped == []


def test_photos_beside_the_csv_need_no_row_but_those_beside_the_rows_photos_are_counted(
    table, caplog
):
    touch(table.parent / "figure.png", table.parent / "photos" / "spare.jpg")
    with caplog.at_level("INFO"):
        assert training(table).skipped == []
    assert caplog.messages == []
    touch(*(table.parent / "photos" / "van" / name for name in ("8.jpg", "9.jpg", "notes.txt")))
    with caplog.at_level("INFO"):
        assert pairs(training(table)) == ROWS
    assert caplog.messages == [
        f"2 photos beside those of {table} have no row: photos/van/8.jpg, photos/van/9.jpg.",
        f"Left out 2 rows or photos, 8 remain: 2 × {NEIGHBOUR} (photos/van/8.jpg, "
        "photos/van/9.jpg). All are listed in run.json.",
    ]


def test_photos_beside_those_of_the_rows_are_listed_in_the_root_too_and_stop_nothing(
    tmp_path, monkeypatch
):
    for name in ("1.jpg", "2.jpg", "spare.jpg", "to predict.jpg", "notes.txt"):
        touch(tmp_path / name)
    write_csv(tmp_path / "list.csv", [("1.jpg", "a"), ("2.jpg", "b")], HEADER)
    write_csv(tmp_path / "test.csv", [("to predict.jpg",)], HEADER[:1])
    photos = training(tmp_path / "list.csv", test_csv=str(tmp_path / "test.csv"))
    assert photos.skipped == [("spare.jpg", NEIGHBOUR)]
    assert photos.of_lost_classes == set()
    monkeypatch.chdir(tmp_path)
    assert training("list.csv", test_csv="test.csv").skipped == photos.skipped


def test_rows_whose_class_has_no_photo_are_told_apart(table):
    write_csv(table, [*ROWS, ("gone.jpg", "bus"), ("gone too.jpg", "van")], HEADER)
    photos = training(table, on_missing="skip")
    assert photos.skipped == [("gone.jpg", "no photo"), ("gone too.jpg", "no photo")]
    assert photos.of_lost_classes == {"gone.jpg"}


def test_rows_that_the_folders_contradict_are_told_or_left_out_and_counted(table):
    write_csv(table, [("coupe/0.jpg", "van"), *ROWS[1:]], HEADER)
    assert mistake(table) == (
        f"Expected {table} and the folders below {table.parent} to agree. Received photos in the "
        "folder of another class for 1: coupe/0.jpg (in the folder coupe, the CSV says van). Mend "
        "the CSV or move the photos. Leave them out with data.on_missing=skip."
    )
    photos = training(table, on_missing="skip")
    assert photos.skipped == [("coupe/0.jpg", "in the folder coupe, the CSV says van")]


def test_a_folder_that_all_photos_share_is_no_class_unless_it_is_that_of_most(table, tmp_path):
    csv = tmp_path / "cars" / "flat.csv"
    touch(*(tmp_path / "cars" / "flat" / f"{i}.png" for i in range(4)))
    write_csv(csv, [(f"{i}.png", "ab"[i % 2]) for i in range(3)] + [("3.png", "flat")], HEADER)
    assert training(csv).class_names == ["a", "b", "flat"]
    write_csv(csv, [("0.png", "a")] + [(f"{i}.png", "flat") for i in range(1, 4)], HEADER)
    assert "another class for 1: 0.png (in the folder flat, the CSV says a)." in mistake(csv)


def test_the_order_of_the_rows_changes_nothing(table):
    photos = training(table)
    write_csv(table, ROWS[::-1], HEADER)
    assert training(table).table.equals(photos.table)
    assert training(table).fingerprint() == photos.fingerprint()


def test_a_root_that_nobody_may_read_is_told(table):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    table.parent.chmod(0o300)
    try:
        assert mistake(table) == (
            f"Expected a folder that can be read. Received: {table.parent}: Permission denied."
        )
    finally:
        table.parent.chmod(0o700)


def test_names_are_the_same_in_both_unicode_spellings(table):
    name = unicodedata.normalize("NFD", "Škoda/é.jpg")
    touch(table.parent / "photos" / name)
    write_csv(table, [*ROWS, ("Škoda/é.jpg", "Škoda")], HEADER)
    assert ("Škoda/é.jpg", "Škoda") in pairs(training(table))


@pytest.mark.parametrize("path", ["~nosuchuser/x.csv", "x" * 300])
@pytest.mark.parametrize("key", ["csv", "test_csv"])
def test_a_csv_at_a_path_that_nothing_can_have_is_told(key, path):
    with pytest.raises(UserError, match=f"Expected {key} to be a path. Received: {key}="):
        to_data_config({"name": "csv", "root": "x", key: path})


@pytest.mark.parametrize("column", ["name", "is_val", "id", "label", "path_"])
def test_a_split_column_may_have_any_name(table, column):
    rows = [(*row, "val" if row[0].endswith("3.jpg") else "train") for row in ROWS]
    write_csv(table, rows, (*HEADER, column))
    photos = training(table, split_column=column)
    assert pairs(photos) == ROWS
    assert photos.table.is_val.tolist() == [False, False, False, True] * 2
    write_csv(table, [(*row, "train") for row in ROWS], (*HEADER, column))
    assert "is_val" not in training(table, split_column=column).table


def test_one_label_in_every_row_of_test_is_no_truth(table):
    rows = [(*row, "train") for row in ROWS[1:-1]]
    rows += [(photo_id, "coupe", "test") for photo_id, _ in (ROWS[0], ROWS[-1])]
    write_csv(table, rows, (*HEADER, "part"))
    assert read_test_photos(config(table, split_column="part")).truth is None


def test_only_an_archives_name_has_a_suffix_to_leave_out(table, tmp_path):
    (table.parent / "photos").rename(table.parent / "photos.v2")
    rows = [(f"photos.v2/{name}", kind) for name, kind in ROWS]
    write_csv(tmp_path / "all.csv", rows, HEADER)
    assert pairs(training(tmp_path / "all.csv", root=str(table.parent / "photos.v2"))) == rows


def test_no_photo_to_predict_at_all_is_a_mistake(table):
    csv = table.parent / "test.csv"
    write_csv(csv, [("x.jpg",), ("y.jpg",)], ("path",))
    assert mistake(table, read_test_photos, test_csv=str(csv)).startswith(
        f"Expected photos of the ids in {csv} below {table.parent}, such as x.jpg. Received none "
        "for all 2: 2 × no photo of that Id."
    )


def test_rows_that_repeat_a_photo_count_each_and_are_counted(table, caplog):
    again = [ROWS[0], ("photos/coupe/0.jpg", "coupe"), ROWS[0], ROWS[5]]
    write_csv(table, [*ROWS, *again], HEADER)
    with caplog.at_level("INFO"):
        photos = training(table)
    assert pairs(photos) == sorted([*ROWS, *again])
    assert len(set(photos.table.path)) == len(ROWS)
    assert photos.skipped == []
    assert caplog.messages == [
        f"4 of the 12 rows of {table} repeat 2 photos: a photo counts as often as it has rows, "
        "which are all on one side of the split."
    ]


def test_rows_of_a_photo_that_name_several_classes_are_told_or_all_left_out(table):
    for kind in ("coupe", "van"):
        for path in (table.parent / "photos" / kind).iterdir():
            path.rename(table.parent / "photos" / f"{kind}{path.name}")
    rows = [(f"{kind}{i}.jpg", kind) for kind in ("coupe", "van") for i in range(4)]
    write_csv(table, [*rows, ("coupe0", "van"), ("coupe0.jpg", "coupe"), rows[1]], HEADER)
    assert mistake(table) == (
        f"Expected all rows of a photo in {table} to agree. Received contradictions in 3: "
        "coupe0.jpg (rows of different classes), coupe0 (rows of different classes), coupe0.jpg "
        "(rows of different classes). Leave them out with data.on_missing=skip."
    )
    photos = training(table, on_missing="skip")
    assert pairs(photos) == sorted([*rows[1:], rows[1]])
    assert photos.skipped == [
        (photo_id, "rows of different classes")
        for photo_id in ("coupe0.jpg", "coupe0", "coupe0.jpg")
    ]


def test_rows_of_a_photo_on_both_sides_of_the_split_are_told_or_all_left_out(table):
    rows = [(*row, "train") for row in ROWS]
    rows += [(*ROWS[0], "val"), (*ROWS[1], "train"), (*ROWS[7], "train")]
    write_csv(table, rows, (*HEADER, "part"))
    assert mistake(table, split_column="part") == (
        f"Expected all rows of a photo in {table} to agree. Received contradictions in 2: "
        "coupe/0.jpg (rows on both sides of the split), coupe/0.jpg (rows on both sides of the "
        "split). Leave them out with data.on_missing=skip."
    )
    write_csv(table, [*rows, (*ROWS[2], "train")], (*HEADER, "part"))
    photos = training(table, split_column="part", on_missing="skip")
    assert pairs(photos) == sorted([*ROWS[1:], ROWS[1], ROWS[2], ROWS[7]])
    assert photos.skipped == [("coupe/0.jpg", "rows on both sides of the split")] * 2


def test_a_folder_of_many_photos_is_listed_once_and_gives_the_same(table):
    names = [f"{i:04}.jpg" for i in range(1300)]
    for name in names:
        (table.parent / "photos" / "van" / name).touch()
    (table.parent / "photos" / "van" / "1200.jpg").unlink()
    (table.parent / "photos" / "van" / "1201.jpg").rename(
        table.parent / "photos" / "van" / "1201.JPG"
    )
    csv = table.parent / "photos" / "labels.csv"
    write_csv(csv, [*ROWS, *((f"van/{name}", "van") for name in names)], HEADER)
    photos = training(csv, on_missing="skip")
    assert photos.skipped == [("van/1200.jpg", "no photo")]
    assert pairs(photos) == sorted(
        [*ROWS, *((f"van/{name}", "van") for name in names if name != "1200.jpg")]
    )
    odd = photos.table[
        [
            Path(p).name != Path(i).name
            for i, p in zip(photos.table.id, photos.table.path, strict=True)
        ]
    ]
    assert odd.id.tolist() == ["van/1201.jpg"] and odd.path.item().endswith("/van/1201.JPG")


def test_names_in_many_folders_are_found_by_as_much_of_the_path_as_is_given(table):
    root = table.parent / "photos"
    for i in range(12):
        touch(root / f"shard {i}" / "deep" / f"{i}.png", root / f"shard {i}" / "deep" / "same.png")
    rows = [(f"{i}", "coupe") for i in range(4, 8)] + [
        (f"deep/{i}.png", "van") for i in range(8, 12)
    ]
    rows += [("shard 3/deep/same", "van"), ("deep/same.png", "van"), ("same.png", "van")]
    write_csv(table, rows, HEADER)
    photos = training(table, on_missing="skip")
    assert [row for row in photos.skipped if row[1] != NEIGHBOUR] == [
        (photo_id, "more than one photo of that name") for photo_id in ("deep/same.png", "same.png")
    ]
    expected = [f"{i}/deep/{i}" for i in (4, 5, 6, 7, 10, 11, 8, 9)] + ["3/deep/same"]
    assert photos.table.path.tolist() == [str(root / f"shard {name}.png") for name in expected]
