"""The photos that the benchmarks read: those of --photos, else drawn ones."""

import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from omegaconf import OmegaConf  # noqa: E402

from carcls.data.archives import unpack_once  # noqa: E402
from carcls.data.demo import draw_demo  # noqa: E402
from carcls.data.images import list_photos  # noqa: E402


def add_photos_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--photos", type=Path, help="a folder or an archive; default: drawn cars")


@contextmanager
def photo_files(photos: Path | None, most: int | None = None) -> Iterator[list[str]]:
    """The files of a folder or an archive, or the first of them; else 400 drawn photos."""
    with tempfile.TemporaryDirectory() as folder:
        if photos is None:
            root = Path(folder) / "drawn"
            draw_demo(root, train_per_class=40, test_per_class=2)
            root = root / "train"
        else:
            root = photos if photos.is_dir() else unpack_once(photos, Path(folder))
        yield [str(path) for path in list_photos(root)[:most]]


def policy(name: str) -> dict:
    """The steps of an augmentation policy."""
    path = ROOT / "conf" / "augmentation" / f"{name}.yaml"
    return OmegaConf.to_container(OmegaConf.load(path))["train"]
