import itertools
import math
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from carcls.config import (
    PlateauSchedule,
    TrainConfig,
    to_compare_config,
    to_config,
    to_evaluate_config,
    to_plain,
    to_predict_config,
    to_search_config,
)
from carcls.errors import UserError

CONF = Path(__file__).parent.parent / "conf"
NEEDED = {
    "keras": ("backbone.name=DenseNet121",),
    "googlenet": ("backbone.weights=none",),
    "csv": ("data.csv=photos.csv",),
}
VALUES = ("runtime", "image_size", "batch_size", "seed")
GROUPS = ("backbone", "head", "augmentation", "finetune", "optimizer", "schedule", "data")


def composed(*overrides: str, name: str = "train"):
    """As the command line, but the plan is the notebook's unless another one is asked for.

    Most tests change or drop some of its stages.
    """
    is_planned = any(text.startswith(("finetune=", "experiment=")) for text in overrides)
    if name == "train" and not is_planned:
        overrides = ("finetune=staged", *overrides)
    return as_composed(*overrides, name=name)


def as_composed(*overrides: str, name: str = "train"):
    """As the command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def one_of_sweep(words: list[str]) -> list[str]:
    """The overrides of one job of `-m`: what is swept over with its first value."""
    found = []
    for word, each in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
        if not each.is_sweep_override():
            found.append(word)
        elif each.is_discrete_sweep():
            found.append(f"{each.get_key_element()}={next(each.sweep_string_iterator())}")
    return found


def without_search(config: DictConfig) -> DictConfig:
    """What the jobs of a search have; `search` itself is checked here."""
    if config.get("search") is not None:
        to_search_config(config.search)
    with open_dict(config):
        config.pop("search", None)
    return config


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        to_config(composed(*overrides))
    return str(error.value)


def test_the_defaults_are_the_documented_ones():
    config = to_config(as_composed())
    assert config.backbone.name == "efficientnetb3"
    assert (config.image_size, config.batch_size, config.seed) == (240, 16, 42)
    assert (config.data.name, config.data.root, config.data.val_split) == ("kaggle", "data", 0.2)
    names = (config.finetune.name, config.head.name, config.augmentation.name, config.schedule.name)
    assert names == ("fast", "linear", "moderate", "cosine_high")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 5e-4)


def test_the_defaults_of_the_notebooks_plan_are_the_notebooks():
    config = to_config(as_composed("finetune=staged"))
    names = (config.backbone.name, config.head.name, config.augmentation.name)
    assert names == ("efficientnetb3", "avg_dense", "photo")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamax", 1e-3)
    assert config.schedule == PlateauSchedule(
        name="plateau", factor=0.5, patience=2, min_learning_rate=1e-7
    )


def test_staged_is_the_notebooks_four_stages():
    stages = to_config(composed("finetune=staged")).finetune.stages
    assert [(s.epochs, s.trainable) for s in stages.values()] == [
        (10, 0.0), (10, 0.5), (10, 0.75), (15, 1.0),
    ]  # fmt: skip
    assert {s.learning_rate for s in stages.values()} == {1e-3}


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, object]]:
    """Group to option to its dataclass."""
    return {
        group: {
            option: getattr(
                to_config(composed(f"{group}={option}", *NEEDED.get(option, ()))), group
            )
            for option in options(group)
        }
        for group in GROUPS
    }


def test_every_combination_of_groups_fits_together(parts):
    config = to_config(composed())
    values = {name: getattr(config, name) for name in VALUES}
    combinations = list(itertools.product(*(parts[group].items() for group in GROUPS)))
    assert len(combinations) == math.prod(len(options(group)) for group in GROUPS) > 25_000
    for chosen in combinations:
        groups = {group: part for group, (_, part) in zip(GROUPS, chosen, strict=True)}
        config = TrainConfig(**groups, **values)
        rate = 5e-4 if config.finetune.name == "fast" else 1e-3  # of the optimizer it brings along
        assert {stage.learning_rate for stage in config.finetune.stages.values()} == {rate}


def test_every_two_options_of_two_groups_compose():
    """Composing all of them takes Hydra an hour; what one option can do to another shows in two."""
    for choices in pairwise({group: options(group) for group in GROUPS}):
        needed = itertools.chain.from_iterable(
            NEEDED.get(option, ()) for option in choices.values()
        )
        overrides = [f"{group}={option}" for group, option in choices.items()]
        config = to_config(composed(*overrides, *needed))
        for group in ("head", "augmentation", "finetune", "optimizer", "schedule", "data"):
            assert getattr(config, group).name == choices[group]
        rates = {stage.learning_rate for stage in config.finetune.stages.values()}
        assert rates == {config.optimizer.learning_rate}


def pairwise(groups: dict[str, list[str]]) -> list[dict[str, str]]:
    """Choices of one option a group, among which every two options of two groups meet."""
    names = list(groups)
    left = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(groups[a], groups[b])
    }
    rows = []
    while left:
        row = dict(min(left, key=sorted))
        for name in names:
            if name not in row:
                meets = {
                    option: sum(frozenset([(name, option), pair]) in left for pair in row.items())
                    for option in groups[name]
                }
                row[name] = max(meets, key=meets.get)
        left -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows


READERS = {"compare": to_compare_config, "evaluate": to_evaluate_config, "train": to_config}


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_with_the_command_that_it_names(experiment):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    (name,) = set(re.findall(rf"python (\w+)\.py (?:-m )?experiment={experiment}\b", text))
    config = READERS[name](as_composed(f"experiment={experiment}", name=name))
    asked = {"compare": "models", "evaluate": "ckpt", "train": "finetune"}[name]
    assert getattr(config, asked)


LARGER = "finetune.stages.last_head.enlarge=1.2857"


@pytest.mark.parametrize(
    ("overrides", "sides"),
    [
        (["image_size=150"], [288, 288, 288]),  # 9/7 of what the network was pretrained at, 224
        (["image_size=96"], [192, 192, 192]),
        (["image_size=96", "finetune.enlarge=4"], [288, 288, 288]),
        (["image_size=96", "finetune.enlarge=1"], [None, None, None]),
        (["image_size=96", "backbone.weights=none"], [None, None, None]),  # it looks for no size
        (["image_size=224"], [288, 288, 288]),
        (["image_size=288"], [None, None, None]),
        (["image_size=300"], [None, None, None]),
        (["image_size=96", "finetune.stages.all.image_size=128"], [192, 256, 192]),
        (["image_size=200", "finetune.stages.all.train_scale=1.5"], [288, None, 288]),
        (["image_size=150", LARGER], [288, 288, 370]),  # beyond 9/7
        (["image_size=96", "finetune.enlarge=1", LARGER], [None, None, 123]),
        (["image_size=96", "backbone.weights=none", LARGER], [None, None, 123]),
        (["image_size=300", LARGER], [None, None, 386]),
        (["image_size=150", "finetune=frozen"], [None]),
        (["image_size=240", "backbone=efficientnetb3"], [386, 386, 386]),
    ],
)
def test_photos_are_enlarged_up_to_nine_sevenths_of_the_pretraining_size(overrides, sides):
    composed = as_composed("backbone=efficientnetlite0", *overrides)
    assert list(to_config(composed).enlarged_sides().values()) == sides


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
        ("finetune.enlarge=0.5", "Expected enlarge from 1 (off) to 16. Received: enlarge=0.5"),
        (
            "finetune.stages.all.enlarge=5",
            "Expected enlarge from 1 (off) to 4. Received: enlarge=5",
        ),
        ("finetune.monitor=val_f1", "Expected monitor to be one of val_accuracy, val_loss."),
        ("finetune.stages.all.trainable=2", "Expected trainable to be a share in [0, 1]."),
        ("finetune.stages.all.epochs=0", "Expected epochs to be at least 1. Received: epochs=0"),
        (
            "+finetune.stages.all.epoks=1",
            "Expected one of epochs, learning_rate, trainable, image_size, train_scale, "
            "enlarge, batch_size, bottom_rate, label_smoothing, mixup, cutmix, mix_probability, "
            "ema_span, soup, callbacks, feature_views. "
            "Received: finetune.stages.all.epoks",
        ),
        ("finetune.stages.all.mixup=-1", "Expected mixup from 0 (off) to 100. Received: mixup=-1"),
        (
            "finetune.stages.all.train_scale=0.1",
            "Expected train_scale to be a share from 0.25 to 4. Received: train_scale=0.1",
        ),
        ("optimizer.clip_norm=-1", "Expected clip_norm to be 0 (off) or more. Received: clip_norm"),
        ("+data.rooot=x", "Received: data.rooot"),
        ("schedule.factor=2", "Expected factor in (0, 1). Received: factor=2.0"),
        ("head.dropout=1", "Expected dropout in [0, 1). Received: dropout=1.0"),
        (
            "head.name=none",
            "Expected head to be one of avg_dense, max_dense, max_dropout, linear. Rec",
        ),
        ("backbone.name=vgg", "Expected backbone to be one of efficientnetb3, xception,"),
        ("backbone.preprocessing=unit", "preprocessing is part of the network"),
        ("image_size=16", "Expected image_size to be at least 32 px for efficientnetb3"),
        (
            "finetune.stages.all.image_size=16",
            "Expected finetune.stages.all.image_size to be at least",
        ),
        ("finetune.stages.all.image_size=9999", "Expected image_size to be from 1 to 4096 pixels"),
        ("finetune.stages.all.batch_size=0", "Expected batch_size to be at least 1."),
        (
            "finetune.stages.all.callbacks=[plateu]",
            "Expected callbacks to be one of plateau, early_",
        ),
        (
            "finetune.stages.all.callbacks=[early_stopping]",
            "Expected finetune.early_stopping_patie",
        ),
        ("finetune.stages.all.callbacks=[tensorboard]", "Expected runtime.tensorboard=true, since"),
        ("finetune.stages.all.feature_views=-1", "Expected feature_views from 0 (off: an ordinary"),
        (
            "finetune.stages.head.feature_views=4",
            "Expected trainable=0 and epochs=1 of a stage with feature_views, which fits the head "
            "alone and at once. Received: trainable=0.0, epochs=10, feature_views=4",
        ),
        ("schedule.monitor=val_f1", "Expected monitor to be one of val_loss, val_accuracy, loss,"),
        ("optimizer.beta_1=1", "Expected beta_1 in [0, 1). Received: beta_1=1.0"),
        ("optimizer.name=lion", "Expected optimizer to be one of adamax, adam, adamw, sgd."),
        ("seed=4294967296", "Expected seed to be from 0 to 2**32 - 1. Received: seed=4294967296"),
        ("runtime.device=tpu", "Expected device to be one of auto, cpu, gpu."),
        ("runtime.workers=-1", "Expected workers to be 0 or more, or null for one a core."),
        ("data.cache_limit=-1", "Expected cache_limit to be a number of gigabytes, 0 or more."),
        ("optimizer.learning_rate=-1", "Expected learning_rate to be above 0."),
    ],
)
def test_a_mistake_is_told_by_name(override, text):
    assert text in told(override)


def test_predict_takes_changes_to_the_runs_data_or_another_source():
    assert set(to_predict_config(composed(name="predict")).data.values()) == {None}
    config = to_predict_config(composed("data=kaggle", "data.root=x", name="predict"))
    assert (config.data["name"], config.data["root"]) == ("kaggle", "x")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ("schedule=cosine", "finetune.stages.all.callbacks=[plateau]"),
            "Expected schedule=plateau, since the stage all lists plateau among its callbacks: "
            "ReduceLROnPlateau and a schedule cannot both move the learning rate. "
            "Received: schedule=cosine",
        ),
        (
            ("schedule=cosine", "+schedule.factor=0.5"),
            "one of name, warmup, final. Received: schedule.factor",
        ),
        (("schedule=cosine", "schedule.warmup=1"), "Expected warmup in [0, 1). Received: warmup=1"),
        (("schedule=exponential", "schedule.rate=1.5"), "Expected rate in (0, 1). Received: rate="),
        (("optimizer=sgd", "+optimizer.beta_1=0.9"), "Received: optimizer.beta_1"),
        (("optimizer=sgd", "optimizer.momentum=1"), "Expected momentum in [0, 1)."),
        (
            ("optimizer=adamw", "optimizer.weight_decay=-1"),
            "Expected weight_decay to be 0 or more.",
        ),
        (("head=max_dense", "head.units2=-1"), "Expected units2 to be 0 (no such layer) or more."),
        (
            ("head=max_dropout", "+head.units=9"),
            "one of name, dropout. Received: head.units",
        ),
    ],
)
def test_what_cannot_be_combined_is_told_by_name(overrides, text):
    assert text in told(*overrides)


def test_the_notebooks_policies_heads_and_schedules_have_the_published_numbers():
    config = to_config(composed("head=max_dense", "schedule=exponential", "optimizer=sgd"))
    assert (config.head.units, config.head.dropout, config.head.units2) == (256, 0.5, 0)
    assert (config.schedule.rate, config.schedule.steps) == (0.95, 100)
    assert to_config(composed("head=max_dropout")).head.dropout == 0.3
    names = {name: list(composed(f"augmentation={name}").augmentation.train) for name in POLICIES}
    assert names == POLICIES


POLICIES = {
    "geometric": ["affine"],
    "photo": ["blur", "noise", "affine", "colour", "flip", "light"],
    "photo_no_brightness": ["blur", "noise", "affine", "colour", "flip"],
    "photo_rgb": ["blur", "noise", "affine", "rgb", "colour", "flip", "light"],
    "none": [],
}
