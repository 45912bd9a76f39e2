"""`data=demo`: drawn into `data.root` on first use, then read as the competition it looks like."""

import logging
from pathlib import Path

from carcls.config import DemoData
from carcls.console import progress_bar
from carcls.data import kaggle
from carcls.data.demo import demo_is_drawn, draw_demo
from carcls.data.records import TestPhotos, TrainingPhotos
from carcls.errors import UserError

log = logging.getLogger(__name__)


def read_training_photos(config: DemoData) -> TrainingPhotos:
    """The drawn training photos."""
    _draw_if_missing(config)
    return kaggle.read_training_photos(config)


def read_test_photos(config: DemoData) -> TestPhotos:
    """The drawn test photos, whose labels are known."""
    _draw_if_missing(config)
    return kaggle.read_test_photos(config)


def _draw_if_missing(config: DemoData) -> None:
    root = Path(config.root).expanduser()
    what = {
        "seed": config.seed,
        "train_per_class": config.train_per_class,
        "test_per_class": config.test_per_class,
    }
    if demo_is_drawn(root, **what):
        return
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        wanted = ", ".join(f"data.{name}={value}" for name, value in what.items())
        raise UserError(
            f"Expected data.root to be free, or to hold the demo photos of {wanted}. Received: "
            f"{root} with something else in it. Remove it, or choose another with data.root=DIR."
        )
    log.info(f"drawing the demo photos into {root}")
    try:
        if root.exists():  # empty; it is drawn under another name and renamed
            root.rmdir()
        with progress_bar() as bar:
            task = bar.add_task("drawing", total=None, note="")
            draw_demo(
                root, **what,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    except OSError as error:
        if demo_is_drawn(root, **what):  # by another process meanwhile
            return
        raise UserError(
            f"Expected to draw the demo photos into {root}. Received: {error.strerror or error}. "
            "Choose another place with data.root=DIR."
        ) from error
    log.info(f"a look at them: {root / 'overview.png'}\n")
