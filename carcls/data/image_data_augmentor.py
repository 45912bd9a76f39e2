"""ImageDataAugmentor's interface on this project's loader, for notebooks written for that library.

    from carcls.data import ImageDataAugmentor

Nothing else in the project imports this module, since it brings Keras in. What it says is printed,
as in the original: a notebook shows no log.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from carcls.console import progress_bar
from carcls.data.augmentor_arguments import NORMALISE, Flow, checked_seed, refuse
from carcls.data.images import list_photos
from carcls.data.loader import Loader
from carcls.data.photo_batches import PhotoBatches
from carcls.data.photos import Photos
from carcls.data.records import examples
from carcls.data.transforms import Augment, seeded
from carcls.data.workers import workers_for
from carcls.errors import UserError

# Names that Keras takes for photos; of these alone it takes the shares of validation_split.
_KERAS_ENDINGS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")


class ImageDataAugmentor:
    """Batches of augmented photos for Keras, by ImageDataAugmentor's names.

    A photo is resized, augmented, given to `preprocess_input` and multiplied by `rescale`, in this
    order. What happens to a photo is a pure function of (seed, epoch, photo), for any number of
    workers.

    Args:
        augment: An albumentations `Compose`, or a single step of it, that keeps uint8 photos what
            they are; None leaves them alone.
        seed: Of the augmentation and the order, where a `flow_from_…` has none of its own. None:
            another one every time.
        validation_split: Share in [0, 1) that `subset="validation"` takes: the first photos of each
            class folder, or the first rows of the dataframe, as in Keras.
        rescale: Factor of every value; None or 0 leaves them in 0-255.
        preprocess_input: Takes one photo `(height, width, 3)`, float32 in 0-255, and gives one.
        augment_validation: Augment photos of `subset="validation"` too, as the original does.
        memory_limit_gb: Decoded photos are kept in memory up to this, in 10⁹ bytes, else read anew
            in each epoch.
        workers: Processes that open photos; one a core by default, or 0 for few.
        **others: Other arguments of the original, at the one value they can have here.

    Raises:
        UserError: If an argument has a value that makes no sense here, by name.
    """

    def __init__(
        self,
        *,
        augment: Any = None,
        seed: int | None = None,
        validation_split: float | None = 0.0,
        rescale: float | None = None,
        preprocess_input: Callable[[np.ndarray], np.ndarray] | None = None,
        augment_validation: bool = False,
        memory_limit_gb: float = 4.0,
        workers: int | None = None,
        **others: Any,
    ) -> None:
        refuse("ImageDataAugmentor", others)
        if augment is not None:
            seeded(augment)  # says so when it is nothing of albumentations
        validation_split = validation_split or 0.0
        if not 0.0 <= validation_split < 1.0:
            raise UserError(
                "Expected validation_split to be a share in [0, 1). "
                f"Received: validation_split={validation_split}"
            )
        self.augment = copy.deepcopy(augment)  # its random state is set anew for every photo
        self.seed = checked_seed(seed)
        self.validation_split = validation_split
        self.rescale = rescale
        self.preprocess_input = preprocess_input
        self.augment_validation = augment_validation
        self.memory_limit_gb = memory_limit_gb
        self.workers = workers
        self._validation_was_mentioned = False

    def flow_from_directory(
        self,
        directory: str | Path,
        target_size: tuple[int, int] = (256, 256),
        *,
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        subset: str | None = None,
        **others: Any,
    ) -> PhotoBatches:
        """Batches of the photos in `directory/<class>/…`.

        Args:
            directory: Holds a folder a class; photos may lie deeper in it.
            target_size: Height and width in pixels, the same for both.
            classes: Names of the class folders in the order of their indices; by default all, in
                alphabetical order.
            class_mode: Labels as one-hot rows (`categorical`), numbers (`sparse`), 0 and 1 of two
                classes (`binary`), or photos alone (None).
            batch_size: Photos a batch; the last one of an epoch may be smaller.
            shuffle: Draw a new order for every epoch.
            seed: Instead of that of the constructor.
            subset: `training` or `validation`, the shares of `validation_split`; None is all.
            **others: Other arguments of the original, at the one value they can have here.

        Raises:
            UserError: If an argument has a wrong value, or there are no such photos.
        """
        refuse("flow_from_directory", others)
        flow = Flow(target_size, class_mode, batch_size, shuffle, self._seed_or(seed), subset)
        root = Path(directory).expanduser()
        class_names = _class_folders(root, classes)
        start, stop = self._share(subset)
        rows = []
        for label, name in enumerate(class_names):
            # In Keras' order, which decides what validates.
            paths = sorted(
                list_photos(root / name, follow_links=False), key=lambda p: (str(p.parent), p.name)
            )
            usual = [path.name.lower().endswith(_KERAS_ENDINGS) for path in paths]
            for path, is_in in zip(paths, _in_share(usual, start, stop), strict=True):
                if is_in:
                    rows.append((path.relative_to(root).as_posix(), str(path), label))
        table = pd.DataFrame(rows, columns=["filename", "path", "label"])
        return self._batches(table, class_names, str(root), flow)

    def flow_from_dataframe(
        self,
        dataframe: pd.DataFrame,
        directory: str | Path | None = None,
        x_col: str = "filename",
        y_col: str | None = "class",
        *,
        target_size: tuple[int, int] = (256, 256),
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        subset: str | None = None,
        validate_filenames: bool = True,
        **others: Any,
    ) -> PhotoBatches:
        """Batches of the photos that `dataframe` names, a row each.

        Args:
            dataframe: Is not changed.
            directory: What the names are relative to; None where they are whole paths.
            x_col: Column of the photos' names.
            y_col: Column of the classes, which are strings; not read with `class_mode=None`.
            target_size: As in `flow_from_directory`, like the following.
            classes: Classes to use, in the order of their indices; rows of others are left out.
            class_mode: `categorical`, `sparse`, `binary` or None.
            batch_size: Photos a batch.
            shuffle: Draw a new order for every epoch.
            seed: Instead of that of the constructor.
            subset: `training` or `validation`.
            validate_filenames: Leave out rows without a file, counted; with `class_mode=None` they
                are an error, since no row to predict may get lost.
            **others: Other arguments of the original, at the one value they can have here.

        Raises:
            UserError: If an argument has a wrong value, or the dataframe is not as it says.
        """
        refuse("flow_from_dataframe", others)
        flow = Flow(target_size, class_mode, batch_size, shuffle, self._seed_or(seed), subset)
        names = _strings(dataframe, x_col, "x_col")
        folder = Path(directory or "").expanduser()
        table = pd.DataFrame({"filename": names, "path": [str(folder / name) for name in names]})
        table["class"] = "" if class_mode is None else _strings(dataframe, y_col, "y_col")
        of_all = set(table["class"])
        if validate_filenames:
            table = _with_files(table, x_col, must_stay=class_mode is None)
        class_names: list[str] = []
        table["label"] = 0
        if class_mode is not None:
            present = set(table["class"])  # as in Keras, a class is what has a file
            class_names = list(dict.fromkeys(classes)) if classes else sorted(present)
            if not classes and present < of_all:
                lost = examples(sorted(of_all - present))
                print(f"Left out these classes, which have no file: {lost}")
            index = {name: i for i, name in enumerate(class_names)}
            table["label"] = [index.get(name, -1) for name in table["class"]]
        table = _of_known_classes(table, y_col)
        start, stop = self._share(subset)
        table = table.iloc[int(start * len(table)) : int(stop * len(table))]
        return self._batches(table, class_names, f"the dataframe's column {x_col!r}", flow)

    def _seed_or(self, seed: int | None) -> int:
        """`seed`, or the constructor's, or another one every time."""
        seed = self.seed if seed is None else checked_seed(seed)
        return int(np.random.SeedSequence().entropy % 2**32) if seed is None else seed

    def _share(self, subset: str | None) -> tuple[float, float]:
        """First and last share of the photos that `subset` takes; validation is the first."""
        if subset is None:
            return 0.0, 1.0
        if self.validation_split == 0.0:
            raise UserError(
                f"Expected a validation_split above 0 for subset={subset!r}. Received: 0. "
                "Set it where the augmentor is made: ImageDataAugmentor(validation_split=0.2, …)"
            )
        split = self.validation_split
        return (0.0, split) if subset == "validation" else (split, 1.0)

    def _batches(
        self, table: pd.DataFrame, class_names: list[str], where: str, flow: Flow
    ) -> PhotoBatches:
        if flow.class_mode == "binary" and len(class_names) != 2:
            raise UserError(
                f'Expected two classes for class_mode="binary". Received: {len(class_names)} '
                f"({examples(class_names)}). Use categorical or sparse."
            )
        if table.empty:
            wanted = f"photos of subset={flow.subset!r}" if flow.subset else "photos"
            raise UserError(f"Expected {wanted} in {where}. Received: none.")
        augment = self._shared_augment() if self._augments(flow.subset) else None
        if augment is not None:  # what it cannot do is told before minutes of decoding
            augment(np.zeros((flow.size, flow.size, 3), np.uint8), flow.seed)
        keep_rows = flow.class_mode is None
        photos, table, unreadable = self._open(table.reset_index(drop=True), flow.size, keep_rows)
        print(_found(table, class_names, flow))
        loader = Loader(
            photos,
            np.arange(len(photos)),
            None if flow.class_mode is None else table.label.to_numpy(np.int32),
            batch_size=flow.batch_size,
            shuffle=flow.shuffle,
            augment=augment,
            seed=flow.seed,
            workers=0,
        )
        return PhotoBatches(
            loader,
            filenames=table.filename.tolist(),
            class_names=class_names,
            class_mode=flow.class_mode,
            preprocess_input=self.preprocess_input,
            rescale=self.rescale,
            unreadable=unreadable,
        )

    def _augments(self, subset: str | None) -> bool:
        if self.augment is None:
            return False
        if subset != "validation" or self.augment_validation:
            return True
        if not self._validation_was_mentioned:
            print(
                'Photos of subset="validation" are not augmented; '
                "augment_validation=True augments them, as ImageDataAugmentor did."
            )
            self._validation_was_mentioned = True
        return False

    def _shared_augment(self) -> Augment:
        """The augmentation as threads may share it: each call borrows a pipeline of its own."""
        idle: deque[Augment] = deque()

        def augment(photo: np.ndarray, seed: int) -> np.ndarray:
            try:
                pipeline = idle.pop()
            except IndexError:
                pipeline = seeded(self.augment)
            augmented = pipeline(photo, seed)
            idle.append(pipeline)
            if augmented.shape != photo.shape or augmented.dtype != np.uint8:
                raise UserError(
                    f"Expected augment to keep photos as they are, {photo.shape} of uint8. "
                    f"Received: {augmented.shape} of {augmented.dtype}. "
                    f"Resize with target_size=. {NORMALISE}"
                )
            return augmented

        return augment

    def _open(
        self, table: pd.DataFrame, size: int, keep_rows: bool
    ) -> tuple[Photos, pd.DataFrame, list[tuple[str, str]]]:
        """Opens every photo once; those that cannot be opened are left out, or kept as blanks."""
        photos = Photos(table.path.tolist(), size)
        with progress_bar() as bar:
            task = bar.add_task("opening photos", total=len(photos), note="")
            photos.decode_all(
                keep=photos.bytes_decoded() <= self.memory_limit_gb * 1e9,
                workers=workers_for(len(photos), self.workers),
                progress=lambda count: bar.advance(task, count),
            )
        if photos.notes:
            notes = [f"{table.filename[i]} ({note})" for i, note in sorted(photos.notes.items())]
            print(f"{len(notes)} of {len(photos)} photos open with a fault: {examples(notes, 10)}")
        unreadable = [(table.filename[i], why) for i, why in sorted(photos.errors.items())]
        if not unreadable:
            return photos, table, []
        reasons = examples([f"{name} ({why})" for name, why in unreadable], 10)
        if len(unreadable) == len(photos):
            raise UserError(
                f"Expected photos that can be opened. Received {len(photos)} that cannot: {reasons}"
            )
        fate = "their rows are kept, each with a blank photo" if keep_rows else "they are left out"
        print(f"{len(unreadable)} of {len(photos)} photos cannot be opened; {fate}: {reasons}")
        if keep_rows:
            return photos, table, unreadable
        photos, good = photos.without_errors()
        return photos, table[good].reset_index(drop=True), unreadable


