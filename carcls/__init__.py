"""Transfer learning for photo classification: train in stages, predict, trust the result.

From Python: `from carcls import train, predict, load_run` (see `carcls.api`).
"""

import os
from typing import Any

__version__ = "0.4.0"
__all__ = ["Run", "load_run", "predict", "train"]

# TensorFlow tells its build options on every import; its warnings and errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def __getattr__(name: str) -> Any:
    """Imports the API when it is asked for: `--help` and the loader's workers do without it."""
    if name in __all__:
        from carcls import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
