"""What is odd about the data, and which photos are better left out of training."""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np

from carcls.data.duplicates import distances
from carcls.exploration.looks import Looks
from carcls.exploration.photos import Found, LeftOut

# In the order in which they are told.
KINDS = {
    "unreadable": "cannot be opened",
    "left_out": "rows, photos and folders that do not match",
    "across_train_and_test": "the same photo in train and in test",
    "across_train_and_val": "the same photo in train and in val",
    "conflicting_label": "the same photo in different classes",
    "exact_duplicate": "copies of a photo",
    "near_duplicate": "nearly the same photo",
    "opened_in_part": "cut off or damaged, opened as far as they go",
    "blank": "one colour all over",
    "tiny": "so small that they are enlarged more than four times",
    "extreme_aspect": "three times as long as wide, or more",
    "dark": "nearly black",
    "bright": "nearly white",
}
_ENLARGED = 4  # times, from the short side to the network's
_LONG = 3.0  # times the short side
_DARK, _BRIGHT = 25, 235  # mean gray level, of 255
# Reasons for which the row can be named in `data.exclude`: it is one, and means no photo.
_OF_ROWS = ("no photo", "more than one photo", "rows of different classes", "in the folder ")
_LAST = "stays: its class has no other photo to train on"
_UNNAMED = "stays: its name is not in UTF-8, so that no file of ids can name it"
_PART_ORDER = {"val": 0, "train": 1, "test": 2}  # the copy to keep is the one that validates


@dataclass(kw_only=True)
class Finding:
    """One row of `findings.csv`.

    `index` is the photo's in the table, None where there is none. What is not new was named by
    `data.exclude` before.
    """

    id: str
    label: str
    part: str
    finding: str  # one of KINDS
    group: int | None = None  # photos that show the same have the same number
    of: str = ""  # the id of the photo that it repeats
    detail: str = ""
    exclude: bool = False
    index: int | None = None
    is_new: bool = True


@dataclass(kw_only=True)
class Group:
    """Photos that show the same.

    Attributes:
        number: From 1, the gravest first.
        members: Indices of photos; the one that the others repeat comes first.
        kind: The gravest of what is odd about it.
        parts, labels: That its photos have; labels without the empty one.
        distances: Of each member to the first, in bits of 64; None for the same pixels.
        is_copy: Of each member: has another one the same pixels?
    """

    number: int
    members: list[int]
    kind: str
    parts: set[str]
    labels: list[str]
    distances: list[int | None]
    is_copy: list[bool]


def find_groups(
    found: Found, looks: Looks, contents: np.ndarray, groups: np.ndarray
) -> list[Group]:
    """The photos that show the same, the gravest first.

    Args:
        contents, groups: See `carcls.exploration.looks.find_alike`.
    """
    _, labels, parts = found.columns
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    several = []
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        members = order[start : start + count].tolist()
        members.sort(key=lambda index: (_PART_ORDER[parts[index]], index))
        several.append(_group(members, parts, labels, looks, contents))
    kinds = list(KINDS)
    several.sort(key=lambda group: (kinds.index(group.kind), group.members[0]))
    for number, group in enumerate(several, start=1):
        group.number = number
    return several


def _group(
    members: list[int], parts: np.ndarray, labels: np.ndarray, looks: Looks, contents: np.ndarray
) -> Group:
    copies = Counter(contents[members].tolist())
    of_parts = set(parts[members])
    known = sorted(set(labels[members]) - {""})
    kind = "near_duplicate" if max(copies.values()) == 1 else "exact_duplicate"
    if len(known) > 1:
        kind = "conflicting_label"
    elif {"train", "val"} <= of_parts:
        kind = "across_train_and_val"
    if "test" in of_parts and len(of_parts) > 1:
        kind = "across_train_and_test"
    bits = distances(looks.hashes[members], looks.hashes[members[0]]).tolist()
    is_first = contents[members] == contents[members[0]]
    return Group(
        number=0,
        members=members,
        kind=kind,
        parts=of_parts,
        labels=known,
        distances=[None if same else n for n, same in zip(bits, is_first, strict=True)],
        is_copy=[copies[content] > 1 for content in contents[members].tolist()],
    )


