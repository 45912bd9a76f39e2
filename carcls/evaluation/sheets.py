"""Sheets of photos: classes that are confused, and what a network looked at."""

import logging
from pathlib import Path
from textwrap import shorten

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps

from carcls.config import RuntimeConfig
from carcls.data.images import open_photo
from carcls.errors import PhotoError
from carcls.evaluation.cases import (
    BOX,
    Case,
    Confused,
    confused_photos,
    fitted,
    has_validated,
    look,
)
from carcls.plots import Picture
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)

CONFUSED, WRONG, RIGHT = "confused.png", "attention_wrong.png", "attention_right.png"
SHEETS = (CONFUSED, WRONG, RIGHT)
_COLOURS = colormaps["inferno"]
_ACROSS = 6  # tiles in a row
_WIDTH, _ = BOX  # of a tile; all that follows is in pixels too
_GAP, _GROUP_GAP, _MARGIN = 8, 28, 14
_CAPTION, _HEADING, _TITLE, _LINE_GAP = 20, 30, 44, 12
_DPI = 110
_INK, _MUTED, _RED, _GREEN = "#1c2127", "#5d6873", "#b3261e", "#2a7d4f"
_LETTERS = 25  # of a name, as many as fit over a tile


def write_sheets(
    workdir: Path,
    predictor: Predictor | Ensemble,
    photos: pd.DataFrame,
    probs: np.ndarray,
    pairs: pd.DataFrame,
    *,
    title: str,
    seed: int,
    is_out_of_fold: bool,
    machine: RuntimeConfig,
) -> tuple[dict[str, bytes], str]:
    """Writes those of `SHEETS` that there are photos for.

    Args:
        workdir: Where to.
        predictor: What was measured; of several networks the maps are the first one's.
        photos: id, path and label (index into its classes) of `n` photos.
        probs: `(n, num_classes)` what was said of them.
        pairs: See `most_confused`.
        title: Begins those of the pictures.
        seed: Of the draw of right photos.
        is_out_of_fold: Whether each photo was predicted by the one fold that had not trained on it:
            then there are maps of those alone that the first fold predicted.
        machine: What the network runs on.

    Returns:
        The pictures, PNG files by name without its ending; and what is to be said of the maps.
    """
    paths, labels, names = photos.path.tolist(), photos.label.to_numpy(), predictor.class_names
    drawn = {}
    if confused := confused_photos(pairs, paths, labels, probs, names):
        drawn[CONFUSED] = draw_confused(confused, f"{title}: the classes most often confused")
    member = predictor.members[0]
    picks = np.flatnonzero(has_validated(member, photos, names)) if is_out_of_fold else slice(None)
    found = look(
        member, np.array(paths)[picks], labels[picks], probs[picks], names, seed=seed,
        machine=machine,
    )  # fmt: skip
    if isinstance(found, str):
        said = f"There is no picture of what the network looked at: {found}."
        log.info(said)
    else:
        height, width = (found[0] or found[1])[0].maps.shape[1:]
        said = f"The maps have {height} × {width} places. "
        said = (said + _whose(member, predictor, is_out_of_fold)).rstrip()
        titles = ("what spoke for the wrong class, and for the label", "what spoke for the class")
        for name, cases, about in zip((WRONG, RIGHT), found, titles, strict=True):
            if cases:
                drawn[name] = draw_attention(cases, f"{title}: {about}")
    pngs = {
        Path(name).stem: figure.write(workdir / name, compress_level=3)
        for name, figure in drawn.items()
    }
    return pngs, said


def _whose(member: Predictor, predictor: Predictor | Ensemble, is_out_of_fold: bool) -> str:
    if len(predictor.members) == 1:
        return ""
    name = Path(member.name).name
    if is_out_of_fold:
        return f"The photos are among those that {name} was validated with, the maps are its own."
    return (
        f"The maps are those of {name}, the first of {len(predictor.members)} networks; the "
        "percentages are of all together."
    )


def draw_confused(pairs: list[Confused], title: str) -> Picture:
    """A row a pair: photos that were taken for another class, beside typical ones of that class.

    Args:
        pairs: At least one.
        title: Above the picture.
    """
    half = max(len(photos) for pair in pairs for photos in (pair.taken, pair.typical))
    sheet = _Sheet(max(half, 2), title)  # two tiles have room for a heading
    for row, pair in enumerate(pairs):
        label, predicted = _short(pair.label), _short(pair.predicted)
        taken = f"{label} taken for {predicted} ({pair.count} of {pair.of})"
        typical = f"{predicted}, told right" if pair.typical else f"No {predicted} was told right"
        sheet.head(row, 0, taken, _RED)
        sheet.head(row, 1, typical, _GREEN)
        for group, photos in enumerate((pair.taken, pair.typical)):
            for tile, (path, confidence) in enumerate(photos):
                sheet.show(row, group, tile, _opened(path), f"{confidence:.0%}", _MUTED)
    return sheet.picture()


