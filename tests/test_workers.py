"""Processes: started clean, in order, and gone with the one that started them."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carcls.data import pixels
from carcls.data.photo_decoding import OneAtATime
from carcls.data.workers import WorkerError, Workers
from carcls.errors import PhotoError, UserError

ROOT = Path(__file__).parent.parent
HERE = "tests.test_workers"


# Factories, as the processes import them.


def times(factor):
    return lambda number: factor * number


def slow_for_even(_):
    def sleep(number):
        time.sleep(0.02 * (number % 2 == 0))
        return number

    return sleep


def modules(_):
    return lambda name: name in sys.modules


def failing(_):
    def fail(kind):
        if kind == "photo":
            raise PhotoError("a.jpg", "truncated")
        if kind == "user":
            raise UserError("Expected better.")
        if kind == "other":
            raise ZeroDivisionError("by nothing")
        return kind

    return fail


def refusing(_):
    raise UserError("Expected another setup.")


def pid_of(_):
    return lambda item: os.getpid()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(seconds: float, pids: list[int]) -> bool:
    end = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(running, pids))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(count):
    with Workers(f"{HERE}:slow_for_even", None, count) as workers:
        assert list(workers.map(range(30))) == list(range(30))
        assert list(workers.map([])) == []


def test_items_are_taken_a_bounded_number_ahead():
    taken = []
    items = (taken.append(i) or i for i in itertools.count())
    with Workers(f"{HERE}:times", 3, 2) as workers:
        results = workers.map(items, ahead=5)
        assert next(results) == 0 and len(taken) == 5
        assert next(results) == 3 and len(taken) == 6


def test_a_map_that_is_given_up_leaves_no_answer_behind():
    with Workers(f"{HERE}:times", 2, 2) as workers:
        results = workers.map(itertools.count())
        next(results)
        results.close()
        assert list(workers.map([50, 60])) == [100, 120]


def test_one_map_runs_at_a_time():
    with Workers(f"{HERE}:times", 2, 1) as workers:
        results = workers.map(itertools.count())
        next(results)
        with pytest.raises(RuntimeError, match="run one map at a time"):
            next(workers.map([1]))


@pytest.mark.parametrize("count", [0, 1])
def test_an_exception_is_raised_at_its_turn_and_others_go_on(count):
    with Workers(f"{HERE}:failing", None, count) as workers:
        results = workers.map(["a", "photo"])
        assert next(results) == "a"
        with pytest.raises(PhotoError, match=r"a\.jpg: truncated") as told:
            next(results)
        assert (told.value.path, told.value.reason) == ("a.jpg", "truncated")
        with pytest.raises(UserError, match="Expected better"):
            list(workers.map(["user"]))
        assert list(workers.map(["b"])) == ["b"]


def test_any_other_exception_is_told_with_where_it_came_up():
    with Workers(f"{HERE}:failing", None, 1) as workers:
        with pytest.raises(RuntimeError, match="in a process that prepares photos") as told:
            list(workers.map(["other"]))
        assert "ZeroDivisionError: by nothing" in str(told.value)
        assert "test_workers.py" in str(told.value)


def test_a_function_that_cannot_be_made_is_told():
    with (
        Workers(f"{HERE}:refusing", None, 3) as workers,
        pytest.raises(UserError, match="Expected another setup"),
    ):
        time.sleep(0.5)  # some have ended when they are given their items
        list(workers.map(range(50)))


def test_processes_import_neither_keras_nor_a_backend_nor_pandas():
    task = "carcls.data.preparing:opening"  # what it imports is imported in this process too
    names = ["keras", "tensorflow", "jax", "torch", "pandas", "hydra"]
    module = task.split(":")[0]
    code = f"import sys, carcls.data.worker, {module}; print(set({names}) & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_a_process_that_is_killed_is_named_and_the_others_end():
    with Workers(f"{HERE}:pid_of", None, 2) as workers:
        pids = sorted(set(workers.map(range(20))))
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(WorkerError) as told:
            list(workers.map(range(20)))
        assert str(told.value) == (
            "Expected the processes that prepare photos to go on. Received: process "
            f"{pids[0]}, one of 2, was ended by signal 9 (SIGKILL). A system that runs out of "
            "memory ends processes so: try fewer, such as runtime.workers=1, or 0 for none."
        )
        assert not any(map(running, pids))


def test_a_process_that_is_killed_is_named_though_nobody_waits_for_it(caplog):
    with Workers(f"{HERE}:pid_of", None, 2) as workers:
        results = workers.map(itertools.count())
        pid = next(results)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while not caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        assert caplog.messages == [
            f"ERROR: process {pid}, which prepares photos, was ended by signal 9 (SIGKILL): this "
            "cannot go on."
        ]
        with pytest.raises(WorkerError, match=f"process {pid}, one of 2"):
            list(itertools.islice(results, 1000))


def test_a_module_of_the_users_directory_does_not_stand_in_for_one_of_pythons(
    tmp_path, monkeypatch
):
    (tmp_path / "select.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with Workers(f"{HERE}:times", 2, 1) as workers:
        assert list(workers.map([1])) == [2]


def test_closing_ends_processes_that_are_busy():
    workers = Workers(f"{HERE}:slow_for_even", None, 2)
    next(workers.map(itertools.count()))
    pids = [process.pid for process in workers._processes]
    workers.close()
    assert not any(map(running, pids))


PARENT = """
import itertools, sys, time
from carcls.data.pixels import Pixels
from carcls.data.workers import Workers
shared = Pixels.without_name((4, 100, 100, 3))
workers = Workers("tests.test_workers:pid_of", shared, 2, [shared.file])
pids = sorted(set(itertools.islice(workers.map(itertools.count()), 50)))
print(*pids, flush=True)
for _ in workers.map(itertools.count()):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_when_the_parent_ends_nothing_is_left(sign):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(running, pids))
        parent.send_signal(sign)
        parent.wait(timeout=5)
    assert gone_within(5, pids)


def test_pixels_have_no_name_and_are_shared():
    array = pixels.Pixels.without_name((2, 3))
    array.array[1, 2] = 7
    assert os.fstat(array.file).st_nlink == 0
    with Workers(f"{HERE}:last_of", array, 1, [array.file]) as workers:
        assert list(workers.map([8])) == [7]
    assert array.array[1, 2] == 8


def last_of(array):
    def swap(value):
        before, array.array[1, 2] = int(array.array[1, 2]), value
        return before

    return swap


def test_without_files_in_memory_pixels_lie_on_the_disk(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    array = pixels.Pixels.without_name((2, 3))
    array.array[:] = 5
    assert os.pread(array.file, 10, 0) == bytes([5] * 6)
    assert os.fstat(array.file).st_nlink == 0


def one_large(file):
    lock = OneAtATime()
    lock.file = file

    def hold(_):
        with lock, lock:  # again inside, as a photo that is rescued does
            began = time.monotonic()
            time.sleep(0.02)
            return began, time.monotonic()

    return hold


def test_large_photos_are_opened_one_at_a_time_in_all_processes(tmp_path):
    with (
        (tmp_path / "lock").open("w") as file,
        Workers(f"{HERE}:one_large", file.fileno(), 3, [file.fileno()]) as workers,
    ):
        spans = sorted(workers.map(range(12)))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
