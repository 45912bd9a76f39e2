"""A function in a process of its own, which takes its memory with it when it ends."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from carcls.errors import UserError


def can_fork() -> bool:
    """Whether `in_own_process` can be used here: not on Windows, nor where Keras is at work.

    A fork has none of the threads that a backend started, and hangs when it waits for one.
    """
    return "fork" in multiprocessing.get_all_start_methods() and "keras" not in sys.modules


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Calls `function` in a fork of this process and returns what it returned.

    What this process has in memory is there, and nothing has to be handed over. Ctrl-C and SIGTERM
    are handed on, to be dealt with there; if this process is killed, the other one gets SIGTERM.

    Args:
        function: What it returns can be pickled.
        *args: Of the function.

    Raises:
        UserError: That of the function, or if the process was killed.
        KeyboardInterrupt: If the function raised it.
        RuntimeError: If the function raised anything else, which is printed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with _handed_on() as (set_process, let_go):
        process = context.Process(target=_child, args=(sender, receiver, let_go, function, args))
        process.start()
        set_process(process.pid)
        sender.close()  # so that the end of the other process is the end of the pipe
        try:
            kind, value = receiver.recv()
        except EOFError:
            kind, value = "died", None
        process.join()
    if kind == "returned":
        return value
    if kind == "raised":
        raise value
    if process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        raise UserError(
            f"Expected the process of the network to end by itself. Received: signal "
            f"{-process.exitcode} ({name}). If nobody sent it the machine was short of memory: "
            "take a smaller batch_size or image_size."
        )
    raise RuntimeError(
        f"the process of the network failed with status {process.exitcode}, see above"
    )


def _child(
    sender: Connection,
    receiver: Connection,
    let_go: Callable[[], None],
    function: Callable[..., Any],
    args: tuple,
) -> None:
    os.setpgrp()  # the terminal sends Ctrl-C to the parent alone, which hands it on once
    receiver.close()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        let_go()  # signals are for this process now
        answer = ("returned", function(*args))
    except (UserError, KeyboardInterrupt) as error:
        answer = ("raised", error)
    sender.send(answer)


def _stop_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _handed_on() -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """Hands the signals that stop a run on to another process, which is yet to be started.

    Yields:
        What is told the other process' number, and what that one calls to take signals itself.
    """
    pid, early, before = None, [], {}

    def hand_on(number: int, frame: FrameType | None) -> None:
        if pid is None:
            early.append(number)
        else:
            os.kill(pid, number)

    def set_process(number: int) -> None:
        nonlocal pid
        pid = number
        for received in early:
            os.kill(pid, received)

    def let_go() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        if early:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # others cannot take signals
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, hand_on)
    try:
        yield set_process, let_go
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
