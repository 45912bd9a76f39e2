"""A network with what it takes to feed it and to read its answer.

Keras is imported with the first photos: it takes seconds, and a mistake should be told before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carcls.catalogue import find_spec
from carcls.data.loader import Loader
from carcls.data.photos import Photos
from carcls.errors import UserError
from carcls.models.probabilities import at_temperature, predict_probs
from carcls.prediction.imagenet import class_names as imagenet_class_names
from carcls.prediction.tta import has_mirrored, num_views, view_sizes
from carcls.run import METRICS, MODEL, ModelInfo, find_model, read_json, read_model_info

if TYPE_CHECKING:
    import keras

PhotosToPredict = Sequence[str | Path] | Sequence[np.ndarray] | np.ndarray


@dataclass(kw_only=True)
class Predicted:
    """What is said of `n` photos, in their order.

    Attributes:
        probs: `(n, num_classes)` float32 probabilities; of no meaning for the photos in `errors`.
        errors: Index of a photo to why it could not be opened.
        notes: Index of a photo to what was odd about it, though it could be opened.
    """

    probs: np.ndarray
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Predictor:
    """One network, loaded with the first photos and kept until `release`.

    `Predictor.from_run(path)(photos).probs` are the probabilities, in the order of `class_names`.

    Args:
        name: What it is called: the checkpoint as it was asked for.
        info: Its classes, image size and way to resize.
        load: Gives the Keras model.
        model_path: The `.keras` file; None for a pretrained network.
        temperature: What its logits are divided by, see `fit_temperature`.
    """

    name: str
    info: ModelInfo
    load: Callable[[], keras.Model]
    model_path: Path | None = None
    temperature: float = 1.0
    _model: keras.Model | None = field(default=None, init=False, repr=False)

    @classmethod
    def from_run(cls, ckpt: str | Path, *, is_calibrated: bool = False) -> Predictor:
        """What a run has learnt.

        Args:
            ckpt: A run's directory, or a `.keras` file.
            is_calibrated: At the temperature that its validation photos gave.

        Raises:
            UserError: If there is none, it is no checkpoint of `train.py`, or its temperature is
                not known.
        """
        path = find_model(ckpt)
        temperature = _temperature_of(ckpt, path) if is_calibrated else 1.0

        def load() -> keras.Model:
            import carcls.backend  # noqa: F401
            from carcls.models.classifier import load_classifier
            from carcls.models.folding import fold_batch_norm

            model = load_classifier(path)
            fold_batch_norm(model, only_frozen=False)
            return model

        return cls(
            name=str(ckpt),
            info=read_model_info(path),
            load=load,
            model_path=path,
            temperature=temperature,
        )

    @classmethod
    def pretrained(cls, name: str, weights: str = "imagenet") -> Predictor:
        """A network as ImageNet left it, with ImageNet's 1000 classes.

        Args:
            name: A name in `catalogue.BACKBONES`, or a class of keras.applications.
            weights: "imagenet", or the path of a file, see `imagenet_classifier`.
        """

        def load() -> keras.Model:
            import carcls.backend  # noqa: F401
            from carcls.models.folding import fold_batch_norm
            from carcls.models.imagenet import imagenet_classifier

            model = imagenet_classifier(name, weights=weights)
            fold_batch_norm(model, only_frozen=False)
            return model

        info = ModelInfo(
            class_names=imagenet_class_names(),
            class_counts=[],
            image_size=find_spec(name).default_size,
            resize="imagenet",
            config={"backbone": {"name": name, "weights": weights}},
        )
        return cls(name=name, info=info, load=load)

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities."""
        return self.info.class_names

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that photos are resized to."""
        return self.info.image_size

    @property
    def members(self) -> list[Predictor]:
        """The networks behind it: this one (see `Ensemble`)."""
        return [self]

    @property
    def shares(self) -> list[float]:
        """What each of `members` counts; sums to 1."""
        return [1.0]

    def num_views(self, tta: str) -> int:
        """How many times a photo goes through a network."""
        return num_views(tta)

    def __call__(
        self,
        photos: PhotosToPredict,
        *,
        tta: str = "none",
        batch_size: int = 32,
        workers: int | None = None,
        progress: Callable[[int], None] | None = None,
        resize_mode: str | None = None,
    ) -> Predicted:
        """Predicts `n` photos.

        Args:
            photos: Paths, or `(height, width, 3)` uint8 RGB arrays of any size (a list, or one
                array of `(n, height, width, 3)`).
            tta: Views to average over, see `carcls.prediction.tta`.
            batch_size: Photos that go through the network together.
            workers: Processes that open photos; 0: none, None: one a core for more than a few.
            progress: Called with the number of photos done, `num_views(tta)` times for each.
            resize_mode: How photos become squares, see `carcls.data.images.resize`; None: as those
                that it was trained on.

        Raises:
            UserError: If the network cannot be loaded, `tta` is unknown or an array is no photo.
        """
        sizes = view_sizes(tta, self.image_size)
        sources = [_source(photos, size, resize_mode or self.info.resize) for size in sizes]
        predicted = Predicted(probs=np.zeros((len(photos), len(self.class_names)), np.float32))
        if not len(photos):
            return predicted
        model = self.model()
        fixed = model.input_shape[1]
        if fixed is not None and sizes != [fixed]:
            raise UserError(
                f"Expected tta=none or flip with {self.name}, which takes photos of {fixed} px "
                f"only. Received: tta={tta}."
            )
        for source in sources:
            loader = Loader(
                source,
                np.arange(len(source)),
                None,
                batch_size=batch_size,
                workers=0 if isinstance(source, _Arrays) else workers,
            )
            with closing(loader):
                probs = predict_probs(
                    model, loader, progress, with_mirrored=has_mirrored(tta)
                )  # of one size: every batch has the same shape
            predicted.probs += probs / len(sources)
            predicted.errors |= source.errors
            predicted.notes |= source.notes
        predicted.probs = at_temperature(predicted.probs, self.temperature)
        return predicted

    def model(self) -> keras.Model:
        """The network itself; loaded if it is not there."""
        if self._model is None:
            self._model = self.load()
        return self._model

    def release(self) -> None:
        """Frees the network's memory; the next photos load it again."""
        self._model = None
        gc.collect()  # a Keras model refers to itself: without this it stays for a while


