"""The page: plain HTML with its pictures in it, for any browser, without a script."""

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np

from carcls.config import ExploreConfig
from carcls.exploration.findings import KINDS, Finding, Group
from carcls.exploration.looks import Looks
from carcls.exploration.photos import PARTS, Found
from carcls.exploration.pictures import (
    GROUPS_SHOWN,
    OF_A_KIND,
    PolicyPictures,
    shown_of_group,
    shown_of_kind,
)
from carcls.pages import page

_ROWS_SHOWN = 200  # of a table; findings.csv has all
_OF_GROUPS = (
    "across_train_and_test",
    "across_train_and_val",
    "conflicting_label",
    "exact_duplicate",
    "near_duplicate",
)
_OF_PHOTOS = ("blank", "tiny", "extreme_aspect", "dark", "bright")
_ADVICE = {
    "across_train_and_test": "A competition gives nothing for leaving them out, so they stay, "
    "unless the class of the test photo is known: then it is there to measure with, and what was "
    "trained on measures nothing.",
    "across_train_and_val": "Of copies the one that validates stays.",
    "conflicting_label": "At least one of the classes is wrong, and nothing says which. Of copies "
    "all are left out; look at those that are nearly the same.",
    "exact_duplicate": "The same file, or the same pixels in another file. The first one stays.",
    "near_duplicate": "Resized, saved again, lightly cropped or marked; or shots of one moment. "
    "They stay, for a person to look at; where the split is drawn, "
    "data.group_near_duplicates=true keeps each group on one side of it, so that the validation is "
    "honest.",
}


@dataclass(kw_only=True)
class Content:
    """All that the page tells.

    Attributes:
        made: When and with which command.
        examples: Indices of photos by class.
        pictures: Small JPEG files by index of the photo.
        network: Index, and what the network sees as a PNG file.
        charts: Titles and SVG elements.
        next_commands: What to run then.
        emptied: Classes of which nothing would be left.
    """

    made: str
    config: ExploreConfig
    found: Found
    looks: Looks
    groups: list[Group]
    findings: list[Finding]
    examples: dict[str, list[int]]
    pictures: dict[int, bytes]
    network: list[tuple[int, bytes]]
    policies: list[PolicyPictures]
    charts: list[tuple[str, str]]
    next_commands: list[str]
    emptied: list[str]


def build_page(content: Content) -> str:
    """The whole of it, as text."""
    sections = {
        "odd": ("What is odd", _odd(content)),
        "classes": ("Classes", _classes(content)),
        "photos": ("Photos of each class", _examples(content)),
        "sizes": ("Sizes and light", _charts(content)),
        "unopened": ("What does not open, and what does not match", _unopened(content)),
        "duplicates": ("Photos that show the same", _duplicates(content)),
        "outliers": ("Tiny, long, dark and bright photos", _outliers(content)),
        "network": ("What the network will see", _network(content)),
        "augmentation": ("After each augmentation policy", _policies(content)),
    }
    return page(
        f"The photos of {content.config.data.root}",
        content.made,
        _facts(content),
        sections,
        "Every photo was opened once. photos.csv has a row for each, findings.csv one for each "
        "finding; the pictures here are small copies.",
    )


