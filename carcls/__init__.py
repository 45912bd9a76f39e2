"""Transfer learning for photo classification: train in stages, predict, trust the result."""

import os

__version__ = "0.1.0"

# TensorFlow tells its build options on every import; its warnings and errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