def _temperature_of(ckpt: str | Path, model: Path) -> float:
    temperature = None
    if model.name == MODEL:
        temperature = read_json(model.parent / METRICS).get("temperature")
    if temperature is None:
        raise UserError(
            "Expected calibrated=true with a run whose metrics.json has a temperature: one of "
            f"carcls 0.5 or later, with validation photos. Received: {ckpt}, without. Leave "
            "calibrated out."
        )
    return float(temperature)


def _source(photos: PhotosToPredict, size: int, resize_mode: str) -> Photos | _Arrays:
    """The photos as squares of `size` pixels."""
    if isinstance(photos, str | Path):
        raise UserError(f"Expected a list of photos. Received: one path, {photos}.")
    if len(photos) and all(isinstance(photo, str | Path) for photo in photos):
        return Photos([str(photo) for photo in photos], size, resize_mode)
    for index, photo in enumerate(photos):
        shape, dtype = getattr(photo, "shape", ()), getattr(photo, "dtype", type(photo).__name__)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(
                "Expected photos to be paths, or arrays of shape (height, width, 3) and dtype "
                f"uint8, RGB from 0 to 255. Received: shape {shape}, {dtype} at index {index}."
            )
    return _Arrays(photos, size, resize_mode)


@dataclass
class _Arrays:
    """What `Photos` is for files, for photos that are open already."""

    arrays: Sequence[np.ndarray] | np.ndarray
    size: int
    resize_mode: str
    pixels: None = None
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrays)

    def source(self, index: int) -> np.ndarray:
        """The photo itself."""
        return self.arrays[index]

    def name(self, index: int) -> str:
        """What a photo is called in messages."""
        return f"array {index}"

    def tell(self, index: int, error: str | None, note: str | None) -> None:
        """Nothing is wrong with an array."""
