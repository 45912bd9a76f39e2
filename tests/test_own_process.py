import os
import signal
import sys
import threading
import time

import pytest

from carcls.errors import UserError
from carcls.training.own_process import can_fork, in_own_process


def raises(error: BaseException) -> None:
    raise error


def ended_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def waits_for_ctrl_c(parent: int) -> str:
    """Makes the parent get a Ctrl-C, and says how it got it here."""
    try:
        os.kill(parent, signal.SIGINT)  # which may be back before the next line
        time.sleep(20)
    except KeyboardInterrupt:
        return "stopped"


def test_another_process_returns_what_the_function_does_and_is_gone():
    here = {"n": 41}
    pid, value = in_own_process(lambda: (os.getpid(), here["n"] + 1))
    assert (pid != os.getpid(), value) == (True, 42)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_mistake_of_the_user_crosses_and_so_does_a_stop():
    with pytest.raises(UserError, match=r"^Expected this\.$"):
        in_own_process(raises, UserError("Expected this."))
    with pytest.raises(KeyboardInterrupt):
        in_own_process(raises, KeyboardInterrupt())


def test_ctrl_c_is_handed_on_once():
    before = signal.getsignal(signal.SIGINT)
    assert in_own_process(waits_for_ctrl_c, os.getpid()) == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_is_killed_or_fails_is_told(capfd):
    with pytest.raises(UserError, match=r"Received: signal 9 \(SIGKILL\)\. If nobody sent it"):
        in_own_process(ended_by_signal)
    with pytest.raises(RuntimeError, match="failed with status 1, see above"):
        in_own_process(raises, ValueError("a bug"))
    assert "ValueError: a bug" in capfd.readouterr().err


def test_from_a_thread_it_runs_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(in_own_process(os.getpid)))
    thread.start()
    thread.join()
    assert found[0] != os.getpid()


def test_nothing_is_forked_where_keras_is_at_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", object())
    assert not can_fork()
    monkeypatch.delitem(sys.modules, "keras")
    assert can_fork()
