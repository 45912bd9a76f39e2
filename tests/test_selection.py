"""`data.exclude` and `data.val_ids`: photos chosen by a file, the same for every source."""

import dataclasses
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from carcls.config import CsvData, DemoData, FolderData, KaggleData, to_data_config
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.errors import UserError
from tests.conftest import COLOURS, write_csv

CONF = Path(__file__).parent.parent / "conf"


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")  # reading a source opens none


def draw_source(root: Path, name: str) -> dict:
    """Three classes of four photos each, and one photo to predict; what configures the source."""
    values = {"name": name, "root": str(root)}
    rows = [(f"{c}{i}.jpg", c) for c in COLOURS for i in range(4)]
    for photo_id, c in rows:
        touch(root / "train" / c / photo_id)
    touch(root / "test" / "t.jpg")
    if name != "folder":
        write_csv(root / "train.csv", rows)
        write_csv(root / "sample_submission.csv", [("t.jpg", "0")])
    if name == "csv":
        values |= {"csv": "train.csv", "test_csv": "sample_submission.csv"}
    return values


@pytest.fixture(params=["kaggle", "folder", "csv"])
def source(request, tmp_path: Path) -> dict:
    return draw_source(tmp_path / "data", request.param)


def training(source: dict, **changes):
    return read_training_photos(to_data_config({**source, **changes}))


def mistake(source: dict, **changes) -> str:
    with pytest.raises(UserError) as caught:
        training(source, **changes)
    return str(caught.value)


def written(path: Path, ids: list[str]) -> str:
    path.write_text("\n".join(ids) + "\n\n", encoding="utf-8-sig")
    return str(path)


def test_excluded_photos_are_left_out_listed_and_counted(source, tmp_path, caplog):
    ids = training(source).table.id.tolist()
    file = written(tmp_path / "bad photos.txt", [ids[5], f" {ids[0]} ", ids[5]])
    with caplog.at_level("INFO"):
        photos = training(source, exclude=file)
    assert photos.table.id.tolist() == [i for i in ids if i not in (ids[0], ids[5])]
    assert photos.table.index.tolist() == list(range(10))
    assert photos.skipped == [(ids[0], f"excluded by {file}"), (ids[5], f"excluded by {file}")]
    assert caplog.messages == [
        f"Left out 2 rows or photos, 10 remain: 2 × excluded by {file} ({ids[0]}, {ids[5]}). "
        "All are listed in run.json."
    ]


def test_nothing_is_said_when_nothing_is_left_out(source, caplog):
    with caplog.at_level("INFO"):
        assert training(source).skipped == []
    assert caplog.messages == []


def test_what_is_to_be_predicted_is_not_touched_by_a_selection(source, tmp_path):
    config = to_data_config({**source, "exclude": str(tmp_path / "none"), "val_ids": "none either"})
    assert read_test_photos(config).ids == ["t.jpg"]


def test_a_runs_validation_photos_validate_again(source, tmp_path):
    ids = training(source).table.id.tolist()
    rows = [(photo_id, "007", "12", 0.5) for photo_id in (ids[9], ids[2])]
    write_csv(tmp_path / "val_predictions.csv", rows, ("id", "label", "prediction", "p_007"))
    photos = training(source, val_ids=str(tmp_path / "val_predictions.csv"))
    assert photos.table.id.tolist() == ids
    assert photos.table.id[photos.table.is_val].tolist() == [ids[2], ids[9]]
    assert photos.table.is_val.dtype == bool


def test_the_id_column_of_the_data_names_the_ids_too(tmp_path):
    source = draw_source(tmp_path / "data", "kaggle")
    file = tmp_path / "bad.txt"
    file.write_text("Category;Id\n12;120.jpg\n")
    assert training(source, exclude=str(file)).skipped[0][0] == "120.jpg"


def test_findings_are_named_in_their_own_column_whatever_the_data_calls_its(tmp_path):
    source = draw_source(tmp_path / "data", "kaggle")
    rows = [("120.jpg", "train", "yes"), ("121.jpg", "train", "no")]
    write_csv(tmp_path / "findings.csv", rows, ("id", "Id", "exclude"))
    photos = training(source, exclude=str(tmp_path / "findings.csv"))
    assert [photo_id for photo_id, _ in photos.skipped] == ["120.jpg"]


def test_what_is_excluded_needs_no_photo_and_validates_nothing(tmp_path):
    source = draw_source(tmp_path / "data", "kaggle")
    (tmp_path / "data" / "train" / "12" / "120.jpg").unlink()
    file = written(tmp_path / "bad.txt", ["120.jpg"])
    val = written(tmp_path / "val.txt", ["120.jpg", "121.jpg"])
    photos = training(source, exclude=file, val_ids=val)
    assert photos.table.id[photos.table.is_val].tolist() == ["121.jpg"]
    assert photos.skipped == [("120.jpg", f"excluded by {file}")]


