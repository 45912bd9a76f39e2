"""The sweeper of `search=`: Optuna chooses each job, and has bad ones stopped as they train.

The released plugin for Hydra (hydra-optuna-sweeper 1.3) takes no Optuna above 2, waits for a whole
batch of jobs, and cannot stop one: docs/search.md says more.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)

from carcls import run as files
from carcls.config import SearchConfig, TrainConfig, to_search_config
from carcls.errors import STATUS_USER_ERROR, UserError
from carcls.quoting import quoted
from carcls.sweeps import plugins, record, search_picture
from carcls.sweeps.launcher import NOWHERE, ProcessLauncher
from carcls.sweeps.leaderboard import Searched
from carcls.sweeps.record import Job
from carcls.sweeps.study import Study, Trial, distribution_of, holds, score
from carcls.training.resume import FREE, MOVED

log = logging.getLogger(__name__)

SWEEPER = "search"
PICTURE = "search.png"
_MISSING = object()


class SearchSweeper(Sweeper):
    """Runs the trials of `search=`, and shows what they found in the sweep's leaderboard."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes what Hydra has composed.

        Raises:
            UserError: If what `search=` chose is none of what it can be.
        """
        self.hydra_context, self.config = hydra_context, config
        self.settings: SearchConfig = to_search_config(config.search)
        self.launcher: ProcessLauncher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs all trials.

        Args:
            arguments: The overrides of the command line that are not Hydra's own.

        Raises:
            UserError: If nothing can be searched, or the command's own values are a mistake.
            KeyboardInterrupt: If it was stopped, after all that ran have saved.
        """
        parsed = self._parser().parse_overrides(overrides=arguments)
        parsed = [each for each in parsed if each.key_or_group.partition(".")[0] != "search"]
        given = [each.input_line for each in parsed if not each.is_sweep_override()]
        config, base = self.launcher.compose(0, given)
        _refuse_unmeasured(config)
        space = self._space(parsed, base)
        defaults = {key: _value_of(base, key) for key in space}
        self._check(given, space)
        sweep_dir = self.sweep_dir = Path(str(self.config.hydra.sweep.dir))
        with self.launcher.alone(sweep_dir):
            distributions = {key: distribution_of(values) for key, values in space.items()}
            of_all = [text for text in given if text.partition("=")[0] not in (*FREE, *MOVED)]
            self.study = Study(
                self.settings, sweep_dir, distributions, defaults, of_all, config.seed
            )
            self.trials: dict[int, Trial] = {}
            self.epochs: dict[int, int] = {}  # how many of each are reported
            self.picture: bytes | None = None
            self._say_plan(config, defaults)
            self.launcher.search(
                sweep_dir, self._jobs(given), list(space), self._is_given_up, self._searched
            )

    def _jobs(self, given: list[str]) -> Iterator[tuple[int, list[str]]]:
        """The next trial's number and overrides, when there is a place for it to run."""
        for trial in self.study.left_open():
            self.trials[trial.number] = trial
            yield trial.number, [*given, *_overrides(trial.params)]
        while trial := self.study.ask():
            self.trials[trial.number] = trial
            yield trial.number, [*given, *_overrides(trial.params)]

    def _is_given_up(self, job: Job, run: Path, config: TrainConfig | None) -> bool:
        """Reports what a running job reached since the last time."""
        trial = self.trials[job.number]
        history = _read_history(run / files.HISTORY)
        is_from_before = job.number not in self.epochs  # of a run that goes on, and only begins to
        known = self.study.reached(trial) if is_from_before else self.epochs[job.number]
        self.epochs[job.number] = max(known, len(history))
        if len(history) <= known or config is None:
            return False
        planned = config.finetune.epochs
        stage, best = "", -math.inf
        for epoch, row in enumerate(history.itertuples(), start=1):
            if row.stage != stage:  # the head's value would hide what the next stage makes of it
                stage, best = row.stage, -math.inf
            if math.isfinite(row.val_accuracy) and math.isfinite(row.val_loss):
                best = max(best, score(row.val_accuracy, row.val_loss))
            if epoch <= known or best == -math.inf:
                continue
            self.study.report(trial, epoch, best)
            if is_from_before or not self.study.is_behind(trial):
                continue
            if len(history) < planned:  # else it has ended by itself
                job.error = f"after {epoch} of {planned} epochs, with {best:.1%}"
                return True
        return False

    def _searched(self, job: Job | None, reached: dict[str, Any]) -> Searched:
        """Notes how a job ended, and says how far the search is."""
        if job is not None:
            self._note(job, reached)
        frame = self.study.frame()
        is_new = job is None or job.state != record.RUNNING
        if is_new and frame.score.notna().any():
            try:
                importances, of_what = self.study.importances()
                figure = search_picture.draw_search(frame, importances, of_what, self.study.space)
                self.picture = figure.write(self.sweep_dir / PICTURE)
            except Exception as error:  # a full disk, say: the jobs must not end with it
                log.warning(f"WARNING: {PICTURE} was not written: {error}")
        return Searched(text=_told(frame, self.settings, self.study.where), picture=self.picture)

    def _note(self, job: Job, reached: dict[str, Any]) -> None:
        trial = self.trials[job.number]
        if job.state == record.PRUNED:
            self.study.give_up(trial)
        elif job.state in record.DONE and "val_accuracy" in reached:
            accuracy = reached["val_accuracy"]
            self.study.complete(trial, score(accuracy, reached["val_loss"]), accuracy)
        elif job.state == record.FAILED and job.folder == NOWHERE:
            self.study.fail(trial)
        elif job.state == record.FAILED:
            facts = files.read_json(self.sweep_dir / job.folder / files.RUN)
            if facts.get("status") == "diverged":  # and would again
                self.study.give_up(trial)
            elif trial.is_default and job.status == STATUS_USER_ERROR:
                raise UserError(
                    "Expected the command's own values, the first trial, to train. Received: "
                    f"{job.error}"
                )

    def _space(self, parsed: list[Override], base: DictConfig) -> dict[str, Any]:
        """The dimensions that are searched.

        A key that the command sweeps over is searched, whatever the YAML says of it; one that it
        gives is not; nor is one that its configuration has not.

        Args:
            parsed: The command line's overrides.
            base: What the command composes, without what it sweeps over.

        Raises:
            UserError: If none is left.
        """
        swept = {each.key_or_group: each for each in parsed if each.is_sweep_override()}
        fixed = {each.key_or_group for each in parsed if not each.is_sweep_override()}
        wanted = {key: values for key, values in self.settings.space.items() if key not in swept}
        space = {
            key: values
            for key, values in wanted.items()
            if key not in fixed and _value_of(base, key) is not _MISSING
        }
        for key, values in space.items():
            own = _value_of(base, key)
            if isinstance(values, list) and not holds(distribution_of(values), own):
                space[key] = [own, *values]  # the first trial is the command as it is
        for key, each in swept.items():
            space[key] = self._swept_values(each, _value_of(base, key))
        if not space:
            raise UserError(
                "Expected something to search: keys that the command does not give and its plan "
                f"has. Received: search.space with {', '.join(self.settings.space) or 'none'}, "
                f"and finetune={_value_of(base, 'finetune')}. Leave some of them out of the "
                "command, or search others: KEY=A,B or 'KEY=interval(LOW,HIGH)'."
            )
        for key in wanted:
            if key in fixed:
                print(f"{key} is not searched: the command gives it.")
            elif key not in space:
                print(f"{key} is not searched: this command's configuration has no such key.")
        return space

    def _swept_values(self, override: Override, own: Any) -> list | dict[str, Any]:
        """The dimension that `key=a,b` or `key=interval(low,high)` of the command line is.

        Args:
            override: As it was given.
            own: What the key is without it: for a whole number, whole numbers are drawn.
        """
        swept = override.value()
        if isinstance(swept, IntervalSweep):
            is_whole = type(own) is int and swept.start == int(swept.start)
            kind = int if is_whole and swept.end == int(swept.end) else float
            bounds = {"low": kind(swept.start), "high": kind(swept.end)}
            return bounds | ({"log": True} if "log" in swept.tags else {})
        return [
            self._parser().parse_override(f"key={text}").value()
            for text in override.sweep_string_iterator()
        ]

    def _parser(self) -> OverridesParser:
        return OverridesParser.create(config_loader=self.hydra_context.config_loader)

    def _check(self, given: list[str], space: dict[str, Any]) -> None:
        """Has each value of the space composed once, beside the command's own others.

        Raises:
            UserError: If one is refused.
        """
        wanted = []
        for key, values in space.items():
            tried = values if isinstance(values, list) else _tried(distribution_of(values))
            wanted += [[override] for override in (_overrides({key: each})[0] for each in tried)]
        for group, options in space.items():  # what is searched of a group, all its options have
            inner = [key for key in space if key.startswith(f"{group}.")]
            for key in inner if isinstance(options, list) else []:
                (first, *_) = space[key] if isinstance(space[key], list) else [space[key]["low"]]
                wanted += [_overrides({group: option, key: first}) for option in options]
        for overrides in wanted:
            try:
                self.launcher.compose(0, [*given, *overrides])
            except (UserError, HydraException) as error:
                why = str(error).splitlines()[0]
                raise UserError(f"search.space, with {' '.join(overrides)}: {why}") from error

    def _say_plan(self, config: TrainConfig, defaults: dict[str, Any]) -> None:
        for key, distribution in self.study.space.items():
            print(f"searches {key}: {_shown(distribution)}; the command's own {defaults[key]}")
        planned = config.finetune.epochs
        if self.settings.pruner != "none" and (
            config.data.folds or planned <= self.settings.min_epochs
        ):
            why = "folds train on their own" if config.data.folds else f"the plan has {planned}"
            print(
                "No trial will be given up early: that takes more than search.min_epochs="
                f"{self.settings.min_epochs} epochs in one run, and {why}."
            )
        frame = self.study.frame()
        if len(frame):
            print(_told(frame, self.settings, self.study.where))
        elif not self.study.begins_with_default:
            print(
                "The command's own values are no trial: they are outside of search.space, which "
                "is searched as it was given."
            )


