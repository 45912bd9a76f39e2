"""How the entry points talk: plain lines and tables, the same on the terminal and in the log."""

import io
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_WIDTH = 100
UNFOLDED = 1000  # a path or a command that is cut or folded cannot be copied


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table as text; all columns but the first are aligned right."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return render(grid, UNFOLDED)


def facts(pairs: list[tuple[str, str]], width: int = _WIDTH) -> str:
    """Names and values in two columns, as text; longer values are folded at `width`."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return render(grid, width)


def render(renderable: object, width: int = _WIDTH) -> str:
    """Anything that rich can draw, as plain text without trailing blanks."""
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    console.print(renderable)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def progress_bar() -> Progress:
    """A bar that shows on a terminal only, and leaves nothing behind."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stdout),
        transient=True,
        disable=not sys.stdout.isatty(),
    )


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
