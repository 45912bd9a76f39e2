"""Training as a process: what is a setting of the whole process, and signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.conftest import FEW_LAYERS, draw_competition
from tests.test_cli import ROOT
from tests.test_workers import gone_within


def test_the_same_seed_gives_the_same_history_for_any_number_of_workers(tmp_path):
    """In processes of their own: determinism is a setting of the whole process."""
    root = draw_competition(tmp_path / "data")
    histories = []
    for run, workers in (("one", 0), ("two", 2)):
        command = [
            sys.executable, str(ROOT / "train.py"), f"data.root={root}", "finetune=full",
            "finetune.stages.all.epochs=2", "finetune.stages.all.trainable=0.1", "image_size=32",
            *FEW_LAYERS, "batch_size=4", "runtime.deterministic=true", "runtime.preflight=false",
            "runtime.eager=true", f"runtime.workers={workers}", f"hydra.run.dir={tmp_path / run}",
        ]  # fmt: skip
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
        history = pd.read_csv(tmp_path / run / "history.csv")
        histories.append(history.drop(columns=["seconds", "images_per_second"]))
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_ctrl_c_stops_after_saving_and_what_was_reached_can_be_predicted_with(tmp_path):
    root = draw_competition(tmp_path / "data")
    command = [
        sys.executable, str(ROOT / "train.py"), f"data.root={root}", *FEW_LAYERS,
        "finetune=staged", "image_size=32", "finetune.stages.head.epochs=100000",
        "runtime.workers=2", "runtime.preflight=false",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    process = started(command, tmp_path, until="epoch  2/")
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert gone_within(5, workers)
    assert process.returncode == 130, output
    assert "Stopped by Ctrl-C" in output
    assert "Traceback" not in output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "interrupted"
    predict = [sys.executable, str(ROOT / "predict.py"), f"ckpt={tmp_path / 'run'}"]
    subprocess.run(predict, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert len(pd.read_csv(tmp_path / "run" / "prediction" / "submission.csv")) == 5


def test_a_worker_that_is_killed_ends_the_run_and_what_was_reached_stays(tmp_path):
    root = draw_competition(tmp_path / "data")
    command = [
        sys.executable, str(ROOT / "train.py"), f"data.root={root}", "backbone=efficientnetlite0",
        "finetune=staged", "image_size=32", "finetune.stages.head.epochs=100000",
        "runtime.workers=2", "runtime.preflight=false", "runtime.eager=true",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    process = started(command, tmp_path, until="epoch  1/")
    worker, other = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2, output
    assert f"process {worker}, one of 2, was ended by signal 9 (SIGKILL)." in output
    assert "Traceback" not in output
    assert gone_within(5, [other])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) >= 1
    assert (tmp_path / "run" / "model.keras").is_file()


def started(command: list[str], folder: Path, until: str) -> subprocess.Popen:
    """A process that has said `until`."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if until in line:
            break
    return process


def workers_of(pid: int) -> list[int]:
    """The processes that prepare photos for another one."""
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children")
                for child in path.read_text().split()]  # fmt: skip
    lines = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, line in lines.items() if "carcls.data.worker" in line]