def list_findings(
    found: Found, looks: Looks, groups: list[Group], contents: np.ndarray, image_size: int
) -> list[Finding]:
    """Everything that is odd, with what is suggested to leave out.

    Args:
        contents: See `carcls.exploration.looks.find_alike`.
        image_size: Side of the network's input in pixels.
    """
    reasons: dict[int, str] = {}
    for group in groups:
        reasons |= _reasons_to_exclude(found, group, contents)
    kept = _last_of_classes(found, looks, [*reasons, *np.flatnonzero(looks.is_flat).tolist()])
    findings = _of_left_out(found) + _of_single_photos(found, looks, image_size, kept)
    for group in groups:
        findings += _of_group(found, group, reasons, kept)
    findings += [
        replace(finding, id=other_id)  # all rows of a photo go, or else it stays
        for finding in findings
        if finding.exclude
        for other_id in found.other_ids.get(finding.index, [])
    ]
    kinds = list(KINDS)
    return sorted(findings, key=lambda finding: kinds.index(finding.finding))


def _last_of_classes(found: Found, looks: Looks, excluded: list[int]) -> set[int]:
    """A photo of each class that would lose all it has to train on, though some of these open.

    Args:
        excluded: Indices of photos that open and would better be left out.
    """
    ids, labels, parts = found.columns
    can_train = looks.opens & (parts == "train")
    stays = can_train.copy()
    stays[[index for index in excluded if _is_utf8(ids[index] + labels[index])]] = False
    emptied = set(labels[can_train]) - set(labels[stays])
    candidates = np.flatnonzero(can_train).tolist()
    candidates.sort(key=lambda index: bool(looks.is_flat[index]))  # rather not of one colour
    last: dict[str, int] = {}
    for index in candidates:
        if labels[index] in emptied:
            last.setdefault(labels[index], index)
    return set(last.values())


def emptied_classes(found: Found, findings: list[Finding]) -> list[str]:
    """Classes of which `findings` leave none to train on, so that train.py would not take them."""
    excluded = [f.index for f in findings if f.exclude and f.index is not None]
    _, labels, parts = found.columns
    trains = parts == "train"
    kept = trains.copy()
    kept[excluded] = False
    return sorted(set(labels[trains]) - set(labels[kept]))


def _of_left_out(found: Found) -> list[Finding]:
    ids, _, parts = found.columns
    used = set(ids[parts != "test"]).union(*found.other_ids.values())
    findings = []
    for left in found.left_out:
        # An id that another row has too would take that one along.
        is_alone = left.part != "test" and left.id not in used
        is_row = _is_of_row(left.reason) and not left.is_of_lost_class
        findings.append(_left_out(left, exclude=is_alone and is_row))
    return findings + [_left_out(left, exclude=True, is_new=False) for left in found.excluded]


def _left_out(left: LeftOut, exclude: bool, is_new: bool = True) -> Finding:
    return Finding(
        id=left.id,
        label=left.label,
        part=left.part,
        finding="left_out",
        detail=left.reason,
        exclude=exclude,
        is_new=is_new,
    )


def _is_of_row(reason: str) -> bool:
    is_stray = reason.startswith("no row in ")
    has_no_class = reason.startswith("no ") and not is_stray
    return reason.startswith(_OF_ROWS) or has_no_class


