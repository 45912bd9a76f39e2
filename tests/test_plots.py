import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from carcls.plots import draw_curves


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stage": ["head"] * 3 + ["top_half"] * 2,
            "epoch": [1, 2, 3, 4, 5],
            "loss": [2.0, 1.0, 0.8, 0.9, 0.4],
            "val_loss": [1.8, 1.1, 0.9, 1.0, 0.5],
            "accuracy": [0.3, 0.5, 0.6, 0.6, 0.8],
            "val_accuracy": [0.2, 0.5, 0.7, 0.6, 0.75],
        }
    )


def texts(axis: Axes) -> list[str]:
    return [text.get_text().strip() for text in axis.texts]


def test_curves_show_all_epochs_stages_and_the_kept_one(history):
    figure = draw_curves(history, best_epoch=5, title="a run")
    accuracy, loss = figure.axes
    assert figure.get_suptitle() == "a run"
    assert texts(accuracy) == ["kept: epoch 5, 75.0%", "head", "top half"]
    assert texts(loss) == ["kept: epoch 5, 0.500"]
    for axis, name in ((accuracy, "accuracy"), (loss, "loss")):
        train, validation = axis.lines[:2]
        np.testing.assert_array_equal(train.get_xydata()[:, 1], history[name])
        np.testing.assert_array_equal(validation.get_xydata()[:, 1], history[f"val_{name}"])
        (shaded,) = axis.patches
        assert shaded.get_x() == 3.5
        assert shaded.get_width() == 2.0


def test_a_loss_that_ran_away_does_not_flatten_the_rest(history):
    history.loc[3, "val_loss"] = 1e9
    history.loc[4, "loss"] = np.nan
    figure = draw_curves(history, best_epoch=3, title="")
    assert figure.axes[1].get_ylim()[1] < 10


def test_a_first_head_without_loss_does_not_hide_the_rest(history):
    history.loc[0, ["loss", "val_loss"]] = [0.001, 0.01]
    rest = history.loc[1:, ["loss", "val_loss"]].to_numpy().max()
    figure = draw_curves(history, best_epoch=3, title="")
    assert figure.axes[1].get_ylim()[1] > rest


def test_one_epoch_is_a_picture_too(history, tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(history.head(1), 1, "one").write(path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1200, 840))


def test_without_validation_photos_there_is_one_curve_and_it_says_whose_number_is_kept(history):
    history[["val_loss", "val_accuracy"]] = np.nan
    figure = draw_curves(history, best_epoch=5, title="")
    accuracy, loss = figure.axes
    assert texts(accuracy)[0] == "kept: epoch 5, 80.0% (train)"
    assert texts(loss) == ["kept: epoch 5, 0.400 (train)"]
    assert [line.get_label() for line in accuracy.lines[:1]] == ["train (augmented)"]
    np.testing.assert_array_equal(accuracy.lines[0].get_xydata()[:, 1], history.accuracy)


def test_a_notebook_shows_the_picture_and_keeps_its_own_way_of_drawing(history):
    png = draw_curves(history, 5, "")._repr_png_()
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.size) == ("PNG", (1200, 840))
    code = (
        "import sys, carcls.api, matplotlib; "
        "print('matplotlib.pyplot' in sys.modules, matplotlib.get_backend().lower())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MPLBACKEND": "svg"}, check=True,
        capture_output=True, text=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert answer.stdout.split() == ["False", "svg"]
