"""What all pages share: their frame, tables and charts. Plain HTML that fetches nothing."""

import base64
from html import escape
from pathlib import Path

_ROWS = 200  # of a table; the CSV has all


def page(
    title: str, made: str, headline: str, sections: dict[str, tuple[str, str]], foot: str
) -> str:
    """A whole page.

    Args:
        title: As text.
        made: When and how, as text.
        headline: HTML above the sections.
        sections: Title and HTML of each, by anchor; one without HTML is left out.
        foot: As text.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    sections = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{name}</h2>{inside}</section>\n'
        for key, (name, inside) in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}"
        f'</style></head>\n<body>\n<header><h1>{escape(title)}</h1><p class="muted">'
        f"{escape(made)}</p>{headline}<nav>{links}</nav></header>\n"
        f"<main>\n{body}<footer>{escape(foot)}</footer></main></body></html>\n"
    )


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML; all but the first are numbers, set to the right."""
    kind = ["", *[' class="n"'] * (len(columns) - 1)]
    head = "".join(f"<th{k}>{name}</th>" for k, name in zip(kind, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True)) + "</tr>"
        for row in rows[:_ROWS]
    )
    more = f'<p class="muted">And {len(rows) - _ROWS:,} more.</p>' if len(rows) > _ROWS else ""
    return f'<div class="card scroll"><table><tr>{head}</tr>{body}</table></div>{more}'


def chart(png: bytes, about: str) -> str:
    """A picture within the page."""
    data = base64.b64encode(png).decode()
    return f'<img class="chart" alt="{escape(about)}" src="data:image/png;base64,{data}">'
