"""Finds the photo that an id means, however the folders were wrapped and the name was written."""

import re
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
# What the photos of common formats start with, those included that need converting first.
_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM....\0\0\0\0|RIFF....WEBP|P[1-6]\s|II[*+]\0|MM\0[*+]|IIU\0"
    rb"|....ftyp(?:avi|hei|hev|mif1|msf1|crx)|\0\0\0\x0c(?:jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a",
    re.DOTALL,
)
_OPENED = 5  # of the files without an image's name, how many are looked into
# How an id may differ from the name of its file, the strictest reading first.
_READINGS = ("as written", "suffix in another case", "without a suffix")


class PhotoIndex:
    """Finds photos by id below one folder, never outside of it.

    Args:
        root: The folder.
        leave_out: Names of folders directly in `root` that hold other photos, in any case.
        called: Another name of `root`, which ids may start with; that of the folder by default.

    Attributes:
        ambiguous: The ids asked for so far that more than one photo fits.
    """

    def __init__(
        self, root: Path, leave_out: tuple[str, ...] = (), called: str | None = None
    ) -> None:
        self.root = root
        self.ambiguous: set[str] = set()
        self._leave_out = frozenset(name.lower() for name in leave_out)
        self._called = root.absolute().name if called is None else called
        self._tails: dict[str, dict[str, list[Path]]] = {}

    def find(self, photo_id: str, category: str = "") -> str | None:
        """The photo of `photo_id`, first looked for in the folder of its class.

        It lies where id and category say, or is the only file whose path ends so. A suffix may be
        in another case (1.JPG), an id may have none (1 for 1.jpg), a folder's separator may be
        that of Windows. The folder of the class comes before any other place, however the name is
        written there, unless the id names a folder itself and the photo lies just there.

        Returns:
            Its path; None if there is none, or more than one.
        """
        if ".." in PurePosixPath(category).parts or category.startswith("/"):
            category = ""  # a name, but no folder's
        for inside in self._spellings(photo_id):
            found = self._candidates(inside, category)
            if len(found) == 1:
                return str(found[0])
            if found:
                self.ambiguous.add(photo_id)
                return None
        return None

    def _candidates(self, inside: str, category: str) -> list[Path]:
        in_class = f"{category}/{inside}" if category else inside
        for name in (in_class, inside) if "/" in inside else (in_class,):
            path = self.root / name
            with suppress(OSError):  # a name longer than the file system allows
                if not self._is_left_out(path) and path.is_file():
                    return [path]
        # Photos are listed as late as can be: it takes long where there are many.
        is_folder = _composed(PurePosixPath(category).name) in self._folder_names
        for name in (in_class, inside) if is_folder else (inside,):
            found = [self._ending_in(name, reading) for reading in _READINGS]
            depth = len(self.root.parts) + len(PurePosixPath(name).parts)
            whole = ([path for path in paths if len(path.parts) == depth] for paths in found)
            for paths in (*whole, *found):
                if paths:
                    return paths
        return []

    def why_not_found(self, photo_id: str) -> str:
        """The reason why `find` gave no photo for this id."""
        if photo_id in self.ambiguous:
            return "more than one photo of that name"
        return "no photo of that Id"

    @cached_property
    def _folder_names(self) -> set[str]:
        """Of all folders below the root that photos lie in."""
        folders = {path.parent for path in self.photos}
        names = (folder.relative_to(self.root).parts for folder in folders)
        return {_composed(name) for parts in names for name in parts}

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
        spellings += [Path(p.as_posix().strip()) for p in spellings]  # as typed tables have them
        # root is photos/ and the id photos/cats/1.jpg
        spellings += [Path(*p.parts[1:]) for p in spellings if p.parts[:1] == (self._called,)]
        safe = [p for p in spellings if p.parts and not p.is_absolute() and ".." not in p.parts]
        return list(dict.fromkeys(p.as_posix() for p in safe))

    def _is_left_out(self, path: Path) -> bool:
        return path.relative_to(self.root).parts[0].lower() in self._leave_out

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


def hold_a_photo(paths: list[Path]) -> bool:
    """Whether a file among them has the name of an image, or else one of the first starts as one.

    Photos may have any name, or none that says so (`.ashx`); but a folder of notes is no class.
    """
    return any(map(is_image, paths)) or any(map(_starts_as_a_photo, paths[:_OPENED]))


def _starts_as_a_photo(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for someone to write to it
            return False
        with path.open("rb") as file:
            return _STARTS.match(file.read(32)) is not None
    except OSError:
        return False


def _composed(name: str) -> str:
    """A name in one of its Unicode spellings: macOS takes é apart in archives and folders."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
