"""`find_lr=true`: a learning-rate range test. Trains nothing that stays.

Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), section 3.3: the rate
grows from step to step, and the loss of each tells which rates train. As in the `lr_find` of fastai
(Howard and Gugger, 2020) it grows exponentially, and the test ends when the smoothed loss is more
than four times its least.
"""

import itertools
import logging
import math
import re
import shlex
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from carcls import run as files
from carcls import runtime
from carcls.backend import keras
from carcls.config import (
    ConstantSchedule,
    StageConfig,
    TrainConfig,
    to_plain,
    with_absolute_paths,
)
from carcls.console import UNFOLDED, facts, progress_bar, table
from carcls.errors import UserError
from carcls.models.classifier import build_classifier, seen_at
from carcls.plots import Sweep, draw_lr_range
from carcls.training.inputs import Inputs
from carcls.training.outcome import Outcome
from carcls.training.report import title
from carcls.training.stages import compile_stage

log = logging.getLogger(__name__)

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
_DIVERGED = 4.0  # times the least smoothed loss
_MEMORY = 0.9  # of the running mean that tells when to stop, from step to step


def find_lr(config: TrainConfig, workdir: Path, inputs: Inputs) -> Outcome:
    """Tests learning rates for every stage, and leaves `lr_range.csv` and `lr_range.png`.

    What a stage starts from is known when those before it have been trained; here each starts from
    the initial network. Stages in which the same share of the backbone trains share a test, with
    the batch and photo size of the first. A stage on cached features takes no steps, and is left
    out. With `gradient_accumulation` a step is that many batches, and its loss their mean.

    Args:
        config: All of it; its schedule and its stages' learning rates are not used.
        workdir: Where everything goes; what an earlier run left there is set aside.
        inputs: What `prepare_inputs(config)` gave.

    Returns:
        `metrics` has `suggestions`: a learning rate, or None, by the name of the stage.

    Raises:
        UserError: If the weights or the disk are not as they should be, or no stage takes steps.
    """
    names_of = stages_by_share(config)
    config = replace(config, data=with_absolute_paths(config.data))
    device = runtime.set_up(config.runtime, config.seed)
    if config.runtime.devices != 1:
        log.info("find_lr=true takes one device, whole batches of the plan on it.")
    model = build_classifier(config.backbone, config.head, len(inputs.records.class_names))
    if earlier := files.set_aside(workdir):
        log.info(f"{files.shown(workdir)} held a run already: it is in {files.shown(earlier)} now.")
    run_facts = {
        **files.describe_environment(),
        "device": device,
        "data_fingerprint": inputs.fingerprint,
        "config": to_plain(config),
        "enlarged_to": config.enlarged_sides(),
        "skipped": [{"id": i, "reason": r} for i, r in inputs.records.skipped],
    }
    files.write_json(workdir / files.RUN, {**run_facts, "status": "running"})
    log.info(
        f"\nfind_lr: {STEPS} steps from {LOWEST:g} to {HIGHEST:g} with {config.optimizer.name} for "
        f"each of {len(names_of)} shares of the backbone, always from the initial network: what a "
        "later stage would start from is not known before those in front of it are trained.\n"
    )
    # Dropout's random state is a variable too, and no weight.
    initial = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    sweeps, tables = [], []
    try:
        for share, names in names_of.items():
            stage = config.finetune.stages[names[0]]
            model = seen_at(model, config.enlarged_to(stage))
            for variable, value in zip(model.variables, initial, strict=True):
                variable.assign(value)
            rates, losses = _swept(model, config, stage, inputs, ", ".join(names))
            sweep = judged(f"{', '.join(names)} (trainable={share:g})", rates, losses)
            sweeps.append(sweep)
            tables.append(_rows(names[0], sweep))
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt)
        status = "interrupted" if is_stopped else "failed"
        files.write_json(workdir / files.RUN, {**run_facts, "status": status})
        raise
    with files.replacing(workdir / files.LR_RANGE) as temporary:
        pd.concat(tables).to_csv(temporary, index=False)
    draw_lr_range(sweeps, title(config)).write(workdir / files.LR_RANGE_PLOT)
    suggestions = {
        name: sweep.suggested
        for names, sweep in zip(names_of.values(), sweeps, strict=True)
        for name in names
    }
    files.write_json(
        workdir / files.RUN, {**run_facts, "status": "find_lr", "suggestions": suggestions}
    )
    log.info(_report(workdir, sweeps, suggestions))
    return Outcome(workdir=workdir, metrics={"suggestions": suggestions}, interrupted=False)


def stages_by_share(config: TrainConfig) -> dict[float, list[str]]:
    """The names of the stages that take steps, by the share of the backbone that trains in them.

    Raises:
        UserError: If there is none.
    """
    names: dict[float, list[str]] = {}
    for name, stage in config.finetune.stages.items():
        if not stage.feature_views:
            names.setdefault(stage.trainable, []).append(name)
    if not names:
        raise UserError(
            "Expected find_lr=true with a plan that has a stage with a learning rate. Received: "
            f"finetune={config.finetune.name}, whose heads are fitted on cached features, without "
            "one. Leave find_lr out, or choose another plan, as finetune=fast."
        )
    return names


