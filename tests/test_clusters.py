"""Sweeps under launchers that others have written. Ray has a file of its own."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from carcls.errors import JobFailedError
from carcls.quoting import quote_paths
from carcls.run import RUN, read_json
from carcls.sweeps import clusters, command
from carcls.sweeps.record import SWEEP
from tests.conftest import draw_competition
from tests.test_cli import ROOT
from tests.test_config import as_composed
from tests.test_docs import commands

REASON = "needs requirements-clusters.txt"

# Trains nothing. Seed 2 is a mistake of the user, seed 3 a fault of ours, seed 4 dies.
JOB = """
import os, signal
from carcls.cli import run_app
from carcls.config import to_config, to_plain, with_absolute_paths
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.run import write_json
from carcls.sweeps.clusters import sweeping

class OddError(Exception):
    def __init__(self, one, two):  # cannot be unpickled
        super().__init__(f"{one} and {two}\\nand more of it")

def job(cfg, workdir):
    config = to_config(cfg)
    with (workdir / "count").open("a") as file:
        file.write("x")
    config.data, config.resume = with_absolute_paths(config.data), None
    facts = {"config": to_plain(config), "status": "running",
             "data_fingerprint": read_training_photos(config.data).fingerprint()}
    write_json(workdir / "run.json", facts)
    if config.seed == 2:
        raise UserError("Expected another seed. Received: seed=2.")
    if config.seed == 3:
        raise OddError("a fault", "of ours")
    if config.seed == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(workdir / "metrics.json", {
        "val_accuracy": config.seed / 10, "val_loss": 1.0, "n_val": 50, "seconds": 61.0,
        "stages": [{"name": "head", "val_accuracy": config.seed / 20}]})
    write_json(workdir / "run.json", facts | {"status": "finished"})

if __name__ == "__main__":
    run_app("train", job, sweeping)
"""


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the job above; what it says is one text, in order."""
    if not (folder / "job.py").exists():
        draw_competition(folder / "data", per_class=2)
        (folder / "job.py").write_text(JOB)
    return subprocess.run(
        [sys.executable, "job.py", "-m", *arguments], cwd=folder, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def recorded(sweep: Path) -> dict[str, tuple[str, str | None]]:
    """State and error of each job, by its overrides."""
    jobs = json.loads((sweep / SWEEP).read_text())["jobs"]
    return {" ".join(job["overrides"]): (job["state"], job["error"]) for job in jobs}


def test_why_a_job_failed_crosses_processes():
    error = pickle.loads(pickle.dumps(JobFailedError("Expected more.", is_mistake=True)))
    assert (str(error), error.is_mistake) == ("Expected more.", True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra/launcher=submitit_local"],  # without -m
        ["-m", "seed=1,2"],
        ["-m", "seed=1,2", "hydra/launcher=basic"],
        ["-m", "seed=1,2", "hydra/launcher=processes"],
        ["-m", "seed=1,2", "hydra/launcher=nowhere"],
        ["-m", "hydra/launcher=submitit_local", "--help"],
    ],
)
def test_what_others_do_not_launch_is_left_alone(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert clusters.sweeping(arguments) == arguments


@pytest.mark.parametrize(
    "words",
    [words[1:] for file, words in commands() if file == "clusters.md" and words[0] == "python"],
    ids=" ".join,
)
def test_every_setting_of_a_launcher_that_clusters_md_shows_exists(words):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason=REASON)
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason=REASON)
    given = [word.split(",")[0] for word in words if "=" in word]
    as_composed(*quote_paths(given))


def test_one_job_that_fails_under_submitit_is_told_and_compared_and_alone_runs_again(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason=REASON)
    arguments = ["seed=2,5", "hydra/launcher=submitit_local"]
    first = start(tmp_path, *arguments)
    assert first.returncode == 2, first.stdout
    (sweep,) = (tmp_path / "outputs").iterdir()
    told = "Expected another seed. Received: seed=2."
    assert recorded(sweep) == {"seed=2": ("failed", told), "seed=5": ("finished", None)}
    assert f"1 of 2 jobs failed:\n  0_efficientnetb3_fast (seed=2): {told}" in first.stdout
    board = pd.read_csv(sweep / "leaderboard.csv")
    assert board.seed.tolist() == [5, 2], "the best first"
    assert board.state.tolist() == ["finished", "failed"]
    assert board.val_accuracy[0] == 0.5
    assert "python predict.py ckpt=" in first.stdout
    assert read_json(sweep / "1_efficientnetb3_fast" / RUN)["config"]["seed"] == 5
    again = start(tmp_path, *arguments)
    assert again.returncode == 2, again.stdout
    assert f"This command began {sweep.relative_to(tmp_path)}, and goes on there." in again.stdout
    assert "1 finished before, 1 to go on with\n" in again.stdout
    counts = [(sweep / f"{i}_efficientnetb3_fast" / "count").read_text() for i in (0, 1)]
    assert counts == ["xx", "x"]
    assert "Traceback" not in first.stdout + again.stdout
    assert command.sweeping(["-m", *arguments]) == ["-m", *arguments]
