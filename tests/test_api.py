"""The Python API: the same runs as from the command line."""

import json
import logging
import os
import signal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import carcls
from carcls import load_run, predict, train
from carcls.errors import UserError
from tests.conftest import draw_competition

TINY = {
    "backbone": "efficientnetlite0",
    "finetune": "frozen",
    "image_size": 32,
    "batch_size": 4,
}
EAGER = {"runtime.eager": True, "runtime.preflight": False, "finetune.stages.head.epochs": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data") / "фото (копия)=1", per_class=5)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "one"
    return train(root, workdir=workdir, settings=EAGER, quiet=True, **TINY)


def test_a_run_has_what_its_directory_holds(run):
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert run.metrics == metrics
    assert run.history.stage.tolist() == ["head"]
    assert run.class_names == ["007", "12", "red, wide"]
    assert run.image_size == 32
    assert run.config["finetune"]["stages"]["head"]["epochs"] == 1
    assert set(run.val_predictions.label) == {"007", "12", "red, wide"}
    assert run.curves().get_suptitle() == "one"
    assert load_run(str(run.path)) == run


def test_paths_arrays_and_frames_of_the_same_photos_get_the_same_answer(run, root):
    folder = root / "test_upload"
    by_folder = run.predict(folder)
    paths = sorted(folder.iterdir())
    assert by_folder.index.tolist() == [str(path) for path in paths]
    assert by_folder.columns.tolist() == [
        "predicted", "probability", "p_007", "p_12", "p_red, wide", "error",
    ]  # fmt: skip
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for photos in (paths, arrays, np.stack(arrays), [array.astype(float) for array in arrays]):
        answer = run.predict(photos)
        pd.testing.assert_frame_equal(
            answer.reset_index(drop=True), by_folder.reset_index(drop=True)
        )
    frame = pd.DataFrame({"Id": [path.name for path in paths]}, index=list("vwxyz"))
    of_frame = run.predict(frame, column="Id", root=folder)
    assert of_frame.index.tolist() == list("vwxyz")
    assert of_frame.predicted.tolist() == by_folder.predicted.tolist()
    names = [path.name for path in paths]
    assert run.predict(names, root=folder).p_12.tolist() == by_folder.p_12.tolist()
    assert run.predict("*.png", root=folder).index.tolist() == by_folder.index.tolist()
    (one,) = run.predict(arrays[0]).itertuples()
    assert one.probability == pytest.approx(by_folder.probability.iloc[0], abs=1e-5)


def test_a_photo_that_cannot_be_opened_keeps_its_row(run, root, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>no photo</html>")
    good = next((root / "test_upload").iterdir())
    answer = run.predict([tmp_path / "page.jpg", good])
    assert answer.error.iloc[0] == "not an image but a web page"
    assert answer.error.isna().tolist() == [False, True]
    assert answer.predicted.isna().tolist() == [True, False]
    assert answer.probability.isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("photos", "text"),
    [
        (pd.DataFrame({"Id": ["1.png"]}), "Expected a DataFrame with a column of paths, path"),
        (np.zeros((0, 4, 3)), "Received: shape (0, 4, 3), float64."),
        (np.zeros((4, 4)), "Expected photos as RGB arrays of shape (height, width, 3), or paths."),
        (np.full((4, 4, 3), 0.5), "Multiply by 255 what goes from 0 to 1"),
        (np.full((4, 4, 3), -3), "Expected RGB arrays with values from 0 to 255. Received: int64"),
        ("no such photo", "Expected images to be a photo, a folder or a glob."),
    ],
)
def test_what_is_no_photo_is_told(run, photos, text):
    with pytest.raises(UserError) as error:
        run.predict(photos)
    assert text in str(error.value)


def test_a_submission_is_returned_and_written_where_it_was_asked_for(run, root, tmp_path):
    table = predict(run, output=tmp_path / "out.csv", workdir=tmp_path / "work", quiet=True)
    written = pd.read_csv(tmp_path / "out.csv", dtype=str)
    pd.testing.assert_frame_equal(table.astype(object), written.astype(object))
    assert table.Id.tolist() == [f"{900 - 3 * i}.png" for i in range(5)]
    assert (tmp_path / "work" / "run.json").is_file()
    rows = predict(run.path, images=root / "test_upload", top=2, quiet=True)
    assert rows.columns.tolist() == ["path", "rank", "number", "class", "probability", "error"]
    assert len(rows) == 10
    assert (run.path / "prediction" / "photos.csv").is_file()


def test_it_says_what_the_command_line_says_unless_it_is_quiet(run, capsys, tmp_path):
    predict(run, workdir=tmp_path)
    printed = capsys.readouterr().out
    assert "submission" in printed
    assert "submission" in (tmp_path / "predict.log").read_text()
    predict(run, workdir=tmp_path, quiet=True)
    assert capsys.readouterr().out == ""


def test_a_notebook_with_a_logger_of_its_own_hears_nothing_twice(run, tmp_path, caplog):
    with caplog.at_level("INFO"):
        predict(run, workdir=tmp_path, quiet=True)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"backbone": "vgg99"}, "Could not find 'backbone/vgg99'"),
        ({"backbon": "vgg16"}, "Could not override 'backbon'"),
        ({"settings": {"data.rooot": "x"}}, "Could not override 'data.rooot'"),
        ({"image_size": 8}, "Expected image_size to be at least 32 px"),
        ({"root": "no such place"}, "no such place, which does not exist"),
        ({"settings": {"~finetune.stages.tops": None}}, "finetune.stages.tops"),
    ],
)
def test_a_mistake_raises_one_message_and_writes_nothing(arguments, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        train(**arguments)
    assert text in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match=r"Expected ckpt to be a run directory with model\.keras"):
        load_run(tmp_path)
    with pytest.raises(AttributeError, match="module 'carcls' has no attribute 'trian'"):
        carcls.trian  # noqa: B018


