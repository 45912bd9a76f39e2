"""What a run is gone on from: whole or not there, and read by nobody else meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from carcls.errors import UserError
from carcls.training import generations

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros((0, 4)),
    np.array([0.1, np.nan, -np.inf]), np.array([True]),
]  # fmt: skip


def written(folder: Path, count: int) -> Path:
    """Generations whose state is their number, with best weights that change in between."""
    for number in range(1, count + 1):
        model = folder.parent / "model.keras"
        temporary = folder.parent / "new"
        temporary.write_text(f"weights {number}")
        temporary.replace(model)
        generations.write(folder, {"number": number, "loss": 0.1 + 0.2}, ARRAYS, model)
    return folder


def test_a_generation_comes_back_bit_for_bit(tmp_path):
    folder = tmp_path / "stages"
    generations.write(folder, {"loss": 0.1 + 0.2, "odd": [float("nan"), None]}, ARRAYS, None)
    read = generations.newest(folder)
    assert read.state["loss"] == 0.1 + 0.2
    assert np.isnan(read.state["odd"][0]) and read.state["odd"][1] is None
    assert read.model is None
    for before, after in zip(ARRAYS, read.arrays, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_the_last_two_are_kept_each_with_its_own_best_weights(tmp_path):
    folder = written(tmp_path / "stages", 4)
    assert sorted(path.name for path in folder.iterdir()) == ["000003", "000004"]
    assert (folder / "000003" / "model.keras").read_text() == "weights 3"
    assert generations.newest(folder).state["number"] == 4
    assert generations.newest(folder).model.read_text() == "weights 4"
    assert (folder / "000004" / "model.keras").samefile(tmp_path / "model.keras")


def test_best_weights_are_copied_where_a_file_has_one_name_only(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError("no second names here")

    monkeypatch.setattr(os, "link", link)
    folder = written(tmp_path / "stages", 1)
    assert not (folder / "000001" / "model.keras").samefile(tmp_path / "model.keras")
    assert generations.newest(folder).model.read_text() == "weights 1"
    generations.put_in_place(generations.newest(folder).model, tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_text() == "weights 1"


@pytest.mark.parametrize("name", ["state.json", "variables.npy", "model.keras"])
@pytest.mark.parametrize("how", ["gone", "cut", "changed", "empty"])
def test_a_damaged_generation_is_told_and_the_one_before_it_is_read(tmp_path, caplog, name, how):
    folder = written(tmp_path / "stages", 3)
    path = folder / "000003" / name
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:middle], "changed": changed, "empty": b""}[how])
    assert generations.newest(folder).state["number"] == 2
    assert "000003 is damaged" in caplog.text


def test_a_number_in_the_state_that_was_changed_is_damage(tmp_path):
    folder = written(tmp_path / "stages", 2)
    path = folder / "000002" / "state.json"
    path.write_text(path.read_text().replace('number\\": 2', 'number\\": 9'))
    assert json.loads(json.loads(path.read_text())["content"])["state"]["number"] == 9
    assert generations.newest(folder).state["number"] == 1


def test_where_none_is_whole_there_is_none(tmp_path):
    assert generations.newest(tmp_path / "stages") is None
    (tmp_path / "stages" / "000001").mkdir(parents=True)
    assert generations.newest(tmp_path / "stages") is None


@pytest.mark.parametrize("call", range(1, 4))
def test_a_writer_that_is_cut_leaves_the_generation_before_it(tmp_path, monkeypatch, call):
    folder, calls, fsync = written(tmp_path / "stages", 1), [], os.fsync

    def cutting(number):
        calls.append(1)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", cutting)
    with pytest.raises(
        UserError, match=r"Expected room to write .*000002. Received: No space .*MB"
    ):
        generations.write(folder, {"number": 2}, ARRAYS, None)
    assert [path.name for path in folder.iterdir()] == ["000001"]
    assert generations.newest(folder).state["number"] == 1


def test_what_a_killed_writer_left_is_not_read_and_is_removed(tmp_path):
    folder = written(tmp_path / "stages", 1)
    (folder / "000001").rename(folder / ".000002-77")
    assert generations.newest(folder) is None
    generations.remove(folder, ".*")
    assert list(folder.iterdir()) == []


def test_two_processes_do_not_train_in_one_directory(tmp_path, capsys):
    run = tmp_path / "run"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from carcls.training.generations import alone\n"
        f"with alone(Path({str(run)!r})):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError) as told, generations.alone(run):
        pass
    assert str(told.value) == (
        f"Expected a run directory in which no other process trains. Received: {run}, where "
        f"process {holder.pid} does. Wait for it, or end it first."
    )
    generations.wait_until_free(run, seconds=0.5)
    assert capsys.readouterr().out == (
        f"Waits for the process that still saves what it reached in {run}.\n"
    )
    threading.Timer(0.5, holder.kill).start()
    generations.wait_until_free(run)
    assert holder.wait() == -signal.SIGKILL  # before which it did not return
    holder.stdin.close()
    holder.stdout.close()
    generations.wait_until_free(tmp_path / "none")
    with generations.alone(run):  # a process that is dead holds nothing
        assert (run / ".lock").read_text() == str(os.getpid())
    assert not (run / ".lock").exists()


def test_a_directory_that_was_made_for_the_lock_alone_goes_with_it(tmp_path):
    with generations.alone(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert list(tmp_path.iterdir()) == []
