"""Several runs that answer as one. The runs here are tiny networks with random weights."""

import gc
import json
import weakref
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_data_config, to_predict_config
from carcls.data.images import open_photo, resize
from carcls.errors import UserError
from carcls.models.classifier import load_classifier, save_classifier
from carcls.prediction.classes import check_classes, labels_in
from carcls.prediction.ensemble import Ensemble, load_predictor, shares
from carcls.prediction.members import validate
from carcls.prediction.predict import predict
from carcls.prediction.predictor import Predictor
from carcls.run import ModelInfo
from tests.conftest import draw_competition, draw_photo, write_csv
from tests.processes import ROOT
from tests.processes import run as run_script
from tests.test_cli import assert_told
from tests.test_config import composed

NAMES = ["007", "12", "red, wide"]


def network(num_classes: int, seed: int) -> keras.Model:
    """Looks at four points of a photo of any size: another photo, another answer."""
    keras.utils.set_random_seed(seed)
    photos = x = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Resizing(2, 2)(x)
    x = keras.layers.Flatten()(x)
    initializer = keras.initializers.RandomNormal(stddev=2.0)
    probs = keras.layers.Dense(num_classes, "softmax", kernel_initializer=initializer)(x)
    return keras.Model(photos, probs)


def save_run(
    workdir: Path, class_names: list[str], seed: int, *, root: Path, image_size: int = 32,
    resize: str = "squash", val_accuracy: float = 0.5, fingerprint: str = "one",
) -> Path:  # fmt: skip
    """A run's directory with what predict.py reads of one."""
    info = ModelInfo(
        class_names=class_names,
        class_counts=[9 if name == "12" else 1 for name in class_names],
        image_size=image_size,
        resize=resize,
        config={
            "backbone": {"name": f"tiny{seed}"}, "data": {"name": "kaggle", "root": str(root)}
        },
    )  # fmt: skip
    save_classifier(network(len(class_names), seed), info, workdir / "model.keras")
    (workdir / "run.json").write_text(json.dumps({"data_fingerprint": fingerprint}))
    (workdir / "metrics.json").write_text(json.dumps({"val_accuracy": val_accuracy}))
    return workdir


def write_val_predictions(workdir: Path, rows: dict[tuple[str, str], dict[str, float]]) -> None:
    table = [
        {"id": photo_id, "label": label, "predicted": max(probs, key=probs.get)}
        | {f"p_{name}": p for name, p in probs.items()}
        for (photo_id, label), probs in rows.items()
    ]
    pd.DataFrame(table).to_csv(workdir / "val_predictions.csv", index=False)


