"""Archives that are not trusted: unpacked once, whole or not at all, and nowhere else."""

import gzip
import io
import logging
import os
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from carcls.data import archive_members, archive_room
from carcls.data.archives import (
    ARCHIVE_SUFFIXES,
    default_cache_dir,
    is_archive,
    unpack_once,
    without_suffix,
)
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


def zip_made_by(path: Path, system: int, mode: int) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        info = zipfile.ZipInfo("1.jpg")
        info.create_system, info.external_attr = system, mode << 16
        zipped.writestr(info, PHOTO)
    return path


def test_the_kind_of_a_member_is_that_of_unix_where_the_zip_was_made_on_one(tmp_path, cache):
    (tmp_path / "in").mkdir()
    for system in (0, 10):  # DOS and Windows, where these bits mean nothing
        archive = zip_made_by(tmp_path / "in" / f"{system}.zip", system, 0x5020)
        assert files(unpack_once(archive, cache)) == {"1.jpg": PHOTO}
    for system in (3, 19):  # Unix and macOS
        archive = zip_made_by(tmp_path / "in" / f"{system}.zip", system, stat.S_IFCHR | 0o644)
        assert "with the device '1.jpg'. Nothing" in refusal(archive, tmp_path / f"cache{system}")


@pytest.mark.skipif(os.name == "nt", reason="there a letter and a colon are a drive")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_class_may_begin_with_a_letter_and_a_colon(tmp_path, cache, kind):
    name = "A: trucks/1.jpg"
    if kind == "zip":
        archive = write_zip(tmp_path / "train.zip", {name: PHOTO})
    else:
        archive = write_tar(tmp_path / "train.tgz", member(name, PHOTO))
    assert files(unpack_once(archive, cache)) == {name: PHOTO}


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
    assert text.startswith("Expected room for the 0.")
    assert text.endswith("Choose another place with data.cache_dir=DIR.")


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(tmp_path):
    archive = write_zip(tmp_path / "train.zip", {"1.jpg": PHOTO})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Choose another with data\.cache_dir=DIR\.$"):
        unpack_once(archive, tmp_path / "file")


def test_a_cache_that_a_whole_archive_cannot_be_renamed_in_is_told(tmp_path, cache):
    archive = write_zip(tmp_path / "train.zip", {"1.jpg": PHOTO})
    target = unpack_once(archive, cache)
    shutil.rmtree(target)
    target.touch()  # a file where the folder goes
    with pytest.raises(UserError) as caught:
        unpack_once(archive, cache)
    assert str(caught.value) == (
        f"Unpacking {archive} into {cache / 'unpacked'} failed: Not a directory. "
        "Choose another place with data.cache_dir=DIR."
    )
    assert list((cache / "unpacked").iterdir()) == [target]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_archive_that_may_not_be_read_says_so(tmp_path, cache):
    archive = write_zip(tmp_path / "train.zip", {"1.jpg": PHOTO})
    archive.chmod(0)
    with pytest.raises(UserError) as caught:
        unpack_once(archive, cache)
    assert str(caught.value) == (
        f"Expected an archive that can be read. Received: {archive}: Permission denied. "
        "See who may read it, or copy it to where you may."
    )


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


TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tbz2": "w:bz2",
        ".tar.xz": "w:xz", ".txz": "w:xz"}  # fmt: skip


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(data)


def write_tar(path: Path, *members, mode: str = "w:gz", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, **options) as tar:
        for info, data in members:
            tar.addfile(info, data)
    return path


@pytest.mark.parametrize("suffix", TARS)
def test_tar_archives_are_unpacked_however_they_are_compressed(tmp_path, cache, suffix):
    photos = {f"train/{i % 3}/{i}.jpg": PHOTO * i for i in range(40)}
    members = [member(name, data) for name, data in photos.items()]
    folder = member("train/empty", kind=tarfile.DIRTYPE)
    archive = write_tar(tmp_path / f"train{suffix}", folder, *members, mode=TARS[suffix])
    unpacked = unpack_once(archive, cache)
    assert files(unpacked) == photos
    assert (unpacked / "train" / "empty").is_dir()
    assert unpacked.name.startswith("train-")


