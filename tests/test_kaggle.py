"""A competition as it is downloaded: every layout of it, and mistakes told with a way out."""

import os
import shutil
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from carcls.config import to_data_config
from carcls.data.archives import ARCHIVE_SUFFIXES
from carcls.data.kaggle import SAMPLE_CSV
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.data.tables import read_csv
from carcls.errors import UserError
from tests.conftest import draw_photo, write_csv


def training(root: Path, name: str = "kaggle", **changes):
    return read_training_photos(to_data_config({"name": name, "root": str(root), **changes}))


def to_predict(root: Path, name: str = "kaggle", **changes):
    return read_test_photos(to_data_config({"name": name, "root": str(root), **changes}))


def mistake(read, *args, **changes) -> str:
    with pytest.raises(UserError) as caught:
        read(*args, **changes)
    return str(caught.value)


def labels_by_id(photos) -> dict[str, str]:
    return {row.id: photos.class_names[row.label] for row in photos.table.itertuples()}


def rows_of(root: Path) -> dict[str, str]:
    return dict(read_csv(root / "train.csv", ("Id", "Category")).itertuples(index=False))


def zip_folder(folder: Path, archive: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(folder.rglob("*.png")):
            zipped.write(path, prefix + path.relative_to(folder).as_posix())
    shutil.rmtree(folder)


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    """An archive of everything in `folder`, which is gone then."""
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(folder.rglob("*")):
            zipped.write(path, prefix + path.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return archive


def flatten(folder: Path, into: Path) -> None:
    into.mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*.png")):
        path.rename(into / path.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "layout",
    ["class folders", "flat", "train_upload", "train_images", "zip with train/", "zip of classes",
     "flat zip", "zip with train/train/", "ZIP", "beside the CSV", "class folders beside the CSV",
     "nested deeper", "an empty folder beside the zip", "leftovers of a Mac", "all in one folder",
     "one archive of everything", "one wrapped archive of everything", "archives in one archive",
     "a folder that holds the archive of everything"],
)  # fmt: skip
def test_every_layout_of_a_competition_gives_the_same_photos(competition, tmp_path, layout):
    folder, flat = competition / "train", tmp_path / "flat"
    expected = rows_of(competition)
    if layout in ("flat", "flat zip", "beside the CSV"):
        flatten(folder, flat)
        folder = flat.rename(folder)
    root = competition
    if layout in ("train_upload", "train_images"):
        folder.rename(competition / layout)
    elif layout == "beside the CSV":
        flatten(folder, competition)
    elif layout == "class folders beside the CSV":
        for path in folder.iterdir():
            path.rename(competition / path.name)
        folder.rmdir()
    elif layout == "nested deeper":
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (tmp_path / "moved").rename(folder / "photos")
    elif layout == "leftovers of a Mac":
        for name in ("__MACOSX/train/007/._1007.png", "train/__MACOSX/1007.png", "train/._a.png"):
            draw_photo(competition / name, (0, 0, 0), 0)
    elif layout == "all in one folder":
        root = tmp_path / "upload"
        root.mkdir()
        competition.rename(root / "cars")
        (root / ".DS_Store").touch()
    elif layout == "archives in one archive":
        zip_folder(folder, competition / "train.zip")
        root = pack(competition, tmp_path / "all.zip")
    elif "archive of everything" in layout:
        prefix = "cars/" if "wrapped" in layout else ""
        root = pack(competition, tmp_path / "all" / "cars.zip", prefix)
        root = root.parent if "folder" in layout else root
    elif "zip" in layout.lower():
        prefix = {"zip with train/": "train/", "zip with train/train/": "train/train/"}
        archive = competition / ("train.ZIP" if layout == "ZIP" else "train.zip")
        zip_folder(folder, archive, prefix.get(layout, ""))
        if layout == "an empty folder beside the zip":
            folder.mkdir()
    photos = training(root, cache_dir=str(tmp_path / "cache"))
    assert photos.class_names == ["007", "12", "red, wide"]
    assert labels_by_id(photos) == expected
    assert photos.table.id.tolist() == sorted(expected)
    assert all(Path(row.path).name == row.id for row in photos.table.itertuples())
    assert all(Path(path).is_file() for path in photos.table.path)
    assert (photos.skipped, "is_val" in photos.table) == ([], False)


@pytest.mark.parametrize("name", ["test_upload", "test", "zip"])
def test_test_photos_keep_the_order_of_the_sample_submission(competition, tmp_path, name):
    folder = competition / "test_upload"
    if name == "zip":
        zip_folder(folder, competition / "test.zip", "test_upload/")
    else:
        folder.rename(competition / name)
    photos = to_predict(competition, cache_dir=str(tmp_path / "cache"))
    assert photos.ids == [f"{900 - 3 * i}.png" for i in range(5)]
    assert [Path(path).name for path in photos.paths] == photos.ids
    assert (photos.columns, photos.truth) == (("Id", "Category"), None)


def test_a_test_photo_that_is_not_there_has_no_path_and_truth_is_read_where_it_is(competition):
    (competition / "test_upload" / "897.png").unlink()
    write_csv(competition / "test-labels.csv", [("900.png", "007"), ("897.png", "12")])
    photos = to_predict(competition)
    assert [path is None for path in photos.paths] == [False, True, False, False, False]
    assert photos.truth == {"900.png": "007", "897.png": "12"}


def test_columns_can_have_other_names_and_columns_beyond_them_do_not_matter(competition):
    rows = [(name, "x", photo_id) for photo_id, name in rows_of(competition).items()]
    write_csv(competition / "train.csv", rows, ("class", "note", "file"))
    photos = training(competition, id_column="file", label_column="class")
    assert photos.class_names == ["007", "12", "red, wide"]


@pytest.mark.parametrize("name", ["kaggle", "folder"])
@pytest.mark.parametrize("read", [training, to_predict])
def test_a_root_that_cannot_be_read_says_what_was_looked_for(tmp_path, name, read):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    states = {
        "none": "does not exist",
        "file": f"is a file, and no archive ({', '.join(ARCHIVE_SUFFIXES)})",
        "empty": "is empty",
    }
    looked_for = {
        ("kaggle", training): "train.csv and train.zip or a folder train/",
        ("kaggle", to_predict): "sample-submission.csv and test.zip or a folder test_upload/",
        ("folder", training): "class folders of photos, or train/ and val/ that hold class folders",
        ("folder", to_predict): "a folder test/ of photos to predict",
    }[name, read]
    for child, state in states.items():
        assert mistake(read, tmp_path / child, name) == (
            f"Expected a directory of photos at data.root. Received: {tmp_path / child}, which "
            f"{state}. Looked for {looked_for}. Set data.root=DIR, or try data=demo, which draws "
            "its own photos and needs none."
        )


def test_a_competition_without_its_tables_or_photos_says_what_is_there(competition):
    (competition / "sample-submission.csv").unlink()
    assert mistake(to_predict, competition) == (
        "Expected sample-submission.csv or sample_submission.csv or sampleSubmission.csv, which "
        f"says which Ids to predict, in data.root. Received: {competition} with test_upload, "
        "train, train.csv. To predict photos without one: images=PATH."
    )
    shutil.rmtree(competition / "train")
    assert mistake(training, competition) == (
        f"Expected the photos of {competition / 'train.csv'} in one of train/, train_upload/, "
        f"train_images/, an archive of such a name ({', '.join(ARCHIVE_SUFFIXES)}), or beside it. "
        f"Received: {competition} with test_upload, train.csv."
    )
    (competition / "train.csv").unlink()
    text = mistake(training, competition)
    assert text.startswith("Expected train.csv with the columns Id,Category in data.root. ")
    assert text.endswith(
        f"Received: {competition} with test_upload. If the photos lie in class folders, use "
        "data=folder; if another CSV has the labels, data=csv."
    )


def test_missing_photos_are_told_or_left_out_and_counted(competition):
    gone = sorted((competition / "train" / "007").iterdir())[:5]
    for path in gone:
        path.unlink()
    names = [path.name for path in gone]
    assert mistake(training, competition) == (
        f"Expected a photo for each of the 18 rows of {competition / 'train.csv'} below "
        f"{competition / 'train'}. Received none for 5: {', '.join(names[:3])} and 2 more. "
        "Leave them out with data.on_missing=skip."
    )
    photos = training(competition, on_missing="skip")
    assert len(photos.table) == 13
    assert photos.skipped == [(name, "no photo") for name in names]


def test_all_photos_missing_is_a_mistake_even_when_missing_ones_are_skipped(competition):
    write_csv(competition / "train.csv", [("a.png", "1"), ("b.png", "2")])
    text = mistake(training, competition, on_missing="skip")
    assert text.endswith(
        "Received none for 2: a.png, b.png. Photos without a row: 007/1007.png, 007/1014.png, "
        "007/1021.png and 15 more."
    )


@pytest.mark.parametrize("photo_id", ["../../secret.png", "{}/secret.png", "a/../../secret.png"])
def test_an_id_names_no_file_outside_of_the_photos(competition, tmp_path, photo_id):
    draw_photo(tmp_path / "secret.png", (9, 9, 9), 0)
    draw_photo(competition / "secret.png", (9, 9, 9), 0)
    photo_id = photo_id.format(tmp_path)
    write_csv(competition / "train.csv", [*rows_of(competition).items(), (photo_id, "007")])
    assert training(competition, on_missing="skip").skipped == [(photo_id, "no photo")]
    write_csv(competition / "sample-submission.csv", [(photo_id, "007"), ("900.png", "007")])
    assert to_predict(competition).paths == [None, str(competition / "test_upload" / "900.png")]


def test_ids_and_names_that_no_file_can_have_are_missing_photos(competition):
    odd = [("x" * 300 + ".png", "12"), ("", "12"), (".", "12"), ("1.png", "y" * 300)]
    write_csv(competition / "train.csv", [*rows_of(competition).items(), *odd])
    photos = training(competition, on_missing="skip")
    assert photos.skipped == [(photo_id, "no photo") for photo_id, _ in odd]


def test_ids_that_occur_twice_are_told(competition):
    rows = list(rows_of(competition).items())
    write_csv(competition / "train.csv", [*rows, rows[0]])
    assert mistake(training, competition) == (
        f"Expected every photo once in {competition / 'train.csv'}. Received more than once 1: "
        f"{rows[0][0]} (the same row again). Leave them out with data.on_missing=skip."
    )
    photos = training(competition, on_missing="skip")
    assert photos.skipped == [(rows[0][0], "the same row again")]
    assert len(photos.table) == len(rows)
    other = next(name for _, name in rows if name != rows[0][1])
    for root, _, names in os.walk(competition / "train"):  # flat: folders say nothing then
        for name in names:
            Path(root, name).rename(competition / "train" / name)
    write_csv(competition / "train.csv", [*rows, (rows[0][0], other)])
    photos = training(competition, on_missing="skip")
    assert photos.skipped == [(rows[0][0], "rows of different classes")] * 2
    assert rows[0][0] not in set(photos.table.id)
    write_csv(competition / "train.csv", rows)


def test_spaces_around_classes_ids_and_column_names_are_no_part_of_them(competition, caplog):
    rows = list(rows_of(competition).items())
    spaced = [
        (f"{i} " if k % 2 else i, f"{name} " if k % 3 else name) for k, (i, name) in enumerate(rows)
    ]
    write_csv(competition / "train.csv", spaced, header=("Id ", " Category"))
    with caplog.at_level("WARNING"):
        photos = training(competition)
    assert photos.class_names == ["007", "12", "red, wide"]
    assert len(photos.table) == len(rows)
    assert photos.skipped == []
    assert "values of Category in" in caplog.text
    assert (
        "have spaces around them, which are left out: '007 ', '12 ', 'red, wide '." in caplog.text
    )


def test_ids_to_predict_that_occur_twice_are_told(competition):
    sample = competition / "sample-submission.csv"
    write_csv(sample, [("900.png", "1"), ("897.png", "1"), ("900.png", "1")])
    assert mistake(to_predict, competition) == (
        f"Expected every Id exactly once in {sample}. Received twice: 900.png"
    )
    write_csv(sample, [])
    assert (
        mistake(to_predict, competition) == f"Expected at least one Id in {sample}. Received: none."
    )


def test_the_same_id_in_two_classes_means_two_photos(competition):
    rows = list(rows_of(competition).items())
    draw_photo(competition / "train" / "red, wide" / rows[0][0], (1, 2, 3), 0)
    write_csv(competition / "train.csv", [*rows, (rows[0][0], "red, wide")])
    paths = training(competition).table.path.tolist()
    assert len(set(paths)) == 19


def test_one_class_alone_is_nothing_to_tell_apart(competition):
    rows = [(photo_id, name) for photo_id, name in rows_of(competition).items() if name == "12"]
    write_csv(competition / "train.csv", rows)
    assert mistake(training, competition) == (
        f"Expected at least two classes in {competition / 'train.csv'}. Received: 6 photos of 12. "
        "A classifier needs photos of two or more classes."
    )


def test_the_fingerprint_changes_with_labels_ids_names_and_files(competition):
    flatten(competition / "train", competition)
    rows = list(rows_of(competition).items())
    fingerprints = [training(competition).fingerprint()]
    assert training(competition).fingerprint() == fingerprints[0]
    write_csv(competition / "train.csv", [(rows[0][0], "12"), *rows[1:]])
    fingerprints.append(training(competition).fingerprint())
    write_csv(competition / "train.csv", rows[1:])
    fingerprints.append(training(competition).fingerprint())
    write_csv(competition / "train.csv", [(i, n.replace("007", "008")) for i, n in rows])
    fingerprints.append(training(competition).fingerprint())
    write_csv(competition / "train.csv", rows)
    with Path(training(competition).table.path[3]).open("ab") as file:
        file.write(b"more")
    fingerprints.append(training(competition).fingerprint())
    assert len(set(fingerprints)) == 5
    assert (
        training(competition.rename(competition.with_name("moved"))).fingerprint()
        == fingerprints[4]
    )


def test_a_row_without_a_category_is_told(competition):
    with (competition / "train.csv").open("a") as file:
        file.write("1007.png,\n")
    assert "Expected a Category in every row of" in mistake(training, competition)


@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_every_kind_of_archive_stands_for_its_folder(competition, tmp_path, suffix):
    archive = competition / f"train{suffix}"
    if suffix == ".zip":
        zip_folder(competition / "train", archive)
    else:
        kinds = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz", "tar": ""}
        kind = next((k for end, k in kinds.items() if suffix.endswith(end)), "")
        with tarfile.open(archive, f"w:{kind}") as tar:
            tar.add(competition / "train", "train")
        shutil.rmtree(competition / "train")
    photos = training(competition, cache_dir=str(tmp_path / "cache"))
    assert labels_by_id(photos) == rows_of(competition)


def test_an_archive_that_cannot_be_unpacked_here_is_told_by_its_own_name(competition):
    shutil.rmtree(competition / "train")
    (competition / "train.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    assert str(competition / "train.rar") in mistake(training, competition)
    assert str(competition / "train.rar") in mistake(training, competition / "train.rar")


@pytest.mark.parametrize("name", SAMPLE_CSV)
def test_the_sample_submission_has_one_of_its_usual_names(competition, name):
    (competition / "sample-submission.csv").rename(competition / name)
    assert len(to_predict(competition).ids) == 5


def test_a_semicolon_between_the_columns_is_found_out(competition):
    for name in ("train.csv", "sample-submission.csv"):
        table = pd.read_csv(competition / name, dtype=str)
        table.to_csv(competition / name, sep=";", index=False)
    assert labels_by_id(training(competition))["1007.png"] == "007"
    assert to_predict(competition).ids == [f"{900 - 3 * i}.png" for i in range(5)]


def test_ids_without_a_suffix_or_with_one_in_another_case_find_their_photos(competition):
    rows = list(rows_of(competition).items())
    (competition / "train" / "007" / "1007.png").rename(competition / "train" / "007" / "1007.PNG")
    bare = [(photo_id.removesuffix(".png"), name) for photo_id, name in rows[1:]]
    write_csv(competition / "train.csv", [rows[0], *bare])
    photos = training(competition)
    assert labels_by_id(photos) == dict([rows[0], *bare])
    assert [Path(path).stem for path in photos.table.path] == [
        photo_id.removesuffix(".png") for photo_id in photos.table.id
    ]
    write_csv(competition / "sample-submission.csv", [("897", "0"), ("900.PNG", "0")])
    tested = to_predict(competition)
    assert tested.ids == ["897", "900.PNG"]
    assert [Path(path).name for path in tested.paths] == ["897.png", "900.png"]


def test_an_id_that_fits_two_photos_means_neither(competition):
    folder = competition / "train" / "007"
    shutil.copy(folder / "1007.png", folder / "1007.jpg")
    rows = rows_of(competition)
    write_csv(competition / "train.csv", [("1007", "007"), *list(rows.items())[1:]])
    assert "Received none for 1: 1007. More than one photo fits 1007." in mistake(
        training, competition
    )
    assert training(competition, on_missing="skip").skipped == [
        ("1007", "more than one photo of that name"),
        ("007/1007.jpg", "no row in train.csv"),
        ("007/1007.png", "no row in train.csv"),
    ]


def test_names_that_a_mac_takes_apart_are_the_same_names(competition):
    name, photo_id = "Škoda й", "café é.png"
    apart = unicodedata.normalize("NFD", f"{name}/{photo_id}")
    assert apart != f"{name}/{photo_id}"
    draw_photo(competition / "train" / apart, (1, 2, 3), 0)
    write_csv(competition / "train.csv", [*rows_of(competition).items(), (photo_id, name)])
    assert labels_by_id(training(competition))[photo_id] == name


def test_photos_without_a_row_are_told_or_left_out_and_counted(competition):
    draw_photo(competition / "train" / "12" / "new.png", (1, 2, 3), 0)
    draw_photo(competition / "train" / "other" / "new2.JPG", (1, 2, 3), 0)
    (competition / "train" / "readme.txt").touch()
    assert mistake(training, competition) == (
        f"Expected a row in {competition / 'train.csv'} for every photo below "
        f"{competition / 'train'}. Received none for 2: 12/new.png, other/new2.JPG. "
        "Leave them out with data.on_missing=skip."
    )
    photos = training(competition, on_missing="skip")
    assert photos.skipped == [
        ("12/new.png", "no row in train.csv"),
        ("other/new2.JPG", "no row in train.csv"),
    ]
    assert len(photos.table) == 18


def test_photos_beside_the_csv_need_no_row_and_photos_to_predict_are_not_taken_for_them(
    competition,
):
    flatten(competition / "train", competition)
    draw_photo(competition / "figure.png", (1, 2, 3), 0)
    assert training(competition).skipped == []
    (competition / "1007.png").rename(competition / "test_upload" / "1007.png")
    assert "Received none for 1: 1007.png." in mistake(training, competition)


def test_train_and_test_photos_may_have_the_same_names(competition):
    draw_photo(competition / "test_upload" / "1007.png", (9, 9, 9), 0)
    write_csv(competition / "sample-submission.csv", [("1007.png", "0")])
    assert to_predict(competition).paths == [str(competition / "test_upload" / "1007.png")]
    assert "/train/007/" in training(competition).table.path[0]


def test_a_csv_and_folders_that_disagree_are_told_or_left_out_and_counted(competition):
    rows = list(rows_of(competition).items())
    changed = [(rows[0][0], "12"), (rows[1][0], "red, wide"), *rows[2:]]
    write_csv(competition / "train.csv", changed)
    assert mistake(training, competition) == (
        f"Expected {competition / 'train.csv'} and the folders below {competition / 'train'} to "
        "agree. Received photos in the folder of another class for 2: "
        "1007.png (in the folder 007, the CSV says 12), "
        "1014.png (in the folder 007, the CSV says red, wide). "
        "Mend the CSV or move the photos. Leave them out with data.on_missing=skip."
    )
    photos = training(competition, on_missing="skip")
    assert len(photos.table) == 16
    assert photos.skipped == [
        ("1007.png", "in the folder 007, the CSV says 12"),
        ("1014.png", "in the folder 007, the CSV says red, wide"),
    ]


def test_folders_that_are_no_class_disagree_with_nothing(competition):
    for name, other in (("007", "a"), ("12", "b"), ("red, wide", "c")):
        (competition / "train" / name).rename(competition / "train" / other)
    assert labels_by_id(training(competition)) == rows_of(competition)


def test_folders_of_which_most_disagree_are_no_classes_and_that_is_said(competition, caplog):
    names = {"007": "12", "12": "red, wide", "red, wide": "007"}
    rows = [(photo_id, names[name]) for photo_id, name in rows_of(competition).items()]
    write_csv(competition / "train.csv", rows)
    with caplog.at_level("INFO"):
        assert labels_by_id(training(competition)) == dict(rows)
    assert caplog.messages == [
        "WARNING: 18 of 18 photos in folders named as classes lie in that of another, so the "
        "folders are taken for no classes: 1007.png (in the folder 007, the CSV says 12), 1014.png "
        "(in the folder 007, the CSV says 12), 1021.png (in the folder 007, the CSV says 12) and "
        "15 more."
    ]


def test_rows_without_a_category_are_left_out_and_counted(competition):
    rows = [(i, n if k else "") for k, (i, n) in enumerate(rows_of(competition).items())]
    write_csv(competition / "train.csv", rows)
    assert mistake(training, competition) == (
        f"Expected a Category in every row of {competition / 'train.csv'}. "
        "Received none for 1: 1007.png. Leave them out with data.on_missing=skip."
    )
    assert training(competition, on_missing="skip").skipped == [("1007.png", "no Category")]


def test_a_class_of_which_no_photo_is_left_is_said(competition, caplog):
    shutil.rmtree(competition / "train" / "12")
    with caplog.at_level("INFO"):
        photos = training(competition, on_missing="skip")
    assert photos.class_names == ["007", "red, wide"]
    assert caplog.messages == [
        f"WARNING: no photo is left of these classes of {competition / 'train.csv'}: 12.",
        "Left out 6 rows or photos, 12 remain: 6 × no photo (1049.png, 1056.png, 1063.png and "
        "3 more). All are listed in run.json.",
    ]


@pytest.mark.parametrize("on_missing", ["raise", "skip"])
def test_the_real_layout_of_the_competition_disagrees_with_nothing(tmp_path, on_missing):
    root = Path(__file__).parents[2] / "shared" / "data" / "cars10"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    photos = training(root, cache_dir=str(tmp_path), on_missing=on_missing)
    assert (len(photos.table), len(photos.class_names), photos.skipped) == (347, 10, [])
    tested = to_predict(root, cache_dir=str(tmp_path))
    assert (len(tested.ids), tested.paths.count(None)) == (90, 0)


def test_without_any_of_the_photos_to_predict_nothing_is_filled_in(competition):
    sample = competition / "sample-submission.csv"
    write_csv(sample, [("7.png", "12"), ("8.png", "12")])
    assert mistake(to_predict, competition) == (
        f"Expected photos of the ids in {sample} below {competition / 'test_upload'}, such as "
        "7.png. Received none for all 2: 2 × no photo of that Id. Say where they lie with "
        "data.root=DIR, or predict photos without ids with images=PATH."
    )
    shutil.rmtree(competition / "test_upload")
    (competition / "README.md").write_text("# cars")
    assert mistake(to_predict, competition).startswith(
        f"Expected the photos of {sample} in one of test_upload/, test/, test_images/, an archive"
    )
    draw_photo(competition / "figure.png", (1, 2, 3), 0)
    assert f"below {competition}, such as 7.png. Received none" in mistake(to_predict, competition)


def test_an_id_to_predict_that_fits_two_photos_has_that_reason(competition):
    for name in ("897.jpg", "a/894.png", "b/894.png"):
        draw_photo(competition / "test_upload" / name, (1, 2, 3), 0)
    (competition / "test_upload" / "894.png").unlink()
    (competition / "test_upload" / "891.png").unlink()
    ids = ["900", "897", "894.png", "891.png"]
    write_csv(competition / "sample-submission.csv", [(photo_id, "0") for photo_id in ids])
    tested = to_predict(competition)
    assert [path is None for path in tested.paths] == [False, True, True, True]
    assert tested.reasons == {
        "897": "more than one photo of that name",
        "894.png": "more than one photo of that name",
        "891.png": "no photo of that Id",
    }


def test_the_few_photos_of_the_real_competition_are_enough(tmp_path):
    root = Path(__file__).parents[2] / "shared" / "data" / "competition"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    tested = to_predict(root, cache_dir=str(tmp_path))
    assert (len(tested.ids), len(tested.reasons)) == (6675, 6645)


def test_the_class_folder_comes_before_a_photo_of_that_very_name_elsewhere(tmp_path):
    for name in ("cat/1.JPG", "dog/1.jpg", "cat/2.jpg", "old/2", "dog/3.jpg", "3.jpg"):
        draw = tmp_path / "train" / name
        draw.parent.mkdir(parents=True, exist_ok=True)
        draw.write_bytes(b"photo")
    rows = [("1.jpg", "cat"), ("1.jpg", "dog"), ("2", "cat"), ("3.jpg", "dog")]
    write_csv(tmp_path / "train.csv", rows)
    photos = training(tmp_path, on_missing="skip")
    expected = ["cat/1.JPG", "dog/1.jpg", "cat/2.jpg", "dog/3.jpg"]
    assert photos.table.path.tolist() == [str(tmp_path / "train" / name) for name in expected]


def test_folders_that_only_number_the_photos_contradict_no_class(tmp_path, caplog):
    rows = [(f"{shard}-{i}.png", str((3 * shard + i) % 5)) for shard in range(5) for i in range(6)]
    for photo_id, _ in rows:
        draw_photo(tmp_path / "train" / photo_id[0] / photo_id, (1, 2, 3), 0)
    write_csv(tmp_path / "train.csv", rows)
    assert labels_by_id(training(tmp_path)) == dict(rows)
    (said,) = caplog.messages
    assert said.startswith("WARNING: 24 of 30 photos in folders named as classes lie in that of an")


@pytest.mark.parametrize("name", ["kaggle", "folder"])
def test_a_class_called_train_in_train_zip_is_one_of_its_classes(tmp_path, name):
    rows = [(f"{c}{i}.png", c) for c in ("bus", "car", "train") for i in range(2)]
    for photo_id, c in rows:
        draw_photo(tmp_path / "in" / c / photo_id, (1, 2, 3), 0)
    write_csv(tmp_path / "train.csv", rows)
    zip_folder(tmp_path / "in", tmp_path / "train.zip")
    photos = training(tmp_path, name, cache_dir=str(tmp_path / "cache"))
    assert photos.class_names == ["bus", "car", "train"]
    assert len(photos.table) == 6


@pytest.mark.parametrize("prefix", ["train/", ""])
def test_ids_may_start_with_the_name_of_the_archive(competition, tmp_path, prefix):
    rows = [(f"train/{name}/{photo_id}", name) for photo_id, name in rows_of(competition).items()]
    write_csv(competition / "train.csv", rows)
    zip_folder(competition / "train", competition / "train.zip", prefix)
    photos = training(competition, cache_dir=str(tmp_path / "cache"))
    assert labels_by_id(photos) == dict(rows)


def test_a_link_to_nothing_keeps_its_row_and_the_fingerprint_knows(competition):
    before = training(competition).fingerprint()
    path = competition / "train" / "007" / "1007.png"
    path.unlink()
    path.symlink_to("/nowhere/1007.png")
    rows = rows_of(competition)
    photos = training(competition, on_missing="skip")
    assert len(photos.table) + len(photos.skipped) == len(rows)
    assert photos.fingerprint() != before


def test_the_folders_of_a_competition_may_be_written_in_any_case(competition):
    (competition / "train").rename(competition / "Train")
    (competition / "test_upload").rename(competition / "TEST")
    assert labels_by_id(training(competition)) == rows_of(competition)
    assert None not in to_predict(competition).paths


def test_an_id_column_that_is_the_label_column_is_a_mistake(competition):
    assert mistake(training, competition, label_column="Id") == (
        "Expected id_column and label_column to be two different columns. "
        "Received: id_column=Id, label_column=Id"
    )


@pytest.mark.parametrize("name", ["kaggle", "folder", "csv"])
@pytest.mark.parametrize("key", ["root", "exclude", "val_ids", "cache_dir"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~nosuchuser/x", "Could not determine home directory."),
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_a_path_that_nothing_can_have_is_told(name, key, path, reason):
    with pytest.raises(UserError) as caught:
        to_data_config({"name": name, "root": "x", key: path})
    assert str(caught.value) == f"Expected {key} to be a path. Received: {key}={path!r}: {reason}"
