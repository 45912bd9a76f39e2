"""The leaderboard of a sweep, on run directories as jobs leave them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.run import METRICS, MODEL, RUN, write_json
from carcls.sweeps.leaderboard import DEFAULT, Leaderboard, effects, values_of, varying, wilson
from carcls.sweeps.record import Job


def job(number: int, *overrides: str, state: str = "finished", error: str | None = None) -> Job:
    return Job(
        number=number, overrides=["data=folder", *overrides], folder=f"{number}_job", state=state,
        error=error,
    )  # fmt: skip


def leave(
    root: Path, number: int, accuracy: float | None, loss: float = 1.0, data: str = "d"
) -> None:
    run = root / f"{number}_job"
    stages = [{"name": "head", "epochs": 1, "val_accuracy": 0.5, "seconds": 1.0},
              {"name": "all", "epochs": 2, "val_accuracy": accuracy, "seconds": 2.0}]  # fmt: skip
    metrics = {"val_accuracy": accuracy, "val_loss": loss, "n_val": 100 if accuracy else 0,
               "seconds": 3.0 + number, "stages": stages}  # fmt: skip
    write_json(run / METRICS, metrics)
    config = {"target": "fine", "data": {"name": "folder", "root": str(root)}}
    write_json(run / RUN, {"data_fingerprint": data, "config": config})
    (run / MODEL).write_bytes(bytes(1_500_000))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs that are done, one with other photos; one that failed, one that was killed."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my sweep"
    for number, (accuracy, loss) in enumerate([(0.8, 0.6), (0.9, 0.5), (0.9, 0.4)]):
        leave(root, number, accuracy, loss)
    leave(root, 3, 0.85, data="other")
    leave(root, 4, 0.99)  # from before it failed
    jobs = [
        job(0, "seed=1", "head='a|b'"), job(1, "seed=2", "head='a|b'"),
        job(2, "seed=10", state="finished before"), job(3, "seed=1"),
        job(4, "seed=2", state="failed", error="Expected <more>."),
        job(5, "seed=10", "head='a|b'", state="killed", error="signal 9 (SIGKILL)"),
        job(6, "seed=3", state="running"),
    ]  # fmt: skip
    return root, jobs


def test_the_best_comes_first_and_what_has_no_number_last(sweep):
    root, jobs = sweep
    board = Leaderboard(root)
    board.write(jobs)
    rows = pd.read_csv(root / "leaderboard.csv")
    assert rows.columns.tolist() == [
        "job", "state", "seed", "head", "val_accuracy", "val_accuracy_low", "val_accuracy_high",
        "val_loss", "n_val", "head_accuracy", "all_accuracy", "seconds", "size_mb", "error", "run",
    ]  # fmt: skip
    assert rows.job.tolist() == [2, 1, 3, 0, 4, 5, 6]
    assert rows["head"].tolist()[:3] == [DEFAULT, "a|b", DEFAULT]
    assert rows.val_accuracy.tolist()[:4] == [0.9, 0.9, 0.85, 0.8]
    assert rows.val_accuracy[4:].isna().all(), "what failed has no number"
    assert (rows.size_mb[0], rows.seconds[0]) == (1.5, 5.0)
    assert (rows.all_accuracy[3], rows.head_accuracy[3]) == (0.8, 0.5)
    assert board.accuracy(jobs[1]) == 0.9
    assert board.accuracy(jobs[4]) is None
    assert board.shown(jobs[1]) == "90.0% (82.6% to 94.5%)"


def test_the_pages_tell_what_happened_to_each(sweep):
    root, jobs = sweep
    board = Leaderboard(root)
    board.write(jobs)
    markdown = (root / "leaderboard.md").read_text()
    assert "7 jobs: 4 done, 1 running, 1 failed, 1 killed." in markdown
    assert "All with `data=folder`." in markdown
    assert (
        "| #1 | 2 | a\\|b | finished | 90.0% (82.6% to 94.5%) | 50.0% | 90.0% | 0:04 |" in markdown
    )
    assert "| 5_job | signal 9 (SIGKILL) |" in markdown
    assert "finished before" in markdown
    page = (root / "leaderboard.html").read_text()
    assert "Expected &lt;more&gt;." in page
    assert '<a href="2_job/evaluation/report.html">2_job</a>' in page
    assert '<a href="4_job' not in page
    assert "data:image/png;base64," in page
    with Image.open(root / "leaderboard.png") as picture:
        assert picture.size[0] > picture.size[1] / 2
    assert "#2" in board.summary(jobs)
    assert "leaderboard.png" in board.summary(jobs)


def test_the_commands_take_the_best_few_that_know_the_same_photos(sweep):
    root, jobs = sweep
    board = Leaderboard(root)
    board.write(jobs)
    several = "['my sweep/2_job','my sweep/1_job','my sweep/0_job']"
    for text in (board.summary(jobs), (root / "leaderboard.md").read_text()):
        assert "python predict.py ckpt='my sweep/2_job' images=PHOTO" in text
        assert f"python predict.py ckpt={several} images=PHOTO" in text
        assert f"python evaluate.py ckpt={several}" in text


def test_it_grows_as_jobs_finish(sweep):
    root, jobs = sweep
    board = Leaderboard(root)
    for one in jobs:
        one.state, one.error = "waiting", None
    board.write(jobs)
    assert "7 jobs: 7 waiting." in board.summary(jobs)
    assert not (root / "leaderboard.png").exists()
    jobs[0].state, jobs[1].state = "finished", "running"
    board.write(jobs)
    assert "7 jobs: 1 done, 1 running, 5 waiting." in board.summary(jobs)
    assert "predict with the best" in board.summary(jobs)
    assert "with the best" not in board.summary(jobs).replace("predict with the best", "")
    jobs[1].state = "finished"
    board.write(jobs)
    assert (root / "leaderboard.png").exists()


def test_jobs_without_validation_photos_have_times_alone(tmp_path):
    leave(tmp_path, 0, None)
    board = Leaderboard(tmp_path)
    board.write([job(0)])
    rows = pd.read_csv(tmp_path / "leaderboard.csv")
    assert "val_accuracy" not in rows
    assert rows.seconds.tolist() == [3.0]
    assert board.accuracy(job(0)) is None


def test_what_varies_is_what_is_not_the_same_everywhere():
    jobs = [job(0, "+a=1", "b='x y'"), job(1, "a=2", "b='x y'"), job(2, "b='x y'")]
    assert varying(jobs) == ["a"]
    assert values_of(jobs[0]) == {"data": "folder", "a": "1", "b": "x y"}
    assert varying(jobs[:1]) == []


def test_effects_are_means_over_the_other_overrides_the_widest_first():
    rows = pd.DataFrame(
        {
            "seed": ["2", "10", "2", "10", "2"], "head": ["a", "a", "b", "b", "b"],
            "val_accuracy": [0.5, 0.6, 0.8, 0.9, np.nan],
        }
    )  # fmt: skip
    found = effects(rows, ["seed", "head"])
    assert found.key.tolist() == ["head", "head", "seed", "seed"]
    assert found.value.tolist() == ["a", "b", "2", "10"], "numbers by their size"
    assert found["mean"].tolist() == pytest.approx([0.55, 0.85, 0.65, 0.75])
    assert found["std"].tolist() == pytest.approx([0.0707, 0.0707, 0.2121, 0.2121], abs=1e-4)
    assert found.jobs.tolist() == [2, 2, 2, 2]
    assert (found.low[1], found.high[1]) == (0.8, 0.9)
    assert effects(rows[:1], ["seed"]) is None
    assert effects(rows, []) is None


def test_the_interval_is_wilsons():
    assert wilson(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