def judged(name: str, rates: np.ndarray, losses: np.ndarray) -> Sweep:
    """What a sweep says.

    Looked at are the losses under a Gaussian window, which unlike a running mean is not late: up to
    the least of them for the steepest descent over the logarithm of the rate.

    Args:
        name: Of what was trained.
        rates: `(n,)` increasing exponentially, n at least 1.
        losses: `(n,)` finite losses of the steps.

    Returns:
        Without a suggestion where the loss does not fall by a hundredth of what it was.
    """
    smooth = smoothed(losses)
    least = int(np.argmin(smooth))
    steepest = tenth = suggested = None
    if least > 0 and smooth[0] - smooth[least] > 0.01 * abs(smooth[0]):
        slopes = np.gradient(smooth, np.log(rates))
        steepest = float(f"{rates[int(np.argmin(slopes[: least + 1]))]:.1e}")
        tenth = float(f"{rates[least] / 10:.1e}")
        suggested = min(steepest, tenth)
    return Sweep(
        title=name,
        learning_rate=rates,
        loss=losses,
        smoothed=smooth,
        steepest=steepest,
        tenth=tenth,
        suggested=suggested,
    )


def smoothed(losses: np.ndarray) -> np.ndarray:
    """`(n,)` the means of `losses`, `(n,)`, under a Gaussian window of a twentieth of STEPS."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / (STEPS / 20)) ** 2)  # (n, n)
    return weights @ losses / weights.sum(1)


def until_diverged(losses: Iterable[float]) -> Iterator[float]:
    """Passes losses on until one is not finite or their running mean is four times its least."""
    mean, least = 0.0, math.inf
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return
        yield loss
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        unbiased = mean / (1 - _MEMORY**step)  # it began at 0
        if unbiased > _DIVERGED * least:
            return
        least = min(least, unbiased)


def _swept(
    model: keras.Model, config: TrainConfig, stage: StageConfig, inputs: Inputs, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Trains for up to STEPS steps, going round in the photos where they are fewer.

    Returns:
        `(n,)` learning rates and `(n,)` the mean losses of the batches of the step at that rate.

    Raises:
        UserError: If the very first loss is not finite.
    """
    loader = inputs.train(stage)
    without_schedule = replace(config, schedule=ConstantSchedule(name="constant"))
    fitted = compile_stage(model, without_schedule, stage, len(loader))
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    batches = loader.from_step(0)

    def losses() -> Iterator[float]:
        for rate in rates:
            fitted.optimizer.learning_rate = rate
            of_step = itertools.islice(batches, config.gradient_accumulation)
            yield statistics.fmean(
                float(fitted.train_on_batch(*batch, return_dict=True)["loss"]) for batch in of_step
            )
            bar.advance(task)

    try:
        with progress_bar() as bar:
            task = bar.add_task(name, total=STEPS, note="")
            found = np.array(list(until_diverged(losses())))
    finally:
        batches.close()
        loader.close()
    if not len(found):
        raise UserError(
            f"Expected a loss that is a number. Received: NaN or infinity in the first step of "
            f"{name}, before anything was trained. Try runtime.precision=float32, or look for "
            "broken photos."
        )
    return rates[: len(found)], found


def _rows(stage: str, sweep: Sweep) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stage": stage,
            "step": np.arange(1, len(sweep.loss) + 1),
            "learning_rate": sweep.learning_rate,
            "loss": sweep.loss,
            "smoothed": sweep.smoothed,
        }
    )


def _report(workdir: Path, sweeps: list[Sweep], suggestions: dict[str, float | None]) -> str:
    def shown(rate: float | None) -> str:
        return "-" if rate is None else f"{rate:.1e}"

    rows = [
        [s.title, str(len(s.loss)), shown(s.steepest), shown(s.tenth), shown(s.suggested)]
        for s in sweeps
    ]
    columns = ["stage", "steps", "steepest descent", "least loss / 10", "suggested"]
    pairs = [
        ("picture", str(files.shown(workdir) / files.LR_RANGE_PLOT)),
        ("numbers", str(files.shown(workdir) / files.LR_RANGE)),
    ]
    known = {name: rate for name, rate in suggestions.items() if rate is not None}
    if known:
        pairs.append(("train with", _command(known)))
    text = f"{table(columns, rows)}\n\n{facts(pairs, UNFOLDED)}"
    if len(known) < len(suggestions):
        text += (
            "\n\nWhere nothing is suggested no rate made the loss fall by a hundredth: look at the "
            "picture; a larger batch_size makes it less noisy."
        )
    return text


def _command(suggestions: dict[str, float]) -> str:
    """What was called, with these learning rates instead."""
    not_again = ("find_lr=", "hydra.run.dir=", "hydra.sweep.dir=")
    is_script = Path(sys.argv[0]).name == "train.py"
    given = [a for a in sys.argv[1:] if not a.startswith(not_again)] if is_script else []
    given = [re.sub(r"^([\w.]+)='([^'\\]*)'$", r"\1=\2", a) for a in given]  # our own quotes
    rates = [f"finetune.stages.{name}.learning_rate={r:g}" for name, r in suggestions.items()]
    return shlex.join(["python", "train.py", *given, *rates])
