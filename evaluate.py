"""Measure what a run is worth. `python evaluate.py --help` lists every option."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from carcls.cli import run_app
from carcls.config import to_evaluate_config
from carcls.run import directory_in_run


def main(cfg: DictConfig, workdir: Path) -> None:
    config = to_evaluate_config(cfg)  # every mistake in it is told before Keras loads
    from carcls.evaluation.evaluate import evaluate

    evaluate(config, workdir)


if __name__ == "__main__":
    OmegaConf.register_new_resolver("directory_in_run", directory_in_run, use_cache=True)
    run_app("evaluate", main)
