"""A user's mistakes, each as the process that the user runs: one message, status 2, no rest."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import FEW_LAYERS, draw_competition, draw_photo, write_csv
from tests.processes import run
from tests.test_cli import assert_told

PHOTOS = {"007": ["a1.png", "a2.png"], "12": ["b1.png", "b2.png"]}
ROWS = [(photo, name) for name, photos in PHOTOS.items() for photo in photos]
QUICK = (
    *FEW_LAYERS, "image_size=32", "batch_size=2", "finetune=frozen", "runtime.eager=true",
    "runtime.preflight=false",
)  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return two_classes(tmp_path / "data")


def two_classes(root: Path) -> Path:
    """Two classes of two photos, as a competition's folders."""
    for number, (photo, name) in enumerate(ROWS):
        draw_photo(root / "train" / name / photo, (200, 40, 40), number)
    write_csv(root / "train.csv", ROWS)
    return root


def told(script: str, *arguments: str, cwd, texts: list[str], **environment: str) -> None:
    """Asserts message and status, and that nothing but an empty outputs/ is left of the run."""
    before = {path for path in cwd.rglob("*") if path.is_file()}
    assert_told(run(script, *arguments, cwd=cwd, **environment), *texts)
    assert {path for path in cwd.rglob("*") if path.is_file()} == before


def test_a_csv_without_the_columns(data, tmp_path):
    write_csv(data / "train.csv", ROWS, header=("file", "label"))
    told("train.py", "data.root=data", cwd=tmp_path, texts=[
        "Expected the columns Id, Category in data/train.csv", "Received: file, label",
        "data.id_column, data.label_column",
    ])  # fmt: skip
    result = run(
        "train.py", "data.root=data", "data.id_column=file", "data.label_column=label",
        "image_size=8", cwd=tmp_path,
    )  # fmt: skip
    assert "Expected image_size to be at least" in result.stderr, "the next mistake is told then"


def test_labels_with_no_photo(data, tmp_path):
    write_csv(data / "train.csv", [*ROWS, ("x1.png", "12"), ("x2.png", "007")])
    told("train.py", "data.root=data", cwd=tmp_path, texts=[
        "Expected a photo for each of the 6 rows of data/train.csv", "Received none for 2: x1.png,",
        "data.on_missing=skip",
    ])  # fmt: skip


def test_photos_with_no_label(data, tmp_path):
    write_csv(data / "train.csv", ROWS[:2] + ROWS[3:])
    told("train.py", "data.root=data", cwd=tmp_path, texts=[
        "Expected a row in data/train.csv for every photo below data/train",
        "Received none for 1: 12/b1.png", "data.on_missing=skip",
    ])  # fmt: skip


