"""ImageDataAugmentor's interface: what its users call, and that Keras takes what comes of it."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import albumentations as A  # noqa: N812
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.backend import keras
from carcls.data import ImageDataAugmentor
from carcls.data.images import open_photo, resize
from carcls.errors import UserError
from tests.conftest import draw_competition, draw_photo

ROOT = Path(__file__).parent.parent
SIZE = (24, 24)
FLIP = A.Compose([A.HorizontalFlip(p=1.0)])
CHANGE = A.Compose([A.HorizontalFlip(p=0.5), A.Affine(rotate=(-30, 30), p=0.8), A.GaussNoise()])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A competition of 7 photos a class, and one more of class 12, deeper in its folder."""
    root = draw_competition(tmp_path_factory.mktemp("data") / "competition", per_class=7)
    draw_photo(root / "train" / "12" / "deeper" / "1.png", (9, 9, 9), 5)
    return root


@pytest.fixture(scope="module")
def train(root) -> Path:
    return root / "train"


def labelled(root: Path) -> pd.DataFrame:
    """The rows of train.csv, with names relative to `train/`."""
    table = pd.read_csv(root / "train.csv", dtype=str)
    return table.assign(file=table.Category + "/" + table.Id)


def flow(directory, **changes):
    arguments = {"target_size": SIZE, "batch_size": 4, "shuffle": False, **changes}
    augmentor = {
        name: arguments.pop(name)
        for name in ("augment", "rescale", "preprocess_input", "validation_split",
                     "augment_validation", "workers", "memory_limit_gb") if name in arguments
    }  # fmt: skip
    return ImageDataAugmentor(**augmentor).flow_from_directory(directory, **arguments)


def epoch_of(batches) -> tuple[np.ndarray, np.ndarray]:
    photos, labels = zip(*(batches[i] for i in range(len(batches))), strict=True)
    return np.concatenate(photos), np.concatenate(labels)


