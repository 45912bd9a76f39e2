"""What networks say of loose photos: the likeliest classes, as a table, files and pictures."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from carcls import run as files
from carcls.config import PredictConfig
from carcls.console import UNFOLDED, facts, table
from carcls.data.records import examples, opened_in_part
from carcls.errors import UserError
from carcls.plots import draw_likeliest
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.job import (
    describe_ensemble,
    predict_photos,
    run_facts_of,
    set_aside_other,
    write_metrics,
)
from carcls.prediction.photos import find_photos, likeliest, with_errors
from carcls.prediction.predictor import Predictor

log = logging.getLogger(__name__)

_PHOTOS_SHOWN = 20  # on the terminal; the CSV has all
_PLOTS = 200  # pictures; of more photos the first ones are drawn


def predict_loose_photos(
    networks: dict[str, Predictor | Ensemble], config: PredictConfig, workdir: Path
) -> pd.DataFrame:
    """Writes the likeliest classes of `config.images` into `workdir`.

    Args:
        networks: By name, each on its own; `{"": …}` for one that needs none.
        config: Of the prediction.
        workdir: Receives photos.csv, photos.json and, with `plot`, plots/.

    Returns:
        What photos.csv holds: of several networks model; path, rank, number (of the class, from 0),
        class, probability, error.

    Raises:
        UserError: If there is no photo that opens, or a network cannot be loaded.
    """
    paths = find_photos(config.images)
    metrics: dict[str, Any] = {}
    parts, errors, notes = [], {}, {}
    for name, predictor in networks.items():
        metrics |= describe_ensemble(predictor)
        predicted = predict_photos(predictor, paths, config)
        predictor.members[0].release()
        errors, notes = errors | predicted.errors, notes | predicted.notes
        opens = [i for i in range(len(paths)) if i not in predicted.errors]
        good = [paths[i] for i in opens]
        rows = likeliest(good, predicted.probs[opens], predictor.class_names, config.top)
        rows = with_errors(rows, paths, predicted.errors)
        if name:
            rows.insert(0, "model", name)
        parts.append(rows)
    rows = pd.concat(parts, ignore_index=True)
    reasons = [f"{paths[i]} ({reason})" for i, reason in sorted(errors.items())]
    if len(reasons) == len(paths):
        raise UserError(f"Expected photos that can be opened. Received: {examples(reasons)}.")
    shares = [share for predictor in networks.values() for share in predictor.shares]
    set_aside_other(shares, config, workdir)  # now that no mistake can follow
    output = Path(config.output).expanduser() if config.output else workdir / "photos.csv"
    output = output.with_suffix(".csv") if output.suffix.lower() == ".json" else output
    with files.replacing(output) as temporary:
        rows.to_csv(temporary, index=False)
    as_json = output.with_suffix(".json")
    files.write_text(as_json, json.dumps(_nested(rows), indent=2, ensure_ascii=False) + "\n")
    of_notes = {paths[i]: note for i, note in sorted(notes.items())}
    run_facts = run_facts_of(shares, config, of_notes) | {"not_opened": reasons}
    files.write_json(workdir / files.RUN, run_facts)
    write_metrics(workdir, metrics)
    good = [path for i, path in enumerate(paths) if i not in errors]
    plots = _draw(rows, good, workdir / "plots") if config.plot else None
    log.info(_as_table(rows, good[:_PHOTOS_SHOWN], list(networks)))
    if of_notes:
        log.info(opened_in_part(list(of_notes)) + "\n")
    if reasons:
        log.info(
            f"\n{len(reasons)} of {len(paths)} cannot be opened: {examples(reasons)}. "
            "They keep a row without a class."
        )
    more = f" (the first {_PHOTOS_SHOWN} are shown)" if len(good) > _PHOTOS_SHOWN else ""
    log.info(f"\n{len(good)} photos{more}; all of it in {files.shown(output)}")
    places = [("as JSON", str(files.shown(as_json)))]
    if plots is not None:
        places.append(("pictures", str(files.shown(plots))))
    log.info(facts(places, UNFOLDED))
    return rows


def _as_table(rows: pd.DataFrame, paths: list[str], names: list[str]) -> str:
    """The networks side by side."""
    of_one = {
        (row.get("model", ""), row["path"], int(row["rank"])): (
            str(row["number"]), row["class"], f"{row['probability']:.1%}",
        )
        for row in rows[rows["rank"].notna()].to_dict("records")
    }  # fmt: skip
    ranks = range(1, 1 + max(rank for _, _, rank in of_one))
    lines = []
    for path in paths:
        for rank in ranks:
            answers = [of_one.get((name, path, rank), ("", "", "")) for name in names]
            if any(map(any, answers)):
                cells = [cell for answer in answers for cell in answer]
                lines.append([path if rank == 1 else "", str(rank), *cells])
    columns = [c for name in names for c in ("number", f"{name}: class" if name else "class",
                                             "probability")]  # fmt: skip
    return table(["photo", "rank", *columns], lines)


def _nested(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A photo each, with what every network says of it."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        photo = found.setdefault(row["path"], {"path": row["path"], "error": None, "classes": []})
        if pd.isna(row["rank"]):
            photo["error"] = row["error"]
            continue
        answer = {"model": row["model"]} if "model" in row else {}
        photo["classes"].append(
            answer
            | {"rank": int(row["rank"]), "number": int(row["number"]), "class": row["class"],
               "probability": row["probability"]}
        )  # fmt: skip
    return list(found.values())


def _draw(rows: pd.DataFrame, paths: list[str], folder: Path) -> Path:
    """A picture a photo, with a bar a class; those of an earlier prediction go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    digits = len(str(min(len(paths), _PLOTS)))
    for number, path in enumerate(paths[:_PLOTS], start=1):
        name = f"{number:0{digits}}_{Path(path).stem}.png"
        draw_likeliest(path, rows[rows.path == path]).write(folder / name, compress_level=3)
    if len(paths) > _PLOTS:
        log.info(f"The first {_PLOTS} of {len(paths)} photos are drawn.")
    return folder
