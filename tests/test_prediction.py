import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carcls.config import to_data_config, to_predict_config
from carcls.data.sources import read_test_photos
from carcls.errors import UserError
from carcls.prediction.photos import find_photos, likeliest
from carcls.prediction.predict import data_to_predict, predict
from carcls.prediction.submission import check_submission, make_submission, write_submission
from carcls.run import find_model
from carcls.training.loop import train
from tests.conftest import draw_competition, draw_photo, write_csv
from tests.processes import ROOT
from tests.test_config import composed
from tests.test_training import quick

COLUMNS = ("Id", "Category")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose data has its own test photos; the most frequent class is `red, wide`."""
    folder = tmp_path_factory.mktemp("prediction")
    root = draw_competition(folder / "data", per_class=6)
    extra = root / "train" / "red, wide" / "extra.png"
    draw_photo(extra, (50, 70, 210), 77)
    with (root / "train.csv").open("a") as file:
        file.write('extra.png,"red, wide"\n')
    config = quick(root, "finetune=frozen", "finetune.stages.head.epochs=2", "runtime.eager=true")
    train(config, folder / "run")
    return folder


def predicted(run, *overrides: str, workdir):
    config = to_predict_config(composed(f"ckpt='{run / 'run'}'", *overrides, name="predict"))
    workdir.mkdir(exist_ok=True)
    predict(config, workdir)


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str)


@pytest.fixture(scope="module")
def of_its_data(run):
    """Where the run's own test photos are predicted."""
    predicted(run, workdir=run / "predicted")
    return run / "predicted"


def test_the_submission_has_the_samples_ids_in_its_order(run, of_its_data):
    submission = read(of_its_data / "submission.csv")
    sample = read(run / "data" / "sample-submission.csv")
    assert submission.columns.tolist() == ["Id", "Category"]
    assert submission.Id.tolist() == sample.Id.tolist()
    assert set(submission.Category) <= {"007", "12", "red, wide"}


def test_probabilities_agree_with_the_submission(of_its_data):
    submission = read(of_its_data / "submission.csv")
    probabilities = pd.read_csv(of_its_data / "submission_probabilities.csv")
    assert probabilities.Id.tolist() == submission.Id.tolist()
    likely = probabilities.drop(columns="Id").idxmax(axis=1).str.removeprefix("p_")
    assert likely.tolist() == submission.Category.tolist()
    assert not (of_its_data / "submission_filled.csv").exists()


def test_other_data_is_predicted_and_photos_that_are_not_there_are_filled(run, tmp_path, caplog):
    other = tmp_path / "other"
    draw_photo(other / "test_upload" / "b.png", (200, 40, 40), 1)
    (other / "test_upload" / "c.png").write_bytes(b"")
    write_csv(other / "sample-submission.csv", [("c.png", "x"), ("a.png", "x"), ("b.png", "x")])
    with caplog.at_level("INFO"):
        predicted(run, f"data.root='{other}'", f"output='{tmp_path / 'sub.csv'}'", workdir=tmp_path)
    submission = read(tmp_path / "sub.csv")
    assert submission.Id.tolist() == ["c.png", "a.png", "b.png"]
    assert submission.Category.tolist()[:2] == ["red, wide", "red, wide"]
    filled = read(tmp_path / "sub_filled.csv")
    assert filled.to_numpy().tolist() == [
        ["c.png", "an empty file"], ["a.png", "no photo of that Id"]
    ]  # fmt: skip
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["rows"], facts["predicted"], len(facts["filled"])) == (3, 1, 2)
    assert "WARNING: 2 of 3 rows have no photo to predict from" in caplog.text
    assert "the most frequent class, red, wide" in caplog.text


