"""Fine-tuning recipes on the same splits, backbone and machine: accuracy, spread and seconds.

Every recipe is one `train.py` command, run as its users would, in a process of its own. Results go
to a CSV, one after the other; started again, it goes on where it stopped.

    python benchmarks/finetune.py PHOTOS                      probe, notebook, fast: test accuracy
    python benchmarks/finetune.py PHOTOS --recipes fast       one of them
    python benchmarks/finetune.py PHOTOS --tune --recipes fast fast_without_ema
    python benchmarks/finetune.py PHOTOS --folds 5 --recipes fast

PHOTOS is a folder of class folders, or of a competition (with train.csv). Photos are split
64/16/20 into train, val and test, stratified, by each of three seeds; the test part is predicted
once, at the end. With --tune nothing is tested: seeds of its own split 64/36 into train and val, so
that what is chosen there was not chosen on test photos. With --folds the accuracy is out of fold.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from photos import ROOT
from scipy.stats import binomtest

from carcls.config.reading import to_data_config
from carcls.data.sources import read_training_photos
from carcls.data.split import stratified_split
from carcls.run import replacing

FAST = ["finetune=fast"]
ALL = "finetune.stages.all"
SMALLER = ["finetune.stages.head.train_scale=0.85", f"{ALL}.train_scale=0.85"]
RECIPES: dict[str, list[str]] = {
    "probe": ["finetune=probe"],
    "notebook": ["finetune=staged"],
    "fast": FAST,
    # an ensemble of three: each trained on two thirds of what the others train and validate on
    "fast_3_folds": [*FAST, "data.folds=3"],
    # `fast` but for one part: what a part gives is `fast` minus its line.
    "without_fitted_head": [
        *FAST, "finetune.stages.head.feature_views=0", "finetune.stages.head.epochs=4"
    ],
    "without_label_smoothing": [*FAST, f"{ALL}.label_smoothing=0"],
    "without_ema": [*FAST, f"{ALL}.ema_span=0"],
    "without_centralizing": [*FAST, "optimizer.centralize=false"],
    "without_high_rate": [*FAST, "schedule=cosine"],
    "without_mixing": [*FAST, f"{ALL}.mix_probability=0"],
    "without_enlarging": [*FAST, "finetune.enlarge=1"],
    "with_less_enlarging": [*FAST, "finetune.enlarge=1.5"],
    "without_last_head": [*FAST, "~finetune.stages.last_head"],
    "without_frozen_batch_norm": [*FAST, "finetune.batch_norm=train"],
    "with_photo_policy": [*FAST, "augmentation=photo"],
    # and with one part more, which it does without
    "with_strong_policy": [*FAST, "augmentation=strong"],
    "with_larger_photos_in_the_last_head": [
        *FAST, "finetune.enlarge=1.5", "finetune.stages.last_head.enlarge=1.2857"
    ],
    "with_smaller_photos": [*FAST, *SMALLER],
    "with_clipping": [*FAST, "optimizer.clip_norm=0.5"],
    "with_discriminative_rates": [*FAST, f"{ALL}.bottom_rate=0.1"],
    "with_half_the_rate": [*FAST, "optimizer.learning_rate=2.5e-4"],
    "with_twice_the_rate": [*FAST, "optimizer.learning_rate=1e-3"],
    "with_half_the_epochs": [*FAST, f"{ALL}.epochs=12"],
    "with_twice_the_epochs": [*FAST, f"{ALL}.epochs=48"],
    "with_three_trainings": [*FAST, f"{ALL}.soup=3"],
    "with_two_trainings_under_large_dropout": [*FAST, f"{ALL}.soup=2", "head.dropout=0.8"],
    "with_stochastic_depth": [*FAST, "finetune.stochastic_depth=true"],
    "with_smaller_photos_and_clipping": [*FAST, *SMALLER, "optimizer.clip_norm=0.5"],
}  # fmt: skip
TEST_SEEDS, TUNE_SEEDS = (42, 43, 44), (100, 101, 102)
COLUMNS = (
    "photos", "size", "part", "seed", "recipe", "accuracy", "nll", "n", "accuracy_flip", "seconds",
    "curve", "command",
)  # fmt: skip


def labelled(root: Path) -> pd.DataFrame:
    """`path` and `label` of all labelled photos."""
    option = OmegaConf.load(ROOT / "conf" / "data" / f"{source(root)}.yaml")
    values = OmegaConf.to_container(option) | {"root": str(root)}
    records = read_training_photos(to_data_config(values))
    names = np.array(records.class_names, object)
    paths = [str(Path(path).resolve()) for path in records.table.path]
    return pd.DataFrame({"path": paths, "label": names[records.table.label]})


def source(root: Path) -> str:
    """Which option of `data` reads a folder."""
    return "kaggle" if (root / "train.csv").is_file() else "folder"


def split(photos: pd.DataFrame, seed: int, tune: bool) -> np.ndarray:
    """`(n,)` of train, val and test."""
    labels = pd.factorize(photos.label)[0]
    part = np.full(len(photos), "train", object)
    rest = stratified_split(labels, 0.36, seed)
    part[rest] = "val"
    if not tune:  # 20 of the 36 %
        part[np.flatnonzero(rest)[stratified_split(labels[rest], 0.2 / 0.36, seed)]] = "test"
    return part


def run(arguments: Namespace, recipe: str, seed: int) -> dict:
    """Trains, and measures on photos that it was not trained on. A row of the CSV."""
    overrides = [
        *RECIPES[recipe], f"backbone={arguments.backbone}", f"image_size={arguments.size}",
        f"seed={seed}", *arguments.overrides,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if arguments.folds:
            data = [f"data={source(arguments.photos)}", f"data.root={arguments.photos.resolve()}"]
            data += [f"data.folds={arguments.folds}"]
        else:
            photos = labelled(arguments.photos)
            photos["part"] = split(photos, seed, arguments.tune)
            root = os.path.commonpath(photos.path.tolist())
            photos["path"] = [os.path.relpath(path, root) for path in photos.path]
            photos.to_csv(Path(folder, "photos.csv"), index=False)
            data = [
                "data=csv", f"data.csv={folder}/photos.csv", f"data.root={root}",
                "data.id_column=path", "data.label_column=label", "data.split_column=part",
            ]  # fmt: skip
        workdir = Path(folder, "run")
        started = time.perf_counter()
        script("train.py", *overrides, *data, f"hydra.run.dir={workdir}")
        seconds = time.perf_counter() - started
        metrics = json.loads((workdir / "metrics.json").read_text())
        accuracy, nll, n = metrics["val_accuracy"], metrics["val_nll"], metrics["n_val"]
        flipped = np.nan
        if part_of(arguments) == "test":
            tested = photos[photos.part == "test"]
            accuracy, nll, n = test(workdir, tested)
            flipped, *_ = test(workdir, tested, "tta=flip")
        return {
            "accuracy": round(accuracy, 4), "nll": round(nll, 4), "n": n,
            "accuracy_flip": round(flipped, 4),
            "seconds": round(seconds, 1), "curve": json.dumps(curve(workdir, seconds)),
            "command": " ".join(["python train.py", *overrides, *data]),
        }  # fmt: skip


def script(name: str, *overrides: str) -> None:
    """Runs an entry point; its words go to the terminal only if it fails."""
    command = [sys.executable, str(ROOT / name), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr}")


def test(workdir: Path, photos: pd.DataFrame, *overrides: str) -> tuple[float, float, int]:
    """Accuracy, NLL and number of the test photos, joined by path."""
    script("predict.py", f"ckpt={workdir}", *overrides)
    found = pd.read_csv(workdir / "prediction" / "submission_probabilities.csv", index_col=0)
    found = found.loc[photos.path]
    column = "p_" + photos.label.to_numpy()
    own = [row[name] for (_, row), name in zip(found.iterrows(), column, strict=True)]
    accuracy = np.mean(found.idxmax(axis=1).to_numpy() == column)
    return float(accuracy), float(-np.mean(np.log(np.maximum(own, 1e-12)))), len(photos)


def curve(workdir: Path, seconds: float) -> list[tuple[float, float]]:
    """Seconds since the start and validation accuracy, after each epoch.

    What is not in an epoch (opening photos, building the network, measuring) counts before all.
    """
    if not (workdir / "history.csv").is_file():
        return []
    history = pd.read_csv(workdir / "history.csv")
    if "fold" in history:  # each starts anew
        return []
    at = seconds - history.seconds.sum() + history.seconds.cumsum()
    return [(round(s, 1), round(a, 4)) for s, a in zip(at, history.val_accuracy, strict=True)]


def part_of(arguments: Namespace) -> str:
    """Which photos the accuracy is of."""
    if arguments.folds:
        return f"{arguments.folds} folds"
    return "val" if arguments.tune else "test"


def interval(rows: pd.DataFrame) -> tuple[float, float]:
    """Wilson's, of all photos that were measured; of those in several splits each counts."""
    right = round(float((rows.accuracy * rows.n).sum()))
    found = binomtest(right, int(rows.n.sum())).proportion_ci(method="wilson")
    return found.low, found.high


