"""`data.refit=true`: the plan of a run that has no validation photos."""

from dataclasses import replace

from carcls.config import PlateauSchedule, TrainConfig


def without_validation(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The same plan without what looks at validation photos.

    Returns:
        The plan that can run, and what was changed for it, in words.
    """
    plan, schedule, changes = config.finetune, config.schedule, []
    if plan.keep != "last":
        changes.append("finetune.keep=last: no epoch can be told to be the best")
    if plan.early_stopping_patience:
        changes.append("finetune.early_stopping_patience=0: every stage runs to its end")
    if isinstance(schedule, PlateauSchedule) and schedule.monitor.startswith("val_"):
        monitor = schedule.monitor.removeprefix("val_")
        changes.append(f"schedule.monitor={monitor}: that of the training photos")
        schedule = replace(schedule, monitor=monitor)
    stages = {
        name: replace(stage, callbacks=_without_early_stopping(stage.callbacks))
        for name, stage in plan.stages.items()
    }
    plan = replace(plan, keep="last", early_stopping_patience=0, stages=stages)
    return replace(config, finetune=plan, schedule=schedule), changes


def _without_early_stopping(callbacks: list[str] | None) -> list[str] | None:
    return callbacks and [name for name in callbacks if name != "early_stopping"]
