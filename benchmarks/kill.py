"""Kill -9 at random instants of a short run of stages, a soup and a last head; go on each time.

A run that nobody touches first. Then runs of the same command that are killed at an instant drawn
between their start and their planned end, gone on with by resume=RUN, killed again, up to
`--a-run` times, and left alone at last. Their weights, history and predictions must be those of
the first, bit for bit. Prints a line a kill and the verdict last; exits with 1 if it is a bad one.

    python benchmarks/kill.py [--kills 25] [--a-run 5] [--seed 0] [--compiled] [--folder DIR]
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
COMMAND = [
    sys.executable, str(ROOT / "train.py"), "data=demo", "data.train_per_class=4",
    "data.test_per_class=2", "data.root=photos", "backbone=efficientnetlite0", "image_size=32",
    "batch_size=8", "finetune=staged", "~finetune.stages.top_half", "finetune.stages.head.epochs=2",
    "finetune.stages.top_three_quarters.epochs=1", "finetune.stages.all.epochs=1",
    "finetune.stages.all.soup=2", "schedule.patience=1", "runtime.deterministic=true",
    "+finetune.stages.last_head.feature_views=1", "+finetune.stages.last_head.epochs=1",
    "+finetune.stages.last_head.trainable=0", "+finetune.stages.last_head.learning_rate=1e-3",
    "finetune.stages.top_three_quarters.enlarge=1.5", "+finetune.stages.last_head.enlarge=1.25",
    "finetune.keep=last",  # the head that was fitted anew, whatever it is worth
    "runtime.device=cpu", "runtime.checkpoint_minutes=0.03",
]  # fmt: skip


def started(folder: Path, run: str, options: list[str], goes_on: bool) -> subprocess.Popen:
    """The run's process, in a group of its own; what it says is appended to a log."""
    command = [*COMMAND, *options, f"hydra.run.dir={run}"]
    if goes_on:
        command = [*COMMAND[:2], f"resume={run}"]
    with (folder / f"{run}.txt").open("a") as said:
        return subprocess.Popen(
            command, cwd=folder, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=said,
            stderr=said,
        )  # fmt: skip


def weights(run: Path) -> bytes:
    """What Keras has written of them, without the archive's times."""
    with zipfile.ZipFile(run / "model.keras") as archive:
        return archive.read("model.weights.h5")


def history(run: Path) -> pd.DataFrame:
    """Without what is a matter of time."""
    return pd.read_csv(run / "history.csv").drop(columns=["seconds", "images_per_second"])


def differences(one: Path, other: Path) -> list[str]:
    """What of two runs is not the same."""
    same = {
        "weights": weights(one) == weights(other),
        "history": history(one).equals(history(other)),
        "predictions": (one / "val_predictions.csv").read_bytes()
        == (other / "val_predictions.csv").read_bytes(),
    }
    return [name for name, is_same in same.items() if not is_same]


def state_of(run: Path) -> str:
    """Where a run that was killed is, in words."""
    rows = len(history(run)) if (run / "history.csv").is_file() else 0
    generations = sorted(path.name for path in (run / "stages").glob("[0-9]*"))
    return f"{rows} epochs in history.csv, generations {', '.join(generations) or 'none'}"


def finish(process: subprocess.Popen, folder: Path, run: str) -> None:
    if process.wait():
        said = (folder / f"{run}.txt").read_text()[-2000:]
        raise SystemExit(f"{run} ended with status {process.returncode}:\n{said}")


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--a-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compiled", action="store_true", help="with graphs: tracing takes long")
    parser.add_argument("--folder", type=Path, help="keeps all, takes its unbroken run")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    folder.mkdir(parents=True, exist_ok=True)
    options = [] if arguments.compiled else ["runtime.eager=true"]
    unbroken = folder / "unbroken"
    if not (unbroken / "val_predictions.csv").is_file():
        finish(started(folder, "unbroken", options, goes_on=False), folder, "unbroken")
    times = [(unbroken / name).stat().st_mtime for name in (".hydra/hydra.yaml", "run.json")]
    seconds = times[1] - times[0]
    print(f"unbroken: {seconds:.0f} s, {len(history(unbroken))} epochs", flush=True)
    draws, kills, runs, bad = np.random.default_rng(arguments.seed), 0, 0, 0
    while kills < arguments.kills:
        runs += 1
        name, process = f"run{runs}", started(folder, f"run{runs}", options, goes_on=False)
        for _ in range(min(arguments.a_run, arguments.kills - kills)):
            after = draws.uniform(0, seconds)
            try:
                process.wait(after)
                break  # the end came first
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kills += 1
            is_known = (folder / name / ".hydra" / "hydra.yaml").is_file()
            print(f"kill {kills:>2} of {name} after {after:4.1f} s: {state_of(folder / name)}",
                  flush=True)  # fmt: skip
            process = started(folder, name, options, goes_on=is_known)
        finish(process, folder, name)
        sessions = json.loads((folder / name / "run.json").read_text())["sessions"]
        wrong = differences(unbroken, folder / name)
        bad += bool(wrong)
        verdict = f"DIFFERENT {' and '.join(wrong)}" if wrong else "the same bit for bit"
        print(f"{name}: finished in {len(sessions)} sessions that trained: {verdict}", flush=True)
    print(f"{kills} kills in {runs} runs: {runs - bad} of {runs} ended as the unbroken one")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
