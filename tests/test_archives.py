"""Archives that are not trusted: unpacked once, whole or not at all, and nowhere else."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from carcls.data.archives import default_cache_dir, unpack_once
from carcls.errors import UserError

PHOTO = b"as good as a photo " * 20


def write_zip(path: Path, members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo("")
            info.filename = name  # as it is: ZipInfo's own argument would be made a polite path
            info.compress_type = compression
            archive.writestr(info, data)
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def refusal(archive: Path, cache: Path) -> str:
    """The text of the refusal, after which nothing may have been written."""
    before = files(archive.parent)
    with pytest.raises(UserError) as caught:
        unpack_once(archive, cache)
    assert files(archive.parent) == before
    assert list((cache / "unpacked").iterdir()) == []
    return str(caught.value)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def test_an_archive_is_unpacked_once(tmp_path, cache, capsys):
    archive = write_zip(tmp_path / "train.zip", {"train/3/1.jpg": PHOTO, "train/4/2.jpg": b"2"})
    folder = unpack_once(archive, cache)
    assert folder.parent == cache / "unpacked"
    assert files(folder) == {"train/3/1.jpg": PHOTO, "train/4/2.jpg": b"2"}
    (folder / "train/4/2.jpg").write_bytes(b"touched")
    assert unpack_once(archive, cache) == folder
    assert (folder / "train/4/2.jpg").read_bytes() == b"touched"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert capsys.readouterr() == ("", "")


def test_nothing_is_written_beside_the_archive(tmp_path, cache):
    archive = write_zip(tmp_path / "input" / "train.zip", {"1.jpg": PHOTO})
    archive.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert files(unpack_once(archive, cache)) == {"1.jpg": PHOTO}
        assert [path.name for path in archive.parent.iterdir()] == ["train.zip"]
    finally:
        archive.parent.chmod(stat.S_IRWXU)


def test_a_changed_archive_is_unpacked_anew(tmp_path, cache):
    archive = write_zip(tmp_path / "train.zip", {"1.jpg": b"old"})
    first = unpack_once(archive, cache)
    write_zip(archive, {"1.jpg": b"new"})
    os.utime(archive, ns=(1, 1))  # of the same size, and whatever the clock's resolution
    second = unpack_once(archive, cache)
    assert files(first) == {"1.jpg": b"old"}
    assert files(second) == {"1.jpg": b"new"}


def test_archives_of_one_name_do_not_share_a_folder(tmp_path, cache):
    one = unpack_once(write_zip(tmp_path / "a" / "train.zip", {"1.jpg": b"a"}), cache)
    other = unpack_once(write_zip(tmp_path / "b" / "train.zip", {"1.jpg": b"b"}), cache)
    assert (files(one), files(other)) == ({"1.jpg": b"a"}, {"1.jpg": b"b"})


def test_what_desktops_add_is_left_out(tmp_path, cache):
    members = {"a/1.jpg": PHOTO, "__MACOSX/a/._1.jpg": b"x", "a/.DS_Store": b"x", "Thumbs.db": b"x"}
    assert files(unpack_once(write_zip(tmp_path / "a.zip", members), cache)) == {"a/1.jpg": PHOTO}


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg"],
)
def test_a_member_that_would_land_outside_is_refused(tmp_path, cache, name):
    archive = write_zip(tmp_path / "in" / "train.zip", {"good.jpg": PHOTO, name: b"evil"})
    assert refusal(archive, cache) == (
        "Expected members that stay inside the archive's own folder. "
        f"Received: {archive} with {name!r}. Nothing was unpacked; do not trust this archive."
    )
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_is_refused(tmp_path, cache):
    archive = tmp_path / "in" / "train.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as zipped:
        link = zipfile.ZipInfo("photos")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc")
        zipped.writestr("photos/passwd", "evil")
    assert f"Received: {archive} with the link 'photos'. Nothing was" in refusal(archive, cache)


def damaged(path: Path, how: str) -> Path:
    if how == "no zip":
        path.write_bytes(b"<html>please log in</html>")
    elif how == "bad lzma":
        data = bytearray(write_zip(path, {"1.jpg": PHOTO}, zipfile.ZIP_LZMA).read_bytes())
        data[50:60] = b"\xff" * 10
        path.write_bytes(data)
    elif how == "name in no encoding":
        data = write_zip(path, {"é.jpg": PHOTO}).read_bytes()
        path.write_bytes(data.replace("é".encode(), b"\xff\xff"))
    else:
        data = bytearray(write_zip(path, {"1.jpg": PHOTO}, zipfile.ZIP_STORED).read_bytes())
        if how == "changed":
            data[60] ^= 1
        path.write_bytes(data[:-30] if how == "truncated" else data)
    return path


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("no zip", "File is not a zip file"),
        ("truncated", "File is not a zip file"),
        ("changed", "Bad CRC-32 for file '1.jpg'"),
        ("bad lzma", "Corrupt input data"),
        ("name in no encoding", "'utf-8' codec can't decode byte 0xff in position 0"),
    ],
)
def test_a_damaged_archive_says_so_and_leaves_nothing(tmp_path, cache, how, why):
    (tmp_path / "in").mkdir()
    archive = damaged(tmp_path / "in" / "train.zip", how)
    text = refusal(archive, cache)
    assert text.startswith(
        f"Expected a zip archive that can be unpacked. Received: {archive}: {why}"
    )
    assert text.endswith("Download it again, or put the folder that it unpacks to beside it.")


def test_an_archive_that_needs_more_room_than_there_is_is_refused(tmp_path, cache, monkeypatch):
    archive = write_zip(tmp_path / "in" / "train.zip", {"1.jpg": PHOTO})
    usage = type("Usage", (), {"free": len(PHOTO) - 1})
    monkeypatch.setattr("carcls.data.archives.shutil.disk_usage", lambda _: usage)
    text = refusal(archive, cache)
    assert text.startswith("Expected room for the 0.0 GB that ")
    assert text.endswith("Choose another place with data.cache_dir=DIR.")


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(tmp_path):
    archive = write_zip(tmp_path / "train.zip", {"1.jpg": PHOTO})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Choose another with data\.cache_dir=DIR\.$"):
        unpack_once(archive, tmp_path / "file")


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "carcls"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "carcls"


def test_separators_of_windows_make_folders(tmp_path, cache):
    archive = tmp_path / "train.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in (("train\\", b""), ("train\\a\\1.jpg", b"x")):
            member = zipfile.ZipInfo("placeholder")
            member.filename = name
            zipped.writestr(member, content)
    assert files(unpack_once(archive, cache)) == {"train/a/1.jpg": b"x"}
