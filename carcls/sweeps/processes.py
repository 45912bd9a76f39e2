"""A process for each job of a sweep, some at a time; what one does to itself harms no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from types import FrameType
from typing import TextIO

from carcls import swept
from carcls.sweeps.record import FAILED, FINISHED, KILLED, PRUNED, RUNNING, STOPPED, WAITING, Job

_POLL_SECONDS = 0.1
_KEPT_LINES = 500  # of what a job says on standard error
_INTERRUPTED = 130  # as shells have it, and carcls.cli


def run_jobs(
    jobs: Iterable[Job],
    command_of: Callable[[Job], list[str]],
    places: Sequence[dict[str, str]],
    changed: Callable[[Job], None],
    is_enough: Callable[[Job], bool] = lambda job: False,
) -> None:
    """Runs jobs, and sets their states, errors and statuses.

    What they say is handed on as it comes. Ctrl-C and SIGTERM are handed on to those that run, and
    no other is started: they may save what they reached. A second one stops them at once, a third
    one kills them. If this process is killed, they get SIGTERM.

    Args:
        jobs: The next is taken when there is a place for it. One that does not wait is left as it
            is, and told to `changed`.
        command_of: Gives the words of a job's command.
        places: As many jobs run at a time; each is added to its job's environment.
        changed: Called when a job has started, and when it has ended.
        is_enough: Asked all the time of each job that runs. One that is to end saves what it
            reached, as after Ctrl-C.

    Raises:
        KeyboardInterrupt: If it was stopped; when all have ended.
    """
    waiting = iter(jobs)
    free, running, is_over = deque(places), [], False
    with _noting_signals() as received:
        handed_on = 0
        try:
            while running or not (is_over or received):
                while free and not (is_over or received):
                    job = next(waiting, None)
                    is_over = job is None
                    if job is not None and job.state == WAITING:
                        place = free.popleft()
                        running.append(_start(job, command_of(job), place, len(places)))
                    if job is not None:
                        changed(job)
                for number in received[handed_on:]:
                    handed_on += 1
                    _hand_on(number, handed_on, running)
                for one in [one for one in running if one.popen.poll() is not None]:
                    running.remove(one)
                    free.append(one.place)
                    _conclude(one, is_stopping=bool(received))
                    changed(one.job)
                for one in running:
                    if not (received or one.is_given_up) and is_enough(one.job):
                        one.is_given_up = True
                        one.popen.send_signal(signal.SIGINT)
                time.sleep(_POLL_SECONDS)
        except Exception:  # of who chooses the jobs
            _hand_on(signal.SIGINT, max(handed_on, 1), running)
            while running:
                for number in received[handed_on:]:
                    handed_on += 1
                    _hand_on(number, handed_on + 1, running)
                for one in [one for one in running if one.popen.poll() is not None]:
                    running.remove(one)
                    _conclude(one, is_stopping=True)
                time.sleep(_POLL_SECONDS)
            raise
        if received:
            raise KeyboardInterrupt


def visible_gpus() -> list[str]:
    """The GPUs that a job could use, as `CUDA_VISIBLE_DEVICES` names them. Loads no library."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:  # what follows an unknown one does not count for CUDA either
        names = (name.strip() for name in listed.split(","))
        return list(takewhile(lambda name: name not in ("", "-1"), names))
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):  # no NVIDIA driver
        return []
    return answer.stdout.split()