def test_known_test_labels_give_the_true_accuracy(run, tmp_path, caplog):
    truth = run / "data" / "test-labels.csv"
    ids = read(run / "data" / "sample-submission.csv").Id
    write_csv(truth, [(photo_id, "007") for photo_id in ids])
    try:
        with caplog.at_level("INFO"):
            predicted(run, workdir=tmp_path)
    finally:
        truth.unlink()
    accuracy = float((read(tmp_path / "submission.csv").Category == "007").mean())
    for directory in (tmp_path, run / "run"):
        metrics = json.loads((directory / "metrics.json").read_text())
        assert metrics["test_accuracy"] == pytest.approx(accuracy)
    assert f"test accuracy {accuracy:.2%} of 5 photos" in caplog.text


def test_loose_photos_get_their_likeliest_classes(run, tmp_path, caplog):
    draw_photo(tmp_path / "in" / "IMG [1].png", (40, 180, 60), 5)
    (tmp_path / "in" / "broken.jpg").write_text("<html>")
    with caplog.at_level("INFO"):
        predicted(run, f"images='{tmp_path / 'in'}'", "top=2", workdir=tmp_path)
    rows = pd.read_csv(tmp_path / "photos.csv")
    assert rows.path.str.endswith("IMG [1].png").tolist() == [True, True, False]
    assert rows["rank"].tolist()[:2] == [1, 2]
    assert rows.probability[:2].is_monotonic_decreasing
    broken = rows.iloc[2]
    assert broken.error == "not an image but a web page"
    assert broken[["rank", "class", "probability"]].isna().all()
    assert "1 of 2 cannot be opened" in caplog.text
    assert "broken.jpg (not an image but a web page)" in caplog.text


def test_loose_photos_and_other_data_at_once_are_refused(run, tmp_path):
    with pytest.raises(UserError) as error:
        predicted(run, "images=x.png", "data.root=y", workdir=tmp_path)
    assert str(error.value) == (
        "Expected images=PATH, loose photos, or other data with data.…, but not both. "
        "Received: images=x.png and data.root."
    )


def test_a_keras_file_of_its_own_predicts_as_its_run(run, of_its_data, tmp_path):
    alone = tmp_path / "moved.keras"
    alone.write_bytes((run / "run" / "model.keras").read_bytes())
    config = to_predict_config(composed(f"ckpt='{alone}'", name="predict"))
    predict(config, tmp_path)
    expected = (of_its_data / "submission_probabilities.csv").read_text()
    assert (tmp_path / "submission_probabilities.csv").read_text() == expected


def test_prediction_goes_into_the_run_by_default(run, tmp_path):
    # In a process from the beginning, so that what is printed by imports would show.
    command = [sys.executable, str(ROOT / "predict.py"), f"ckpt={run / 'run'}"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (run / "run" / "prediction" / "submission.csv").is_file()
    assert f"submission      {run / 'run' / 'prediction' / 'submission.csv'}" in answer.stdout
    assert answer.stderr == ""


def test_a_pretrained_network_names_real_photos(tmp_path):
    skimage, sklearn = pytest.importorskip("skimage"), pytest.importorskip("sklearn")
    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent)
    names_of = {
        "chelsea.png": {"Egyptian cat", "tiger cat", "tabby"},
        "coffee.png": {"espresso"},
        "rocket.jpg": {"missile"},
        "china.jpg": {"palace"},
        "flower.jpg": {"daisy"},
    }
    photos = [next(found for folder in folders for found in folder.rglob(p)) for p in names_of]
    images = ",".join(f"'{photo}'" for photo in photos)
    config = to_predict_config(
        composed("ckpt=efficientnetlite0", f"images=[{images}]", name="predict")
    )
    predict(config, tmp_path)
    rows = pd.read_csv(tmp_path / "photos.csv")
    best = rows[rows["rank"] == 1].set_index("path")["class"]
    for photo, names in zip(photos, names_of.values(), strict=True):
        assert best[str(photo)] in names


def test_a_pretrained_network_makes_no_submission(tmp_path):
    config = to_predict_config(composed("ckpt=efficientnetlite0", name="predict"))
    with pytest.raises(UserError, match="which knows ImageNet's classes only"):
        predict(config, tmp_path)


