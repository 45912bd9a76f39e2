"""Sweeps on a Ray that runs: one of its own, with one worker process."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pandas as pd
import pytest

from carcls.run import RUN, read_json
from tests.conftest import draw_competition
from tests.test_cli import ROOT
from tests.test_clusters import REASON, recorded, start

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason=REASON)

TIMEOUT_SECONDS = 300


@pytest.fixture
def on_ray():
    """Arguments of a command; when the test ends nothing of its Ray may be left."""
    folder = tempfile.mkdtemp(prefix="ray-")  # the path of a socket has room for few characters
    init = "+hydra.launcher.ray.init"
    yield [
        "hydra/launcher=ray", f"{init}.num_cpus=1", f"{init}.include_dashboard=false",
        f"{init}._node_ip_address=127.0.0.1", f"{init}._temp_dir={folder}",
    ]  # fmt: skip
    until = time.monotonic() + 30
    while (left := running_with(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    assert not left


def running_with(text: str) -> list[int]:
    """The processes whose command line has the text."""
    answer = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines()]
    return [int(pid) for pid, words in lines[1:] if text in words]


@pytest.fixture
def token(monkeypatch):
    """Else Ray makes one and keeps it in the home directory."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))


def test_four_jobs_of_which_one_has_its_worker_killed_all_finish(tmp_path, on_ray, token):
    root = draw_competition(tmp_path / "data", per_class=3)
    sweep, said = tmp_path / "sweep", tmp_path / "said.txt"
    train = [
        sys.executable, str(ROOT / "train.py"), "-m", "seed=1,2,3,4", f"data.root={root}",
        "backbone=smallcnn", "finetune.stages.all.epochs=3", "runtime.checkpoint_minutes=1e-9",
        "runtime.eager=true", "runtime.preflight=false", "runtime.workers=0",
        "hydra.sweep.dir=sweep", *on_ray,
    ]  # fmt: skip
    with said.open("w") as file:
        command = subprocess.Popen(
            train, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until = time.monotonic() + TIMEOUT_SECONDS
        while not (begun := list(sweep.glob("*/stages/000001/state.json"))):
            assert command.poll() is None and time.monotonic() < until, said.read_text()
            time.sleep(0.02)
        run = begun[0].parents[2]
        os.kill(int((run / ".lock").read_text()), signal.SIGKILL)
        status = command.wait(timeout=TIMEOUT_SECONDS)
    finally:
        command.kill()
        command.wait()
    assert status == 0, said.read_text()
    facts = {path.parent.name: read_json(path) for path in sorted(sweep.glob(f"*/{RUN}"))}
    assert list(facts) == [f"{number}_smallcnn_scratch" for number in range(4)]
    assert {each["status"] for each in facts.values()} == {"finished"}
    assert [each["config"]["seed"] for each in facts.values()] == [1, 2, 3, 4]
    # The one that was killed went on where it was, in another process.
    sessions = {name: len(each["sessions"]) for name, each in facts.items()}
    assert sessions == {name: 2 if name == run.name else 1 for name in facts}
    assert facts[run.name]["sessions"][1]["from"].startswith("stage 1/1 all, epoch ")
    assert len(pd.read_csv(run / "history.csv")) == 3
    board = pd.read_csv(sweep / "leaderboard.csv")
    assert sorted(board.seed) == [1, 2, 3, 4]
    assert set(board.state) == {"finished"}
    assert all((sweep / name / "evaluation" / "report.html").is_file() for name in facts)
    assert facts["1_smallcnn_scratch"]["command"].startswith("train.py seed=2 data.root=")


def test_jobs_that_fail_or_die_are_told_and_keep_no_other_from_running(tmp_path, on_ray, token):
    result = start(
        tmp_path, "seed=range(1,6)", "+hydra.launcher.ray.remote.max_retries=0",
        "hydra.sweep.dir=sweep", *on_ray,
    )  # fmt: skip
    assert result.returncode == 1, result.stdout
    states = recorded(tmp_path / "sweep")
    state, error = states.pop("seed=4")
    assert state == "killed"
    assert error.startswith("WorkerCrashedError: The worker died unexpectedly")
    assert states == {
        "seed=1": ("finished", None),
        "seed=2": ("failed", "Expected another seed. Received: seed=2."),
        "seed=3": ("failed", "a fault and of ours"),
        "seed=5": ("finished", None),
    }
    assert "3 of 5 jobs failed:\n" in result.stdout
    assert "  2_efficientnetb3_fast (seed=3): a fault and of ours\n" in result.stdout
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert board.state.value_counts().to_dict() == {"finished": 2, "failed": 2, "killed": 1}
