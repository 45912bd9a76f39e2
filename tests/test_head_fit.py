"""Heads fitted to features: what is chosen, and that the network gets what was fitted."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from carcls.data.balance import class_weights
from carcls.models.classifier import load_classifier
from carcls.training import head_fit
from carcls.training.features import Features
from carcls.training.head_fit import Rows, fit_head, fit_softmax, head_of, photo_folds, unchosen


def blobs(num_views: int, num_photos: int, classes: int, seed: int = 0) -> Features:
    """Features of classes apart along some axes and far from standardised."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_photos) % classes
    centres = 2 * np.eye(classes, 8)[labels]
    views = centres + random.normal(0, 0.8, (num_views, num_photos, 8))
    views = (5 + 3 * views).astype(np.float32)
    views[..., 7] = 4.0  # the same for all photos
    return Features(
        views=views, labels=labels, groups=np.arange(num_photos), val=None, val_labels=None,
        found=0, seconds=1.0,
    )  # fmt: skip


def test_folds_keep_groups_whole_and_classes_even():
    labels = np.repeat([0, 1, 2], [30, 15, 6])
    groups = np.arange(51) // 2
    folds = photo_folds(labels, groups, 3, seed=1)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    counts = np.array([np.bincount(folds[labels == label], minlength=3) for label in range(3)])
    assert (np.ptp(counts, axis=1) <= 2).all(), counts
    assert not np.array_equal(folds, photo_folds(labels, groups, 3, seed=2))


def test_a_class_is_never_held_out_as_a_whole():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    groups = np.array([0, 1, 2, 3, 4, 5, 5])  # one photo of 1, one group of 2
    folds = photo_folds(labels, groups, 3, seed=0)
    assert folds[4:].tolist() == [-1, -1, -1]
    assert set(folds[:4]) == {0, 1, 2}


