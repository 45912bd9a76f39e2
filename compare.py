"""Compare networks on the same photos. `python compare.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_compare_config


def main(cfg: DictConfig, workdir: Path) -> None:
    config = to_compare_config(cfg)  # every mistake in it is told before a network is built
    from carcls.evaluation.compare import compare

    compare(config, workdir)


if __name__ == "__main__":
    run_app("compare", main)
