from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from carcls.config import AvgDenseHead, BackboneConfig, to_config
from carcls.errors import UserError
from carcls.evaluation.cost import count_flops
from carcls.models.classifier import (
    backbone_of,
    build_classifier,
    enlarged_side,
    load_classifier,
    save_classifier,
    seen_at,
    up_to,
)
from carcls.models.folding import fold_batch_norm
from carcls.models.freezing import freeze, keep_every_block, learning_rate_shares
from carcls.run import ModelInfo, embed_model_info, read_model_info
from carcls.training.stages import compile_stage
from tests.test_config import composed

HEAD = AvgDenseHead(name="avg_dense", dropout=0.25, units=256, l2_bias=1e-3, l2_activity=1e-4)
INFO = ModelInfo(
    class_names=["007", "a"], class_counts=[1, 2], image_size=96, resize="squash", config={}
)


def built(name: str = "efficientnetlite0", weights: str = "none", **kwargs) -> keras.Model:
    return build_classifier(BackboneConfig(name=name, weights=weights, **kwargs), HEAD, 2)


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    return built()


@pytest.fixture
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)


def test_uint8_and_float_photos_of_any_size_give_the_same_probabilities(lite0, photos):
    probs = lite0.predict_on_batch(photos)
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx([1, 1, 1], abs=1e-5)
    np.testing.assert_allclose(lite0.predict_on_batch(photos.astype(np.float32)), probs, atol=1e-6)
    assert lite0.predict_on_batch(photos[:, :64, :75]).shape == (3, 2)


def test_a_network_made_for_another_size_is_of_the_same_layers(photos, tmp_path):
    lite0 = built()
    keep_every_block(backbone_of(lite0))
    folded = fold_batch_norm(lite0, only_frozen=False)
    before = lite0.predict_on_batch(photos)
    larger = seen_at(lite0, 128)
    assert seen_at(larger, 128) is larger
    assert [enlarged_side(network) for network in (larger, lite0)] == [128, None]
    by_hand = keras.ops.image.resize(photos.astype(np.float32), (128, 128))
    np.testing.assert_allclose(
        larger.predict_on_batch(photos), lite0.predict_on_batch(by_hand), atol=1e-6
    )
    again = seen_at(larger, None)
    assert enlarged_side(again) is None
    for network in (larger, again):
        for one, other in zip(lite0.variables, network.variables, strict=True):
            assert one is other
        assert fold_batch_norm(network, only_frozen=False) == folded > 40
        pooled = up_to(network, "head_pool")
        assert enlarged_side(pooled) == enlarged_side(network)
        assert pooled.predict_on_batch(photos).shape == (3, 1280)
    np.testing.assert_array_equal(again.predict_on_batch(photos), before)
    for network in (larger, again):
        save_classifier(network, INFO, tmp_path / "model.keras")
        kept = load_classifier(tmp_path / "model.keras")
        assert enlarged_side(kept) == enlarged_side(network)
        np.testing.assert_allclose(
            kept.predict_on_batch(photos), network.predict_on_batch(photos), atol=1e-5
        )


def test_a_network_that_enlarges_sees_photos_of_every_size_at_one(lite0, photos, tmp_path):
    enlarging = seen_at(lite0, 128)
    for cut in (photos, photos[:, :64, :75]):
        by_hand = keras.ops.image.resize(cut.astype(np.float32), (128, 128))
        np.testing.assert_allclose(
            enlarging.predict_on_batch(cut), lite0.predict_on_batch(by_hand), atol=1e-6
        )
    assert (enlarged_side(enlarging), enlarged_side(lite0)) == (128, None)
    save_classifier(enlarging, INFO, tmp_path / "model.keras")
    kept = load_classifier(tmp_path / "model.keras")
    assert count_flops(kept, 96) == count_flops(lite0, 128) > count_flops(lite0, 96)
    np.testing.assert_array_equal(
        kept.predict_on_batch(photos),
        enlarging.predict_on_batch(photos),
    )


def test_the_head_is_the_notebooks(lite0):
    names = [layer.name for layer in lite0.layers if layer.name.startswith(("head", "probs"))]
    assert names == ["head_pool", "head_norm1", "head_dropout", "head_dense", "head_norm2", "probs"]
    dense = lite0.get_layer("head_dense")
    assert (dense.units, dense.activation.__name__) == (256, "relu")
    assert dense.bias_regularizer.l2 == pytest.approx(1e-3)
    assert dense.activity_regularizer.l2 == pytest.approx(1e-4)
    assert lite0.get_layer("head_dropout").rate == 0.25


