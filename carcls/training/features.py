"""What the frozen backbone makes of the photos, computed once and shared by runs.

View 0 of a photo is the photo as validation would show it: a head that has seen augmented photos
only, whose cars are larger and cut off, was 5 points worse on whole ones. View `e` after it is the
photo as epoch `e` of an ordinary stage shows it: a pure function of (seed, e, photo). What a view's
features depend on is hashed into the name of their file, `<cache>/features/<key>.npz`, an archive
with a checksum.
"""

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import albumentations
import cv2
import keras
import numpy as np
import PIL

from carcls.config import StageConfig, TrainConfig
from carcls.console import progress_bar
from carcls.data.archives import default_cache_dir
from carcls.data.loader import Loader
from carcls.data.records import file_facts
from carcls.errors import UserError
from carcls.models.classifier import enlarged_side, up_to
from carcls.models.folding import fold_batch_norm
from carcls.models.probabilities import predict_probs
from carcls.run import replacing
from carcls.runtime import uses_xla
from carcls.training.inputs import Inputs

log = logging.getLogger(__name__)

POOL = "head_pool"  # the layer that every head begins with
_VERSION = 1  # of the files, and of what our own code makes of a photo
_BATCH = 64  # photos that go through the backbone together
_SHARE_OF_MEMORY = 0.2  # features may take so much; the fit works on scaled copies of them
_SHARE_OF_CACHE = 0.1  # of data.cache_limit, for files of features


@dataclass(kw_only=True)
class Features:
    """Pooled features of the photos that a stage trains on and validates with.

    Attributes:
        views: `(views, n, channels)` float32, of each training photo; the first as it is.
        labels: `(n,)` integer class indices.
        groups: `(n,)` numbers, the same for photos that were on one side of the split.
        val: `(m, channels)` float32 of the validation photos as they are; None without any.
        val_labels: `(m,)`, or None.
        found: Photos whose features were in the cache, counted once a view.
        seconds: What it took.
    """

    views: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    val: np.ndarray | None
    val_labels: np.ndarray | None
    found: int
    seconds: float


def number_of_views(
    config: TrainConfig, stage: StageConfig, num_photos: int, channels: int
) -> tuple[int, str | None]:
    """How many views a photo are worth having and fit into memory.

    Returns:
        The number, and what was changed for it, in words; None if it is what was asked for.

    Raises:
        UserError: If not even one fits.
    """
    if not config.augmentation.train:
        if stage.feature_views == 1:
            return 1, None
        return 1, "feature_views=1: with augmentation=none all views of a photo are the same"
    most = int(_SHARE_OF_MEMORY * _memory_bytes()) // max(1, 4 * num_photos * channels)
    if most >= stage.feature_views:
        return stage.feature_views, None
    if most < 1:
        raise UserError(
            f"Expected the features of {num_photos} photos, {channels} numbers each, to fit into a "
            f"fifth of the memory. Received: {_memory_bytes() / 1e9:.1f} GB of it. Train the head "
            "batch by batch: feature_views=0, and more epochs."
        )
    return most, f"feature_views={most}: more would take more than a fifth of the memory"


def get_features(
    model: keras.Model,
    inputs: Inputs,
    stage: StageConfig,
    num_views: int,
    title: str,
    check: Callable[[], None],
    is_shared: bool = True,
) -> Features:
    """Sends every view of every photo through the backbone, where no run has done so before.

    Args:
        model: A classifier, whose head begins with the layer `POOL`.
        inputs: The photos.
        stage: Its size counts.
        num_views: Of each training photo.
        title: For the progress bar.
        check: Called after each batch; what it raises ends this.
        is_shared: Whether other runs may want them: not those of a backbone that this one trained.

    Raises:
        UserError: If a photo cannot be opened and `data.on_error` is `raise`, or a feature is not
            a finite number.
    """
    config, started = inputs.config, time.perf_counter()
    fold_batch_norm(model, only_frozen=False)
    network = up_to(model, POOL)
    network.jit_compile, network.run_eagerly = uses_xla(config.runtime), config.runtime.eager
    of_network = _hash_of_network(network, config) if is_shared else None
    plain = _in_order(inputs.train_as_validated(stage))
    train, val = _in_order(inputs.train(stage)), inputs.val(stage)
    plain.indices = train.indices  # which lacks what could not be opened in either size
    passes = [(train if view else plain, view) for view in range(num_views)]
    if val is not None:
        passes.append((_in_order(val), 0))
    parts, found = [], 0
    with progress_bar() as bar:
        total = sum(len(loader.indices) for loader, _ in passes)
        task = bar.add_task(f"{title}: features", total=total, note="")

        def progress(count: int) -> None:
            bar.advance(task, count)
            done = bar.tasks[task].completed
            bar.update(task, note=f"{done / (time.perf_counter() - started):.0f} photos/s")
            check()

        try:
            for loader, view in passes:
                path = _file(config, of_network, loader, view)
                part = None if path is None else _read(path, len(loader.indices))
                if part is None:
                    part = predict_probs(network, loader, progress, epoch=view).astype(np.float32)
                    if path is not None and not inputs.lost:
                        _keep(path, part, config.data.cache_limit * 1e9 * _SHARE_OF_CACHE)
                else:
                    found += len(part)
                    progress(len(part))
                parts.append(part)
        finally:
            for loader in (plain, train, val):
                if loader is not None:
                    loader.close()
    labels = inputs.records.table.label.to_numpy()
    kept = ~np.isin(train.indices, list(inputs.lost))  # others stood in for those
    indices = train.indices[kept]
    features = Features(
        views=np.stack(parts[:num_views])[:, kept],
        labels=labels[indices],
        groups=(inputs.photos.files()[1] if inputs.groups is None else inputs.groups)[indices],
        val=None,
        val_labels=None,
        found=found,
        seconds=time.perf_counter() - started,
    )
    if val is not None:
        kept = ~np.isin(val.indices, list(inputs.lost))
        features.val, features.val_labels = parts[-1][kept], labels[val.indices[kept]]
    for values in (features.views, features.val):
        if values is not None and not np.isfinite(values).all():
            raise UserError(
                f"Expected features of {config.backbone.name} that are finite numbers. Received "
                "NaN or infinity. Try runtime.precision=float32, or other weights."
            )
    return features


