"""What a network's coarse classes are worth: the numbers, and the evaluation that writes them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score

from carcls.config import to_config, to_evaluate_config
from carcls.errors import UserError
from carcls.evaluation.evaluate import evaluate, evaluate_own
from carcls.evaluation.hierarchy import coarse_classes, measure_levels, summed
from carcls.evaluation.hierarchy_pictures import draw_differences
from carcls.evaluation.metrics import measure
from carcls.training.inputs import prepare_inputs
from carcls.training.jobs import run_job
from tests.conftest import draw_photo, use_tiny_backbone, write_csv
from tests.test_config import as_composed, composed

HIERARCHY = {"van": "large", "bus": "large", "coupe": "small", "city": "small", "moped": "two"}
FINE = sorted(HIERARCHY)
COARSE = ["large", "small", "two"]
QUICK = (
    "backbone=efficientnetlite0", "image_size=32", "batch_size=8", "runtime.eager=true",
    "runtime.workers=0", "finetune=frozen", "finetune.stages.head.epochs=1", "head=linear",
    "runtime.preflight=false", "data=folder", "data.val_split=0.34",
)  # fmt: skip


def drawn(n: int = 300, seed: int = 0):
    """Fine probabilities, coarse probabilities, labels; the last class is never predicted."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 5, n)
    scores = draws.random((n, 5)) + 0.6 * np.eye(5)[labels]
    scores[:, 4] = 0
    coarse = draws.random((n, 3)) + 0.8 * np.eye(3)[coarse_classes(FINE, HIERARCHY)[1][labels]]
    return (scores / scores.sum(1, keepdims=True), coarse / coarse.sum(1, keepdims=True), labels)


def levels_of(probs, coarse_probs, labels, resamples=0):
    metrics = measure(probs, labels, FINE, seed=0, resamples=resamples)
    return measure_levels(
        probs, labels, FINE, HIERARCHY, metrics=metrics, coarse_probs=coarse_probs, seed=0,
        resamples=resamples,
    )  # fmt: skip


def test_every_number_is_scikit_learns():
    probs, coarse_probs, labels = drawn()
    levels = levels_of(probs, coarse_probs, labels)
    names, of_fine = coarse_classes(FINE, HIERARCHY)
    assert names == levels.coarse_names == COARSE
    wanted, fine = of_fine[labels], probs.argmax(1)
    sums = np.stack([probs[:, of_fine == number].sum(1) for number in range(3)], axis=1)
    np.testing.assert_allclose(summed(probs, of_fine), sums)
    told = {
        "rolled_up": of_fine[fine], "summed": sums.argmax(1), "coarse": coarse_probs.argmax(1),
    }  # fmt: skip
    for name, predicted in told.items():
        values = levels.values[name]
        assert values["top1"] == pytest.approx(accuracy_score(wanted, predicted))
        expected = balanced_accuracy_score(wanted, predicted)
        assert values["balanced_accuracy"] == pytest.approx(expected)
        assert values["macro_f1"] == pytest.approx(f1_score(wanted, predicted, average="macro"))
        each = precision_score(
            wanted, predicted, average=None, labels=range(3), zero_division=np.nan
        )
        assert values["precision"] == pytest.approx(np.nanmean(each))
        np.testing.assert_allclose(levels.of_coarse[name].precision, each)
    assert "nll" not in levels.values["rolled_up"]
    of_label = sums[np.arange(len(labels)), wanted]
    assert levels.values["summed"]["nll"] == pytest.approx(-np.log(of_label).mean())


