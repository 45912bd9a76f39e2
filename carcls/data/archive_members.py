"""What is in a zip or tar archive that is not trusted: each entry is checked, then given."""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from carcls.data.archive_room import Room
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.errors import UserError

_MAX_HEADER_BYTES = 1 << 24  # read at once; tarfile would take a header of any size into memory
_CHUNK_BYTES = 1 << 20

OPENERS: dict[bytes, Callable[[Path], BinaryIO]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(slots=True)
class Member:
    """What is left of an entry once it is checked: a folder or a plain file.

    Attributes:
        name: Its path in the archive.
        size: Its bytes when unpacked.
        open: Gives its content; None for a folder.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO] | None


def of_zip(archive: Path, room: Room) -> Iterator[Member]:
    """The members of a zip, all of them checked, and their sum, before the first is given."""
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
            members.append(Member(name, info.file_size, opened))
        _check_apart(infos)
        wanted = [member for member in members if not is_junk(member.name)]
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


def of_tar(archive: Path, room: Room) -> Iterator[Member]:
    """The members of a tar, compressed or not, one after the other: `room` counts what is read."""
    with archive.open("rb") as file:
        head = file.read(6)
    opener = next((o for start, o in OPENERS.items() if head.startswith(start)), None)
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
                yield Member(checked, info.size if info.isreg() else 0, opened)
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

    def __init__(self, file: BinaryIO, room: Room) -> None:
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


def is_junk(name: str) -> bool:
    """Whether a member is what a system leaves behind."""
    leftovers = SYSTEM_LEFTOVERS | {".DS_Store"}
    return any(part in leftovers for part in PurePosixPath(name).parts)
