"""Photos decoded once: found again, built anew when they change, and never in the way."""

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from carcls.data import pixel_cache, preparing
from carcls.data.images import open_photo, resize
from carcls.data.photos import Photos
from carcls.data.pixel_cache import CacheSettings, decode_once
from carcls.data.preparing import open_square
from tests.conftest import draw_photo

ROOT = Path(__file__).parent.parent
SIZE, COUNT = 16, 6
ONE = SIZE * SIZE * 3  # bytes of a photo


@pytest.fixture
def paths(tmp_path) -> list[str]:
    for i in range(COUNT):
        draw_photo(tmp_path / "photos" / f"{i}.png", (40 * i, 90, 200 - 20 * i), seed=i)
    return [str(tmp_path / "photos" / f"{i}.png") for i in range(COUNT)]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def decode(folder, caplog):
    """Photos through the cache, and what is reported of it."""
    caplog.set_level(logging.INFO)

    def decode(paths, size=SIZE, mode="squash", limit=1e9, workers=0):
        photos = Photos(paths, size, mode)
        settings = CacheSettings(folder=folder.parent, limit_bytes=limit)
        done = []
        report = decode_once(photos, settings, workers, done.append)
        if report.state != "off":
            assert sum(done) == len(set(paths))
        wait_for_the_disk()
        return photos, report

    return decode


def wait_for_the_disk() -> None:
    for thread in threading.enumerate():
        if thread.name == pixel_cache.SYNC:
            thread.join()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def assert_right(photos: Photos) -> None:
    for index, path in enumerate(photos.paths):
        expected = resize(open_photo(path), photos.size, photos.resize_mode)
        np.testing.assert_array_equal(photos[index], expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_photos_are_decoded_once_and_found_again(paths, decode, folder, caplog, workers):
    photos, report = decode(paths, workers=workers)
    assert (report.state, report.num_bytes, report.size) == ("built", COUNT * ONE, SIZE)
    assert report.path == str(folder / files(folder)[0]) and len(files(folder)) == 1
    assert f"Decoding {COUNT} photos to {SIZE} px, once: 0.0 MB in {folder}." in caplog.text
    assert_right(photos)
    before = Path(report.path).stat().st_ino
    again, report = decode(paths)
    assert report.state == "found" and Path(report.path).stat().st_ino == before
    assert_right(again)
    assert not again.pixels.array.flags.writeable


def test_what_was_wrong_with_photos_is_found_again_too(paths, decode, tmp_path):
    cut = tmp_path / "photos" / "cut.jpg"
    draw_photo(cut, (200, 100, 50), seed=9, size=(400, 300))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 7 // 10])
    (tmp_path / "photos" / "empty.jpg").touch()
    odd = [*paths, str(cut), str(tmp_path / "photos" / "empty.jpg")]
    for state in ("built", "found"):
        photos, report = decode(odd)
        assert report.state == state
        assert photos.errors == {COUNT + 1: "an empty file"}
        assert photos.notes == {COUNT: "cut off: opened as far as it goes"}
        assert not photos[COUNT + 1].any() and photos[COUNT].any()


def test_a_photo_that_can_be_opened_later_is_not_left_out_for_ever(
    paths, decode, caplog, monkeypatch
):
    def refuse(path, *arguments):
        if path == paths[1]:
            return None, "no permission to read it", None
        return open_square(path, *arguments)

    monkeypatch.setattr(preparing, "open_square", refuse)
    photos, report = decode(paths)
    assert photos.errors == {1: "no permission to read it"}
    monkeypatch.undo()
    photos, report = decode(paths)
    assert (report.state, photos.errors) == ("built", {})
    assert f"{paths[1]} can be opened now (no permission to read it before)" in caplog.text
    assert_right(photos)


def test_another_size_another_way_to_resize_and_another_list_are_other_files(paths, decode, folder):
    for arguments in ({}, {"size": 12}, {"mode": "pad"}):
        assert decode(paths, **arguments)[1].state == "built"
    assert decode(paths[:-1])[1].state == "built"
    assert len(files(folder)) == 4
    assert decode(paths, mode="pad")[1].state == "found"


def test_a_photo_that_changed_is_decoded_again(paths, decode):
    decode(paths)
    draw_photo(Path(paths[2]), (1, 2, 3), seed=77)
    photos, report = decode(paths)
    assert report.state == "built"
    assert_right(photos)


def test_a_file_of_which_only_a_part_is_checked_is_checked_whole_until_it_is_on_the_disk(
    paths, decode, monkeypatch
):
    monkeypatch.setattr(pixel_cache, "_CHECKED_BYTES", 2 * ONE)  # every third photo
    path = Path(decode(paths)[1].path)
    data = bytearray(path.read_bytes())
    assert data.endswith(b"carclsPX")
    data[4 * ONE] ^= 1
    path.write_bytes(data)
    assert decode(paths)[1].state == "found"
    path.write_bytes(data[:-8] + b"carclspx")
    assert decode(paths)[1].state == "built"


@pytest.mark.parametrize("damage", ["a pixel", "cut", "longer", "facts", "empty"])
def test_a_damaged_file_is_built_anew(paths, decode, folder, caplog, damage):
    path = Path(decode(paths)[1].path)
    data = bytearray(path.read_bytes())
    if damage == "a pixel":
        data[3 * ONE + 5] ^= 1
    elif damage == "facts":
        data[COUNT * ONE + 3] ^= 0x80
    data = {"cut": data[:-7], "longer": data + b"0", "empty": b""}.get(damage, data)
    path.write_bytes(data)
    photos, report = decode(paths)
    assert report.state == "built"
    assert f"WARNING: {path} is damaged: its photos are decoded again." in caplog.text
    assert_right(photos)
    assert decode(paths)[1].state == "found"


def test_too_many_for_the_limit_are_read_from_their_files(paths, decode, folder):
    photos, report = decode(paths, limit=COUNT * ONE - 1)
    assert (report.state, photos.pixels, folder.exists()) == ("off", None, False)
    assert report.reason == "more than data.cache_limit allows, 4.607e-06 GB"
    assert_right(photos)


def test_what_was_used_longest_ago_makes_room(paths, decode, folder, caplog):
    first, second = paths[:2], paths[2:4]
    old = [Path(decode(some)[1].path) for some in (first, second)]
    limit = sum(path.stat().st_size for path in old) + 10
    os.utime(old[0], (1, 1))
    assert decode(first)[1].state == "found"  # used again: now the second one is older
    os.utime(old[1], (2, 2))
    assert decode(paths[4:], limit=limit)[1].state == "built"
    assert old[0].exists() and not old[1].exists()
    assert f"Removed {old[1]}, 0.0 MB of decoded photos that were used longest ago" in caplog.text


def test_what_is_in_use_stays_and_is_told(paths, decode, folder):
    photos, report = decode(paths[:3])
    limit = Path(report.path).stat().st_size + 10
    others, report = decode(paths[3:], limit=limit)
    assert (report.state, others.pixels) == ("off", None)
    assert report.reason.startswith("more than data.cache_limit allows, ")
    assert report.reason.endswith("MB are in use by other runs")
    del photos
    assert decode(paths[3:], limit=limit)[1].state == "built"
    assert len(files(folder)) == 1


def test_nothing_is_removed_where_it_would_not_make_enough_room(paths, decode):
    unused = Path(decode(paths[:2])[1].path)
    in_use, report = decode(paths[2:5])
    limit = unused.stat().st_size + Path(report.path).stat().st_size
    assert decode(paths, limit=limit)[1].state == "off"
    assert unused.exists() and in_use.pixels is not None


def test_a_full_disk_is_no_reason_to_stop(paths, decode, folder, monkeypatch):
    usage = shutil.disk_usage(folder.parent.parent)._replace(free=1_000_000_000 + ONE)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda place: usage)
    photos, report = decode(paths)
    assert (report.state, photos.pixels, files(folder)) == ("off", None, [])
    assert report.reason == f"more than the disk of {folder} has to spare, 0.0 MB"


