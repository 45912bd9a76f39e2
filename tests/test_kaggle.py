"""A competition as it is downloaded: every layout of it, and mistakes told with a way out."""

import shutil
import zipfile
from pathlib import Path

import pytest

from carcls.config import to_data_config
from carcls.data.records import read_csv
from carcls.data.sources import read_test_photos, read_training_photos
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


def flatten(folder: Path, into: Path) -> None:
    into.mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*.png")):
        path.rename(into / path.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "layout",
    ["class folders", "flat", "train_upload", "zip with train/", "zip of classes", "flat zip",
     "beside the CSV", "nested deeper"],
)  # fmt: skip
def test_every_layout_of_a_competition_gives_the_same_photos(competition, tmp_path, layout):
    folder, flat = competition / "train", tmp_path / "flat"
    expected = rows_of(competition)
    if layout in ("flat", "flat zip", "beside the CSV"):
        flatten(folder, flat)
        folder = flat.rename(folder)
    if layout == "train_upload":
        folder.rename(competition / "train_upload")
    elif layout == "beside the CSV":
        flatten(folder, competition)
    elif layout == "nested deeper":
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (tmp_path / "moved").rename(folder / "photos")
    elif "zip" in layout:
        prefix = "train/" if layout == "zip with train/" else ""
        zip_folder(folder, competition / "train.zip", prefix)
    photos = training(competition, cache_dir=str(tmp_path / "cache"))
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
    states = {"none": "does not exist", "file": "is a file", "empty": "is empty"}
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
        "Expected sample-submission.csv, which says which Ids to predict, in data.root. Received: "
        f"{competition} with test_upload, train, train.csv. To predict photos without one: "
        "images=PATH."
    )
    shutil.rmtree(competition / "train")
    assert mistake(training, competition) == (
        f"Expected the photos of {competition / 'train.csv'} in one of train.zip, train_upload.zip "
        f"or train/, train_upload/ in data.root. Received: {competition} with test_upload, "
        "train.csv."
    )
    (competition / "train.csv").unlink()
    text = mistake(training, competition)
    assert text.startswith("Expected train.csv with the columns Id,Category in data.root. ")
    assert text.endswith("If the photos lie in class folders, use data=folder.")


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
    assert text.endswith("Received none for 2: a.png, b.png.")


@pytest.mark.parametrize("photo_id", ["../../secret.png", "{}/secret.png", "a/../../secret.png"])
def test_an_id_names_no_file_outside_of_the_photos(competition, tmp_path, photo_id):
    draw_photo(tmp_path / "secret.png", (9, 9, 9), 0)
    draw_photo(competition / "secret.png", (9, 9, 9), 0)
    photo_id = photo_id.format(tmp_path)
    write_csv(competition / "train.csv", [*rows_of(competition).items(), (photo_id, "007")])
    assert training(competition, on_missing="skip").skipped == [(photo_id, "no photo")]
    write_csv(competition / "sample-submission.csv", [(photo_id, "007")])
    assert to_predict(competition).paths == [None]


def test_ids_and_names_that_no_file_can_have_are_missing_photos(competition):
    odd = [("x" * 300 + ".png", "12"), ("", "12"), (".", "12"), ("1.png", "y" * 300)]
    write_csv(competition / "train.csv", [*rows_of(competition).items(), *odd])
    photos = training(competition, on_missing="skip")
    assert photos.skipped == [(photo_id, "no photo") for photo_id, _ in odd]


def test_ids_that_occur_twice_are_told(competition):
    rows = list(rows_of(competition).items())
    write_csv(competition / "train.csv", [*rows, rows[0]])
    assert mistake(training, competition) == (
        f"Expected every photo once in {competition / 'train.csv'}. Received twice: {rows[0][0]}"
    )
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