def _facts(content: Content) -> str:
    looks, parts = content.looks, content.found.columns[2]
    opens = looks.opens
    facts = [(f"{len(looks):,}", "photos"), (f"{len(content.found.class_names):,}", "classes")]
    facts += [
        (f"{(parts == part).sum():,}", name)
        for part, name in zip(PARTS, ("to train on", "to validate with", "to predict"), strict=True)
        if (parts == part).any()
    ]
    if opens.any():
        width, height = np.median(looks.width[opens]), np.median(looks.height[opens])
        facts.append((f"{width:.0f}×{height:.0f}", "pixels, median"))
    facts.append((_bytes(looks.num_bytes[looks.num_bytes > 0].sum()), "of files"))
    cards = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in facts)
    return f'<div class="facts">{cards}</div>'


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _odd(content: Content) -> str:
    found, findings = content.found, content.findings
    findings = [finding for finding in findings if finding.is_new]
    counts = Counter(finding.finding for finding in findings)
    excluded = Counter(finding.finding for finding in findings if finding.exclude)
    rows = [
        f'<tr><td class="n">{counts[kind]:,}</td>'
        f'<td><a href="#{_place(content, kind)}">{what}</a></td>'
        f'<td class="n">{excluded[kind] or "–"}</td></tr>'
        for kind, what in KINDS.items()
        if counts[kind]
    ]
    remarks = [escape(remark) for remark in found.remarks]
    if found.num_excluded:
        remarks.append(f"{found.num_excluded:,} photos were left out by data.exclude.")
    if content.emptied:
        remarks.append(
            f"Leaving out what is suggested would leave no photo to train on of "
            f"{escape(', '.join(content.emptied[:5]))}: train.py would stop."
        )
    if not rows:
        table = "<p>Nothing: every photo opens, and none is there twice.</p>"
    else:
        table = (
            '<table><tr><th class="n">photos</th><th>what</th><th class="n">to leave out</th></tr>'
            f"{''.join(rows)}</table>"
        )
    commands = escape("\n".join(content.next_commands))
    if any(finding.exclude for finding in findings):
        advice = (
            "findings.csv lists all of it. Its column exclude says what is suggested to leave out: "
            "photos that do not open, photos of one colour, rows that mean no photo, and copies. "
            "Change it as you like, a no to a yes or back, and train without what it says:"
        )
    elif rows:
        advice = (
            "findings.csv lists all of it. Nothing is suggested to leave out; what you would "
            "rather leave out gets a yes in its column exclude, and data.exclude=findings.csv "
            "does so. To train on all:"
        )
    else:
        advice = "To train:"
    return (
        f'<div class="card">{table}</div>'
        + "".join(f"<p>{remark}</p>" for remark in remarks)
        + f"<p>{advice}</p><pre>{commands}</pre>"
    )


def _place(content: Content, kind: str) -> str:
    """Where on the page a kind of finding is shown."""
    # Near duplicates beside copies are shown with these.
    has_heading = kind not in _OF_GROUPS or any(group.kind == kind for group in content.groups)
    return kind if has_heading else "duplicates"


def _classes(content: Content) -> str:
    found = content.found
    counts = found.counts()
    total = sum(counts.values())
    parts = [part for part in PARTS if counts[part].any()]
    labelled = counts["train"] + counts["val"]
    scale = 100 / max(1, total.max())
    lines = []
    for number, name in enumerate(found.class_names):
        of_parts = [(part, counts[part][number]) for part in parts]
        bars = "".join(f'<i class="{p}" style="width:{n * scale:.2f}%"></i>' for p, n in of_parts)
        said = " + ".join(f"{n:,}" for _, n in of_parts)
        link = f' href="#class-{number}"' if name in content.examples else ""
        lines.append(
            f'<a{link}>{escape(name)}</a><span class="bar">{bars}</span>'
            f'<span class="n">{said}</span>'
        )
    smallest, largest = labelled.min(), labelled.max()
    text = f"From {smallest:,} to {largest:,} photos a class"
    if smallest == largest:
        text = f"{smallest:,} photos in every class"
    if smallest and largest >= 1.5 * smallest:
        text += f": the largest has {largest / smallest:.1f} times as many as the smallest"
    scroll = " scroll" if len(lines) > 40 else ""
    unknown = "" if counts["test"].any() or "test" not in found.columns[2] else (
        " The classes of the photos to predict are not known."
    )  # fmt: skip
    return (
        f"<p>{text}.{unknown}</p>{_key(parts)}"
        f'<div class="card{scroll}"><div class="bars">{"".join(lines)}</div></div>'
    )


def _key(parts: Iterable[str]) -> str:
    return (
        '<div class="key">'
        + "".join(f'<span><i class="{part}"></i>{part}</span>' for part in parts)
        + "</div>"
    )


