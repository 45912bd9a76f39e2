"""evaluate.py predictions=FILE: the numbers of a file's predictions, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn

from carcls.errors import UserError
from carcls.evaluation.saved_predictions import read_predictions
from tests.test_evaluate import evaluated

NAMES = ["a", "b, c", "007"]


@pytest.fixture
def table() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    logits = draws.normal(0, 1, (60, 3))
    logits[np.arange(60), labels] += 1
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = pd.DataFrame(probs.round(12), columns=[f"p_{name}" for name in NAMES])
    found.insert(0, "label", np.array(NAMES)[labels])
    return found


def test_the_numbers_are_scikit_learns(table, tmp_path):
    table.to_csv(tmp_path / "saved.csv", index=False)
    found = evaluated(tmp_path / "out", f"predictions='{tmp_path / 'saved.csv'}'")
    probs = table.iloc[:, 1:].to_numpy()
    labels = table.label.map(NAMES.index)
    assert found["top1"] == pytest.approx(sklearn.accuracy_score(labels, probs.argmax(1)))
    assert found["nll"] == pytest.approx(sklearn.log_loss(labels, probs), abs=1e-4)
    assert found["macro_f1"] == pytest.approx(
        sklearn.f1_score(labels, probs.argmax(1), average="macro")
    )
    assert found["n"] == 60
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "metrics.json", "run.json", "report.html", "per_class.csv", "confused.csv",
        "classification_report.txt",
        "confusion.png", "reliability.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "run.json").read_text())["predictions"].endswith(".csv")
    assert "the file does not say" in (tmp_path / "out" / "report.html").read_text()


def test_ids_paths_and_columns_of_others_are_taken_as_they_come(table, tmp_path):
    table.insert(0, "id", [f"{n:03}" for n in range(60)])
    table.insert(1, "predicted", "x")
    table.insert(1, "path", "photo.jpg")
    table.to_csv(tmp_path / "saved.csv", index=False)
    measured, names = read_predictions(str(tmp_path / "saved.csv"))
    assert names == NAMES
    assert measured.table.id[7] == "007"
    assert set(measured.table.path) == {"photo.jpg"}
    np.testing.assert_allclose(measured.probs, table.iloc[:, -3:], atol=1e-6)


def mistake(table: pd.DataFrame, name: str) -> pd.DataFrame:
    if name == "label":
        table.loc[3, "label"] = "z"
    elif name == "sum":
        table.loc[5, "p_a"] += 0.5
    elif name == "empty":
        table["p_a"] = table.p_a.astype(object)
        table.loc[6, "p_a"] = ""
    elif name == "text":
        table["p_a"] = table.p_a.astype(object)
        table.loc[6, "p_a"] = "high"
    elif name == "column":
        table = table.drop(columns="label")
    elif name == "none":
        table = table.iloc[:0]
    return table


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("label", r"one of its classes, a, b, c, 007\. Received: z\."),
        ("sum", r"sum to 1 in .*Received: 1 of 60 rows without, the first in line 7\."),
        ("empty", r"1 of 60 rows without, the first in line 8\."),
        ("text", r"Expected numbers in the columns p_CLASS"),
        ("column", r"Expected a column label and a column p_CLASS for each class"),
        ("none", r"Received: none, a header alone\."),
    ],
)
def test_what_is_no_predictions_is_told(table, tmp_path, name, message):
    mistake(table, name).to_csv(tmp_path / "saved.csv", index=False)
    with pytest.raises(UserError, match=message):
        read_predictions(str(tmp_path / "saved.csv"))


def test_a_file_that_is_not_there_and_what_needs_a_network_are_told(tmp_path):
    for overrides, message in (
        (("predictions=nothing.csv",), "predictions=nothing.csv, where there is no file"),
        (("predictions=x.csv", "ckpt=RUN"), "but not both. Received: ckpt="),
        (("predictions=x.csv", "tta=flip", "robustness=noise"), "Received: tta, robustness too"),
        ((), "or predictions=FILE. Received: none"),
    ):
        with pytest.raises(UserError, match=message):
            evaluated(tmp_path / "out", *overrides)