def places_for(num_jobs: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each place that a job can run at, its share of the GPUs in it.

    Args:
        num_jobs: How many jobs run at a time; None: one a GPU.
        gpus: As `visible_gpus` gives them. More jobs than GPUs share them.
    """
    count = num_jobs or max(len(gpus), 1)
    shares = [gpus[place::count] or gpus[place % max(len(gpus), 1) :][:1] for place in range(count)]
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(share)} if len(gpus) > 1 and count > 1 else {}
        for share in shares
    ]


@dataclass(kw_only=True)
class _Running:
    job: Job
    popen: subprocess.Popen
    place: dict[str, str]
    relays: list[threading.Thread]
    is_given_up: bool = False
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))


def _start(job: Job, command: list[str], place: dict[str, str], num_places: int) -> _Running:
    is_alone = num_places == 1
    popen = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # nothing comes through it: its end is ours, see carcls.swept
        stdout=None if is_alone else subprocess.PIPE,  # alone it may draw bars on the terminal
        stderr=subprocess.PIPE,
        env={**os.environ, **place, swept.JOBS_AT_ONCE: str(num_places)},
        process_group=0 if os.name == "posix" else None,  # Ctrl-C is for us to hand on, once
        encoding="utf-8",
        errors="replace",
    )
    job.state, job.error, job.status = RUNNING, None, None
    prefix = "" if is_alone else f"#{job.number}  "
    one = _Running(job=job, popen=popen, place=place, relays=[])
    for source, target in ((popen.stdout, sys.stdout), (popen.stderr, sys.stderr)):
        if source is not None:
            kept = one.said if target is sys.stderr else None
            relay = threading.Thread(target=_relay, args=(source, target, prefix, kept))
            relay.daemon = True
            relay.start()
            one.relays.append(relay)
    return one


def _relay(source: TextIO, target: TextIO, prefix: str, kept: deque[str] | None) -> None:
    """Hands lines on as they come, so that those of several jobs do not mix within one."""
    with source:
        for line in source:
            if kept is not None:
                kept.append(line.rstrip("\n"))
            try:
                target.write(prefix + line)
                target.flush()
            except (OSError, ValueError):  # nobody reads it any more; the job must not wait
                continue


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """The numbers of the signals that ask to stop, as they come."""
    received: list[int] = []
    before = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is threading.main_thread():  # others cannot take signals
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_on(number: int, times: int, running: list[_Running]) -> None:
    if times == 1:
        print(
            "\nStopping: the jobs that run save what they reached. Ctrl-C again stops them at "
            "once, a third time kills them.",
            flush=True,
        )
    for one in running:
        one.popen.send_signal(number if times < 3 else signal.SIGKILL)


def _conclude(one: _Running, is_stopping: bool) -> None:
    for relay in one.relays:
        relay.join(timeout=5)  # a process that the job left behind may hold its other end
    one.popen.stdin.close()
    job, status = one.job, one.popen.returncode
    job.status = status
    if status == 0:
        job.state, job.error = FINISHED, None
    elif one.is_given_up and status in (_INTERRUPTED, -signal.SIGINT):
        job.state = PRUNED  # why is known to who gave it up
    elif status == _INTERRUPTED or (is_stopping and status < 0):
        job.state, job.error = STOPPED, None if is_stopping else "by a signal to this job alone"
    elif status < 0:
        name = signal.Signals(-status).name
        job.state = KILLED
        job.error = f"signal {-status} ({name})"
        if -status == signal.SIGKILL:
            job.error += "; if nobody sent it the machine was short of memory"
    else:
        job.state, job.error = FAILED, reason(list(one.said), status)


def reason(said: Sequence[str], status: int) -> str:
    """Why a job failed, in one line, from what it said on standard error.

    Args:
        said: Its last lines.
        status: Its exit status.
    """
    traces = [i for i, line in enumerate(said) if line.startswith("Traceback (most recent")]
    told = [i for i, line in enumerate(said) if line.startswith("error: ")]
    if told and (not traces or told[-1] > traces[-1]):
        return said[told[-1]].removeprefix("error: ")
    # The exception is the first line after its traceback that is not set in.
    after = [line for line in said[traces[-1] + 1 :] if line.strip()] if traces else []
    lines = [line for line in after if not line[0].isspace()] or [x for x in said if x.strip()][-1:]
    return lines[0].strip() if lines else f"ended with status {status} and said nothing"