def told(call, **arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(**arguments)
    return str(caught.value)


def test_it_is_found_in_carcls_data_which_imports_no_keras():
    code = (
        "import sys, carcls.data, carcls.data.transforms, carcls.data.loader\n"
        "print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))\n"
        "try: carcls.data.Nothing\nexcept AttributeError as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "set()\nmodule 'carcls.data' has no attribute 'Nothing'\n"


@pytest.mark.parametrize("subset", ["training", "validation", None])
@pytest.mark.parametrize("split", [0.2, 0.29, 0.5])
def test_the_split_of_folders_is_that_of_keras(train, capsys, subset, split):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    ours = flow(train, validation_split=split, subset=subset, seed=1)
    theirs = ImageDataGenerator(validation_split=split).flow_from_directory(
        train, target_size=SIZE, batch_size=4, shuffle=False, subset=subset
    )
    assert ours.class_indices == theirs.class_indices == {"007": 0, "12": 1, "red, wide": 2}
    assert ours.filenames == theirs.filenames
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    assert (ours.n, ours.samples, len(ours)) == (theirs.n, theirs.samples, len(theirs))
    assert ours.image_shape == theirs.image_shape == (24, 24, 3)
    assert (ours.num_classes, ours.batch_size) == (theirs.num_classes, 4)
    np.testing.assert_array_equal(ours[0][1], theirs[0][1])


@pytest.mark.parametrize("subset", ["training", "validation", None])
def test_texts_among_the_photos_leave_the_split_as_that_of_keras(tmp_path, capsys, subset):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    root = draw_competition(tmp_path / "competition", per_class=7)
    for name in ("0_notes.txt", "1.csv", "2", "99999.txt", "deeper/0.txt"):
        (root / "train" / "12" / name).parent.mkdir(exist_ok=True)
        (root / "train" / "12" / name).write_text("no photo")
    ours = flow(root / "train", validation_split=0.3, subset=subset)
    theirs = ImageDataGenerator(validation_split=0.3).flow_from_directory(
        root / "train", target_size=SIZE, batch_size=4, shuffle=False, subset=subset
    )
    assert ours.filenames == theirs.filenames
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    left_out = {"training": 4, "validation": 1, None: 5}[subset]
    assert f"{left_out} of {ours.n + left_out} photos cannot be opened" in capsys.readouterr().out


def test_photos_of_other_names_are_split_on_their_own(train, tmp_path):
    (tmp_path / "a").mkdir()
    photo = next((train / "007").iterdir()).read_bytes()
    for name in ("0.webp", "1.png", "2.png", "3.JPG", "4", "5.tif", "6.avif"):
        (tmp_path / "a" / name).write_bytes(photo)
    validation, training = (
        flow(tmp_path, validation_split=0.5, subset=subset).filenames
        for subset in ("validation", "training")
    )
    assert validation == ["a/0.webp", "a/1.png", "a/2.png"]
    assert training == ["a/3.JPG", "a/4", "a/5.tif", "a/6.avif"]


@pytest.mark.parametrize("subset", ["training", "validation", None])
@pytest.mark.parametrize("classes", [None, ["red, wide", "007"]])
def test_the_split_of_a_dataframe_is_that_of_keras(root, capsys, subset, classes):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    table = labelled(root).sample(frac=1.0, random_state=3)
    arguments = {
        "directory": str(root / "train"), "x_col": "file", "y_col": "Category", "classes": classes,
        "class_mode": "sparse", "target_size": SIZE, "shuffle": False, "subset": subset,
    }  # fmt: skip
    ours = ImageDataAugmentor(validation_split=0.3).flow_from_dataframe(table, **arguments)
    theirs = ImageDataGenerator(validation_split=0.3).flow_from_dataframe(table, **arguments)
    assert ours.filenames == theirs.filenames
    assert ours.class_indices == theirs.class_indices
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours[0][1], theirs[0][1])
    left_out = "Left out 7 rows whose 'Category' is not one of classes=." in capsys.readouterr().out
    assert left_out == (classes is not None)


def test_photos_are_augmented_then_preprocessed_then_rescaled(train):
    seen = []

    def preprocess(photo: np.ndarray) -> np.ndarray:
        seen.append((photo.shape, photo.dtype, photo.min(), photo.max()))
        photo -= 100.0  # as Keras' own do, in place
        return photo[::-1]

    batches = flow(train, augment=FLIP, preprocess_input=preprocess, rescale=0.5)
    photos, _ = epoch_of(batches)
    assert photos.dtype == np.float32
    for photo, path in zip(photos, batches.filepaths, strict=True):
        pixels = resize(open_photo(path, min_side=24), 24).astype(np.float32)
        np.testing.assert_array_equal(photo, (pixels[:, ::-1] - 100.0)[::-1] * 0.5)
    assert {shape for shape, *_ in seen} == {(24, 24, 3)}
    assert {dtype for _, dtype, *_ in seen} == {np.dtype(np.float32)}
    assert min(low for *_, low, _ in seen) >= 0 and 150 < max(high for *_, high in seen) <= 255


@pytest.mark.parametrize("changes", [{"workers": 1}, {"workers": 5}, {"memory_limit_gb": 0}])
def test_batches_are_the_same_for_any_number_of_workers_in_any_order(train, changes):
    common = {"augment": CHANGE, "shuffle": True, "seed": 9}
    one, other = flow(train, workers=2, **common), flow(train, **common, **changes)
    for _ in range(2):
        expected = [one[i] for i in range(len(one))]
        for index in (3, 0, 4, 4, 1, 2, -1):
            np.testing.assert_array_equal(other[index][0], expected[index][0])
            np.testing.assert_array_equal(other[index][1], expected[index][1])
        one.on_epoch_end()
        other.on_epoch_end()


def test_the_seed_is_the_flows_or_the_augmentors_or_another_one_every_time(train):
    def first(seed_of_flow, seed):
        augmentor = ImageDataAugmentor(augment=CHANGE, seed=seed)
        batches = augmentor.flow_from_directory(train, SIZE, seed=seed_of_flow)
        return batches.seed, batches[0][0].tobytes()

    assert first(3, None) == first(3, 8) == first(None, 3)
    assert first(None, None)[0] != first(None, None)[0]
    assert first(None, 4)[1] != first(None, 3)[1]


def test_an_epoch_meets_every_photo_once_in_an_order_of_its_own(train):
    plain = np.sort(epoch_of(flow(train))[0].sum(axis=(1, 2, 3)))
    assert len(set(plain)) == len(plain)
    shuffled = flow(train, shuffle=True, seed=2)
    orders = []
    for _ in range(3):
        sums = epoch_of(shuffled)[0].sum(axis=(1, 2, 3))
        np.testing.assert_array_equal(np.sort(sums), plain)
        orders.append(tuple(sums))
        shuffled.on_epoch_end()
    assert len(set(orders)) == 3


def test_another_epoch_augments_anew(train):
    batches = flow(train, augment=CHANGE, seed=1)
    before = batches[0][0]
    batches.on_epoch_end()
    assert (batches.epoch, np.array_equal(batches[0][0], before)) == (1, False)


def test_next_goes_through_the_epochs_and_reset_back_to_the_first_batch(train):
    batches = flow(train, augment=CHANGE, shuffle=True, seed=1)
    expected = []
    for _ in range(2):
        expected += [batches[i][0] for i in range(len(batches))]
        batches.on_epoch_end()
    batches = flow(train, augment=CHANGE, shuffle=True, seed=1)
    np.testing.assert_array_equal(next(batches)[0], expected[0])
    np.testing.assert_array_equal(batches.next()[0], expected[1])
    batches.reset()
    taken = [photos for photos, _ in itertools.islice(batches, len(expected))]
    for photos, wanted in zip(taken, expected, strict=True):
        np.testing.assert_array_equal(photos, wanted)
    assert batches.epoch == 2 and iter(batches) is batches
    with pytest.raises(IndexError, match=r"^Expected a batch below 6. Received: 6$"):
        batches[6]


def test_labels_come_as_class_mode_says(train):
    categorical, sparse = flow(train), flow(train, class_mode="sparse")
    np.testing.assert_array_equal(epoch_of(categorical)[1], np.eye(3)[categorical.classes])
    np.testing.assert_array_equal(epoch_of(sparse)[1], sparse.classes)
    binary = flow(train, class_mode="binary", classes=["red, wide", "007"])
    assert binary.class_indices == {"red, wide": 0, "007": 1}
    assert epoch_of(binary)[1].tolist() == [0.0] * 7 + [1.0] * 7
    nothing = flow(train, class_mode=None)
    assert nothing[0].shape == (4, 24, 24, 3) and nothing.labels is None
    dtypes = {flow[0][1].dtype for flow in (categorical, sparse, binary)}
    assert dtypes == {np.dtype(np.float32)}


def test_validation_photos_are_not_augmented_unless_asked_for(train, capsys):
    said = 'Photos of subset="validation" are not augmented; augment_validation=True augments them'
    common = {"validation_split": 0.3, "subset": "validation", "seed": 1}
    plain = epoch_of(flow(train, **common))[0]
    assert said not in capsys.readouterr().out  # there is nothing to leave undone
    np.testing.assert_array_equal(epoch_of(flow(train, augment=FLIP, **common))[0], plain)
    assert capsys.readouterr().out.count(said) == 1
    augmented = flow(train, augment=FLIP, augment_validation=True, **common)
    np.testing.assert_array_equal(epoch_of(augmented)[0], plain[:, :, ::-1])
    assert said not in capsys.readouterr().out
    augmentor = ImageDataAugmentor(augment=FLIP, validation_split=0.3)
    for _ in range(2):
        augmentor.flow_from_directory(train, SIZE, subset="validation")
    assert capsys.readouterr().out.count(said) == 1


@pytest.fixture
def damaged(tmp_path) -> Path:
    """A competition with a photo and a test photo that cannot be opened."""
    root = draw_competition(tmp_path / "competition")
    (root / "train" / "12" / "0.png").write_bytes(b"")
    (root / "test_upload" / "897.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("memory_limit_gb", [4.0, 0.0])
def test_a_training_photo_that_cannot_be_opened_is_left_out_and_counted(
    damaged, capsys, memory_limit_gb
):
    batches = flow(damaged / "train", memory_limit_gb=memory_limit_gb)
    assert batches.n == 18 and "12/0.png" not in batches.filenames
    assert batches.unreadable == [("12/0.png", "an empty file")]
    photos, labels = epoch_of(batches)
    assert photos.max(axis=(1, 2, 3)).min() > 0
    assert labels.sum(axis=0).tolist() == [6, 6, 6]
    assert capsys.readouterr().out == (
        "1 of 19 photos cannot be opened; they are left out: "
        "12/0.png (an empty file)\n"
        "Found 18 images belonging to 3 classes.\n"
    )


def test_a_photo_that_is_cut_off_is_used_as_far_as_it_goes_and_told(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "cut.jpg")
    data = (tmp_path / "a" / "cut.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(data[: len(data) * 8 // 10])
    batches = flow(tmp_path)
    assert (batches.n, batches.unreadable) == (1, [])
    assert capsys.readouterr().out.startswith("1 of 1 photos open with a fault: a/cut.jpg (")


def to_predict(root: Path, **changes):
    table = pd.read_csv(root / "sample-submission.csv", dtype=str)
    arguments = {
        "directory": root / "test_upload", "x_col": "Id", "y_col": None, "class_mode": None,
        "target_size": SIZE, "batch_size": 2, "shuffle": False, **changes,
    }  # fmt: skip
    return ImageDataAugmentor().flow_from_dataframe(table, **arguments)


def test_a_photo_to_predict_that_cannot_be_opened_keeps_its_row(damaged, capsys):
    batches = to_predict(damaged)
    assert batches.filenames == ["900.png", "897.png", "894.png", "891.png", "888.png"]
    assert batches.class_indices == {} and batches.unreadable == [("897.png", "an empty file")]
    blank = np.concatenate([batches[i] for i in range(3)]).max(axis=(1, 2, 3)) == 0
    assert blank.tolist() == [False, True, False, False, False]
    assert capsys.readouterr().out == (
        "1 of 5 photos cannot be opened; their rows are kept, each with a blank photo: "
        "897.png (an empty file)\nFound 5 images.\n"
    )


def test_a_row_to_predict_without_a_file_is_an_error_or_a_blank_photo(damaged, capsys):
    folder = damaged / "test_upload"
    (folder / "891.png").unlink()
    assert told(to_predict, root=damaged) == (
        "Expected a file for every row. Received 1 of 5 rows of x_col='Id' without one: 891.png; "
        f"looked for {folder / '891.png'}. Check directory=. "
        "validate_filenames=False keeps such rows, with a blank photo."
    )
    batches = to_predict(damaged, validate_filenames=False)
    assert batches.n == 5
    assert batches.unreadable == [("897.png", "an empty file"), ("891.png", "no such file")]


def test_a_labelled_row_without_a_file_is_left_out_and_counted(root, capsys):
    table = labelled(root)
    table.loc[[0, 5], "file"] = ["12/no.png", "12/neither.png"]
    columns = {"directory": root / "train", "x_col": "file", "y_col": "Category"}
    batches = ImageDataAugmentor().flow_from_dataframe(table, **columns, target_size=SIZE)
    assert batches.n == 19 and "12/no.png" not in batches.filenames
    said = "Left out 2 of 21 rows of x_col='file', whose files are missing: 12/no.png, 12/neither"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("classes", [None, ["red, wide", "12", "007"]])
def test_a_class_whose_files_are_all_missing_is_none_as_in_keras(root, capsys, classes):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    table = labelled(root)
    table.loc[table.Category == "12", "file"] = "no.png"
    arguments = {
        "directory": str(root / "train"), "x_col": "file", "y_col": "Category", "classes": classes,
        "target_size": SIZE, "shuffle": False,
    }  # fmt: skip
    ours = ImageDataAugmentor().flow_from_dataframe(table, **arguments)
    said = "Left out these classes, which have no file: 12\n" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="7 invalid image filename"):
        theirs = ImageDataGenerator().flow_from_dataframe(table, **arguments)
    assert ours.class_indices == theirs.class_indices
    assert said == (classes is None) == (ours.class_indices == {"007": 0, "red, wide": 1})
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    kept = ImageDataAugmentor().flow_from_dataframe(
        table, **arguments | {"classes": None, "validate_filenames": False}
    )
    assert kept.class_indices == {"007": 0, "12": 1, "red, wide": 2}


def test_what_a_subset_lacks_and_what_shuffling_means_is_said(train, root, capsys):
    few = flow(train, validation_split=0.13, subset="validation")  # of 7 photos a class none
    assert few.n == 1
    out = capsys.readouterr().out
    assert "1 images belonging to 3 classes (validation). None is of: 007, red, wide." in out
    to_predict(root, shuffle=True)
    assert "shuffle=False keeps it." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rotation_range": 5}, "Expected arguments that ImageDataAugmentor takes. Received: "
            "rotation_range=5, which it does not know. Photos are changed by augment=, a pipeline "
            "of albumentations."),
        ({"samplewise_center": True}, "Expected ImageDataAugmentor without samplewise_center=. "
            "Received: samplewise_center=True. Normalise with preprocess_input=, or inside the "
            "network."),
        ({"data_format": "channels_first"}, "Expected ImageDataAugmentor without data_format=. "
            "Received: data_format='channels_first'. Batches are (photos, height, width, 3)."),
        ({"augment": "flip"}, "Expected an augmentation made of albumentations, such as "
            "albumentations.Compose([albumentations.HorizontalFlip()]). Received: 'flip'"),
        ({"validation_split": 1.0}, "Expected validation_split to be a share in [0, 1). "
            "Received: validation_split=1.0"),
        ({"seed": -1}, "Expected seed to be a whole number of at least 0, or None. Received: "
            "seed=-1"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_augmentor_is_told_by_name(arguments, text):
    assert told(ImageDataAugmentor, **arguments) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"save_to_dir": "x"}, "Expected flow_from_directory without save_to_dir=. Received: "
            "save_to_dir='x'. No photo is written to disk; show_data() shows them."),
        ({"color_mode": "grayscale"}, "Expected flow_from_directory without color_mode=. "
            "Received: color_mode='grayscale'. Every photo is opened as RGB."),
        ({"interpolation": "nearest"}, "Expected flow_from_directory without interpolation=. "
            "Received: interpolation='nearest'. Photos shrink by area and grow by cubic "
            "interpolation."),
        ({"follow_links": True}, "Expected flow_from_directory without follow_links=. Received: "
            "follow_links=True. Links to folders are not followed."),
        ({"class_mode": "input"}, "Expected class_mode to be categorical, sparse, binary or None. "
            "Received: class_mode='input'. This project's networks tell classes apart."),
        ({"class_mode": "binary"}, 'Expected two classes for class_mode="binary". Received: 3 '
            "(007, 12, red, wide). Use categorical or sparse."),
        ({"target_size": (24, 32)}, "Expected target_size to be a square of pixels, such as (224, "
            "224): photos are squares here. Received: target_size=(24, 32)"),
        ({"batch_size": 0}, "Expected batch_size to be a whole number above 0. Received: "
            "batch_size=0"),
        ({"subset": "test"}, "Expected subset to be training, validation or None. Received: "
            "subset='test'"),
        ({"subset": "training"}, "Expected a validation_split above 0 for subset='training'. "
            "Received: 0. Set it where the augmentor is made: "
            "ImageDataAugmentor(validation_split=0.2, …)"),
        ({"augment": A.Normalize()}, "Expected augment to keep photos as they are, (24, 24, 3) of "
            "uint8. Received: (24, 24, 3) of float32. Resize with target_size=. Normalise with "
            "preprocess_input=, or inside the network."),
        ({"augment": A.CenterCrop(8, 8)}, "Expected augment to keep photos as they are, (24, 24, "
            "3) of uint8. Received: (8, 8, 3) of uint8. Resize with target_size=. Normalise with "
            "preprocess_input=, or inside the network."),
    ],
)  # fmt: skip
def test_a_mistake_in_a_flow_is_told_by_name(train, arguments, text):
    assert told(flow, directory=train, **arguments) == text


