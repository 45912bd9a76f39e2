"""CIFAR's binary files: read as the photos they hold, or refused by name."""

import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from carcls.config import CifarData, to_config, to_explore_config
from carcls.data import cifar
from carcls.data.sources import read_test_photos, read_training_photos
from carcls.errors import UserError
from carcls.exploration.photos import find_photos
from carcls.prediction.classes import labels_in
from tests.test_config import composed, told
from tests.test_mistakes import told as told_by

FINE, COARSE = ["whale", "apple", "tiger"], ["animal", "fruit"]
NAMES_10 = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
PAIRS = [(0, 0), (1, 1), (2, 0), (0, 0), (1, 1), (2, 0)]  # fine and coarse label of each photo


def pixels_of(number: int, seed: int = 1) -> np.ndarray:
    """`(number, 3, 32, 32)` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (number, 3, 32, 32), np.uint8)


def records_100(pairs: list[tuple[int, int]], seed: int = 1) -> bytes:
    pixels = pixels_of(len(pairs), seed)
    return b"".join(
        bytes([coarse, fine]) + photo.tobytes()
        for (fine, coarse), photo in zip(pairs, pixels, strict=True)
    )


def records_10(labels: list[int], seed: int = 1) -> bytes:
    pixels = pixels_of(len(labels), seed)
    return b"".join(bytes([i]) + photo.tobytes() for i, photo in zip(labels, pixels, strict=True))


def files_100() -> dict[str, bytes]:
    return {
        "train.bin": records_100(PAIRS),
        "test.bin": records_100([(1, 1), (2, 0)], seed=2),
        "fine_label_names.txt": "\n".join([*FINE, ""]).encode(),
        "coarse_label_names.txt": "\n".join([*COARSE, ""]).encode(),
    }


def files_10() -> dict[str, bytes]:
    return {
        "data_batch_1.bin": records_10([3, 0]),
        "data_batch_2.bin": records_10([9, 3, 0], seed=3),
        "test_batch.bin": records_10([9, 0], seed=2),
        "batches.meta.txt": "\n".join([*NAMES_10, "", ""]).encode(),
        "readme.html": b"<html>",
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def config(root: Path, **changes) -> CifarData:
    cache = root.parent / "cache"
    return CifarData(**{"name": "cifar", "root": str(root), "cache_dir": str(cache)} | changes)


@pytest.fixture
def root(tmp_path) -> Path:
    return write(tmp_path / "cifar-100-binary", files_100())


def refusal(root: Path, read=read_training_photos, **changes) -> str:
    with pytest.raises(UserError) as error:
        read(config(root, **changes))
    assert list((root.parent / "cache").glob("unpacked/*-train-*")) == []
    return str(error.value)


def shown(path: str) -> np.ndarray:
    """`(3, 32, 32)`, as the records have it."""
    return cv2.imread(path, cv2.IMREAD_UNCHANGED)[..., ::-1].transpose(2, 0, 1)


def test_cifar_100_gives_its_photos_bit_for_bit_with_their_fine_classes(root):
    photos = read_training_photos(config(root))
    assert photos.class_names == ["apple", "tiger", "whale"]
    assert photos.table.id.tolist() == [f"train/0000{i}.png" for i in range(6)]
    assert [photos.class_names[i] for i in photos.table.label] == [FINE[fine] for fine, _ in PAIRS]
    for path, pixels in zip(photos.table.path, pixels_of(6), strict=True):
        np.testing.assert_array_equal(shown(path), pixels)


def test_coarse_bytes_are_the_hierarchy(root):
    expected = {"apple": "fruit", "tiger": "animal", "whale": "animal"}
    assert read_training_photos(config(root)).hierarchy == expected


def test_the_test_photos_come_with_their_classes(root):
    photos = read_test_photos(config(root))
    assert photos.truth == {"test/00000.png": "apple", "test/00001.png": "tiger"}
    np.testing.assert_array_equal(shown(photos.paths[1]), pixels_of(2, seed=2)[1])


def test_part_test_measures_with_the_test_photos(root):
    photos = read_training_photos(config(root, part="test"))
    assert photos.table.id.tolist() == ["test/00000.png", "test/00001.png"]
    assert photos.class_names == ["apple", "tiger"]
    assert photos.hierarchy == {"apple": "fruit", "tiger": "animal"}


def test_cifar_10_is_its_batches_in_order(tmp_path):
    root = write(tmp_path / "cifar-10-batches-bin", files_10())
    photos = read_training_photos(config(root))
    assert photos.table.id.tolist() == [f"train/0000{i}.png" for i in range(5)]
    names = [photos.class_names[i] for i in photos.table.label]
    assert names == ["cat", "airplane", "truck", "cat", "airplane"]
    np.testing.assert_array_equal(shown(photos.table.path[3]), pixels_of(3, seed=3)[1])
    assert photos.hierarchy is None
    assert list(read_test_photos(config(root)).truth.values()) == ["truck", "airplane"]


def test_without_text_files_the_names_are_the_data_sets_own(tmp_path):
    bins = {"train.bin": records_100([(0, 4), (99, 13), (39, 5)])}
    photos = read_training_photos(config(write(tmp_path / "100", bins)))
    assert photos.hierarchy == {
        "apple": "fruit_and_vegetables", "keyboard": "household_electrical_devices",
        "worm": "non-insect_invertebrates",
    }  # fmt: skip
    photos = read_training_photos(
        config(write(tmp_path / "10", {"data_batch_1.bin": records_10([0, 9])}))
    )
    assert photos.class_names == ["airplane", "truck"]


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "folder with the archive", "wrapped twice"])
def test_uploads_are_found_however_they_are_wrapped(kind, tmp_path):
    name, place = "cifar-100-binary", tmp_path / "upload"
    place.mkdir()
    archive = place / f"{name}.{'zip' if kind == 'zip' else 'tar.gz'}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for member, content in files_100().items():
                file.writestr(f"{name}/{member}", content)
    elif kind != "wrapped twice":
        with tarfile.open(archive, "w:gz") as file:
            for member, content in files_100().items():
                info = tarfile.TarInfo(f"{name}/{member}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    if kind == "folder with the archive":  # as after tar -x
        write(place / name, files_100())
    elif kind == "wrapped twice":
        write(place / "archive" / name, files_100())
    where = archive if kind == "zip" else place
    photos = read_training_photos(config(where, cache_dir=str(tmp_path / "cache")))
    assert (len(photos.table), photos.class_names) == (6, ["apple", "tiger", "whale"])


@pytest.mark.parametrize(
    ("file", "change", "received"),
    [
        ("train.bin", -1, "18443 bytes in {}, 5 photos and 3073 bytes more. It is cut off or"),
        ("train.bin", 1, "18445 bytes in {}, 6 photos and 1 bytes more. It is cut off or damaged:"),
        ("train.bin", -18444, "0 bytes in {}. It is cut off or damaged: download it again."),
        ("data_batch_2.bin", -5, "9214 bytes in {}, 2 photos and 3068 bytes more. It is cut off"),
        ("data_batch_1.bin", 2, "6148 bytes in {}, 2 photos and 2 bytes more. It may be one of "
         "CIFAR-100, of 3074 bytes a photo: these are called train.bin and test.bin."),
    ],
)  # fmt: skip
def test_a_file_that_is_cut_off_or_too_long_is_refused_by_name(file, change, received, tmp_path):
    files = files_100() if file == "train.bin" else files_10()
    whole = files[file]
    files[file] = whole[:change] if change < 0 else whole + bytes(change)
    root = write(tmp_path / "data", files)
    expected = (
        "Expected a multiple of 3074 bytes, 2 of its labels and 3072 of its pixels a photo. "
        if file == "train.bin"
        else "Expected a multiple of 3073 bytes, 1 of its label and 3072 of its pixels a photo. "
    )
    assert f"{expected}Received: {received.format(root / file)}" in refusal(root)


def test_a_test_file_that_is_cut_off_is_refused_by_name(root):
    (root / "test.bin").write_bytes(bytes(3075))
    message = refusal(root, read_test_photos)
    assert f"Received: 3075 bytes in {root / 'test.bin'}, 1 photos and 1 bytes more" in message


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([(0, 0), (3, 0), (9, 0)], "Expected fine labels from 0 to 2, one for each of the 3 names "
         "in fine_label_names.txt. Received: 3 of photo 1, counted from 0, in {}, and of 1 photos "
         "more. The file is damaged, or fine_label_names.txt is not its own."),
        ([(0, 0), (1, 2)], "Expected coarse labels from 0 to 1, one for each of the 2 names in "
         "coarse_label_names.txt. Received: 2 of photo 1, counted from 0, in {}. The"),
        ([(0, 0), (1, 1), (0, 1)], "Expected every fine class of {} in one coarse class. Received: "
         "whale, which is in animal in photo 0 and in fruit in photo 2, counted from 0."),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused_by_name(pairs, text, root):
    (root / "train.bin").write_bytes(records_100(pairs))
    assert text.format(root / "train.bin") in refusal(root)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (b"", "Received: an empty file."),
        (b"whale\n\napple\n", "Received: line 2 is empty."),
        (b"whale\napple\nwhale\n", "Received twice: whale."),
        (b"wh\xe5le\napple\ntiger\n", "Received a file that is not in UTF-8"),
    ],
)
def test_names_that_cannot_be_are_refused(names, text, root):
    path = root / "fine_label_names.txt"
    path.write_bytes(names)
    message = refusal(root)
    assert f"Expected {path} to name a class in every line, in the order of the labels" in message
    assert text in message


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"data_batch_1": b"", "batches.meta": b""}, "That is the Python version: download the bi"),
        ({"a.jpg": b""}, "with a.jpg. If these are folders of photos, use data=folder."),
        ({"test.bin": bytes(3074)}, "Expected train.bin in"),
        ({"data_batch_1.bin": bytes(3073), "data_batch_3.bin": bytes(3073)},
         "Received: data_batch_1.bin, data_batch_3.bin, without data_batch_2.bin."),
        (files_100() | files_10(), "Expected the binary files of CIFAR-10 or of CIFAR-100 in data."
         "root. Received both: "),
    ],
)  # fmt: skip
def test_a_folder_without_what_is_needed_is_refused(files, text, tmp_path):
    assert text in refusal(write(tmp_path / "data", files))


def test_of_two_data_sets_in_one_folder_neither_is_guessed(tmp_path):
    write(tmp_path / "data" / "cifar-100-binary", files_100())
    write(tmp_path / "data" / "cifar-10-batches-bin", files_10())
    message = refusal(tmp_path / "data")
    assert "with cifar-10-batches-bin, cifar-100-binary. Choose one with data.root=DIR." in message


def test_photos_are_unpacked_once_and_anew_when_the_file_changes(root):
    first = read_training_photos(config(root))
    path = Path(first.table.path[0])
    before = path.stat().st_mtime_ns
    assert read_training_photos(config(root)).table.path.tolist() == first.table.path.tolist()
    assert path.stat().st_mtime_ns == before
    (root / "train.bin").write_bytes(records_100(PAIRS, seed=9))
    again = read_training_photos(config(root))
    np.testing.assert_array_equal(shown(again.table.path[0]), pixels_of(6, seed=9)[0])
    folders = list((root.parent / "cache" / "unpacked").iterdir())
    assert {folder.name[:23] for folder in folders} == {"cifar-100-binary-train-"}
    assert len(folders) == 2


def test_an_interrupted_unpacking_leaves_nothing(root, monkeypatch):
    def interrupted(pixels, folder, first):
        (folder / "00000.png").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_training_photos(config(root))
    assert list((root.parent / "cache" / "unpacked").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(root):
    (root.parent / "cache").write_bytes(b"a file")
    message = refusal(root)
    assert f"Unpacking {root} into {root.parent / 'cache' / 'unpacked'} failed: " in message
    assert "Choose another place with data.cache_dir=DIR." in message


def test_photos_are_excluded_and_chosen_to_validate_by_their_ids(root):
    (root / "out.txt").write_text("train/00001.png\n")
    (root / "val.txt").write_text("train/00003.png\n")
    photos = read_training_photos(
        config(root, exclude=str(root / "out.txt"), val_ids=str(root / "val.txt"))
    )
    assert photos.table.id[photos.table.is_val].tolist() == ["train/00003.png"]
    assert photos.skipped == [("train/00001.png", f"excluded by {root / 'out.txt'}")]
    assert len(photos.table) == 5


def test_explore_looks_at_both_parts(root):
    counts = find_photos(config(root)).counts()
    assert {part: row.tolist() for part, row in counts.items()} == {
        "train": [2, 2, 2], "val": [0, 0, 0], "test": [1, 1, 0],
    }  # fmt: skip


def test_the_classes_of_photos_to_predict_are_known(root):
    assert labels_in(config(root)) == (["apple", "tiger"], str(root))


def test_the_part_is_train_unless_one_measures():
    assert to_config(composed("data=cifar")).data == CifarData(name="cifar", root="data")
    expected = "Expected data.part=train with {}. Received: data.part=test, which is for evaluate."
    assert expected.format("train.py") in told("data=cifar", "data.part=test")
    with pytest.raises(UserError, match=r"Expected data.part=train with explore\.py\."):
        to_explore_config(composed("data=cifar", "data.part=test", name="explore"))
    assert "Expected part to be one of train, test. Received: part=val" in told(
        "data=cifar", "data.part=val"
    )


def test_a_file_that_is_cut_off_ends_the_command_with_status_2(root):
    (root / "train.bin").write_bytes(bytes(3000))
    told_by("train.py", "data=cifar", f"data.root={root.name}", "backbone=smallcnn",
            cwd=root.parent, texts=[f"Received: 3000 bytes in {root.name}/train.bin, 0 photos and "
                                    "3000 bytes more. It is cut off or damaged"])  # fmt: skip
