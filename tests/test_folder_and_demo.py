"""`data=folder` and `data=demo`."""

from pathlib import Path

import pytest
from PIL import Image

from carcls.config import to_data_config
from carcls.data.images import list_photos
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.errors import UserError
from tests.conftest import COLOURS, draw_photo
from tests.test_kaggle import pack

DEMO = {"name": "demo", "train_per_class": 2, "test_per_class": 2}


def folder(root: Path):
    return to_data_config({"name": "folder", "root": str(root)})


def mistake(read, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder(root))
    return str(caught.value)


def draw_classes(root: Path, per_class: int = 2) -> None:
    for seed, (name, colour) in enumerate(COLOURS.items()):
        for number in range(per_class):
            draw_photo(root / name / f"{number}.png", colour, seed)


def test_class_folders_name_the_classes(tmp_path):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "12" / "deeper" / "5.png", (1, 2, 3), 0)
    draw_photo(tmp_path / "test" / "9.png", (1, 2, 3), 0)
    draw_photo(tmp_path / ".cache" / "9.png", (1, 2, 3), 0)
    (tmp_path / "no photos").mkdir()
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == ["007", "12", "red, wide"]
    assert dict(zip(photos.table.id, photos.table.label, strict=True)) == {
        "007/0.png": 0, "007/1.png": 0, "12/0.png": 1, "12/1.png": 1, "12/deeper/5.png": 1,
        "red, wide/0.png": 2, "red, wide/1.png": 2,
    }  # fmt: skip
    assert list(photos.table.columns) == ["id", "path", "label"]
    assert [Path(path).is_file() for path in photos.table.path] == [True] * 7


def test_train_and_val_folders_are_the_split(tmp_path):
    draw_classes(tmp_path / "train")
    draw_photo(tmp_path / "val" / "12" / "0.png", (1, 2, 3), 0)
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == ["007", "12", "red, wide"]
    assert photos.table.id[photos.table.is_val].tolist() == ["val/12/0.png"]
    assert (~photos.table.is_val).sum() == 6


def test_a_root_that_is_called_val_is_no_split(tmp_path):
    draw_classes(tmp_path / "val")
    assert "is_val" not in read_training_photos(folder(tmp_path / "val")).table


def test_a_class_that_only_validates_is_a_mistake(tmp_path):
    draw_classes(tmp_path / "train")
    draw_photo(tmp_path / "val" / "new" / "0.png", (1, 2, 3), 0)
    with pytest.raises(UserError) as caught:
        read_training_photos(folder(tmp_path))
    assert str(caught.value) == (
        f"Expected every class of {tmp_path / 'val'} in {tmp_path / 'train'} too. "
        "Received only in val: new"
    )


def test_folders_without_photos_say_what_is_there(tmp_path):
    (tmp_path / "train.csv").touch()
    (tmp_path / "12").mkdir()
    with pytest.raises(UserError) as caught:
        read_training_photos(folder(tmp_path))
    assert str(caught.value) == (
        "Expected class folders of photos, or train/ and val/ that hold class folders in "
        f"data.root. Received: {tmp_path} with 12, train.csv, and no photo in any folder there. "
        "If a train.csv holds the labels, use data=kaggle."
    )


def test_test_photos_are_those_below_test(tmp_path):
    draw_classes(tmp_path)
    with pytest.raises(UserError) as caught:
        read_test_photos(folder(tmp_path))
    assert str(caught.value) == (
        f"Expected photos to predict in {tmp_path / 'test'}, or in an archive of that name. "
        "Received: none. Any other photos: images=PATH."
    )
    for name in ("b.png", "a.png", "sub/c.png"):
        draw_photo(tmp_path / "test" / name, (1, 2, 3), 0)
    photos = read_test_photos(folder(tmp_path))
    assert photos.ids == ["a.png", "b.png", "sub/c.png"]
    assert photos.paths == [str(tmp_path / "test" / name) for name in photos.ids]
    assert photos.columns == ("Id", "Category")


def test_the_demo_is_drawn_once_and_knows_its_truth(tmp_path, capsys):
    config = to_data_config({**DEMO, "root": str(tmp_path / "new" / "demo")})
    photos = read_training_photos(config)
    assert (len(photos.table), len(photos.class_names)) == (20, 10)
    assert capsys.readouterr().out == ""  # the bar is for terminals
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    tested = read_test_photos(config)
    assert set(tested.truth) == set(tested.ids) and len(tested.ids) == 20
    assert None not in tested.paths
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == drawn


