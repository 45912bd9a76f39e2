"""A run that is cut anywhere and gone on with ends as the one that never was."""

import json
import os
import resource
import signal
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.errors import UserError
from carcls.training import generations, loop, optimizers
from carcls.training.callbacks import StopOnSignal
from carcls.training.checkpoints import StageCheckpoint
from carcls.training.loop import train
from carcls.training.resume import with_recorded
from tests import processes
from tests.conftest import draw_competition
from tests.processes import ROOT
from tests.test_config import composed

PLAN = (  # stages of 5, 1, and twice 1 epochs of 4 batches at most, the last two of a soup
    "finetune=staged", "~finetune.stages.top_half", "finetune.stages.head.epochs=5",
    "finetune.stages.top_three_quarters.epochs=1", "finetune.stages.all.epochs=1",
    "finetune.stages.all.soup=2",
    "finetune.stages.top_three_quarters.enlarge=1.5",  # see carcls.models.classifier.seen_at
    "finetune.early_stopping_patience=2", "schedule.patience=1", "schedule.min_learning_rate=0",
    "finetune.stages.head.trainable=1", "optimizer.learning_rate=0.1",
    "optimizer.centralize=false",  # a loss that rises now and then, for plateau to see
)  # fmt: skip


class Cut(BaseException):
    """Ends a run at once, as a kill would."""


def tiny(backbone, head, num_classes):
    """A network of everything that has a state: BatchNorm, dropout, layers to freeze."""
    photos = keras.Input((None, None, 3))
    x = keras.Input((None, None, 3))
    y = keras.layers.Conv2D(4, 3, 4, use_bias=False)(x)
    y = keras.layers.BatchNormalization(momentum=0.8)(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.Conv2D(6, 3, 2)(y)
    network = keras.Model(x, y)
    z = network(keras.layers.Rescaling(1 / 255)(photos))
    z = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(z))
    return keras.Model(photos, keras.layers.Dense(num_classes, activation="softmax")(z))


def averaging(config, rate):
    """An optimizer of everything that has a state: moments, averages, sums of gradients."""
    return keras.optimizers.AdamW(
        rate, use_ema=True, ema_momentum=0.7, gradient_accumulation_steps=2
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data"), per_class=6)


@pytest.fixture(scope="module", autouse=True)
def _tiny_networks():
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch.setattr)
        patch.setitem(optimizers.OPTIMIZERS, "adamw", averaging)
        yield


def use_tiny_networks(set_attribute) -> None:
    """For all runs of this process, whose last two generations stay."""
    set_attribute(loop, "build_classifier", tiny)
    set_attribute(generations, "remove", lambda folder, pattern="*": None)


def overrides_for(root: Path) -> list[str]:
    return [
        f"data.root={root}", "image_size=32", "batch_size=4", "runtime.eager=true",
        "runtime.workers=0", *PLAN,
    ]  # fmt: skip


def small(root: Path, *overrides: str):
    return to_config(composed(*overrides_for(root), *overrides))


@pytest.fixture(scope="module")
def unbroken(root, tmp_path_factory):
    """The run that was never cut."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    train(small(root, "optimizer=adamw"), workdir)
    rows = pd.read_csv(workdir / "history.csv")
    assert rows.learning_rate.nunique() > 1, "plateau moved it"
    assert len(rows) < 5 + 1 + 2 + 1, "early stopping ended a stage"
    return workdir


def resumed(workdir: Path):
    """What `resume=RUN` makes of it."""
    return train(with_recorded(to_config(composed(f"resume='{workdir}'")), ()), workdir)


def cut_after(monkeypatch, where: object, name: str, call: int, before: bool = False):
    """Ends the process in the given call, counted from 1, of a function; returns how to mend it."""
    original, calls = getattr(where, name), []

    def cutting(*args, **kwargs):
        calls.append(1)
        if before and len(calls) == call:
            raise Cut
        answer = original(*args, **kwargs)
        if len(calls) == call:
            raise Cut
        return answer

    monkeypatch.setattr(where, name, cutting)
    return lambda: monkeypatch.setattr(where, name, original)


TIMES = {"seconds", "stage_seconds", "session", "images_per_second"}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def weights_in(model: Path) -> bytes:
    with zipfile.ZipFile(model) as archive:
        return archive.read("model.weights.h5")


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: the kept weights, the history, the predictions and all state at the end."""
    histories = [pd.read_csv(run / "history.csv") for run in (one, other)]
    pd.testing.assert_frame_equal(
        *(h.drop(columns=["seconds", "images_per_second"]) for h in histories), check_exact=True
    )
    models = [loop.load_classifier(run / "model.keras") for run in (one, other)]
    for first, second in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(first, second)
    texts = [(run / "val_predictions.csv").read_text() for run in (one, other)]
    assert texts[0] == texts[1]
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert without_times(metrics[0]) == without_times(metrics[1])
    for runs in zip(*(last_generations(run) for run in (one, other)), strict=True):
        assert without_times(runs[0].state) == without_times(runs[1].state)
        assert len(runs[0].arrays) == len(runs[1].arrays)
        for first, second in zip(runs[0].arrays, runs[1].arrays, strict=True):
            np.testing.assert_array_equal(first, second)


def last_generations(run: Path) -> list[generations.Generation]:
    folders = sorted(path for path in (run / "stages").iterdir() if path.name.isdigit())
    assert len(folders) == generations.KEPT
    return [generations._read(folder) for folder in folders]