def test_the_originals_own_defaults_pass(train):
    defaults = {
        "color_mode": "rgb", "save_to_dir": None, "save_prefix": "", "save_format": "png",
        "follow_links": False,
    }  # fmt: skip
    assert flow(train, **defaults).n == flow(train).n


def test_a_folder_that_is_none_or_holds_no_classes_is_told(train, tmp_path):
    advice = "Photos that lie side by side, without labels: flow_from_dataframe(class_mode=None)."
    assert told(flow, directory=tmp_path / "no") == (
        "Expected directory to be a folder that holds a folder a class. "
        f"Received: {tmp_path / 'no'}, which does not exist."
    )
    assert told(flow, directory=train / "007") == (
        f"Expected class folders in {train / '007'}. Received: no folder. {advice}"
    )
    assert told(flow, directory=train, classes=["007", "13"]) == (
        f"Expected the class folders 13 in {train}. Received: 007, 12, red, wide. {advice}"
    )
    (tmp_path / "a").mkdir()
    assert told(flow, directory=tmp_path) == f"Expected photos in {tmp_path}. Received: none."
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    assert told(flow, directory=tmp_path) == (
        "Expected photos that can be opened. Received 1 that cannot: a/x.jpg (an empty file)"
    )


def test_columns_that_are_not_there_or_hold_no_strings_are_told(root):
    def call(**changes):
        table = labelled(root).assign(number=7)
        arguments = {"directory": root / "train", "x_col": "file", "y_col": "Category", **changes}
        return ImageDataAugmentor().flow_from_dataframe(table, **arguments)

    assert told(call, y_col="class") == (
        "Expected y_col to be a column of the dataframe, which has Id, Category, file, number. "
        "Received: y_col='class'"
    )
    assert told(call, y_col="number") == (
        "Expected strings in the column y_col='number'. Received: 7 in row 0, 7 in row 1, 7 in "
        'row 2 and 18 more. Numbers become strings with dataframe.astype({"number": str}).'
    )
    assert told(call, weight_col="number").endswith("Weigh classes with class_weight= of fit.")