def test_probabilities_stay_float32_under_mixed_precision(photos):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = built()
        assert backbone_of(model).layers[-1].compute_dtype == "bfloat16"
        probs = np.asarray(model(photos, training=False))
    finally:
        keras.config.set_dtype_policy("float32")
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_saved_classifier_predicts_the_same_and_says_its_classes(lite0, photos, tmp_path):
    path = tmp_path / "model.keras"
    save_classifier(lite0, INFO, path)
    assert read_model_info(path) == INFO
    np.testing.assert_array_equal(
        load_classifier(path).predict_on_batch(photos), lite0.predict_on_batch(photos)
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_classifier_needs_nothing_of_this_package(lite0, photos, tmp_path):
    path = tmp_path / "model.keras"
    save_classifier(lite0, INFO, path)
    plain = keras.saving.load_model(path, custom_objects={}, safe_mode=True)
    modules = {type(layer).__module__ for layer in plain._flatten_layers()}
    assert not [name for name in modules if name.startswith("carcls")]
    np.testing.assert_array_equal(plain.predict_on_batch(photos), lite0.predict_on_batch(photos))


def test_a_file_that_keras_cannot_load_is_told(tmp_path):
    path = tmp_path / "model.keras"
    Image.new("RGB", (2, 2)).save(path, format="PNG")
    with pytest.raises(UserError, match=r"Expected a \.keras file that Keras .* can load"):
        load_classifier(path)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    path, trace = tmp_path / "model.keras", str(tmp_path / "ran")
    photos = keras.Input((None, None, 3))
    code = keras.layers.Lambda(lambda x: [open(trace, "w").close(), x][1])  # noqa: PTH123
    keras.Model(photos, code(photos)).save(path)
    Path(trace).unlink(missing_ok=True)
    embed_model_info(path, INFO)
    assert read_model_info(path) == INFO
    with pytest.raises(UserError, match=r"Expected a \.keras file that Keras .* can load"):
        load_classifier(path)
    assert not Path(trace).exists()


def test_unit_preprocessing_divides_by_255():
    model = built("xception", preprocessing="unit")
    layer = model.get_layer("preprocessing")
    assert np.asarray(layer(np.full((1, 1, 1, 3), 255.0)))[0, 0, 0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 75), (0.75, 112), (1.0, 150)])
def test_the_share_that_trains_is_counted_from_the_top(lite0, share, expected):
    network = backbone_of(lite0)
    assert len(network.layers) == 150
    assert freeze(network, share, "train") == pytest.approx(expected, abs=1)
    trains = [layer.trainable for layer in network.layers]
    assert trains == sorted(trains), "the frozen layers lie below the others"
    assert sum(trains) == pytest.approx(expected, abs=1)


def test_the_learning_rate_falls_geometrically_from_the_top_layer_to_the_bottom_one(lite0):
    network = backbone_of(lite0)
    shares = learning_rate_shares(network, 0.01)
    assert set(shares) == {variable.path for variable in network.weights}
    layers = [layer for layer in network.layers if layer.weights]
    found = np.array([shares[layer.weights[0].path] for layer in layers])
    assert (found[0], found[-1]) == (pytest.approx(0.01), 1.0)
    np.testing.assert_allclose(found[1:] / found[:-1], 0.01 ** (-1 / (len(layers) - 1)))


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_batch_norm_statistics_move_only_where_they_may(photos, batch_norm):
    model = built()
    network = backbone_of(model)
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    freeze(network, 0.5, batch_norm)
    before = [norm.moving_mean.numpy() for norm in norms]
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True, jit_compile=False)
    model.train_on_batch(photos, np.array([0, 1, 1]))
    moved = [
        not np.array_equal(a, norm.moving_mean.numpy())
        for a, norm in zip(before, norms, strict=True)
    ]
    if batch_norm == "frozen":
        assert not any(moved)
    else:
        assert moved == sorted(moved), "the frozen half stands still"
        assert 0 < sum(moved) < len(norms)


@pytest.mark.parametrize("skips", ["true", "false"])
def test_blocks_are_skipped_at_random_unless_the_plan_says_no(skips):
    config = to_config(
        composed(
            "backbone=efficientnetlite0", "backbone.weights=none", "head=linear", "head.dropout=0",
            "finetune.batch_norm=frozen", f"finetune.stochastic_depth={skips}",
        )
    )  # fmt: skip
    model = build_classifier(config.backbone, config.head, 3)
    fitted = compile_stage(model, config, config.finetune.stages["all"], 10)
    photos = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    once, twice = (np.asarray(fitted(photos, training=True)) for _ in range(2))
    assert np.array_equal(once, twice) == (skips == "false")