def test_a_disk_that_fills_while_photos_are_decoded_leaves_nothing(
    paths, decode, folder, monkeypatch
):
    def refuse(file, offset, count):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    photos, report = decode(paths)
    assert (report.state, photos.pixels, files(folder)) == ("off", None, [])
    assert report.reason == f"{folder} cannot be used, No space left on device"


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(paths, decode, folder):
    folder.parent.write_text("a file where the directory should be")
    photos, report = decode(paths)
    assert (report.state, photos.pixels) == ("off", None)
    assert report.reason == f"{folder} cannot be used, Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_cache_that_can_only_be_read_is_used(paths, decode):
    Path(decode(paths)[1].path).chmod(0o444)
    photos, report = decode(paths)
    assert report.state == "found"
    assert_right(photos)


def test_an_interrupted_build_leaves_nothing(paths, folder):
    def stop(count):
        raise KeyboardInterrupt

    photos = Photos(paths, SIZE)
    with pytest.raises(KeyboardInterrupt):
        decode_once(photos, CacheSettings(folder=folder.parent, limit_bytes=1e9), 0, stop)
    assert files(folder) == [] and photos.pixels is None


BUILD = """
import json, sys
from carcls.data.photos import Photos
from carcls.data.pixel_cache import CacheSettings, decode_once
from pathlib import Path
import logging, time
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
go_on = Path(sys.argv[2])
def progress(count):
    while not go_on.exists():
        time.sleep(0.02)
photos = Photos(json.loads(sys.argv[3]), 16)
report = decode_once(photos, CacheSettings(folder=Path(sys.argv[1]), limit_bytes=1e9), 0, progress)
print(report.state, int(photos.pixels.array.sum()), flush=True)
"""


def start_build(folder: Path, paths: list[str], go_on: Path) -> subprocess.Popen:
    """A process that decodes, but is not done before there is a file `go_on`."""
    command = [sys.executable, "-c", BUILD, str(folder.parent), str(go_on), json.dumps(paths)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_runs_at_the_same_time_decode_once(paths, folder):
    go_on = folder.parent.parent / "go on"
    first = start_build(folder, paths, go_on)
    with first.stdout, first:
        while not list(folder.glob("*.building")):
            time.sleep(0.01)
        with start_build(folder, paths, go_on) as second, second.stdout:
            waiting = f"Another run is decoding photos into {folder}: waiting for it.\n"
            assert second.stdout.readline() == waiting
            go_on.touch()
            ends = [build.stdout.read().splitlines()[-1].split() for build in (first, second)]
    assert [state for state, _ in ends] == ["built", "found"]
    assert ends[0][1] == ends[1][1]


def test_a_build_that_was_killed_is_cleared_away(paths, decode, folder):
    build = start_build(folder, paths, folder / "never")
    with build.stdout, build:
        while not list(folder.glob("*.building")):
            time.sleep(0.01)
        build.send_signal(signal.SIGKILL)
    assert re.search("building", " ".join(files(folder)))
    photos, report = decode(paths[:-1])
    assert report.state == "built" and len(files(folder)) == 1
    assert_right(photos)


def test_the_file_is_locked_while_it_is_used(paths, decode):
    photos, report = decode(paths)
    with Path(report.path).open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del photos
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
