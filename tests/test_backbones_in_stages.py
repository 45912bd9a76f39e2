"""The notebook's four networks, trained in stages, saved, loaded, predicting the same."""

import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.models.classifier import load_classifier
from carcls.training.inputs import prepare_inputs
from carcls.training.loop import train
from tests.conftest import draw_competition
from tests.test_config import composed
from tests.test_training import TWO_STAGES


@pytest.mark.parametrize("name", ["xception", "inceptionv3", "resnet101v2", "efficientnetb3"])
def test_each_of_the_notebooks_backbones_goes_through_stages(name, tmp_path):
    root = draw_competition(tmp_path / "data", per_class=2)
    config = to_config(
        composed(
            f"data.root='{root}'", f"backbone={name}", "backbone.weights=none", "image_size=75",
            "runtime.eager=true", "runtime.preflight=false", "optimizer=sgd", *TWO_STAGES,
        )
    )  # fmt: skip
    train(config, tmp_path / "run")
    saved = pd.read_csv(tmp_path / "run" / "val_predictions.csv").filter(like="p_").to_numpy()
    model = load_classifier(tmp_path / "run" / "model.keras")
    ((images, _),) = prepare_inputs(config).val(config.finetune.stages["all"]).epoch()
    np.testing.assert_allclose(model.predict_on_batch(images), saved, atol=2e-6)
