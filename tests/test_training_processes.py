"""Training as a process: what is a setting of the whole process, and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd

from tests import processes
from tests.conftest import FEW_LAYERS, draw_competition
from tests.processes import ROOT
from tests.test_workers import gone_within

RUN_WITHOUT_A_REPORT = """
from carcls.cli import run_app
from carcls.config import to_config

def job(cfg, workdir):
    from carcls.training.inputs import prepare_inputs
    from carcls.training.jobs import run_job
    config = to_config(cfg)
    run_job(config, workdir, prepare_inputs(config))

run_app("train", job)
"""


def started_anew(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """As `processes.run`, but nothing is imported before."""
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_history_for_any_number_of_workers(tmp_path):
    """In processes of their own: determinism is a setting of the whole process.

    Only one is forked: two starts of Python also differ in the order of their sets. And each stops
    where `train.py` would go on with a report, which has no part in this.
    """
    root = draw_competition(tmp_path / "data")
    job = tmp_path / "job.py"
    job.write_text(RUN_WITHOUT_A_REPORT)
    arguments = [
        f"data.root={root}", "finetune=full", "finetune.stages.all.epochs=2",
        "finetune.stages.all.trainable=0.1", "image_size=32", *FEW_LAYERS, "batch_size=4",
        "runtime.deterministic=true", "runtime.preflight=false", "runtime.eager=true",
    ]  # fmt: skip
    histories = []
    for workers, run_script in ((0, processes.run), (2, started_anew)):
        workdir = tmp_path / f"with_{workers}"
        own = [f"runtime.workers={workers}", f"hydra.run.dir={workdir}"]
        result = run_script(job, *arguments, *own, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        history = pd.read_csv(workdir / "history.csv")
        assert len(history) == 2
        histories.append(history.drop(columns=["seconds", "images_per_second"]))
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_ctrl_c_stops_after_saving_and_what_was_reached_can_be_predicted_with(tmp_path):
    root = draw_competition(tmp_path / "data")
    process, said = started(
        f"data.root={root}", *FEW_LAYERS, "finetune=staged", "image_size=32",
        "finetune.stages.head.epochs=100000", "runtime.workers=2", "runtime.preflight=false",
        f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, until="epoch  2/",
    )  # fmt: skip
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=120)
    output = said.read_text()
    assert gone_within(5, workers)
    assert process.exitcode == 130, output
    assert "Stopped by Ctrl-C" in output
    assert "Traceback" not in output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "interrupted"
    result = processes.run("predict.py", f"ckpt={tmp_path / 'run'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(pd.read_csv(tmp_path / "run" / "prediction" / "submission.csv")) == 5


def test_a_worker_that_is_killed_ends_the_run_and_what_was_reached_stays(tmp_path):
    root = draw_competition(tmp_path / "data")
    process, said = started(
        f"data.root={root}", *FEW_LAYERS, "finetune=staged", "image_size=32",
        "finetune.stages.head.epochs=100000", "runtime.workers=2", "runtime.preflight=false",
        "runtime.eager=true", f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, until="epoch  1/",
    )  # fmt: skip
    worker, other = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    process.join(timeout=30)
    output = said.read_text()
    assert process.exitcode == 2, output
    assert f"process {worker}, one of 2, was ended by signal 9 (SIGKILL)." in output
    assert "Traceback" not in output
    assert gone_within(5, [other])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) >= 1
    assert (tmp_path / "run" / "model.keras").is_file()


def started(*arguments: str, cwd: Path, until: str) -> tuple[BaseProcess, Path]:
    """A `train.py` that has said `until`, and the file with all that it says."""
    said = cwd / "said.txt"
    process = processes.start("train.py", *arguments, cwd=cwd, out=said, err=said)
    while process.is_alive() and not (said.is_file() and until in said.read_text()):
        time.sleep(0.01)
    return process, said


def workers_of(pid: int) -> list[int]:
    """The processes that prepare photos for another one."""
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children")
                for child in path.read_text().split()]  # fmt: skip
    lines = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, line in lines.items() if "carcls.data.worker" in line]
