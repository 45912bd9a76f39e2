"""What `search=` takes: how many trials, which of them stop early, and the space they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from carcls.config.checks import expect, expect_one_of

_BOUNDS = ("low", "high", "log", "step")


@dataclass
class SearchConfig:
    """See conf/search/quick.yaml for what each key is."""

    trials: int = MISSING
    startup_trials: int = MISSING
    pruner: str = MISSING
    min_epochs: int = MISSING
    keep_one_in: int = MISSING
    storage: str | None = MISSING
    study: str | None = MISSING
    space: dict[str, Any] = MISSING

    def __post_init__(self) -> None:
        for name in ("trials", "min_epochs"):
            value = getattr(self, name)
            expect(value >= 1, f"search.{name} to be at least 1", **{name: value})
        expect(
            self.startup_trials >= 0, "search.startup_trials to be at least 0",
            startup_trials=self.startup_trials,
        )  # fmt: skip
        expect(
            self.keep_one_in >= 2, "search.keep_one_in to be at least 2",
            keep_one_in=self.keep_one_in,
        )  # fmt: skip
        expect_one_of(("successive_halving", "none"), pruner=self.pruner)
        expect(
            self.storage is None or self.study is not None,
            "search.study, a name that all machines of this search give, with search.storage",
            study=self.study,
        )
        self.space = _flat(self.space)
        for key, values in self.space.items():
            _check_dimension(key, values)


def _flat(space: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """With keys as `a.b`: a command line's `+search.space.a.b=[1,2]` nests them."""
    flat: dict[str, Any] = {}
    for key, values in space.items():
        is_inner = isinstance(values, dict) and values and not set(values) & set(_BOUNDS)
        flat |= _flat(values, f"{prefix}{key}.") if is_inner else {f"{prefix}{key}": values}
    return flat


def _check_dimension(key: str, values: Any) -> None:
    received = {f"search.space.{key}": values}
    if isinstance(values, list):
        is_plain = all(value is None or isinstance(value, bool | int | float | str)
                       for value in values)  # fmt: skip
        expect(
            is_plain and len(values) == len(set(map(repr, values))) > 0,
            "a list of different words or numbers", **received,
        )  # fmt: skip
        return
    expected = "a list of values, or {low, high} with log: true or step: NUMBER where wanted"
    expect(isinstance(values, dict) and set(values) <= set(_BOUNDS), expected, **received)
    low, high, step = values.get("low"), values.get("high"), values.get("step")
    numbers = [low, high, *([] if step is None else [step])]
    expect(
        all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        and all(map(math.isfinite, numbers)) and low < high and isinstance(
            values.get("log", False), bool),
        expected, **received,
    )  # fmt: skip
    is_log = values.get("log", False)
    expect(not is_log or low > 0, "low to be above 0 with log: true", **received)
    expect(
        step is None or (0 < step <= high - low and not is_log),
        "step to be above 0, at most high - low, and without log: true", **received,
    )  # fmt: skip