def test_a_class_that_loses_all_its_photos_is_a_mistake(source, tmp_path):
    ids = [i for i in training(source).table.id if Path(i).name.startswith("12")]
    file = written(tmp_path / "bad.txt", ids)
    text = mistake(source, exclude=file)
    assert text.startswith("Expected data.exclude to leave photos of every class in ")
    assert text.endswith(
        f"Received: {file}, which names all photos of 12. "
        "Take some of its ids out of the file, or the class's rows out of the data."
    )


@pytest.mark.parametrize("key", ["exclude", "val_ids"])
def test_ids_that_no_photo_has_are_told_or_said_and_passed_over(source, tmp_path, key, caplog):
    ids = training(source).table.id.tolist()
    file = written(tmp_path / "ids.txt", ["nowhere.jpg", ids[0], "neither.jpg"])
    where = {"kaggle": "train.csv", "csv": "train.csv", "folder": ""}[source["name"]]
    where = "the data" if key == "val_ids" else str(Path(source["root"], where))
    said = f"2 of 3 ids in {file} are not in {where}: nowhere.jpg, neither.jpg."
    assert mistake(source, **{key: file}) == (
        f"Expected the ids in data.{key} to be in the data, such as {ids[0]}. Received: {said} "
        "Mend the file, or go on with data.on_missing=skip."
    )
    with caplog.at_level("WARNING"):
        photos = training(source, **{key: file, "on_missing": "skip"})
    assert caplog.messages == [f"WARNING: {said} They change nothing."]
    assert len(photos.table) == (11 if key == "exclude" else 12)


def test_ids_to_validate_with_must_be_some_and_not_all(source, tmp_path):
    ids = training(source).table.id.tolist()
    file = written(tmp_path / "val.txt", ["a", "b", "c", "d"])
    for on_missing in ("raise", "skip"):
        assert mistake(source, val_ids=file, on_missing=on_missing) == (
            f"Expected ids of the 12 photos, such as {ids[0]}, in data.val_ids. "
            f"Received: {file} with a, b, c and 1 more, none of which is one."
        )
    file = written(tmp_path / "val.txt", ids)
    assert mistake(source, val_ids=file) == (
        f"Expected data.val_ids to leave photos to train on. Received: {file}, which names all 12."
    )


def test_data_with_a_split_of_its_own_takes_no_other(tmp_path):
    source = draw_source(tmp_path / "folder", "folder")
    touch(tmp_path / "folder" / "val" / "12" / "v.jpg")
    file = written(tmp_path / "val.txt", ["val/12/v.jpg"])
    assert mistake(source, val_ids=file) == (
        "Expected either data.val_ids or data with a split of its own. Received: "
        f"data.val_ids={file} and data.name=folder, whose data says which 1 photos validate. "
        "Drop data.val_ids."
    )
    source = draw_source(tmp_path / "csv", "csv")
    rows = [(f"{c}{i}.jpg", c, "train" if i else "val") for c in COLOURS for i in range(4)]
    write_csv(tmp_path / "csv" / "train.csv", rows, ("Id", "Category", "split"))
    text = mistake(source, val_ids=file, split_column="split")
    assert text.endswith("which 3 photos validate. Drop data.val_ids, or data.split_column.")


@pytest.mark.parametrize("key", ["exclude", "val_ids"])
@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.txt", None, ": No such file or directory."),
        ("empty.txt", b"\n \n", ", which has no ids. Leave data.{key} out, or set it to null."),
        ("empty.csv", b"", ", which has no ids. Leave data.{key} out, or set it to null."),
        ("header.csv", b"id,x\n", ", which has no ids. Leave data.{key} out, or set it to null."),
        ("long.txt", b"x" * 200_000, ": field larger than field limit (131072)."),
        ("other.csv", b"file,x\na.jpg,1\n", ", whose first line is file,x."),
        (
            "latin.txt",
            b"M\xfcll.jpg\n",
            ", which is not in UTF-8: 'utf-8' codec can't decode byte 0xfc in position 1: invalid "
            "start byte.",
        ),
    ],
)
def test_a_file_of_ids_that_cannot_be_read_is_told(tmp_path, key, name, content, text):
    source = draw_source(tmp_path / "data", "kaggle")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert mistake(source, **{key: str(path)}) == (
        f"Expected data.{key} to be a text file with an id a line, or a CSV with a column Id or "
        f"id. Received: {path}" + text.format(key=key)
    )


def test_a_refit_trains_on_all_photos_so_none_can_be_kept_to_validate_with(tmp_path):
    with pytest.raises(UserError) as caught:
        to_data_config({"name": "folder", "root": "x", "refit": True, "val_ids": "y.txt"})
    assert str(caught.value) == (
        "Expected data.refit=true, which trains on all photos, or data.val_ids=FILE, which keeps "
        "some to validate with, but not both. Received: refit=True, val_ids=y.txt"
    )


