"""Finds the photo that an id means, however the folders were wrapped and the name was written."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath

from carcls.data.images import walk_photos

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
_ASKED = 1000  # files of a folder after which it is listed, which costs less than to go on asking
_FEW = 8  # folders that are gone through one by one


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
        self._prefix = _prefix(root)
        self._leave_out = frozenset(name.lower() for name in leave_out)
        self._called = root.absolute().name if called is None else called
        self._files: dict[str, _Files] = {}

    def find(self, photo_id: str, category: str = "") -> str | None:
        """The photo of `photo_id`, first looked for in the folder of its class.

        It lies where id and category say, or is the only file whose path ends so. A suffix may be
        in another case (1.JPG), an id may have none (1 for 1.jpg), a folder's separator may be
        that of Windows. The folder of the class comes before any other place, however the name is
        written there, unless the id names a folder itself and the photo lies just there.

        Returns:
            Its path; None if there is none, or more than one.
        """
        folder = _as_folder(category)
        for inside in self._spellings(photo_id):
            found = self._candidates(inside, folder)
            if len(found) == 1:
                return found[0]
            if found:
                self.ambiguous.add(photo_id)
                return None
        return None

    def why_not_found(self, photo_id: str) -> str:
        """The reason why `find` gave no photo for this id."""
        if photo_id in self.ambiguous:
            return "more than one photo of that name"
        return "no photo of that Id"

    def paths(self) -> Iterator[str]:
        """All files below the folder that may be photos, sorted."""
        return (place.prefix + name for place in self._places for name in place.names)

    def __len__(self) -> int:
        """How many `paths` there are."""
        return sum(len(place.names) for place in self._places)

    def inside(self, path: str) -> str:
        """A photo's path below the root, with / between its parts."""
        return path[len(self._prefix) :]

    def folders_of(self, path: str) -> str:
        """The folders between `root` and a photo, as `/train/cats/`."""
        folders = self.inside(path).rpartition("/")[0]
        return _composed(f"/{folders}/" if folders else "/")

    def _candidates(self, inside: str, folder: str) -> list[str]:
        """The photos that an id may mean, one if it is clear.

        Args:
            inside: The id as a path below the root.
            folder: That of its class, empty if it has none.
        """
        names = [f"{folder}/{inside}", inside] if folder else [inside]
        for name in names if "/" in inside else names[:1]:
            if self._is_there(name):
                return [self._prefix + name]
        # Photos are listed as late as can be: it takes long where there are many.
        is_folder = folder != "" and _composed(folder.rpartition("/")[2]) in self._folder_names
        for name in names if is_folder else names[-1:]:
            found = self._ending_in(name)
            if found:
                return found
        return []

    def _is_there(self, name: str) -> bool:
        if self._leave_out and name.partition("/")[0].lower() in self._leave_out:
            return False
        folder, _, file = name.rpartition("/")
        if folder not in self._files:
            self._files[folder] = _Files(_prefix(self.root / folder))
        return file in self._files[folder]

    def _ending_in(self, name: str) -> list[str]:
        """The photos whose paths end in `name`: as it is written, else nearly so.

        Nearly is a suffix in another case, or any suffix where the name has none. That whole paths
        are the name counts for more than how it is written.
        """
        folder, _, file = _composed(name).rpartition("/")
        if folder not in self._by_end:
            return []
        stem, suffix = _stem_and_suffix(file)
        found = []
        for place in self._ends(folder, stem):
            for other in place.named(stem):
                is_exact = other == file or _composed(other) == file
                if is_exact or _fits(other, suffix):
                    found.append((place.inside != folder, not is_exact, place.prefix + other))
        if len(found) < 2:
            return [path for _, _, path in found]
        best = min(found)[:2]
        return [path for *rank, path in found if tuple(rank) == best]

    def _ends(self, folder: str, stem: str) -> "list[_Place]":
        """The places whose paths end in `folder`; of many, those with such a photo."""
        places = self._by_end[folder]
        if len(places) <= _FEW:
            return places
        end = f"/{folder}" if folder else ""
        return [p for p in self._by_stem.get(stem, []) if f"/{p.inside}".endswith(end)]

    @cached_property
    def _places(self) -> "list[_Place]":
        places = []
        for base, names in walk_photos(self.root):
            prefix = _prefix(base)
            inside = self.inside(prefix).removesuffix("/")
            if inside.partition("/")[0].lower() in self._leave_out:
                continue
            if not inside:
                names = [name for name in names if name.lower() not in self._leave_out]
            places.append(_Place(prefix=prefix, inside=_composed(inside), names=names))
        return places

    @cached_property
    def _folder_names(self) -> set[str]:
        """Of all folders below the root that photos lie in."""
        return {name for place in self._places for name in place.inside.split("/")} - {""}

    @cached_property
    def _by_end(self) -> "dict[str, list[_Place]]":
        """Every place by every end of its path: cats, train/cats, and the empty one."""
        ends = defaultdict(list)
        for place in self._places:
            parts = place.inside.split("/") if place.inside else []
            for start in range(len(parts) + 1):
                ends["/".join(parts[start:])].append(place)
        return dict(ends)

    @cached_property
    def _by_stem(self) -> "dict[str, list[_Place]]":
        places = defaultdict(list)
        for place in self._places:
            for stem in place.by_stem:
                places[stem].append(place)
        return dict(places)

    def _spellings(self, photo_id: str) -> list[str]:
        """An id as paths below `root`, the likeliest first; none if it leads out of it."""
        framed = f"/{photo_id}/"
        is_odd = "//" in framed or "/./" in framed or "/../" in framed or "\\" in framed
        if not (is_odd or photo_id != photo_id.strip() or framed.startswith(f"/{self._called}/")):
            return [photo_id]
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


