"""Batches: the same for any number of processes, decoded once or not, from any step on."""

import functools
import itertools
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.data.images import open_photo, resize
from carcls.data.loader import Loader
from carcls.data.mixing import mix_batch
from carcls.data.photos import Photos
from carcls.data.transforms import build_augment
from carcls.data.workers import WorkerError, default_workers, workers_for
from carcls.errors import UserError
from tests.conftest import draw_photo

SIZE, COUNT = 16, 11
STEPS = {
    "affine": {"type": "Affine", "p": 0.7, "rotate": [-20, 20], "border_mode": "reflect_101"},
    "noise": {"type": "GaussNoise", "p": 0.5},
    "flip": {"type": "HorizontalFlip", "p": 0.5},
}
LABELS = np.arange(COUNT) * 3 % 7


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        draw_photo(folder / f"{i}.png", (20 * i, 250 - 20 * i, 100), seed=i, size=(36, 24 + i))
    return [str(folder / f"{i}.png") for i in range(COUNT)]


def read_photos(paths, keep: bool = False) -> Photos:
    photos = Photos(paths, SIZE)
    if keep:
        photos.decode_all(keep=True, workers=0, progress=lambda done: None)
    return photos


def make_loader(photos: Photos, **changes) -> Loader:
    arguments = {
        "indices": np.arange(len(photos)), "labels": LABELS, "batch_size": 4, "shuffle": True,
        "augment": build_augment(STEPS), "seed": 5, "workers": 0,
    }  # fmt: skip
    return Loader(photos, **{**arguments, **changes})


def take(batches, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(these, those) -> None:
    assert len(these) == len(those)
    for (images, labels), (other_images, other_labels) in zip(these, those, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


@pytest.fixture(scope="module")
def reference(paths) -> list:
    """Four epochs, without processes, from the files."""
    return take(make_loader(read_photos(paths)).from_step(0), 12)


@pytest.mark.parametrize("keep", [False, True], ids=["from the files", "decoded once"])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_processes_gives_the_same_batches(paths, reference, workers, keep):
    photos = read_photos(paths, keep)
    pixels = photos.pixels.array.copy() if keep else None
    loader = make_loader(photos, workers=workers)
    assert_same(take(loader.from_step(0), 12), reference)
    assert_same(take(loader.from_step(7), 5), reference[7:])  # the same processes go on
    loader.close()
    if keep:
        np.testing.assert_array_equal(photos.pixels.array, pixels)  # augmenting leaves them alone


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_kept_of_a_batch_stays_as_it_was(paths, reference, workers):
    """Batches lie where the next ones are made; a caller may keep any part of any of them."""
    loader = make_loader(read_photos(paths, keep=True), workers=workers)
    kept, parts = [], []
    for step, (images, _) in enumerate(itertools.islice(loader.from_step(0), 60)):
        parts.append((step, images[1:, ::2].reshape(-1, SIZE * 3)[3:7]))
        if step % 3:
            kept.append((step, images))
        kept = kept[-7:]
        parts = parts[-20:]
    loader.close()
    expected = [images for images, _ in take(make_loader(read_photos(paths)).from_step(0), 60)]
    for step, images in kept:
        np.testing.assert_array_equal(images, expected[step])
    for step, part in parts:
        wanted = expected[step][1:, ::2].reshape(-1, SIZE * 3)[3:7]
        np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize(
    ("copies", "batch_size"),
    [(1, 1000), (9, 70), (9, 40), (3, 32)],
    ids=["less than a batch", "a last one of two parts", "of one part", "of few"],
)
def test_large_batches_are_shared_among_the_processes(paths, copies, batch_size, workers):
    """Also over the ends of epochs, whose last batches have fewer parts, so that more are ahead."""
    photos = read_photos(paths * copies, keep=True)
    alone, shared = (
        make_loader(photos, labels=np.arange(len(photos)), batch_size=batch_size, workers=count)
        for count in (0, workers)
    )
    assert_same(take(shared.from_step(0), 12), take(alone.from_step(0), 12))
    shared.close()


@settings(max_examples=15)
@given(first=st.integers(0, 11))
def test_going_on_from_a_step_is_skipping_those_before_it(paths, reference, first):
    loader = make_loader(read_photos(paths))
    assert_same(take(loader.from_step(first), 12 - first), reference[first:])


@pytest.mark.parametrize("epoch", range(4))
def test_an_epoch_is_its_part_of_the_stream(paths, reference, epoch):
    loader = make_loader(read_photos(paths))
    assert len(loader) == 3
    assert_same(list(loader.epoch(epoch)), reference[3 * epoch : 3 * epoch + 3])


def test_a_single_epoch_prepares_no_photo_twice(paths):
    asked = []

    class Counted(Photos):
        def source(self, index):
            asked.append(index)
            return super().source(index)

    list(make_loader(Counted(paths, SIZE)).epoch())
    assert sorted(asked) == list(range(COUNT))


def test_every_epoch_has_another_order_and_other_augmentations(paths):
    loader = make_loader(read_photos(paths))
    orders = [tuple(loader.order(epoch)) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    unshuffled = make_loader(read_photos(paths), shuffle=False)
    first, second = (np.concatenate([x for x, _ in unshuffled.epoch(e)]) for e in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).sum() > COUNT / 2


def test_another_seed_gives_another_order_and_other_augmentations(paths, reference):
    photos = read_photos(paths)
    assert tuple(make_loader(photos).order(0)) != tuple(make_loader(photos, seed=6).order(0))
    images = [next(make_loader(photos, seed=s, shuffle=False).epoch())[0] for s in (5, 6)]
    assert (images[0] != images[1]).any()


def test_a_photos_augmentation_does_not_depend_on_its_place(paths):
    photos = read_photos(paths)
    alone = next(make_loader(photos, indices=[7], shuffle=False).epoch(3))[0]
    among = np.concatenate([x for x, _ in make_loader(photos, shuffle=False).epoch(3)])
    np.testing.assert_array_equal(alone[0], among[7])


def test_unshuffled_batches_hold_the_resized_photos_in_order_with_a_smaller_last_one(paths):
    loader = make_loader(read_photos(paths), shuffle=False, augment=None)
    batches = list(loader.epoch())
    assert [x.shape for x, _ in batches] == [(4, SIZE, SIZE, 3)] * 2 + [(3, SIZE, SIZE, 3)]
    assert all(x.dtype == np.uint8 and y.dtype == np.int32 for x, y in batches)
    expected = [resize(open_photo(path), SIZE) for path in paths]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), expected)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), LABELS)