def test_images_that_are_nothing_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"Received: .*nothing\*\.jpg, which matches no file"):
        find_photos(str(tmp_path / "nothing*.jpg"))
    with pytest.raises(UserError, match=r"empty, a folder without photos"):
        find_photos([str(tmp_path / "empty")])


def test_images_may_be_files_folders_and_globs_each_photo_once(tmp_path):
    for name in ("b [1].png", "a.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_photos([str(tmp_path / "b [1].png"), str(tmp_path / "*.png"), str(tmp_path)])
    assert found == [str(tmp_path / name) for name in ("b [1].png", "a.png", "sub/c.png")]


def test_likeliest_sorts_by_probability_and_knows_how_many_classes_there_are():
    rows = likeliest(["x"], np.array([[0.2, 0.5, 0.3]]), ["a", "b", "c"], top=9)
    assert rows.to_numpy().tolist() == [
        ["x", 1, 1, "b", 0.5], ["x", 2, 2, "c", 0.3], ["x", 3, 0, "a", 0.2],
    ]  # fmt: skip


names = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True)


@given(
    ids=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique=True),
    class_names=names,
    seed=st.integers(0, 999),
)
def test_a_submission_has_exactly_the_ids_in_their_order_with_known_categories(
    ids, class_names, seed
):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 9, len(class_names)).tolist()
    with_photo = [photo_id for photo_id in ids if random.random() < 0.7]
    probs_of = {i: random.dirichlet(np.ones(len(class_names))) for i in with_photo}
    shuffled = dict(sorted(probs_of.items(), key=lambda item: hash(item[0])))
    reasons = {i: "gone" for i in ids if i not in probs_of}
    submission = make_submission(ids, shuffled, reasons, class_names, counts, COLUMNS)
    assert submission.table.Id.tolist() == ids
    for photo_id, category in submission.table.itertuples(index=False):
        probs = probs_of.get(photo_id, counts)
        assert category == class_names[int(np.argmax(probs))]
    assert submission.filled.Id.tolist() == [i for i in ids if i not in probs_of]


READABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(
    st.lists(READABLE, min_size=1, max_size=12, unique=True),
    st.lists(READABLE, min_size=1, max_size=5, unique=True),
)
def test_what_is_written_is_read_back_as_the_samples_ids_with_known_categories(
    tmp_path_factory, ids, class_names
):
    folder = tmp_path_factory.mktemp("written")
    ids = [*ids, "unrelated.png"]  # without any photo there would be nothing to predict
    write_csv(folder / "sample-submission.csv", [(i, class_names[0]) for i in ids])
    draw_photo(folder / "test" / "unrelated.png", (1, 2, 3), 0, size=(8, 8))
    test = read_test_photos(to_data_config({"name": "kaggle", "root": str(folder)}))
    probs_of = {i: np.eye(len(class_names))[hash(i) % len(class_names)] for i in ids[::2]}
    reasons = dict.fromkeys(ids[1::2], "no photo")
    counts = [1] * len(class_names)
    made = make_submission(test.ids, probs_of, reasons, class_names, counts, test.columns)
    write_submission(made, folder / "submission.csv")
    with (folder / "submission.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["Id", "Category"]
    assert [row[0] for row in rows] == ids
    assert [row[1] for row in rows][::2] == [
        class_names[hash(i) % len(class_names)] for i in ids[::2]
    ]
    assert {row[1] for row in rows} <= set(class_names)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([("1", "a"), ("1", "a")], "Expected every Id exactly once. Twice: 1"),
        ([("1", "a")], "Missing: 2. Not in it: none."),
        ([("1", "a"), ("2", "a"), ("3", "a")], "Missing: none. Not in it: 3."),
        ([("2", "a"), ("1", "a")], "Expected the Ids in the order of the sample submission."),
        ([("1", "a"), ("2", "x")], r"Expected categories that the run knows \(a, b\). Received: x"),
    ],
)
def test_a_wrong_submission_is_refused(rows, text):
    table = pd.DataFrame(rows, columns=COLUMNS)
    with pytest.raises(UserError, match=text):
        check_submission(table, ["1", "2"], ["a", "b"])


