"""Which run `resume=` means."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from carcls.config import to_config, to_plain, with_absolute_paths
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.run import RUN, write_json
from carcls.training.resume import (
    AlreadyFinishedError,
    check_unchanged,
    find_run,
    resuming,
    with_recorded,
)
from tests.conftest import draw_photo
from tests.test_config import composed

SMALL = ("image_size=64", "finetune=frozen", "optimizer=adamw")


@pytest.fixture
def here(competition, monkeypatch):
    monkeypatch.chdir(competition.parent)
    return competition.parent


@cache
def of_command(*overrides: str):
    return to_config(composed("data.root=competition", *SMALL, *overrides))


def left(name: str, status: str, *overrides: str, age: int = 0, **facts) -> Path:
    """A run as it is left in a directory: all that is looked at."""
    config = of_command(*overrides)
    config = replace(config, data=with_absolute_paths(config.data))
    fingerprint = read_training_photos(config.data).fingerprint()
    values = {"config": to_plain(config), "status": status, "data_fingerprint": fingerprint}
    path = Path("outputs", name, RUN)
    write_json(path, values | facts)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path.parent


def told(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        find_run(arguments)
    return str(error.value)


COMMAND = ("data.root=competition", *SMALL)


def test_auto_finds_the_newest_unfinished_run_of_the_same_command(here):
    assert find_run([*COMMAND, "resume=auto"]) is None
    left("oldest", "running", age=9)
    mine = left("mine", "interrupted", age=5)
    left("done", "finished")
    left("diverged", "diverged")
    left("other", "running", "seed=7")
    Path("outputs/prediction").mkdir()
    assert find_run([*COMMAND, "resume=auto"]) == mine.absolute().relative_to(here)
    assert find_run([*COMMAND, "seed=8", "resume=auto"]) is None
    # What changes nothing that is learnt may differ.
    assert find_run([*COMMAND, "runtime.workers=1", "resume=auto"]) == mine


def test_auto_looks_where_the_run_would_go(here):
    mine = left("mine", "failed")
    assert find_run([*COMMAND, "resume=auto", "hydra.run.dir=outputs/new"]) is None
    assert find_run([*COMMAND, "resume=auto", "hydra.run.dir=outputs/mine"]) == mine
    write_json(mine / RUN, {})
    assert find_run([*COMMAND, "resume=auto", "hydra.run.dir=outputs/mine"]) is None
    finished = left("finished", "finished")
    with pytest.raises(AlreadyFinishedError, match="outputs/finished is finished already"):
        find_run([*COMMAND, "resume=auto", f"hydra.run.dir={finished}"])


def test_auto_starts_a_new_run_when_the_photos_have_changed(here, capsys):
    left("mine", "running")
    next((here / "competition" / "train").rglob("*.png")).write_bytes(b"another photo")
    assert find_run([*COMMAND, "resume=auto"]) is None
    assert "outputs/mine is unfinished, but its photos have changed" in capsys.readouterr().out


def test_the_command_line_goes_on_inside_of_the_run(here):
    left("mine", "running")
    for arguments in (["resume=outputs/mine"], [*COMMAND, "resume=auto"]):
        assert resuming(arguments)[-3:] == [
            "resume=outputs/mine", "hydra.run.dir=outputs/mine", "hydra.output_subdir=null",
        ]  # fmt: skip
    assert resuming([*COMMAND, "seed=8", "resume=auto"]) == [*COMMAND, "seed=8"]
    assert resuming(["resume=gone", "--cfg", "job"]) == ["resume=gone", "--cfg", "job"]
    assert resuming(["resume=null"]) == []


def test_a_finished_run_is_said_to_be_and_stays_as_it_is(here, capsys):
    run = left("done", "finished")
    with pytest.raises(SystemExit) as ended:
        resuming(["resume=outputs/done"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == (
        "outputs/done is finished already, and stays as it is. Predict with: "
        "python predict.py ckpt=outputs/done\n"
    )
    assert [path.name for path in run.iterdir()] == [RUN]


def test_what_is_no_run_is_told(here):
    expected = "Expected resume to be a run directory with run.json in it, or auto. Received: "
    assert told("resume=gone") == f"{expected}gone, which does not exist."
    Path("empty").mkdir()
    assert told("resume=empty") == f"{expected}empty, which is empty."
    assert told("resume=competition").startswith(f"{expected}competition, which holds ")
    assert told("resume=outputs/mine", "-m").startswith("Expected resume without -m")
    left("mine", "diverged")
    assert "whose loss became NaN" in told("resume=outputs/mine")
    left("mine", "running")
    assert "Expected no hydra.run.dir with resume=outputs/mine" in told(
        "resume=outputs/mine", "hydra.run.dir=outputs/new"
    )


def test_what_would_change_the_training_is_refused_by_name(here):
    run = left("mine", "running", "batch_size=8")
    message = told("resume=outputs/mine", "image_size=96", "runtime.workers=0", "optimizer=sgd")
    assert "Received: image_size=96 (the run has image_size=64), optimizer=sgd" in message
    assert "runtime.workers=0" not in message
    assert "experiment=demo" in told("resume=outputs/mine", "experiment=demo")
    assert "~finetune.stages.head" in told(
        "resume=outputs/mine", "finetune=staged", "~finetune.stages.head"
    )
    # The same values again change nothing, nor does the whole command.
    for same in (["image_size=64"], ["optimizer=adamw"], [*COMMAND, "batch_size=8"]):
        assert find_run(["resume=outputs/mine", *same]) == run


def test_a_run_goes_on_with_its_own_configuration_and_the_machine_of_today(here):
    left("mine", "running", "seed=7")
    overrides = ["resume=outputs/mine", "runtime.workers=3", "data.root=elsewhere"]
    config = with_recorded(to_config(composed(*overrides)), overrides)
    assert (config.seed, config.image_size, config.optimizer.name) == (7, 64, "adamw")
    assert (config.runtime.workers, config.data.root) == (3, "elsewhere")
    assert with_recorded(config, ()).data.root == str(here / "competition")


def test_a_run_that_was_killed_before_its_first_file_is_known_by_what_hydra_wrote(here):
    run = Path("outputs/mine")
    (run / ".hydra").mkdir(parents=True)
    from omegaconf import OmegaConf

    OmegaConf.save(composed(*COMMAND), run / ".hydra" / "config.yaml")
    known = {"hydra": {"job": {"name": "train"}, "runtime": {"cwd": str(here)}}}
    OmegaConf.save(known, run / ".hydra" / "hydra.yaml")
    assert find_run(["resume=outputs/mine"]) == find_run([*COMMAND, "resume=auto"]) == run
    config = with_recorded(to_config(composed("resume=outputs/mine")), ())
    assert config.data.root == str(here / "competition")


def test_other_photos_than_those_of_the_run_are_told(here):
    run = left("mine", "running")
    fingerprint = read_training_photos(of_command().data).fingerprint()
    check_unchanged(run, fingerprint)
    photo = next((here / "competition" / "train").rglob("*.png"))
    draw_photo(photo, (1, 2, 3), 0, size=(90, 90))
    other = read_training_photos(of_command().data).fingerprint()
    with pytest.raises(UserError, match=r"Expected the photos that outputs/mine was trained on"):
        check_unchanged(run, other)
    left("mine", "finished")
    with pytest.raises(UserError, match="another process has finished meanwhile"):
        check_unchanged(run, other)
