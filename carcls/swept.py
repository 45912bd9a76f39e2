"""What a process knows of the sweep whose job it is: that there is one, and when it is gone."""

import os
import signal
import threading

JOBS_AT_ONCE = "CARCLS_JOBS_AT_ONCE"  # set in the environment of a sweep's jobs, and only there


def is_swept() -> bool:
    """Whether this is a job of a sweep that runs each of its jobs in a process of its own."""
    return JOBS_AT_ONCE in os.environ


def jobs_at_once() -> int:
    """How many jobs share this machine's cores, this one among them."""
    number = os.environ.get(JOBS_AT_ONCE, "1")
    return max(int(number), 1) if number.isdigit() else 1


def stop_with_sweep() -> None:
    """Stops this process, as SIGTERM does, when the sweep that started it is gone."""
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    # The sweep holds the other end of standard input, writes nothing, and takes it along however it
    # ends. `sys.stdin` has a lock, for which Python would wait in vain when it exits.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
