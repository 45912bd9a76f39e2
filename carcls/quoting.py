"""Paths and names past Hydra's grammar: what the shell hands over is what is opened."""

import re
from contextlib import suppress
from pathlib import Path

_TEXT_KEYS = frozenset(
    (
        "ckpt",
        "images",
        "models",
        "output",
        "resume",
        "hierarchy",
        "predictions",
        "coarse_ckpt",
        "data.root",
        "data.csv",
        "data.test_csv",
        "data.exclude",
        "data.val_ids",
        "data.cache_dir",
        "data.id_column",
        "data.label_column",
        "data.split_column",
        "data.separator",
        "backbone.weights",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "search.storage",
        "search.study",
    )
)
_LIST_KEYS = frozenset(("ckpt", "coarse_ckpt", "images", "models"))  # these take `[a,b]` too


def quote_paths(arguments: list[str]) -> list[str]:
    """Quotes arguments that are paths or names, so that what the shell hands over is what is meant.

    Hydra's grammar refuses ordinary file names (spaces at the end, `=`, brackets, Cyrillic, `~`).
    Left as they are: values that are quoted already and, with -m, comma-separated choices, unless
    a file of that very name exists; and null. The items of a list `[a,b]` are quoted one by one.
    """
    is_sweep = any(argument in ("-m", "--multirun") for argument in arguments)
    return [_quoted(argument, is_sweep) for argument in arguments]


def _quoted(argument: str, is_sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if not equals or name not in _TEXT_KEYS or not value or value == "null":
        return argument
    if not _exists(value):
        if _is_quoted(value):
            return argument
        if is_sweep and ("," in value or value.startswith(("glob(", "choice("))):
            return argument
        if name in _LIST_KEYS and value.startswith("[") and value.endswith("]"):
            items = [item if _is_quoted(item) else quoted(item) for item in _items(value[1:-1])]
            return f"{key}=[{','.join(items)}]"
    if name.startswith("hydra."):  # the others are expanded where they are opened
        with suppress(RuntimeError):  # a user that is not there
            value = str(Path(value).expanduser())
        return f"{key}={quoted(value, interpolates=True)}"
    return f"{key}={quoted(value)}"


def _items(text: str) -> list[str]:
    """What commas separate, but for those inside of quotes."""
    items = re.findall(r"""\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", text)
    return [item for item in items if item]


def quoted(value: str, interpolates: bool = False) -> str:
    """Any text as a string of Hydra's grammar; `${` is text too unless it `interpolates`."""
    # Inside of Hydra's quotes a backslash counts only before a quote, and at the end.
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return "'" + (value if interpolates else value.replace("${", "\\${")) + "'"


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a path, or with a zero byte in it
        return False
