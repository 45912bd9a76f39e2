"""compare.py and predict.py models=: networks side by side on the same photos."""

import json
import logging
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from carcls.config import to_compare_config, to_config, to_predict_config
from carcls.errors import UserError
from carcls.evaluation import cost
from carcls.evaluation.compare import compare
from carcls.evaluation.compare_page import sentences
from carcls.evaluation.compare_pictures import pareto_front
from carcls.prediction.predict import predict
from carcls.prediction.predictor import Predictor
from carcls.training.inputs import prepare_inputs
from carcls.training.jobs import run_job
from tests.conftest import COLOURS, draw_competition, draw_photo, use_tiny_backbone
from tests.test_config import as_composed, composed
from tests.test_evaluate import QUICK


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with data/ and two runs, split by different seeds: of 1 epoch, and of 3, that
    see photos larger.
    """
    folder = tmp_path_factory.mktemp("runs")
    root = draw_competition(folder / "data", per_class=8)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        patch.setattr(cost, "_SECONDS", 0.0)
        for name, epochs, seed, enlarge in (("short", 1, 1, 1), ("long", 3, 2, 1.5)):
            config = to_config(
                composed(
                    f"data.root='{root}'", *QUICK, f"finetune.stages.head.epochs={epochs}",
                    f"seed={seed}", f"finetune.stages.head.enlarge={enlarge}",
                )
            )  # fmt: skip
            run_job(config, folder / name, prepare_inputs(config))
        for number, (name, colour) in enumerate(COLOURS.items()):
            for i in range(4):
                draw_photo(folder / "new" / name / f"{i}.png", colour, 900 + 10 * number + i)
    return folder


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compared")
    models = f"models=['{runs / 'short'}','{runs / 'long'}']"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_SECONDS", 0.0)
        patch.setattr(cost, "_BATCH_SIZES", (1, 2, 4))
        compare(
            to_compare_config(
                as_composed(
                    models, "data=folder", f"data.root='{runs / 'new'}'", "resamples=50",
                    name="compare",
                )
            ),
            workdir,
        )  # fmt: skip
    return workdir


def test_the_table_has_a_row_a_model_with_what_it_is_worth_and_costs(compared):
    rows = pd.read_csv(compared / "compare.csv")
    assert rows.model.tolist() == ["short", "long"]
    for name in ("parameters", "top1", "top5", "loss", "images_per_second", "peak_memory_mb"):
        assert rows[name].notna().all()
    predictions = pd.read_csv(compared / "predictions.csv", dtype=str)
    for row in rows.itertuples():
        right = predictions[f"{row.model}_predicted"] == predictions.label
        assert row.top1 == pytest.approx(right.mean())
        rank = predictions[f"{row.model}_rank_of_label"].astype(int)
        assert ((rank == 1) == right).all()
        of_label = predictions[f"{row.model}_probability_of_label"].astype(float)
        assert row.loss == pytest.approx(-np.log(of_label).mean(), abs=1e-3)
        assert row.top1_low <= row.top1 <= row.top1_high
        assert row.n == 12
    assert rows.parameters.nunique() == 1
    assert (rows.images_per_second >= 1000 / rows.ms_per_photo * 0.999).all()
    assert (rows.peak_memory_mb > 100).all()
    # 15x15 places for 3x3x3x4 numbers, 7x7 for 3x3x4x8, and 8 x 3 of the head; two each.
    assert rows.gflops[0] == pytest.approx(2 * (225 * 108 + 49 * 288 + 24) / 1e9)


def test_precision_of_each_class_is_told(compared):
    of_classes = pd.read_csv(compared / "per_class.csv", dtype={"class": str})
    assert of_classes["class"].tolist() == ["007", "12", "red, wide"]
    assert of_classes.photos.tolist() == [4, 4, 4]
    predictions = pd.read_csv(compared / "predictions.csv", dtype=str)
    for name, expected in zip(of_classes["class"], of_classes.precision_long, strict=True):
        taken = predictions[predictions.long_predicted == name]
        found = (taken.label == name).mean() if len(taken) else np.nan
        assert found == pytest.approx(expected, nan_ok=True)


def test_page_markdown_and_pictures_are_written(compared):
    assert {path.name for path in compared.glob("*.png")} == {
        "bars.png", "accuracy_and_cost.png", "precision.png", "precision_distance.png",
    }  # fmt: skip
    html = (compared / "compare.html").read_text()
    assert len(re.findall('src="data:image/png;base64,', html)) == 4
    assert "Which differences are real" in html
    markdown = (compared / "compare.md").read_text()
    assert markdown.startswith("# 2 networks on 12 photos\n")
    assert len(re.findall(r"^\| (?:short|long) \|", markdown, re.MULTILINE)) == 2
    (pair,) = pd.read_csv(compared / "pairs.csv").itertuples()
    assert (pair.model, pair.other) == ("short", "long")
    facts = json.loads((compared / "run.json").read_text())
    assert facts["failed"] == {}
    assert facts["left_out_as_trained_on"] == 0


def test_what_a_network_enlarges_photos_to_is_told_beside_their_size(compared):
    rows = pd.read_csv(compared / "compare.csv")
    assert rows.enlarged_to.isna().tolist() == [True, False]
    assert rows.enlarged_to[1] == 1.5 * rows.image_size[1]
    assert rows.gflops[1] > 2 * rows.gflops[0]
    row = next(
        line for line in (compared / "compare.md").read_text().splitlines() if "long" in line
    )
    assert f"| {rows.image_size[1]} → {rows.enlarged_to[1]:.0f} |" in row


def test_photos_that_trained_one_of_them_are_left_out_for_all(runs, tmp_path):
    models = f"models=['{runs / 'short'}','{runs / 'long'}']"
    config = to_compare_config(as_composed(models, "resamples=0", name="compare"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_SECONDS", 0.0)
        patch.setattr(cost, "_BATCH_SIZES", (1,))
        rows = compare(config, tmp_path)
    validated = [
        set(pd.read_csv(runs / name / "val_predictions.csv", dtype=str).id)
        for name in ("short", "long")
    ]
    assert rows.n.tolist() == [len(validated[0] & validated[1])] * 2
    assert 0 < rows.n[0] < 6


def test_a_model_that_fails_is_told_and_the_others_are_compared(runs, tmp_path, caplog):
    shutil.copytree(runs / "short", tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.keras").open("r+b") as file:
        file.seek(2000)
        file.write(bytes(4000))
    models = f"models=['{runs / 'long'}','{tmp_path / 'damaged'}']"
    config = to_compare_config(
        as_composed(models, "data=folder", f"data.root='{runs / 'new'}'", name="compare")
    )
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(cost, "_SECONDS", 0.0)
        patch.setattr(cost, "_BATCH_SIZES", (1,))
        compare(config, tmp_path / "out")
    assert "Expected all 2 models to be measured. Received: 1 that failed, damaged (" in str(
        error.value
    )
    rows = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert rows.model.tolist() == ["long"]
    assert "damaged" in (tmp_path / "out" / "compare.md").read_text()


def test_classes_that_a_model_does_not_know_are_named(runs, tmp_path):
    for name in ("cab", "12"):
        draw_photo(tmp_path / "other" / name / "a.png", (9, 9, 9), 1)
    models = f"models=['{runs / 'long'}']"
    config = to_compare_config(
        as_composed(models, "data=folder", f"data.root='{tmp_path / 'other'}'", name="compare")
    )
    with pytest.raises(UserError, match=r"it does not know 1: cab\. Of its own 3 the data lacks 2"):
        compare(config, tmp_path)
    assert not (tmp_path / "compare.csv").exists()


def test_no_models_and_no_data_are_told(tmp_path):
    with pytest.raises(UserError, match=r"Expected models=\[…\]"):
        compare(to_compare_config(as_composed(name="compare")), tmp_path)
    config = to_compare_config(as_composed("models=[efficientnetlite0]", name="compare"))
    with pytest.raises(UserError, match="Expected data=OPTION with efficientnetlite0"):
        compare(config, tmp_path)


def test_the_front_is_what_no_other_beats():
    cost_of = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
    accuracy = np.array([0.5, 0.7, 0.6, 0.7, 0.4])
    assert pareto_front(cost_of, accuracy).tolist() == [True, True, False, True, False]


def test_a_difference_reads_from_the_better_one():
    pair = {
        "model": "a", "other": "b", "accuracy": -0.05, "accuracy_low": -0.09,
        "accuracy_high": -0.01, "p": 0.0004, "is_real": True,
    }  # fmt: skip
    assert sentences(pd.DataFrame([pair])) == [
        "b tells 5.0 points more right than a (+1.0 to +9.0): real, p < 0.001"
    ]
    alike = pair | {"accuracy": 0.0, "accuracy_high": 0.03, "p": 1.0, "is_real": False}
    assert sentences(pd.DataFrame([alike])) == [
        "a and b tell as many right (-9.0 to +3.0): chance may explain it, p = 1.000"
    ]


def test_the_search_for_the_best_batch_ends_where_nothing_is_gained(monkeypatch, runs):
    seconds = {1: 1.0, 2: 1.5, 4: 2.4, 8: 5.0, 16: 11.0}
    monkeypatch.setattr(cost, "_seconds_per_batch", lambda model, size, batch: seconds[batch])
    tried = []
    found = cost.measure_cost(Predictor.from_run(runs / "short"), tried.append)
    assert tried == [1, 2, 4, 8, 16]
    assert (found.batch_size, found.ms_per_photo) == (4, 1000)
    assert found.images_per_second == pytest.approx(4 / 2.4)
    assert found.size_mb == (runs / "short" / "model.keras").stat().st_size / 1e6


def said(runs, workdir, *overrides: str) -> pd.DataFrame:
    models = f"models=['{runs / 'short'}','{runs / 'long'}']"
    config = to_predict_config(as_composed(models, *overrides, name="predict"))
    return predict(config, workdir)


def test_networks_say_side_by_side_what_they_see(runs, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    broken = tmp_path / "broken.png"
    broken.write_text("no photo")
    photo = runs / "new" / "12" / "0.png"
    said(runs, tmp_path / "out", f"images=['{photo}','{broken}']", "top=2", "plot=true")
    rows = pd.read_csv(tmp_path / "out" / "photos.csv", dtype={"class": str})
    assert rows.model.tolist() == ["short"] * 3 + ["long"] * 3
    for model in ("short", "long"):
        expected = Predictor.from_run(runs / model)([photo], workers=0).probs[0]
        own = rows[(rows.model == model) & rows.error.isna()]
        order = np.argsort(-expected)[:2]
        assert own.number.tolist() == order.tolist()
        names = ["007", "12", "red, wide"]
        assert own["class"].tolist() == [names[i] for i in order]
        np.testing.assert_allclose(own.probability, expected[order], atol=1e-5)
    first, second = json.loads((tmp_path / "out" / "photos.json").read_text())
    assert [(c["model"], c["rank"]) for c in first["classes"]] == [
        ("short", 1), ("short", 2), ("long", 1), ("long", 2),
    ]  # fmt: skip
    assert second["error"]
    assert second["classes"] == []
    assert [path.name for path in (tmp_path / "out" / "plots").iterdir()] == ["1_0.png"]
    text = caplog.text
    assert re.search(r"photo +rank +number +short: class +probability +number +long: class", text)
    assert "1 of 2 cannot be opened" in text


def test_what_does_not_go_with_models_is_told(runs, tmp_path):
    for override, message in (
        ("ckpt=x", "Expected ckpt=, networks that answer as one, or models="),
        ("weights=[1,2]", "Expected weights with an ensemble"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            said(runs, tmp_path, "images=photo.png", override)
    with pytest.raises(UserError, match=r"Expected images=PATH with models="):
        said(runs, tmp_path)
    config = to_predict_config(as_composed("ckpt=x", "plot=true", name="predict"))
    with pytest.raises(UserError, match="Expected images=PATH with plot=true"):
        predict(config, tmp_path)
