"""A competition as it is downloaded: `train.csv`, `sample-submission.csv` and two archives.

Photos lie under `train/<Category>/<Id>` and `test_upload/<Id>`, or flat, or wrapped in further
folders; the label comes from the CSV. An archive `train.zip` stands for the folder that it unpacks
to, and `data.root` itself may be one archive of everything.
"""

from pathlib import Path

from carcls.config import KaggleData
from carcls.data.layout import ARCHIVES, existing_root, part_of, unwrapped, visible
from carcls.data.photo_index import PhotoIndex, hold_a_photo
from carcls.data.records import TestPhotos, TrainingPhotos, examples
from carcls.data.rows import photos_of_ids, photos_of_rows
from carcls.data.tables import read_csv
from carcls.errors import UserError

TRAIN_CSV = "train.csv"
SAMPLE_CSV = ("sample-submission.csv", "sample_submission.csv", "sampleSubmission.csv")
TRUTH_CSV = "test-labels.csv"  # not the competition's: the demo's own, for its true accuracy
_TRAIN_FOLDERS = ("train", "train_upload", "train_images")
_TEST_FOLDERS = ("test_upload", "test", "test_images")


def read_training_photos(config: KaggleData) -> TrainingPhotos:
    """The rows of `train.csv` with their photos."""
    root = _root(config, f"{TRAIN_CSV} and train.zip or a folder train/")
    csv = root / TRAIN_CSV
    if not csv.is_file():
        raise UserError(
            f"Expected {TRAIN_CSV} with the columns {config.id_column},{config.label_column} in "
            f"data.root. Received: {_what_is_in(root)}. "
            "If the photos lie in class folders, use data=folder; if another CSV has the labels, "
            "data=csv."
        )
    table = read_csv(csv, (config.id_column, config.label_column), separator=None)
    table.columns = ["id", "name"]
    index = _photo_index(root, _TRAIN_FOLDERS, _TEST_FOLDERS, config, csv)
    # Beside the CSV lie photos to predict too, and pictures of other things.
    all_need_rows = index.root != root
    return photos_of_rows(table, index, csv, config, config.label_column, [], all_need_rows)


def read_test_photos(config: KaggleData) -> TestPhotos:
    """The ids of the sample submission, in its order, with their photos."""
    root = _root(config, f"{SAMPLE_CSV[0]} and test.zip or a folder test_upload/")
    sample = next((root / name for name in SAMPLE_CSV if (root / name).is_file()), None)
    if sample is None:
        raise UserError(
            f"Expected {' or '.join(SAMPLE_CSV)}, which says which Ids to predict, in data.root. "
            f"Received: {_what_is_in(root)}. "
            "To predict photos without one: images=PATH."
        )
    columns = (config.id_column, config.label_column)
    ids = read_csv(sample, columns, separator=None)[config.id_column].tolist()
    index = _photo_index(root, _TEST_FOLDERS, _TRAIN_FOLDERS, config, sample)
    truth = None
    if (root / TRUTH_CSV).is_file():
        known = read_csv(root / TRUTH_CSV, columns, separator=None)
        truth = dict(zip(known[columns[0]], known[columns[1]], strict=True))
    return photos_of_ids([(photo_id, "") for photo_id in ids], index, sample, columns, truth)


def _root(config: KaggleData, looked_for: str) -> Path:
    names = (TRAIN_CSV, *SAMPLE_CSV)
    root = existing_root(config, looked_for)
    return unwrapped(root, config, lambda folder: any((folder / n).is_file() for n in names))


def _photo_index(
    root: Path, names: tuple[str, ...], others: tuple[str, ...], config: KaggleData, csv: Path
) -> PhotoIndex:
    """The photos of one of these folders or its archive, else those that lie beside the CSV."""
    part = part_of(root, names, config)
    if part is not None:
        return PhotoIndex(part[1], called=part[0])
    index = PhotoIndex(root, leave_out=others)
    if hold_a_photo(index.paths()):
        return index
    raise UserError(
        f"Expected the photos of {csv} in one of {', '.join(f'{name}/' for name in names)}, an "
        f"archive of such a name ({ARCHIVES}), or beside it. Received: {_what_is_in(root)}."
    )


def _what_is_in(root: Path) -> str:
    return f"{root} with {examples([path.name for path in visible(root)])}"
