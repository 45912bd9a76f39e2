"""The README is tested like code: its commands compose, its tables list what there is."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from carcls.config import to_config, to_predict_config
from carcls.quoting import quote_paths
from tests.test_config import CONF, composed, options

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
]


def commands_of(script: str) -> list[list[str]]:
    """What follows `script` in every command that runs it, in Docker too."""
    return [words[words.index(script) + 1 :] for words in COMMANDS if script in words]


@pytest.mark.parametrize("words", commands_of("train.py"), ids=" ".join)
def test_every_training_command_composes(words):
    overrides = [word.split(",")[0] if "-m" in words else word for word in words if word != "-m"]
    assert to_config(composed(*quote_paths(overrides))).finetune.stages


@pytest.mark.parametrize("words", commands_of("predict.py"), ids=" ".join)
def test_every_prediction_command_composes(words):
    assert to_predict_config(composed(*quote_paths(words), name="predict")).ckpt


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = {words[1] for words in COMMANDS if words[:1] == ["make"]}
    assert targets == {"demo", "test"}
    for target in targets | {"check", "bench"}:
        assert f"\n{target}: $(READY)" in makefile


def test_the_table_of_groups_lists_every_option():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", README, re.MULTILINE))
    for group in (path.name for path in CONF.iterdir() if path.is_dir()):
        named = re.findall(r"`([\w.]+)`", rows[group].replace("make demo", ""))
        assert set(options(group)) <= set(named), group


def test_the_table_of_values_lists_every_value_and_its_default():
    rows = re.findall(r"^\| (`.+?`) \| (.*?) \|", README.split("| value |")[1], re.MULTILINE)
    cfg = composed()
    listed = set()
    for names, defaults in rows:
        keys = re.findall(r"`([\w.]+)`", names)
        for key, default in zip(keys, defaults.split(", ") if defaults else [None], strict=False):
            listed.add(key)
            if default and "NAME" not in key:
                value = OmegaConf.select(cfg, key, throw_on_missing=True)
                shown = "null" if value is None else str(value)
                assert shown.lower() == default.lower(), key
    for group in ("runtime", "data"):
        assert {f"{group}.{key}" for key in cfg[group] if key != "name"} <= listed


def test_pictures_and_files_that_are_named_exist():
    for path in re.findall(r"!\[.*?\]\((.+?)\)", README) + re.findall(r"`(carcls/\S+?)`", README):
        assert (ROOT / path).exists(), path


def test_docker_pins_what_requirements_pin():
    (pin,) = re.findall(r"^tensorflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert f'"tensorflow[and-cuda]=={pin}"' in (ROOT / "Dockerfile").read_text()
