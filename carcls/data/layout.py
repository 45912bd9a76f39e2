"""Where photos lie: the folder or archive that `data.root` means, and the parts of it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from carcls.config import DataConfig
from carcls.data import archives
from carcls.data.archives import ARCHIVE_SUFFIXES, unpack_once
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.errors import UserError

ARCHIVES = ", ".join(ARCHIVE_SUFFIXES)
# What folders, archives and a split column call the three parts of a split, in any case.
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
PART_OF = {name: part for part, names in SPLIT_NAMES.items() for name in names}
_WRAPPERS = 5  # how many folders an upload may be wrapped in


def existing_root(config: DataConfig, looked_for: str) -> Path:
    """`data.root` as a directory with something in it, unpacked if it is an archive.

    Raises:
        UserError: If it is missing or empty; says what was looked for.
    """
    if not config.root:
        raise UserError("Expected data.root to be a directory of photos. Received: nothing.")
    root = Path(config.root).expanduser()
    hint = (
        f"Looked for {looked_for}. Set data.root=DIR, or try data=demo, which draws its own photos "
        "and needs none."
    )
    expected = f"Expected a directory of photos at data.root. Received: {root}, which"
    if is_archive(root):
        root = unpacked(root, config)
    if not root.exists():
        raise UserError(f"{expected} does not exist. {hint}")
    if not root.is_dir():
        raise UserError(f"{expected} is a file, and no archive ({ARCHIVES}). {hint}")
    if is_empty(root):
        raise UserError(f"{expected} is empty. {hint}")
    return root


def is_archive(path: Path) -> bool:
    """Whether it is a file that has the name of an archive, be it of a kind that is refused."""
    return archives.is_archive(path) and path.is_file()


def unpacked(archive: Path, config: DataConfig) -> Path:
    """The folder that `archive` unpacks to, see `unpack_once`."""
    cache = None if config.cache_dir is None else Path(config.cache_dir).expanduser()
    return unpack_once(archive, cache)


def without_suffix(path: Path) -> str:
    """An archive's name without `.zip`, `.tar.gz` and the like; any other's as it is."""
    if not is_archive(path):
        return path.name
    return archives.without_suffix(path.name)


def unwrapped(root: Path, config: DataConfig, is_it: Callable[[Path], bool]) -> Path:
    """The folder that `is_it`: `root`, or what the only folder or archive in it holds, and so on.

    Uploads come wrapped like that. `root` itself if there is no such folder.
    """
    folder = root
    for _ in range(_WRAPPERS):
        if is_it(folder):
            return folder
        inner = folders_in(folder)
        if len(inner) != 1:
            break
        folder = inner[0] if inner[0].is_dir() else unpacked(inner[0], config)
    return folder if is_it(folder) else root


def parts_of(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders in `root` of one of these names, in any case, or archives where there are none.

    Folders with nothing in them do not count. In the order of `names`.
    """
    entries = [path for path in folders_in(root) if without_suffix(path).lower() in names]
    entries.sort(key=lambda path: (names.index(without_suffix(path).lower()), path.name))
    folders = [path for path in entries if path.is_dir() and not is_empty(path)]
    return folders or [path for path in entries if path.is_file()]


def opened(part: Path, names: tuple[str, ...], config: DataConfig) -> tuple[str, Path]:
    """What one of `parts_of` is called, and the folder that it is, or unpacks to."""
    if part.is_dir():
        return part.name, part
    folder = unpacked(part, config)
    inner = [path for path in folders_in(folder) if path.is_dir()]
    # Beside others it would be a class of that name.
    wraps = len(inner) == 1 and inner[0].name.lower() in names
    return without_suffix(part), inner[0] if wraps else folder


def part_of(root: Path, names: tuple[str, ...], config: DataConfig) -> tuple[str, Path] | None:
    """The first of `parts_of`, `opened`; None if there is none."""
    found = parts_of(root, names)
    return opened(found[0], names, config) if found else None


def folders_in(folder: Path) -> list[Path]:
    """The folders and archives in `folder`, sorted."""
    found = (
        entry.name
        for entry in entries_in(folder)
        if is_folder(entry) or archives.is_archive(Path(entry.name))
    )
    paths = (folder / name for name in sorted(found))
    return [path for path in paths if path.is_dir() or is_archive(path)]


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted; hidden entries and what systems leave behind left out.

    Raises:
        UserError: If it cannot be read.
    """
    return [folder / entry.name for entry in sorted_entries(folder)]


def sorted_entries(folder: Path) -> list[os.DirEntry]:
    """What is `visible` in `folder`; what each is needs no question to the disk."""
    return sorted(entries_in(folder), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder or a link to one; a link that leads round and round is none."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def is_file(entry: os.DirEntry) -> bool:
    """Whether it is a plain file or a link to one."""
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def is_empty(folder: Path) -> bool:
    """Whether nothing is `visible` in it."""
    return next(entries_in(folder), None) is None


def holds_folders(folder: Path) -> bool:
    """Whether a folder is `visible` in it."""
    return any(map(is_folder, entries_in(folder)))


def entries_in(folder: Path) -> Iterator[os.DirEntry]:
    """What is `visible` in `folder`, in the disk's order: a million of them need no list."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in SYSTEM_LEFTOVERS:
                    yield entry
    except OSError as error:
        raise UserError(
            f"Expected a folder that can be read. Received: {folder}: {error.strerror}."
        ) from error
