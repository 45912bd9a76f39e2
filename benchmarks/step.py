"""Training photos a second: the whole network trains, in the compiled step that train.py runs.

For each backbone, with random weights and the `avg_dense` head under Adamax: the same batch over
and over (what the device can do), then the training loader's batches with train.py's look at every
loss (what the user gets). First float32 and mixed precision, each without and with XLA, one step an
execution; then several steps an execution, with the fastest of these. Where PyTorch and timm are
installed, their step of the same architecture follows, of the same size and batch on the same
device: channels last, with automatic mixed precision and without, with torch.compile and without.

Every cell is measured in a process of its own, after a warm-up: the median of a few rounds, and in
brackets the slowest and the fastest. Prints Markdown; the ratio comes last. The backend is Keras'
own setting:

    KERAS_BACKEND=jax python benchmarks/step.py [--backbones xception ...] [--quick]
"""

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from photos import ROOT, add_photos_argument, photo_files
from step_cell import IN_TIMM, OUT_OF_MEMORY, ROUNDS, Cell, Measured, measure_here

MOST_PHOTOS = 500  # their paths go through a command line
BACKBONES = list(IN_TIMM)[:4]
PACKAGES = ("keras", "tensorflow", "jax", "jaxlib", "torch", "timm", "numpy")


def in_process(argument: str, seconds: float) -> tuple[Any, str]:
    """What this script says last when it is started with `argument`, and why it said no more."""
    command = [sys.executable, __file__, "--cell", argument]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": _with_root()}
    late = False
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(
            command, stdout=said, stderr=wrong, env=environment, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with suppress(ProcessLookupError):  # with what it has started itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        wrong.seek(0)
        lines, errors = said.read().splitlines(), wrong.read()
    answers = [json.loads(line) for line in lines if line.startswith(("{", "["))]
    answer = answers[-1] if answers else None
    if late:
        return answer, f"more than {seconds:.0f} s"
    if process.returncode == 0:
        return answer, ""
    if process.returncode == -9 or OUT_OF_MEMORY.search(errors):
        return answer, "out of memory"
    return answer, f"failed: {(errors.strip().splitlines() or ['no reason given'])[-1][:120]}"


def _with_root() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def measure(cell: Cell) -> Measured:
    """A cell, in a process of its own."""
    answer, failure = in_process(json.dumps(asdict(cell)), cell.seconds)
    found = Measured(**answer) if answer else Measured()
    return replace(found, note="; ".join(filter(None, [found.note, failure])))


def rate(rounds: Sequence[float]) -> float:
    """The median, 0 where nothing was measured."""
    return statistics.median(rounds) if rounds else 0.0


def shown(rounds: Sequence[float]) -> str:
    """The median, and in brackets the slowest and the fastest."""
    if not rounds:
        return "–"
    digits = 0 if rate(rounds) >= 100 else 1
    low, middle, high = (f"{x:.{digits}f}" for x in (min(rounds), rate(rounds), max(rounds)))
    return f"{middle} ({low}–{high})"


def row(*cells: str) -> None:
    """Prints a row of a Markdown table at once."""
    print(f"| {' | '.join(cells)} |", flush=True)


def header(*columns: str) -> None:
    row(*columns)
    print("|" + " --- |" * len(columns), flush=True)


def our_row(cell: Cell) -> float:
    """Measures a cell and prints it. Returns the rate without a loader."""
    found = measure(cell)
    alone, fed = rate(found.synthetic), rate(found.loader)
    row(
        cell.backbone, cell.precision, "on" if cell.xla else "off", str(cell.steps_per_execution),
        shown(found.synthetic), shown(found.loader), f"{fed / alone:.0%}" if fed and alone else "–",
        found.note,
    )  # fmt: skip
    return alone


def run_ours(options: Namespace, first: Cell) -> dict[str, float]:
    """Prints our table, and what was fastest. Returns the best rate of each backbone."""
    header("ours", "precision", "XLA", "steps", "same batch", "loader", "share", "")
    best: dict[str, float] = {}
    said = []
    for backbone in options.backbones:
        cells = [
            replace(first, backbone=backbone, precision=precision, xla=xla == "on")
            for precision in options.precisions
            for xla in options.xla
        ]
        rates = [our_row(cell) for cell in cells]
        fastest = cells[rates.index(max(rates))]
        for steps in options.steps_per_execution:
            cells.append(replace(fastest, steps_per_execution=steps))
            rates.append(our_row(cells[-1]))
        best[backbone] = max(rates)
        fastest = cells[rates.index(best[backbone])]
        if rates[0]:
            said.append(
                f"{backbone}: {best[backbone] / rates[0]:.2f} times its first row with "
                f"{fastest.precision}, XLA {'on' if fastest.xla else 'off'}, "
                f"{fastest.steps_per_execution} steps an execution"
            )
    print("\n" + "\n".join(said))
    return best


def run_timm(options: Namespace, first: Cell) -> dict[str, float]:
    """Prints timm's table. Returns its best rate of each backbone."""
    print()
    header("timm", "precision", "same batch", "the same, torch.compile", "")
    best = {}
    for backbone in options.backbones:
        if backbone not in IN_TIMM:
            continue
        rates = []
        for precision in options.precisions:
            found = measure(replace(first, side="timm", backbone=backbone, precision=precision))
            name, _, note = found.note.partition("; ")
            row(name or backbone, precision, shown(found.synthetic), shown(found.compiled), note)
            rates += [rate(found.synthetic), rate(found.compiled)]
        best[backbone] = max(rates)
    return best


def versions() -> str:
    """Of Python and of what is installed of `PACKAGES`."""
    named = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named)


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.M) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def parsed(arguments: Sequence[str] | None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    parser.add_argument("--backbones", nargs="+", metavar="NAME", default=BACKBONES,
                        help=f"default: {' '.join(BACKBONES)}")  # fmt: skip
    parser.add_argument("--image-size", type=int, default=240, help="pixels; default: 240")
    parser.add_argument("--batch-size", type=int, default=16, help="default: 16")
    parser.add_argument("--steps", type=int, default=20, help="a round; default: 20")
    parser.add_argument("--seconds", type=float, default=300,
                        help="limit of a cell, its compilation included; default: 300")  # fmt: skip
    parser.add_argument(
        "--precisions", nargs="+", metavar="P",
        help="default: float32, and mixed_float16 on a GPU or mixed_bfloat16 on a CPU",
    )  # fmt: skip
    parser.add_argument("--xla", nargs="+", choices=("off", "on"),
                        help="default: both; on JAX, which needs it: on")  # fmt: skip
    parser.add_argument("--steps-per-execution", nargs="*", type=int, metavar="N", default=[8],
                        help="after 1; default: 8")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="one backbone, float32, small batches, few steps")  # fmt: skip
    parser.add_argument("--no-timm", action="store_true", help="leave PyTorch out")
    add_photos_argument(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    answer, failure = in_process("device", 120)
    if not answer:
        sys.exit(f"The device could not be looked at: {failure}")
    device, on_gpu, backend = answer
    if options.quick:
        options.backbones = options.backbones[:1]
        options.precisions, options.xla = ["float32"], [["off", "on"][backend == "jax"]]
        options.batch_size, options.steps, options.steps_per_execution = 4, 2, []
    mixed = "mixed_float16" if on_gpu else "mixed_bfloat16"
    options.precisions = options.precisions or ["float32", mixed]
    options.xla = options.xla or (["on"] if backend == "jax" else ["off", "on"])
    if backend == "torch":
        options.steps_per_execution = []  # Keras has no such thing there
    print(f"{datetime.now(UTC):%Y-%m-%d}, {device}, {processor()}; {versions()}.")
    print(
        f"{options.image_size} px, batches of {options.batch_size}, photos a second: the median of "
        f"up to {ROUNDS} rounds of {options.steps} steps (slowest–fastest).\n",
        flush=True,
    )
    with (
        photo_files(options.photos, most=MOST_PHOTOS) as paths,
        tempfile.TemporaryDirectory() as cache,
    ):
        first = Cell(
            side="ours", backbone="", image_size=options.image_size, steps=options.steps,
            batch_size=options.batch_size, seconds=options.seconds, photos=paths, cache=cache,
        )  # fmt: skip
        ours = run_ours(options, first)
    missing = [name for name in ("torch", "timm") if find_spec(name) is None]
    if missing or options.no_timm:
        why = f"not installed: {', '.join(missing)}" if missing else "--no-timm"
        print(f"\nNothing to compare with ({why}).")
        return
    theirs = run_timm(options, first)
    print()
    ratios = {name: ours[name] / theirs[name] for name in theirs if ours[name] and theirs[name]}
    for name, ratio in ratios.items():
        print(f"{name}: ours/timm {ratio:.2f}, the best of each")
    if ratios:
        print(f"ratio ours/timm {statistics.geometric_mean(ratios.values()):.2f} (geometric mean)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cell"]:
        measure_here(sys.argv[2])
    else:
        main()
