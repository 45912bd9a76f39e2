"""A head fitted to cached features until it is as good as it gets, with what regularises it chosen.

The choice is by cross-validation over photos: all views of a photo, and all photos of a group, are
in one fold, or the fold would be told apart by what was trained on. For the same reason it is made
once, on features of a backbone that has not been trained: one that has tells its photos' labels,
those that are held out too.
"""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # of scikit-learn's

from carcls.training.features import POOL, Features

# From too strong to too weak. Both are relative to the mean loss, so that they mean the same for
# any number of photos and views.
L2 = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # times half the sum of squared weights
WEIGHT_DECAY = (10.0, 3.0, 1.0)  # AdamW's, times its learning rate
_FOLDS = 3
_STEPS = 400  # of L-BFGS, at most: convergence takes 20 to 100
_ONE_THREAD_BYTES = 64_000_000
_EPOCHS, _PATIENCE = 60, 3  # of a head with layers of its own, whose epochs take a moment
_STEPS_PER_EPOCH = 20


@dataclass(kw_only=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        name: Of what was chosen.
        value: Of it.
        scores: Each value that was tried to its log-loss over held-out photos; empty where
            nothing was tried.
        folds: How many.
        epochs: Of the final fit; None where it converges by itself.
        origin: Where the value comes from if nothing was tried.
    """

    name: str
    value: float
    scores: dict[str, float]
    folds: int
    epochs: int | None = None
    origin: str = ""

    def __str__(self) -> str:
        chosen = f"{self.name} {self.value:g}"
        if not self.scores:
            return f"{chosen}, {self.origin}"
        return (
            f"{chosen} of {len(self.scores)} tried, log-loss {min(self.scores.values()):.3f} "
            f"over {self.folds} folds"
        )

    def facts(self) -> dict:
        """For `run.json`."""
        return asdict(self)


def head_of(model: keras.Model) -> keras.Model:
    """The layers after `POOL`, themselves: `(batch, channels)` to `(batch, num_classes)`."""
    names = [layer.name for layer in model.layers]
    features = x = keras.Input(model.get_layer(POOL).output.shape[1:], name="features")
    for layer in model.layers[names.index(POOL) + 1 :]:  # a head is a chain
        x = layer(x)
    return keras.Model(features, x, name="head")


def fit_head(
    head: keras.Model,
    features: Features,
    *,
    learning_rate: float,
    seed: int,
    class_weights: np.ndarray | None = None,
    settled: Choice | None = None,
    eager: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Choice:
    """Fits the head to all views; one that is a softmax alone by L-BFGS, others by AdamW.

    Args:
        head: What `head_of` gave; receives the weights.
        features: To fit it to; those of validation photos are not looked at.
        learning_rate: Of AdamW.
        seed: Of the folds, and of what AdamW's fits draw.
        class_weights: `(num_classes,)` what a photo of each class counts in the loss, see
            `carcls.data.balance`; None: all the same.
        settled: What was chosen for this head before; None: cross-validation chooses.
        eager: Run without compiling.
        check: Called now and then; what it raises ends this.

    Returns:
        What was chosen on the way, or `settled`.
    """
    folds = photo_folds(features.labels, features.groups, _FOLDS, seed)
    if settled is None and not np.any(folds >= 0):
        settled = unchosen(head, "with too few photos to choose it")
    views = features.views  # (views, n, channels)
    rows = views.reshape(-1, views.shape[2])
    labels, folds = np.tile(features.labels, len(views)), np.tile(folds, len(views))
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    probs = head.get_layer("probs")
    if _is_softmax_alone(head):
        kernel, bias, choice = fit_softmax(
            rows, labels, folds, probs.units, weights, settled, check
        )
        probs.set_weights([kernel, bias])
        return choice
    return _fit_layers(
        head, rows, labels, weights, folds, learning_rate, seed, settled, eager, check
    )


def unchosen(head: keras.Model, origin: str) -> Choice:
    """What a head is fitted with where nothing can be chosen.

    Args:
        head: What `head_of` gave.
        origin: Why, in words that go on after the value.
    """
    if _is_softmax_alone(head):
        return Choice(name="l2", value=0.1, scores={}, folds=0, origin=origin)
    return Choice(name="weight decay", value=0.1, scores={}, folds=0, epochs=10, origin=origin)


def _is_softmax_alone(head: keras.Model) -> bool:
    return [layer for layer in head.layers if layer.weights] == [head.get_layer("probs")]


def photo_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Which fold holds which photo out: groups whole, classes spread evenly.

    Args:
        labels: `(n,)` integer class indices.
        groups: `(n,)` numbers, the same for photos that stay together.
        num_folds: At least 2.
        seed: Of the draw.

    Returns:
        `(n,)` fold from 0, or -1 for photos that are never held out: those of a class that would
        then have none to train on.
    """
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    fold_of = np.empty(len(first), np.int64)
    fold_of[order] = np.arange(len(first)) % num_folds  # a class after the other
    folds = fold_of[group_of]
    for label in np.unique(labels):
        of_class = labels == label
        if len(np.unique(folds[of_class])) == 1:
            folds[np.isin(groups, groups[of_class])] = -1
    return folds


def fit_softmax(
    rows: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    num_classes: int,
    weights: np.ndarray,
    settled: Choice | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray, Choice]:
    """Multinomial logistic regression, its L2 chosen by log-loss over the folds.

    Features are standardised for the fit; the weights returned are for features as they are.

    Args:
        rows: `(r, channels)` float32.
        labels: `(r,)` integers below `num_classes`; each occurs, but for classes without photos.
        folds: `(r,)` see `photo_folds`; not all -1, unless it is settled.
        num_classes: Of the network.
        weights: `(r,)` what a row counts, in the fit and in the choice.
        settled, check: See `fit_head`.

    Returns:
        Kernel `(channels, num_classes)`, bias `(num_classes,)` and the choice.
    """
    mean, std = rows.mean(0), rows.std(0)
    std[std < 1e-6 * std.max(initial=1e-30)] = 1.0  # of what is the same for all photos
    rows = (rows - mean) / std
    choice = settled or _choose_l2(rows, labels, folds, weights, check)
    model = _regression()
    _fit(model, rows, labels, weights, choice.value)
    coefficients, intercept = model.coef_, model.intercept_  # (classes, channels), (classes,)
    if len(model.classes_) == 2:  # of which one is kept, the log of the second's odds
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    kernel = np.zeros((rows.shape[1], num_classes), np.float32)
    bias = np.full(num_classes, -30.0, np.float32)  # of a class without photos
    kernel[:, model.classes_] = coefficients.T / std[:, None]
    bias[model.classes_] = intercept - mean @ kernel[:, model.classes_]
    return kernel, bias, choice


def _choose_l2(
    rows: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    weights: np.ndarray,
    check: Callable[[], None],
) -> Choice:
    """By log-loss over the folds, of standardised rows; see `fit_softmax`."""
    held_out = _held_out(folds)
    models = [_regression() for _ in held_out]
    scores: dict[float, float] = {}
    for l2 in L2:
        losses = []
        for model, held in zip(models, held_out, strict=True):
            check()
            trained = np.delete(np.arange(len(rows)), held)
            # goes on from the last l2's weights
            _fit(model, rows[trained], labels[trained], weights[trained], l2)
            probs = model.predict_proba(rows[held])
            of_label = probs[np.arange(len(held)), np.searchsorted(model.classes_, labels[held])]
            losses.append(-np.log(np.maximum(of_label, 1e-12)))
        of_held = weights[np.concatenate(held_out)]
        scores[l2] = float(np.average(np.concatenate(losses), weights=of_held))
        if scores[l2] > min(scores.values()):  # it has one minimum, and weaker is slower
            break
    return Choice(
        name="l2",
        value=min(scores, key=scores.get),
        scores={f"{k:g}": v for k, v in scores.items()},
        folds=len(held_out),
    )


def _held_out(folds: np.ndarray) -> list[np.ndarray]:
    """Rows of each fold."""
    return [np.flatnonzero(folds == fold) for fold in np.unique(folds[folds >= 0])]


def _regression() -> LogisticRegression:
    return LogisticRegression(solver="lbfgs", warm_start=True, tol=1e-3, max_iter=_STEPS)


def _fit(
    model: LogisticRegression, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, l2: float
) -> None:
    model.C = 1 / (l2 * weights.sum())  # it sums the losses
    # Its products are so short that threads cost more than they give where cores are shared.
    threads = 1 if rows.nbytes < _ONE_THREAD_BYTES else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough, after so many steps
        model.fit(rows, labels, weights)


def _fit_layers(
    head: keras.Model,
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    folds: np.ndarray,
    learning_rate: float,
    seed: int,
    settled: Choice | None,
    eager: bool,
    check: Callable[[], None],
) -> Choice:
    """AdamW, from the weights that the head has; weight decay and epochs are chosen."""
    # What is drawn, dropout's seeds too, must be the same in a process that went on with the run.
    keras.utils.set_random_seed(seed)
    network, head = head, _apart(head)
    start = head.get_weights()
    norms = [la for la in head.layers if isinstance(la, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.9  # a fit of few steps: its statistics would come after the weights
    held_out = _held_out(folds)
    batch = int(np.clip(len(rows) // _STEPS_PER_EPOCH, 16, 1024))
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: check())
    scores: dict[float, float] = {}
    epochs: dict[float, int] = {}
    for decay in () if settled else WEIGHT_DECAY:
        trial = _Trial(head, learning_rate, decay, batch, eager, [watch])
        curves = np.full((len(held_out), _EPOCHS), np.nan)  # loss of each fold, by epoch
        for curve, held in zip(curves, held_out, strict=True):
            head.set_weights(start)
            trained = np.delete(np.arange(len(rows)), held)
            losses = trial.fit(rows, labels, weights, trained, held)
            curve[: len(losses)] = losses
        shortest = int(np.min(np.sum(np.isfinite(curves), axis=1)))
        mean = curves[:, :shortest].mean(0)
        scores[decay], epochs[decay] = float(mean.min()), int(mean.argmin()) + 1
    choice = settled
    if choice is None:
        decay = min(scores, key=scores.get)
        choice = Choice(
            name="weight decay",
            value=decay,
            scores={f"{k:g}": v for k, v in scores.items()},
            folds=len(held_out),
            epochs=epochs[decay],
        )
    head.set_weights(start)
    trial = _Trial(head, learning_rate, choice.value, batch, eager, [watch])
    trial.fit(rows, labels, weights, np.arange(len(rows)), None, choice.epochs)
    _settle(head, norms, rows)
    network.set_weights(head.get_weights())
    return choice


def _apart(head: keras.Model) -> keras.Model:
    """The same head with variables of its own: a network's may lie on several devices at once."""
    copy = keras.models.clone_model(head)
    copy.set_weights(head.get_weights())
    return copy


class _Trial:
    """Fits of a head from the same start, all with one weight decay, compiled once."""

    def __init__(
        self, head: keras.Model, learning_rate: float, decay: float, batch: int, eager: bool,
        callbacks: list[keras.callbacks.Callback],
    ) -> None:  # fmt: skip
        self.head, self.batch, self.callbacks = head, batch, callbacks
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=decay)
        optimizer.build(head.trainable_variables)
        loss = keras.losses.SparseCategoricalCrossentropy()
        head.compile(optimizer, loss, run_eagerly=eager, jit_compile=False)
        self.optimizer = head.optimizer  # with mixed precision another one around ours
        self.start = [np.array(keras.ops.convert_to_numpy(v)) for v in self.optimizer.variables]

    def fit(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        trained: np.ndarray,
        held: np.ndarray | None,
        epochs: int | None = None,
    ) -> list[float]:
        """Trains on some rows until the loss of those held out has stopped improving.

        Returns:
            That loss after each epoch.
        """
        for variable, value in zip(self.optimizer.variables, self.start, strict=True):
            variable.assign(value)
        callbacks, validation = list(self.callbacks), None
        if held is not None:
            validation = (rows[held], labels[held], weights[held])
            callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=_PATIENCE))
        history = self.head.fit(
            rows[trained], labels[trained], sample_weight=weights[trained], batch_size=self.batch,
            epochs=epochs or _EPOCHS, verbose=0,
            validation_data=validation, validation_batch_size=1024, callbacks=callbacks,
        )  # fmt: skip
        return history.history.get("val_loss", [])


def _settle(head: keras.Model, norms: list[keras.Layer], rows: np.ndarray) -> None:
    """Makes BatchNorm's statistics the mean over batches of all rows, with the final weights.

    A moving average still remembers the weights of steps before (Wu and Johnson, 2021, Rethinking
    "Batch" in BatchNorm, section 3).
    """
    if not norms:
        return
    order = np.random.default_rng(0).permutation(len(rows))
    batches = np.array_split(order, max(1, len(rows) // 256))[:100]
    for number, batch in enumerate(batches):
        for norm in norms:
            norm.momentum = number / (number + 1)
        head(rows[batch], training=True)
