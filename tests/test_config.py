import itertools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from carcls.config import PlateauSchedule, to_config, to_plain, to_predict_config
from carcls.errors import UserError

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("backbone", "head", "augmentation", "finetune", "optimizer", "schedule", "data")


def composed(*overrides: str, name: str = "train"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        to_config(composed(*overrides))
    return str(error.value)


def test_the_defaults_are_the_documented_ones():
    config = to_config(composed())
    assert config.backbone.name == "efficientnetb3"
    assert (config.image_size, config.batch_size, config.seed) == (240, 16, 42)
    assert (config.data.name, config.data.root, config.data.val_split) == ("kaggle", "data", 0.2)
    assert config.optimizer.learning_rate == 1e-3
    assert config.schedule == PlateauSchedule(
        name="plateau", factor=0.5, patience=2, min_learning_rate=1e-7
    )


def test_staged_is_the_notebooks_four_stages():
    stages = to_config(composed("finetune=staged")).finetune.stages
    assert [(s.epochs, s.trainable) for s in stages.values()] == [
        (10, 0.0), (10, 0.5), (10, 0.75), (15, 1.0),
    ]  # fmt: skip
    assert {s.learning_rate for s in stages.values()} == {1e-3}


def test_every_combination_of_groups_composes():
    cfg = composed()
    nodes = {
        group: {option: composed(f"{group}={option}")[group] for option in options(group)}
        for group in GROUPS
    }
    combinations = list(itertools.product(*(nodes[group] for group in GROUPS)))
    assert len(combinations) == 7 * 1 * 2 * 3 * 1 * 2 * 3
    with open_dict(cfg):
        for chosen in combinations:
            for group, option in zip(GROUPS, chosen, strict=True):
                cfg[group] = nodes[group][option]
            config = to_config(cfg)
            assert tuple(getattr(config, group).name for group in GROUPS) == chosen


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment):
    assert to_config(composed(f"experiment={experiment}")).finetune.stages


def test_a_stages_learning_rate_follows_the_optimizers_unless_it_has_its_own():
    config = to_config(
        composed("optimizer.learning_rate=0.01", "finetune.stages.all.learning_rate=0.5")
    )
    assert [s.learning_rate for s in config.finetune.stages.values()] == [0.01, 0.01, 0.01, 0.5]


def test_a_config_survives_the_way_into_json_and_back():
    config = to_config(composed("data=demo", "augmentation=photo", "schedule=constant"))
    assert to_config(OmegaConf.create(to_plain(config))) == config


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("batch_size=many", "batch_size: Value 'many' of type 'str' could not be converted to Int"),
        ("batch_size=0", "Expected batch_size to be at least 1. Received: batch_size=0"),
        ("data.val_split=1", "Expected val_split in (0, 1). Received: val_split=1.0"),
        ("data.resize=stretch", "Expected resize to be one of squash, crop, pad."),
        ("finetune.keep=first", "Expected keep to be one of best, last. Received: keep=first"),
        ("finetune.monitor=val_f1", "Expected monitor to be one of val_accuracy, val_loss."),
        ("finetune.stages.all.trainable=2", "Expected trainable to be a share in [0, 1]."),
        ("finetune.stages.all.epochs=0", "Expected epochs to be at least 1. Received: epochs=0"),
        ("+finetune.stages.all.epoks=1", "Key 'epoks' not in 'StageConfig'"),
        ("+data.rooot=x", "data.rooot: Key 'rooot' not in 'KaggleData'"),
        ("schedule.factor=2", "Expected factor in (0, 1). Received: factor=2.0"),
        ("head.dropout=1", "Expected dropout in [0, 1). Received: dropout=1.0"),
        ("head.name=none", "Expected head to be one of avg_dense. Received: head.name=none"),
        ("backbone.name=vgg", "Expected backbone to be one of efficientnetb3, xception,"),
        ("backbone.preprocessing=unit", "preprocessing is part of the network"),
        ("image_size=16", "Expected image_size to be at least 32 px for efficientnetb3"),
        ("runtime.device=tpu", "Expected device to be one of auto, cpu, gpu."),
        ("runtime.workers=0", "Expected workers to be at least 1, or null for one a core."),
        ("optimizer.learning_rate=-1", "Expected learning_rate to be above 0."),
    ],
)
def test_a_mistake_is_told_by_name(override, text):
    assert text in told(override)


def test_predict_takes_changes_to_the_runs_data_or_another_source():
    assert set(to_predict_config(composed(name="predict")).data.values()) == {None}
    config = to_predict_config(composed("data=kaggle", "data.root=x", name="predict"))
    assert (config.data["name"], config.data["root"]) == ("kaggle", "x")
