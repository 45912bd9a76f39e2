"""Soups: a stage that is trained several times from the same start, and averaged (`stage.soup`).

Uniform soups of Wortsman et al., 2022, Model soups: averaging weights of multiple fine-tuned models
improves accuracy without increasing inference time. Trainings of a soup differ in what is drawn for
them: the order of the photos, their augmentation, dropout.
"""

from dataclasses import dataclass, field, replace

import keras
import numpy as np

from carcls.config import FinetuneConfig
from carcls.errors import UserError


def spelled_out(plan: FinetuneConfig) -> FinetuneConfig:
    """The plan as it is run: a stage for each training of a soup, then the soup under its name.

    Of `all` with `soup=3` become `all_1`, `all_2` and `all_3`, and `all`, which only averages.

    Raises:
        UserError: If a stage has such a name already.
    """
    stages = {}
    for name, stage in plan.stages.items():
        if stage.soup > 1:
            names = names_of_trainings(name, stage.soup)
            if taken := plan.stages.keys() & names:
                raise UserError(
                    f"Expected another name than {min(taken)} for a stage: the trainings of the "
                    f"stage {name} are called so (soup={stage.soup}). Received: "
                    f"finetune.stages={list(plan.stages)}"
                )
            stages |= dict.fromkeys(names, replace(stage, soup=1))
        stages[name] = stage
    return replace(plan, stages=stages)


def names_of_trainings(name: str, count: int) -> list[str]:
    """Of the stages that a soup's stage is spelled out as."""
    return [f"{name}_{number}" for number in range(1, count + 1)]


def number_in_soup(plan: FinetuneConfig, name: str) -> int:
    """Which training of a soup a stage of a plan that is spelled out is, from 1; 0: of none."""
    for soup, stage in plan.stages.items():
        names = names_of_trainings(soup, stage.soup) if stage.soup > 1 else []
        if name in names:
            return names.index(name) + 1
    return 0


@dataclass
class Soup:
    """What is remembered of the soup that is being made; nothing between two of them."""

    start: list[np.ndarray] = field(default_factory=list)  # weights that each training begins with
    total: list[np.ndarray] = field(default_factory=list)  # the sum of what they ended with

    def begin(self, model: keras.Model, number: int) -> None:
        """Before a training, the first of which tells the others where to begin."""
        if number == 1:
            self.start = [weight.copy() for weight in model.get_weights()]
            self.total = []
        else:
            model.set_weights(self.start)

    def add(self, model: keras.Model) -> None:
        """After a training."""
        ends = [weight.copy() for weight in model.get_weights()]
        total = self.total or [np.zeros_like(end) for end in ends]
        self.total = [a + b for a, b in zip(total, ends, strict=True)]

    def finish(self, model: keras.Model, count: int) -> None:
        """Puts the average into the model and forgets what it was made of."""
        model.set_weights([total / np.float32(count) for total in self.total])
        self.start, self.total = [], []