def _class_folders(root: Path, classes: Sequence[str] | None) -> list[str]:
    """The names of the class folders, alphabetically, or as `classes` says."""
    if not root.is_dir():
        raise UserError(
            f"Expected directory to be a folder that holds a folder a class. Received: {root}, "
            f"which {'is a file' if root.exists() else 'does not exist'}."
        )
    found = sorted(
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    lacking = [name for name in classes or () if name not in found]
    if lacking or not found:
        raise UserError(
            f"Expected {'the class folders ' + examples(lacking) if lacking else 'class folders'} "
            f"in {root}. Received: {examples(found) or 'no folder'}. "
            "Photos that lie side by side, without labels: flow_from_dataframe(class_mode=None)."
        )
    return list(dict.fromkeys(classes)) if classes else found


def _in_share(usual: list[bool], start: float, stop: float) -> np.ndarray:
    """`(n,)` bool, which of a class's `n` files lie between two shares of them.

    Those of usual names and the others are counted apart: a text that lies among the photos moves
    none of them to the other side.
    """
    kinds = np.asarray(usual, bool)
    inside = np.zeros(len(kinds), bool)
    for members in (np.flatnonzero(kinds), np.flatnonzero(~kinds)):
        inside[members[int(start * len(members)) : int(stop * len(members))]] = True
    return inside


def _strings(dataframe: pd.DataFrame, column: str | None, argument: str) -> list[str]:
    """A column's values, all of them strings."""
    if column not in dataframe.columns:
        raise UserError(
            f"Expected {argument} to be a column of the dataframe, which has "
            f"{', '.join(map(str, dataframe.columns))}. Received: {argument}={column!r}"
        )
    values = dataframe[column].tolist()
    wrong = [
        f"{value!r} in row {i}" for i, value in enumerate(values) if not isinstance(value, str)
    ]
    if wrong:
        raise UserError(
            f"Expected strings in the column {argument}={column!r}. Received: {examples(wrong)}. "
            f'Numbers become strings with dataframe.astype({{"{column}": str}}).'
        )
    return values


def _with_files(table: pd.DataFrame, x_col: str, must_stay: bool) -> pd.DataFrame:
    has_file = table.path.map(os.path.isfile).astype(bool)
    missing = table.filename[~has_file].tolist()
    if not missing:
        return table
    what = f"{len(missing)} of {len(table)} rows of x_col={x_col!r}"
    if must_stay or len(missing) == len(table):
        advice = (
            " validate_filenames=False keeps such rows, with a blank photo." if must_stay else ""
        )
        raise UserError(
            f"Expected a file for every row. Received {what} without one: {examples(missing, 10)}; "
            f"looked for {table.path[~has_file].iloc[0]}. Check directory=.{advice}"
        )
    print(f"Left out {what}, whose files are missing: {examples(missing)}")
    return table[has_file].copy()


def _of_known_classes(table: pd.DataFrame, y_col: str | None) -> pd.DataFrame:
    others = table.label < 0
    if others.any():
        print(f"Left out {others.sum()} rows whose {y_col!r} is not one of classes=.")
    return table[~others]


def _found(table: pd.DataFrame, class_names: list[str], flow: Flow) -> str:
    if flow.class_mode is None:
        order = (
            "\nThe order is shuffled: predictions will not be in that of .filenames; "
            "shuffle=False keeps it."
        )
        return f"Found {len(table)} images.{order if flow.shuffle else ''}"
    present = set(table.label)
    absent = [name for i, name in enumerate(class_names) if i not in present]
    what = f" ({flow.subset})" if flow.subset else ""
    note = f" None is of: {examples(absent)}." if absent else ""
    return f"Found {len(table)} images belonging to {len(class_names)} classes{what}.{note}"