def test_a_run_that_is_cut_again_and_again_ends_as_the_unbroken_one(
    root, unbroken, tmp_path, monkeypatch
):
    """Cut after every 5th batch, whatever it is in: inside of epochs, between epochs and stages."""
    config = small(root, "optimizer=adamw", "runtime.checkpoint_minutes=1e-9")
    mend = cut_after(monkeypatch, StageCheckpoint, "on_train_batch_end", 5)
    with pytest.raises(Cut):
        train(config, tmp_path / "run")
    cuts = 1
    for _ in range(50):
        mend()
        mend = cut_after(monkeypatch, StageCheckpoint, "on_train_batch_end", 5)
        try:
            resumed(tmp_path / "run")
            break
        except Cut:
            cuts += 1
    assert cuts >= 4
    assert_same_run(unbroken, tmp_path / "run")
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert len(sessions) == cuts + 1
    assert sessions[0]["from"] == "the start"
    assert sessions[1]["from"] == "stage 1/5 head, epoch 2, step 2"


def test_a_run_that_is_cut_while_it_writes_ends_as_the_unbroken_one(
    root, unbroken, tmp_path, monkeypatch
):
    """Before and inside of a generation, when model.keras is ahead of it; and at the very end."""
    workdir = tmp_path / "run"
    mend = cut_after(monkeypatch, generations, "write", 2, before=True)
    with pytest.raises(Cut):
        train(small(root, "optimizer=adamw"), workdir)
    mend()
    ahead = weights_in(workdir / "model.keras")
    assert ahead != weights_in(workdir / "stages" / "000001" / "model.keras")
    for where, name, call in (
        (generations, "_sync", 3),  # the second generation is complete but has another name
        (loop, "run_stage", 2),
        (loop, "_write_val_predictions", 1),
    ):
        mend = cut_after(monkeypatch, where, name, call, before=True)
        with pytest.raises(Cut):
            resumed(workdir)
        mend()
    resumed(workdir)
    assert_same_run(unbroken, workdir)
    assert sorted(path.name for path in workdir.iterdir()) == [
        "curves.png", "history.csv", "metrics.json", "model.keras", "run.json", "stages",
        "val_predictions.csv",
    ]  # fmt: skip


def test_ctrl_c_inside_of_an_epoch_leaves_what_was_reached_and_loses_no_batch(
    root, unbroken, tmp_path, monkeypatch, caplog
):
    workdir, seen, said = tmp_path / "run", [], StopOnSignal.on_train_batch_end

    def pressed_in_the_6th_batch(self, batch, logs=None):
        seen.append(batch)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        said(self, batch, logs)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", pressed_in_the_6th_batch)
    with caplog.at_level("INFO"):
        outcome = train(small(root, "optimizer=adamw"), workdir)
    assert outcome.interrupted
    assert f"python train.py resume={workdir}" in caplog.text
    assert len(pd.read_csv(workdir / "history.csv")) == 2, "the epoch that was cut is shown"
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "interrupted"
    first_seconds = facts["sessions"][0]["seconds"]
    resumed(workdir)
    assert len(seen) == 4 * pd.read_csv(unbroken / "history.csv").loss.count()
    assert_same_run(unbroken, workdir)
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["status"] == "finished"
    assert [session["from"] for session in facts["sessions"]] == [
        "the start", "stage 1/5 head, epoch 2, step 3",
    ]  # fmt: skip
    total = first_seconds + facts["sessions"][1]["seconds"]
    assert facts["seconds"] == pytest.approx(total, abs=0.11)


def test_a_full_disk_stops_a_run_that_can_be_gone_on_with(root, tmp_path, monkeypatch):
    """Full while a generation is written, and once more while the best weights are."""
    workdir, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    config = small(root, "optimizer=adamw")
    for where, name, call, start in (
        (generations, "write", 2, lambda: train(config, workdir)),
        (loop.Session, "save", 1, lambda: resumed(workdir)),
    ):
        calls, write = [], getattr(where, name)

        def with_no_room(*args, calls=calls, write=write, call=call):
            calls.append(1)
            if len(calls) == call:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            write(*args)

        monkeypatch.setattr(where, name, with_no_room)
        try:
            with pytest.raises(UserError) as told:
                start()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.setattr(where, name, write)
        assert str(told.value).startswith(f"Expected room to write {workdir}")
        assert "File too large" in str(told.value)
        assert str(told.value).endswith(f"go on with: python train.py resume={workdir}")
        assert [path.name for path in workdir.rglob(".*")] == []
        assert generations.newest(workdir / "stages").state["epoch"] == 1


def test_a_run_that_is_killed_finds_itself_again(root, unbroken, tmp_path):
    """kill -9 of a real process, and the same command once more."""
    script = (
        "import runpy\n"
        "from carcls.training import optimizers\n"
        "from tests.test_resume import averaging, use_tiny_networks\n"
        "use_tiny_networks(setattr)\n"
        "optimizers.OPTIMIZERS['adamw'] = averaging\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )
    (tmp_path / "train.py").write_text(script)
    command = [tmp_path / "train.py", *overrides_for(root), "optimizer=adamw", "resume=auto"]
    said = tmp_path / "said.txt"
    process = processes.start(*command, cwd=tmp_path, out=said, err=said)
    while process.is_alive() and not list(tmp_path.glob("outputs/*/stages/000002")):
        time.sleep(0.002)
    process.kill()
    process.join()
    (workdir,) = (tmp_path / "outputs").iterdir()
    assert json.loads((workdir / "run.json").read_text())["status"] == "running"
    again = processes.run(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert list((tmp_path / "outputs").iterdir()) == [workdir]
    assert f"Goes on with outputs/{workdir.name} from stage 1/5 head, epoch 3" in again.stdout
    assert_same_run(unbroken, workdir)
