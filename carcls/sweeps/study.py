"""The trials of a search, kept in a database by Optuna: which comes next, which is given up."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from carcls import run as files
from carcls.config import SearchConfig
from carcls.errors import UserError

DATABASE, RECORD = "search.db", "search.json"
_NAME = "search"  # of the study in a database of its own
_OWNER, _DEFAULT, _ACCURACY = "owner", "default", "val_accuracy"  # attributes of a trial
_COMPARED = 4  # trials, at least, to say what made them differ
_TIE = 1e-6  # of the loss, in accuracy: less than a photo


def distribution_of(values: list | dict[str, Any]) -> BaseDistribution:
    """What a dimension of `search.space` means to Optuna."""
    if isinstance(values, list):
        return CategoricalDistribution(values)
    low, high, step = values["low"], values["high"], values.get("step")
    numbers = [low, high, *([] if step is None else [step])]
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(low, high, log=values.get("log", False), step=step or 1)
    return FloatDistribution(low, high, log=values.get("log", False), step=step)


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one that could be drawn."""
    if isinstance(distribution, CategoricalDistribution):
        return any(type(c) is type(value) and c == value for c in distribution.choices)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not distribution.low <= value <= distribution.high:
        return False
    steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8


def score(accuracy: float, loss: float) -> float:
    """What is maximised: the accuracy on validation photos, equal ones told apart by the loss."""
    return accuracy - _TIE * min(loss, 10.0)


@dataclass(kw_only=True, frozen=True)
class Trial:
    """A trial that a job runs.

    Attributes:
        number: Counted from 0, over all machines.
        params: Key to value.
        is_default: Whether these are the command's own values; such a trial is never given up.
    """

    number: int
    params: dict[str, Any]
    is_default: bool