@pytest.mark.parametrize("of_class", [[1.0, 1.0, 1.0], [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("is_trained", [False, True])
def test_the_weights_are_where_the_regularised_loss_is_least(is_trained, classes, of_class):
    features = blobs(2, 60, classes)
    rows, labels = features.views.reshape(-1, 8), np.tile(features.labels, 2)
    folds = np.tile(photo_folds(features.labels, features.groups, 3, 0), 2)
    counts = np.array(of_class)[labels]
    # One class has no photos.
    data = Rows(features=rows, labels=labels, folds=folds, weights=counts)
    before = np.random.default_rng(1).normal(0, 0.3, (9, classes + 1)).astype(np.float32)
    towards = (before[:8], before[8]) if is_trained else None
    kernel, bias, choice = fit_softmax(data, classes + 1, towards=towards)
    logits = rows @ kernel + bias
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    assert probs[:, classes].max() < 1e-6
    # Its gradient vanishes, in the space where the features are scaled.
    scale = np.where(rows.std(0) < 1e-6, 1, rows.std(0))
    if is_trained:
        scale[:] = np.sqrt(rows.var(0).mean())
        kernel = kernel - before[:8]
    scaled, weights = (rows - rows.mean(0)) / scale, (kernel * scale[:, None])[:, :classes]
    errors = (probs - np.eye(classes + 1)[labels])[:, :classes]
    gradient = scaled.T @ (errors * counts[:, None]) / counts.sum() + choice.value * weights
    assert np.abs(gradient).max() < (2e-4 if is_trained else 2e-3)
    assert choice.scores[f"{choice.value:g}"] == min(choice.scores.values())
    assert (probs.argmax(1) == labels).mean() > 0.9


def test_a_channel_that_hardly_any_photo_reaches_does_not_decide_after_training():
    features, head = blobs(1, 60, 3), untrained()
    features.views[..., 6] = 0
    features.views[0, 0, 6] = 1e-3  # one photo, a little
    settled = unchosen(head, "as in head")
    fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    seen = features.views[0, 1:] + 3 * np.eye(8)[6]  # which others have in plenty
    kernel, bias = head.get_weights()
    assert (np.argmax(seen @ kernel + bias, axis=1) == features.labels[1:]).mean() > 0.9
    features.views[:] = 0
    head = untrained()
    fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    kernel, bias = head.get_weights()
    assert np.isfinite(kernel).all()
    np.testing.assert_allclose(bias, bias[0], atol=1e-3)


def test_what_cannot_be_told_apart_is_regularised_more():
    features = blobs(1, 60, 3)
    folds = photo_folds(features.labels, features.groups, 3, 0)
    data = Rows(
        features=features.views[0], labels=features.labels, folds=folds, weights=np.ones(60)
    )
    clear = fit_softmax(data, 3)[2]
    guesses = np.random.default_rng(0).permutation(features.labels)
    noise = fit_softmax(replace(data, labels=guesses), 3)[2]
    assert noise.value > 3 * clear.value
    assert noise.scores[f"{noise.value:g}"] == pytest.approx(np.log(3), abs=0.15)


def classifier(*layers: keras.Layer) -> keras.Model:
    """Photos of 1 pixel and 8 channels, so that features are what we say."""
    x = photos = keras.Input((1, 1, 8))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    for layer in layers:
        x = layer(x)
    return keras.Model(photos, keras.layers.Dense(3, activation="softmax", name="probs")(x))


def dense(*units: int) -> keras.Model:
    return classifier(*(keras.layers.Dense(count, activation="relu") for count in units))


def untrained() -> keras.Model:
    """A softmax alone that says nothing."""
    head = head_of(dense())
    head.set_weights([np.zeros((8, 3)), np.zeros(3)])
    return head


@pytest.mark.parametrize(("units", "name"), [((), "l2"), ((16,), "weight decay")])
def test_without_photos_for_two_folds_it_says_so(units, name):
    choice = fit_head(head_of(dense(*units)), blobs(4, 3, 3), learning_rate=0.01, seed=0)
    assert str(choice) == f"{name} 0.1, with too few photos to choose it"


def test_what_is_settled_is_not_chosen_again(monkeypatch):
    features, head = blobs(2, 60, 3), head_of(dense())
    settled = replace(unchosen(head, "as in head"), value=1.0)
    trained = head.get_weights()
    choice = fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    assert choice is settled
    assert str(choice) == "l2 1, as in head"
    rows = Rows(
        features=features.views.reshape(-1, 8), labels=np.tile(features.labels, 2),
        folds=np.full(120, -1), weights=np.ones(120),
    )  # fmt: skip
    kernel, *_ = fit_softmax(rows, 3, towards=trained, settled=settled)
    np.testing.assert_array_equal(head.get_weights()[0], kernel)
    head, lengths, fit = head_of(dense(16)), [], head_fit._LayersFits.fit

    def counted(fits, trained, held, epochs):
        lengths.append((len(trained), held, epochs))
        return fit(fits, trained, held, epochs)

    monkeypatch.setattr(head_fit._LayersFits, "fit", counted)
    settled = replace(unchosen(head, "as in head"), value=1.0, epochs=3)
    fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    assert lengths == [(120, None, 3)], "all rows, none held out, for as long as it was found"


def test_a_head_that_was_trained_is_kept_where_the_photos_say_nothing_else():
    features, head = blobs(1, 60, 3), head_of(dense())
    weights = [head.get_weights()[0], np.array([0.1, 0.2, 0.3], np.float32)]
    head.set_weights(weights)
    settled = replace(unchosen(head, "as in head"), value=1e6)
    fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    np.testing.assert_allclose(head.get_weights()[0], weights[0], atol=1e-5)
    # So strong an l2 leaves the bias, by which each class is predicted as often as it is there.
    probs = np.asarray(head(features.views[0]))
    np.testing.assert_allclose(probs.mean(0), 1 / 3, atol=2e-3)


def test_validation_photos_may_weaken_what_is_settled_and_nothing_else():
    features, head = blobs(1, 60, 3), untrained()
    features.val, features.val_labels = features.views[0], features.labels  # the weakest is best
    settled = replace(unchosen(head, "as in head"), value=0.3)
    choice = fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    assert (choice.value, choice.folds, next(iter(choice.scores))) == (0.001, 0, "0.3")
    assert str(choice).endswith("on the validation photos, 0.3 as in head at most")
    # What is weaker is fitted to photos that train alone.
    alone = replace(features, val=None, val_labels=None), untrained()
    weakest = replace(settled, value=0.001)
    fit_head(alone[1], alone[0], learning_rate=0.01, seed=0, settled=weakest)
    np.testing.assert_allclose(head.get_weights()[0], alone[1].get_weights()[0], atol=1e-6)
    # The less it has learnt the better, where all it learnt is wrong; but no l2 is stronger.
    features.val_labels = np.roll(features.labels, 1)
    choice = fit_head(head, features, learning_rate=0.01, seed=0, settled=settled)
    assert (choice.value, len(choice.scores)) == (0.3, 2)
    # Of a class that no photo trains nothing can be said.
    features.val_labels = np.full(60, 7)
    assert fit_head(head, features, learning_rate=0.01, seed=0, settled=settled) is settled


@pytest.mark.parametrize("layers", [(), (16,)])
def test_a_rare_class_that_weighs_as_much_is_predicted_as_often(layers, monkeypatch):
    monkeypatch.setattr(head_fit, "_EPOCHS", 4)
    monkeypatch.setattr(head_fit, "WEIGHT_DECAY", (1.0,))
    keras.utils.set_random_seed(0)
    labels = np.repeat([0, 1, 2], [80, 80, 10])
    noise = np.random.default_rng(0).normal(size=(1, 170, 8)).astype(np.float32)
    features = Features(
        views=noise, labels=labels, groups=np.arange(170), val=None, val_labels=None, found=0,
        seconds=0.0,
    )  # fmt: skip
    shares = {}
    for weights in (None, class_weights(labels, 3)):
        model = dense(*layers)
        fit_head(head_of(model), features, learning_rate=0.01, seed=0, class_weights=weights)
        shares[weights is None] = np.asarray(model(noise[0][:, None, None])).mean(0)
    assert shares[True][2] < 0.12
    np.testing.assert_allclose(shares[False], 1 / 3, atol=0.09)


def test_a_head_of_layers_learns_and_its_batch_norm_knows_the_features(tmp_path, monkeypatch):
    monkeypatch.setattr(head_fit, "_EPOCHS", 8)
    monkeypatch.setattr(head_fit, "WEIGHT_DECAY", (1.0, 0.1))
    keras.utils.set_random_seed(0)
    norms = [keras.layers.BatchNormalization() for _ in range(2)]
    model = classifier(
        norms[0], keras.layers.Dropout(0.25), keras.layers.Dense(16, activation="relu"), norms[1]
    )
    features = blobs(2, 90, 3)
    choice = fit_head(head_of(model), features, learning_rate=0.02, seed=0)
    rows, labels = features.views.reshape(-1, 8), np.tile(features.labels, 2)
    np.testing.assert_allclose(norms[0].moving_mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norms[0].moving_variance, rows.var(0), rtol=1e-3, atol=1e-4)
    assert [norm.momentum for norm in norms] == [0.99, 0.99], "of the network's own layers"
    assert choice.name == "weight decay"
    assert 1 <= choice.epochs <= 8
    assert choice.scores[f"{choice.value:g}"] == min(choice.scores.values()) < 0.5
    model.save(tmp_path / "model.keras")
    probs = np.asarray(load_classifier(tmp_path / "model.keras")(rows[:, None, None]))
    assert (probs.argmax(1) == labels).mean() > 0.9
