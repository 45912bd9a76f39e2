"""How much an archive that is not trusted may unpack to."""

import os
import shutil
from pathlib import Path

from carcls.errors import UserError

_MAX_MEMBERS = 5_000_000
# Photos hardly shrink. What unpacks to more than both of these is taken for a bomb.
_MAX_RATIO = 200
_ALWAYS_ALLOWED_BYTES = 1_000_000_000

BY_HAND = "If you trust it, unpack it by hand and put the folder beside it."


class Room:
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
                f"{self.archive} with {members:,} or more. {BY_HAND}"
            )
        if num_bytes > self._limit:
            raise UserError(
                f"Expected an archive that unpacks to at most {_MAX_RATIO} times its size. "
                f"Received: {self.archive}, {self.archive.stat().st_size / 1e6:.1f} MB, which "
                f"unpacks to {num_bytes / 1e9:.1f} GB or more, as bombs do. {BY_HAND}"
            )
        if num_bytes > self._free_bytes:
            raise UserError(
                f"Expected room for the {_size(num_bytes)} that {self.archive} unpacks to. "
                f"Received: {_size(self._free_bytes)} free in {self._place}. "
                "Choose another place with data.cache_dir=DIR."
            )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
