"""Batches: the same for any number of threads, in memory or not, from any step on."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.data.images import open_photo, resize
from carcls.data.loader import Loader, Photos, default_workers
from carcls.data.transforms import build_augment
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
        photos.decode_all(keep=True, workers=2, progress=lambda done: None)
    return photos


def make_loader(photos: Photos, **changes) -> Loader:
    arguments = {
        "indices": np.arange(len(photos)), "labels": LABELS, "batch_size": 4, "shuffle": True,
        "augment": lambda: build_augment(STEPS), "seed": 5, "workers": 2,
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
    """Four epochs, one thread."""
    return take(make_loader(read_photos(paths), workers=1).from_step(0), 12)


@pytest.mark.parametrize("keep", [False, True], ids=["decoded on the fly", "kept in memory"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_batches(paths, reference, workers, keep):
    photos = read_photos(paths, keep)
    pixels = None if photos.pixels is None else photos.pixels.copy()
    assert_same(take(make_loader(photos, workers=workers).from_step(0), 12), reference)
    if keep:
        np.testing.assert_array_equal(photos.pixels, pixels)  # augmenting leaves them alone


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
    opened = []

    class Counted(Photos):
        def __getitem__(self, index):
            opened.append(index)
            return super().__getitem__(index)

    list(make_loader(Counted(paths, SIZE)).epoch())
    assert sorted(opened) == list(range(COUNT))


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


@pytest.mark.parametrize("keep", [False, True])
def test_unreadable_photos_are_blank_and_noted_with_their_reason(with_damage, keep):
    photos, done = Photos(with_damage, SIZE), []
    photos.decode_all(keep=keep, workers=3, progress=done.append)
    assert done == [1] * 5
    assert photos.errors == {2: "an empty file", 4: "no such file"}
    assert (photos.pixels is not None) == keep
    assert [bool(photos[i].any()) for i in range(5)] == [True, True, False, True, False]


@pytest.mark.parametrize("keep", [False, True])
def test_without_errors_leaves_the_good_photos(with_damage, keep):
    photos = Photos(with_damage, SIZE, "pad")
    photos.decode_all(keep=keep, workers=2, progress=lambda done: None)
    good, which = photos.without_errors()
    assert which.tolist() == [True, True, False, True, False]
    assert list(good.paths) == [with_damage[i] for i in (0, 1, 3)]
    assert (good.size, good.resize_mode, good.errors) == (SIZE, "pad", {})
    for new, old in enumerate((0, 1, 3)):
        np.testing.assert_array_equal(good[new], photos[old])
    again, which = good.without_errors()
    assert which.all() and again.pixels is good.pixels and again.paths == good.paths


def test_the_memory_that_photos_take_is_known_before(paths):
    photos = read_photos(paths, keep=True)
    assert photos.bytes_in_memory() == photos.pixels.nbytes == COUNT * SIZE * SIZE * 3


@pytest.mark.parametrize("end", ["closed", "exhausted", "interrupted"])
def test_a_stream_that_ends_leaves_no_thread(paths, end):
    before = set(threading.enumerate())
    loader = make_loader(read_photos(paths), workers=4)
    stream = loader.epoch() if end == "exhausted" else loader.from_step(0)
    next(stream)
    assert set(threading.enumerate()) > before
    if end == "closed":
        stream.close()
    elif end == "exhausted":
        list(stream)
    else:
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
    assert set(threading.enumerate()) == before


def test_a_failure_in_a_thread_reaches_the_caller(paths):
    def augment(photo, seed):
        raise RuntimeError("out of order")

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="out of order"):
        list(make_loader(read_photos(paths), augment=lambda: augment).epoch())
    assert set(threading.enumerate()) == before


def test_an_interrupted_decoding_opens_no_more_photos(paths):
    opened = []

    class Counted(Photos):
        def __getitem__(self, index):
            opened.append(index)
            return super().__getitem__(index)

    def stop(done):
        raise KeyboardInterrupt

    photos = Counted(paths * 50, SIZE)
    with pytest.raises(KeyboardInterrupt):
        photos.decode_all(keep=True, workers=1, progress=stop)
    assert photos.pixels is None and len(opened) < COUNT * 50


def test_there_is_a_worker_for_every_core_by_default(paths):
    assert default_workers() >= 1
    assert make_loader(read_photos(paths), workers=None).workers == default_workers()