def test_the_table_has_the_precision_of_each_fine_class_against_its_coarse_class():
    probs, coarse_probs, labels = drawn()
    table = levels_of(probs, coarse_probs, labels).per_class
    assert table.coarse.tolist() == ["large", "large", "small", "small", "two"]
    assert table.fine.tolist() == ["bus", "van", "city", "coupe", "moped"]
    _, of_fine = coarse_classes(FINE, HIERARCHY)
    index = [FINE.index(name) for name in table.fine]
    options = {"average": None, "zero_division": np.nan}
    fine = precision_score(labels, probs.argmax(1), labels=range(5), **options)[index]
    rolled = precision_score(of_fine[labels], of_fine[probs.argmax(1)], labels=range(3), **options)[
        of_fine
    ][index]
    coarse = precision_score(of_fine[labels], coarse_probs.argmax(1), labels=range(3), **options)[
        of_fine
    ][index]
    np.testing.assert_allclose(table.precision, fine)
    np.testing.assert_allclose(table.precision_rolled_up, rolled)
    np.testing.assert_allclose(table.precision_coarse, coarse)
    np.testing.assert_allclose(table.fine_minus_rolled_up, fine - rolled)
    np.testing.assert_allclose(table.fine_minus_coarse, fine - coarse)
    np.testing.assert_allclose(table.rolled_up_minus_coarse, rolled - coarse)
    assert table.fine[np.isnan(fine)].tolist() == ["van"]
    assert table.photos.sum() == table.predicted.sum() == len(labels)


def test_errors_inside_the_coarse_class_are_counted():
    """Of four errors bus for van and city for coupe are inside."""
    pairs = [("van", "van"), ("van", "bus"), ("coupe", "city"), ("city", "van"), ("moped", "bus")]
    labels, predicted = (np.array([FINE.index(pair[i]) for pair in pairs]) for i in (0, 1))
    levels = levels_of(np.eye(5)[predicted], None, labels, resamples=50)
    # Three of the four have one sibling among the four other classes, moped has none.
    assert levels.values["errors"] == {
        "share": pytest.approx(0.8), "inside": 0.5, "inside_by_chance": pytest.approx(3 / 16),
    }  # fmt: skip
    table = levels.per_class.set_index("fine")
    assert table.errors.to_dict() == {"bus": 0, "van": 1, "city": 1, "coupe": 1, "moped": 1}
    assert table.inside.dropna().to_dict() == {"van": 1, "city": 0, "coupe": 1, "moped": 0}
    assert "coarse" not in levels.values
    assert list(levels.values["differences"]) == ["fine_minus_rolled_up"]
    assert not [name for name in table if name.endswith("_coarse")]


def test_without_an_error_nothing_stays_inside():
    labels = np.arange(5)
    levels = levels_of(np.eye(5), None, labels, resamples=20)
    assert levels.values["errors"] == {"share": 0}
    assert levels.intervals["errors"] == {"share": (0, 0)}
    assert levels.values["differences"] == {"fine_minus_rolled_up": 0}


def test_headline_numbers_have_intervals_that_other_photos_fall_into():
    probs, coarse_probs, labels = drawn(600)
    levels = levels_of(probs, coarse_probs, labels, resamples=200)
    truth = levels_of(*drawn(50_000, seed=1)).values
    for group, names in {
        "fine": ("top1", "precision"), "rolled_up": ("top1", "precision"),
        "summed": ("top1", "macro_f1"), "coarse": ("top1", "balanced_accuracy"),
        "errors": ("inside",), "differences": tuple(truth["differences"]),
    }.items():  # fmt: skip
        for name in names:
            low, high = levels.intervals[group][name]
            assert low < levels.values[group][name] < high
            slack = (high - low) / 4  # 95 % of intervals hold it, not each
            assert low - slack < truth[group][name] < high + slack, (group, name)


def test_the_bars_are_the_differences_and_a_cross_stands_where_there_is_none():
    table = levels_of(*drawn()).per_class
    figure = draw_differences(table, "a run")
    panels = [axis for axis in figure.axes if axis.get_title()]
    titles = ["fine minus rolled-up", "fine minus coarse", "rolled-up minus coarse"]
    assert [axis.get_title().splitlines()[0] for axis in panels] == titles
    widths = [bar.get_width() for bar in panels[1].patches if bar.get_height() == 0.8]
    np.testing.assert_allclose(widths, table.fine_minus_coarse.fillna(0))
    (crosses,) = (line for line in panels[0].lines if line.get_marker() == "x")
    assert crosses.get_ydata().tolist() == [1]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == table.fine.tolist()
    assert len([axis for axis in draw_differences(
        table.drop(columns=["fine_minus_coarse", "rolled_up_minus_coarse"]), "a run"
    ).axes if axis.get_title()]) == 1  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """data/, a hierarchy, a run of fine classes (with it and without), a coarse one."""
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(FINE):
        for photo in range(6):
            colour = (50 * number, 250 - 50 * number, 128)
            draw_photo(folder / "data" / name / f"{photo}.png", colour, 10 * number + photo)
    write_csv(folder / "h.csv", list(HIERARCHY.items()), ("fine", "coarse"))
    given = f"hierarchy={folder / 'h.csv'}"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_backbone(patch.setattr)
        wanted = {"fine": (given,), "plain": (), "coarse": (given, "target=coarse")}
        for name, overrides in wanted.items():
            config = to_config(composed(f"data.root={folder / 'data'}", *QUICK, *overrides))
            inputs = prepare_inputs(config)
            run_job(config, folder / name, inputs)
            if name == "fine":
                evaluate_own(folder / name, inputs.records)
    return folder


