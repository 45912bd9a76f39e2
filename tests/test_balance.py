"""Skewed classes: weights and draws, up to the loss that Keras makes of them."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.config import to_config
from carcls.data.balance import balanced_draw, batch_weights, class_weights, describe, repeats
from carcls.data.preparing import photo_seed
from carcls.errors import UserError
from carcls.training.inputs import prepare_inputs
from carcls.training.loop import train
from tests.conftest import draw_competition
from tests.test_config import composed

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes of 10, 10 and 2 photos."""
    root = draw_competition(tmp_path_factory.mktemp("data"), per_class=10)
    rows = pd.read_csv(root / "train.csv", dtype=str)
    gone = rows[rows.Category == "12"].Id[2:]
    rows[~rows.Id.isin(gone)].to_csv(root / "train.csv", index=False)
    for photo in gone:
        (root / "train" / "12" / photo).unlink()
    return root


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'", "backbone=efficientnetlite0", "image_size=32", "batch_size=4",
            "finetune=frozen", "finetune.stages.head.epochs=1", "runtime.eager=true",
            "runtime.preflight=false", *overrides,
        )
    )  # fmt: skip


@given(LABELS)
def test_weights_average_to_1_over_the_photos_and_classes_weigh_the_same(labels):
    weights = class_weights(labels, num_classes=7)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    sums = np.bincount(labels, weights[labels], minlength=7)[np.unique(labels)]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    assert not weights[np.setdiff1d(np.arange(7), labels)].any()


@given(LABELS, st.lists(st.floats(0, 1), min_size=60, max_size=60))
def test_the_weight_of_a_mixed_photo_is_the_mean_of_its_classes_by_share(labels, shares):
    weights, own = class_weights(labels, 7), np.array(shares[: len(labels)])[:, None]
    others = np.roll(labels, 1)
    mixed = np.eye(7)[labels] * own + np.eye(7)[others] * (1 - own)
    expected = weights[labels] * own[:, 0] + weights[others] * (1 - own[:, 0])
    np.testing.assert_allclose(batch_weights(mixed, weights), expected, rtol=1e-5)
    np.testing.assert_array_equal(batch_weights(labels, weights), weights[labels])


@given(LABELS, st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_a_balanced_epoch_is_as_long_and_its_classes_differ_by_one_photo_at_most(
    labels, seed, epoch
):
    indices = 3 * np.arange(len(labels)) + 5
    drawn = balanced_draw(indices, labels, (seed, epoch))
    assert len(drawn) == len(labels)
    times = dict(zip(*np.unique(drawn, return_counts=True), strict=True))
    totals = []
    for label in np.unique(labels):
        of_class = [times.get(index, 0) for index in indices[labels == label]]
        assert max(of_class) - min(of_class) <= 1, "no photo comes twice more often than another"
        totals.append(sum(of_class))
    assert max(totals) - min(totals) <= 1
    np.testing.assert_array_equal(drawn, balanced_draw(indices, labels, (seed, epoch)))


@given(st.lists(st.integers(0, 5), max_size=20))
def test_repeats_count_what_came_before(order):
    expected = [order[:place].count(photo) for place, photo in enumerate(order)]
    assert repeats(np.array(order, int)).tolist() == expected


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_photo_that_comes_again_in_an_epoch_is_augmented_anew(seed, epoch, index):
    seeds = {photo_seed(seed, epoch, index, repeat) for repeat in range(4)}
    assert len(seeds) == 4
    assert photo_seed(seed, epoch, index, 0) == photo_seed(seed, epoch, index)


def test_a_balanced_epoch_is_the_same_for_any_number_of_processes(root):
    found = []
    for workers in (0, 2):
        config = small(root, "data.balance=sampling", f"runtime.workers={workers}")
        loader = prepare_inputs(config).train(config.finetune.stages["head"])
        found.append([batch for epoch in (0, 1) for batch in loader.epoch(epoch)])
        loader.close()
    for (images, labels), (others, other_labels) in zip(*found, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)
    labels = np.concatenate([labels for _, labels in found[0][: len(found[0]) // 2]])
    assert len(labels) == 17 and sorted(np.bincount(labels)) == [5, 6, 6]
    order = loader.order(0)
    rare = np.flatnonzero(order == loader.indices[loader.labels[loader.indices] == 1][0])
    images = np.concatenate([images for images, _ in found[0][: len(found[0]) // 2]])[rare]
    assert len(np.unique(images, axis=0)) > 1, "the only photo of its class, augmented anew"


def test_the_loss_is_weighed_and_the_accuracy_is_not(root):
    """One training batch, then validation: against the loss by hand."""
    config = small(root, "data.balance=weights", "augmentation=none", "augmentation.mixup=1")
    inputs = prepare_inputs(config)
    stage = config.finetune.stages["head"]
    images, shares, weights = next(inputs.train(stage).epoch())
    assert (images.shape, shares.shape, weights.shape) == ((4, 32, 32, 3), (4, 3), (4,))
    counts = inputs.class_counts()
    np.testing.assert_allclose(weights, shares @ (17 / (3 * np.array(counts))), rtol=1e-5)
    assert len(next(inputs.val(stage).epoch())) == 2, "validation is not weighed"

    x = keras.Input((32, 32, 3))
    rate = keras.layers.Rescaling(1 / 255)(x)
    probs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(rate))
    model = keras.Model(x, probs)
    model.compile(
        "sgd", keras.losses.CategoricalCrossentropy(), run_eagerly=True, jit_compile=False,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )  # fmt: skip
    before = np.asarray(model(images))
    logs = model.train_on_batch(images, shares, weights, return_dict=True)
    each = -(shares * np.log(before)).sum(1)
    assert logs["loss"] == pytest.approx(float((each * weights).mean()), rel=1e-4)
    right = (before.argmax(1) == shares.argmax(1)).mean()
    assert logs["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("balance", "said"),
    [
        ("none", "The classes are skewed, 8.0 to 1: 007 8, red, wide 8, 12 1. Rare ones may be "
                 "predicted too seldom: try data.balance=weights or data.balance=sampling."),
        ("weights", "in the loss a photo of 12 (1) counts 5.7 times, one of red, wide (8) 0.71"),
        ("sampling", "draws 5 photos of every class: each of 12 (1) comes 5.7 times"),
    ],
)  # fmt: skip
def test_a_run_says_that_classes_are_skewed_or_what_it_does_about_it(
    root, tmp_path, caplog, tiny_backbone, balance, said
):
    config = small(root, f"data.balance={balance}")
    if balance != "weights":  # the sentence alone
        counts = prepare_inputs(config).class_counts()
        assert said in describe(["007", "12", "red, wide"], counts, balance)
        return
    with caplog.at_level("INFO"):
        train(config, tmp_path / "run")
    assert said in caplog.text
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["status"], facts["config"]["data"]["balance"]) == ("finished", balance)


def test_classes_that_are_not_skewed_need_no_word():
    assert describe(["a", "b"], [30, 10], "none") is None
    assert describe(["a", "b", "empty"], [30, 10, 0], "none") is None


def test_a_balance_that_there_is_not_is_told():
    with pytest.raises(UserError, match=r"Expected balance to be one of none, weights, sampling"):
        to_config(composed("data.balance=wieghts"))
