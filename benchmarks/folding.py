"""Folding BatchNorm that is held still into convolutions, against Keras' own way.

efficientnetlite0 at 150 px, batches of 16: photos predicted a second, and photos trained a second
by a step of finetune=fast (everything but BatchNorm, AdamW). Both ways in turns; medians. Prints
the two ratios last.

    python benchmarks/folding.py [--backbone NAME] [--size PX] [--rounds N]
"""

import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from carcls.backend import keras
from carcls.models.backbones import build_backbone
from carcls.models.folding import fold_batch_norm
from carcls.models.freezing import freeze, keep_every_block

BATCH, CLASSES, SECONDS = 16, 10, 2.0


def network(name: str, weights: str, fold: bool) -> keras.Model:
    """A classifier as `finetune=fast` trains it, the same each time."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone(name, weights=weights)
    freeze(backbone, 1.0, batch_norm="frozen")
    keep_every_block(backbone)
    if fold:
        fold_batch_norm(backbone, only_frozen=True)
    photos = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(backbone(photos))
    model = keras.Model(photos, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.compile(keras.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy")
    return model


def rate(do: Callable[[], object]) -> float:
    """Photos a second, over SECONDS at least."""
    started, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < SECONDS:
        do()
        count += BATCH
    return count / seconds


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnetlite0")
    parser.add_argument("--weights", default="imagenet", help="none where they cannot be had")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    photos = random.uniform(-1, 1, (BATCH, arguments.size, arguments.size, 3)).astype(np.float32)
    labels = random.integers(0, CLASSES, BATCH)
    models = [network(arguments.backbone, arguments.weights, fold) for fold in (False, True)]
    works = {
        "predicted": [lambda m=model: m.predict_on_batch(photos) for model in models],
        "trained": [lambda m=model: m.train_on_batch(photos, labels) for model in models],
    }
    first = [works["predicted"][way]() for way in (0, 1)]
    print(f"largest difference of a probability: {np.abs(first[0] - first[1]).max():.1g}")
    ratios = {}
    for name, ways in works.items():
        for do in ways:  # builds the graph
            do()
        rates = np.median([[rate(do) for do in ways] for _ in range(arguments.rounds)], axis=0)
        ratios[name] = rates[1] / rates[0]
        print(f"{name}: Keras {rates[0]:.1f} photos/s, folded {rates[1]:.1f}")
    for name, ratio in ratios.items():
        print(f"{name}, folded / Keras: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
