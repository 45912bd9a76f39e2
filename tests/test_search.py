"""The trials of `-m search=`: chosen by Optuna, given up as they train, never lost."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from PIL import Image

from carcls import run as files
from carcls.config import SearchConfig
from carcls.errors import STATUS_USER_ERROR, UserError
from carcls.sweeps import command
from carcls.sweeps.record import FAILED, Job, read_jobs
from carcls.sweeps.search import SearchSweeper
from carcls.sweeps.search_picture import draw_search
from carcls.sweeps.study import DATABASE, Study, distribution_of, holds, score
from tests import processes
from tests.conftest import draw_competition

SPACE = {"rate": {"low": 0.001, "high": 0.1, "log": True}, "policy": ["none", "strong"]}
DEFAULTS = {"rate": 0.01, "policy": "none"}


def settings(**given) -> SearchConfig:
    values = {
        "trials": 8, "startup_trials": 2, "pruner": "successive_halving", "min_epochs": 2,
        "keep_one_in": 2, "storage": None, "study": None, "space": SPACE,
    }  # fmt: skip
    return SearchConfig(**values | given)


def study_in(
    folder: Path, defaults=DEFAULTS, seed: int = 1, space=SPACE, command=("a=1",), **given
) -> Study:
    distributions = {key: distribution_of(values) for key, values in space.items()}
    return Study(settings(**given), folder, distributions, defaults, command, seed)


def run_trial(study: Study, quality: float, epochs: int = 8) -> int:
    """Reports a trial that grows to `quality`; how many epochs it was let train."""
    trial = study.ask()
    for epoch in range(1, epochs + 1):
        study.report(trial, epoch, quality * epoch / epochs)
        if study.is_behind(trial):
            study.give_up(trial)
            return epoch
    study.complete(trial, score(quality, 1.0), quality)
    return epochs


def test_the_commands_own_values_are_the_first_trial_and_never_given_up(tmp_path):
    study = study_in(tmp_path)
    assert run_trial(study, 0.1) == 8
    assert run_trial(study, 0.5) == 8
    assert run_trial(study, 0.2) == 2  # at the first rung, of epochs 2, 4 and 8
    frame = study.frame()
    assert frame.loc[0, ["rate", "policy", "default"]].tolist() == [0.01, "none", True]
    assert frame.state.tolist() == ["complete", "complete", "pruned"]
    assert frame.accuracy.tolist()[:2] == [0.1, 0.5]
    assert frame.epochs.tolist() == [8, 8, 2]
    assert frame.default.tolist() == [True, False, False]
    assert frame.rate.between(0.001, 0.1).all()
    assert frame.score.iloc[1] == 0.5 - 1e-6


def test_with_no_pruner_all_train_to_their_end(tmp_path):
    study = study_in(tmp_path, pruner="none")
    assert [run_trial(study, quality) for quality in (0.5, 0.4, 0.1)] == [8, 8, 8]


def test_a_search_goes_on_as_if_it_had_never_stopped(tmp_path):
    qualities = (0.3, 0.5, 0.2, 0.6, 0.1, 0.4)
    whole = study_in(tmp_path / "whole")
    for quality in qualities:
        run_trial(whole, quality)
    for quality in qualities[:3]:
        run_trial(study_in(tmp_path / "parts"), quality)
    cut_off = study_in(tmp_path / "parts").ask()
    again = study_in(tmp_path / "parts")
    assert again.left_open() == [cut_off]
    assert again.reached(cut_off) == 0
    again.report(cut_off, 1, 0.6)
    assert again.reached(cut_off) == 1
    again.complete(cut_off, score(0.6, 1.0), 0.6)
    for quality in qualities[4:]:
        run_trial(study_in(tmp_path / "parts"), quality)
    columns = ["trial", "state", "accuracy", "rate", "policy"]
    pd.testing.assert_frame_equal(
        whole.frame()[columns], study_in(tmp_path / "parts").frame()[columns]
    )
    assert len(whole.frame().rate.unique()) == 6


def test_a_search_ends_with_the_number_of_trials_and_goes_on_with_a_larger_one(tmp_path):
    study = study_in(tmp_path, trials=2)
    run_trial(study, 0.3)
    open_one = study.ask()
    assert study.ask() is None
    more = study_in(tmp_path, trials=3)
    assert more.ask().number == 2
    assert more.ask() is None
    assert [trial.number for trial in more.left_open()] == [open_one.number, 2]


def test_machines_that_share_a_storage_take_trials_in_turn(tmp_path):
    storage = f"sqlite:///{tmp_path}/shared.db"
    one = study_in(tmp_path / "one", storage=storage, study="cars", trials=3)
    two = study_in(tmp_path / "two", storage=storage, study="cars", trials=3)
    mine, theirs = one.ask(), two.ask()
    assert (mine.number, theirs.number) == (0, 1)
    assert (mine.is_default, theirs.is_default) == (True, False)
    assert [trial.number for trial in one.left_open()] == [0]
    assert [trial.number for trial in two.left_open()] == [1]
    assert one.ask().number == 2
    assert two.ask() is None
    assert not (tmp_path / "one" / DATABASE).exists()


def test_the_commands_own_values_are_no_trial_where_the_space_has_not_got_them(tmp_path):
    study = study_in(tmp_path, defaults={"rate": 0.5, "policy": "none"})
    assert not study.begins_with_default
    assert not study.ask().is_default


def test_what_made_trials_differ_is_told_apart(tmp_path):
    study = study_in(tmp_path, trials=20)
    for _ in range(3):
        run_trial(study, 0.5)
    assert study.importances() == ({}, "after 2 epochs")
    for _ in range(12):
        trial = study.ask()
        study.report(trial, 2, 0.3 if trial.params["rate"] > 0.01 else 0.1)
        study.give_up(trial)
    importances, of_what = study.importances()
    assert list(importances) == ["rate", "policy"]
    assert importances["rate"] > 0.6
    assert of_what == "after 2 epochs"
    study = study_in(tmp_path, trials=30)
    for _ in range(12):
        trial = study.ask()
        accuracy = 0.9 if trial.params["policy"] == "strong" else 0.5
        study.complete(trial, score(accuracy, 1.0), accuracy)
    importances, of_what = study.importances()
    assert of_what == "of the finished trials"
    assert list(importances) == ["policy", "rate"]
    assert importances["policy"] > 0.6
    assert sum(importances.values()) == pytest.approx(1)
    picture = draw_search(study.frame(), importances, of_what, study.space)
    picture.write(tmp_path / "search.png")
    with Image.open(tmp_path / "search.png") as png:
        assert len(np.unique(np.asarray(png.convert("L")))) > 20
    titles = [axis.get_title() for axis in picture.axes if axis.get_visible()]
    assert titles[0] == "History"
    assert titles[2] == "What mattered, of the finished trials (fANOVA)"
    assert titles[3:] == ["policy", "rate"]


def test_values_stay_what_they_are(tmp_path):
    """Numbers of two kinds, and none, which a table would make floats."""
    space = {"a": [0, 0.1, None], "b": [8, 16], "c": {"low": 1, "high": 4}}
    study = study_in(tmp_path, {"a": None, "b": 8, "c": 2}, space=space)
    for quality in (0.3, 0.5, 0.4, 0.6, 0.2):
        run_trial(study, quality)
    frame = study.frame()
    assert frame.loc[0, ["a", "b", "c"]].tolist() == [None, 8, 2]
    assert {type(value) for value in frame.b} == {type(value) for value in frame.c} == {int}
    assert all(value is None or type(value) in (int, float) for value in frame.a)
    importances, of_what = study.importances()
    assert sum(importances.values()) == pytest.approx(1)
    assert draw_search(frame, importances, of_what, study.space).axes


def test_a_trial_that_was_asked_for_by_halves_is_another_ones_place(tmp_path):
    study = study_in(tmp_path, trials=2)
    run_trial(study, 0.5)
    study._study.ask()  # killed before it had any value
    again = study_in(tmp_path, trials=2)
    assert again.left_open() == []
    assert len(again.frame()) == 1
    assert again.ask().number == 2
    assert again.ask() is None


def test_a_trial_that_cannot_be_trained_is_not_tried_again(tmp_path):
    study = study_in(tmp_path, trials=2)
    study.fail(study.ask())
    again = study_in(tmp_path, trials=2)
    assert again.left_open() == []
    assert again.frame().state.tolist() == ["fail"]
    assert again.ask().number == 1
    assert again.ask() is None


def fail_trial(study: Study, folder: Path, status: str) -> None:
    """Tells the search that its next trial failed, and left a run of that status."""
    trial = study.ask()
    run = folder / f"{trial.number}_run"
    run.mkdir()
    files.write_json(run / files.RUN, {"status": status})
    sweeper = SimpleNamespace(trials={trial.number: trial}, study=study, sweep_dir=folder)
    job = Job(number=trial.number, overrides=[], folder=run.name, state=FAILED)
    job.error, job.status = "no photos", STATUS_USER_ERROR
    SearchSweeper._note(sweeper, job, {})


@pytest.mark.parametrize(("status", "state"), [("diverged", "pruned"), ("failed", "running")])
def test_a_trial_that_diverged_is_a_bad_one_and_one_that_failed_is_tried_again(
    tmp_path, status, state
):
    study = study_in(tmp_path)
    run_trial(study, 0.5)
    fail_trial(study, tmp_path, status)
    assert study_in(tmp_path).frame().state.tolist() == ["complete", state]


def test_the_commands_own_values_that_do_not_train_end_the_search(tmp_path):
    with pytest.raises(UserError) as error:
        fail_trial(study_in(tmp_path), tmp_path, "failed")
    assert str(error.value) == (
        "Expected the command's own values, the first trial, to train. Received: no photos"
    )


def test_what_is_no_search_is_refused(tmp_path):
    study_in(tmp_path)
    with pytest.raises(UserError, match=r"Received: odd://me:\*\*\*@host/db: ") as told:
        study_in(tmp_path, storage="odd://me:se:cr@et@host/db", study="cars")
    assert "cr@et" not in str(told.value)
    with pytest.raises(UserError, match=r"Received: another for policy\. Begin a new one"):
        study_in(tmp_path, space=SPACE | {"policy": ["none", "photo"]})
    with pytest.raises(UserError, match=r"Received: another for the command\. Begin a new one"):
        study_in(tmp_path, command=("a=2",))
    for storage in ("nonsense", "postgresql+nodriver://a@b/c", "sqlite:////no/such/folder/x.db"):
        with pytest.raises(UserError, match=r"Expected search\.storage to be a database"):
            study_in(tmp_path, storage=storage, study="cars")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"trials": 0}, "Expected search.trials to be at least 1. Received: trials=0"),
        ({"min_epochs": 0}, "Expected search.min_epochs to be at least 1"),
        ({"startup_trials": -1}, "Expected search.startup_trials to be at least 0"),
        ({"keep_one_in": 1}, "Expected search.keep_one_in to be at least 2"),
        ({"pruner": "median"}, "Expected pruner to be one of successive_halving, none."),
        ({"storage": "sqlite:///x.db"}, "Expected search.study, a name that all machines"),
        ({"space": {"a": []}}, "Expected a list of different words or numbers."),
        ({"space": {"a": [1, 1]}}, "Received: search.space.a=[1, 1]"),
        ({"space": {"a": [[1]]}}, "Expected a list of different words or numbers."),
        ({"space": {"a": 3}}, "Expected a list of values, or {low, high}"),
        ({"space": {"a": {"low": 1, "high": 2, "to": 3}}}, "Expected a list of values, or {low"),
        ({"space": {"a": {"low": 2, "high": 1}}}, "Expected a list of values, or {low, high}"),
        ({"space": {"a": {"low": 1, "high": True}}}, "Expected a list of values, or {low, high}"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "Expected low to be above 0"),
        ({"space": {"a": {"low": 0, "high": 1, "step": 2}}}, "Expected step to be above 0"),
    ],
)
def test_mistakes_in_the_settings_are_told(given, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        settings(**given)


@given(
    low=st.floats(1e-6, 1.0),
    width=st.floats(0.1, 10.0),
    is_log=st.booleans(),
    share=st.floats(0.0, 1.0),
)
def test_a_range_holds_what_is_between_its_ends(low, width, is_log, share):
    distribution = distribution_of({"low": low, "high": low + width, "log": is_log})
    assert holds(distribution, low + share * width if share < 1 else low + width)
    assert not holds(distribution, low - 0.01)
    assert not holds(distribution, low + width + 0.01)


def test_a_dimension_of_the_command_line_replaces_one_of_the_yaml():
    space = {"a.b": [1, 2], "c": {"low": 1, "high": 2}, "a": {"b": [3], "d": {"e": [4]}}}
    assert settings(space=space).space == {"a.b": [3], "c": {"low": 1, "high": 2}, "a.d.e": [4]}


def test_dimensions_are_what_they_look_like():
    assert distribution_of({"low": 1, "high": 8}) == IntDistribution(1, 8)
    assert distribution_of({"low": 4, "high": 12, "step": 4}) == IntDistribution(4, 12, step=4)
    assert distribution_of({"low": 1, "high": 2.0}) == FloatDistribution(1.0, 2.0)
    steps = distribution_of({"low": 0.7, "high": 1.0, "step": 0.1})
    assert [holds(steps, value) for value in (0.7, 0.9, 1.0, 0.75, "0.8")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    words = distribution_of([None, True, 1, "a"])
    assert words == CategoricalDistribution([None, True, 1, "a"])
    assert [holds(words, value) for value in (None, True, 1, "a", 1.0, "b")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_a_search_is_a_sweep_of_its_own_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = ["hydra/launcher=processes", "hydra/sweeper=search"]
    assert command.sweeping(["-m", "search=quick"]) == ["-m", "search=quick", *ours]
    assert command.sweeping(["-m", "search=null"]) == ["-m", "search=null", ours[0]]
    with pytest.raises(UserError, match=r"Try: python train\.py -m search=quick"):
        command.sweeping(["search=quick"])
    with pytest.raises(UserError, match="Expected a search without hydra/launcher"):
        command.sweeping(["-m", "search=quick", "hydra/launcher=ray"])


# Trains nothing, but leaves what a training leaves, an epoch after the other.
JOB = """
import os, signal, time
import pandas as pd
from carcls import run as files
from carcls.cli import run_app
from carcls.config import to_config, to_plain, with_absolute_paths
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.sweeps.command import sweeping
from carcls.training.resume import resuming