class _Files:
    """The files of a folder by name: asked for one by one, and listed once they are many."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._exists = False
        with suppress(OSError):  # a name longer than the file system allows
            self._exists = Path(prefix).is_dir()
        self._asked = 0
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        if not self._exists:
            return False
        self._asked += 1
        if self._asked == _ASKED:
            with suppress(OSError), os.scandir(self._prefix or ".") as entries:
                self._names = {entry.name for entry in entries if entry.is_file()}
        # A disk may know a name that it does not list: in another case, in another spelling.
        return name in self._names or os.path.isfile(self._prefix + name)  # noqa: PTH113 - quicker


@dataclass(kw_only=True, eq=False)
class _Place:
    """A folder with photos.

    Attributes:
        prefix: What their paths start with.
        inside: Its path below the root, in one Unicode spelling; empty for the root itself.
        names: Of the photos, sorted.
    """

    prefix: str
    inside: str
    names: list[str]

    @cached_property
    def by_stem(self) -> dict[str, str | list[str]]:
        """The names, one or several, by what they are without the suffix of an image."""
        found: dict[str, str | list[str]] = {}
        for name in self.names:
            stem, _ = _stem_and_suffix(_composed(name))
            before = found.get(stem)
            if before is None:
                found[stem] = name
            else:
                found[stem] = [*([before] if isinstance(before, str) else before), name]
        return found

    def named(self, stem: str) -> list[str]:
        """The names that are this one without the suffix of an image."""
        found = self.by_stem.get(stem, [])
        return [found] if isinstance(found, str) else found


def is_image(path: str) -> bool:
    """Whether it has the name of an image."""
    return _stem_and_suffix(path.rpartition("/")[2])[1] != ""


def hold_a_photo(paths: Iterable[str]) -> bool:
    """Whether a file among them has the name of an image, or else one of the first starts as one.

    Photos may have any name, or none that says so (`.ashx`); but a folder of notes is no class.
    """
    paths = iter(paths)
    first = list(islice(paths, _OPENED))
    return any(map(is_image, first)) or any(map(is_image, paths)) or any(map(_is_photo, first))


def _is_photo(path: str) -> bool:
    """Whether a file starts as one."""
    try:
        if not Path(path).is_file():  # opening a pipe would wait for someone to write to it
            return False
        with Path(path).open("rb") as file:
            return _STARTS.match(file.read(32)) is not None
    except OSError:
        return False


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """A name without the suffix of an image, and that suffix; the whole name if it has none."""
    dot = name.rfind(".")
    if dot > 0 and name[dot:].lower() in IMAGE_SUFFIXES:
        return name[:dot], name[dot:]
    return name, ""


def _fits(name: str, suffix: str) -> bool:
    """Whether the name of an image ends in `suffix`, in any case; in any, if that is empty."""
    its = _stem_and_suffix(name)[1]
    return its.lower() == suffix.lower() if suffix else its != ""


@lru_cache(1024)
def _as_folder(category: str) -> str:
    """A class's name as a path below the root; empty if no folder can be called so."""
    path = PurePosixPath(category)
    is_one = path.parts and not path.is_absolute() and ".." not in path.parts
    return path.as_posix() if is_one else ""


def _prefix(folder: str | Path) -> str:
    """What the paths of files in a folder start with, as pathlib writes them."""
    path = str(Path(folder))
    return "" if path == "." else path.removesuffix("/") + "/"


def _composed(name: str) -> str:
    """A name in one of its Unicode spellings: macOS takes é apart in archives and folders."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
