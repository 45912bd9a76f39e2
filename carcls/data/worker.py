"""What runs in a process of `carcls.data.workers`."""

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from carcls.data.photo_decoding import ONE_LARGE_PHOTO
from carcls.data.workers import load_task
from carcls.errors import PhotoError, UserError


def main() -> None:
    """Answers every item that comes in with (True, result) or (False, exception), until the end.

    (None, exception) says that it never began.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    line, ONE_LARGE_PHOTO.file = int(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    connection = Connection(line)
    try:
        sys.path[:], task, setup = connection.recv()
        function = load_task(task, setup)
    except Exception as error:
        connection.send((None, _portable(error)))
        return
    with suppress(EOFError, OSError):  # the parent is done, and may be so in mid-sentence
        while True:
            connection.send(_answer(function, connection.recv()))


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    try:
        return True, function(item)
    except Exception as error:
        return False, _portable(error)


def _end_with(line: int) -> None:
    """Ends this process at once when the other end of its line is closed: when the parent is gone.

    A thread, so that it also happens in the middle of a photo.
    """
    poll = select.poll()
    poll.register(line, 0)  # a hang-up is always told
    poll.poll()
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """The exception as it can be raised in another process."""
    if type(error) in (UserError, PhotoError):
        return error.with_traceback(None)
    told = "".join(traceback.format_exception(error))
    return RuntimeError(f"in a process that prepares photos:\n{told}")