def test_the_content_says_what_an_archive_is_not_its_name(tmp_path, cache):
    tar = write_tar(tmp_path / "a.zip", member("1.jpg", b"tar"))
    plain = write_tar(tmp_path / "b.zip", member("1.jpg", b"plain"), mode="w")
    zipped = write_zip(tmp_path / "c.tar.gz", {"1.jpg": b"zip"})
    contents = [files(unpack_once(archive, cache))["1.jpg"] for archive in (tar, plain, zipped)]
    assert contents == [b"tar", b"plain", b"zip"]


def test_names_tell_archives():
    assert set(ARCHIVE_SUFFIXES) == {".zip", *TARS}
    assert all(is_archive(Path(f"a/TRAIN{suffix.upper()}")) for suffix in ARCHIVE_SUFFIXES)
    assert is_archive(Path("photos.7z")) and is_archive(Path("photos.rar"))
    assert not is_archive(Path("photo.zip.jpg")) and not is_archive(Path("photos.gz"))


@pytest.mark.parametrize("suffix", [*ARCHIVE_SUFFIXES, ".7z", ".rar", ".tar.zst", ".TAR.GZ"])
def test_an_archives_name_without_its_suffix_is_that_of_a_folder(suffix):
    assert without_suffix(f"train{suffix}") == "train"
    assert without_suffix(f"train.v2{suffix}") == "train.v2"


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!\x1a\x07\x01", "a RAR archive")],
)
def test_archives_of_other_kinds_are_refused_with_advice(tmp_path, cache, start, what):
    archive = tmp_path / "in" / "photos.zip"
    archive.parent.mkdir()
    archive.write_bytes(start + bytes(100))
    assert refusal(archive, cache) == (
        f"Expected a zip or tar archive. Received: {archive}, {what}. "
        "Unpack it by hand and put the folder that it unpacks to beside it."
    )


@pytest.mark.parametrize(
    ("evil", "what"),
    [
        (member("../evil.jpg", b"x"), "'../evil.jpg'"),
        (member("a/../../evil.jpg", b"x"), "'a/../../evil.jpg'"),
        (member("/evil.jpg", b"x"), "'/evil.jpg'"),
        (member("C:\\evil.jpg", b"x"), "'C:\\\\evil.jpg'"),
        (member("photos", kind=tarfile.SYMTYPE, linkname="/etc"), "the link 'photos'"),
        (member("photos", kind=tarfile.LNKTYPE, linkname="good.jpg"), "the link 'photos'"),
        (member("evil", kind=tarfile.CHRTYPE, devmajor=1, devminor=5), "the device 'evil'"),
        (member("evil", kind=tarfile.FIFOTYPE), "the device 'evil'"),
    ],
)
def test_a_tar_that_would_reach_out_of_its_folder_is_refused(tmp_path, cache, evil, what):
    archive = write_tar(tmp_path / "in" / "train.tar.gz", member("good.jpg", PHOTO), evil)
    assert refusal(archive, cache) == (
        "Expected members that stay inside the archive's own folder. "
        f"Received: {archive} with {what}. Nothing was unpacked; do not trust this archive."
    )
    assert not list(tmp_path.rglob("*evil*"))


def test_members_get_plain_permissions(tmp_path, cache):
    tar = write_tar(tmp_path / "a.tar", member("d/1.jpg", PHOTO, mode=0o000),
                    member("d/2.jpg", PHOTO, mode=0o6777), mode="w")  # fmt: skip
    zipped = tmp_path / "b.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        info = zipfile.ZipInfo("d/1.jpg")
        info.external_attr = stat.S_IFREG << 16  # mode 000
        file.writestr(info, PHOTO)
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    for archive in (tar, zipped):
        unpacked = [path for path in unpack_once(archive, cache).rglob("*") if path.is_file()]
        assert {path.stat().st_mode for path in unpacked} == {usual}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_a_name_that_comes_twice_the_last_is_taken_and_told(tmp_path, cache, caplog, kind):
    caplog.set_level(logging.INFO)
    if kind == "zip":
        archive = tmp_path / "train.zip"
        with zipfile.ZipFile(archive, "w") as zipped:
            for name, data in (("1.jpg", b"old"), ("1.JPG", b"other"), ("1.jpg", b"new")):
                zipped.writestr(name, data)
    else:
        archive = write_tar(tmp_path / "train.tgz", member("1.jpg", b"older"),
                            member("1.JPG", b"other"), member("1.jpg", b"new"))  # fmt: skip
    assert files(unpack_once(archive, cache)) == {"1.jpg": b"new", "1.JPG": b"other"}
    assert caplog.messages == [f"{archive} has 1 names more than once; the last of each was taken."]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_come_twice_need_no_list_of_their_folder(tmp_path, cache, monkeypatch):
    monkeypatch.delattr(Path, "iterdir")  # each time it would take as long as there are files
    archive = tmp_path / "train.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for number in range(40):
            zipped.writestr(f"d/{number // 2}.jpg", str(number))
    assert files(unpack_once(archive, cache)) == {
        f"d/{number}.jpg": str(2 * number + 1).encode() for number in range(20)
    }


