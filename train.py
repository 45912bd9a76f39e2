"""Train a photo classifier in stages. `python train.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_config


def main(cfg: DictConfig, workdir: Path) -> None:
    # Mistakes in the configuration and in the data are told before Keras loads: that takes long.
    config = to_config(cfg)
    from carcls.training.inputs import prepare_inputs

    inputs = prepare_inputs(config)
    from carcls.training.jobs import run_job

    if run_job(config, workdir, inputs).interrupted:
        raise KeyboardInterrupt


if __name__ == "__main__":
    run_app("train", main)