def test_a_preprocess_input_that_changes_the_shape_is_told(train):
    batches = flow(train, preprocess_input=lambda photo: photo.mean(axis=-1))
    assert told(lambda: batches[0]) == (
        "Expected preprocess_input to give a photo of (24, 24, 3). Received: (24, 24)"
    )


def test_show_data_draws_augmented_photos_under_their_classes(train):
    batches = flow(train, augment=FLIP, rescale=1 / 255)
    figure = batches.show_data(rows=2, cols=3, figsize=(4, 3))
    assert [axis.get_title() for axis in figure.axes] == ["007"] * 6
    first = resize(open_photo(batches.filepaths[0], min_side=24), 24)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), first[:, ::-1])
    assert figure.get_size_inches().tolist() == [4, 3]
    plt.close(figure)


def mean_model() -> keras.Model:
    """Its loss is the mean value of the photos it was shown: each one counts."""
    third = keras.initializers.Constant(1 / 3)
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, use_bias=False, kernel_initializer=third),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y_true, y_pred: y_pred)
    return model


@pytest.mark.parametrize("steps", [True, False], ids=["steps given", "steps left out"])
def test_fit_and_evaluate_meet_every_photo_once_in_every_epoch(train, steps):
    augmentor = ImageDataAugmentor(validation_split=0.3, seed=4)
    common = {"target_size": SIZE, "batch_size": 3, "class_mode": "sparse"}
    training = augmentor.flow_from_directory(train, subset="training", **common)
    validation = augmentor.flow_from_directory(train, subset="validation", **common)
    expected = [epoch_of(batches)[0].mean() for batches in (training, validation)]
    model = mean_model()
    history = model.fit(
        training,
        validation_data=validation,
        epochs=4,
        verbose=0,
        steps_per_epoch=len(training) if steps else None,
        validation_steps=len(validation) if steps else None,
    ).history
    np.testing.assert_allclose(history["loss"], [expected[0]] * 4, rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"], [expected[1]] * 4, rtol=1e-5)
    for _ in range(2):
        assert model.evaluate(validation, verbose=0) == pytest.approx(expected[1], rel=1e-5)
    assert training.epoch >= 4


def test_predict_gives_a_row_a_photo_in_the_order_of_the_dataframe(root):
    batches = to_predict(root)
    expected = np.concatenate([batches[i] for i in range(len(batches))]).mean(axis=(1, 2, 3))
    for steps in (None, len(batches)):
        predicted = mean_model().predict(batches, steps=steps, verbose=0)
        np.testing.assert_allclose(predicted[:, 0], expected, rtol=1e-5)
    assert batches.epoch == 2  # so that an augmented pass after the other gives other views


def test_the_notebooks_section_4_runs_with_one_changed_import(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "notebook_section4.md").read_text()
    cells = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    root = draw_competition(tmp_path / "data", per_class=15, test=7)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)

    training, validation = names["train_generator"], names["test_generator"]
    assert training.class_indices == {"007": 0, "12": 1, "red, wide": 2}
    assert (training.n, len(training), validation.n, len(validation)) == (36, 3, 9, 1)
    assert not set(training.filenames) & set(validation.filenames)
    assert names["x"].shape == (16, 150, 150, 3) and names["y"].shape == (16, 3)
    assert names["x"].min() >= 0 and 0.5 < names["x"].max() <= 1
    assert len(names["figure"].axes) == 8
    plt.close(names["figure"])

    photos, labels = epoch_of(validation)
    probs = names["model"].predict(photos, verbose=0)
    accuracy = (probs.argmax(axis=1) == labels.argmax(axis=1)).mean()
    assert names["scores"][1] == pytest.approx(accuracy)
    assert names["history"].history["val_accuracy"][-1] == pytest.approx(accuracy)
    assert len(names["history"].history["loss"]) == 3

    submission = pd.read_csv("submission.csv", dtype=str)
    sample = pd.read_csv(root / "sample-submission.csv", dtype=str)
    assert submission.Id.tolist() == sample.Id.tolist()
    each = [resize(open_photo(root / "test_upload" / name, 150), 150) for name in sample.Id]
    probs = names["model"].predict(np.stack(each).astype(np.float32) / 255, verbose=0)
    class_names = list(training.class_indices)
    assert submission.Category.tolist() == [class_names[i] for i in probs.argmax(axis=1)]


def test_the_document_promises_one_changed_import():
    text = (ROOT / "docs" / "notebook_section4.md").read_text()
    (change,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    assert [line[0] for line in change.splitlines()] == ["-", "+"]
    assert f"```python\n{'import albumentations'}" in text
    assert change.splitlines()[1][1:] in text.split("```diff")[1].split("```python")[1]