def _examples(content: Content) -> str:
    if not content.examples:
        return ""
    of_class = {name: number for number, name in enumerate(content.found.class_names)}
    counts = content.found.counts()
    blocks = []
    for name, indices in content.examples.items():
        number = of_class[name]
        count = counts["train"][number] + counts["val"][number]
        photos = "".join(_photo(content, index) for index in indices)
        blocks.append(
            f'<h3 id="class-{number}">{escape(name)} <small>{count:,} photos</small></h3>'
            f'<div class="photos">{photos}</div>'
        )
    left = len(of_class) - len(content.examples)
    more = f" Of {left:,} further classes none are shown." if left else ""
    return f"<p>Drawn at random, with their own sizes in pixels.{more}</p>" + "".join(blocks)


def _photo(content: Content, index: int, *lines: str, out: bool = False) -> str:
    """A picture with its id and size under it, and what `lines` (of HTML) say more."""
    photo_id = escape(content.found.columns[0][index])
    size = f"{content.looks.width[index]}×{content.looks.height[index]}"
    caption = "".join(f"<br>{line}" for line in lines)
    jpeg = content.pictures.get(index)
    shown = '<div class="gone">not shown</div>' if not jpeg else _image(jpeg, photo_id)
    opened = '<figure class="out">' if out else "<figure>"
    caption = f"<b>{_foldable(photo_id)}</b>{size}{caption}"
    return f"{opened}{shown}<figcaption>{caption}</figcaption></figure>"


def _foldable(path: str) -> str:
    """May be folded after a folder's name."""
    return path.replace("/", "/<wbr>")


def _image(file: bytes, alt: str, kind: str = "jpeg") -> str:
    data = base64.b64encode(file).decode()
    return f'<img loading="lazy" alt="{alt}" src="data:image/{kind};base64,{data}">'


def _charts(content: Content) -> str:
    if not content.charts:
        return ""
    parts = [part for part in PARTS if (content.found.columns[2] == part).any()]
    cards = "".join(
        f'<div class="card"><h3>{title}</h3>{svg}</div>' for title, svg in content.charts
    )
    return (
        "<p>How many photos have which value. Sizes are those that a person sees, turned as the "
        f'photo\'s EXIF says.</p>{_key(parts)}<div class="charts">{cards}</div>'
    )


def _unopened(content: Content) -> str:
    blocks = []
    for kind in ("unreadable", "left_out"):
        rows = [f for f in content.findings if f.finding == kind and f.is_new]
        if rows:
            blocks.append(_heading(kind, f"{len(rows):,}") + _table(rows))
    return "".join(blocks) + _gallery(content, "opened_in_part")


def _heading(kind: str, count: str) -> str:
    title = KINDS[kind][0].upper() + KINDS[kind][1:]
    return f'<h3 id="{kind}">{title} <small>{count}</small></h3>'


def _table(rows: list[Finding]) -> str:
    lines = "".join(
        f"<tr><td>{_foldable(escape(row.id))}</td><td>{escape(row.label)}</td><td>{row.part}</td>"
        f"<td>{escape(row.detail)}</td></tr>"
        for row in rows[:_ROWS_SHOWN]
    )
    return (
        '<div class="card scroll"><table class="list"><tr><th>photo</th><th>class</th><th>part</th>'
        f"<th>why</th></tr>{lines}</table></div>{_more(len(rows) - _ROWS_SHOWN)}"
    )


def _more(count: int) -> str:
    return f'<p class="muted">And {count:,} more, in findings.csv.</p>' if count > 0 else ""


def _gallery(content: Content, kind: str) -> str:
    total = sum(finding.finding == kind for finding in content.findings)
    if not total:
        return ""
    photos = []
    for finding in shown_of_kind(content.findings, kind):
        lines = [_where(finding.label, finding.part)]
        if kind != "tiny":  # its size stands there anyway
            lines.append(escape(finding.detail))
        photos.append(_photo(content, finding.index, *lines, out=finding.exclude))
    return (
        _heading(kind, f"{total:,}")
        + f'<div class="photos">{"".join(photos)}</div>{_more(total - OF_A_KIND)}'
    )


