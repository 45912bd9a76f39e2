"""How training ended. Imports no Keras."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(kw_only=True)
class Outcome:
    """How a training run ended.

    Attributes:
        workdir: The run directory.
        metrics: What `metrics.json` holds.
        interrupted: Whether Ctrl-C (or SIGTERM) ended it; what was reached is saved all the same.
        divergence: That the loss became NaN or infinite, where, what was kept, and what to try;
            None in a run that ended well.
    """

    workdir: Path
    metrics: dict[str, Any]
    interrupted: bool
    divergence: str | None = None