def test_labels_belong_to_their_photos_whatever_the_order(paths):
    photos = read_photos(paths)
    chosen = np.array([9, 2, 5, 7, 3])
    loader = make_loader(photos, indices=chosen, augment=None)
    by_content = {photos[i].tobytes(): LABELS[i] for i in chosen}
    pairs = [(x.tobytes(), y) for images, labels in loader.epoch() for x, y in zip(images, labels)]  # noqa: B905
    assert dict(pairs) == by_content


def test_without_labels_there_are_none(paths):
    assert all(labels is None for _, labels in make_loader(read_photos(paths), labels=None).epoch())


@pytest.fixture
def with_damage(paths, tmp_path) -> list[str]:
    (tmp_path / "empty.jpg").touch()
    return [*paths[:2], str(tmp_path / "empty.jpg"), paths[2], str(tmp_path / "gone.jpg")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keep", [False, True])
def test_unreadable_photos_are_black_and_noted_with_their_reason(with_damage, keep, workers):
    photos, done = Photos(with_damage, SIZE), []
    photos.decode_all(keep=keep, workers=workers, progress=done.append)
    assert sum(done) == 5
    assert photos.errors == {2: "an empty file", 4: "no such file"}
    assert (photos.pixels is not None) == keep
    assert [bool(photos[i].any()) for i in range(5)] == [True, True, False, True, False]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_photo_of_the_batch_stands_in_for_one_that_cannot_be_opened(with_damage, workers):
    photos = Photos(with_damage, SIZE)
    loader = make_loader(photos, labels=np.arange(5), batch_size=5, shuffle=False, augment=None,
                         workers=workers)  # fmt: skip
    ((images, labels),) = loader.epoch()
    loader.close()
    assert labels.tolist() == [0, 1, 3, 3, 0]
    np.testing.assert_array_equal(images, [photos[i] for i in labels])
    assert photos.errors == {2: "an empty file", 4: "no such file"}


def test_without_labels_a_photo_that_cannot_be_opened_is_black(with_damage):
    photos = Photos(with_damage, SIZE)
    ((images, _),) = make_loader(photos, labels=None, batch_size=5, shuffle=False).epoch()
    assert images.any(axis=(1, 2, 3)).tolist() == [True, True, False, True, False]
    assert set(photos.errors) == {2, 4}


def test_a_photo_that_cannot_be_opened_stops_a_loader_that_is_told_to(with_damage):
    loader = make_loader(Photos(with_damage, SIZE), labels=np.arange(5), on_error="raise")
    with pytest.raises(UserError) as told:
        list(loader.epoch())
    assert str(told.value) in {
        f"Expected photos that can be opened. Received: {path} ({reason}). Leave such photos out "
        "with data.on_error=skip."
        for path, reason in ((with_damage[2], "an empty file"), (with_damage[4], "no such file"))
    }


@pytest.mark.parametrize("keep", [False, True])
def test_without_errors_leaves_the_good_photos(with_damage, keep):
    photos = Photos(with_damage, SIZE, "pad")
    photos.decode_all(keep=keep, workers=0, progress=lambda done: None)
    good, which = photos.without_errors()
    assert which.tolist() == [True, True, False, True, False]
    assert list(good.paths) == [with_damage[i] for i in (0, 1, 3)]
    assert (good.size, good.resize_mode, good.errors) == (SIZE, "pad", {})
    for new, old in enumerate((0, 1, 3)):
        np.testing.assert_array_equal(good[new], photos[old])
    again, which = good.without_errors()
    assert which.all() and again.pixels is good.pixels and again.paths == good.paths


def test_a_file_that_is_there_several_times_is_decoded_once(paths):
    photos = Photos([paths[i] for i in (3, 0, 3, 3, 1)], SIZE)
    photos.decode_all(keep=True, workers=0, progress=lambda done: None)
    assert photos.pixels.shape == (3, SIZE, SIZE, 3) and photos.rows.tolist() == [0, 1, 0, 0, 2]
    for index, path in enumerate(photos.paths):
        np.testing.assert_array_equal(photos[index], resize(open_photo(path), SIZE))


def test_batches_may_be_smaller_than_the_photos_that_they_are_cut_from(paths):
    steps = {"crop": {"type": "RandomResizedCrop", "p": 1.0, "scale": [0.5, 1.0]}}
    loader = make_loader(read_photos(paths), augment=build_augment(steps, 12), size=12)
    assert [images.shape for images, _ in loader.epoch()] == [(4, 12, 12, 3)] * 2 + [(3, 12, 12, 3)]


def test_mixed_labels_are_shares_of_classes_and_the_same_from_any_step(paths):
    mix = functools.partial(mix_batch, mixup=2.0, cutmix=2.0)
    loader = make_loader(read_photos(paths), num_classes=7, mix=mix)
    batches = take(loader.from_step(0), 6)
    assert_same(take(loader.from_step(4), 2), batches[4:])
    plain = take(make_loader(read_photos(paths), num_classes=7).from_step(0), 6)
    numbers = take(make_loader(read_photos(paths)).from_step(0), 6)
    for (images, shares), (whole, ones), (_, labels) in zip(batches, plain, numbers, strict=True):
        assert (images.dtype, shares.dtype) == (np.uint8, np.float32)
        np.testing.assert_array_equal(ones, np.eye(7)[labels])
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
        assert (images != whole).any() == (shares != ones).any()
    assert sum((shares % 1 > 0).any() for _, shares in batches) >= 4


def test_smoothed_labels_give_a_share_to_every_class_after_mixing(paths):
    mix = functools.partial(mix_batch, mixup=2.0, cutmix=0.0)
    plain = take(make_loader(read_photos(paths), num_classes=7, mix=mix).from_step(0), 3)
    smoothed = make_loader(read_photos(paths), num_classes=7, mix=mix, label_smoothing=0.2)
    for (images, shares), (same, before) in zip(take(smoothed.from_step(0), 3), plain, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_allclose(shares, 0.8 * before + 0.2 / 7, rtol=1e-6)
        assert shares.dtype == np.float32


def processes_of(loader: Loader) -> list[int]:
    return [process.pid for process in loader._processes._processes]


def test_a_stream_that_is_given_up_leaves_nothing_for_the_next(paths, reference):
    loader = make_loader(read_photos(paths), workers=2)
    stream = loader.from_step(4)
    next(stream)
    before = processes_of(loader)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert_same(take(loader.from_step(0), 3), reference[:3])
    assert processes_of(loader) == before
    loader.close()
    assert_same(take(loader.from_step(0), 3), reference[:3])  # with others
    loader.close()


def test_a_process_that_is_killed_is_named(paths):
    loader = make_loader(read_photos(paths), workers=2)
    stream = loader.from_step(0)
    next(stream)
    pid = processes_of(loader)[1]
    os.kill(pid, signal.SIGKILL)
    started = time.perf_counter()
    with pytest.raises(WorkerError) as told:
        list(itertools.islice(stream, 1000))
    assert time.perf_counter() - started < 5
    assert f"Received: process {pid}, one of 2, was ended by signal 9 (SIGKILL)." in str(told.value)
    assert len(list(loader.epoch())) == 3  # by other processes
    loader.close()


def augment_that_fails(photo, seed):
    raise ValueError("out of order")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_reaches_the_caller_with_the_photo(paths, workers, keep):
    loader = make_loader(read_photos(paths, keep), augment=augment_that_fails, workers=workers)
    with pytest.raises(RuntimeError, match=r"augmenting .*\.png failed: ValueError: out of order"):
        list(loader.epoch())
    loader.close()


def test_memory_stays_flat(paths):
    """Anonymous memory; the batches' own, in a file, is as large as it will be from the start."""
    loader = make_loader(read_photos(paths, keep=True), workers=1)
    list(loader.epoch(0))
    pids = ["self", *processes_of(loader)]
    sizes = []
    for first in (1, 26):
        for epoch in range(first, first + 25):
            list(loader.epoch(epoch))
        sizes.append([anonymous_kilobytes(pid) for pid in pids])
    loader.close()
    growth = np.subtract(sizes[1], sizes[0])
    assert (growth < 1024).all()


def anonymous_kilobytes(pid) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def test_there_is_a_process_for_every_core_by_default_where_there_is_work_for_it(paths):
    assert default_workers() >= 1
    assert workers_for(10_000, None) == default_workers()
    assert workers_for(COUNT, None) == 0 and workers_for(COUNT, 3) == 3
    assert make_loader(read_photos(paths), workers=None).workers == 0
    copied = read_photos(paths, keep=True)
    assert make_loader(copied, augment=None, workers=3).workers == 0
