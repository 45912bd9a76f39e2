"""A run's files: whole or not at all, and read back as they were."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from carcls import run
from carcls.errors import UserError

INFO = run.ModelInfo(
    class_names=["007", "12", "red, wide", "日本"],
    class_counts=[3, 1, 4, 1],
    image_size=240,
    resize="squash",
    config={"seed": 42, "data": {"root": "data", "cache_dir": None}},
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mistake(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


def test_a_file_is_replaced_when_its_writer_is_done(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    for text in ("first", "second"):
        with run.replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent and temporary.suffix == path.suffix
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert names(path.parent) == ["metrics.json"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(type(error)), run.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_a_full_disk_is_told_with_what_is_free_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def write():
        with run.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    told = mistake(write)
    assert re.sub(r"\d+ MB", "N MB", told) == (
        f"Expected room to write {path}. Received: No space left on device, N MB free there. "
        "What was written before is whole; free some space."
    )
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_a_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "run.json", tmp_path / "file" / "run" / "run.json"):
        text = mistake(run.write_text, path, "text")
        assert text.startswith(f"Expected to write {path}. Received: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_json_keeps_unicode_and_numpy_numbers_and_takes_additions(tmp_path):
    path = tmp_path / "run.json"
    assert run.read_json(path) == {}
    run.write_json(
        path, {"loss": np.float32(0.5), "n": np.int64(3), "name": "日本", "where": Path("a")}
    )
    assert "日本" in path.read_text(encoding="utf-8")
    run.add_to_json(path, n=4, more=[1])
    expected = {"loss": 0.5, "n": 4, "name": "日本", "where": "a", "more": [1]}
    assert run.read_json(path) == expected
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.add_to_json(path, loss=float("nan"))
    assert run.read_json(path) == expected
    assert names(tmp_path) == ["run.json"]


def test_what_a_model_needs_travels_inside_its_file(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    run.embed_model_info(path, INFO)
    assert run.read_model_info(path) == INFO
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["config.json", "carcls.json"]
        assert archive.read("config.json") == b"{}"


def write_member(path: Path, values: object) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("carcls.json", json.dumps(values))


def test_a_file_that_is_no_checkpoint_says_so(tmp_path):
    path = tmp_path / "model.keras"
    expected = f"Expected a checkpoint that train.py wrote. Received: {path}, which "
    path.write_bytes(b"weights, honestly")
    assert mistake(run.read_model_info, path) == f"{expected}is not a .keras file or is damaged."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    text = f"{expected}does not say its classes (carcls.json)."
    assert mistake(run.read_model_info, path) == text
    for values in ({"class_names": []}, [1, 2]):
        write_member(path, values)
        assert mistake(run.read_model_info, path).startswith(f"{expected}cannot be read: ")


def test_a_checkpoint_is_a_run_directory_or_a_file(tmp_path, monkeypatch):
    model = tmp_path / "run" / "model.keras"
    model.parent.mkdir()
    model.touch()
    assert run.find_model(tmp_path / "run") == run.find_model(str(model)) == model
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run.find_model("~/run") == model


def test_a_checkpoint_that_is_not_there_says_what_is(tmp_path):
    expected = "Expected ckpt to be a run directory with model.keras in it, or a .keras file. "
    gone, folder = tmp_path / "gone", tmp_path / "run"
    folder.mkdir()
    text = f"{expected}Received: {gone}, which does not exist."
    assert mistake(run.find_model, gone) == text
    assert mistake(run.find_model, folder) == f"{expected}Received: {folder}, which is empty."
    for name in (".hydra", "run.json", "train.log"):
        (folder / name).touch()
    text = f"{expected}Received: {folder}, which holds run.json, train.log."
    assert mistake(run.find_model, folder) == text


def test_the_environment_names_the_command_and_the_versions(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/train.py", "backbone=xception"])
    facts = run.describe_environment()
    assert facts["command"] == "train.py backbone=xception"
    assert {"python", "numpy", "keras"} <= set(facts["versions"])
    assert facts["git_commit"] is None or len(facts["git_commit"]) == 40


def test_a_quoted_path_is_one_word_for_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.shell_quoted(tmp_path / "my run") == "'my run'"
    assert run.shell_quoted(Path("/else/where")) == "/else/where"


def test_an_earlier_run_is_set_aside_whole(tmp_path):
    assert run.set_aside(tmp_path) is None
    for number in (1, 2):
        for name in ("run.json", "model.keras", "train.log"):
            (tmp_path / name).write_text(f"{number}")
        (tmp_path / ".hydra").mkdir(exist_ok=True)
        aside = run.set_aside(tmp_path)
        assert aside == tmp_path / f"earlier_{number}"
        assert names(aside) == ["model.keras", "run.json"]
        assert (aside / "run.json").read_text() == f"{number}"
    assert names(tmp_path) == [".hydra", "earlier_1", "earlier_2", "train.log"]


def test_what_is_not_the_runs_own_stays_when_it_is_set_aside(tmp_path):
    for name in ("run.json", "notes.txt", "other_run/model.keras"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run.set_aside(tmp_path)
    assert names(tmp_path) == ["earlier_1", "notes.txt", "other_run"]


def test_a_damaged_json_file_is_told(tmp_path):
    (tmp_path / "metrics.json").write_text("{bro")
    assert "Expected JSON that a run wrote" in mistake(run.read_json, tmp_path / "metrics.json")