def test_the_demo_leaves_what_is_not_its_own_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for read in (read_training_photos, read_test_photos):
        with pytest.raises(UserError) as caught:
            read(to_data_config({**DEMO, "root": str(tmp_path)}))
        assert str(caught.value) == (
            "Expected data.root to be free, or to hold the demo photos of data.seed=42, "
            f"data.train_per_class=2, data.test_per_class=2. Received: {tmp_path} with something "
            "else in it. Remove it, or choose another with data.root=DIR."
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demo_of_other_numbers_is_not_taken_for_this_one(tmp_path):
    root = str(tmp_path / "demo")
    read_training_photos(to_data_config({**DEMO, "root": root}))
    with pytest.raises(UserError, match=r"Expected data\.root to be free.*data\.seed=43"):
        read_training_photos(to_data_config({**DEMO, "root": root, "seed": 43}))


def test_a_demo_that_cannot_be_drawn_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        read_training_photos(to_data_config({**DEMO, "root": str(tmp_path / "file" / "demo")}))
    assert str(caught.value).startswith(
        f"Expected to draw the demo photos into {tmp_path / 'file' / 'demo'}. Received: "
    )


def test_the_demo_is_drawn_into_an_empty_folder(tmp_path):
    (tmp_path / "demo").mkdir()
    config = to_data_config(
        {"name": "demo", "root": str(tmp_path / "demo"), "train_per_class": 2, "test_per_class": 2}
    )
    assert len(read_training_photos(config).table) == 20


def test_train_without_val_is_split_as_class_folders_are(tmp_path):
    draw_classes(tmp_path / "train")
    draw_classes(tmp_path / "test")
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == sorted(COLOURS)
    assert "is_val" not in photos.table
    assert all(name.startswith("train/") for name in photos.table.id)


def test_a_class_may_be_called_train(tmp_path):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "train" / "locomotive.png", (0, 0, 0), 1)
    assert "train" in read_training_photos(folder(tmp_path)).class_names


def test_a_stray_file_beside_the_classes_does_not_make_train_a_class(tmp_path):
    draw_classes(tmp_path / "train")
    draw_classes(tmp_path / "val")
    (tmp_path / "train" / "labels.csv").touch()
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == sorted(COLOURS)
    assert photos.table.is_val.sum() == len(photos.table) / 2


@pytest.mark.parametrize(
    "layout",
    ["root is an archive", "root is a wrapped archive", "root holds the archive", "wrapped twice",
     "train.zip and val.zip", "valid", "validation", "train/train", "leftovers of a Mac"],
)  # fmt: skip
def test_every_layout_of_a_split_gives_the_same_photos(tmp_path, layout):
    root = tmp_path / "cars"
    draw_classes(root / "train")
    draw_photo(root / "val" / "12" / "0.png", (1, 2, 3), 0)
    draw_photo(root / "test" / "9.png", (1, 2, 3), 0)
    val = layout if layout in ("valid", "validation") else "val"
    (root / "val").rename(root / val)
    if layout == "train.zip and val.zip":
        for name in ("train", "val", "test"):
            pack(root / name, root / f"{name}.zip", f"{name}/" if name == "val" else "")
    elif layout == "train/train":
        (root / "train").rename(tmp_path / "inner")
        (root / "train").mkdir()
        (tmp_path / "inner").rename(root / "train" / "train")
    elif layout == "wrapped twice":
        root.rename(tmp_path / "inner")
        (root / "a").mkdir(parents=True)
        (tmp_path / "inner").rename(root / "a" / "b")
    elif layout == "leftovers of a Mac":
        draw_photo(root / "train" / "__MACOSX" / "0.png", (1, 2, 3), 0)
        draw_photo(root / "__MACOSX" / "12" / "0.png", (1, 2, 3), 0)
    elif "archive" in layout:
        prefix = "cars/" if "wrapped" in layout else ""
        archive = pack(root, tmp_path / "upload" / "photos.zip", prefix)
        root = archive.parent if "holds" in layout else archive
    config = to_data_config(
        {"name": "folder", "root": str(root), "cache_dir": str(tmp_path / "cache")}
    )
    photos = read_training_photos(config)
    ids = [f"train/{name}/{i}.png" for name in sorted(COLOURS) for i in range(2)]
    assert photos.table.id.tolist() == [*ids, f"{val}/12/0.png"]
    assert [photos.class_names[i] for i in photos.table.label] == [
        Path(photo_id).parent.name for photo_id in photos.table.id
    ]
    assert photos.table.is_val.tolist() == [False] * 6 + [True]
    assert read_test_photos(config).ids == ["9.png"]


