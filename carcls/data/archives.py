"""Unpacking an archive that is not trusted, once, into a cache."""

import bz2
import errno
import gzip
import hashlib
import logging
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from carcls.console import progress_bar
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.errors import UserError

log = logging.getLogger(__name__)

# Names that `unpack_once` can unpack, whatever of these kinds the file then is.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_REFUSED_SUFFIXES = (".7z", ".rar", ".tar.zst")

_MAX_MEMBERS = 5_000_000
# Photos hardly shrink. What unpacks to more than both of these is taken for a bomb.
_MAX_RATIO = 200
_ALWAYS_ALLOWED_BYTES = 1_000_000_000
_MAX_HEADER_BYTES = 1 << 24  # read at once; tarfile would take a header of any size into memory
_CHUNK_BYTES = 1 << 20

_OPENERS: dict[bytes, Callable[[Path], BinaryIO]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
}


@dataclass(slots=True)
class _Member:
    """What is left of an entry once it is checked: a folder or a plain file.

    Attributes:
        name: Its path in the archive.
        size: Its bytes when unpacked.
        open: Gives its content; None for a folder.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO] | None


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
        is_tar = head[257:262] == b"ustar" or head.startswith(tuple(_OPENERS))
        if head.startswith(b"PK") or (archive.name.lower().endswith(".zip") and not is_tar):
            kind = "zip"
            _write_all(archive, target, _of_zip)
        else:
            _write_all(archive, target, _of_tar)
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
    archive: Path, target: Path, members: Callable[[Path, "_Room"], Iterator[_Member]]
) -> None:
    room = _Room(archive, target)
    repeated = 0
    names: set[str] = set()
    with progress_bar() as bar:
        task = bar.add_task(f"unpacking {archive.name}", total=None, note="")
        for member in members(archive, room):
            if room.members_known is not None:
                bar.update(task, total=room.members_known)
            if not _is_junk(member.name):
                room.take(member.size)
                repeated += _write(member, target, archive, names)
            bar.advance(task)
    if repeated:
        log.info(f"{archive} has {repeated} names more than once; the last of each was taken.")


class _Room:
    """How much an archive may unpack to: counted, since tar and bombs do not say it before."""

    def __init__(self, archive: Path, target: Path) -> None:
        self.archive = archive
        self.members_known: int | None = None
        self._place = target.parent
        self._free_bytes = shutil.disk_usage(target).free
        self._limit = max(_MAX_RATIO * archive.stat().st_size, _ALWAYS_ALLOWED_BYTES)
        self._taken_bytes = 0
        self._members = 0
        self._free_files = os.statvfs(target).f_favail if hasattr(os, "statvfs") else 0

    def take(self, size: int) -> None:
        """A member of so many bytes more."""
        self._taken_bytes += size
        self._members += 1
        self.check(self._taken_bytes, self._members)

    def check(self, num_bytes: int, members: int = 0) -> None:
        """Refuses an archive of so many bytes or members, which may be only its beginning."""
        allowed = min(_MAX_MEMBERS, self._free_files or _MAX_MEMBERS)  # 0: not limited
        if members > allowed:
            raise UserError(
                f"Expected an archive of at most {allowed:,} files and folders. Received: "
                f"{self.archive} with {members:,} or more. {_BY_HAND}"
            )
        if num_bytes > self._limit:
            raise UserError(
                f"Expected an archive that unpacks to at most {_MAX_RATIO} times its size. "
                f"Received: {self.archive}, {self.archive.stat().st_size / 1e6:.1f} MB, which "
                f"unpacks to {num_bytes / 1e9:.1f} GB or more, as bombs do. {_BY_HAND}"
            )
        if num_bytes > self._free_bytes:
            raise UserError(
                f"Expected room for the {_size(num_bytes)} that {self.archive} unpacks to. "
                f"Received: {_size(self._free_bytes)} free in {self._place}. "
                "Choose another place with data.cache_dir=DIR."
            )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


_BY_HAND = "If you trust it, unpack it by hand and put the folder beside it."


def _write(member: _Member, target: Path, archive: Path, names: set[str]) -> bool:
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
                f"{member.name!r} and the same in another case. {_BY_HAND}"
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
                f"{_BY_HAND}"
            ) from error
        raise
    if written != member.size:
        raise EOFError
    return repeats


def _of_zip(archive: Path, room: _Room) -> Iterator[_Member]:
    room.check(0, _entries_of_zip(archive))
    with zipfile.ZipFile(archive) as zipped:
        infos = zipped.infolist()
        read = _reader_of_names([_raw_name(i) for i in infos if not i.flag_bits & 0x800])
        members = []
        for info in infos:
            name = info.filename if info.flag_bits & 0x800 else read(_raw_name(info))
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            # Elsewhere than on Unix and macOS these bits mean nothing.
            if info.create_system in (3, 19) and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "link" if stat.S_ISLNK(mode) else "device"
                raise _escapes(archive, f"the {what} {name!r}")
            name = _checked_name(name, archive)
            if info.flag_bits & 1:
                raise UserError(
                    f"Expected an archive without a password. Received: {archive} with the "
                    f"encrypted {name!r}. Unpack it by hand and put the folder beside it."
                )
            # zipfile stops at the size that the member declares: what is declared is the limit.
            opened = None if name.endswith("/") else lambda info=info: zipped.open(info)
            members.append(_Member(name, info.file_size, opened))
        _check_apart(infos)
        wanted = [member for member in members if not _is_junk(member.name)]
        room.check(sum(member.size for member in wanted), len(wanted))
        room.members_known = len(members)
        yield from members


def _entries_of_zip(archive: Path) -> int:
    """How many entries a zip says it has, which zipfile would take into memory at once."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - (1 << 16) - 200))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        return 0
    entries = int.from_bytes(tail[end + 10 : end + 12], "little")
    large = tail.rfind(b"PK\6\6", 0, end)
    size = int.from_bytes(tail[end + 12 : end + 16], "little")
    if large >= 0:
        entries = int.from_bytes(tail[large + 32 : large + 40], "little")
        size = int.from_bytes(tail[large + 40 : large + 48], "little")
    return max(entries, size // 100)  # the directory's size, which it cannot understate


def _check_apart(infos: list[zipfile.ZipInfo]) -> None:
    """Members that share their bytes are how a small zip unpacks to petabytes."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise zipfile.BadZipFile(f"{info.filename!r} overlaps another member, as bombs do")
        end = info.header_offset + 30 + info.compress_size


def _of_tar(archive: Path, room: _Room) -> Iterator[_Member]:
    with archive.open("rb") as file:
        head = file.read(6)
    opener = next((o for start, o in _OPENERS.items() if head.startswith(start)), None)
    with opener(archive) if opener else archive.open("rb") as file:
        stream = _Forward(file, room)
        # The names' bytes as they are, to be read by what all of them look like.
        with tarfile.open(
            fileobj=stream, mode="r:", encoding="ascii", errors="surrogateescape"
        ) as tar:
            for info in tar:
                tar.members = []  # else it remembers all of them
                raw = info.name.encode("utf-8", "surrogateescape")
                name = _reader_of_names([raw])(raw)
                if info.islnk() or info.issym():
                    raise _escapes(archive, f"the link {name!r}")
                if not info.isreg() and not info.isdir():
                    raise _escapes(archive, f"the device {name!r}")
                checked = _checked_name(name, archive)
                tarfile.data_filter(info.replace(name=checked or ".", deep=False), str(archive))
                opened = None if info.isdir() else lambda info=info: tar.extractfile(info)
                yield _Member(checked, info.size if info.isreg() else 0, opened)
            _check_end(stream)


def _check_end(stream: "_Forward") -> None:
    """tarfile ends at a header that it cannot read, as if no more were to come."""
    if not stream.last:
        raise EOFError
    rest = stream.last
    while rest:
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it is damaged in the middle")
        rest = stream.read(_CHUNK_BYTES)  # to its end, where the checksum is


class _Forward:
    """A stream that goes forward only, and no further than there is room."""

    def __init__(self, file: BinaryIO, room: _Room) -> None:
        self._file = file
        self._room = room
        self._position = 0
        self.last = b""  # what was read last

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"it has a header of {size / 1e6:.0f} MB, as bombs do")
        self.last = self._file.read(size)
        self._position += len(self.last)
        self._room.check(self._position // 2)  # headers and padding double small members
        return self.last

    def seek(self, position: int) -> None:
        if position < self._position:  # compressed, it would begin anew for every member
            raise tarfile.ReadError("it is not in order")
        while self._position < position:
            if not self.read(min(_CHUNK_BYTES, position - self._position)):
                raise EOFError

    def tell(self) -> int:
        return self._position


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("cp437", "replace")


def _reader_of_names(names: list[bytes]) -> Callable[[bytes], str]:
    """Names that do not say their encoding: UTF-8, else that of DOS, Russian or Western.

    Windows packs by the code page of its country. Where the characters beyond ASCII stand in words
    of their own they are taken for Cyrillic, beside Latin letters for accents.
    """
    odd = [name for name in names if not name.isascii()]
    try:
        for name in odd:
            name.decode("utf-8")
        return lambda name: name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    cyrillic = rb"[\x80-\xaf\xe0-\xf1]"
    words = [word for name in odd for word in re.findall(rb"[A-Za-z\x80-\xff]+", name)]
    words = [word for word in words if not word.isascii()]
    is_russian = all(re.fullmatch(cyrillic + rb"+", word) for word in words)
    encoding = "cp866" if is_russian and max(map(len, words)) > 1 else "cp437"
    return lambda name: name.decode(encoding)


def _checked_name(name: str, archive: Path) -> str:
    plain = name.replace("\\", "/")  # some programs write the separator of Windows
    path = PurePosixPath(plain)
    # C:/photo.jpg; on Windows C:photo.jpg leads to another drive too, elsewhere it is but a name.
    drive = "[A-Za-z]:" if os.name == "nt" else "[A-Za-z]:/"
    if path.is_absolute() or re.match(drive, plain) or ".." in path.parts:
        raise _escapes(archive, repr(name))
    if "\0" in plain:
        raise ValueError(f"the name {name!r} holds a zero byte")
    return plain


def _escapes(archive: Path, what: str) -> UserError:
    return UserError(
        "Expected members that stay inside the archive's own folder. "
        f"Received: {archive} with {what}. Nothing was unpacked; do not trust this archive."
    )


def _is_junk(name: str) -> bool:
    leftovers = SYSTEM_LEFTOVERS | {".DS_Store"}
    return any(part in leftovers for part in PurePosixPath(name).parts)
