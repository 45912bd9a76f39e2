"""A competition as it is downloaded: `train.csv`, `sample-submission.csv` and two archives.

Photos lie under `train/<Category>/<Id>` and `test_upload/<Id>`, or flat; the label comes from the
CSV. An archive `train.zip` stands for the folder that it unpacks to.
"""

from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from carcls.config import KaggleData
from carcls.data.archives import unpack_once
from carcls.data.images import list_photos
from carcls.data.records import (
    TestPhotos,
    TrainingPhotos,
    examples,
    existing_root,
    labelled,
    read_csv,
)
from carcls.errors import UserError

TRAIN_CSV = "train.csv"
SAMPLE_CSV = ("sample-submission.csv", "sample_submission.csv")
TRUTH_CSV = "test-labels.csv"  # not the competition's: the demo's own, for its true accuracy
_TRAIN_FOLDERS = ("train", "train_upload")
_TEST_FOLDERS = ("test_upload", "test")


def read_training_photos(config: KaggleData) -> TrainingPhotos:
    """The rows of `train.csv` with their photos."""
    root = existing_root(config, f"{TRAIN_CSV} and train.zip or a folder train/")
    csv = root / TRAIN_CSV
    if not csv.is_file():
        raise UserError(
            f"Expected {TRAIN_CSV} with the columns {config.id_column},{config.label_column} in "
            f"data.root. Received: {root} with {examples(sorted(p.name for p in root.iterdir()))}. "
            "If the photos lie in class folders, use data=folder."
        )
    table = read_csv(csv, (config.id_column, config.label_column))
    table.columns = ["id", "name"]
    unlabelled = table.id[table.name == ""].tolist()
    if unlabelled:
        raise UserError(
            f"Expected a {config.label_column} in every row of {csv}. "
            f"Received none for {len(unlabelled)}: {examples(unlabelled)}."
        )
    index = _PhotoIndex(_photo_folder(root, _TRAIN_FOLDERS, config, csv))
    table["path"] = [index.find(*row) for row in zip(table.id, table.name, strict=True)]
    repeated = table.id[table.path.notna() & table.path.duplicated()].tolist()
    if repeated:
        raise UserError(f"Expected every photo once in {csv}. Received twice: {examples(repeated)}")
    missing = table.id[table.path.isna()].tolist()
    if missing and (config.on_missing == "raise" or len(missing) == len(table)):
        raise UserError(
            f"Expected a photo for each of the {len(table)} rows of {csv} below {index.root}. "
            f"Received none for {len(missing)}: {examples(missing)}."
            + ("" if len(missing) == len(table) else " Leave them out with data.on_missing=skip.")
        )
    table = table.dropna(subset="path").sort_values(["id", "name"], ignore_index=True)
    skipped = [(photo_id, "no photo") for photo_id in missing]
    return labelled(table[["id", "path"]], table.name, skipped, str(csv))


def read_test_photos(config: KaggleData) -> TestPhotos:
    """The ids of the sample submission, in its order, with their photos."""
    root = existing_root(config, f"{SAMPLE_CSV[0]} and test.zip or a folder test_upload/")
    sample = next((root / name for name in SAMPLE_CSV if (root / name).is_file()), None)
    if sample is None:
        raise UserError(
            f"Expected {SAMPLE_CSV[0]}, which says which Ids to predict, in data.root. "
            f"Received: {root} with {examples(sorted(p.name for p in root.iterdir()))}. "
            "To predict photos without one: images=PATH."
        )
    columns = (config.id_column, config.label_column)
    ids = read_csv(sample, columns)[config.id_column]
    repeated = ids[ids.duplicated()].tolist()
    if repeated:
        raise UserError(
            f"Expected every Id exactly once in {sample}. Received twice: {examples(repeated)}"
        )
    if ids.empty:
        raise UserError(f"Expected at least one Id in {sample}. Received: none.")
    index = _PhotoIndex(_photo_folder(root, _TEST_FOLDERS, config, sample))
    truth = None
    if (root / TRUTH_CSV).is_file():
        known = read_csv(root / TRUTH_CSV, columns)
        truth = dict(zip(known[columns[0]], known[columns[1]], strict=True))
    return TestPhotos(
        ids=ids.tolist(), paths=[index.find(i, "") for i in ids], columns=columns, truth=truth
    )


def _photo_folder(root: Path, names: tuple[str, ...], config: KaggleData, csv: Path) -> Path:
    """The folder of photos, or the one that its archive unpacks to."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    for name in names:
        archive = root / f"{name}.zip"
        if archive.is_file():
            cache = None if config.cache_dir is None else Path(config.cache_dir).expanduser()
            unpacked = unpack_once(archive, cache)
            return next((unpacked / n for n in names if (unpacked / n).is_dir()), unpacked)
    if any(path.is_file() and path.suffix not in (".csv", ".zip") for path in root.iterdir()):
        return root  # flat, beside the CSV
    raise UserError(
        f"Expected the photos of {csv} in one of {', '.join(f'{n}.zip' for n in names)} or "
        f"{', '.join(f'{n}/' for n in names)} in data.root. "
        f"Received: {root} with {examples(sorted(p.name for p in root.iterdir()))}."
    )


class _PhotoIndex:
    """Finds photos by id: where it should lie, else the only file of that name below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[str]] | None = None

    def find(self, photo_id: str, category: str) -> str | None:
        parts = Path(category, photo_id).parts
        if not photo_id or Path(category, photo_id).is_absolute() or ".." in parts:
            return None  # an Id names a photo of the data set, never another file
        for candidate in (self.root / category / photo_id, self.root / photo_id):
            with suppress(OSError):  # a name longer than the file system allows
                if candidate.is_file():
                    return str(candidate)
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in list_photos(self.root):
                self._by_name[path.name].append(str(path))
        found = self._by_name.get(photo_id, [])
        return found[0] if len(found) == 1 else None
