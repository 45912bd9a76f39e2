"""How long evaluate.py takes for predictions that a file has, and how much memory.

    python benchmarks/saved_predictions.py

Writes a million predictions of 10 classes and 100,000 of 1000 as CSV files into a temporary
directory (1.1 GB) and evaluates each in a process of its own, with 1000 resamples: the report, its
pictures and all intervals included.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
CASES = ((1_000_000, 10), (100_000, 1000))
_AT_ONCE = 20_000  # rows
_SHARPNESS = 3.0  # of the logits: about half to nine tenths are told right


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for photos, classes in CASES:
            path = Path(folder, f"{photos}_{classes}.csv")
            write(path, photos, classes)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            out = Path(folder, "out")
            command = [sys.executable, "evaluate.py", f"predictions={path}", f"hydra.run.dir={out}"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{photos:>9,} × {classes:<5,} {path.stat().st_size / 1e6:7,.0f} MB  "
                f"{seconds:5.1f} s ({cpu:.1f} s of CPU), at most {after.ru_maxrss / 2**20:.2f} GiB "
                "so far",
                flush=True,
            )
            path.unlink()


def write(path: Path, photos: int, classes: int) -> None:
    """Probabilities of noisy logits, rounded to 6 digits as runs save them."""
    draws = np.random.default_rng(0)
    with path.open("w") as file:
        file.write(",".join(["id", "label", *(f"p_{number}" for number in range(classes))]) + "\n")
        for start in range(0, photos, _AT_ONCE):
            count = min(_AT_ONCE, photos - start)
            labels = draws.integers(0, classes, count)
            logits = draws.standard_normal((count, classes), np.float32)
            logits[np.arange(count), labels] += 2.0
            probs = np.exp(_SHARPNESS * (logits - logits.max(1, keepdims=True)))
            probs /= probs.sum(1, keepdims=True)
            head = np.stack([np.arange(start, start + count), labels], axis=1)
            rows = np.concatenate([head, probs], axis=1)
            np.savetxt(file, rows, fmt=["%d", "%d", *["%.6f"] * classes], delimiter=",")


if __name__ == "__main__":
    main()
