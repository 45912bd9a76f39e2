"""What both levels of a hierarchy are worth, in words and rows of tables."""

from carcls.console import table
from carcls.evaluation.hierarchy import ANSWERS, DIFFERENCES, Levels
from carcls.evaluation.metrics import shown_value


def rows_of_answers(levels: Levels) -> list[list[str]]:
    """What, accuracy with its interval, balanced accuracy, F1, mean precision, NLL; as text."""
    rows = []
    for name, label in {"fine": "fine classes", **ANSWERS}.items():
        if name in levels.values:
            values = levels.values[name]
            cells = [_with_interval(levels, name, "top1")]
            cells += [f"{values[key]:.2%}" for key in ("balanced_accuracy", "macro_f1")]
            cells.append(_with_interval(levels, name, "precision"))
            cells.append(shown_value("nll", values["nll"]) if "nll" in values else "-")
            rows.append([label if name == "fine" else f"coarse: {label}", *cells])
    return rows


def rows_of_differences(levels: Levels) -> list[list[str]]:
    """Which difference of precision, its mean over fine classes, and the interval; as text."""
    rows = []
    for name, mean in levels.values["differences"].items():
        ends = levels.intervals.get("differences", {}).get(name)
        between = f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
        rows.append([DIFFERENCES[name][2], f"{mean:+.3f}", between])
    return rows


def errors_in_words(levels: Levels) -> str:
    """How many of the errors stay inside the right coarse class; empty where there is no error."""
    errors = levels.values["errors"]
    if "inside" not in errors:
        return ""
    ends = levels.intervals.get("errors", {}).get("inside")
    between = f" (95 % interval {ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
    return (
        f"{errors['inside']:.1%} of the errors{between} stay inside the right coarse class; "
        f"{errors['inside_by_chance']:.1%} would if the wrong class were any other."
    )


def summary(levels: Levels) -> str:
    """For the terminal."""
    columns = ["", "accuracy", "balanced", "F1", "mean precision", "NLL"]
    text = table(columns, rows_of_answers(levels))
    return f"{text}\n\n{errors_in_words(levels)}".rstrip()


def _with_interval(levels: Levels, group: str, name: str) -> str:
    value = f"{levels.values[group][name]:.2%}"
    ends = levels.intervals.get(group, {}).get(name)
    return f"{value} ({ends[0]:.1%} to {ends[1]:.1%})" if ends else value
