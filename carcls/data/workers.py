"""Processes that prepare photos: started clean, gone with the one that started them.

A process runs one function over items, `Workers.map`, on a line of its own to this one. It imports
what the function needs and nothing else: it is no copy of this process, which may hold a GPU.
"""

import importlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

from carcls import swept
from carcls.errors import UserError

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    " A system that runs out of memory ends processes so: try fewer, such as runtime.workers=1, "
    "or 0 for none."
)
_LOOK_SECONDS = 1.0
# A result more than this is ready or in the making for every process, for a caller that pauses.
_AHEAD_OF_EACH = 4
# Fewer photos are done sooner than processes have started.
_WORTH_A_PROCESS = 256
_ROOT = str(Path(__file__).parents[2])
_CODE = "import sys; sys.path[0] = sys.argv[1]; from carcls.data.worker import main; main()"
# One process has one core: what numpy's libraries start threads for, there are processes for.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class WorkerError(UserError):
    """A process ended that should have gone on; the message names it."""


def default_workers() -> int:
    """One a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(num_photos: int, workers: int | None) -> int:
    """As many processes as were asked for; None: one a core, or 0 where few photos are no work."""
    if workers is not None:
        return workers
    if num_photos < _WORTH_A_PROCESS:
        return 0
    return max(default_workers() // swept.jobs_at_once(), 1)  # the jobs of a sweep share the cores


def load_task(task: str, setup: Any) -> Callable[[Any], Any]:
    """The function that `task`, "package.module:factory", makes of `setup`."""
    module, _, factory = task.partition(":")
    return getattr(importlib.import_module(module), factory)(setup)


@dataclass(eq=False)
class _Process:
    """One process, and the numbers of the items that it has, in their order."""

    popen: subprocess.Popen
    connection: Connection
    items: deque[int]

    @property
    def pid(self) -> int:
        return self.popen.pid


class Workers:
    """Processes that run one function over items. Close them, or use them in a `with`.

    They end when they are closed or forgotten, and with this process, however it ends.

    Args:
        task: "package.module:factory". In each process `function = factory(setup)` is made once.
        setup: What the factory takes; pickled.
        count: Processes; 0 runs the function here, when its result is asked for.
        files: Descriptors of files that the processes have open too, under the same numbers.
    """

    def __init__(self, task: str, setup: Any, count: int, files: Sequence[int] = ()) -> None:
        self.count = count
        self._function = load_task(task, setup) if count == 0 else None
        self._processes: list[_Process] = []
        self._in_use = False
        self._is_over = threading.Event()  # closed, or told that a process ended
        self._end = weakref.finalize(self, _end, self._processes, self._is_over)
        with tempfile.TemporaryFile() as lock:  # of ONE_LARGE_PHOTO
            for _ in range(count):
                self._processes.append(_start(task, setup, files, lock.fileno()))
        if count:
            watch = (list(self._processes), self._is_over)
            threading.Thread(target=_tell_of_an_end, args=watch, daemon=True).start()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        self._end()
        self._processes.clear()

    def map(self, items: Iterable[Any], ahead: int | None = None) -> Iterator[Any]:
        """Yields `function(item)` for every item, in the order of the items.

        Items are taken when there is room for their results, at most `ahead` before the one that
        is yielded. Items and results are pickled, and should be small.

        Args:
            items: May be without end, and may be made on the way.
            ahead: Items that are handed out before their turn; a few for each process by default.

        Raises:
            WorkerError: If a process ended, with its number.
            Exception: What the function raised, at its item's turn.
        """
        if self._function is not None:
            yield from map(self._function, items)
            return
        if self._in_use or not self._processes:
            raise RuntimeError("Expected workers that are open and run one map at a time.")
        self._in_use = True
        items, results = enumerate(items), {}
        ahead = _AHEAD_OF_EACH * self.count if ahead is None else max(1, ahead)
        first, after_last, is_exhausted = 0, 0, False
        try:
            while True:
                while not is_exhausted and after_last - first < ahead:
                    number, item = next(items, (None, None))
                    if number is None:
                        is_exhausted = True
                    else:
                        self._send(number, item)
                        after_last += 1
                if first == after_last:
                    return
                while first not in results:
                    self._receive(results)
                has_worked, result = results.pop(first)
                first += 1
                if not has_worked:
                    raise result
                yield result
        finally:
            self._finish()

    def _send(self, number: int, item: Any) -> None:
        process = min(self._processes, key=lambda process: len(process.items))
        try:
            process.connection.send(item)
        except OSError as error:
            raise self._ended(process) from error
        process.items.append(number)

    def _receive(self, results: dict[int, Any]) -> None:
        """Waits for at least one result, and takes all that are there."""
        by_connection = {process.connection: process for process in self._processes}
        for connection in wait(list(by_connection)):
            process = by_connection[connection]
            try:
                answer = connection.recv()
            except (EOFError, OSError) as error:
                raise self._ended(process) from error
            if answer[0] is None:  # it could not even make its function
                raise answer[1]
            results[process.items.popleft()] = answer

    def _ended(self, process: _Process) -> Exception:
        """Why it did: what it said last, or how it was ended."""
        with suppress(EOFError, OSError):
            while process.connection.poll():
                answer = process.connection.recv()
                if answer[0] is None:
                    return answer[1]
        try:
            status = process.popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            status = None
        error = WorkerError(
            "Expected the processes that prepare photos to go on. Received: process "
            f"{process.pid}, one of {self.count}, {_how_ended(status)}."
            + (_OUT_OF_MEMORY if status == -SIGKILL else "")
        )
        self.close()
        return error

    def _finish(self) -> None:
        """Leaves no answer behind that the next map could take for its own."""
        unwanted: dict[int, Any] = {}
        try:
            while any(process.items for process in self._processes):
                self._receive(unwanted)
        except BaseException as error:  # nobody asked for them; what is in doubt ends
            self.close()
            if not isinstance(error, Exception):
                raise
        finally:
            self._in_use = False


def _start(task: str, setup: Any, files: Sequence[int], lock: int) -> _Process:
    ours, theirs = Pipe()
    with theirs:
        popen = subprocess.Popen(
            [sys.executable, "-c", _CODE, _ROOT, str(theirs.fileno()), str(lock)],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), lock, *files],
            start_new_session=True,  # Ctrl-C is for this process, which tells them
            env=os.environ | _ONE_THREAD,
        )
    ours.send((sys.path, task, setup))
    return _Process(popen, ours, deque())


def _how_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by signal {-status} ({Signals(-status).name})"
    return f"ended with status {status}"


def _tell_of_an_end(processes: list[_Process], is_over: threading.Event) -> None:
    """Says within seconds that a process ended, while a caller who would hear of it is busy."""
    while not is_over.wait(_LOOK_SECONDS):
        for process in processes:
            status = process.popen.poll()
            if status is not None and not is_over.wait(_LOOK_SECONDS):
                log.error(
                    f"ERROR: process {process.pid}, which prepares photos, {_how_ended(status)}: "
                    "this cannot go on."
                )
                return


def _end(processes: list[_Process], is_over: threading.Event) -> None:
    is_over.set()
    for process in processes:
        process.connection.close()  # which they notice
    for process in processes:
        try:
            process.popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
