"""The README is tested like code: its commands compose, its tables list what there is."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import carcls
from carcls.config import (
    to_compare_config,
    to_config,
    to_evaluate_config,
    to_explore_config,
    to_predict_config,
)
from carcls.quoting import quote_paths
from tests.test_config import (
    CONF,
    GROUPS,
    as_composed,
    composed,
    one_of_sweep,
    options,
    without_search,
)

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
    of_launcher = "hydra.launcher."  # whose keys are its own
    overrides = [word for word in words if word != "-m" and not word.startswith(of_launcher)]
    overrides = quote_paths(overrides)
    overrides = one_of_sweep(overrides) if "-m" in words else overrides
    assert to_config(without_search(composed(*overrides))).finetune.stages


@pytest.mark.parametrize("words", commands_of("predict.py"), ids=" ".join)
def test_every_prediction_command_composes(words):
    config = to_predict_config(composed(*quote_paths(words), name="predict"))
    assert config.ckpt or (config.models and config.images)


@pytest.mark.parametrize("words", commands_of("evaluate.py"), ids=" ".join)
def test_every_evaluation_command_composes(words):
    config = to_evaluate_config(composed(*quote_paths(words), name="evaluate"))
    assert config.ckpt or config.predictions


@pytest.mark.parametrize("words", commands_of("compare.py"), ids=" ".join)
def test_every_comparison_composes(words):
    assert to_compare_config(composed(*quote_paths(words), name="compare")).models


@pytest.mark.parametrize("words", commands_of("explore.py"), ids=" ".join)
def test_every_command_that_explores_composes(words):
    assert to_explore_config(composed(*quote_paths(words), name="explore")).data


def test_the_python_that_it_shows_calls_what_there_is():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    tree = ast.parse(block)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    functions = {"train": carcls.train, "predict": carcls.predict, "load_run": carcls.load_run}
    seen = set()
    for call in calls:
        name = call.func.id if isinstance(call.func, ast.Name) else None
        if name in functions:
            known = set(inspect.signature(functions[name]).parameters) | set(GROUPS)
            assert {keyword.arg for keyword in call.keywords} <= known
            seen.add(name)
    assert seen == set(functions)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = {words[1] for words in COMMANDS if words[:1] == ["make"]}
    assert targets == {"demo", "test"}
    for target in targets | {"check", "bench"}:
        assert f"\n{target}: $(READY)" in makefile


def test_the_table_of_groups_lists_every_option():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", README, re.MULTILINE))
    for group in (path.name for path in CONF.iterdir() if path.is_dir()):
        # The notebook's runs have a table of their own.
        where = README if group == "experiment" else rows[group]
        named = re.findall(r"`([\w.]+)`", where)
        assert set(options(group)) <= set(named), group


def test_the_table_of_values_lists_every_value_and_its_default():
    rows = re.findall(r"^\| (`.+?`) \| (.*?) \|", README.split("| value |")[1], re.MULTILINE)
    cfg = as_composed()
    listed = set()
    for names, defaults in rows:
        keys = re.findall(r"`([\w.]+)`", names)
        for key, default in zip(keys, defaults.split(", ") if defaults else [None], strict=False):
            listed.add(key)
            if default and not key.endswith("NUMBER") and "NAME" not in key:
                value = OmegaConf.select(cfg, key, throw_on_missing=True)
                shown = "null" if value is None else str(value)
                assert shown.lower() == default.lower(), key
    for group in ("runtime", "data"):
        assert {f"{group}.{key}" for key in cfg[group] if key != "name"} <= listed


def test_pictures_and_files_that_are_named_exist():
    for path in re.findall(r"!\[.*?\]\((.+?)\)", README) + re.findall(r"`(carcls/\S+?)`", README):
        assert (ROOT / path).exists(), path


def test_every_number_is_filled_in():
    assert re.findall(r"\b[A-Z]+_RATE\b", README) == []
