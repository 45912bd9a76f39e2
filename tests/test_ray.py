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


# What `ray start --head` makes, as long as its standard input is open.
CLUSTER = """
import sys, ray
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=78_643_200,
         _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def ray_folder(monkeypatch):
    """Where a Ray writes; when the test ends nothing of it may be left, and no process."""
    # Else Ray makes a token, and keeps it in the home directory.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="ray-")  # the path of a socket has room for few characters
    yield folder
    until = time.monotonic() + 30
    while (left := running_with(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    assert not left


@pytest.fixture
def cluster(ray_folder):
    """The address of a Ray that was there before the command."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, ray_folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process.stdout.readline().strip()
        process.stdin.close()


def running_with(text: str) -> list[int]:
    """The processes whose command line has the text."""
    answer = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines()]
    return [int(pid) for pid, words in lines[1:] if text in words]


def test_four_jobs_of_which_one_has_its_worker_killed_all_finish(tmp_path, ray_folder):
    root = draw_competition(tmp_path / "data", per_class=3)
    sweep, said = tmp_path / "sweep", tmp_path / "said.txt"
    init = "+hydra.launcher.ray.init"
    train = [
        sys.executable, str(ROOT / "train.py"), "-m", "seed=1,2,3,4", f"data.root={root}",
        "backbone=smallcnn", "finetune.stages.all.epochs=3", "runtime.checkpoint_minutes=1e-9",
        "runtime.eager=true", "runtime.preflight=false", "runtime.workers=0",
        "hydra.sweep.dir=sweep", "hydra/launcher=ray", f"{init}.num_cpus=1",
        f"{init}.include_dashboard=false", f"{init}._node_ip_address=127.0.0.1",
        f"{init}._temp_dir={ray_folder}",
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


def test_jobs_that_fail_or_die_are_told_and_keep_no_other_from_running(tmp_path, cluster):
    result = start(
        tmp_path, "seed=range(1,6)", "+hydra.launcher.ray.remote.max_retries=0",
        "hydra.sweep.dir=sweep", "hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster}",
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
