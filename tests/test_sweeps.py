"""The jobs of a sweep: each in a process of its own, none lost, none run twice."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from carcls import swept
from carcls.data.workers import default_workers, workers_for
from carcls.errors import UserError
from carcls.run import METRICS, RUN, read_json, write_json
from carcls.sweeps import command
from carcls.sweeps.plan import Wanted, plan
from carcls.sweeps.processes import places_for, reason, run_jobs, visible_gpus
from carcls.sweeps.record import SWEEP, Job, newest_of, read_jobs, write_jobs
from tests import processes
from tests.conftest import FEW_LAYERS, draw_competition
from tests.test_cli import ROOT
from tests.test_find_run import here, left, of_command

__all__ = ["here"]  # a fixture


def jobs_of(*overrides: str) -> list[Job]:
    return [Job(number=i, overrides=[text], folder=str(i)) for i, text in enumerate(overrides)]


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, signal, sys, time\n{code}"]


def test_jobs_end_each_for_itself(capfd):
    codes = {
        "good": "print('well')",
        "mistaken": "sys.stderr.write('error: Expected more. Received: less.\\n'); sys.exit(2)",
        "crashing": "raise RuntimeError('a fault of ours\\nand more of it')",
        "killed": "os.kill(os.getpid(), signal.SIGKILL)",
        "last": "print(os.environ['CARCLS_JOBS_AT_ONCE'], os.environ['PLACE'])",
    }
    jobs, seen = jobs_of(*codes), []
    jobs.append(Job(number=5, overrides=["done"], folder="5", state="finished before"))
    run_jobs(
        jobs,
        lambda job: python(codes[job.overrides[0]]),
        [{"PLACE": "a"}, {"PLACE": "b"}],
        lambda job: seen.append((job.number, job.state)),
    )
    assert [job.state for job in jobs] == [
        "finished", "failed", "failed", "killed", "finished", "finished before",
    ]  # fmt: skip
    assert [job.status for job in jobs] == [0, 2, 1, -9, 0, None]
    assert [job.error for job in jobs] == [
        None, "Expected more. Received: less.", "RuntimeError: a fault of ours",
        "signal 9 (SIGKILL); if nobody sent it the machine was short of memory", None, None,
    ]  # fmt: skip
    assert [state for number, state in seen if number == 1] == ["running", "failed"]
    assert len(seen) == 11  # the one that was finished is told, and not run
    said, told = capfd.readouterr()
    assert "#0  well\n" in said
    assert "#4  2 a\n" in said or "#4  2 b\n" in said
    assert "#1  error: Expected more. Received: less.\n" in told


def test_one_at_a_time_they_print_as_if_alone(capfd):
    run_jobs(jobs_of("a"), lambda job: python("print('well')"), [{}], lambda job: None)
    assert capfd.readouterr().out == "well\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_jobs_save_and_starts_no_other(tmp_path, number, capfd):
    code = (
        f"def save(*_):\n    open({str(tmp_path)!r} + '/saved', 'w')\n    sys.exit(130)\n"
        f"signal.signal({number}, save)\nopen({str(tmp_path)!r} + '/ready', 'w')\ntime.sleep(60)"
    )
    jobs = jobs_of("a", "b")

    def stop(job: Job) -> None:
        while job.state == "running" and not (tmp_path / "ready").exists():
            pass
        os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, lambda job: python(code), [{}], stop)
    assert (tmp_path / "saved").exists()
    assert [(job.state, job.error) for job in jobs] == [("stopped", None), ("waiting", None)]
    assert "Stopping: the jobs that run save what they reached." in capfd.readouterr().out


def test_a_job_ends_when_its_sweep_is_gone(tmp_path):
    code = "from carcls.swept import *; import time; stop_with_sweep(); print(); time.sleep(60)"
    job = subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    job.stdout.readline()
    assert job.poll() is None
    job.stdin.close()  # as when the process that holds it is killed
    assert job.wait(timeout=20) == -signal.SIGTERM
    job.stdout.close()


def test_jobs_share_the_cores_and_the_gpus(monkeypatch, tmp_path):
    assert workers_for(10**6, None) == default_workers()
    monkeypatch.setenv(swept.JOBS_AT_ONCE, str(10**6))
    assert workers_for(10**6, None) == 1
    assert workers_for(10**6, 3) == 3
    key = "CUDA_VISIBLE_DEVICES"
    assert places_for(None, []) == [{}] == places_for(None, ["0"]) == places_for(1, ["0", "1"])
    assert places_for(None, ["0", "1"]) == [{key: "0"}, {key: "1"}]
    assert places_for(2, ["0", "1", "2"]) == [{key: "0,2"}, {key: "1"}]
    assert places_for(3, ["0", "1"]) == [{key: "0"}, {key: "1"}, {key: "0"}]
    assert places_for(2, ["0"]) == [{}, {}]
    monkeypatch.setenv(key, "3, 1,-1,2")
    assert visible_gpus() == ["3", "1"]
    monkeypatch.delenv(key)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    driver.chmod(0o755)
    assert visible_gpus() == ["GPU-1", "GPU-2"]


def test_why_a_job_failed_is_found_in_what_it_said():
    trace = ["Traceback (most recent call last):", '  File "x"', "    y()"]
    assert reason([*trace, "KeyError: 1", "during", *trace, "ValueError: 2", "more"], 1) == (
        "ValueError: 2"
    )
    assert reason([*trace, "x.UserError: 1", "error: Expected."], 2) == "Expected."
    assert reason(["Could not override 'x'.", ""], 1) == "Could not override 'x'."
    assert reason([], 3) == "ended with status 3 and said nothing"


def wanted(number: int, folder: str, seed: int, workers: int | None = None) -> Wanted:
    config = replace(of_command(), seed=seed)
    config.runtime = replace(config.runtime, workers=workers)
    return Wanted(number=number, overrides=[], folder=folder, config=config)


def left_with(seed: int, name: str, status: str) -> None:
    facts = read_json(left(name, status) / RUN)
    write_json(Path("outputs", name, RUN), facts | {"config": facts["config"] | {"seed": seed}})


def test_a_job_is_recognised_by_what_it_ran(here):
    for seed, status in enumerate(("finished", "running", "diverged", "find_lr", "failed"), 1):
        left_with(seed, f"{seed - 1}_a", status)
    before = [Job(number=i, overrides=[], folder=f"{i}_a") for i in range(5)]
    # Another order, so other numbers; one that is new, which must not replace what is there.
    asked = [wanted(i, f"{i}_a", seed) for i, seed in enumerate((6, 5, 4, 3, 2, 1))]
    asked.append(wanted(6, "6_a", seed=1, workers=3))  # the same once more
    asked.append(Wanted(number=7, overrides=[], folder="0_a", config=None))
    jobs = plan(asked, Path("outputs"), before)
    assert [(job.folder, job.state, job.is_resumed) for job in jobs] == [
        ("0_a_2", "waiting", False), ("4_a", "waiting", True), ("3_a", "finished before", True),
        ("2_a", "waiting", False), ("1_a", "waiting", True), ("0_a", "finished before", True),
        ("6_a", "waiting", False), ("0_a_3", "waiting", False),
    ]  # fmt: skip
    (job,) = plan([wanted(0, "new", seed=1, workers=3)], Path("outputs"), before)
    assert (job.folder, job.state) == ("0_a", "finished before")
    # A photo was changed: what was trained on it is not what is asked for.
    next((here / "competition" / "train").rglob("*.png")).write_bytes(b"another photo")
    (job,) = plan([wanted(0, "0_a", seed=1)], Path("outputs"), before)
    assert (job.folder, job.state) == ("0_a_2", "waiting")


def test_a_sweep_is_found_by_its_command(tmp_path):
    for age, (name, arguments) in enumerate(
        {"new": ["a=1,2", "b=1"], "old": ["b=1", "a=1,2"], "other": ["a=1,2"]}.items()
    ):
        write_jobs(tmp_path / name, arguments, jobs_of("a=1", "a=2"))
        os.utime(tmp_path / name / SWEEP, (1e9 - age, 1e9 - age))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / SWEEP).write_text("{")
    assert newest_of(["b=1", "a=1,2"], tmp_path) == tmp_path / "new"
    assert newest_of(["b=2"], tmp_path) is None
    assert read_jobs(tmp_path / "old") == jobs_of("a=1", "a=2")
    assert read_jobs(tmp_path) == []
    write_json(tmp_path / SWEEP, {"jobs": [{"what": 1}]})
    with pytest.raises(UserError, match="Expected the jobs of a sweep"):
        read_jobs(tmp_path)


def test_the_same_command_goes_on_where_it_began(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["-m", "seed=1,2", "data.root=x y", "hydra.launcher.jobs=2"]
    ours = "hydra/launcher=processes"
    assert command.sweeping(given) == [*given, ours]
    write_jobs(Path("outputs/mine"), ["data.root='x y'", "seed=1,2"], [])
    assert command.sweeping(given) == [*given, ours, "hydra.sweep.dir=outputs/mine"]
    assert capsys.readouterr().out == (
        "This command began outputs/mine, and goes on there. Another sweep: hydra.sweep.dir=DIR.\n"
    )
    for left_alone in (["seed=1"], ["-m", "hydra/launcher=basic"], ["-m", "--help"]):
        assert command.sweeping(left_alone) == left_alone
    assert command.sweeping([*given, "hydra.sweep.dir=d"])[4:] == ["hydra.sweep.dir=d", ours]


JOB = """
import os, signal
from pathlib import Path
from carcls.cli import run_app
from carcls.config import to_config, to_plain, with_absolute_paths
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.run import write_json
from carcls.sweeps.command import sweeping