def test_settings_reach_the_configuration_whatever_their_type(root, tmp_path):
    from carcls.api import _composed
    from carcls.config import to_config

    settings = {
        "data.root": root,
        "data.cache_dir": None,
        "finetune": "staged",
        "finetune.batch_norm": "frozen",
        "runtime.deterministic": True,
        "optimizer.learning_rate": np.float32(0.5),
        "augmentation.train.affine.rotate": [-3, 3],
        "~finetune.stages.top_half": None,
        "finetune.stages.all": {"epochs": 2, "callbacks": ["plateau"]},
    }
    config = to_config(_composed("train", settings))
    assert config.data.root == str(root)
    assert config.runtime.deterministic is True
    assert config.optimizer.learning_rate == 0.5
    assert config.augmentation.train["affine"]["rotate"] == [-3, 3]
    assert list(config.finetune.stages) == ["head", "top_three_quarters", "all"]
    assert config.finetune.stages["all"].callbacks == ["plateau"]
    assert config.finetune.stages["all"].trainable == 1.0


def test_a_run_that_was_cut_short_is_gone_on_with(root, tmp_path):
    class PressesCtrlC(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "epoch  1/2" in record.getMessage():
                os.kill(os.getpid(), signal.SIGINT)

    settings = EAGER | {"finetune.stages.head.epochs": 2}
    user, log = PressesCtrlC(), logging.getLogger("carcls")
    log.addHandler(user)
    try:
        cut = train(root, workdir=tmp_path / "run", settings=settings, **TINY)
    finally:
        log.removeHandler(user)
    assert len(cut.history) == 1
    gone_on = train(resume=str(tmp_path / "run"), quiet=True)
    assert gone_on == cut
    assert gone_on.history.epoch.tolist() == [1, 2]
    written = (tmp_path / "run" / "model.keras").stat().st_mtime_ns
    again = train(root, workdir=tmp_path / "run", settings=settings, resume="auto", **TINY)
    assert again == cut
    assert (tmp_path / "run" / "model.keras").stat().st_mtime_ns == written