def _where(label: str, part: str) -> str:
    return f"{escape(label)}, {part}" if label else part


def _duplicates(content: Content) -> str:
    blocks = []
    reasons = {f.index: f for f in content.findings if f.group is not None and f.exclude}
    shown = content.groups[:GROUPS_SHOWN]
    for kind in _OF_GROUPS:
        of_kind = [group for group in content.groups if group.kind == kind]
        if not of_kind:
            continue
        photos = sum(len(group.members) for group in of_kind)
        count = f"{photos:,} photos in {len(of_kind):,} group{'s' * (len(of_kind) > 1)}"
        cards = [_group(content, group, reasons) for group in shown if group.kind == kind]
        blocks.append(
            f"{_heading(kind, count)}<p>{_ADVICE[kind]}</p>"
            f'<div class="groups">{"".join(cards)}</div>' + _more_groups(len(of_kind) - len(cards))
        )
    if not blocks:
        return ""
    return (
        "<p>Found by the bytes, the pixels and a perceptual hash of 64 bits; the distance is the "
        "number of bits in which hashes differ. Outlined in red: suggested to leave out.</p>"
        + "".join(blocks)
    )


def _more_groups(count: int) -> str:
    return f'<p class="muted">And {count:,} more groups, in findings.csv.</p>' if count else ""


def _group(content: Content, group: Group, reasons: dict[int, Finding]) -> str:
    _, labels, parts = content.found.columns
    photos = []
    places = shown_of_group(content.found, group)
    for place in places:
        index, bits = group.members[place], group.distances[place]
        lines = [_where(labels[index], parts[index])]
        if place > 0:
            lines.append("same pixels" if bits is None else f"distance {bits}")
        if index in reasons:
            lines.append('<span class="why">leave out</span>')
        photos.append(_photo(content, index, *lines, out=index in reasons))
    tags = f'<span class="tag">group {group.number}</span> '
    if len(group.parts) > 1:
        tags += f'<span class="tag bad">{" and ".join(sorted(group.parts, reverse=True))}</span> '
    if len(group.labels) > 1:
        tags += f'<span class="tag bad">classes {escape(", ".join(group.labels))}</span> '
    left = len(group.members) - len(places)
    more = f'<p class="muted">And {left:,} more photos.</p>' if left else ""
    return f'<div class="card">{tags}<div class="photos">{"".join(photos)}</div>{more}</div>'


def _outliers(content: Content) -> str:
    return "".join(_gallery(content, kind) for kind in _OF_PHOTOS)


def _network(content: Content) -> str:
    if not content.network:
        return ""
    config = content.config
    figures = []
    for index, png in content.network:
        photo_id = escape(content.found.columns[0][index])
        size = f"{content.looks.width[index]}×{content.looks.height[index]}"
        figures.append(
            f"<figure>{_image(png, photo_id, 'png')}<figcaption><b>{_foldable(photo_id)}</b>"
            f"from {size}</figcaption></figure>"
        )
    return (
        f"<p>Photos to validate with and to predict, at image_size={config.image_size} and "
        f"data.resize={config.data.resize}, in their own size: what cannot be told here, the "
        f'network cannot tell.</p><div class="true">{"".join(figures)}</div>'
    )


def _policies(content: Content) -> str:
    if not content.network:
        return ""
    blocks = []
    for policy in content.policies:
        draws = "".join(
            f"<figure>{_image(jpeg, f'{escape(policy.name)}, draw {number}')}</figure>"
            for photo in policy.draws
            for number, jpeg in enumerate(photo, start=1)
        )
        blocks.append(
            f"<h3>augmentation={escape(policy.name)}</h3><p>{escape(policy.about)}</p>"
            f'<div class="draws square">{draws}</div>'
        )
    return (
        "<p>The same photos, each as three epochs would have it. Blended photos (MixUp, CutMix) "
        "are not shown.</p>" + "".join(blocks)
    )
