"""Train a photo classifier in stages. `python train.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_config


def main(cfg: DictConfig, workdir: Path) -> None:
    config = to_config(cfg)  # every mistake in it is told before Keras loads
    from carcls.training.loop import train

    if train(config, workdir).interrupted:
        raise KeyboardInterrupt


if __name__ == "__main__":
    run_app("train", main)