def job(cfg, workdir):
    config = to_config(cfg)
    config.data, config.resume = with_absolute_paths(config.data), None
    is_again = (workdir / "begun").exists()
    (workdir / "begun").touch()
    facts = {"config": to_plain(config), "status": "running",
             "data_fingerprint": read_training_photos(config.data).fingerprint()}
    files.write_json(workdir / "run.json", facts)
    number = workdir.name[0]
    quality = {"0": 0.6, "1": 0.3, "2": 0.8}[number]
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    rows = []
    for epoch in range(1, 10):
        rows.append({"stage": "head" if epoch == 1 else "all", "val_loss": 1.0,
                     "val_accuracy": 0.5 if epoch == 1 else quality * epoch / 9})
        with files.replacing(workdir / "history.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        if epoch == 2 and number == "1" and not is_again:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        until = time.monotonic() + (60 if epoch == 3 and number == "1" else 0)
        while not stopped and time.monotonic() < until:
            time.sleep(0.05)
        if stopped:
            files.write_json(workdir / "run.json", facts | {"status": "interrupted"})
            raise KeyboardInterrupt
    files.write_json(workdir / "metrics.json", {
        "val_accuracy": quality, "val_loss": 1.0, "n_val": 50, "seconds": 1.0,
        "stages": [{"name": "all", "val_accuracy": quality}]})
    files.write_json(workdir / "run.json", facts | {"status": "finished"})

def before(arguments):
    return resuming(arguments) if any("resume=" in a for a in arguments) else sweeping(arguments)

run_app("train", job, before)
"""


def test_a_search_that_is_killed_goes_on_and_gives_up_what_is_bad(tmp_path):
    """The whole way, in real processes, with jobs that train nothing."""
    draw_competition(tmp_path / "data", per_class=2)
    (tmp_path / "job.py").write_text(JOB)

    def start() -> subprocess.CompletedProcess:
        return processes.run(
            tmp_path / "job.py", "-m", "search=quick", "search.trials=3",
            "search.startup_trials=1", "search.min_epochs=2", "search.keep_one_in=2",
            "finetune.stages.all.epochs=8", "optimizer.learning_rate=0.001", cwd=tmp_path,
        )  # fmt: skip

    def states() -> dict[int, str]:
        (path,) = (tmp_path / "outputs").glob("*/sweep.json")
        return {job["number"]: job["state"] for job in json.loads(path.read_text())["jobs"]}

    first = start()  # whose second trial kills the search
    assert first.returncode == -9
    assert states() == {0: "finished", 1: "running"}
    assert "optimizer.learning_rate is not searched: the command gives it." in first.stdout
    own = "searches augmentation: moderate, strong, photo; the command's own moderate\n"
    assert own in first.stdout
    second = start()
    assert second.returncode == 0, second.stderr
    assert "#0  starts" not in second.stdout
    assert "#1  goes on, in" in second.stdout
    assert "Search: 3 of 3 trials begun (2 finished, 1 given up early), in outputs" in second.stdout
    assert states() == {0: "finished", 1: "given up", 2: "finished"}
    third = start()
    assert third.returncode == 0, third.stderr
    assert "  starts, in" not in third.stdout
    assert "3 jobs: 2 done, 1 given up." in third.stdout
    (sweep,) = (tmp_path / "outputs").iterdir()
    board = pd.read_csv(sweep / "leaderboard.csv")
    assert board.val_accuracy.fillna(0).tolist() == [0.8, 0.6, 0]
    assert board.error.iloc[2] == "after 3 of 10 epochs, with 10.0%"
    page = (sweep / "leaderboard.html").read_text()
    assert "the command&#x27;s own values reach 60.0%." in page
    assert "The search" in page
    assert (sweep / "search.png").is_file()
    assert "Traceback" not in first.stderr + second.stderr


def test_what_cannot_be_searched_is_told(tmp_path):
    for arguments, status, told in (
        (["data.refit=true"], 2, "Expected runs with validation photos, whose accuracy a search"),
        (["+search.space.optimizer=[adamw,lion]"], 2, "search.space, with optimizer=lion: "),
        (
            ["optimizer=adamw,sgd", "optimizer.weight_decay=interval(0.1,1)"], 2,
            "search.space, with optimizer=sgd optimizer.weight_decay=0.1: Could not override",
        ),
        (["batch_size=interval(8.5,9)"], 2, "search.space, with batch_size=8.5: "),
        (
            ["finetune=probe", "augmentation=none", "optimizer.learning_rate=1"], 2,
            "Expected something to search: keys that the command does not give and its plan has. "
            "Received: search.space with optimizer.learning_rate, augmentation",
        ),
    ):  # fmt: skip
        given = ["-m", "search=quick", "hydra.sweep.dir=sweep", *arguments]
        result = processes.run("train.py", *given, cwd=tmp_path)
        assert result.returncode == status, (arguments, result.stdout, result.stderr)
        assert told in result.stderr
        assert "Traceback" not in result.stderr


def test_what_the_command_sweeps_over_is_searched_if_the_command_itself_trains(tmp_path):
    given = [
        "search=quick", "search.trials=1", "batch_size=interval(8,16)", "data.root=nowhere",
        "head.dropout=2.5e-1,5e-1",
        "optimizer.learning_rate=tag(log,interval(1e-4,1e-3))", "finetune=staged",
        "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    result = processes.run("train.py", "-m", *given, cwd=tmp_path)
    assert result.stdout.splitlines()[:6] == [
        "searches augmentation: moderate, strong, photo; the command's own photo",
        "searches finetune.stages.all.bottom_rate: 0.1 to 1 on a log scale; the command's own 1.0",
        "searches finetune.stages.all.label_smoothing: 0.0, 0.1, 0.2; the command's own 0.0",
        "searches batch_size: 8 to 16; the command's own 16",
        "searches head.dropout: 0.25, 0.5; the command's own 0.25",
        "searches optimizer.learning_rate: 0.0001 to 0.001 on a log scale; the command's own 0.001",
    ]
    assert result.returncode == 2
    told = "Expected the command's own values, the first trial, to train. Received: Expected a dir"
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    (job,) = read_jobs(tmp_path / "sweep")
    assert job.overrides == [
        "data.root='nowhere'", "finetune=staged", "augmentation=photo",
        "finetune.stages.all.bottom_rate=1", "finetune.stages.all.label_smoothing=0",
        "batch_size=16", "head.dropout=0.25", "optimizer.learning_rate=0.001",
    ]  # fmt: skip