@pytest.mark.parametrize(
    ("name", "cls"),
    [("kaggle", KaggleData), ("folder", FolderData), ("csv", CsvData), ("demo", DemoData)],
)
def test_the_yaml_of_a_source_has_every_key_that_its_dataclass_has(name, cls):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = compose("train", [f"data={name}"]).data
    names = {field.name for field in dataclasses.fields(cls)}
    assert set(values) == names - {"target", "hierarchy"}  # options of train.py as a whole
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    for key in set(values) - {"name", "root"}:
        assert values[key] == defaults[key], key


@pytest.fixture
def twice(tmp_path: Path) -> dict:
    """A competition whose classes each have photos 0.jpg to 3.jpg."""
    root = tmp_path / "data"
    rows = [(f"{i}.jpg", c) for i in range(4) for c in ("cat", "dog")]
    for photo_id, c in rows:
        touch(root / "train" / c / photo_id)
    write_csv(root / "train.csv", rows)
    return {"name": "kaggle", "root": str(root)}


def rows_of(photos) -> list[tuple[str, str]]:
    return [(row.id, photos.class_names[row.label]) for row in photos.table.itertuples()]


def test_ids_that_several_photos_have_are_told_apart_by_their_label(twice, tmp_path):
    chosen = [("0.jpg", "cat"), ("1.jpg", "dog")]
    file = tmp_path / "val_predictions.csv"
    write_csv(file, chosen, ("id", "label"))
    photos = training(twice, val_ids=str(file))
    is_val = photos.table.is_val.tolist()
    assert [row for row, val in zip(rows_of(photos), is_val, strict=True) if val] == chosen
    photos = training(twice, exclude=str(file))
    assert len(photos.table) == 6 and not set(chosen) & set(rows_of(photos))
    val = tmp_path / "val.csv"  # 0.jpg of cat is left out: it is not 0.jpg of dog that validates
    write_csv(val, [*chosen, ("2.jpg", "cat")], ("id", "label"))
    photos = training(twice, exclude=str(file), val_ids=str(val))
    assert photos.table.id[photos.table.is_val].tolist() == ["2.jpg"]
    write_csv(val, [("0.jpg", "emu"), ("1.jpg", "cat")], ("id", "label"))
    assert f"1 of 2 ids in {val} are not in the data: 0.jpg (emu)." in mistake(
        twice, val_ids=str(val)
    )


def test_ids_that_mean_several_photos_are_told(twice, tmp_path, caplog):
    file = written(tmp_path / "ids.txt", ["0.jpg", "3.jpg"])
    assert mistake(twice, val_ids=file) == (
        f"Expected every id in data.val_ids to mean one photo. Received: {file}, in which 2 of 2 "
        "mean several: 0.jpg, 3.jpg. Add a column label that says which class, as a run's "
        "val_predictions.csv has it."
    )
    with caplog.at_level("INFO"):
        assert len(training(twice, exclude=file).table) == 4
    assert caplog.messages[0] == (
        f"WARNING: 2 of 2 ids in {file} mean several photos each, and all of these are left out: "
        "0.jpg, 3.jpg. A column label tells them apart."
    )


def test_a_label_that_changed_since_still_means_the_photo_of_that_id(source, tmp_path):
    ids = training(source).table.id.tolist()
    write_csv(tmp_path / "val.csv", [(ids[4], "of another run")], ("id", "label"))
    photos = training(source, val_ids=str(tmp_path / "val.csv"))
    assert photos.table.id[photos.table.is_val].tolist() == [ids[4]]


@pytest.fixture
def weighted(tmp_path: Path) -> dict:
    """A CSV of two classes of three photos each, the first of each class with three rows."""
    root = tmp_path / "data"
    rows = [(f"{c}/{i}.jpg", c) for c in ("cat", "dog") for i in range(3)]
    for photo_id, _ in rows:
        touch(root / photo_id)
    rows += [("cat/0.jpg", "cat"), ("data/cat/0.jpg", "cat"), ("dog/0.jpg", "dog"), rows[3]]
    write_csv(root / "train.csv", rows)
    return {"name": "csv", "root": str(root), "csv": "train.csv"}


def test_all_rows_of_a_photo_validate_together(weighted, tmp_path, caplog):
    file = written(tmp_path / "val.txt", ["cat/0.jpg", "dog/1.jpg"])
    with caplog.at_level("INFO"):
        photos = training(weighted, val_ids=file)
    validates = photos.table.id[photos.table.is_val].tolist()
    assert validates == ["cat/0.jpg", "cat/0.jpg", "data/cat/0.jpg", "dog/1.jpg"]
    assert caplog.messages[1:] == [
        f"1 rows of other ids validate too: they mean photos that {file} names."
    ]


def test_all_rows_of_an_id_are_excluded_together_and_are_no_several_photos(
    weighted, tmp_path, caplog
):
    file = written(tmp_path / "bad.txt", ["dog/0.jpg"])
    with caplog.at_level("WARNING"):
        photos = training(weighted, exclude=file)
    assert caplog.messages == []
    assert photos.skipped == [("dog/0.jpg", f"excluded by {file}")] * 3
    assert len(photos.table) == 7
