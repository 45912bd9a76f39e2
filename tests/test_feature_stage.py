"""A stage on cached features, from photos to what a run says of it."""

import json
import logging
import os
import signal
from dataclasses import replace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from carcls.config import to_config
from carcls.data.images import resize
from carcls.data.photos import Photos
from carcls.errors import UserError
from carcls.models.classifier import build_classifier, seen_at
from carcls.models.probabilities import predict_probs
from carcls.training import feature_stage, head_fit
from carcls.training import features as features_module
from carcls.training.features import get_features, number_of_views
from carcls.training.inputs import prepare_inputs
from carcls.training.loop import train
from tests.conftest import draw_competition
from tests.test_config import composed

STAGE = (
    "finetune=frozen", "finetune.stages.head.epochs=1", "finetune.stages.head.feature_views=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data"), per_class=5)


@pytest.fixture(scope="module")
def network():
    """A classifier with the real weights, and its config; built once."""
    config = to_config(composed("backbone=efficientnetlite0", "head=linear"))
    return build_classifier(config.backbone, config.head, 3)


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", f"data.cache_dir='{root}/cache'", "backbone=efficientnetlite0",
            "image_size=32", "batch_size=4", "runtime.eager=true", "runtime.workers=0",
            "head=linear", *STAGE, *overrides,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(root, tmp_path_factory):
    """A run of a stage on cached features and an ordinary one; (config, workdir, what it said)."""
    config = small(
        root, "+finetune.stages.all.epochs=1", "+finetune.stages.all.learning_rate=1e-9",
        "+finetune.stages.all.trainable=0",
        "augmentation.mixup=0.2",
    )  # fmt: skip
    workdir, said = tmp_path_factory.mktemp("run"), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("carcls")
    before = logger.level
    logger.setLevel("INFO")
    logger.addHandler(handler)
    try:
        train(config, workdir)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    return config, workdir, said


def test_it_is_a_row_of_the_history_and_a_stage_of_the_metrics(fitted):
    _, workdir, _ = fitted
    history = pd.read_csv(workdir / "history.csv")
    assert history.stage.tolist() == ["head", "all"]
    assert history.epoch.tolist() == [1, 2]
    assert np.isnan(history.learning_rate[0])
    assert history.drop(columns="learning_rate").notna().all(axis=None)
    assert history.loss[0] < 0.7, "three classes of one colour each"
    assert history.accuracy[0] >= 0.9
    stages = json.loads((workdir / "metrics.json").read_text())["stages"]
    assert [(stage["name"], stage["epochs"]) for stage in stages] == [("head", 1), ("all", 1)]
    assert stages[0]["val_accuracy"] == history.val_accuracy[0]
    assert (workdir / "curves.png").is_file()


def test_what_was_chosen_is_said_and_recorded(fitted):
    _, workdir, said = fitted
    fit = json.loads((workdir / "run.json").read_text())["head_fits"]["head"]
    assert (fit["views"], fit["photos"], fit["name"], fit["folds"]) == (3, 12, "l2", 3)
    assert min(fit["scores"].values()) == fit["scores"][f"{fit['value']:g}"]
    text = "\n".join(said)
    assert "1/2 head: features of 3 views of 12 photos in 0:" in text
    assert f"s: l2 {fit['value']:g} of {len(fit['scores'])} tried, log-loss " in text
    assert "in head the backbone sees each view once" in " ".join(text.split())
    assert "and these are not mixed" in " ".join(text.split())
    row = next(line.split() for line in text.splitlines() if line.startswith("head  "))
    assert row[1:3] == ["3", "views"]


def test_what_it_says_of_validation_is_what_the_whole_network_says(fitted):
    _, workdir, _ = fitted
    metrics = json.loads((workdir / "metrics.json").read_text())
    head = pd.read_csv(workdir / "history.csv").iloc[0]
    # The stage after it changes next to nothing.
    assert metrics["val_accuracy"] == pytest.approx(head.val_accuracy, abs=1e-6)
    assert metrics["val_nll"] == pytest.approx(head.val_loss, abs=1e-4)


