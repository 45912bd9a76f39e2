import os
import subprocess
import sys
import zipfile

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from carcls.quoting import quote_paths
from tests.conftest import write_csv
from tests.processes import ROOT, run


def assert_told(result: subprocess.CompletedProcess, *texts: str) -> None:
    """One message on standard error, status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert result.stderr.count("error: ") == 1
    for text in texts:
        assert text in result.stderr


def path_that_hydra_hands_on(argument: str) -> str:
    (quoted,) = quote_paths([argument])
    override = OverridesParser.create().parse_overrides([quoted])[0]
    cfg = OmegaConf.create({"value": override.value()})
    return OmegaConf.to_container(cfg, resolve=True)["value"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@example("/data/Машины (копия)/v=2")
@example("IMG [1].jpg")
@example("~/cars")
@example("it's \\'quoted\\'")
@example("ends in a backslash\\")
@example("a,b#c&d;e ${x}")
@example(";")
@example("label (en)")
def test_what_the_shell_hands_over_as_a_path_is_what_is_opened(path):
    looks_quoted = len(path) > 1 and path[0] == path[-1] and path[0] in "'\""
    if path == "null" or looks_quoted or "\\${" in path:
        return  # these are Hydra's own, unless a file of that name exists
    assert path_that_hydra_hands_on(f"data.root={path}") == path
    assert path_that_hydra_hands_on(f"data.label_column={path}") == path


def test_a_file_whose_name_looks_like_hydras_grammar_is_opened_if_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_that_hydra_hands_on("images=[a,b]") == ["a", "b"]
    (tmp_path / "[a,b]").touch()
    assert path_that_hydra_hands_on("images=[a,b]") == "[a,b]"


@pytest.mark.parametrize(
    ("written", "paths"),
    [
        ("[IMG [1].jpg,b (2).jpg]", ["IMG [1].jpg", "b (2).jpg"]),
        ("[outputs/a=1, ~/b ]", ["outputs/a=1", "~/b"]),
        ("['a, b.jpg',\"c'd\"]", ["a, b.jpg", "c'd"]),
        ("[Машины/${x},it's]", ["Машины/${x}", "it's"]),
        ("[]", []),
    ],
)
def test_the_items_of_a_list_are_paths_too(written, paths):
    assert path_that_hydra_hands_on(f"images={written}") == paths
    assert path_that_hydra_hands_on(f"ckpt={written}") == paths


def test_a_list_is_one_for_keys_that_take_lists_only():
    assert path_that_hydra_hands_on("data.root=[a,b]") == "[a,b]"


def test_choices_of_a_sweep_stay_choices():
    assert quote_paths(["-m", "data.root=a,b"]) == ["-m", "data.root=a,b"]
    assert quote_paths(["data.root=a,b"]) == ["data.root='a,b'"]
    assert quote_paths(["seed=1,2", "output=null"]) == ["seed=1,2", "output=null"]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_the_configuration_are_told_without_keras(arguments, tmp_path):
    script = (
        f"import runpy, sys; sys.argv = [{str(ROOT / 'train.py')!r}, *{arguments}]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print({'tensorflow', 'keras', 'pandas'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answer.stdout.strip().endswith("set()")
    assert "efficientnetb3" in answer.stdout


def test_help_lists_every_group_and_option(tmp_path):
    answer = run("train.py", "--help", cwd=tmp_path).stdout
    for group in ("augmentation", "backbone", "data", "finetune", "head", "optimizer", "schedule"):
        options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(options)}\n" in answer


def test_the_help_of_predict_lists_what_it_takes(tmp_path):
    answer = run("predict.py", "--help", cwd=tmp_path).stdout
    sources = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))
    assert f"data=OPTION takes another source: {', '.join(sources)}." in answer
    for key in ("ckpt", "weights", "tta", "images", "output", "top", "batch_size"):
        assert f"\n{key}: " in answer
    assert "backbone" not in answer


def test_the_help_of_evaluate_lists_what_it_takes(tmp_path):
    answer = run("evaluate.py", "--help", cwd=tmp_path).stdout
    for key in ("ckpt", "weights", "tta", "resamples", "seed", "batch_size"):
        assert f"\n{key}: " in answer
    assert "backbone" not in answer
    assert_told(run("evaluate.py", cwd=tmp_path), "Expected ckpt=RUN")
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_a_missing_data_directory_says_what_was_looked_for(tmp_path):
    result = run("train.py", "data.root=no/such place", cwd=tmp_path)
    assert_told(result, "no/such place, which does not exist", "train.csv and train.zip",
                "data=demo")  # fmt: skip
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"], "nothing half-written"


def test_an_empty_data_directory_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("train.py", "data=folder", "data.root=empty", "hydra.run.dir=out", cwd=tmp_path)
    assert_told(result, "empty, which is empty", "class folders of photos", "data=demo")
    assert not (tmp_path / "out").exists()


def test_a_corrupt_archive_is_told(tmp_path):
    write_csv(tmp_path / "train.csv", [("1.jpg", "a"), ("2.jpg", "b")])
    (tmp_path / "train.zip").write_bytes(b"PK\x03\x04 and then nothing")
    result = run("train.py", "data.root=.", "data.cache_dir=cache", cwd=tmp_path)
    assert_told(result, "Expected a zip archive that can be unpacked", "train.zip")
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_an_archive_that_escapes_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", [("1.jpg", "a"), ("2.jpg", "b")])
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("../../evil.jpg", b"x")
    result = run("train.py", "data.root=.", "data.cache_dir=cache", cwd=tmp_path)
    assert_told(result, "../../evil.jpg", "Nothing was unpacked")


def test_one_class_only_is_told(tmp_path, competition):
    rows = [(path.name, "12") for path in (competition / "train" / "12").iterdir()]
    write_csv(competition / "train.csv", rows)
    result = run("train.py", f"data.root={competition}", cwd=tmp_path)
    assert_told(result, "Expected at least two classes", "6 photos of 12")


def test_a_checkpoint_that_is_none_is_told(tmp_path):
    (tmp_path / "notes.keras").write_text("not a model")
    assert_told(run("predict.py", cwd=tmp_path), "Expected ckpt=RUN")
    assert_told(run("predict.py", "ckpt=gone", cwd=tmp_path), "gone, which does not exist")
    assert_told(run("predict.py", "ckpt=.", cwd=tmp_path), "Received: ., which holds notes.keras")
    result = run("predict.py", "ckpt=notes.keras", cwd=tmp_path)
    assert_told(result, "notes.keras, which is not a .keras file or is damaged")


def test_an_unknown_key_is_hydras_to_tell(tmp_path):
    result = run("train.py", "imagesize=96", cwd=tmp_path)
    assert result.returncode == 1
    assert "imagesize" in result.stderr
    assert "Traceback" not in result.stderr


def test_in_a_sweep_a_mistake_fails_its_own_job_only(tmp_path):
    result = run("train.py", "-m", "data.root=x,y", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert result.returncode == 2
    assert "x, which does not exist" in result.stderr
    assert "y, which does not exist" in result.stderr
    closing = result.stderr.split("2 of 2 jobs failed:\n")[1].splitlines()
    assert closing[0].startswith("  0_efficientnetb3_fast (data.root=x): Expected a directory")
    assert closing[1].startswith("  1_efficientnetb3_fast (data.root=y): Expected a directory")


def test_a_sweep_is_one_wherever_m_stands(tmp_path):
    result = run("train.py", "data.root=x", "-m", "seed=1,2", "hydra.sweep.dir=s", cwd=tmp_path)
    assert result.returncode == 2
    assert "2 of 2 jobs failed" in result.stderr


def test_in_a_sweep_a_crash_fails_its_own_job_only(tmp_path):
    script = (
        "from carcls.cli import run_app\n"
        "def job(cfg, workdir):\n"
        "    if cfg.seed == 1: raise RuntimeError('a fault of ours')\n"
        "    print('ran with', cfg.seed)\n"
        "run_app('train', job)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "-m", "seed=1,2", "hydra.sweep.dir=sweep"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "ran with 2" in result.stdout
    assert "1 of 2 jobs failed:\n  0_efficientnetb3_fast (seed=1): a fault of ours" in result.stderr
    assert (
        "RuntimeError: a fault of ours"
        in (tmp_path / "sweep").rglob("train.log").__next__().read_text()
    )


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_v_shows_the_traceback_of_a_mistake(tmp_path):
    result = run("train.py", "-v", "data.root=gone", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("needs none.\n")


def test_an_output_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    result = run("train.py", "hydra.run.dir=file/run", cwd=tmp_path)
    assert_told(result, "Expected to write to file/run. Received: Not a directory.")


def test_ctrl_c_before_anything_was_reached_leaves_nothing(tmp_path):
    script = (
        "from carcls.cli import run_app\n"
        "def job(cfg, workdir):\n"
        "    raise KeyboardInterrupt\n"
        "run_app('train', job)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "hydra.run.dir=out"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (130, "stopped\n")
    assert not (tmp_path / "out").exists()