def test_integers_stay_integers_and_007_stays_007_on_disk(tmp_path):
    submission = make_submission(
        ["1", "002"], {"1": np.array([1.0, 0]), "002": np.array([0, 1.0])}, {}, ["7", "007"],
        [1, 1], COLUMNS,
    )  # fmt: skip
    write_submission(submission, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "Id,Category\n1,7\n002,007\n"


def test_a_list_of_filled_rows_that_is_no_longer_true_goes_away(tmp_path):
    stale = tmp_path / "s_filled.csv"
    stale.write_text("Id,reason\n1,gone\n")
    submission = make_submission(["1"], {"1": np.ones(2)}, {}, ["a", "b"], [1, 1], COLUMNS)
    write_submission(submission, tmp_path / "s.csv")
    assert not stale.exists()


def test_a_glob_below_a_folder_with_brackets_in_its_name_matches(tmp_path):
    draw_photo(tmp_path / "ph [1]" / "a.png", (0, 0, 0), 1)
    assert find_photos(str(tmp_path / "ph [1]" / "*.png")) == [str(tmp_path / "ph [1]" / "a.png")]


def test_no_images_are_not_all_images():
    with pytest.raises(UserError, match="Received: nothing"):
        find_photos("")


def test_an_output_that_is_a_directory_is_told_before_anything_is_predicted(tmp_path):
    config = to_predict_config(composed("ckpt=x", f"output='{tmp_path}'", name="predict"))
    with pytest.raises(UserError, match="Expected output to be a file to write"):
        predict(config, tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-that-name/x.jpg"])
def test_names_that_no_file_can_have_are_told(name, tmp_path):
    with pytest.raises(UserError, match=f"Received: {name}, which matches no file"):
        find_photos(name)
    with pytest.raises(UserError, match=f"Received: {name}, which does not exist"):
        find_model(name)
    config = to_predict_config(composed("ckpt=x", f"output='{name}'", name="predict"))
    with pytest.raises(UserError, match=f"to be a file to write. Received: output={name}, "):
        predict(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "images", "ends"),
    [
        ("submission.xlsx", "null", ".csv"),
        ("submission.json", "null", ".csv"),
        ("submission", "null", ".csv"),
        ("photos.parquet", "photo.jpg", ".csv or .json"),
    ],
)
def test_a_table_is_not_written_under_the_name_of_another_kind(name, images, ends, tmp_path):
    overrides = ("ckpt=x", f"output={name}", f"images={images}")
    config = to_predict_config(composed(*overrides, name="predict"))
    message = f"Expected output to end in {ends}, which is .* Received: output={name}."
    with pytest.raises(UserError, match=message):
        predict(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_that_moved_away_is_told_as_the_runs(run, tmp_path):
    (run / "data").rename(run / "moved")
    try:
        with pytest.raises(
            UserError, match=r"the data that the run was trained on in .*data\.root"
        ):
            predicted(run, workdir=tmp_path)
        predicted(run, f"data.root='{run / 'moved'}'", workdir=tmp_path)
    finally:
        (run / "moved").rename(run / "data")
    assert len(read(tmp_path / "submission.csv")) == 5


def test_a_run_of_before_the_cache_can_still_predict(tmp_path):
    """Its configuration has a setting that there is no more."""
    data = {"name": "folder", "root": str(tmp_path), "memory_limit_gb": 4.0}
    info = SimpleNamespace(config={"data": data})
    config, is_own = data_to_predict(info, None)
    assert (config.name, config.root, is_own) == ("folder", str(tmp_path), True)
