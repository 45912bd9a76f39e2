"""Unpacking an archive that is not trusted, once, into a cache."""

import errno
import gzip
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from carcls.console import progress_bar
from carcls.data.archive_members import OPENERS, Member, is_junk, of_tar, of_zip
from carcls.data.archive_room import BY_HAND, Room
from carcls.errors import UserError

log = logging.getLogger(__name__)

# Names that `unpack_once` can unpack, whatever of these kinds the file then is.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_REFUSED_SUFFIXES = (".7z", ".rar", ".tar.zst")

_CHUNK_BYTES = 1 << 20

_OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
}


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/carcls`, by default `~/.cache/carcls`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carcls"


def is_archive(path: Path) -> bool:
    """Whether it is named as an archive, be it of a kind that is refused with advice."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES + _REFUSED_SUFFIXES)


def without_suffix(name: str) -> str:
    """An archive's name without `.zip`, `.tar.gz` and the like, be it of a kind that is refused."""
    for suffix in sorted(ARCHIVE_SUFFIXES + _REFUSED_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return PurePosixPath(name).stem


def unpack_once(archive: Path, cache_dir: Path | None = None) -> Path:
    """The folder that holds what `archive` holds, unpacked there by the first call.

    The folder is keyed by the archive's path, size and time, is built under a temporary name and
    renamed when whole, so that runs may share it at the same time. Archives within it stay packed.

    Args:
        archive: A zip or tar file, the latter as it is or compressed by gzip, bzip2 or xz; it may
            lie in a read-only directory.
        cache_dir: Where to unpack. None: `default_cache_dir()`.

    Raises:
        UserError: If it is none of these, cannot be read, is damaged or encrypted, has a member
            that would land outside of the folder or is no plain file, would fill the disk, or looks
            like a bomb; if the cache cannot be written.
    """
    cache = (cache_dir or default_cache_dir()) / "unpacked"
    info = archive.stat()
    key = f"{archive.resolve()}\n{info.st_size}\n{info.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = cache / f"{without_suffix(archive.name)}-{digest}"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=cache))
    except OSError as error:
        raise UserError(
            f"Expected a directory to unpack {archive} into. Received: {cache}: {error.strerror}. "
            "Choose another with data.cache_dir=DIR."
        ) from error
    try:
        _unpack(archive, building)
        try:
            building.rename(target)
        except OSError as error:
            if not target.is_dir():  # otherwise another run was faster; its copy is as good
                raise _failed(archive, cache, error) from error
        return target
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unpack(archive: Path, target: Path) -> None:
    kind = "tar"
    try:
        if not stat.S_ISREG(archive.stat().st_mode):
            raise UserError(f"Expected an archive. Received: {archive}, which is no plain file.")
        with archive.open("rb") as file:
            head = file.read(512)
        for start, what in _OTHER_KINDS.items():
            if head.startswith(start):
                raise UserError(
                    f"Expected a zip or tar archive. Received: {archive}, {what}. "
                    "Unpack it by hand and put the folder that it unpacks to beside it."
                )
        is_tar = head[257:262] == b"ustar" or head.startswith(tuple(OPENERS))
        if head.startswith(b"PK") or (archive.name.lower().endswith(".zip") and not is_tar):
            kind = "zip"
            _write_all(archive, target, of_zip)
        else:
            _write_all(archive, target, of_tar)
    except UserError:
        raise
    except OSError as error:
        if error.errno is None or isinstance(error, gzip.BadGzipFile):
            raise _damaged(kind, archive, error) from error
        if str(error.filename) == str(archive):
            raise UserError(
                f"Expected an archive that can be read. Received: {archive}: {error.strerror}. "
                "See who may read it, or copy it to where you may."
            ) from error
        raise _failed(archive, target.parent, error) from error
    except EOFError as error:
        raise _damaged(kind, archive, "it ends too early, as a download that broke off") from error
    except Exception as error:
        # zipfile, tarfile and their decompressors raise nearly anything on damaged data.
        raise _damaged(kind, archive, error) from error


def _failed(archive: Path, cache: Path, error: OSError) -> UserError:
    return UserError(
        f"Unpacking {archive} into {cache} failed: {error.strerror or error}. "
        "Choose another place with data.cache_dir=DIR."
    )


def _damaged(kind: str, archive: Path, why: object) -> UserError:
    return UserError(
        f"Expected a {kind} archive that can be unpacked. Received: {archive}: {why}. "
        "Download it again, or put the folder that it unpacks to beside it."
    )


def _write_all(
    archive: Path, target: Path, members: Callable[[Path, Room], Iterator[Member]]
) -> None:
    room = Room(archive, target)
    repeated = 0
    names: set[str] = set()
    with progress_bar() as bar:
        task = bar.add_task(f"unpacking {archive.name}", total=None, note="")
        for member in members(archive, room):
            if room.members_known is not None:
                bar.update(task, total=room.members_known)
            if not is_junk(member.name):
                room.take(member.size)
                repeated += _write(member, target, archive, names)
            bar.advance(task)
    if repeated:
        log.info(f"{archive} has {repeated} names more than once; the last of each was taken.")


def _write(member: Member, target: Path, archive: Path, names: set[str]) -> bool:
    """Writes a file or makes a folder, with plain permissions; whether it replaced another.

    Args:
        member: What is written.
        target: The folder that the archive is unpacked to.
        archive: Is named in errors.
        names: The files written before; receives this one.
    """
    path = target / member.name
    try:
        if member.open is None:
            path.mkdir(parents=True, exist_ok=True)
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        repeats = path.is_file()
        name = str(PurePosixPath(member.name))
        if repeats and name not in names:
            raise UserError(
                f"Expected names that this disk can tell apart. Received: {archive} with "
                f"{member.name!r} and the same in another case. {BY_HAND}"
            )
        names.add(name)
        with member.open() as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            written = file.tell()
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise ValueError(f"{member.name!r} is both a file and a folder") from error
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            raise UserError(
                f"Expected names that can be written in {target.parent}. Received: {archive} with "
                f"{member.name[:40]!r}…, {len(member.name)} characters: {error.strerror}. "
                f"{BY_HAND}"
            ) from error
        raise
    if written != member.size:
        raise EOFError
    return repeats
