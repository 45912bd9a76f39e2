"""Finds the photo that an id means, however the folders were wrapped and the name was written."""

import unicodedata
from collections import defaultdict
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath

from carcls.data.images import list_photos

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".png", ".webp", ".avif"),
        *(".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    )
)
# How an id may differ from the name of its file, the strictest reading first.
_READINGS = ("as written", "suffix in another case", "without a suffix")


class PhotoIndex:
    """Finds photos by id below one folder, never outside of it.

    Args:
        root: The folder.
        leave_out: Names of folders directly in `root` that hold other photos.
        called: Another name of `root`, which ids may start with; that of the folder by default.

    Attributes:
        ambiguous: The ids asked for so far that more than one photo fits.
    """

    def __init__(
        self, root: Path, leave_out: tuple[str, ...] = (), called: str | None = None
    ) -> None:
        self.root = root
        self.ambiguous: set[str] = set()
        self._leave_out = frozenset(leave_out)
        self._called = root.absolute().name if called is None else called
        self._tails: dict[str, dict[str, list[Path]]] = {}

    def find(self, photo_id: str, category: str = "") -> str | None:
        """The photo of `photo_id`, first looked for in the folder of its class.

        It lies where id and category say, or is the only file whose path ends so. A suffix may be
        in another case (1.JPG), an id may have none (1 for 1.jpg), a folder's separator may be
        that of Windows.

        Returns:
            Its path; None if there is none, or more than one.
        """
        if ".." in PurePosixPath(category).parts or category.startswith("/"):
            category = ""  # a name, but no folder's
        for inside in self._spellings(photo_id):
            found = self._candidates(inside, f"{category}/{inside}" if category else inside)
            if len(found) == 1:
                return str(found[0])
            if found:
                self.ambiguous.add(photo_id)
                return None
        return None

    def _candidates(self, inside: str, in_class: str) -> list[Path]:
        for name in (in_class, inside):
            path = self.root / name
            with suppress(OSError):  # a name longer than the file system allows
                if not self._is_left_out(path) and path.is_file():
                    return [path]
        for reading in _READINGS:
            for name in (in_class, inside):
                found = self._ending_in(name, reading)
                depth = len(self.root.parts) + len(PurePosixPath(name).parts)
                whole = [path for path in found if len(path.parts) == depth]
                if found:
                    return whole or found
        return []

    @cached_property
    def photos(self) -> list[Path]:
        """All files below the folder that may be photos, sorted."""
        return [path for path in list_photos(self.root) if not self._is_left_out(path)]

    def folders_of(self, path: str | Path) -> str:
        """The folders between `root` and a photo, as `/train/cats/`."""
        return _composed("/".join(("", *Path(path).relative_to(self.root).parts[:-1], "")))

    def _spellings(self, photo_id: str) -> list[str]:
        """An id as paths below `root`, the likeliest first; none if it leads out of it."""
        path = Path(photo_id)
        if path.is_absolute():
            if not path.is_relative_to(self.root.absolute()):
                return []
            path = path.relative_to(self.root.absolute())
        spellings = [path, Path(path.as_posix().replace("\\", "/"))]
        # root is photos/ and the id photos/cats/1.jpg
        spellings += [Path(*p.parts[1:]) for p in spellings if p.parts[:1] == (self._called,)]
        safe = [p for p in spellings if p.parts and not p.is_absolute() and ".." not in p.parts]
        return list(dict.fromkeys(p.as_posix() for p in safe))

    def _is_left_out(self, path: Path) -> bool:
        return path.relative_to(self.root).parts[0] in self._leave_out

    def _ending_in(self, name: str, reading: str) -> list[Path]:
        name = _composed(name)
        suffix = PurePosixPath(name).suffix
        if reading == "suffix in another case":
            name = name.removesuffix(suffix) + suffix.lower()
        elif reading == "without a suffix" and suffix.lower() in IMAGE_SUFFIXES:
            return []
        if reading not in self._tails:
            self._tails[reading] = self._index(reading)
        return self._tails[reading].get(name, [])

    def _index(self, reading: str) -> dict[str, list[Path]]:
        """Every photo by every end of its path: 1.jpg, cats/1.jpg, train/cats/1.jpg."""
        tails = defaultdict(list)
        for path in self.photos:
            parts = path.relative_to(self.root).parts
            name = parts[-1]
            if reading != "as written":
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                name = name.removesuffix(path.suffix)
                name += path.suffix.lower() if reading == "suffix in another case" else ""
            for start in range(len(parts)):
                tails[_composed("/".join((*parts[start:-1], name)))].append(path)
        return dict(tails)


def is_image(path: Path) -> bool:
    """Whether it has the name of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _composed(name: str) -> str:
    """A name in one of its Unicode spellings: macOS takes é apart in archives and folders."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
