"""The command line of a sweep, before Hydra reads it. Loads nothing where there is none."""

from __future__ import annotations

from pathlib import Path

from carcls.errors import UserError
from carcls.quoting import quote_paths

_MULTIRUN = ("-m", "--multirun")
_ASKS_ONLY = ("--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--version")
_OUTPUTS = Path("outputs")  # as conf/train.yaml has it


def sweeping(arguments: list[str]) -> list[str]:
    """Has the jobs of a sweep run in processes of their own, and the same command go on with it.

    Args:
        arguments: As the shell hands them over.

    Returns:
        The same where there is no `-m`, or another launcher is asked for; else with our launcher,
        for `search=` with our sweeper, and, unless a directory is given, with that of the sweep
        that the same command began.

    Raises:
        UserError: If a search is asked for without `-m`, or with another launcher.
    """
    given = {_key(argument): argument.partition("=")[2] for argument in arguments}
    if any(argument in _ASKS_ONLY for argument in arguments):
        return arguments
    is_search = given.get("search", "null") not in ("", "null")
    if not any(argument in _MULTIRUN for argument in arguments):
        if is_search:
            raise UserError(
                f"Expected -m with a search, which runs many trainings. Received: "
                f"search={given['search']} alone. Try: python train.py -m search={given['search']}"
            )
        return arguments
    if "hydra/launcher" in given:
        if is_search:
            raise UserError(
                "Expected a search without hydra/launcher: it stops bad trials as they train, on "
                f"the machine that runs it. Received: hydra/launcher={given['hydra/launcher']}. "
                "For several machines start the same command on each, with search.storage=URL and "
                "search.study=NAME."
            )
        return arguments
    from carcls import run as files
    from carcls.sweeps import launcher
    from carcls.sweeps.record import newest_of

    launcher.register()
    added = [f"hydra/launcher={launcher.NAME}"]
    if is_search:
        from carcls.sweeps import search

        search.register()
        added.append(f"hydra/sweeper={search.SWEEPER}")
    if "hydra.sweep.dir" not in given:
        swept_over = [text for text in quote_paths(arguments) if _is_of_jobs(text)]
        if earlier := newest_of(swept_over, _OUTPUTS):
            added.append(f"hydra.sweep.dir={earlier}")
            print(
                f"This command began {files.shown(earlier)}, and goes on there. Another sweep: "
                "hydra.sweep.dir=DIR."
            )
    return [*arguments, *added]


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _is_of_jobs(argument: str) -> bool:
    return not argument.startswith("-") and not _key(argument).startswith(("hydra.", "hydra/"))
