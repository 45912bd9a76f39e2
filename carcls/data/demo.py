"""`data=demo`: a small competition of ten kinds of car, drawn on first use.

    root/train/<Category>/<Id>      root/train.csv               Id,Category
    root/test_upload/<Id>           root/sample-submission.csv   Id,Category (a placeholder)
    root/overview.png               root/test-labels.csv         Id,Category (the truth)
    root/demo.json                  what drew it

The kinds differ in shape alone: paint, place, light, weather, size and position are drawn from the
same lists for all of them. A photo is a pure function of (seed, index), so neither the number of
workers nor the order in which they finish changes a byte.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from carcls.data.demo_drawing import CLASS_NAMES, draw_photo

DEMO_VERSION = 1  # raise it when a change to the drawing changes the photos
PHOTO_SIZE = (320, 240)  # half of the photos; the others are cropped or turned
OTHER_SIZES = ((320, 180), (320, 213), (300, 225), (360, 270), (280, 280), (240, 300))
JPEG_QUALITIES = (70, 95)
SHEET_COLUMNS = 8
FIRST_ID, LAST_ID = 100_000, 999_999


def draw_demo(
    root: Path,
    *,
    seed: int = 42,
    train_per_class: int = 60,
    test_per_class: int = 20,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> None:
    """Draws the data set into `root`, which appears complete or not at all.

    Args:
        root: A folder that does not exist yet.
        seed: The same seed gives the same bytes (with the same versions of NumPy, OpenCV, Pillow).
        train_per_class: Photos of each kind in `train/`.
        test_per_class: Photos of each kind in `test_upload/`.
        progress: Called with (photos done, photos in all), always from the calling thread.
        workers: Threads; by default one a core.

    Raises:
        FileExistsError: If `root` exists.
        ValueError: If a class would be empty or there are more photos than six-digit Ids.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"Expected root to be a folder that is not there. Received: {root}")
    facts = describe(seed, train_per_class, test_per_class)
    photos = plan_photos(seed, train_per_class, test_per_class)
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as beside:
        unfinished = Path(beside) / root.name
        for folder in {photo.path.parent for photo in photos}:
            (unfinished / folder).mkdir(parents=True, exist_ok=True)
        draw_photos(unfinished, photos, seed, workers or os.cpu_count() or 1, progress)
        write_tables(unfinished, photos)
        draw_overview(unfinished, photos)
        (unfinished / "demo.json").write_text(json.dumps(facts, indent=2) + "\n")
        unfinished.rename(root)


def demo_is_drawn(root: Path, *, seed: int, train_per_class: int, test_per_class: int) -> bool:
    """Does `root` hold the very data set that `draw_demo` would draw?"""
    try:
        facts = json.loads((Path(root) / "demo.json").read_text())
    except (OSError, ValueError):
        return False
    return facts == describe(seed, train_per_class, test_per_class)


def describe(seed: int, train_per_class: int, test_per_class: int) -> dict:
    """What `demo.json` says."""
    return {
        "version": DEMO_VERSION,
        "seed": seed,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "size": list(PHOTO_SIZE),
    }


@dataclass(frozen=True)
class PlannedPhoto:
    index: int
    category: str
    path: Path  # relative to the root; its name is the Id
    is_train: bool


def plan_photos(seed: int, train_per_class: int, test_per_class: int) -> list[PlannedPhoto]:
    """Every photo with its place; the Ids are shuffled, so that they tell nothing."""
    total = (train_per_class + test_per_class) * len(CLASS_NAMES)
    if min(train_per_class, test_per_class) < 1 or total > LAST_ID - FIRST_ID + 1:
        raise ValueError(
            "Expected train_per_class and test_per_class of at least 1 and fewer photos than "
            f"six-digit Ids. Received: train_per_class={train_per_class}, "
            f"test_per_class={test_per_class}"
        )
    rng = np.random.default_rng([seed, total])  # no photo has this index
    ids = rng.choice(np.arange(FIRST_ID, LAST_ID + 1), total, replace=False)
    photos = []
    for index, number in enumerate(ids):
        category = CLASS_NAMES[index % len(CLASS_NAMES)]
        is_train = index < train_per_class * len(CLASS_NAMES)
        folder = Path("train", category) if is_train else Path("test_upload")
        photos.append(PlannedPhoto(index, category, folder / f"{number}.jpg", is_train))
    return photos


def draw_photos(
    root: Path,
    photos: list[PlannedPhoto],
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Threads, not processes: OpenCV and NumPy release the GIL, and nothing has to be spawned."""

    def draw(photo: PlannedPhoto) -> None:
        jpeg = draw_jpeg(photo.category, np.random.default_rng([seed, photo.index]))
        (root / photo.path).write_bytes(jpeg)

    executor = ThreadPoolExecutor(workers)
    try:
        jobs = [executor.submit(draw, photo) for photo in photos]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            if progress:
                progress(done, len(photos))
    finally:  # an interrupted drawing must not go on writing
        executor.shutdown(cancel_futures=True)


def draw_jpeg(category: str, rng: np.random.Generator) -> bytes:
    size = PHOTO_SIZE if rng.random() < 0.5 else OTHER_SIZES[rng.integers(len(OTHER_SIZES))]
    photo = draw_photo(category, size, rng)
    quality = int(rng.integers(*JPEG_QUALITIES, endpoint=True))
    _, jpeg = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()


def write_tables(root: Path, photos: list[PlannedPhoto]) -> None:
    """The competition's CSV files, in the order of the Ids."""
    photos = sorted(photos, key=lambda photo: photo.path.name)
    train = [(photo.path.name, photo.category) for photo in photos if photo.is_train]
    test = [(photo.path.name, photo.category) for photo in photos if not photo.is_train]
    tables = {
        "train.csv": train,
        "test-labels.csv": test,
        "sample-submission.csv": [(photo_id, CLASS_NAMES[0]) for photo_id, _ in test],
    }
    for name, rows in tables.items():
        lines = ["Id,Category", *(f"{photo_id},{category}" for photo_id, category in rows)]
        (root / name).write_text("\n".join(lines) + "\n", newline="\n")


def draw_overview(root: Path, photos: list[PlannedPhoto]) -> None:
    """A contact sheet: a row for each kind."""
    width, height, gap, margin, names_width = 144, 108, 6, 18, 120
    columns = min(SHEET_COLUMNS, sum(photo.is_train for photo in photos) // len(CLASS_NAMES))
    across = names_width + columns * (width + gap) + 2 * margin - gap
    down = len(CLASS_NAMES) * (height + gap) + 2 * margin - gap
    sheet = Image.new("RGB", (across, down), "#faf8f4")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for row, category in enumerate(CLASS_NAMES):
        top = margin + row * (height + gap)
        pen.text((margin, top + height / 2), category, "#333333", font, anchor="lm")
        # Photos come in turns, one of each kind: this kind's are `len(CLASS_NAMES)` apart.
        for column, photo in enumerate(photos[row :: len(CLASS_NAMES)][:columns]):
            with Image.open(root / photo.path) as image:
                thumbnail = ImageOps.fit(image, (width, height), centering=(0.5, 0.7))
            sheet.paste(thumbnail, (margin + names_width + column * (width + gap), top))
    sheet.save(root / "overview.png")
