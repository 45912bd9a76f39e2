"""Coarse classes: the file that maps to them, and photos that are labelled with them."""

from collections import Counter

import numpy as np
import pytest

from carcls.config import to_config, to_data_config, with_absolute_paths
from carcls.data.folds import choose_folds
from carcls.data.hierarchy import read_hierarchy, with_hierarchy
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.data.split import stratified_split
from carcls.errors import UserError
from carcls.prediction.classes import check_classes
from carcls.quoting import quote_paths
from tests.conftest import write_csv
from tests.test_config import composed

ROWS = [("van", "large"), ("bus", "large"), ("coupe", "small"), ("city car", "small")]
HEADER = ("fine", "coarse")


@pytest.fixture
def root(tmp_path):
    """Class folders of 5 photos each; nothing here opens one."""
    for name, _ in ROWS:
        for number in range(5):
            path = tmp_path / "photos" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name}{number}".encode())
    return tmp_path / "photos"


@pytest.fixture
def file(tmp_path):
    write_csv(tmp_path / "makes.csv", ROWS, HEADER)
    return tmp_path / "makes.csv"


def folder(root, **changes):
    return to_data_config({"name": "folder", "root": str(root), **changes})


def told(act, *arguments, **changes) -> str:
    with pytest.raises(UserError) as error:
        act(*arguments, **changes)
    return str(error.value)


def test_cifar100_has_its_20_coarse_classes_of_5(tmp_path):
    hierarchy = read_hierarchy("cifar100")
    assert list(hierarchy) == sorted(hierarchy)
    assert len(hierarchy) == 100
    assert set(Counter(hierarchy.values()).values()) == {5}
    coarse = sorted(set(hierarchy.values()))
    assert len(coarse) == 20
    # The coarse byte of each fine byte, as the data's own records have them.
    assert [coarse.index(name) for name in hierarchy.values()] == [
        4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13,
        15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4,
        17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13,
        15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
    ]  # fmt: skip
    assert hierarchy["beaver"] == "aquatic_mammals"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_and_spaces_around_names_are_read(separator, tmp_path):
    path = tmp_path / "makes.csv"
    path.write_text(f"coarse{separator}note{separator}fine\nlarge{separator}x{separator} van \n")
    assert read_hierarchy(str(path)) == {"van": "large"}


def test_a_file_that_is_none_is_told(tmp_path):
    assert told(read_hierarchy, str(tmp_path / "x.csv")) == (
        "Expected hierarchy to be a CSV file with the columns fine,coarse, or cifar100. Received: "
        f"hierarchy={tmp_path / 'x.csv'}, which does not exist. Say where it is with "
        "hierarchy=FILE."
    )
    assert "which is a directory" in told(read_hierarchy, str(tmp_path))


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "makes.csv"
    write_csv(path, ROWS, ("model", "coarse"))
    assert told(read_hierarchy, str(path)) == (
        f"Expected the columns fine, coarse in {path}. Received: model, coarse. Lacking: fine. "
        "It has a row a class: its name as the data writes it, and its coarse class."
    )


def test_empty_cells_and_doubled_classes_are_named(file):
    write_csv(file, [*ROWS, ("tram", " "), ("", "rail")], HEADER)
    assert told(read_hierarchy, str(file)) == (
        f"Expected a fine and a coarse class in every row of {file}. Received an empty cell in 2: "
        "fine=tram coarse=?, fine=? coarse=rail. Fill it, or take the row out."
    )
    write_csv(file, [*ROWS, ("van", "small"), ("bus", "large")], HEADER)
    assert told(read_hierarchy, str(file)) == (
        f"Expected every fine class once in {file}. Received more than once: van (large, small), "
        "bus (large, large). Keep one row of each."
    )


def test_a_class_that_the_file_lacks_is_named_and_so_are_those_that_it_has_instead(root, file):
    write_csv(file, [("Van", "large"), *ROWS[1:3]], HEADER)
    for target in ("fine", "coarse"):
        config = folder(root, hierarchy=str(file), target=target)
        assert told(read_training_photos, config) == (
            f"Expected a coarse class for each of the 4 classes of the data in {file}. Received "
            "none for 2: city car, van. It has Van, which are no classes there. Add a row for "
            "each, with the name as the data writes it."
        )


def test_classes_that_the_data_does_not_have_change_nothing_and_are_said(root, file, caplog):
    write_csv(file, [*ROWS, ("tram", "rail")], HEADER)
    with caplog.at_level("INFO"):
        photos = read_training_photos(folder(root, hierarchy=str(file)))
    assert photos.class_names == ["bus", "city car", "coupe", "van"]
    assert photos.hierarchy == dict([*ROWS, ("tram", "rail")])
    assert caplog.messages == [
        f"{file} also has 1 class that the data does not have, which changes nothing: tram."
    ]


