"""Look at the photos before training. `python explore.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_explore_config


def main(cfg: DictConfig, workdir: Path) -> None:
    config = to_explore_config(cfg)  # every mistake in it is told before a photo is opened
    from carcls.exploration.explore import explore

    explore(config, workdir)


if __name__ == "__main__":
    run_app("explore", main)