def never() -> None:
    """Nobody asks for a stop."""


def features_of(network, config):
    inputs = prepare_inputs(config)
    stage = config.finetune.stages["head"]
    return inputs, get_features(network, inputs, stage, stage.feature_views, "head", never)


def test_a_view_is_the_photo_of_that_epoch_but_the_first_which_is_the_photo(network, root):
    config = small(
        root, "data.cache_limit=0", "augmentation.mixup=1", "finetune.stages.head.train_scale=0.75"
    )
    inputs, features = features_of(network, config)
    assert features.views.shape == (3, 12, 1280)
    assert features.views.dtype == np.float32
    assert features.found == 0
    loader = inputs.train(config.finetune.stages["head"])
    loader.shuffle, loader.mix, loader.num_classes = False, None, None
    pooled = keras.Model(network.input, network.get_layer("head_pool").output)
    pooled.run_eagerly = True
    np.testing.assert_allclose(
        features.views[2], predict_probs(pooled, loader, epoch=2), rtol=1e-4, atol=1e-4
    )
    assert np.abs(features.views[2] - features.views[1]).max() > 0.1
    photos = [cv2.imread(inputs.photos.paths[index])[..., ::-1] for index in loader.indices]
    whole = np.stack([resize(photo, 32) for photo in photos])
    np.testing.assert_allclose(
        features.views[0], pooled.predict_on_batch(whole), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(
        features.labels, inputs.records.table.label.to_numpy()[~inputs.is_val]
    )
    assert features.val.shape == (3, 1280)


def test_features_are_shared_where_nothing_they_depend_on_differs(network, root, tmp_path):
    def found(*overrides: str, network=network) -> int:
        config = small(root, f"data.cache_dir='{tmp_path}'", *overrides)
        return features_of(network, config)[1].found

    views = "finetune.stages.head.feature_views="
    assert found(views + "1") == 0
    assert found(views + "2") == 12 + 3, "of two views the first is there, and the validation"
    assert found(views + "2", "augmentation.train.blur.p=0.5") == 12 + 3, "another policy"
    assert found(views + "1", "augmentation=none") == 12 + 3, "the photos as they are"
    weights = network.get_weights()
    network.set_weights([weights[0] * 1.01, *weights[1:]])
    assert found(views + "1") == 0, "other weights"
    network.set_weights(weights)
    assert found(views + "1") == 15
    assert found(views + "1", network=seen_at(network, 48)) == 0, "the same photos, enlarged"
    for file in (tmp_path / "features").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert found(views + "1") == 0, "damaged"
    assert found(views + "1") == 15


def test_a_photo_that_is_lost_is_left_out(network, root, monkeypatch):
    config = small(root, "data.cache_limit=0")
    inputs = prepare_inputs(config)
    gone = int(np.flatnonzero(~inputs.is_val)[4])
    photos = Photos(list(inputs.photos.paths), 32)
    photos.paths[gone] = "nowhere.png"
    inputs.photos = photos
    stage = config.finetune.stages["head"]
    features = get_features(network, inputs, stage, 2, "head", never)
    assert features.views.shape == (2, 11, 1280)
    labels = inputs.records.table.label.to_numpy()
    kept = ~inputs.is_val
    kept[gone] = False
    np.testing.assert_array_equal(features.labels, labels[kept])
    assert list(inputs.lost.values()) == ["no such file"]


def test_views_that_would_be_the_same_or_do_not_fit_are_not_made(root, monkeypatch):
    config = small(root, "augmentation=none")
    stage = config.finetune.stages["head"]
    assert number_of_views(config, stage, 100, 10) == (
        1, "feature_views=1: with augmentation=none all views of a photo are the same"
    )  # fmt: skip
    config = small(root)
    monkeypatch.setattr(features_module, "_memory_bytes", lambda: 50_000)
    assert number_of_views(config, stage, 100, 8) == (3, None)
    assert number_of_views(config, stage, 100, 10) == (
        2, "feature_views=2: more would take more than a fifth of the memory"
    )  # fmt: skip
    with pytest.raises(UserError, match="Expected the features of 100 photos, 1000 numbers each"):
        number_of_views(config, stage, 100, 1000)


def test_a_refit_without_augmentation_fits_on_all_photos_and_says_what_was_changed(
    root, tmp_path, tiny_backbone
):
    outcome = train(small(root, "data.refit=true", "augmentation=none"), tmp_path)
    assert (outcome.metrics["n_train"], outcome.metrics["n_val"]) == (15, 0)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["changed"][-1] == (
        "finetune.stages.head.feature_views=1: with augmentation=none all views of a photo are "
        "the same"
    )
    assert facts["head_fits"]["head"]["photos"] == 15
    assert pd.read_csv(tmp_path / "history.csv").val_loss.isna().all()


TRAINED = (
    "finetune=fast", "finetune.stages.head.feature_views=2", "finetune.stages.all.epochs=1",
    "finetune.enlarge=1",  # the tiny network was pretrained at no size
)  # fmt: skip


def test_once_the_backbone_is_trained_the_head_is_fitted_anew_with_what_was_chosen_before(
    root, tmp_path, caplog, tiny_backbone
):
    caplog.set_level("INFO", logger="carcls")
    config = small(root, *TRAINED, f"data.cache_dir='{tmp_path}/cache'")
    train(config, tmp_path / "run")
    fits = json.loads((tmp_path / "run" / "run.json").read_text())["head_fits"]
    assert (fits["last_head"]["views"], fits["last_head"]["photos"]) == (1, 12)
    first, last = fits["head"], fits["last_head"]
    assert len(first["scores"]) > 1
    # No fold has a say, and the validation photos only in that it may be weaker.
    assert (last["folds"], next(iter(last["scores"]))) == (0, f"{first['value']:g}")
    assert last["value"] == float(min(last["scores"], key=last["scores"].get)) <= first["value"]
    said = f"on the validation photos, {first['value']:g} as in head at most"
    assert f"l2 {last['value']:g} of {len(last['scores'])} tried, log-loss " in caplog.text
    assert said in caplog.text
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 3, "none that only it can use"
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.stage.tolist() == ["head", "all", "last_head"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["kept_epoch"] == 3
    assert metrics["val_nll"] == pytest.approx(history.val_loss[2], abs=1e-4)
    assert metrics["val_nll"] == pytest.approx(min(last["scores"].values()), rel=0.02)


@pytest.mark.parametrize("head", ["linear", "max_dense"])
def test_cut_before_its_last_head_a_run_goes_on_with_what_its_first_one_chose(
    head, root, tmp_path, monkeypatch, tiny_backbone
):
    class CutError(BaseException):
        pass

    def cut(*args, **options):
        raise CutError

    monkeypatch.setattr(head_fit, "_EPOCHS", 3)
    monkeypatch.setattr(head_fit, "WEIGHT_DECAY", (1.0,))
    overrides = (*TRAINED, f"head={head}", "finetune.keep=last", "runtime.deterministic=true")
    config = small(root, *overrides)
    train(config, tmp_path / "unbroken")
    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(feature_stage, "_settled", cut)
        train(config, tmp_path / "run")
    train(replace(config, resume=str(tmp_path / "run")), tmp_path / "run")
    runs = [tmp_path / "unbroken", tmp_path / "run"]
    fits = [json.loads((run / "run.json").read_text())["head_fits"] for run in runs]
    assert fits[0]["last_head"]["origin"].count("as in head") == 1
    for fact in ("origin", "value", "scores"):
        assert fits[0]["last_head"][fact] == fits[1]["last_head"][fact]
    assert len({(run / "val_predictions.csv").read_text() for run in runs}) == 1


def test_a_head_that_was_fitted_anew_and_is_worse_is_not_kept(
    root, tmp_path, monkeypatch, caplog, tiny_backbone
):
    def of_wrong_labels(*args, **options):
        features = get_features(*args, **options)
        if options["is_shared"]:  # of the pretrained backbone
            return features
        return replace(features, labels=np.roll(features.labels, 4))

    caplog.set_level("WARNING", logger="carcls")
    monkeypatch.setattr(feature_stage, "get_features", of_wrong_labels)
    outcome = train(small(root, *TRAINED), tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    kept = outcome.metrics["kept_epoch"]
    assert kept < 3
    said = (
        "finetune.stages.last_head: the head that was fitted anew was not kept, its val_loss is "
        f"{history.val_loss[2]:.4f}, that of epoch {kept} {history.val_loss[kept - 1]:.4f}"
    )
    assert history.val_loss[2] > history.val_loss[kept - 1] + 0.05
    assert json.loads((tmp_path / "run.json").read_text())["changed"] == [said]
    assert f"WARNING: {said}." in caplog.text
    assert outcome.metrics["val_nll"] == pytest.approx(history.val_loss[kept - 1], abs=1e-4)


def test_a_head_whose_features_do_not_fit_into_memory_is_not_fitted_anew(
    root, tmp_path, monkeypatch, tiny_backbone
):
    monkeypatch.setattr(features_module, "_memory_bytes", lambda: 100)
    with pytest.raises(UserError, match="Expected the features of 12 photos"):
        train(small(root, *TRAINED), tmp_path / "first")
    overrides = ("finetune.stages.head.feature_views=0",)
    outcome = train(small(root, *TRAINED, *overrides), tmp_path / "last")
    facts = json.loads((tmp_path / "last" / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["changed"] == [
        "finetune.stages.last_head: the head is not fitted anew, the features of 12 photos would "
        "take more than a fifth of the memory"
    ]
    assert [stage["name"] for stage in outcome.metrics["stages"]] == ["head", "all"]


def test_a_last_head_alone_or_without_validation_photos_is_fitted_and_kept(
    root, tmp_path, caplog, tiny_backbone
):
    caplog.set_level("INFO", logger="carcls")
    overrides = ("finetune.stages.head.feature_views=0", "data.refit=true")
    outcome = train(small(root, *TRAINED, *overrides), tmp_path)
    assert outcome.metrics["kept_epoch"] == 3
    assert "l2 0.1, since photos that trained the backbone cannot choose it" in caplog.text


def test_ctrl_c_ends_it_with_the_head_as_it_was(root, tmp_path, monkeypatch, tiny_backbone):
    config = small(root, "data.cache_limit=0")
    monkeypatch.setattr(features_module, "_BATCH", 4)
    batches = []
    predict = features_module.predict_probs

    def interrupted(*args, **options):
        batches.append(1)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(*args, **options)

    monkeypatch.setattr(features_module, "predict_probs", interrupted)
    with pytest.raises(KeyboardInterrupt):  # nothing was reached
        train(config, tmp_path)
    assert len(batches) == 2
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"


def test_a_head_is_fitted_as_balanced_as_the_run_is_on_the_same_features(
    tmp_path, monkeypatch, tiny_backbone
):
    root = draw_competition(tmp_path / "data", per_class=5)
    table = pd.read_csv(root / "train.csv", dtype=str)
    table.drop(table.index[table.Category == "12"][:2]).to_csv(root / "train.csv", index=False)
    given = {}
    fit = feature_stage.fit_head

    def looked_at(head, features, **options):
        given[balance] = features, options["class_weights"]
        return fit(head, features, **options)

    monkeypatch.setattr(feature_stage, "fit_head", looked_at)
    for balance in ("none", "weights", "sampling"):
        config = small(
            root, "data.on_missing=skip", f"data.balance={balance}", "data.refit=true",
            "data.cache_limit=0",
        )  # fmt: skip
        train(config, tmp_path / balance)
    assert given["none"][1] is None
    for balance in ("weights", "sampling"):
        features, weights = given[balance]
        np.testing.assert_allclose(weights, [13 / 15, 13 / 9, 13 / 15], rtol=1e-6)
        np.testing.assert_array_equal(features.labels, given["none"][0].labels)
        np.testing.assert_allclose(features.views, given["none"][0].views, rtol=1e-5)