def test_a_csv_and_folders_that_disagree(data, tmp_path):
    write_csv(data / "train.csv", [*ROWS[:3], ("b2.png", "007")])
    told("train.py", "data.root=data", cwd=tmp_path, texts=[
        "Expected data/train.csv and the folders below data/train to agree",
        "Received photos in the folder of another class for 1: ", "b2.png", "data.on_missing=skip",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that left out what did not match: (its folder `run` is in, how its process ended)."""
    folder = tmp_path_factory.mktemp("trained")
    data = two_classes(folder / "data")
    for number in range(8):
        draw_photo(data / "train" / "12" / f"c{number}.png", (1, 2, 3), number)
    rows = [*ROWS, ("x1.png", "12"), *[(f"c{number}.png", "12") for number in range(6)]]
    write_csv(data / "train.csv", [*rows, ("c6.png", "007")])  # c6 lies under 12, c7 has no row
    result = run(
        "train.py", "data.root=data", "data.on_missing=skip", *QUICK,
        "finetune.stages.head.epochs=1", "hydra.run.dir=run", cwd=folder,
    )  # fmt: skip
    return folder, result


def test_what_does_not_match_is_left_out_when_that_is_asked_for(trained):
    folder, result = trained
    assert result.returncode == 0, result.stderr
    assert "Left out 3 rows or photos, 10 remain" in result.stdout
    skipped = json.loads((folder / "run" / "run.json").read_text())["skipped"]
    assert sorted(entry["id"].split("/")[-1] for entry in skipped) == ["c6.png", "c7.png", "x1.png"]


def test_weights_that_cannot_be_downloaded(data, tmp_path, tmp_path_factory):
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    offline = {"KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    offline |= {"http_proxy": nowhere, "https_proxy": nowhere}
    told("train.py", "data.root=data", "backbone=xception", cwd=tmp_path, texts=[
        "Expected Keras to fetch the ImageNet weights of xception", "three ways out",
        "backbone.weights=PATH", "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "efficientnetlite0", "backbone.weights=none",
    ], **offline)  # fmt: skip


def test_weights_that_do_not_fit(data, tmp_path):
    with h5py.File(tmp_path / "other.weights.h5", "w") as file:  # as Keras writes a Dense layer
        for number, shape in enumerate([(4, 2), (2,)]):
            file[f"layers/dense/vars/{number}"] = np.zeros(shape, np.float32)
    told(  # a file that is not there is told in the same way, see test_backbones
        "train.py", "data.root=data", "backbone=efficientnetlite0", "image_size=32",
        "backbone.weights=other.weights.h5", cwd=tmp_path,
        texts=["other.weights.h5 to hold the weights of efficientnetlite0", "does not fit"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (["image_size=16"], ["Expected image_size to be at least 32 px for efficientnetb3",
                             "Received: image_size=16"]),
        (["backbone=xception", "image_size=70"], ["at least 71 px for xception"]),
        (["finetune.monitor=val_f1"], ["Expected monitor to be one of val_accuracy, val_loss. "
                                       "Received: monitor=val_f1"]),
        (["schedule=plateau", "schedule.monitor=f1"],
         ["Expected monitor to be one of val_loss, val_accuracy, loss"]),
        (["schedule=cosine", "finetune.stages.all.callbacks=[plateau]"],
         ["ReduceLROnPlateau and a schedule cannot both move the learning rate"]),
        (["backbone=keras"], ["backbone.name=CLASS, such as backbone.name=DenseNet121"]),
    ],
)  # fmt: skip
def test_values_that_cannot_be(overrides, texts, data, tmp_path):
    told("train.py", "data.root=data", *overrides, cwd=tmp_path, texts=texts)


def test_a_gpu_that_is_not_there(data, tmp_path):
    result = run(
        "train.py", "data.root=data", *QUICK, "runtime.device=gpu", cwd=tmp_path,
        CUDA_VISIBLE_DEVICES="-1",
    )  # fmt: skip
    assert_told(result, "Expected a GPU (runtime.device=gpu). Received: none that tensorflow can",
                "runtime.device=auto")  # fmt: skip


def test_an_output_that_cannot_be_written(data, tmp_path):
    (tmp_path / "file").touch()
    told("train.py", "data.root=data", "hydra.run.dir=file/run", cwd=tmp_path, texts=[
        "Expected to write to file/run. Received: Not a directory.",
    ])  # fmt: skip


def test_a_checkpoint_whose_classes_are_not_the_datas(trained):
    folder, _ = trained
    other = draw_competition(folder / "other", per_class=1, test=2)
    write_csv(other / "train.csv", [("1.png", "bus"), ("2.png", "red, wide")])
    result = run("predict.py", "ckpt=run", f"data.root={other.name}", cwd=folder)
    assert_told(
        result, "Expected photos of the classes that the run knows, 007, 12.",
        "other/train.csv, with 2 that it does not know: bus, red, wide",
    )  # fmt: skip
    assert not (folder / "run" / "prediction").exists()
    result = run("predict.py", "ckpt=run", "data=folder", "data.root=data/train", cwd=folder)
    assert_told(result, "Expected photos to predict")


def test_a_folder_is_found_whatever_it_is_called(tmp_path):
    name = "Машины (копия)/v=2/a,b [1]/it's #1 & only/${x}/~x"
    (tmp_path / name).mkdir(parents=True)
    result = run("train.py", f"data.root={tmp_path / name}", "hydra.run.dir=out", cwd=tmp_path)
    assert_told(result, f"Received: {tmp_path / name}, which is empty.")


def test_a_tilde_is_the_users_home(tmp_path):
    (tmp_path / "cars").mkdir()
    result = run("train.py", "data.root=~/cars", cwd=tmp_path, HOME=str(tmp_path))
    assert_told(result, f"Received: {tmp_path}/cars, which is empty.")


def test_a_tilde_is_the_users_home_for_what_hydra_writes_too(tmp_path):
    result = run(
        "train.py", "--cfg", "hydra", "--package", "hydra.run", "hydra.run.dir=~/runs/one",
        cwd=tmp_path, HOME=str(tmp_path),
    )  # fmt: skip
    assert f"dir: {tmp_path}/runs/one" in result.stdout, result.stderr


def test_a_photo_is_found_whatever_it_is_called(tmp_path):
    names = ["IMG [1].jpg", "Фото (копия)=2.jpg"]
    for name in names:
        draw_photo(tmp_path / name, (200, 40, 40), 1, size=(64, 64))
    result = run(
        "predict.py", "ckpt=efficientnetlite0", f"images=[{','.join(names)}]", "top=1",
        "hydra.run.dir=out", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name in names:
        assert name in result.stdout
    result = run("predict.py", "ckpt=efficientnetlite0", "images=IMG [2].jpg", cwd=tmp_path)
    assert_told(result, "Received: IMG [2].jpg, which matches no file.")
