"""Train a photo classifier in stages. `python train.py --help` lists every option."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from carcls.cli import run_app
from carcls.config import to_config
from carcls.errors import UserError
from carcls.sweeps.command import sweeping


def main(cfg: DictConfig, workdir: Path) -> None:
    # Mistakes in the configuration and in the data are told before Keras loads: that takes long.
    config = to_config(cfg)
    if config.resume == "auto":  # a job on a cluster, which may have begun it before
        from carcls.run import RUN
        from carcls.training.resume import goes_on

        is_begun = (workdir / RUN).is_file() and goes_on(config, workdir)
        config.resume = str(workdir) if is_begun else None
    if config.resume:
        from carcls.training.resume import with_recorded

        config = with_recorded(config, HydraConfig.get().overrides.task)
    from carcls.training.inputs import prepare_inputs

    inputs = prepare_inputs(config)
    from carcls.training.jobs import run_job

    outcome = run_job(config, workdir, inputs)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.divergence:  # with what was kept before, but no success
        raise UserError(outcome.divergence)
    if not config.find_lr:
        from carcls.evaluation.evaluate import evaluate_own

        evaluate_own(outcome.workdir, inputs.records)


def before(arguments: list[str]) -> list[str]:
    """The command line of the run that `resume=` goes on with, or of the sweep that `-m` is."""
    if not any(argument.partition("=")[0].lstrip("+") == "resume" for argument in arguments):
        arguments = sweeping(arguments)  # which takes no time for a single run
        if any("hydra/launcher=" in argument for argument in arguments):
            from carcls.sweeps import clusters

            arguments = clusters.sweeping(arguments)
        return arguments
    from carcls.training.resume import resuming

    return resuming(arguments)


if __name__ == "__main__":
    run_app("train", main, before)
