"""Every published recipe composes as its header says, and trains."""

import re

import numpy as np
import pytest

from carcls.config import to_config
from carcls.training.loop import train
from tests.conftest import FEW_LAYERS, draw_competition
from tests.test_config import CONF, composed, options

NOTEBOOK = [name for name in options("experiment") if name.startswith("notebook_")]
ROUND_ONE = ("max_dropout", "geometric", "full", "constant", 150, 32, 5, "last")
ROUND_TWO = ("max_dense", "photo", "full", "exponential", 150, 16, 4, "last")
RECIPES = {
    "notebook_xception_geometric": ("xception", "unit", *ROUND_ONE),
    "notebook_xception_photo": ("xception", "unit", *ROUND_TWO),
    "notebook_inceptionv3_geometric": ("inceptionv3", "unit", *ROUND_ONE),
    "notebook_inceptionv3_photo": ("inceptionv3", "unit", *ROUND_TWO),
    "notebook_resnet101v2_geometric": ("resnet101v2", "unit", *ROUND_ONE),
    "notebook_resnet101v2_photo": ("resnet101v2", "unit", *ROUND_TWO),
    "notebook_efficientnetb3_geometric": ("efficientnetb3", "native", *ROUND_ONE),
    "notebook_efficientnetb3_photo": (
        "efficientnetb3", "native", "avg_dense", "photo", "full", "plateau", 150, 16, 4, "last",
    ),
    "notebook_efficientnetb3_no_brightness": (
        "efficientnetb3", "native", "avg_dense", "photo_no_brightness", "full", "plateau", 150, 16,
        4, "last",
    ),
    "notebook_efficientnetb3_staged_150": (
        "efficientnetb3", "native", "avg_dense", "photo", "staged", "plateau", 150, 16, 0, "last",
    ),
    "notebook_efficientnetb3_staged_240": (
        "efficientnetb3", "native", "avg_dense", "photo_rgb", "staged", "plateau", 240, 16, 0,
        "last",
    ),
}  # fmt: skip

# Assumed training photos a second of EfficientNetB3 at 300 px.
GPUS = {"T4": 80, "P100": 70, "H200": 1100}


@pytest.mark.parametrize("name", NOTEBOOK)
def test_a_run_of_the_notebook_is_its_recipe(name):
    config = to_config(composed(f"experiment={name}"))
    assert (
        config.backbone.name, config.backbone.preprocessing, config.head.name,
        config.augmentation.name, config.finetune.name, config.schedule.name, config.image_size,
        config.batch_size, config.finetune.early_stopping_patience, config.finetune.keep,
    ) == RECIPES[name]  # fmt: skip
    assert config.optimizer.name == "adamax"
    assert sum(s.epochs for s in config.finetune.stages.values()) == (
        45 if config.finetune.name == "staged" else 8
    )


def test_the_notebooks_eleven_runs_are_all_there():
    assert sorted(RECIPES) == NOTEBOOK
    assert len(NOTEBOOK) == 11


@pytest.mark.parametrize("name", NOTEBOOK)
def test_a_header_says_command_number_and_differences(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert f"# Command:   python train.py experiment={name} data.root=DIR\n" in text
    assert re.search(r"^# Published: (\d\d\.\d\d %|about 95 %|no number of its own)", text, re.M)
    assert "# Different on purpose: validation photos are not augmented" in text


# Those of compare.py and evaluate.py train nothing.
TRAINED = [name for name in options("experiment") if not name.startswith("study_")]


@pytest.mark.parametrize("name", TRAINED)
def test_every_experiment_trains_two_steps_in_each_stage(name, tmp_path, tiny_backbone):
    """On a network that takes seconds: those of the notebook go through stages elsewhere."""
    root = draw_competition(tmp_path / "data", per_class=4)  # nine to train, three to validate
    stages = composed(f"experiment={name}").finetune.stages
    sizes = {stage: plan.image_size for stage, plan in stages.items() if plan.image_size}
    config = to_config(
        composed(
            f"experiment={name}", "data=kaggle", f"data.root='{root}'", "image_size=32",
            *FEW_LAYERS, "backbone.preprocessing=native", "batch_size=5", "target=fine",
            "runtime.eager=true", "runtime.preflight=false",
            "runtime.precision=float32",  # half precision takes minutes on a CPU
            *(f"finetune.stages.{stage}.epochs=1" for stage in stages),
            *(f"finetune.stages.{stage}.image_size={size // 10}" for stage, size in sizes.items()),
        )
    )  # fmt: skip
    outcome = train(config, tmp_path / "run")
    assert [(s["name"], s["epochs"]) for s in outcome.metrics["stages"]] == [(s, 1) for s in stages]
    assert (outcome.metrics["n_train"], outcome.metrics["n_val"]) == (9, 3)
    assert np.isfinite(outcome.metrics["val_loss"])


def test_the_plan_for_the_competition_grows_to_512_px_in_one_night():
    config = to_config(composed("experiment=competition"))
    sizes = [stage.image_size or config.image_size for stage in config.finetune.stages.values()]
    assert (config.backbone.name, sizes) == (
        "efficientnetb3",
        [300, 300, 300, 384, 512, 512],
    )
    # In training photos of 300 px: a forward pass is a third, and cost goes with the area.
    train, val = 12_449, 3_112
    cost = sum(
        (size / 300) ** 2
        * (
            train * max(stage.feature_views / 3, stage.epochs * stage.trainable)
            + val * stage.epochs / 3
        )
        for stage, size in zip(config.finetune.stages.values(), sizes, strict=True)
    )
    hours = {gpu: cost / rate / 3600 for gpu, rate in GPUS.items()}
    text = (CONF.parent / "docs" / "finetuning.md").read_text()
    for gpu, value in hours.items():
        assert f"| {gpu} | {GPUS[gpu]:,} | {value:.1f} |" in text