def test_class_folders_may_come_as_an_archive(tmp_path):
    draw_classes(tmp_path / "cars")
    archive = pack(tmp_path / "cars", tmp_path / "photos.zip", "cars/")
    config = to_data_config(
        {"name": "folder", "root": str(archive), "cache_dir": str(tmp_path / "cache")}
    )
    assert read_training_photos(config).table.id.tolist() == [
        f"{name}/{i}.png" for name in sorted(COLOURS) for i in range(2)
    ]


def test_one_class_with_folders_in_it_is_not_taken_apart_beside_photos(tmp_path):
    draw_photo(tmp_path / "a.png", (1, 2, 3), 0)
    draw_photo(tmp_path / "car" / "2020" / "b.png", (1, 2, 3), 0)
    with pytest.raises(
        UserError, match=r"Expected at least two classes.*Received: 1 photos of car"
    ):
        read_training_photos(folder(tmp_path))


def test_photos_in_no_class_folder_are_left_out_and_counted(tmp_path, caplog):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "overview.png", (1, 2, 3), 0)
    (tmp_path / "readme.txt").touch()
    with caplog.at_level("INFO"):
        photos = read_training_photos(folder(tmp_path))
    assert photos.skipped == [("overview.png", "in no class folder")]
    assert caplog.messages == [
        "Left out 1 rows or photos, 6 remain: 1 × in no class folder (overview.png). All are "
        "listed in run.json."
    ]


def test_photos_beside_the_folders_are_listed_whatever_their_names(tmp_path):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "overview.png", (1, 2, 3), 0)
    (tmp_path / "overview.png").rename(tmp_path / "overview")
    (tmp_path / "readme.txt").write_text("no photo")
    assert read_training_photos(folder(tmp_path)).skipped == [("overview", "in no class folder")]
    inside = tmp_path / "train"
    inside.mkdir()
    for path in [path for path in tmp_path.iterdir() if path.is_dir() and path != inside]:
        path.rename(inside / path.name)
    assert read_training_photos(folder(tmp_path)).skipped == [("overview", "beside train/")]


def test_a_class_that_only_validates_is_trained_on_in_a_refit(tmp_path):
    draw_classes(tmp_path / "train")
    draw_photo(tmp_path / "val" / "new" / "0.png", (1, 2, 3), 0)
    config = to_data_config({"name": "folder", "root": str(tmp_path), "refit": True})
    assert "new" in read_training_photos(config).class_names


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "VAL", "Test"), ("training", "validation", "testing"), ("trn", "dev", "tst"),
     ("TRAINING", "Valid", "test")],
)  # fmt: skip
def test_a_split_may_be_spelt_in_any_usual_way(tmp_path, train, val, test):
    draw_classes(tmp_path / train)
    draw_photo(tmp_path / val / "12" / "0.png", (1, 2, 3), 0)
    draw_photo(tmp_path / test / "9.png", (1, 2, 3), 0)
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == sorted(COLOURS)
    assert photos.table.id[photos.table.is_val].tolist() == [f"{val}/12/0.png"]
    assert photos.skipped == []
    assert read_test_photos(folder(tmp_path)).ids == ["9.png"]


@pytest.mark.parametrize("names", [("val", "valid"), ("Val", "validation")])
def test_two_folders_of_one_part_are_a_mistake(tmp_path, names):
    for name in ("train", *names):
        draw_classes(tmp_path / name)
    assert mistake(read_training_photos, tmp_path) == (
        f"Expected one folder val/, under one of its names. Received: {tmp_path / names[0]} and "
        f"{tmp_path / names[1]}. Put their photos together, or move one elsewhere."
    )
    for name in ("test", "Testing"):
        draw_photo(tmp_path / name / "9.png", (1, 2, 3), 0)
    assert "Expected one folder test/, under one of its names." in mistake(
        read_test_photos, tmp_path
    )