def percent(share: float) -> str:
    """Of what was measured; one run has no spread, and out of fold nothing is mirrored."""
    return "-" if np.isnan(share) else f"{share:.2%}"


def report(rows: pd.DataFrame) -> None:
    """Prints the table, and the ratios last."""
    table = rows.groupby("recipe", sort=False).agg(
        accuracy=("accuracy", "mean"), spread=("accuracy", "std"), nll=("nll", "mean"),
        flip=("accuracy_flip", "mean"), seconds=("seconds", "mean"), runs=("seed", "count"),
    )  # fmt: skip
    print(f"\n{'recipe':28} accuracy  95 % interval    spread      nll  tta=flip  seconds  runs")
    for name, row in table.iterrows():
        low, high = interval(rows[rows.recipe == name])
        print(
            f"{name:28}  {row.accuracy:6.2%}  {low:5.1%} to {high:5.1%}  {percent(row.spread):>7}  "
            f"{row.nll:7.3f}  {percent(row.flip):>8} {row.seconds:8.0f}  {row.runs:4.0f}"
        )
    if not {"fast", "notebook"} <= set(table.index):
        return
    fast, notebook = (rows[rows.recipe == name].set_index("seed") for name in ("fast", "notebook"))
    shares = []
    for seed in fast.index.intersection(notebook.index):
        final = notebook.curve[seed][-1][1]
        reached = [second for second, accuracy in fast.curve[seed] if accuracy >= final]
        shares.append(reached[0] / notebook.seconds[seed] if reached else np.inf)
    print(f"seconds, fast / notebook: ratio {table.seconds.fast / table.seconds.notebook:.2f}")
    print(
        "until the notebook's last validation accuracy, fast / all of the notebook: ratio "
        f"{np.mean(shares):.2f}"
    )
    print(f"accuracy, fast - notebook: {100 * (table.accuracy.fast - table.accuracy.notebook):.1f}")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES, default=["probe", "notebook", "fast"],
        metavar="RECIPE", help="of " + ", ".join(RECIPES),
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--backbone", default="efficientnetlite0")
    parser.add_argument("--tune", action="store_true", help="validate only, on other splits")
    parser.add_argument("--folds", type=int, default=0, help="out-of-fold accuracy of this many")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--results", type=Path, default=Path("outputs/finetune.csv"))
    parser.add_argument("--overrides", nargs="*", default=[], help="of train.py, for every recipe")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(arguments.results) if arguments.results.is_file() else pd.DataFrame()
    mine = []
    for seed in arguments.seeds or (TUNE_SEEDS if arguments.tune else TEST_SEEDS):
        for recipe in arguments.recipes:
            key = {
                "photos": arguments.photos.resolve().name, "size": arguments.size,
                "part": part_of(arguments), "seed": seed,
                "recipe": " ".join([recipe, *arguments.overrides]),
            }  # fmt: skip
            done = rows
            for name, value in key.items():
                done = done[done[name] == value] if len(done) else done
            if len(done):
                row = done.iloc[-1].to_dict()
            else:
                row = key | run(arguments, recipe, seed)
                rows = pd.concat([rows, pd.DataFrame([row], columns=COLUMNS)])
                with replacing(arguments.results) as temporary:
                    rows.to_csv(temporary, index=False)
            what = f"{row['photos']} {row['size']} px, {row['part']}, seed {seed}, {row['recipe']}"
            found = f"{row['accuracy']:.2%} of {row['n']}, nll {row['nll']:.3f}"
            print(f"{what}: {found}, {row['seconds']:.0f} s", flush=True)
            mine.append(row | {"curve": json.loads(row["curve"])})
    report(pd.DataFrame(mine))


if __name__ == "__main__":
    main()