def evaluated(workdir, *overrides: str) -> dict:
    config = to_evaluate_config(as_composed("resamples=20", *overrides, name="evaluate"))
    workdir.mkdir(exist_ok=True)
    return evaluate(config, workdir)


def told(workdir, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        evaluated(workdir, *overrides)
    return str(error.value)


def test_runs_of_both_levels_are_measured_with_the_photos_that_neither_trained_on(runs, tmp_path):
    out = tmp_path / "out"
    found = evaluated(out, f"ckpt={runs / 'fine'}", f"coarse_ckpt={runs / 'coarse'}")
    assert found["n"] == 10, "both validate with the same photos"
    levels = found["hierarchy"]
    assert (levels["source"], levels["coarse_classes"]) == (str(runs / "h.csv"), 3)
    of_coarse = json.loads((runs / "coarse" / "metrics.json").read_text())
    assert levels["coarse"]["top1"] == pytest.approx(of_coarse["val_accuracy"])
    assert levels["coarse"]["nll"] == pytest.approx(of_coarse["val_nll"], abs=1e-5)
    assert levels["fine"]["top1"] == found["top1"]
    assert levels["intervals"]["fine"]["top1"] == found["intervals"]["top1"]
    rows = pd.read_csv(out / "predictions.csv")
    assert levels["rolled_up"]["top1"] == np.mean(
        rows.label.map(HIERARCHY) == rows.predicted.map(HIERARCHY)
    )
    table = pd.read_csv(out / "hierarchy.csv")
    assert dict(zip(table.fine, table.coarse, strict=True)) == HIERARCHY
    assert table.photos.sum() == 10
    assert json.loads((out / "metrics.json").read_text()) == found
    for name in ("hierarchy_precision.png", "hierarchy_confusion.png"):
        assert np.asarray(Image.open(out / name).convert("L")).std() > 10
    html = (out / "report.html").read_text()
    assert "<h2>Coarse and fine classes</h2>" in html
    assert f"{levels['coarse']['top1']:.2%}" in html
    assert json.loads((out / "run.json").read_text())["coarse_ckpt"] == [str(runs / "coarse")]


def test_a_run_tells_its_coarse_classes_in_its_own_report(runs):
    found = json.loads((runs / "fine" / "evaluation" / "metrics.json").read_text())
    assert found["n"] == 10
    assert list(found["hierarchy"]) == [
        "source", "coarse_classes", "fine", "rolled_up", "summed", "errors", "differences",
        "intervals",
    ]  # fmt: skip
    assert (runs / "fine" / "evaluation" / "hierarchy.csv").is_file()


def test_what_folds_have_saved_is_compared_with_what_those_of_a_coarse_run_have(runs, tmp_path):
    """As if each of two runs were of several folds: what they saved has the same columns."""
    for name in ("fine", "coarse"):
        shutil.copytree(runs / name, tmp_path / name)
        (tmp_path / name / "val_predictions.csv").rename(tmp_path / name / "oof_predictions.csv")
    folds, out = tmp_path / "fine", tmp_path / "out"
    levels = evaluated(out, f"ckpt={folds}", f"coarse_ckpt={tmp_path / 'coarse'}")["hierarchy"]
    own = json.loads((runs / "fine" / "evaluation" / "metrics.json").read_text())["hierarchy"]
    assert levels["summed"] == own["summed"]
    of_coarse = json.loads((runs / "coarse" / "metrics.json").read_text())
    assert levels["coarse"]["top1"] == pytest.approx(of_coarse["val_accuracy"])
    assert levels["coarse"]["nll"] == pytest.approx(of_coarse["val_nll"], abs=1e-5)
    expected = (
        "Expected coarse_ckpt to be a run of several folds too, with a run of several folds on its "
        "own photos: others have trained on these. Received: "
    )
    otherwise = "Measure with other photos: data=folder data.root=DIR."
    assert told(out, f"ckpt={folds}", f"coarse_ckpt={runs / 'coarse'}") == (
        f"{expected}{runs / 'coarse'}, without oof_predictions.csv. {otherwise}"
    )
    path = tmp_path / "coarse" / "oof_predictions.csv"
    rows = pd.read_csv(path)
    pd.concat([rows, rows.head(1)]).to_csv(path, index=False)
    assert told(out, f"ckpt={folds}", f"coarse_ckpt={tmp_path / 'coarse'}") == (
        f"{expected}{tmp_path / 'coarse'}, in which several photos have one id. {otherwise}"
    )
    rows.assign(id="x", label=[f"{i}" for i in range(len(rows))]).to_csv(path, index=False)
    assert "in which none of the 10 photos is." in told(
        out, f"ckpt={folds}", f"coarse_ckpt={tmp_path / 'coarse'}"
    )


def test_the_hierarchy_of_a_coarse_run_serves_a_run_that_has_none(runs, tmp_path):
    out = tmp_path / "out"
    found = evaluated(out, f"ckpt={runs / 'plain'}", f"coarse_ckpt={runs / 'coarse'}")
    assert found["hierarchy"]["source"] == str(runs / "h.csv")
    found = evaluated(out, f"ckpt={runs / 'plain'}")
    assert "hierarchy" not in found
    assert not list(out.glob("hierarchy*")), "of another evaluation"
    assert "Coarse" not in (out / "report.html").read_text()


def test_a_coarse_run_is_measured_with_fine_labels(runs, tmp_path):
    found = evaluated(
        tmp_path / "out", f"ckpt={runs / 'coarse'}", "data=folder", f"data.root={runs / 'data'}",
        f"hierarchy={runs / 'h.csv'}",
    )  # fmt: skip
    of_run = json.loads((runs / "coarse" / "metrics.json").read_text())
    assert (found["n"], found["top1"]) == (10, pytest.approx(of_run["val_accuracy"]))
    assert "hierarchy" not in found


def test_networks_that_do_not_fit_the_hierarchy_are_told_with_both_sides(runs, tmp_path):
    other = tmp_path / "other.csv"
    write_csv(other, [(name, name[0]) for name in FINE], ("fine", "coarse"))
    assert told(
        tmp_path / "out", f"ckpt={runs / 'fine'}", f"coarse_ckpt={runs / 'coarse'}",
        f"hierarchy={other}",
    ) == (
        f"Expected coarse_ckpt to know the 4 coarse classes in {other}: b, c, m, v. Received: "
        f"{runs / 'coarse'}, which knows 3: large, small, two. It lacks b, c, m and 1 more; large, "
        "small, two are not among them. Train it with the same hierarchy and target=coarse."
    )  # fmt: skip
    assert told(tmp_path / "out", f"ckpt={runs / 'plain'}", f"coarse_ckpt={runs / 'plain'}") == (
        "Expected coarse_ckpt=RUN beside a run of fine classes, and hierarchy=FILE, which says the "
        f"coarse class of each. Received: coarse_ckpt={runs / 'plain'}, hierarchy=null, and "
        f"ckpt={runs / 'plain'}, which knows 5 classes: bus, city, coupe, moped, van."
    )
    write_csv(other, [(name, "any") for name in FINE], ("fine", "coarse"))
    assert told(tmp_path / "out", f"ckpt={runs / 'fine'}", f"hierarchy={other}") == (
        f"Expected at least two coarse classes in {other}. Received: any for all 5 classes of "
        f"{runs / 'fine'}."
    )
    assert list((tmp_path / "out").iterdir()) == []