@pytest.mark.parametrize("layout", ["plain", "doubled", "with photos to predict"])
def test_folders_that_look_like_a_split_of_other_names_are_no_classes(tmp_path, layout):
    for part in ("seg_test", "seg_train"):
        draw_classes(tmp_path / part / (part if layout == "doubled" else ""))
    if layout == "with photos to predict":
        draw_photo(tmp_path / "seg_pred" / "1.png", (1, 2, 3), 0)
    assert mistake(read_training_photos, tmp_path) == (
        "Expected class folders of photos, or train/ and val/ that hold class folders in "
        f"data.root. Received: {tmp_path} with seg_test, seg_train, which looks like a split: 007, "
        "12, red, wide are in it more than once. Call its parts train/, val/ and test/. If these "
        "are the classes, put them into one folder train/."
    )


def test_val_beside_the_classes_to_train_on_is_no_class(tmp_path):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "val" / "12" / "0.png", (1, 2, 3), 0)
    text = mistake(read_training_photos, tmp_path)
    assert "with val, which looks like a split: 12 are in it more than once." in text
    (tmp_path / "val" / "12").rename(tmp_path / "val" / "deeper")
    assert "val" in read_training_photos(folder(tmp_path)).class_names


def test_classes_with_the_same_folder_in_each_are_no_split(tmp_path):
    for name in ("cat", "dog"):
        draw_photo(tmp_path / name / "images" / "1.png", (1, 2, 3), 0)
        (tmp_path / name / "labels").mkdir()
        (tmp_path / name / "labels" / "1.txt").write_text("0 0 1 1")
    assert read_training_photos(folder(tmp_path)).class_names == ["cat", "dog"]


def test_test_beside_the_classes_is_taken_for_photos_to_predict_and_that_is_said(tmp_path, caplog):
    draw_classes(tmp_path)
    draw_photo(tmp_path / "Test" / "9.png", (1, 2, 3), 0)
    with caplog.at_level("INFO"):
        photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == sorted(COLOURS)
    assert caplog.messages == [
        "Left out 1 rows, photos or folders, 6 remain: 1 × photos to predict (Test/). All are "
        "listed in run.json."
    ]


def test_folders_without_photos_and_folders_beside_train_are_no_classes_and_are_said(tmp_path):
    (tmp_path / "annotations").mkdir()
    for text in ("annotations/1.xml", "annotations/BMW.csv"):
        (tmp_path / text).write_text("BMW,1,2,3,4,5,6\n<a/>")
    (tmp_path / "empty").mkdir()
    draw_classes(tmp_path)
    photos = read_training_photos(folder(tmp_path))
    assert photos.class_names == sorted(COLOURS)
    assert photos.skipped == [
        ("annotations/", "a folder without photos"), ("empty/", "a folder without photos"),
    ]  # fmt: skip
    draw_classes(tmp_path / "train")
    assert [name for name, _ in read_training_photos(folder(tmp_path)).skipped] == [
        "007/", "12/", "red, wide/",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["photo.ashx", "photo", "photo.jpg_large"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_photos_of_any_name_make_a_class(tmp_path, name, kind):
    draw_classes(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a note").write_text("no photo")
    Image.new("RGB", (9, 9)).save(tmp_path / "odd" / name, format=kind)
    assert "odd" in read_training_photos(folder(tmp_path)).class_names


def test_linked_folders_are_followed_once_and_never_round_and_round(tmp_path):
    draw_photo(tmp_path / "elsewhere" / "1.png", (1, 2, 3), 0)
    draw_photo(tmp_path / "elsewhere" / "deep" / "2.png", (1, 2, 3), 0)
    root = tmp_path / "cars"
    draw_photo(root / "own" / "3.png", (1, 2, 3), 0)
    draw_photo(root / ".hidden" / "4.png", (1, 2, 3), 0)
    links = {"a": "elsewhere", "b": "elsewhere", "c": "cars/own", "d": "cars", "e": ".",
             "f": "cars/.hidden", "g": "nowhere"}  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(root)
    names = [path.relative_to(root).as_posix() for path in list_photos(root)]
    assert sorted(names) == ["a/1.png", "a/deep/2.png", "f/4.png", "g", "own/3.png"]


def test_a_folder_that_cannot_be_listed_is_told_not_passed_over(tmp_path):
    with pytest.raises(UserError) as caught:
        list_photos(tmp_path / "gone")
    assert str(caught.value) == (
        f"Expected a folder of photos that can be read. Received: {tmp_path / 'gone'}: "
        "No such file or directory."
    )
