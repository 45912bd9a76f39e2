"""Train a photo classifier in stages. `python train.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_config
from carcls.errors import UserError


def main(cfg: DictConfig, workdir: Path) -> None:
    # Mistakes in the configuration and in the data are told before Keras loads: that takes long.
    config = to_config(cfg)
    from carcls.training.inputs import prepare_inputs

    inputs = prepare_inputs(config)
    from carcls.training.jobs import run_job

    outcome = run_job(config, workdir, inputs)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.divergence:  # with what was kept before, but no success
        raise UserError(outcome.divergence)


if __name__ == "__main__":
    run_app("train", main)