def register() -> None:
    """Makes `hydra/sweeper=search` known to Hydra."""
    plugins.register(SearchSweeper, "hydra/sweeper", SWEEPER)


def _refuse_unmeasured(config: TrainConfig) -> None:
    """Raises UserError for a command whose runs have no accuracy to compare."""
    if config.data.refit or config.find_lr:
        key = "data.refit" if config.data.refit else "find_lr"
        raise UserError(
            "Expected runs with validation photos, whose accuracy a search compares. "
            f"Received: {key}=true. Leave it out, and add it to the command that the search found."
        )


def _tried(distribution: BaseDistribution) -> list[float]:
    """The ends of a range, and a value between that is no round one."""
    low, high = distribution.low, distribution.high
    is_any = isinstance(distribution, FloatDistribution) and distribution.step is None
    return [low, high, *([low + 0.3713 * (high - low)] if is_any else [])]


def _overrides(params: dict[str, Any]) -> list[str]:
    return [f"{key}={_as_text(value)}" for key, value in params.items()]


def _as_text(value: Any) -> str:
    """As Hydra's grammar has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if re.fullmatch(r"[\w.+-]+", str(value)) else quoted(value)


def _value_of(cfg: DictConfig, key: str) -> Any:
    """The value of a key, or the chosen option of a group; `_MISSING` where there is none."""
    if key in (choices := cfg.hydra.runtime.choices):
        return choices[key]
    value = OmegaConf.select(cfg, key, default=_MISSING)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _read_history(path: Path) -> pd.DataFrame:
    """`history.csv` of a run; empty where there is none yet."""
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


def _shown(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    how = " on a log scale" if distribution.log else ""
    how += f" in steps of {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{how}"


def _told(frame: pd.DataFrame, settings: SearchConfig, where: str) -> str:
    """How far a search is, for people."""
    counts = {
        "finished": (frame.state == "complete").sum(),
        "given up early": (frame.state == "pruned").sum(),
        "failed": (frame.state == "fail").sum(),
        "open": (frame.state == "running").sum(),
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    text = f"Search: {len(frame)} of {settings.trials} trials begun ({told or 'none'}), in {where}."
    if frame.score.notna().any():
        best = frame.loc[frame.score.idxmax()]
        text += f" The best is #{best.trial} with {best.accuracy:.1%} of the validation photos"
        own = frame[frame.default & frame.score.notna()]
        text += f"; the command's own values reach {own.accuracy.iloc[0]:.1%}." if len(own) else "."
    return text
