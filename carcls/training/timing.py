"""How long a plan takes: what an epoch of one stage costs, compared with one of another."""

from carcls.config import StageConfig, TrainConfig

_BACKWARD = 2.0  # of the forward pass: gradients of the inputs and of the weights


def photo_cost(config: TrainConfig, stage: StageConfig) -> float:
    """What a training photo costs, in forward passes over a photo of one pixel.

    Every layer goes forward; backward, which counts about twice, go those that train. Layers are
    taken to cost the same, which makes it a rule of thumb, right within a third or so.
    """
    return float((config.enlarged_to(stage) or config.train_size(stage)) ** 2) * _layers(stage)


def _passes(stage: StageConfig) -> int:
    """How often each training photo is seen: once an epoch, or once for each view.

    Never by what averages a soup, in a plan that is spelled out.
    """
    return 0 if stage.soup > 1 else stage.epochs * max(1, stage.feature_views)


def _layers(stage: StageConfig) -> float:
    """Work of a training step on all layers, in forward passes; building its graph goes by it."""
    return 1 + _BACKWARD * stage.trainable


def forward_cost(config: TrainConfig, stage: StageConfig) -> float:
    """What a photo costs that only goes forward, to validate with."""
    return float((config.enlarged_to(stage) or stage.image_size or config.image_size) ** 2)


def epochs_alike(config: TrainConfig, name: str) -> float:
    """What all stages after one cost, in epochs of that one."""
    stages = config.finetune.stages
    names = list(stages)
    after = names[names.index(name) + 1 :]
    cost = sum(_passes(stages[other]) * photo_cost(config, stages[other]) for other in after)
    return cost / photo_cost(config, stages[name])


def seconds_of_stages(
    config: TrainConfig,
    first: str,
    photo_seconds: float,
    loading_seconds: float,
    start_seconds: float,
    num_train: int,
    num_val: int,
) -> dict[str, float]:
    """Seconds that each stage is likely to take, from what was measured in one of them.

    Args:
        config: Of the run.
        first: The stage that was measured.
        photo_seconds: The network took for a training photo of it.
        loading_seconds: What a photo waits for the loader beyond that.
        start_seconds: It took to build the graph of a training step.
        num_train, num_val: Photos an epoch.
    """
    unit = photo_seconds / photo_cost(config, config.finetune.stages[first])
    return {
        name: start_seconds * _layers(stage) / _layers(config.finetune.stages[first])
        + _passes(stage)
        * (
            num_train * (unit * photo_cost(config, stage) + loading_seconds)
            + num_val * unit * forward_cost(config, stage)
        )
        for name, stage in config.finetune.stages.items()
    }