class Study:
    """The trials of one search.

    Args:
        settings: What `search=` chose.
        sweep_dir: Where the database is made, unless `settings.storage` names another.
        space: Key to distribution.
        defaults: The command's own value of each key.
        given: The overrides that all trials have.
        seed: Of what is drawn.

    Raises:
        UserError: If the storage cannot be opened, or holds another search.
    """

    def __init__(
        self,
        settings: SearchConfig,
        sweep_dir: Path,
        space: dict[str, BaseDistribution],
        defaults: dict[str, Any],
        given: Sequence[str],
        seed: int,
    ) -> None:
        self.settings, self.space, self.seed = settings, space, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        own = URL.create("sqlite", database=str((sweep_dir / DATABASE).absolute()))
        self.where = _without_password(settings.storage) or str(files.shown(sweep_dir / DATABASE))
        self.owner = _owner(sweep_dir)
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if settings.pruner == "successive_halving":
            # Li et al., 2018, A System for Massively Parallel Hyperparameter Tuning (ASHA).
            pruner = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=settings.min_epochs, reduction_factor=settings.keep_one_in
            )
        with self._telling():
            # Seconds to wait for another process that writes.
            engine = {} if settings.storage else {"connect_args": {"timeout": 60}}
            storage = optuna.storages.RDBStorage(
                settings.storage or own.render_as_string(), engine_kwargs=engine
            )
            self._study = optuna.create_study(
                storage=storage, study_name=settings.study or _NAME, direction="maximize",
                load_if_exists=True, pruner=pruner,
            )  # fmt: skip
            self._refuse_another(given)
            self.begins_with_default = all(holds(space[key], defaults[key]) for key in space)
            if self.begins_with_default and not self._trials():
                self._study.enqueue_trial(defaults, {_DEFAULT: True}, skip_if_exists=True)

    def left_open(self) -> list[Trial]:
        """Those that this sweep began and did not end, for it to go on with."""
        found = []
        with self._telling():
            for trial in self._trials():
                is_own = trial.user_attrs.get(_OWNER) == self.owner or not self.settings.storage
                if trial.state != TrialState.RUNNING or not is_own:
                    continue
                if self._is_whole(trial):
                    found.append(_trial(trial))
                else:  # the process that asked was killed before it had all values
                    self._study.tell(trial.number, state=TrialState.FAIL)
        return found

    def ask(self) -> Trial | None:
        """The next one; None when there are as many as were asked for."""
        with self._telling():
            begun = [
                trial
                for trial in self._trials()
                if trial.state == TrialState.RUNNING or self._is_whole(trial)
            ]
            if len(begun) >= self.settings.trials:
                return None
            # A sampler for each: what it draws does not depend on how often this was gone on with.
            # Machines that ask at the same moment must not draw the same.
            own = int(self.owner[:6], 16) if self.settings.storage else 0
            self._study.sampler = optuna.samplers.TPESampler(
                seed=self.seed + len(begun) + own, n_startup_trials=self.settings.startup_trials
            )
            asked = self._study.ask(self.space)
            asked.set_user_attr(_OWNER, self.owner)
            return _trial(self._trials()[asked.number])

    def reached(self, trial: Trial) -> int:
        """After how many epochs this trial was last reported."""
        with self._telling():
            return self._trials()[trial.number].last_step or 0

    def report(self, trial: Trial, epoch: int, value: float) -> None:
        """Notes what a trial has reached.

        Args:
            trial: That runs.
            epoch: Counted from 1.
            value: The `score` of the best epoch of its stage so far.
        """
        with self._telling():
            self._running(trial).report(value, epoch)

    def is_behind(self, trial: Trial) -> bool:
        """Whether others did so much better after as many epochs that it is to be given up.

        Asked after each `report`: that it was asked counts for those judged later.
        """
        with self._telling():
            return self._running(trial).should_prune() and not trial.is_default

    def complete(self, trial: Trial, value: float, accuracy: float) -> None:
        """Notes what a trial that came to its end has reached, as `score` and as accuracy."""
        with self._telling():
            self._running(trial).set_user_attr(_ACCURACY, accuracy)
            self._study.tell(trial.number, value)

    def give_up(self, trial: Trial) -> None:
        """Notes that a trial was stopped early."""
        with self._telling():
            self._study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: Trial) -> None:
        """Notes that a trial cannot be trained."""
        with self._telling():
            self._study.tell(trial.number, state=TrialState.FAIL)

    def frame(self) -> pd.DataFrame:
        """A row a trial: trial, state (complete, pruned, running, fail), score (NaN unless
        complete), accuracy, default (bool), epochs, a column a key, and `reached`, a dictionary of
        epoch to score.
        """
        with self._telling():
            trials = [trial for trial in self._trials() if self._is_whole(trial)]
        columns = ["trial", "state", "score", "accuracy", "default", "epochs", "reached"]
        rows = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "score": trial.value if trial.state == TrialState.COMPLETE else None,
                "accuracy": trial.user_attrs.get(_ACCURACY),
                "default": trial.user_attrs.get(_DEFAULT, False),
                "epochs": trial.last_step or 0,
                "reached": trial.intermediate_values,
            }
            for trial in trials
        ]
        frame = pd.DataFrame(rows, columns=columns)
        for key in self.space:  # as they are: pandas would make 0 and 0.1, or None, floats
            frame[key] = pd.Series([trial.params[key] for trial in trials], dtype=object)
        return frame.astype({"score": float, "accuracy": float, "default": bool})

    def importances(self) -> tuple[dict[str, float], str]:
        """The share of each key in what made trials differ, the largest first (fANOVA).

        Of the finished trials, where there are four; else of all that trained for the first
        `min_epochs`, as they were then.

        Source: Hutter, Hoos and Leyton-Brown, 2014, An Efficient Approach for Assessing
        Hyperparameter Importance.

        Returns:
            Key to its share, empty where fewer than four trials can be compared or all are equally
            good; and what was compared, in words.
        """
        frame, first = self.frame(), self.settings.min_epochs
        values, words = frame.score, "of the finished trials"
        if values.notna().sum() < _COMPARED:
            values = pd.Series([reached.get(first) for reached in frame.reached], dtype=float)
            words = f"after {first} epochs"
        compared = frame[values.notna()]
        if len(compared) < _COMPARED or values.nunique() < 2 or len(self.space) < 2:
            return {}, words
        apart = optuna.create_study(direction="maximize")  # in memory
        for row, value in zip(compared.index, values[values.notna()], strict=True):
            params = {key: compared.loc[row, key] for key in self.space}
            apart.add_trial(
                optuna.create_trial(params=params, distributions=self.space, value=value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        return optuna.importance.get_param_importances(apart, evaluator=evaluator), words

    def _is_whole(self, trial: FrozenTrial) -> bool:
        """Whether it was begun, with a value of each key."""
        return trial.state != TrialState.WAITING and trial.params.keys() == self.space.keys()

    def _running(self, trial: Trial) -> optuna.trial.Trial:
        return optuna.trial.Trial(self._study, self._trials()[trial.number]._trial_id)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _refuse_another(self, given: Sequence[str]) -> None:
        """Raises UserError if the study was begun with another space or by another command."""
        described = {
            key: optuna.distributions.distribution_to_json(each) for key, each in self.space.items()
        }
        described |= {"the command": sorted(given)}
        recorded = self._study.user_attrs.get("search")
        if recorded is None:
            self._study.set_user_attr("search", described)
        elif recorded != described:
            changed = [key for key in {**recorded, **described}
                       if recorded.get(key) != described.get(key)]  # fmt: skip
            raise UserError(
                f"Expected the search in {self.where} to go on with the space and the command that "
                f"it began with. Received: another for {', '.join(changed)}. Begin a new one: "
                "another hydra.sweep.dir, or search.study where search.storage is given."
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns what a database says into one message."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            text = str(error.__cause__ or error).splitlines()[0]
            raise UserError(
                f"Expected search.storage to be a database that can be written to, such as "
                f"postgresql://USER@HOST/NAME with its driver installed. Received: {self.where}: "
                f"{text}"
            ) from error


def _without_password(storage: str | None) -> str | None:
    return storage and re.sub(r"(?<=://)([^:/@]*):[^/]*@", r"\1:***@", storage)


def _owner(sweep_dir: Path) -> str:
    """What tells this sweep's trials from those of other machines in the same storage."""
    record = files.read_json(sweep_dir / RECORD)
    if "owner" not in record:
        record = {"owner": uuid.uuid4().hex}
        files.write_json(sweep_dir / RECORD, record)
    return record["owner"]


def _trial(trial: FrozenTrial) -> Trial:
    is_default = trial.user_attrs.get(_DEFAULT, False)
    return Trial(number=trial.number, params=trial.params, is_default=is_default)
