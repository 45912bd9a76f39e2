"""explore.py: what it finds, what it writes, and that train.py takes it back."""

import base64
import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from html import unescape
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from carcls.config import to_config, to_data_config, to_explore_config
from carcls.data.images import open_photo, resize
from carcls.data.sources import read_training_photos
from carcls.errors import UserError
from carcls.exploration import page as page_module
from carcls.exploration.explore import Exploration, explore
from carcls.exploration.look import look
from carcls.exploration.pictures import read_policies
from carcls.training.inputs import Inputs, prepare_inputs
from tests.conftest import draw_competition, write_csv
from tests.processes import run
from tests.test_cli import assert_told
from tests.test_config import composed, options

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
AWKWARD = '<b>"A & B\'s"'  # a class, and folder, that is HTML too
CYRILLIC = "Лада"


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """A picture that is like no other: soft blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def odd_folder(root: Path) -> Path:
    """Class folders with one of everything that is odd."""
    for number in range(4):
        save(root / AWKWARD / f"a{number}.jpg", scene(number))
        save(root / CYRILLIC / f"b{number}.png", scene(10 + number))
        save(root / "plain" / f"c{number}.png", scene(20 + number))
    plain = root / "plain"
    shutil.copy(plain / "c0.png", plain / "copy of c0.png")
    save(plain / "c1 again.bmp", scene(21))  # the same pixels in another file
    save(plain / "c2 small.jpg", cv2.resize(scene(22), (80, 60)), quality=60)
    shutil.copy(root / CYRILLIC / "b0.png", root / AWKWARD / "b0 too.png")
    (plain / "page.jpg").write_text("<html>gone</html>")
    whole = save(plain / "cut.jpg", scene(30, (400, 300)), quality=95)
    whole.write_bytes(whole.read_bytes()[:-2500])
    save(plain / "tiny.png", scene(31, (20, 16)))
    save(plain / "long.png", scene(32, (400, 100)))
    save(plain / "dark.png", (scene(33) // 12).astype(np.uint8))
    save(plain / "bright.png", (255 - scene(34) // 12).astype(np.uint8))
    save(plain / "blank.png", np.full((90, 90, 3), 127, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(plain / "turned.jpg", scene(35, (640, 480)), exif=exif)
    return root


def explored(workdir: Path, *overrides: str) -> Exploration:
    overrides = ("image_size=100", "runtime.workers=0", *overrides)
    return explore(to_explore_config(composed(*overrides, name="explore")), workdir)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_id(workdir: Path) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in rows_of(workdir / "findings.csv")}


def left_by_train(workdir: Path, **data: object) -> set[str]:
    """Ids that train.py takes when it is given the findings."""
    config = to_data_config({"exclude": str(workdir / "findings.csv"), **data})
    return set(read_training_photos(config).table.id)


def next_command(workdir: Path) -> str:
    (command,) = re.findall(r"<pre>(.*?)</pre>", (workdir / "explore.html").read_text())
    return unescape(command)


def trained_on(workdir: Path) -> Inputs:
    """What train.py takes when it is run as the page says."""
    words = shlex.split(next_command(workdir))[2:]
    words = [re.sub("=(.* .*)", r"='\1'", word) for word in words]  # as the command line does
    more = ("runtime.workers=0", f"data.cache_dir={workdir / 'cache'}")
    return prepare_inputs(to_config(composed(*words, *more)))


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open_tags, self.tags, self.text = [], [], []
        self.ids, self.links, self.sources, self.alts = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in ("b", "wbr", "a"):
            self.text.append(" ")
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        if tag == "img":
            self.sources.append(found["src"])
            self.alts.append(found["alt"])
        if tag not in ("meta", "img", "br", "wbr", "path", "rect", "use"):
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open_tags and self.open_tags[-1] == tag:
            self.open_tags.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def said(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, Path, Exploration]:
    """The folder, the directory of the exploration, and what it found."""
    base = tmp_path_factory.mktemp("odd")
    root = odd_folder(base / "photos")
    out = base / "out"
    found = explored(out, "data=folder", f"data.root={root}")
    return root, out, found


def test_every_kind_of_oddity_is_found_and_nothing_else(odd):
    _, out, _ = odd
    found = {(row["id"], row["finding"]): row for row in rows_of(out / "findings.csv")}
    assert {key: row["exclude"] for key, row in found.items()} == {
        ("plain/page.jpg", "unreadable"): "yes",
        (f"{AWKWARD}/b0 too.png", "conflicting_label"): "yes",
        (f"{CYRILLIC}/b0.png", "conflicting_label"): "yes",
        ("plain/c0.png", "exact_duplicate"): "no",
        ("plain/copy of c0.png", "exact_duplicate"): "yes",
        ("plain/c1 again.bmp", "exact_duplicate"): "no",
        ("plain/c1.png", "exact_duplicate"): "yes",
        ("plain/c2 small.jpg", "near_duplicate"): "no",
        ("plain/c2.png", "near_duplicate"): "no",
        ("plain/cut.jpg", "opened_in_part"): "no",
        ("plain/blank.png", "blank"): "yes",
        ("plain/tiny.png", "tiny"): "no",
        ("plain/long.png", "extreme_aspect"): "no",
        ("plain/dark.png", "dark"): "no",
        ("plain/bright.png", "bright"): "no",
    }
    assert found["plain/page.jpg", "unreadable"]["detail"] == "not an image but a web page"
    copy = found["plain/copy of c0.png", "exact_duplicate"]
    assert (copy["of"], copy["label"], copy["part"]) == ("plain/c0.png", "plain", "train")
    assert copy["detail"] == "the same pixels; left out: another copy stays"
    near = found["plain/c2.png", "near_duplicate"]
    assert re.fullmatch(r"hashes differ in \d of 64 bits", near["detail"])
    assert found["plain/tiny.png", "tiny"]["detail"] == "20×16 pixels"
    assert found["plain/long.png", "extreme_aspect"]["detail"] == "4.0 to 1"
    groups = [row["group"] for row in rows_of(out / "findings.csv") if row["group"]]
    assert groups == ["1", "1", "2", "2", "3", "3", "4", "4"], "contradictions come first"


def test_a_row_a_photo_says_what_is_known_of_it(odd):
    root, out, found = odd
    rows = {row["id"]: row for row in rows_of(out / "photos.csv")}
    assert len(rows) == len(found.looks) == sum(1 for p in root.rglob("*") if p.is_file())
    turned = rows["plain/turned.jpg"]
    assert (turned["width"], turned["height"], turned["aspect"]) == ("480", "640", "0.750")
    assert turned["format"] == "JPEG"
    assert int(turned["bytes"]) == (root / "plain" / "turned.jpg").stat().st_size
    blank = rows["plain/blank.png"]
    assert (blank["brightness"], blank["contrast"], blank["hash"]) == ("127.0", "0.0", "0" * 16)
    page = rows["plain/page.jpg"]
    assert (page["error"], page["width"], page["hash"]) == ("not an image but a web page", "", "")
    assert rows["plain/cut.jpg"]["note"] == "cut off: opened as far as it goes"
    assert rows[f"{CYRILLIC}/b1.png"]["path"] == str(root / CYRILLIC / "b1.png")


def test_train_leaves_out_what_is_suggested_and_nothing_else(odd):
    root, out, _ = odd
    excluded = {row["id"] for row in rows_of(out / "findings.csv") if row["exclude"] == "yes"}
    every = {row["id"] for row in rows_of(out / "photos.csv")}
    assert left_by_train(out, name="folder", root=str(root)) == every - excluded


def test_what_a_person_wrote_into_the_column_counts(odd, tmp_path):
    root, out, _ = odd
    rows = rows_of(out / "findings.csv")
    for row in rows:
        row["exclude"] = {"plain/dark.png": " YES", "plain/c2.png": "x"}.get(row["id"], "No")
    with (tmp_path / "findings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    every = {row["id"] for row in rows_of(out / "photos.csv")}
    left = left_by_train(tmp_path, name="folder", root=str(root))
    assert left == every - {"plain/dark.png", "plain/c2.png"}


def test_a_column_that_says_no_everywhere_leaves_nothing_out(tmp_path):
    root = odd_folder(tmp_path / "photos")
    write_csv(tmp_path / "findings.csv", [("plain/c0.png", "no")], ("id", "exclude"))
    assert "plain/c0.png" in left_by_train(tmp_path, name="folder", root=str(root))


def test_a_column_that_says_neither_yes_nor_no_is_told(tmp_path):
    root = odd_folder(tmp_path / "photos")
    write_csv(tmp_path / "findings.csv", [("plain/c0.png", "perhaps")], ("id", "exclude"))
    with pytest.raises(UserError, match=r"Expected yes or no in the column exclude of .*perhaps"):
        left_by_train(tmp_path, name="folder", root=str(root))


def test_the_page_is_one_file_without_a_script_and_leads_nowhere_else(odd):
    _, out, found = odd
    page = Page(found.page)
    assert page.open_tags == []
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert all(link.startswith("#") for link in page.links)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "http" not in re.sub(r"http://www.w3.org/\S*", "", found.page.read_text())
    assert found.page.stat().st_size < 3e6
    assert sorted(p.name for p in out.iterdir()) == ["explore.html", "findings.csv", "photos.csv"]


def test_the_page_shows_names_as_they_are(odd):
    _, _, found = odd
    page = Page(found.page)
    assert "b" in page.tags
    assert AWKWARD in page.said()
    assert f"{CYRILLIC} 4 photos" in page.said()
    assert f"{AWKWARD}/b0 too.png" in page.alts


def test_the_page_tells_it_all_from_top_to_bottom(odd):
    root, _, found = odd
    said = Page(found.page).said()
    places = [
        f"The photos of {root}",
        "24 photos",
        "3 classes",
        "What is odd",
        "1 cannot be opened 1",
        "2 the same photo in different classes 2",
        "4 copies of a photo 2",
        "2 nearly the same photo –",
        "1 one colour all over 1",
        f"data.exclude={found.page.with_name('findings.csv')} data.group_near_duplicates=true",
        "From 4 to 15 photos a class: the largest has 3.8 times as many",
        "Photos of each class",
        "Width, pixels",
        "Brightness, mean gray level",
        "not an image but a web page",
        "Photos that show the same",
        f"classes {AWKWARD}, {CYRILLIC}",
        "leave out",
        "Nearly the same photo",
        "So small that they are enlarged more than four times 1",
        "What the network will see",
        "at image_size=100 and data.resize=squash",
        "augmentation=geometric",
        "augmentation=strong",
    ]
    position = 0
    for place in places:
        assert place in said[position:], place
        position = said.index(place, position)


def test_all_policies_are_drawn_and_none_draws_one_photo_once(odd):
    _, _, found = odd
    assert sorted(read_policies()) == options("augmentation")
    alts = Page(found.page).alts
    for policy in options("augmentation"):
        draws = sum(alt.startswith(f"{policy}, draw ") for alt in alts)
        assert draws == (3 if policy == "none" else 9), policy  # of three classes a photo


def pictures_of(page: Page, start: str) -> list[np.ndarray]:
    """`(height, width, 3)` uint8 RGB each, of the pictures whose text starts so."""
    pairs = zip(page.sources, page.alts, strict=True)
    files = [source.partition(",")[2] for source, alt in pairs if alt.startswith(start)]
    pictures = [Image.open(io.BytesIO(base64.b64decode(file))) for file in files]
    return [np.asarray(picture.convert("RGB")) for picture in pictures]


def test_a_policy_changes_photos_and_draws_each_anew(odd):
    _, _, found = odd
    page = Page(found.page)
    plain = pictures_of(page, "none, draw ")
    strong = pictures_of(page, "strong, draw ")
    assert (len(plain), len(strong)) == (3, 9)
    for number, picture in enumerate(plain):
        same = [picture, *strong[3 * number : 3 * number + 3]]
        for first, second in combinations(same, 2):
            assert np.abs(first.astype(int) - second).mean() > 4


def test_what_the_network_sees_is_shown_to_the_pixel(odd):
    _, _, found = odd
    page = Page(found.page)
    paths = dict(found.found.table[["id", "path"]].itertuples(index=False))
    shown = [
        (source.partition(",")[2], paths[alt])
        for source, alt in zip(page.sources, page.alts, strict=True)
        if "image/png" in source
    ]
    assert len(shown) == 3
    for png, path in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert np.array_equal(pixels, resize(open_photo(path, min_side=100), 100, "squash"))
        assert pixels.any()


def test_processes_find_the_same(odd, tmp_path):
    root, out, _ = odd
    explored(tmp_path, "data=folder", f"data.root={root}", "runtime.workers=2")
    for name in ("findings.csv", "photos.csv"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_competition_goes_on_where_train_would_stop(tmp_path):
    root = draw_competition(tmp_path / "data")
    rows = [tuple(row.values()) for row in rows_of(root / "train.csv")]
    first = rows[0][0]
    moved = next(root.glob("train/12/*"))
    shutil.move(moved, root / "train" / "007" / moved.name)
    (root / "train" / "12" / "stray.png").write_bytes((root / "train" / "007" / first).read_bytes())
    write_csv(root / "train.csv", [*rows, ("gone.png", "12"), ("nothing.png", ""), rows[1]])
    with (root / "sample-submission.csv").open("a") as file:
        file.write("lost.png,007\n")
    out = tmp_path / "out"
    explored(out, f"data.root={root}")
    told = {(row["id"], row["part"]): row for row in rows_of(out / "findings.csv")
            if row["finding"] == "left_out"}  # fmt: skip
    assert {key: (row["detail"], row["exclude"]) for key, row in told.items()} == {
        ("gone.png", "train"): ("no photo", "yes"),
        ("nothing.png", "train"): ("no Category", "yes"),
        (moved.name, "train"): ("in the folder 007, the CSV says 12", "yes"),
        (rows[1][0], "train"): ("the same row again", "no"),
        ("12/stray.png", "train"): ("no row in train.csv", "no"),
        ("lost.png", "test"): ("no photo of that Id", "no"),
    }
    said = Page(out / "explore.html").said()
    assert "Rows, photos and folders that do not match 6" in said
    assert "data.on_missing=skip" in said
    data = {"name": "kaggle", "root": str(root)}
    with pytest.raises(UserError, match="Expected every photo once"):
        left_by_train(out, **data)
    everything = {row[0] for row in rows} - {moved.name}
    assert left_by_train(out, on_missing="skip", **data) == everything
    # Without what cannot be named by an id, nothing else needs saying.
    (root / "train" / "12" / "stray.png").unlink()
    write_csv(root / "train.csv", [*rows, ("gone.png", "12"), ("nothing.png", "")])
    explored(out, f"data.root={root}")
    assert left_by_train(out, **data) == everything
    assert "data.on_missing" not in Page(out / "explore.html").said()


def copied_into_test(root: Path) -> tuple[Path, Path]:
    """A competition of which a training photo is a test photo too."""
    train = sorted(root.glob("train/007/*"))[0]
    test = sorted(root.glob("test_upload/*"))[0]
    shutil.copy(train, test)
    return train, test


def test_a_competition_keeps_training_photos_that_are_in_test(tmp_path):
    root = draw_competition(tmp_path / "data")
    train, test = copied_into_test(root)
    explored(tmp_path / "out", f"data.root={root}")
    found = by_id(tmp_path / "out")
    across = {i for i, row in found.items() if row["finding"] == "across_train_and_test"}
    assert across == {train.name, test.name}
    assert {row["exclude"] for row in found.values()} == {"no"}
    assert found[test.name]["of"] == train.name
    assert found[test.name]["part"] == "test"
    said = Page(tmp_path / "out" / "explore.html").said()
    assert "The same photo in train and in test 2 photos in 1 group" in said
    assert "Nothing is suggested to leave out" in said
    assert "data.exclude=findings.csv" in said
    left = left_by_train(tmp_path / "out", name="kaggle", root=str(root))
    assert len(left) == 18


def test_where_the_classes_of_test_are_known_its_photos_are_not_trained_on(tmp_path):
    root = draw_competition(tmp_path / "data")
    train, test = copied_into_test(root)
    write_csv(root / "test-labels.csv", [(test.name, "007"), ("900.png", "12")])
    explored(tmp_path / "out", f"data.root={root}")
    found = by_id(tmp_path / "out")
    assert (found[train.name]["exclude"], found[test.name]["exclude"]) == ("yes", "no")
    assert "left out: a test photo, whose class is known, is it" in found[train.name]["detail"]
    left = left_by_train(tmp_path / "out", name="kaggle", root=str(root))
    assert train.name not in left
    assert len(left) == 17


def test_of_copies_in_train_and_val_the_one_that_validates_stays(tmp_path):
    root = tmp_path / "photos"
    for part, first in (("train", 0), ("val", 100)):
        for number in range(4):
            save(root / part / "ab"[number % 2] / f"{number}.png", scene(first + number))
    shutil.copy(root / "val" / "a" / "0.png", root / "train" / "a" / "too.png")
    explored(tmp_path / "out", "data=folder", f"data.root={root}")
    found = by_id(tmp_path / "out")
    assert {i: (row["part"], row["finding"], row["exclude"]) for i, row in found.items()} == {
        "val/a/0.png": ("val", "across_train_and_val", "no"),
        "train/a/too.png": ("train", "across_train_and_val", "yes"),
    }
    left = left_by_train(tmp_path / "out", name="folder", root=str(root))
    assert "train/a/too.png" not in left
    assert len(left) == 8


def test_ids_that_stand_in_several_class_folders_are_told_apart(tmp_path):
    root = tmp_path / "data"
    rows = []
    for label, first in (("a", 0), ("b", 50)):
        for number in range(4):
            save(root / "train" / label / f"{number}.png", scene(first + number))
            rows.append((f"{number}.png", label))
    shutil.copy(root / "train" / "a" / "0.png", root / "train" / "a" / "3.png")
    write_csv(root / "train.csv", rows)
    explored(tmp_path / "out", f"data.root={root}")
    config = to_data_config(
        {"name": "kaggle", "root": str(root), "exclude": str(tmp_path / "out" / "findings.csv")}
    )
    photos = read_training_photos(config)
    left = {(row.id, photos.class_names[row.label]) for row in photos.table.itertuples()}
    assert left == set(rows) - {("3.png", "a")}


def test_any_csv_is_looked_at_and_its_findings_taken_back(tmp_path):
    rows = []
    for number in range(8):
        save(tmp_path / "photos" / f"{number}.png", scene(number))
        rows.append((f"{number}.png", "ab"[number % 2], "test" if number > 5 else "train"))
    shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / "2.png")
    write_csv(tmp_path / "list.csv", rows, ("file", "model", "part"))
    out = tmp_path / "out"
    data = {
        "csv": str(tmp_path / "list.csv"), "root": str(tmp_path / "photos"), "id_column": "file",
        "label_column": "model", "split_column": "part",
    }  # fmt: skip
    explored(out, "data=csv", *(f"data.{key}={value}" for key, value in data.items()))
    assert {i: row["exclude"] for i, row in by_id(out).items()} == {"0.png": "no", "2.png": "yes"}
    assert left_by_train(out, name="csv", **data) == {f"{n}.png" for n in (0, 1, 3, 4, 5)}
    (command,) = re.findall(r"<pre>(.*?)</pre>", (out / "explore.html").read_text())
    assert "data=csv" in command
    assert "data.split_column=part" in command
    assert "data.id_column=file" in command


def test_a_class_that_would_lose_all_its_photos_is_told(tmp_path):
    root = odd_folder(tmp_path / "photos")
    (root / "web pages").mkdir()
    (root / "web pages" / "1.jpg").write_text("<html></html>")
    found = explored(tmp_path / "out", "data=folder", f"data.root={root}")
    said = Page(found.page).said()
    assert "would leave no photo to train on of web pages: train.py would stop." in said


def test_photos_of_which_none_opens_are_listed_all_the_same(tmp_path):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").write_text("no photo")
    found = explored(tmp_path / "out", "data=folder", f"data.root={tmp_path / 'photos'}")
    assert [f.finding for f in found.findings] == ["unreadable", "unreadable"]
    assert Page(found.page).sources == []


def test_nothing_odd_is_said_too(tmp_path):
    root = tmp_path / "photos"
    for number in range(6):
        save(root / "ab"[number % 2] / f"{number}.png", scene(number))
    found = explored(tmp_path / "out", "data=folder", f"data.root={root}")
    assert found.findings == []
    said = Page(found.page).said()
    assert "Nothing: every photo opens, and none is there twice." in said
    assert (tmp_path / "out" / "findings.csv").read_text().splitlines() == [
        "id,label,part,finding,group,of,detail,exclude"
    ]
    assert len(left_by_train(tmp_path / "out", name="folder", root=str(root))) == 6


def test_photos_excluded_already_are_counted_and_not_looked_at(tmp_path):
    root = odd_folder(tmp_path / "photos")
    (tmp_path / "list.txt").write_text("plain/page.jpg\nplain/blank.png\n")
    found = explored(
        tmp_path / "out", "data=folder", f"data.root={root}", f"data.exclude={tmp_path}/list.txt"
    )
    assert not {"unreadable", "blank"} & {f.finding for f in found.findings}
    said = Page(found.page).said()
    assert "2 photos were left out by data.exclude." in said
    assert "do not match" not in said


def test_what_was_excluded_before_stays_so(tmp_path, caplog):
    root = odd_folder(tmp_path / "photos")
    every = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    old = tmp_path / "my list.csv"
    write_csv(old, [("plain/dark.png", "plain"), ("plain/c3.png", "plain")], ("id", "label"))
    given = ("data=folder", f"data.root={root}", f"data.exclude='{old}'")
    with caplog.at_level("INFO"):
        explored(tmp_path / "out", *given)
    rows = rows_of(tmp_path / "out" / "findings.csv")
    before = [row for row in rows if row["finding"] == "left_out"]
    assert [(row["id"], row["label"], row["detail"], row["exclude"]) for row in before] == [
        ("plain/dark.png", "plain", f"excluded by {old}", "yes"),
        ("plain/c3.png", "plain", f"excluded by {old}", "yes"),
    ]
    excluded = {row["id"] for row in rows if row["exclude"] == "yes"}
    assert left_by_train(tmp_path / "out", name="folder", root=str(root)) == every - excluded
    assert "findings.csv, of which 6 to leave out, and 2 as before" in caplog.text
    assert set(trained_on(tmp_path / "out").records.table.id) == every - excluded


def test_where_nothing_new_is_to_be_left_out_the_old_file_is_given_on(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        save(root / "ab"[number % 2] / f"{number}.png", scene(number))
    (tmp_path / "my list.txt").write_text("a/0.png\n")
    explored(
        tmp_path / "out", "data=folder", f"data.root={root}",
        f"data.exclude='{tmp_path / 'my list.txt'}'",
    )  # fmt: skip
    assert f"data.exclude='{tmp_path / 'my list.txt'}'" in next_command(tmp_path / "out")


def test_the_file_that_is_given_is_not_replaced(tmp_path):
    root = odd_folder(tmp_path / "photos")
    explored(tmp_path / "out", "data=folder", f"data.root={root}")
    file = tmp_path / "out" / "findings.csv"
    before = file.read_bytes()
    with pytest.raises(UserError) as caught:
        explored(tmp_path / "out", "data=folder", f"data.root={root}", f"data.exclude={file}")
    assert str(caught.value) == (
        "Expected data.exclude to be another file than the findings.csv that is written. Received: "
        f"data.exclude={file}, which would be replaced. Choose another directory with "
        "hydra.run.dir=DIR, or move the file."
    )
    assert file.read_bytes() == before


def test_several_rows_of_a_photo_are_no_copies_of_it(tmp_path):
    rows = [(f"photos/{number}.png", "ab"[number % 2]) for number in range(8)]
    for number, (name, _) in enumerate(rows):
        save(tmp_path / name, scene(number))
    save(tmp_path / rows[7][0], np.full((90, 90, 3), 127, np.uint8))
    rows += [rows[0], rows[0], ("1.png", "b"), ("7.png", "b")]
    write_csv(tmp_path / "list.csv", rows, ("Id", "Category"))
    found = explored(tmp_path / "out", "data=csv", f"data.csv={tmp_path / 'list.csv'}")
    assert len(found.looks) == 8
    assert {i: row["finding"] for i, row in by_id(tmp_path / "out").items()} == {
        "photos/7.png": "blank", "7.png": "blank",
    }  # fmt: skip
    assert "4 rows repeat 3 photos" in Page(found.page).said()
    table = trained_on(tmp_path / "out").records.table
    assert sorted(table.id) == sorted(name for name, _ in rows if "7" not in name)


def test_rows_of_a_class_without_any_photo_are_left_out_by_on_missing(tmp_path):
    rows = [(f"{number}.png", "ab"[number % 2]) for number in range(8)]
    for number, (name, _) in enumerate(rows):
        save(tmp_path / "photos" / name, scene(number))
    rows += [("gone.png", "bus"), ("lost.png", "a")]
    write_csv(tmp_path / "list.csv", rows, ("Id", "Category"))
    explored(
        tmp_path / "out", "data=csv", f"data.csv={tmp_path / 'list.csv'}",
        f"data.root={tmp_path / 'photos'}",
    )  # fmt: skip
    found = by_id(tmp_path / "out")
    assert (found["gone.png"]["exclude"], found["lost.png"]["exclude"]) == ("no", "yes")
    assert "data.on_missing=skip" in next_command(tmp_path / "out")
    assert len(trained_on(tmp_path / "out").records.table) == 8


def test_the_last_photo_of_a_class_to_train_on_stays(tmp_path):
    root = tmp_path / "photos"
    for part, first in (("train", 0), ("val", 100)):
        for number in range(4):
            save(root / part / "ab"[number % 2] / f"{number}.png", scene(first + number))
    (root / "train" / "a" / "2.png").unlink()
    shutil.copy(root / "val" / "a" / "0.png", root / "train" / "a" / "0.png")
    save(root / "train" / "c" / "0.png", np.full((90, 90, 3), 127, np.uint8))
    save(root / "train" / "c" / "1.png", np.full((90, 90, 3), 99, np.uint8))
    found = explored(tmp_path / "out", "data=folder", f"data.root={root}")
    rows = by_id(tmp_path / "out")
    assert {i: row["exclude"] for i, row in rows.items()} == {
        "val/a/0.png": "no", "train/a/0.png": "no", "train/c/0.png": "no", "train/c/1.png": "yes",
    }  # fmt: skip
    for stays in ("train/a/0.png", "train/c/0.png"):
        assert rows[stays]["detail"].endswith("; stays: its class has no other photo to train on")
    assert "train.py would stop" not in Page(found.page).said()
    assert len(trained_on(tmp_path / "out").records.table) == 8


def test_a_split_that_is_given_is_not_grouped(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        save(root / "ab"[number % 2] / f"{number}.png", scene(number))
    save(root / "a" / "again.jpg", cv2.resize(scene(0), (80, 60)), quality=60)
    grouped = "data.group_near_duplicates=true"
    explored(tmp_path / "out", "data=folder", f"data.root={root}")
    assert grouped in next_command(tmp_path / "out")
    (tmp_path / "val.txt").write_text("a/2.png\nb/3.png\n")
    val_ids = f"data.val_ids={tmp_path / 'val.txt'}"
    explored(tmp_path / "val", "data=folder", f"data.root={root}", val_ids)
    assert grouped not in next_command(tmp_path / "val")
    trained_on(tmp_path / "val")
    for name in "ab":
        shutil.copytree(root / name, root / "train" / name)
        shutil.rmtree(root / name)
        save(root / "val" / name / "1.png", scene(100 + ord(name)))
    explored(tmp_path / "split", "data=folder", f"data.root={root}")
    assert grouped not in next_command(tmp_path / "split")


def test_photos_beside_the_others_are_listed_and_stop_nothing(tmp_path):
    rows = [(f"{number}.png", "ab"[number % 2]) for number in range(8)]
    for number, (name, _) in enumerate(rows):
        save(tmp_path / name, scene(number))
    save(tmp_path / "spare.png", scene(9))
    write_csv(tmp_path / "list.csv", rows, ("Id", "Category"))
    explored(tmp_path / "out", "data=csv", f"data.csv={tmp_path / 'list.csv'}")
    (row,) = rows_of(tmp_path / "out" / "findings.csv")
    assert (row["id"], row["finding"], row["exclude"]) == ("spare.png", "left_out", "no")
    assert "data.on_missing" not in next_command(tmp_path / "out")
    assert len(trained_on(tmp_path / "out").records.table) == 8


def test_a_folder_of_photos_to_predict_is_not_odd(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        save(root / "ab"[number % 2] / f"{number}.png", scene(number))
    save(root / "test" / "9.png", scene(9))
    assert explored(tmp_path / "out", "data=folder", f"data.root={root}").findings == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_photo_whose_name_no_file_can_hold_stays_and_that_is_said(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        save(root / "ab"[number % 2] / f"{number}.png", scene(number))
    shutil.copy(root / "a" / "0.png", os.fsencode(root / "a") + b"/caf\xe9.png")
    explored(tmp_path / "out", "data=folder", f"data.root={root}")
    row = by_id(tmp_path / "out")["a/caf\\udce9.png"]
    assert row["exclude"] == "no"
    assert row["detail"].endswith("; stays: its name is not in UTF-8, so that no file of ids can "
                                  "name it")  # fmt: skip
    assert len(trained_on(tmp_path / "out").records.table) == 9


def test_a_photo_that_does_not_open_stops_where_it_is_to(tmp_path):
    root = odd_folder(tmp_path / "photos")
    with pytest.raises(UserError) as caught:
        explored(tmp_path / "out", "data=folder", f"data.root={root}", "data.on_error=raise")
    assert str(caught.value) == (
        "Expected photos that can be opened. Received 1 of 24 that cannot: "
        f"{root}/plain/page.jpg (not an image but a web page). "
        "Go on with data.on_error=skip, which lists them."
    )


def test_without_photos_of_each_class_the_network_and_the_policies_are_shown(odd, tmp_path):
    root, _, shown = odd
    found = explored(tmp_path / "out", "data=folder", f"data.root={root}", "photos_per_class=0")
    page = Page(found.page)
    assert "Photos of each class" not in page.said()
    pngs = [source for source in page.sources if "image/png" in source]
    assert pngs == [source for source in Page(shown.page).sources if "image/png" in source]
    assert "augmentation=strong" in page.said()


def test_the_command_repeats_a_size_of_its_own(odd, tmp_path):
    root, out, _ = odd
    assert next_command(out).endswith(" image_size=100")
    explored(tmp_path / "out", "data=folder", f"data.root={root}", "image_size=240")
    assert "image_size" not in next_command(tmp_path / "out")


def test_the_page_stays_small_however_many_classes_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("carcls.exploration.pictures._EXAMPLES", 6)
    for number in range(20):
        save(tmp_path / "photos" / f"class {number // 2}" / f"{number}.png", scene(number))
    found = explored(tmp_path / "out", "data=folder", f"data.root={tmp_path / 'photos'}")
    page = Page(found.page)
    assert "Of 4 further classes none are shown." in page.said()
    assert sum(alt.startswith("class ") for alt in page.alts) == 6 + 4  # and what the network sees


def test_pictures_that_would_make_the_page_too_large_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("carcls.exploration.pictures._MOST_BYTES", 5000)
    for number in range(6):
        save(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", scene(number))
    found = explored(tmp_path / "out", "data=folder", f"data.root={tmp_path / 'photos'}")
    assert "not shown" in Page(found.page).said()


def test_large_groups_and_long_tables_are_cut_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "_ROWS_SHOWN", 2)
    root = tmp_path / "photos"
    for number in range(9):
        save(root / "a" / f"{number}.png", scene(1))
        save(root / "b" / f"{number}.png", scene(100 + number))
        (root / "b" / f"bad {number}.jpg").write_text("no photo")
    found = explored(tmp_path / "out", "data=folder", f"data.root={root}")
    said = Page(found.page).said()
    assert "And 3 more photos." in said
    assert "And 7 more, in findings.csv." in said
    assert len(rows_of(tmp_path / "out" / "findings.csv")) == 18


def test_a_look_takes_the_size_that_a_person_sees(tmp_path):
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / f"{orientation}.jpg", scene(1, (1000, 600)), exif=exif)
        seen = look(str(path))
        assert (seen.width, seen.height) == ((600, 1000) if orientation >= 5 else (1000, 600))
    assert look(str(tmp_path / "none.jpg")).error == "no such file"
    assert look(str(tmp_path / "none.jpg")).num_bytes == -1


def test_a_process_that_looks_at_photos_imports_nothing_heavy():
    code = (
        "import sys, carcls.exploration.look; print({'keras', 'pandas', 'albumentations', "
        "'matplotlib', 'omegaconf'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_distance=12", "Expected max_distance from 0 to 11 bits of 64. Received: .*=12"),
        ("photos_per_class=-1", "Expected photos_per_class from 0 to 100"),
        ("image_size=0", "Expected image_size to be from 1 to 4096 pixels"),
        ("seed=-1", "Expected seed to be from 0"),
        ("data.val_split=2", r"Expected val_split in \(0, 1\)"),
        ("runtime.workers=-1", "Expected workers to be 0 or more"),
    ],
)
def test_a_value_out_of_bounds_is_told(override, message):
    with pytest.raises(UserError, match=message):
        to_explore_config(composed(override, name="explore"))


@pytest.mark.parametrize("source", options("data"))
def test_every_source_composes_and_nothing_stops_at_what_is_missing(source):
    config = to_explore_config(composed(f"data={source}", "data.root=x", name="explore"))
    assert (config.data.on_missing, config.data.on_error) == ("skip", "skip")


def test_the_command_draws_looks_and_says_what_to_run_next(tmp_path):
    result = run(
        "explore.py", "data=demo", "data.root=cars & vans", "data.train_per_class=2",
        "data.test_per_class=2", "hydra.run.dir=out", "image_size=64", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert lines["photos"] == "photos     40 of 10 classes: 20 train, 20 test"
    assert lines["page"] == "page       out/explore.html"
    assert lines["findings"].startswith("findings   out/findings.csv, of which ")
    assert lines["train"].startswith("train      python train.py data=demo data.root='cars & vans'")
    assert "data.train_per_class=2" in lines["train"]
    assert (tmp_path / "out" / "explore.log").is_file()
    assert "The photos of cars & vans" in Page(tmp_path / "out" / "explore.html").said()


def test_photos_that_are_not_there_are_told_and_nothing_is_left(tmp_path):
    result = run("explore.py", "data.root=nowhere", "hydra.run.dir=out", cwd=tmp_path)
    assert_told(result, "nowhere, which does not exist", "data=demo")
    assert not (tmp_path / "out").exists()


def test_its_help_lists_what_it_takes(tmp_path):
    answer = run("explore.py", "--help", cwd=tmp_path).stdout
    for key in ("data", "image_size", "photos_per_class", "max_distance", "seed", "runtime"):
        assert f"\n{key}: " in answer or f"\n{key}:\n" in answer
    assert "backbone" not in answer
    assert f"data=OPTION takes another source: {', '.join(options('data'))}." in answer


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to open the page with")
def test_a_browser_shows_the_page_from_the_disk_in_both_widths(odd, tmp_path):
    _, _, found = odd
    for width in (1280, 500):
        picture = tmp_path / f"{width}.png"
        subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", f"--user-data-dir={tmp_path / 'browser'}", "--hide-scrollbars",
                f"--window-size={width},3000", f"--screenshot={picture}", found.page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        with Image.open(picture) as image:
            assert image.size == (width, 3000)
            colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 5000, "the photos are there"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_every_odd_file_is_in_the_data_or_listed_with_its_reason(tmp_path):
    root = tmp_path / "photos"
    odd = sorted(path for path in (SHARED / "odd").iterdir() if path.name != "index.csv")
    for number, path in enumerate(odd):
        label = ("a", "b")[number % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / label / path.name)
    explored(tmp_path / "out", "data=folder", f"data.root={root}", "runtime.workers=2")
    rows = rows_of(tmp_path / "out" / "photos.csv")
    assert sorted(Path(row["id"]).name for row in rows) == [path.name for path in odd]
    assert len(odd) == 47
    unread = {row["id"] for row in rows if row["error"]}
    listed = {i for i, row in by_id(tmp_path / "out").items() if row["finding"] == "unreadable"}
    assert unread == listed
    assert len(unread) == 4
    said = Page(tmp_path / "out" / "explore.html").said()
    for row in rows:
        assert (row["error"] and row["error"] in said) or int(row["width"]) > 0
    landscapes = {row["width"] + "×" + row["height"] for row in rows if "Landscape" in row["id"]}
    assert landscapes == {"1800×1200"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_in_real_photos_the_one_pair_across_train_and_test_is_found(tmp_path):
    root = tmp_path / "cars10"
    for name in ("train", "test"):
        with zipfile.ZipFile(SHARED / "cars10" / f"{name}.zip") as archive:
            archive.extractall(root)
    for name in ("train.csv", "sample-submission.csv"):
        shutil.copy(SHARED / "cars10" / name, root / name)
    explored(tmp_path / "out", f"data.root={root}", "runtime.workers=2")
    pairs = {i for i, row in by_id(tmp_path / "out").items() if row["group"]}
    assert pairs == {"100402.jpg", "100190.jpg"}
