"""What can be known of the image without an engine: pins, files, lint, and what starts it does."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from carcls.run import describe_environment

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
STRANGER = 12345  # a user whom neither the image nor this machine knows


def pins(name: str) -> dict[str, str]:
    """Package to version, of a requirements file; extras such as [and-cuda] are left off."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([\w-]+)(?:\[[\w-]+\])?==(\S+)", text, re.MULTILINE))


def tool(name: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed: pip install -r requirements-dev.txt")
    return path


def test_every_entry_point_is_in_the_image():
    scripts = {path.name for path in ROOT.glob("*.py")}
    copied = re.search(r"^COPY entrypoint.sh (.+\.py) \./", DOCKERFILE, re.M)[1].split()
    let_in = re.findall(r"^!(\w+\.py)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert scripts == set(copied) == set(let_in)


def test_what_is_copied_is_let_in_and_there():
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    lines = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M)
    copied = {name for line in lines for name in line.split()}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert os.access(ROOT / "entrypoint.sh", os.X_OK)


def test_the_image_pins_what_the_requirements_pin():
    image, everyone = pins("requirements-gpu.txt"), pins("requirements.txt")
    assert {"tensorflow", "keras", "numpy"} <= set(image)
    assert {name: everyone.get(name, version) for name, version in image.items()} == image
    assert f"tensorboard=={pins('requirements-dev.txt')['tensorboard']}" in DOCKERFILE


def test_code_is_copied_after_all_that_takes_long():
    steps = re.findall(r"^(RUN pip|COPY \S+)", DOCKERFILE, re.M)
    assert steps == [
        "COPY requirements-gpu.txt", "RUN pip", "COPY requirements.txt", "RUN pip",
        "COPY entrypoint.sh", "COPY conf", "COPY carcls",
    ]  # fmt: skip


def test_hadolint_finds_nothing():
    command = [tool("hadolint"), "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_compose_yaml_is_valid_by_its_specification():
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [tool("check-jsonschema"), *schema, str(ROOT / "compose.yaml")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("name", ["train", "cpu"])
def test_photos_are_read_only_and_outputs_belong_to_the_caller(name):
    service = COMPOSE["services"][name]
    source_of = {volume.split("}")[-1]: volume for volume in service["volumes"]}
    assert set(source_of) == {":/app/data:ro", ":/app/outputs", "cache:/cache"}
    assert service["user"] == "${CARCLS_USER:-1000:1000}"
    assert service["shm_size"] == "2gb"
    assert ("deploy" in service) == (name == "train")  # the GPUs


@pytest.fixture
def image() -> Iterator[Path]:
    """A folder with the entry point, a `python` that says what it was to run, and outputs/."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(ROOT / "entrypoint.sh", folder)
        (folder / "python").write_text('#!/bin/sh\necho "$HOME" "$@"\n')
        (folder / "python").chmod(0o755)
        (folder / "outputs").mkdir()
        (folder / "cache").mkdir(mode=0o1777)
        (folder / "cache").chmod(0o1777)
        yield folder


def start(image: Path, *words: str) -> tuple[list[str], str]:
    """What `python` was given, and what was said, for a user who does not own `image`."""
    is_root = os.geteuid() == 0
    answer = subprocess.run(
        ["./entrypoint.sh", *words],
        cwd=image,
        env={"PATH": f"{image}:{os.environ['PATH']}", "CARCLS_CACHE": str(image / "cache")},
        user=STRANGER if is_root else None,
        extra_groups=[] if is_root else None,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split(), answer.stderr


def test_the_image_trains_unless_the_first_word_is_a_script(image):
    (image / "outputs").chmod(0o777)
    user = STRANGER if os.geteuid() == 0 else os.geteuid()
    home = str(image / "cache" / str(user))
    said = start(image, "backbone=xception", "data.root=a.py")[0]
    assert said == [home, "train.py", "backbone=xception", "data.root=a.py"]
    assert start(image)[0] == [home, "train.py"]
    assert start(image, "predict.py", "ckpt=outputs/RUN")[0][1:] == [
        "predict.py",
        "ckpt=outputs/RUN",
    ]
    assert start(image, "-m", "seed=1,2")[0][1:] == ["train.py", "-m", "seed=1,2"]


def test_outputs_that_the_user_cannot_write_are_said_with_the_way_out(image):
    (image / "outputs").chmod(0o555)
    said = start(image)[1]
    assert "outputs cannot be written by user" in said
    assert "--user $(id -u):$(id -g)" in said
    (image / "outputs").chmod(0o777)
    assert "outputs" not in start(image)[1]


def test_a_cache_that_the_user_cannot_write_is_said_and_done_without(image):
    (image / "cache").chmod(0o555)
    words, said = start(image)
    assert "cache cannot be written by user" in said
    assert Path(words[0]).is_dir() and image not in Path(words[0]).parents
    shutil.rmtree(words[0])


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_a_container_without_a_gpu_says_so(image):
    assert "No GPU in this container: networks run on the CPU. --gpus all" in start(image)[1]


def test_a_run_in_the_image_records_the_commit_that_it_was_built_of(monkeypatch):
    monkeypatch.setenv("CARCLS_COMMIT", "0123abc")
    assert describe_environment()["git_commit"] == "0123abc"
