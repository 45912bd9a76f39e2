"""Opens every photo once and writes what is worth knowing before training on them."""

import csv
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from carcls import console
from carcls.config import ExploreConfig
from carcls.data.records import examples as some_of
from carcls.data.rows import NEIGHBOUR
from carcls.data.workers import Workers, workers_for
from carcls.errors import UserError
from carcls.exploration.charts import draw_distributions
from carcls.exploration.findings import (
    KINDS,
    Finding,
    Group,
    emptied_classes,
    find_groups,
    list_findings,
)
from carcls.exploration.looks import Looks, find_alike, look_at_all
from carcls.exploration.page import Content, build_page
from carcls.exploration.photos import PARTS, Found, find_photos
from carcls.exploration.pictures import (
    CONF,
    GROUPS_SHOWN,
    choose_examples,
    choose_for_network,
    draw_policies,
    read_policies,
    seen_by_network,
    shown_of_group,
    shown_of_kind,
    take_pictures,
)
from carcls.run import describe_environment, replacing, shell_quoted, shown, write_text

log = logging.getLogger(__name__)

PAGE, FINDINGS, PHOTOS = "explore.html", "findings.csv", "photos.csv"
_FINDING_COLUMNS = ("id", "label", "part", "finding", "group", "of", "detail", "exclude")
_PHOTO_COLUMNS = (
    "id", "part", "label", "path", "width", "height", "aspect", "bytes", "format", "brightness",
    "contrast", "hash", "note", "error",
)  # fmt: skip
# What a training chooses for itself.
_NOT_REPEATED = (
    "name", "on_missing", "on_error", "exclude", "refit", "group_near_duplicates", "target",
    "hierarchy",
)  # fmt: skip


@dataclass(kw_only=True)
class Exploration:
    """What was found, and where it was written."""

    found: Found
    looks: Looks
    groups: list[Group]
    findings: list[Finding]
    page: Path
    seconds: float


def explore(config: ExploreConfig, workdir: Path) -> Exploration:
    """Looks at all photos and writes PAGE, FINDINGS and PHOTOS into `workdir`.

    Args:
        config: All of it.
        workdir: Where they go; what is there is replaced.

    Raises:
        UserError: If there are no photos to train on, one cannot be opened and `data.on_error` is
            `raise`, FINDINGS would replace `data.exclude`, or the disk is not as it should be.
    """
    started = time.perf_counter()
    _expect_no_loss(config, workdir)
    policies = read_policies()  # their mistakes are told before minutes of decoding
    found = find_photos(config.data)
    paths = found.table.path.tolist()
    count = workers_for(len(paths), config.runtime.workers)
    with Workers("carcls.exploration.look:tasks", None, count) as workers:
        with _progress("opening photos", len(paths)) as progress:
            looks = look_at_all(paths, workers, progress)
        if config.data.on_error == "raise" and looks.errors:
            raise _cannot_be_opened(looks, paths)
        with _progress("looking for copies", None) as progress:
            contents, alike = find_alike(looks, paths, config.max_distance, workers, progress)
        groups = find_groups(found, looks, contents, alike)
        findings = list_findings(found, looks, groups, contents, config.image_size)
        examples = choose_examples(found, looks, config.photos_per_class, config.seed)
        wanted = _photos_to_show(found, groups, findings, examples)
        with _progress("making small pictures", len(wanted)) as progress:
            pictures = take_pictures(wanted, paths, workers, progress)
    # The same, however many photos of each class are shown.
    chosen = choose_for_network(choose_examples(found, looks, 1, config.seed), config.seed)
    chosen_paths = [paths[index] for index in chosen]
    emptied = emptied_classes(found, findings)
    content = Content(
        made=_how_it_was_made(),
        config=config,
        found=found,
        looks=looks,
        groups=groups,
        findings=findings,
        examples=examples,
        pictures=pictures,
        network=list(zip(chosen, seen_by_network(chosen_paths, config), strict=True)),
        policies=draw_policies(policies, chosen_paths, config) if chosen else [],
        charts=draw_distributions(looks, found.columns[2]),
        next_commands=_next_commands(config, found, findings, workdir),
        emptied=emptied,
    )
    _write_csv(workdir / FINDINGS, _FINDING_COLUMNS, map(_row_of_finding, findings))
    _write_csv(workdir / PHOTOS, _PHOTO_COLUMNS, _rows_of_photos(found, looks))
    page = build_page(content)
    # A name that is no Unicode is shown with its odd bytes spelt out.
    write_text(workdir / PAGE, page.encode("utf-8", "backslashreplace").decode())
    seconds = time.perf_counter() - started
    log.info(_summary(content, workdir, seconds))
    return Exploration(
        found=found,
        looks=looks,
        groups=groups,
        findings=findings,
        page=workdir / PAGE,
        seconds=seconds,
    )


def _expect_no_loss(config: ExploreConfig, workdir: Path) -> None:
    """Raises if FINDINGS would replace the file of `data.exclude`, in which a person may write."""
    exclude = config.data.exclude
    if exclude and Path(exclude).expanduser().resolve() == (workdir / FINDINGS).resolve():
        raise UserError(
            f"Expected data.exclude to be another file than the {FINDINGS} that is written. "
            f"Received: data.exclude={exclude}, which would be replaced. Choose another directory "
            "with hydra.run.dir=DIR, or move the file."
        )


