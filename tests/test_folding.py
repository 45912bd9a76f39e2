"""BatchNorm that is held still, as part of the convolution before it: the same network."""

import keras
import numpy as np
import pytest

from carcls.models.classifier import load_classifier
from carcls.models.folding import fold_batch_norm

layers = keras.layers


def network(**of_norm):
    """Every kind of convolution before a BatchNorm, one inside of a model inside."""
    x = photos = keras.Input((None, None, 3))
    for convolution in (
        layers.Conv2D(8, 3, strides=2, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, padding="same"),
        layers.Conv2D(12, 3, groups=2, dilation_rate=2, use_bias=False),
        layers.SeparableConv2D(10, 3, strides=2, padding="same"),
    ):
        x = layers.ReLU()(layers.BatchNormalization(**of_norm)(convolution(x)))
    inside = keras.Model(photos, x, name="inside")
    photos = keras.Input((None, None, 3))
    x = layers.BatchNormalization(**of_norm)(layers.Conv2D(3, 1)(photos))
    model = keras.Model(photos, layers.Dense(4)(layers.GlobalAveragePooling2D()(inside(x))))
    return with_numbers(model)


def with_numbers(model):
    """Statistics and biases as after a training."""
    random = np.random.default_rng(1)
    for variable in model.weights:
        if "kernel" not in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return model


def images(seed=0, size=40):
    return np.random.default_rng(seed).uniform(-1, 1, (4, size, size, 3)).astype(np.float32)


def norms_of(model):
    inside = [norms_of(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    own = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return own + [norm for norms in inside for norm in norms]


@pytest.mark.parametrize("of_norm", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_a_folded_network_says_what_it_said(of_norm):
    model = network(**of_norm)
    expected = model(images(), training=False)
    assert fold_batch_norm(model, only_frozen=False) == 5
    np.testing.assert_allclose(model(images(), training=False), expected, atol=1e-5)
    assert np.std(expected) > 0.1


def test_what_a_folded_network_learns_is_what_it_learnt():
    def trained(fold):
        keras.utils.set_random_seed(3)
        model = network()
        for norm in norms_of(model):
            norm.trainable = False
        assert not fold or fold_batch_norm(model, only_frozen=True) == 5
        model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
        model.fit(images(), np.eye(4), batch_size=4, epochs=3, verbose=0)
        return model.get_weights()

    before = network().get_weights()
    plain, folded = trained(fold=False), trained(fold=True)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, plain, strict=True))
    for ours, theirs in zip(folded, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_batch_norm_that_trains_stays_what_it_is():
    model = network()
    first, *others = norms_of(model)
    for norm in others:
        norm.trainable = False
    assert fold_batch_norm(model, only_frozen=False) == 5
    assert fold_batch_norm(model, only_frozen=True) == 4
    before = first.moving_mean.numpy()
    model(images(), training=True)
    assert np.abs(first.moving_mean.numpy() - before).max() > 1e-3
    for norm in others:
        norm.trainable = True
    assert fold_batch_norm(model, only_frozen=True) == 0
    before = others[0].moving_mean.numpy()
    model(images(), training=True)
    assert np.abs(others[0].moving_mean.numpy() - before).max() > 1e-3


def test_what_is_more_than_a_convolution_and_its_batch_norm_is_left_alone():
    photos = keras.Input((8, 8, 3))
    active = layers.Conv2D(3, 1, activation="relu")(photos)
    shared = layers.Conv2D(3, 1)
    one, two = shared(photos), shared(active)
    twice = layers.Conv2D(3, 1)(photos)
    norms = [layers.BatchNormalization()(x) for x in (active, one, two, twice, photos)]
    of_axis = layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(photos))
    model = keras.Model(photos, layers.Add()([*norms, of_axis, twice]))
    assert fold_batch_norm(with_numbers(model), only_frozen=False) == 0
    given = layers.Conv2D(3, 1)(photos)  # which the model gives too
    model = keras.Model(photos, [given, layers.BatchNormalization()(given)])
    assert fold_batch_norm(model, only_frozen=False) == 0


def test_half_precision_is_left_alone():
    """There the statistics would be rounded."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert fold_batch_norm(network(), only_frozen=False) == 0
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_file_knows_nothing_of_it(tmp_path):
    model = network()
    expected = model(images(), training=False)
    fold_batch_norm(model, only_frozen=False)
    model.save(tmp_path / "model.keras")
    loaded = load_classifier(tmp_path / "model.keras")
    assert not any("call" in vars(norm) for norm in norms_of(loaded))
    np.testing.assert_array_equal(loaded(images(), training=False), expected)


@pytest.mark.parametrize(
    ("name", "folded", "of"),
    [("efficientnetlite0", 49, 49), ("mobilenetv2", 52, 52), ("xception", 40, 40)],
)
def test_the_batch_norm_of_real_networks_is_folded(name, folded, of):
    from carcls.models.backbones import build_backbone

    model = with_numbers(build_backbone(name, weights="none"))
    assert len(norms_of(model)) == of
    photos = images(size=75)[:1]
    expected = model(photos, training=False)
    assert fold_batch_norm(model, only_frozen=False) == folded
    np.testing.assert_allclose(
        model(photos, training=False), expected, atol=1e-4 * float(np.std(expected))
    )
