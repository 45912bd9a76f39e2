"""What one command does: it trains once, trains once a fold, or looks for a learning rate."""

from pathlib import Path

from carcls.config import TrainConfig
from carcls.training.folds import train_folds
from carcls.training.inputs import Inputs
from carcls.training.outcome import Outcome


def run_job(config: TrainConfig, workdir: Path, inputs: Inputs) -> Outcome:
    """Does what the configuration asks for, see `train`, `train_folds` and `find_lr`.

    Args:
        config: All of it.
        workdir: Where everything goes.
        inputs: What `prepare_inputs(config)` gave.
    """
    if config.data.folds:  # without Keras, so that its processes can import it
        return train_folds(config, workdir, inputs)
    if config.find_lr:
        from carcls.training.find_lr import find_lr

        return find_lr(config, workdir, inputs)
    from carcls.training.loop import train

    return train(config, workdir, inputs)