def draw_attention(cases: list[Case], title: str) -> Picture:
    """Photos, each beside its maps; the maps of one photo are of one scale.

    Args:
        cases: At least one, each with as many maps as the others.
        title: Above the picture.
    """
    tiles = 1 + len(cases[0].classes)
    groups = min(_ACROSS // tiles, len(cases))
    sheet = _Sheet(tiles, title)
    for number, case in enumerate(cases):
        row, group = divmod(number, groups)
        sheet.show(row, group, 0, case.photo, f"is {_short(case.label)}", _INK)
        highest = max(float(case.maps.max()), 1e-9)
        for tile, (name, prob) in enumerate(zip(case.classes, case.probs, strict=True), start=1):
            colour = _GREEN if name == case.label else _RED
            shown = overlay(case.photo, case.maps[tile - 1] / highest)
            sheet.show(row, group, tile, shown, f"for {_short(name)}: {prob:.0%}", colour)
    return sheet.picture()


def overlay(photo: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """A photo in grey under a map: the more the map says, the more its colour covers.

    Args:
        photo: `(height, width, 3)` uint8.
        brightness: `(h, w)` of about 0 to 1, stretched over the photo; below 0 counts as 0.

    Returns:
        `(height, width, 3)` uint8.
    """
    smooth = cv2.resize(brightness, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    smooth = np.clip(smooth, 0, 1)
    colours = 255 * _COLOURS(0.3 + 0.65 * smooth)[..., :3]
    covers = 0.8 * smooth[..., None]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint((1 - covers) * grey + covers * colours).astype(np.uint8)


class _Sheet:
    """Rows of groups of tiles, each tile below its caption; in pixels, so that nothing is blurred.

    Args:
        tiles: In a group.
        title: Above the picture.
    """

    def __init__(self, tiles: int, title: str) -> None:
        self.group_width = tiles * (_WIDTH + _GAP) - _GAP + _GROUP_GAP
        self.title = title
        self.heads: list[tuple[int, int, str, str]] = []
        self.tiles: list[tuple[int, int, int, np.ndarray | None, str, str]] = []

    def head(self, row: int, group: int, text: str, colour: str) -> None:
        """Writes over a group."""
        self.heads.append((row, group, text, colour))

    def show(
        self, row: int, group: int, tile: int, photo: np.ndarray | None, caption: str, colour: str
    ) -> None:
        """Puts a photo that fits into `BOX` in its place; None: it is gone."""
        self.tiles.append((row, group, tile, photo, caption, colour))

    def picture(self) -> Picture:
        """The whole of it; a row is as high as its photos."""
        highest = [_CAPTION] * (1 + max(row for row, *_ in self.tiles))
        for row, _, _, photo, *_ in self.tiles:
            highest[row] = max(highest[row], 0 if photo is None else len(photo))
        above = _CAPTION + (_HEADING if self.heads else 0)
        tops = np.cumsum([_TITLE, *(above + height + _LINE_GAP for height in highest)])
        groups = 1 + max(group for _, group, *_ in (*self.heads, *self.tiles))
        width = groups * self.group_width - _GROUP_GAP + 2 * _MARGIN
        pixels = np.full((tops[-1], width, 3), 255, np.uint8)
        figure = Picture(figsize=(width / _DPI, tops[-1] / _DPI), dpi=_DPI)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.axis("off")
        axis.text(width / 2, 12, self.title, fontsize=12, ha="center", va="top", color=_INK)
        for row, group, text, colour in self.heads:
            left = _MARGIN + group * self.group_width
            axis.text(left, tops[row] + _HEADING - 8, text, size=10.5, weight="bold", color=colour)
        for row, group, tile, photo, caption, colour in self.tiles:
            left = _MARGIN + group * self.group_width + tile * (_WIDTH + _GAP)
            top = tops[row] + above
            axis.text(left, top - 6, caption, fontsize=8.5, color=colour)
            if photo is None:
                axis.text(left, top + 14, "gone", fontsize=8.5, color=_MUTED)
            else:
                height_of_one, width_of_one = photo.shape[:2]
                pixels[top : top + height_of_one, left : left + width_of_one] = photo
        axis.imshow(pixels, extent=(0, width, tops[-1], 0), interpolation="none")
        return figure


def _opened(path: str) -> np.ndarray | None:
    try:
        return fitted(open_photo(path, max(BOX)))
    except PhotoError:  # gone since it was predicted
        return None


def _short(name: str) -> str:
    if len(name) <= _LETTERS:
        return name
    short = shorten(name, _LETTERS, placeholder="…")
    return short if len(short) > 1 else name[: _LETTERS - 1] + "…"  # one long word