def _in_order(loader: Loader) -> Loader:
    """The loader, that gives each photo once as listed, not mixed, in batches for a forward."""
    loader.shuffle, loader.is_balanced, loader.class_weights = False, False, None
    loader.mix, loader.num_classes = None, None
    loader.batch_size = min(_BATCH, len(loader.indices))
    return loader


def _hash_of_network(network: keras.Model, config: TrainConfig) -> str:
    """Of all that makes features of pixels: the weights themselves, wherever they came from."""
    facts = (
        _VERSION, keras.__version__, keras.backend.backend(), config.runtime.precision,
        config.backbone.name, config.backbone.preprocessing,
        type(network.get_layer(POOL)).__name__, enlarged_side(network),
    )  # fmt: skip
    digest = hashlib.sha256(repr(facts).encode())
    for weight in network.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _file(config: TrainConfig, of_network: str | None, loader: Loader, view: int) -> Path | None:
    """Where the features of a view lie, by all that they depend on; None keeps none.

    Args:
        config: Of the run.
        of_network: What `_hash_of_network` gave; None: no other run may want its features.
        loader: Of the photos.
        view: Of each of them.
    """
    if of_network is None or config.data.cache_limit == 0:
        return None
    photos, is_augmented = loader.photos, loader.augment is not None
    facts = (
        of_network, PIL.__version__, cv2.__version__, photos.size, photos.resize_mode, loader.size,
        (albumentations.__version__, json.dumps(config.augmentation.train), config.seed, view)
        if is_augmented
        else None,
    )  # fmt: skip
    digest = hashlib.sha256(repr(facts).encode())
    paths = [photos.paths[index] for index in loader.indices]
    for index, path, size, mtime_ns in zip(loader.indices, paths, *file_facts(paths), strict=True):
        drawn = index if is_augmented else None  # the draws depend on a photo's number
        digest.update(
            f"{drawn}\0{Path(path).absolute()}\0{size}\0{mtime_ns}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    cache = config.data.cache_dir
    folder = default_cache_dir() if cache is None else Path(cache).expanduser()
    return folder / "features" / f"{digest.hexdigest()[:24]}.npz"


def _read(path: Path, count: int) -> np.ndarray | None:
    """`(count, channels)` float32; None if there is no such file, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as archive:  # which checks its checksum
            features = archive["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.warning(f"WARNING: {path} is damaged: its features are computed again.")
        return None
    with suppress(OSError):
        os.utime(path)  # the one that was used longest ago goes first
    return features if len(features) == count else None


def _keep(path: Path, features: np.ndarray, limit_bytes: float) -> None:
    """Writes the file, if it has room beside those that were used since."""
    if features.nbytes > limit_bytes:
        return
    try:
        with replacing(path) as temporary:
            np.savez(temporary, features=features)
        others = sorted(path.parent.glob("*.npz"), key=lambda file: -file.stat().st_mtime)
        sizes = np.cumsum([file.stat().st_size for file in others])
        for file in np.array(others)[sizes > limit_bytes]:
            file.unlink(missing_ok=True)
    except (UserError, OSError) as error:  # a run can do without
        log.info(f"Features are not kept for other runs: {error}")


def _memory_bytes() -> int:
    """Of this machine, or what its container may have."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no control groups, or no limit ("max")
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
