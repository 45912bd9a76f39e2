"""Commands as processes of their own, forked from one that has imported TensorFlow.

To import it takes longer than most of what tests ask of a command. What is forked is a process as
any other: with an id, signals, an exit status, environment and output of its own. Before the fork
nothing of carcls is imported and no device was looked at. What is to be proved of the imports, or
of what differs from one start of Python to the next, needs a process of `subprocess`.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parent.parent

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["cv2", "hydra", "keras", "matplotlib.pyplot", "pandas", "tensorflow"]
)


def start(
    script: str | Path, *arguments: str, cwd: Path, out: Path, err: Path, **environment: str
) -> BaseProcess:
    """Begins what `python script arguments` would, and does not wait for it.

    Args:
        script: A file of Python; its path, from the root of the project if it is not absolute.
        arguments: As the shell hands them over.
        cwd: Where it runs.
        out: A file, for the standard output.
        err: A file, for the standard error; may be that of the output.
        environment: What is to be other than here.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = _SERVER.Process(
        target=_become, args=(str(ROOT / script), arguments, cwd, out, err, environment)
    )
    process.start()
    return process


def run(
    script: str | Path, *arguments: str, cwd: Path, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess:
    """As `subprocess.run(["python", script, *arguments])` with all output captured as text.

    Raises:
        subprocess.TimeoutExpired: If it takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out.txt"), Path(folder, "err.txt")
        process = start(script, *arguments, cwd=cwd, out=out, err=err, **environment)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], timeout)
        return subprocess.CompletedProcess(
            [script, *arguments], process.exitcode, out.read_text(), err.read_text()
        )


def _become(
    script: str, arguments: tuple[str, ...], cwd: Path, out: Path, err: Path, environment: dict
) -> None:
    """In the new process: all that a shell and Python do before the script, and after it."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.argv = [script, *arguments]
    sys.path[:0] = [str(Path(script).parent), str(ROOT)]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