def test_a_name_of_a_file_and_of_a_folder_is_damage(tmp_path, cache):
    archive = write_zip(tmp_path / "in" / "train.zip", {"a": b"1", "a/b": b"2"})
    assert "train.zip: 'a/b' is both a file and a folder. Download" in refusal(archive, cache)


def test_a_name_that_is_too_long_for_the_disk_is_told(tmp_path, cache):
    archive = write_tar(tmp_path / "in" / "train.tar", member("n" * 300, b"x"), mode="w")
    text = refusal(archive, cache)
    assert f"Received: {archive} with '{'n' * 40}'…, 300 characters: File name too long. " in text


def test_archives_inside_stay_packed(tmp_path, cache):
    archive = write_zip(tmp_path / "all.zip", {"train.zip": b"PK", "b.tar.gz": b"x", "1.jpg": b"x"})
    assert set(files(unpack_once(archive, cache))) == {"train.zip", "b.tar.gz", "1.jpg"}


def test_an_encrypted_archive_is_told(tmp_path, cache):
    archive = write_zip(tmp_path / "in" / "train.zip", {"1.jpg": PHOTO})
    data = bytearray(archive.read_bytes())
    data[data.find(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    assert refusal(archive, cache) == (
        f"Expected an archive without a password. Received: {archive} with the encrypted "
        "'1.jpg'. Unpack it by hand and put the folder beside it."
    )


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Машина 1.jpg".encode("cp866"), "Машина 1.jpg"),
        ("Машины/ВАЗ-2101.jpg".encode("cp866"), "Машины/ВАЗ-2101.jpg"),
        ("Käfer.jpg".encode("cp437"), "Käfer.jpg"),
        ("Машина.jpg".encode(), "Машина.jpg"),
        ("日本.jpg".encode(), "日本.jpg"),
        (b"\xff\xfe.jpg", "\xa0■.jpg"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_in_an_encoding_that_is_not_told_are_read(tmp_path, cache, raw, shown, kind):
    if kind == "zip":
        archive = write_zip(tmp_path / "train.zip", {"n" * len(raw): b"x"})
        archive.write_bytes(archive.read_bytes().replace(b"n" * len(raw), raw))
    else:
        name = raw.decode("utf-8", "surrogateescape")
        options = {"format": tarfile.GNU_FORMAT, "encoding": "utf-8"}
        archive = write_tar(tmp_path / "train.tar", member(name, b"x"), mode="w", **options)
    assert files(unpack_once(archive, cache)) == {shown: b"x"}


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, cache):
    archive = write_zip(tmp_path / "in" / "train.zip", {"1.jpg": bytes(10_000)})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\1\2") + 24, 3_000_000_000)  # what it declares
    archive.write_bytes(data)
    assert refusal(archive, cache) == (
        "Expected an archive that unpacks to at most 200 times its size. "
        f"Received: {archive}, 0.0 MB, which unpacks to 3.0 GB or more, as bombs do. "
        "If you trust it, unpack it by hand and put the folder beside it."
    )


@pytest.mark.parametrize("how", ["one member says so", "many do", "the header of one"])
def test_a_tar_bomb_is_refused_while_it_is_unpacked(tmp_path, cache, monkeypatch, how):
    monkeypatch.setattr(archive_room, "_ALWAYS_ALLOWED_BYTES", 1_000_000)
    monkeypatch.setattr(archive_members, "_MAX_HEADER_BYTES", 4_000_000)
    members = [member(f"{i}.jpg", bytes(300_000)) for i in range(20 if how == "many do" else 1)]
    if how == "one member says so":
        members += [member("big.jpg", bytes(9_000_000))]
    elif how == "the header of one":
        members += [member("x", bytes(5_000_000), tarfile.XHDTYPE)]
    archive = write_tar(tmp_path / "in" / "train.tar.gz", *members)
    text = refusal(archive, cache)
    if how == "the header of one":
        assert "it has a header of 5 MB, as bombs do" in text
    else:
        assert "Expected an archive that unpacks to at most 200 times its size." in text


def test_a_zip_whose_members_share_their_bytes_is_refused(tmp_path, cache):
    archive = write_zip(tmp_path / "in" / "train.zip", {"1.jpg": PHOTO, "2.jpg": PHOTO})
    data = bytearray(archive.read_bytes())
    second = data.rfind(b"PK\1\2")
    struct.pack_into("<I", data, second + 42, 10)  # where it says that it begins
    archive.write_bytes(data)
    assert "overlaps another member, as bombs do. Download" in refusal(archive, cache)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members_are_refused(tmp_path, cache, monkeypatch, kind):
    monkeypatch.setattr(archive_room, "_MAX_MEMBERS", 5)
    names = [f"{i}.jpg" for i in range(9)]
    if kind == "zip":
        archive = write_zip(tmp_path / "in" / "a.zip", dict.fromkeys(names, b"x"))
    else:
        archive = write_tar(tmp_path / "in" / "a.tgz", *(member(name, b"x") for name in names))
    text = refusal(archive, cache)
    count = 9 if kind == "zip" else 6
    assert text.startswith("Expected an archive of at most 5 files and folders. Received: ")
    assert f"with {count} or more. If you trust it, unpack it by hand" in text


def test_a_tar_that_outgrows_the_disk_is_refused(tmp_path, cache, monkeypatch):
    archive = write_tar(tmp_path / "in" / "a.tgz", *(member(f"{i}", PHOTO) for i in range(9)))
    usage = type("Usage", (), {"free": 5 * len(PHOTO)})
    monkeypatch.setattr("carcls.data.archives.shutil.disk_usage", lambda _: usage)
    assert refusal(archive, cache).startswith("Expected room for the 0.")


@pytest.mark.parametrize("suffix", TARS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_tar_says_so_and_leaves_nothing(tmp_path, cache, suffix, share):
    numbers = random.Random(0)
    members = [member(f"{i}.jpg", numbers.randbytes(5_000)) for i in range(20)]
    archive = write_tar(tmp_path / "in" / f"a{suffix}", *members, mode=TARS[suffix])
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    text = refusal(archive, cache)
    assert text.startswith(f"Expected a tar archive that can be unpacked. Received: {archive}: ")
    assert text.endswith("Download it again, or put the folder that it unpacks to beside it.")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_that_is_damaged_in_the_middle_is_not_taken_for_a_shorter_one(
    tmp_path, cache, suffix
):
    members = [member(f"{i}.jpg", PHOTO) for i in range(9)]
    archive = write_tar(tmp_path / "in" / "a.tar", *members, mode="w")
    data = bytearray(archive.read_bytes())
    data[4 * 1024 + 3] ^= 1  # in the header of the fifth
    archive.write_bytes(data if suffix == ".tar" else gzip.compress(data))
    assert "a.tar: it is damaged in the middle. Download it again" in refusal(archive, cache)


def test_a_tar_that_ends_between_two_members_is_truncated_too(tmp_path, cache):
    archive = write_tar(tmp_path / "in" / "a.tar", *(member(f"{i}", PHOTO) for i in range(9)),
                        mode="w")  # fmt: skip
    archive.write_bytes(archive.read_bytes()[: 4 * 1024])
    assert "a.tar: it ends too early, as a download that broke off. " in refusal(archive, cache)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_left_behind_when_the_user_stops_it(tmp_path, cache, monkeypatch, kind):
    if kind == "zip":
        archive = write_zip(tmp_path / "a.zip", {"1.jpg": PHOTO, "2.jpg": PHOTO})
    else:
        archive = write_tar(tmp_path / "a.tgz", member("1.jpg", PHOTO), member("2.jpg", PHOTO))

    def stop(source, file, length):
        file.write(source.read(10))
        raise KeyboardInterrupt

    monkeypatch.setattr("carcls.data.archives.shutil.copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack_once(archive, cache)
    assert list((cache / "unpacked").iterdir()) == []