def of_runs(ckpts: list, weights: list[float] | None = None) -> Ensemble:
    return load_predictor([str(ckpt) for ckpt in ckpts], weights)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs a, b and c of the same data, their classes in different orders, and `data`."""
    folder = tmp_path_factory.mktemp("ensemble")
    root = draw_competition(folder / "data", test=7)
    save_run(folder / "a", NAMES, 1, root=root)
    save_run(folder / "b", NAMES[::-1], 2, root=root, image_size=48, resize="crop")
    save_run(folder / "c", [NAMES[1], NAMES[2], NAMES[0]], 3, root=root, val_accuracy=0.75)
    return folder


@pytest.fixture
def validated(runs):
    """Writes `val_predictions.csv` into the runs; takes them away again."""

    def rows(*of_007: float) -> list[dict[str, float]]:
        return [{"007": p, "12": 1 - p, "red, wide": 0.0} for p in of_007]

    a, b, c = rows(0.9, 0.4, 0.4, 0.4), rows(0.6, 0.9, 0.9, 0.4), rows(0.6, 0.6, 0.6, 0.9)
    photos = [("1.png", "007"), ("002.png", "007"), ("NA", "007"), ("7", "12")]
    write_val_predictions(runs / "a", dict(zip(photos, a, strict=True)))
    write_val_predictions(runs / "b", dict(zip(photos[::-1], b[::-1], strict=True)))
    write_val_predictions(runs / "c", dict(zip(photos, c, strict=True)))
    yield runs
    for path in runs.glob("*/val_predictions.csv"):
        path.unlink()


def predicted(runs: Path, which: str, *overrides: str, workdir: Path) -> None:
    listed = ",".join(f"'{runs / name}'" for name in which)
    config = to_predict_config(composed(f"ckpt=[{listed}]", *overrides, name="predict"))
    predict(config, workdir)


def probs_alone(run: Path, paths: list[Path], size: int, mode: str) -> np.ndarray:
    """By hand: the network alone, its columns put in the order of `NAMES`."""
    images = np.stack([resize(open_photo(path, min_side=size), size, mode) for path in paths])
    probs = np.asarray(load_classifier(run / "model.keras").predict_on_batch(images))
    columns = {"a": [0, 1, 2], "b": [2, 1, 0], "c": [2, 0, 1]}[run.name]
    return probs[:, columns]


def ids_in(runs: Path) -> list[str]:
    return pd.read_csv(runs / "data" / "sample-submission.csv", dtype=str).Id.tolist()


@pytest.mark.parametrize(("weights", "expected"), [(None, [1, 1, 1]), ([2, 1, 0.5], [2, 1, 0.5])])
def test_an_ensemble_is_the_weighted_mean_with_classes_matched_by_name(
    runs, tmp_path, weights, expected
):
    given = [] if weights is None else [f"weights=[{','.join(map(str, weights))}]"]
    predicted(runs, "abc", *given, workdir=tmp_path)
    ids = ids_in(runs)
    paths = [runs / "data" / "test_upload" / photo_id for photo_id in ids]
    alone = [
        probs_alone(runs / "a", paths, 32, "squash"),
        probs_alone(runs / "b", paths, 48, "crop"),
        probs_alone(runs / "c", paths, 32, "squash"),
    ]
    by_hand = sum(w * p for w, p in zip(expected, alone, strict=True)) / sum(expected)
    table = pd.read_csv(tmp_path / "submission_probabilities.csv", dtype={"Id": str})
    assert table.columns.tolist() == ["Id", "p_007", "p_12", "p_red, wide"]
    assert table.Id.tolist() == ids
    np.testing.assert_allclose(table.filter(like="p_").to_numpy(), by_hand, atol=2e-6)
    submission = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    assert submission.Category.tolist() == [NAMES[i] for i in by_hand.argmax(1)]
    assert len({tuple(p.argmax(1)) for p in alone}) == 3, "the members disagree"
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["ckpt"] == [str(runs / name) for name in "abc"]
    assert facts["weights"] == pytest.approx([w / sum(expected) for w in expected])
    assert facts["tta"] == "none"


def test_tta_averages_the_views_of_every_member(runs, tmp_path, caplog):
    predicted(runs, "ab", "tta=flip+scale", workdir=tmp_path)
    predicted(runs, "bac", "tta=flip+scale", workdir=tmp_path / "again")
    assert "retracing" not in caplog.text, "several networks are no mistake"
    by_hand = []
    for photo_id in ids_in(runs):
        photo = open_photo(runs / "data" / "test_upload" / photo_id)
        of_views = []
        for run, sizes, mode, order in (
            ("a", (32, 64), "squash", [0, 1, 2]), ("b", (48, 64), "crop", [2, 1, 0])
        ):  # fmt: skip
            model = load_classifier(runs / run / "model.keras")
            squares = [resize(photo, size, mode) for size in sizes]
            views = squares + [square[:, ::-1] for square in squares]
            of_views += [np.asarray(model.predict_on_batch(v[None]))[0, order] for v in views]
        by_hand.append(np.mean(of_views, axis=0))
    table = pd.read_csv(tmp_path / "submission_probabilities.csv")
    np.testing.assert_allclose(table.filter(like="p_").to_numpy(), by_hand, atol=2e-6)
    assert json.loads((tmp_path / "run.json").read_text())["tta"] == "flip+scale"


def test_loose_photos_are_predicted_by_an_ensemble_too(runs, tmp_path):
    photo = runs / "data" / "test_upload" / ids_in(runs)[0]
    predicted(runs, "ab", f"images='{photo}'", "tta=flip", "top=1", workdir=tmp_path)
    ensemble = of_runs([runs / "a", runs / "b"])
    probs = ensemble([photo], tta="flip").probs[0]
    (row,) = pd.read_csv(tmp_path / "photos.csv", dtype={"class": str}).to_dict("records")
    assert row["class"] == ensemble.class_names[int(probs.argmax())]
    assert row["probability"] == pytest.approx(probs.max(), abs=1e-6)


def test_arrays_and_paths_are_predicted_alike_in_rows_that_keep_their_order(runs):
    paths = [runs / "data" / "test_upload" / photo_id for photo_id in ids_in(runs)]
    ensemble = of_runs([runs / "a", runs / "b", runs / "c"], [1, 2, 3])
    probs = ensemble(paths, batch_size=3).probs
    arrays = [open_photo(path) for path in paths]
    np.testing.assert_allclose(ensemble(arrays).probs, probs, atol=1e-6)
    np.testing.assert_allclose(ensemble(arrays[::-1]).probs, probs[::-1], atol=1e-6)
    assert probs.sum(1) == pytest.approx(np.ones(7), abs=1e-5)


def test_one_network_is_in_memory_at_a_time_and_an_ensemble_can_be_asked_again(runs):
    ensemble = of_runs([runs / "a", runs / "b", runs / "c"])
    loaded, alive_before_each = [], []
    for member in ensemble.members:

        def load(load=member.load):
            alive_before_each.append(sum(model() is not None for model in loaded))
            model = load()
            loaded.append(weakref.ref(model))
            return model

        member.load = load
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first = ensemble(photos).probs
    np.testing.assert_array_equal(ensemble(photos).probs, first)
    gc.collect()
    assert alive_before_each == [0] * 6
    assert [model() for model in loaded] == [None] * 6


def test_a_predictor_keeps_its_network_until_it_is_released(runs):
    predictor, loads = Predictor.from_run(runs / "a"), []
    load = predictor.load
    predictor.load = lambda: loads.append(1) or load()
    photos = np.zeros((1, 32, 32, 3), np.uint8)
    predictor(photos)
    predictor(photos)
    assert len(loads) == 1
    predictor.release()
    predictor(photos)
    assert len(loads) == 2
    assert (predictor.class_names, predictor.image_size) == (NAMES, 32)


def test_what_the_ensemble_reaches_on_validation_is_joined_by_id(validated, tmp_path, caplog):
    with caplog.at_level("INFO"):
        predicted(validated, "abc", workdir=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    # By hand, P(007) of the mean: 0.7, 0.63, 0.63, 0.57; the last one is a 12.
    assert metrics["val_accuracy"] == pytest.approx(0.75)
    assert metrics["n_val"] == 4
    members = metrics["members"]
    assert [member["val_accuracy"] for member in members] == [0.5, 1.0, 0.75]
    assert [member["ckpt"] for member in members] == [str(validated / name) for name in "abc"]
    lines = [line.split() for line in caplog.text.splitlines() if "%" in line]
    assert [str(validated / "b"), "tiny2", "48", "px", "100.00%", "33.3%"] in lines
    assert ["the", "mean", "of", "these", "accuracies", "75.00%"] in lines
    assert ["the", "ensemble", "75.00%"] in lines
    assert "Of the same 4 validation photos" in caplog.text


def test_weights_count_on_validation_too(validated):
    runs = [validated / name for name in "abc"]
    assert validate(of_runs(runs, [0, 1, 0])).ensemble == 1.0
    assert validate(of_runs(runs, [1, 0, 0])).ensemble == 0.5


def test_it_is_said_when_the_ensemble_cannot_be_judged(validated, tmp_path, caplog):
    path = validated / "b" / "val_predictions.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).iloc[1:].to_csv(path, index=False)
    with caplog.at_level("INFO"):
        predicted(validated, "abc", workdir=tmp_path)
    assert "cannot be told: the runs were validated with different photos" in caplog.text
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "val_accuracy" not in metrics
    assert [member["val_accuracy"] for member in metrics["members"]] == [0.5, 0.5, 0.75]
    path.unlink()
    assert validate(of_runs([validated / "a", validated / "b"])).why_not == (
        f"{validated / 'b'} has no val_predictions.csv"
    )
    path.write_text("id,label\n1.png,007\n")
    why_not = validate(of_runs([validated / "a", validated / "b"])).why_not
    assert why_not.startswith(f"{path} cannot be read")


def test_an_earlier_predictions_numbers_do_not_stay(validated, tmp_path):
    (tmp_path / "metrics.json").write_text('{"test_accuracy": 0.9, "n_test": 3, "top1": 0.8}')
    predicted(validated, "ab", workdir=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics) == {"val_accuracy", "n_val", "members", "top1"}
    predicted(validated, "ab", workdir=tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert not (tmp_path / "earlier_1").exists()


def test_what_other_runs_predicted_into_the_same_directory_is_moved_aside(
    validated, tmp_path, caplog
):
    predicted(validated, "a", workdir=tmp_path)
    of_one = (tmp_path / "submission_probabilities.csv").read_text()
    with pytest.raises(UserError, match="which matches no file"):
        predicted(validated, "ab", "images=gone.png", workdir=tmp_path)
    assert not (tmp_path / "earlier_1").exists(), "after a mistake all is as it was"
    with caplog.at_level("INFO"):
        predicted(validated, "ab", workdir=tmp_path)
    assert (tmp_path / "earlier_1" / "submission_probabilities.csv").read_text() == of_one
    assert (tmp_path / "submission_probabilities.csv").read_text() != of_one
    assert f"held another prediction: it is in {tmp_path / 'earlier_1'}." in caplog.text


def test_the_true_accuracy_of_an_ensemble_or_with_tta_is_not_noted_as_the_runs(runs, tmp_path):
    truth = runs / "data" / "test-labels.csv"
    write_csv(truth, [(photo_id, "007") for photo_id in ids_in(runs)])
    before = (runs / "a" / "metrics.json").read_text()
    try:
        predicted(runs, "ab", workdir=tmp_path)
        assert json.loads((tmp_path / "metrics.json").read_text())["n_test"] == 7
        predicted(runs, "a", "tta=flip", workdir=tmp_path)
    finally:
        truth.unlink()
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == {"test_accuracy", "n_test"}
    assert (runs / "a" / "metrics.json").read_text() == before


def test_runs_of_different_data_are_said(runs, tmp_path, caplog):
    other = save_run(tmp_path / "d", NAMES, 4, root=tmp_path / "else", fingerprint="two")
    config = f"ckpt=['{runs / 'a'}','{other}']"
    with caplog.at_level("INFO"):
        predict(to_predict_config(composed(config, name="predict")), tmp_path)
    root = runs / "data"
    assert (
        f"The runs were trained on different data ({root}, {tmp_path / 'else'}); predicted is "
        f"that of the first, {root}." in caplog.text
    )
    caplog.clear()
    with caplog.at_level("INFO"):
        predicted(runs, "ab", workdir=tmp_path)
    assert "different data" not in caplog.text


def test_missing_photos_are_filled_by_the_first_runs_most_frequent_class(runs, tmp_path):
    other = tmp_path / "other"
    draw_photo(other / "test_upload" / "b.png", (200, 40, 40), 1)
    write_csv(other / "sample-submission.csv", [("a.png", "x"), ("b.png", "x")])
    predicted(runs, "ab", f"data.root='{other}'", workdir=tmp_path)
    submission = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    assert submission.Id.tolist() == ["a.png", "b.png"]
    assert submission.Category[0] == "12"


def test_other_classes_are_told_by_name(runs, tmp_path):
    other = save_run(tmp_path / "d", ["007", "12", "bus", "van"], 4, root=tmp_path)
    with pytest.raises(UserError) as error:
        of_runs([runs / "a", other, runs / "b"])
    assert str(error.value) == (
        "Expected the checkpoints of an ensemble to know the same classes. "
        f"Received: {runs / 'a'} lacks bus, van; {other} lacks red, wide; {runs / 'b'} lacks "
        "bus, van. Predict with each on its own, or train them on the same data."
    )


def test_a_run_that_is_there_twice_is_told(runs):
    text = "Expected every checkpoint of an ensemble once. Received twice: "
    with pytest.raises(UserError, match=text):
        load_predictor([str(runs / "a"), str(runs / "b"), str(runs / "a" / "model.keras")])
    with pytest.raises(UserError, match=f"{text}efficientnetlite0. What counts more"):
        load_predictor(["efficientnetlite0"] * 2)


def test_pretrained_networks_are_an_ensemble_among_themselves_only(runs, tmp_path):
    both = load_predictor(["efficientnetlite0", "efficientnetlite2"], [1, 3])
    assert (len(both.class_names), both.shares) == (1000, [0.25, 0.75])
    assert [member.image_size for member in both.members] == [224, 260]
    text = "Received: both, efficientnetlite0 and 1 of a run."
    with pytest.raises(UserError, match=text):
        load_predictor([str(runs / "a"), "efficientnetlite0"])
    config = composed("ckpt=[efficientnetlite0,efficientnetlite1]", name="predict")
    with pytest.raises(UserError, match="with ckpt=efficientnetlite0, which knows ImageNet's"):
        predict(to_predict_config(config), tmp_path)


@pytest.mark.parametrize(
    ("weights", "num_members", "text"),
    [
        ([1.0], 1, r"an ensemble only, ckpt=\[RUN,RUN\]. Received: weights=\[1\] with one"),
        ([1.0, 2], 3, r"as many weights as checkpoints, 3. Received: weights=\[1,2\], which are 2"),
        ([1.0, -2], 2, r"weights of 0 or more, not all of them 0. Received: weights=\[1,-2\]"),
        ([0.0, 0], 2, r"weights of 0 or more, not all of them 0. Received: weights=\[0,0\]"),
        ([1.0, float("nan")], 2, r"Received: weights=\[1,nan\]"),
        ([1.0, float("inf")], 2, r"Received: weights=\[1,inf\]"),
    ],
)
def test_weights_that_do_not_fit_are_told(weights, num_members, text):
    with pytest.raises(UserError, match=text):
        shares(weights, num_members)


def test_weights_with_one_run_or_without_a_run_are_told(tmp_path):
    config = to_predict_config(composed("ckpt=x", "weights=[1]", name="predict"))
    with pytest.raises(UserError, match="Leave weights out"):
        predict(config, tmp_path)
    config = to_predict_config(composed("weights=[1,2]", name="predict"))
    with pytest.raises(UserError, match="Expected ckpt=RUN"):
        predict(config, tmp_path)
    with pytest.raises(UserError, match="weights"):
        to_predict_config(composed("ckpt=[a,b]", "weights=[1,much]", name="predict"))


@pytest.mark.parametrize(
    ("override", "ckpt"),
    [("ckpt=a", ["a"]), ("ckpt=[a]", ["a"]), ("ckpt=[a,'b c']", ["a", "b c"]),
     ("ckpt=2024", ["2024"]), ("ckpt=[]", []), ("ckpt=null", []), ("ckpt=''", [])],
)  # fmt: skip
def test_ckpt_is_one_or_a_list(override, ckpt):
    assert to_predict_config(composed(override, name="predict")).ckpt == ckpt


@pytest.mark.parametrize("override", ["ckpt=[a,null]", "ckpt=[a,'']", "ckpt={a:b}"])
def test_a_ckpt_that_is_no_run_is_told(override):
    with pytest.raises(UserError, match="Expected ckpt to be a run, or a list of runs"):
        to_predict_config(composed(override, name="predict"))


def test_a_run_that_does_not_exist_is_told_by_its_name(runs):
    with pytest.raises(UserError, match="Received: gone, which does not exist"):
        load_predictor([str(runs / "a"), "gone"])


def test_a_prediction_does_not_write_over_a_run(runs):
    with pytest.raises(UserError, match="Expected a directory of its own for the prediction"):
        predicted(runs, "b", workdir=runs / "a")
    assert json.loads((runs / "a" / "run.json").read_text()) == {"data_fingerprint": "one"}


def test_a_photo_that_is_cut_off_is_predicted_and_noted(runs, tmp_path, caplog):
    draw_photo(tmp_path / "in" / "whole.png", (200, 40, 40), 1, size=(200, 200))
    data = (tmp_path / "in" / "whole.png").read_bytes()
    (tmp_path / "in" / "short.png").write_bytes(data[: len(data) * 3 // 4])
    with caplog.at_level("INFO"):
        predicted(runs, "ab", f"images='{tmp_path / 'in'}'", workdir=tmp_path)
    path = str(tmp_path / "in" / "short.png")
    (note,) = json.loads((tmp_path / "run.json").read_text())["notes"]
    assert note == {"id": path, "note": "cut off: opened as far as it goes"}
    assert (
        "1 photo was opened only in part, being cut off or damaged: "
        f"{path}. All are listed in run.json." in caplog.text
    )
    assert path in pd.read_csv(tmp_path / "photos.csv").path.tolist()


def test_other_data_with_classes_that_the_run_does_not_know_is_told(runs, tmp_path):
    other = draw_competition(tmp_path / "other")
    (other / "train.csv").write_text("Id,Category\n1.png,bus\n2.png,van\n3.png,bus\n")
    with pytest.raises(UserError) as error:
        predicted(runs, "a", f"data.root='{other}'", workdir=tmp_path)
    assert str(error.value).startswith(
        "Expected photos of the classes that the run knows, 007, 12, red, wide. Received: "
        f"{other / 'train.csv'}, with 2 that it does not know: bus, van. Train a run on this data"
    )
    assert not (tmp_path / "submission.csv").exists()


def test_other_data_may_lack_classes_labels_and_all_labelled_photos(runs, tmp_path):
    other = draw_competition(tmp_path / "other")
    (other / "train").rename(tmp_path / "elsewhere")
    for text in ("Id,Category\n1.png,12\n2.png,\n", "Id,Name\n1.png,bus\n", "", None):
        (other / "train.csv").unlink(missing_ok=True)
        if text is not None:
            (other / "train.csv").write_text(text)
        check_classes(to_data_config({"name": "kaggle", "root": str(other)}), NAMES)
    predicted(runs, "a", f"data.root='{other}'", workdir=tmp_path)
    assert (tmp_path / "submission.csv").is_file()


def test_class_folders_name_the_classes_of_other_data(tmp_path):
    config = to_data_config({"name": "folder", "root": str(tmp_path)})
    draw_photo(tmp_path / "test" / "1.png", (0, 0, 0), 1)
    assert labels_in(config) == ([], str(tmp_path))
    for name in ("bus", "12", ".hidden"):
        draw_photo(tmp_path / name / "1.png", (0, 0, 0), 1)
    assert labels_in(config) == (["12", "bus"], str(tmp_path))
    with pytest.raises(UserError, match="2 that it does not know: 12, bus"):
        check_classes(config, ["car", "van"])
    check_classes(config, ["12", "bus", "van"])


@pytest.mark.parametrize("separator", [None, ";"])
def test_any_csv_names_the_classes_of_other_data(tmp_path, separator):
    rows = ["photo;kind;part", "1.png;bus;train", "2.png;12;valid", "3.png;?;Test", "4.png;;train"]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    config = to_data_config(
        {"name": "csv", "csv": str(tmp_path / "all.csv"), "id_column": "photo",
         "label_column": "kind", "split_column": "part", "separator": separator}
    )  # fmt: skip
    assert labels_in(config) == (["12", "bus"], tmp_path / "all.csv")
    with pytest.raises(UserError, match=r"all\.csv, with 2 that it does not know: 12, bus"):
        check_classes(config, ["car", "van"])


def test_classes_that_the_run_does_not_know_beside_some_that_it_does_are_said(tmp_path, caplog):
    config = to_data_config({"name": "folder", "root": str(tmp_path)})
    for name in ("bus", "12", "tram", "test"):
        draw_photo(tmp_path / name / "1.png", (0, 0, 0), 1)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.txt").write_text("no photo")
    with caplog.at_level("INFO"):
        check_classes(config, NAMES)
    assert caplog.messages == [
        f"WARNING: {tmp_path} has 2 of 3 classes that the run does not know: bus, tram. Photos of "
        "them are taken for what it knows."
    ]


def test_an_ensemble_runs_as_a_process_and_goes_into_the_first_run(runs, tmp_path):
    result = run_script(
        "predict.py", f"ckpt=[{runs / 'b'},{runs / 'a'}]", "weights=[3,1]", cwd=tmp_path
    )
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads((runs / "b" / "prediction" / "run.json").read_text())
    assert facts["ckpt"] == [str(runs / "b"), str(runs / "a")]
    assert facts["weights"] == [0.75, 0.25]
    assert "ensemble of" in result.stdout
    table = pd.read_csv(runs / "b" / "prediction" / "submission_probabilities.csv")
    assert table.columns.tolist() == ["Id", "p_red, wide", "p_12", "p_007"]


def test_a_ckpt_longer_than_a_file_name_can_be_is_told_as_not_existing(tmp_path):
    name = "a" * 300
    assert_told(run_script("predict.py", f"ckpt={name}", cwd=tmp_path), f"{name}, which does not")
    result = run_script("predict.py", f"ckpt=[{name},b]", cwd=tmp_path)
    assert_told(result, f"{name}, which does not exist")


def test_predict_lists_its_options(tmp_path):
    answer = run_script("predict.py", "--help", cwd=tmp_path).stdout
    assert "tta: none" in answer
    assert "weights: null" in answer
    assert "ckpt=[outputs/A,outputs/B]" in answer
    assert (ROOT / "conf" / "predict.yaml").is_file()