def test_with_a_coarse_target_the_labels_are_the_coarse_classes(root, file, caplog):
    with caplog.at_level("INFO"):
        photos = read_training_photos(folder(root, hierarchy=str(file), target="coarse"))
    assert photos.class_names == ["large", "small"]
    fine = photos.table.id.str.split("/").str[0]
    named = [photos.class_names[label] for label in photos.table.label]
    assert named == [dict(ROWS)[name] for name in fine]
    assert photos.hierarchy is None
    assert caplog.messages == [
        f"target=coarse: the 4 classes of the data became 2, large, small, by {file}."
    ]
    of_fine = read_training_photos(folder(root, hierarchy=str(file)))
    assert photos.fingerprint() != of_fine.fingerprint()


def test_both_targets_validate_with_the_same_photos(root, file):
    fine, coarse = (
        read_training_photos(folder(root, hierarchy=str(file), target=target))
        for target in ("fine", "coarse")
    )
    draws = [stratified_split(photos.strata(), 0.2, 42) for photos in (fine, coarse)]
    np.testing.assert_array_equal(*draws)
    assert draws[0].sum() == 4
    np.testing.assert_array_equal(*(choose_folds(p, 2, 42, None) for p in (fine, coarse)))


def test_a_coarse_target_needs_a_hierarchy_of_two_or_more_coarse_classes(root, file):
    assert told(read_training_photos, folder(root, target="coarse")) == (
        "Expected hierarchy=FILE with target=coarse, a CSV with the columns fine,coarse that says "
        "the coarse class of each class, or cifar100. Received: target=coarse, hierarchy=null, and "
        "data=folder, which comes with none."
    )
    write_csv(file, [(name, "car") for name, _ in ROWS], HEADER)
    assert told(read_training_photos, folder(root, target="coarse", hierarchy=str(file))) == (
        f"Expected at least two coarse classes in {file}. Received: car for all 4 classes of the "
        "data. A classifier needs two or more."
    )
    assert read_training_photos(folder(root, hierarchy=str(file))).class_names == sorted(dict(ROWS))


def test_each_class_may_be_its_own_coarse_class(root, file):
    write_csv(file, [(name, name) for name, _ in ROWS], HEADER)
    photos = read_training_photos(folder(root, target="coarse", hierarchy=str(file)))
    assert photos.class_names == sorted(dict(ROWS))


def test_a_hierarchy_of_the_datas_own_serves_where_no_file_is_given(root, file):
    config = folder(root)
    photos = read_training_photos(config)
    photos.hierarchy = {name: name[0] for name in photos.class_names}
    config.target = "coarse"
    assert with_hierarchy(photos, config).class_names == ["b", "c", "v"]
    config.hierarchy = str(file)
    assert with_hierarchy(photos, config).class_names == ["large", "small"]


def test_the_truth_of_photos_to_predict_is_coarse_too(tmp_path, root, file, caplog):
    rows = [(f"{name}/{number}.jpg", name) for name, _ in ROWS for number in range(5)]
    write_csv(tmp_path / "all.csv", rows)
    write_csv(tmp_path / "test.csv", rows[:7])
    values = {"csv": str(tmp_path / "all.csv"), "test_csv": str(tmp_path / "test.csv")}
    named = {"name": "csv", "root": str(root), **values, "hierarchy": str(file)}
    fine, coarse = (
        read_test_photos(to_data_config({**named, "target": target}))
        for target in ("fine", "coarse")
    )
    assert coarse.truth == {photo: dict(ROWS)[name] for photo, name in fine.truth.items()}
    write_csv(file, ROWS[1:], HEADER)
    assert read_test_photos(to_data_config({**named, "target": "coarse"})).truth is None
    assert "The hierarchy has no coarse class for 'van'." in caplog.text


def test_a_coarse_run_knows_the_classes_of_fine_labelled_data(root, file):
    config = folder(root, target="coarse", hierarchy=str(file))
    check_classes(config, ["large", "small"])
    assert "Received: " in told(check_classes, folder(root), ["large", "small"])


def test_target_and_hierarchy_are_recorded_with_the_data(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    config = to_config(composed("target=coarse", "hierarchy=makes.csv"))
    assert (config.data.target, config.data.hierarchy) == ("coarse", "makes.csv")
    assert with_absolute_paths(config.data).hierarchy == str(file)
    shipped = to_config(composed("hierarchy=cifar100"))
    assert with_absolute_paths(shipped.data).hierarchy == "cifar100"
    assert told(to_config, composed("target=middle")) == (
        "Expected target to be one of fine, coarse. Received: target=middle"
    )


def test_paths_of_hierarchies_and_coarse_runs_need_no_quotes():
    assert quote_paths(["hierarchy=my makes.csv", "coarse_ckpt=[a b,c]", "target=coarse"]) == [
        "hierarchy='my makes.csv'", "coarse_ckpt=['a b','c']", "target=coarse",
    ]  # fmt: skip
