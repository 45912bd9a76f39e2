"""Every command that the README and docs/ show composes, or names what there is.

The README's own commands in blocks that start with `python` are composed in test_readme.py.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from carcls.config import (
    to_compare_config,
    to_config,
    to_evaluate_config,
    to_explore_config,
    to_predict_config,
)
from carcls.quoting import quote_paths
from tests.test_config import as_composed, one_of_sweep, without_search

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TO_CONFIG = {
    "train": to_config,
    "predict": to_predict_config,
    "evaluate": to_evaluate_config,
    "compare": to_compare_config,
    "explore": to_explore_config,
}
# Hydra's plugins for clusters are not installed here: what is theirs is left out.
OF_LAUNCHER = re.compile(r"\+?hydra[./]launcher")
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:python|docker|make|pip|ray) [^`]+)`")


def in_blocks(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def in_sentences(text: str) -> list[str]:
    """Whole commands between single backticks; one with an ellipsis shows a part."""
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [found.replace("\n", " ") for found in INLINE.findall(outside) if "…" not in found]


def commands() -> list[tuple[str, list[str]]]:
    """(file, words) of each, without variables of the environment before it."""
    found = []
    for file in FILES:
        text = file.read_text()
        for line in [*in_blocks(text), *in_sentences(text)]:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                found.append((file.name, words))
    return found


def check_script(script: str, arguments: list[str]) -> None:
    name = script.removesuffix(".py")
    words = [word for word in arguments if word != "-m" and not OF_LAUNCHER.match(word)]
    if "--help" in words:
        return
    if "-m" in arguments:
        words = one_of_sweep(quote_paths(words))
    TO_CONFIG[name](without_search(as_composed(*quote_paths(words), name=name)))


def check_python(words: list[str]) -> None:
    script, *arguments = words
    path = ROOT / script
    assert path.is_file(), script
    if path.parent == ROOT:
        check_script(script, arguments)
        return
    known = path.read_text() + (ROOT / "benchmarks" / "photos.py").read_text()
    for word in arguments:
        assert not word.startswith("--") or f'"{word}"' in known, word


def check_docker(words: list[str]) -> None:
    if words[0] == "build":
        assert (ROOT / "Dockerfile").is_file()
        return
    if words[0] == "compose":
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        service, *container = [word for word in words[2:] if word not in ("--rm", "-d")]
        assert words[1] in ("build", "run", "up") and service in services
        if words[1] != "run":
            return
    else:
        assert words[0] == "run"
        for mount in [words[at + 1] for at, word in enumerate(words) if word == "-v"]:
            assert mount.split(":")[1] in ("/app/data", "/app/outputs", "/cache"), mount
        container = words[words.index("carcls") + 1 :]
    if container and container[0].endswith(".py"):
        check_script(container[0], container[1:])
    else:
        check_script("train.py", container)


def check_make(words: list[str]) -> None:
    assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words[0]


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    if words[1] == "-r":
        assert (ROOT / words[2]).is_file()


def check_nothing(words: list[str]) -> None:
    """A program that is not ours."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "python": check_python,
    "docker": check_docker,
    "make": check_make,
    "pip": check_pip,
    **dict.fromkeys(("ray", "tensorboard", "source", "mkdir", "printf"), check_nothing),
}
COMMANDS = commands()
# What test_readme.py composes, not twice.
OTHERS = [
    (file, words)
    for file, words in COMMANDS
    if file != "README.md" or words[0] != "python" or words not in [
        shlex.split(line, comments=True) for line in in_blocks(FILES[0].read_text())
    ]
]  # fmt: skip


def test_there_are_commands_of_every_file_that_shows_some():
    assert {"README.md", "clusters.md", "scale.md"} <= {file for file, _ in COMMANDS}
    assert len(OTHERS) < len(COMMANDS)


@pytest.mark.parametrize(("file", "words"), OTHERS, ids=[" ".join(words) for _, words in OTHERS])
def test_every_command_composes_or_names_what_there_is(file, words):
    program, *arguments = words
    assert program in CHECKS, f"{file}: how is {program} checked?"
    CHECKS[program](arguments)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_document_links_to_exists(file):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text())
    for link in links:
        assert link.startswith("http") or (file.parent / link).exists(), link


def test_every_setting_that_scale_md_names_exists():
    text = (ROOT / "docs" / "scale.md").read_text()
    rows = re.findall(r"^\| `([a-z_.0-9]+)`", text.split("## Which setting")[1], re.MULTILINE)
    cfg = as_composed()
    for key in rows:
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]
    assert len(rows) >= 8