def _of_single_photos(found: Found, looks: Looks, image_size: int, kept: set[int]) -> list[Finding]:
    short = np.minimum(looks.width, looks.height)
    long = np.maximum(looks.width, looks.height)
    opens, flat = looks.opens, looks.is_flat
    odd = {
        "unreadable": (~opens, lambda i: looks.errors[i]),
        "opened_in_part": (_marked(looks.notes, len(looks)), lambda i: looks.notes[i]),
        "blank": (flat, lambda i: f"gray level {looks.brightness[i]:.0f} of 255"),
        "tiny": (
            opens & (short * _ENLARGED < image_size),
            lambda i: f"{looks.width[i]}×{looks.height[i]} pixels",
        ),
        "extreme_aspect": (
            opens & (long >= _LONG * short),
            lambda i: f"{long[i] / short[i]:.1f} to 1",
        ),
        "dark": (
            opens & ~flat & (looks.brightness < _DARK),
            lambda i: f"mean gray level {looks.brightness[i]:.0f} of 255",
        ),
        "bright": (
            opens & ~flat & (looks.brightness > _BRIGHT),
            lambda i: f"mean gray level {looks.brightness[i]:.0f} of 255",
        ),
    }
    return [
        _finding(found, index, kind, detail(index), kind in ("unreadable", "blank"), kept)
        for kind, (which, detail) in odd.items()
        for index in np.flatnonzero(which).tolist()
    ]


def _marked(notes: dict[int, str], n: int) -> np.ndarray:
    marked = np.zeros(n, bool)
    marked[list(notes)] = True
    return marked


def _of_group(found: Found, group: Group, reasons: dict[int, str], kept: set[int]) -> list[Finding]:
    """A finding for each photo of a group."""
    first = found.columns[0][group.members[0]]
    across = group.kind.startswith("across_")
    findings = []
    for index, bits, is_copy in zip(group.members, group.distances, group.is_copy, strict=True):
        kind = group.kind
        if not across and kind != "conflicting_label":
            kind = "exact_duplicate" if is_copy else "near_duplicate"
        is_first = index == group.members[0]
        facts = ["the first of its group" if is_first else _how_close(bits)]
        if len(group.labels) > 1:
            facts.append(f"classes in the group: {', '.join(group.labels)}")
        if across:
            facts.append(f"parts in the group: {', '.join(sorted(group.parts))}")
        finding = _finding(found, index, kind, "; ".join(facts), index in reasons, kept)
        finding.group, finding.of = group.number, "" if is_first else first
        if finding.exclude:
            finding.detail += f"; {reasons[index]}"
        findings.append(finding)
    return findings


def _how_close(bits: int | None) -> str:
    return "the same pixels" if bits is None else f"hashes differ in {bits} of 64 bits"


def _reasons_to_exclude(found: Found, group: Group, contents: np.ndarray) -> dict[int, str]:
    """Why photos of a group are better left out of training, by their index.

    Copies alone: whether photos that are nearly the same may stay is for a person to see.
    """
    _, labels, parts = found.columns
    of_content = defaultdict(list)
    for index in group.members:
        of_content[int(contents[index])].append(index)
    reasons = {}
    for copies in of_content.values():
        tests = [index for index in copies if parts[index] == "test"]
        others = [index for index in copies if parts[index] != "test"]
        if len(copies) == 1 or not others:
            continue
        if len(set(labels[copies]) - {""}) > 1:
            reasons |= dict.fromkeys(others, "left out: its copies are of different classes")
        elif any(labels[tests]):
            reasons |= dict.fromkeys(others, "left out: a test photo, whose class is known, is it")
        else:
            reasons |= dict.fromkeys(others[1:], "left out: another copy stays")
    return reasons


def _finding(
    found: Found, index: int, kind: str, detail: str, exclude: bool, kept: set[int]
) -> Finding:
    """What is odd about a photo; of one that stays all the same, why.

    Args:
        exclude: Whether it would better be left out.
        kept: Indices of photos that stay because their classes need them.
    """
    photo_id, label, part = (column[index] for column in found.columns)
    exclude = exclude and part != "test"  # what is to be predicted is predicted
    why_not = _LAST if index in kept else "" if _is_utf8(photo_id + label) else _UNNAMED
    return Finding(
        id=photo_id,
        label=label,
        part=part,
        finding=kind,
        detail=f"{detail}; {why_not}" if exclude and why_not else detail,
        exclude=exclude and not why_not,
        index=index,
    )


def _is_utf8(name: str) -> bool:
    """Whether a name of a file can be written as text."""
    return name.encode("utf-8", "ignore").decode() == name
