"""Unpacking an archive that is not trusted, once, into a cache."""

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from carcls.console import progress_bar
from carcls.data.images import SYSTEM_LEFTOVERS
from carcls.errors import UserError


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/carcls`, by default `~/.cache/carcls`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carcls"


def unpack_once(archive: Path, cache_dir: Path | None = None) -> Path:
    """The folder that holds what `archive` holds, unpacked there by the first call.

    The folder is keyed by the archive's path, size and time, is built under a temporary name and
    renamed when whole, so that runs may share it at the same time.

    Args:
        archive: A zip file; it may lie in a read-only directory.
        cache_dir: Where to unpack. None: `default_cache_dir()`.

    Raises:
        UserError: If it is no zip file, is damaged, has a member that would land outside of the
            folder or is a link, or needs more room than there is.
    """
    cache = (cache_dir or default_cache_dir()) / "unpacked"
    info = archive.stat()
    key = f"{archive.resolve()}\n{info.st_size}\n{info.st_mtime_ns}"
    target = cache / f"{archive.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
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
        except OSError:
            if not target.is_dir():  # otherwise another run was faster; its copy is as good
                raise
        return target
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [_checked(member, archive) for member in zipped.infolist()]
            members = [member for member in members if not _is_junk(member)]
            needed = sum(member.file_size for member in members)
            free = shutil.disk_usage(target).free
            if needed > free:
                raise UserError(
                    f"Expected room for the {needed / 1e9:.1f} GB that {archive} unpacks to. "
                    f"Received: {free / 1e9:.1f} GB free in {target.parent}. "
                    "Choose another place with data.cache_dir=DIR."
                )
            with progress_bar() as bar:
                task = bar.add_task(f"unpacking {archive.name}", total=len(members), note="")
                for member in bar.track(members, task_id=task):
                    # zipfile stops at the size that the member declares: no bomb gets past it.
                    zipped.extract(member, target)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"Unpacking {archive} into {target.parent} failed: {error.strerror or error}. "
            "Choose another place with data.cache_dir=DIR."
        ) from error
    except Exception as error:
        # zipfile and its decompressors raise nearly anything on damaged data.
        raise UserError(
            f"Expected a zip archive that can be unpacked. Received: {archive}: {error}. "
            "Download it again, or put the folder that it unpacks to beside it."
        ) from error


def _checked(member: zipfile.ZipInfo, archive: Path) -> zipfile.ZipInfo:
    name = member.filename.replace("\\", "/")  # some programs write the separator of Windows
    path = PurePosixPath(name)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    has_drive = len(path.parts) > 0 and path.parts[0].endswith(":")
    if path.is_absolute() or has_drive or ".." in path.parts or is_link:
        raise UserError(
            f"Expected members that stay inside the archive's own folder. Received: {archive} "
            f"with {'the link ' if is_link else ''}{member.filename!r}. Nothing was unpacked; "
            "do not trust this archive."
        )
    member.filename = name
    return member


def _is_junk(member: zipfile.ZipInfo) -> bool:
    leftovers = SYSTEM_LEFTOVERS | {".DS_Store"}
    return any(part in leftovers for part in PurePosixPath(member.filename).parts)