def _cannot_be_opened(looks: Looks, paths: list[str]) -> UserError:
    reasons = [f"{paths[index]} ({reason})" for index, reason in sorted(looks.errors.items())]
    return UserError(
        f"Expected photos that can be opened. Received {len(reasons)} of {len(paths)} that cannot: "
        f"{some_of(reasons)}. Go on with data.on_error=skip, which lists them."
    )


@contextmanager
def _progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    with console.progress_bar() as bar:
        task = bar.add_task(text, total=total, note="")
        yield lambda count: bar.advance(task, count)


def _photos_to_show(
    found: Found, groups: list[Group], findings: list[Finding], examples: dict[str, list[int]]
) -> list[int]:
    """Indices, those that are odd first: the page may have no room for all."""
    wanted = [
        group.members[place]
        for group in groups[:GROUPS_SHOWN]
        for place in shown_of_group(found, group)
    ]
    for kind in KINDS:
        if kind not in ("unreadable", "left_out"):
            wanted += [finding.index for finding in shown_of_kind(findings, kind)]
    wanted += [index for indices in examples.values() for index in indices]
    return list(dict.fromkeys(wanted))


def _how_it_was_made() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M}, {describe_environment()['command']}"


def _row_of_finding(finding: Finding) -> tuple:
    return (
        finding.id,
        finding.label,
        finding.part,
        finding.finding,
        finding.group or "",
        finding.of,
        finding.detail,
        "yes" if finding.exclude else "no",
    )


def _rows_of_photos(found: Found, looks: Looks) -> Iterator[tuple]:
    aspect = looks.aspect
    for i, row in enumerate(found.table.itertuples(index=False)):
        opens = i not in looks.errors
        yield (
            row.id, row.part, row.label, row.path,
            *((looks.width[i], looks.height[i], f"{aspect[i]:.3f}") if opens else ("", "", "")),
            looks.num_bytes[i] if looks.num_bytes[i] >= 0 else "",
            looks.formats[i],
            *((f"{looks.brightness[i]:.1f}", f"{looks.contrast[i]:.1f}") if opens else ("", "")),
            f"{looks.hashes[i]:016x}" if opens else "",
            looks.notes.get(i, ""), looks.errors.get(i, ""),
        )  # fmt: skip


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterator[tuple]) -> None:
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _next_commands(
    config: ExploreConfig, found: Found, findings: list[Finding], workdir: Path
) -> list[str]:
    """The training that takes the findings back."""
    words = ["python train.py", *_data_options(config)]
    if any(finding.exclude and finding.is_new for finding in findings):
        words.append(f"data.exclude={shell_quoted(workdir / FINDINGS)}")
    elif config.data.exclude is not None:
        words.append(f"data.exclude={shlex.quote(config.data.exclude)}")
    stays = [f for f in findings if f.finding == "left_out" and not f.exclude and f.part != "test"]
    stops = [f for f in stays if not f.id.endswith("/") and f.detail != NEIGHBOUR]
    if stops and config.data.name != "folder":
        words.append("data.on_missing=skip")
    trained = Counter(f.group for f in findings if f.group and f.part == "train" and not f.exclude)
    is_drawn = config.data.val_ids is None and "val" not in found.columns[2]
    if is_drawn and any(count > 1 for count in trained.values()):
        words.append("data.group_near_duplicates=true")
    if config.image_size != OmegaConf.load(CONF / "train.yaml").image_size:
        words.append(f"image_size={config.image_size}")
    return [" ".join(words)]


def _data_options(config: ExploreConfig) -> list[str]:
    """What differs from conf/data, as it is written on the command line."""
    data = config.data
    files = ["kaggle", "demo"] if data.name == "demo" else [data.name]
    usual = OmegaConf.merge(*(OmegaConf.load(CONF / "data" / f"{name}.yaml") for name in files))
    options = [f"data={data.name}"]
    for key in (field.name for field in fields(data) if field.name not in _NOT_REPEATED):
        value = getattr(data, key)
        if value is None or value == usual.get(key):
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        options.append(f"data.{key}={shlex.quote(text)}")
    return options


def _summary(content: Content, workdir: Path, seconds: float) -> str:
    found, findings, looks = content.found, content.findings, content.looks
    parts = Counter(found.columns[2].tolist())
    of_parts = ", ".join(f"{parts[part]:,} {part}" for part in PARTS if parts[part])
    counts = Counter(finding.finding for finding in findings if finding.is_new)
    odd = [f"{counts[kind]:,} × {what}" for kind, what in KINDS.items() if counts[kind]]
    suggested = len({(f.id, f.label) for f in findings if f.exclude and f.is_new})
    pairs = [
        ("photos", f"{len(looks):,} of {len(found.class_names):,} classes: {of_parts}"),
        ("odd", "\n".join(odd) or "nothing"),
    ]
    if found.remarks:
        pairs.append(("", "\n".join(found.remarks)))
    if content.emptied:
        lost = ", ".join(content.emptied[:5])
        pairs.append(("", f"Nothing would be left to train on in {lost}: train.py would stop."))
    before = f", and {found.num_excluded:,} as before" if found.num_excluded else ""
    pairs += [
        ("page", str(shown(workdir / PAGE))),
        ("findings", f"{shown(workdir / FINDINGS)}, of which {suggested:,} to leave out{before}"),
        ("took", f"{console.duration(seconds)}"),
        ("train", "\n".join(content.next_commands)),
    ]
    return console.facts(pairs, console.UNFOLDED)