def job(cfg, workdir):
    config = to_config(cfg)
    config.data, config.resume = with_absolute_paths(config.data), None
    is_again = (workdir / "begun").exists()
    (workdir / "begun").touch()
    facts = {"config": to_plain(config), "status": "running",
             "data_fingerprint": read_training_photos(config.data).fingerprint()}
    write_json(workdir / "run.json", facts)
    if config.seed == 2:
        raise UserError("Expected another seed. Received: seed=2.")
    if config.seed == 3 and not is_again:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(workdir / "metrics.json", {
        "val_accuracy": config.seed / 10, "val_loss": 1.0, "n_val": 50, "seconds": 61.0,
        "stages": [{"name": "head", "val_accuracy": config.seed / 20}]})
    (workdir / "count").write_text((workdir / "count").read_text() + "x" if
                                   (workdir / "count").exists() else "x")
    write_json(workdir / "run.json", facts | {"status": "finished"})

def before(arguments):
    from carcls.training.resume import resuming
    return resuming(arguments) if any("resume=" in a for a in arguments) else sweeping(arguments)

run_app("train", job, before)
"""


def test_started_again_only_what_failed_and_what_was_killed_runs(tmp_path):
    """The whole way, with a job that trains nothing."""
    draw_competition(tmp_path / "data", per_class=2)
    (tmp_path / "job.py").write_text(JOB)

    def start() -> subprocess.CompletedProcess:
        given = ("seed=range(1,5)", "-m", "hydra.launcher.jobs=2")
        return processes.run(tmp_path / "job.py", *given, cwd=tmp_path)

    def states() -> list[str]:
        (record,) = (tmp_path / "outputs").glob("*/sweep.json")
        return [job["state"] for job in json.loads(record.read_text())["jobs"]]

    first = start()
    assert first.returncode == 1, first.stderr
    assert states() == ["finished", "failed", "killed", "finished"]
    assert "2 of 4 jobs failed:\n  1_efficientnetb3_fast (seed=2): Expected another" in first.stderr
    assert "2_efficientnetb3_fast (seed=3): signal 9 (SIGKILL)" in first.stderr
    assert "#3  finished, 40.0% (27.6% to 53.8%) (seed=4)\n" in first.stdout
    again = start()
    assert again.returncode == 2, again.stderr
    assert "4 jobs in outputs/" in again.stdout
    assert "2 finished before, 2 to go on with, 2 at a time\n" in again.stdout
    assert states() == ["finished before", "failed", "finished", "finished before"]
    (sweep,) = (tmp_path / "outputs").iterdir()
    counts = {path.parent.name: path.read_text() for path in sweep.glob("*/count")}
    assert counts == {f"{i}_efficientnetb3_fast": "x" for i in (0, 2, 3)}
    assert "1 of 4 jobs failed:" in again.stderr
    assert "Traceback" not in first.stderr + again.stderr
    best = f"python predict.py ckpt={(sweep / '3_efficientnetb3_fast').relative_to(tmp_path)}"
    assert best in again.stdout
    recorded = json.loads((sweep / "2_efficientnetb3_fast" / RUN).read_text())
    assert recorded["status"] == "finished"
    assert not list(tmp_path.rglob("*=*"))


def test_two_jobs_at_a_time_give_what_one_run_gives(tmp_path):
    """With networks that train: `train.py` itself."""
    root = draw_competition(tmp_path / "data", per_class=3)
    train = [
        sys.executable, str(ROOT / "train.py"), f"data.root={root}", "finetune=full",
        "finetune.stages.all.epochs=1", "finetune.stages.all.trainable=0.1", "image_size=32",
        *FEW_LAYERS, "batch_size=4", "runtime.eager=true", "runtime.preflight=false",
        "runtime.deterministic=true",
    ]  # fmt: skip
    sweep = ["-m", "head=avg_dense,max_dense", "hydra.launcher.jobs=2", "hydra.sweep.dir=sweep"]
    result = subprocess.run(
        [*train, *sweep], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    runs = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [run.name for run in runs] == ["0_vgg16_full", "1_vgg16_full"]
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert board.state.tolist() == ["finished", "finished"]
    assert sorted(board["head"]) == ["avg_dense", "max_dense"]
    assert (runs[1] / "evaluation" / "report.html").is_file()
    alone = processes.run(
        "train.py", *train[2:], "head=max_dense", "hydra.run.dir=alone", cwd=tmp_path
    )
    assert alone.returncode == 0, alone.stderr
    assert metrics_of(runs[0]) != metrics_of(runs[1]) == metrics_of(tmp_path / "alone")


def metrics_of(run: Path) -> dict:
    """All but the times."""
    metrics = read_json(run / METRICS)
    stages = [{**stage, "seconds": None} for stage in metrics["stages"]]
    return {**metrics, "seconds": None, "stages": stages}
