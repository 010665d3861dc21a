"""Render a report as one HTML page with all figures and tables inside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from analysis.formatting import formatted

MAX_OPEN_ROWS = 50
"""A table with more rows is folded away."""


@dataclass(frozen=True)
class Picture:
    """A figure as SVG with its alternative text; ``fold`` is the heading under which it is folded away, if any."""

    svg: bytes
    alt: str
    fold: str = ""

    @property
    def uri(self) -> str:
        """The figure as a data URI: a document of its own, so that the ids of two figures cannot clash."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True)
class Table:
    """A table whose first column is the row heading. Columns of two levels become spanning headings."""

    frame: pd.DataFrame
    fold: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, text (one paragraph per line), figures and tables."""

    title: str
    text: str = ""
    blocks: tuple[Picture | Table, ...] = ()


def render_page(
    title: str,
    headline: str,
    caveats: Sequence[str],
    sections: Sequence[Section],
    facts: Mapping[str, str],
    settings: str,
) -> str:
    """Return the page as HTML. All text is escaped, nothing is loaded from elsewhere, and scripts are optional.

    Args:
        headline: the result in a sentence or two.
        caveats: what a reader must know before trusting the figures.
        facts: what is needed to reproduce the study, by name.
        settings: the settings as JSON.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rendered = [(section, [_block(block) for block in section.blocks]) for section in sections]
    return environment.get_template("template.html.j2").render(
        title=title, headline=headline, caveats=caveats, sections=rendered, facts=facts, settings=settings
    )


def _block(block: Picture | Table) -> dict[str, Any]:
    if isinstance(block, Picture):
        return {"fold": block.fold, "picture": block, "table": None}
    rows = len(block.frame)
    fold = block.fold or (f"All {rows:,} rows" if rows > MAX_OPEN_ROWS else "")
    return {"fold": fold, "picture": None, "table": _table(block.frame)}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return spanning headings, headings, rows of strings, and which columns are numeric."""
    columns = [column if isinstance(column, tuple) else ("", column) for column in frame]
    groups: list[tuple[str, int]] = []
    for group, _ in columns:
        if groups and groups[-1][0] == group:
            groups[-1] = (group, groups[-1][1] + 1)
        else:
            groups.append((str(group), 1))
    strings = formatted(frame)
    return {
        "groups": groups if any(group for group, _ in groups) else [],
        "headings": [_without_breaks(str(column)) for _, column in columns],
        "numeric": [_is_numeric(frame.iloc[:, i], strings.iloc[:, i]) for i in range(len(columns))],
        "rows": strings.to_numpy().tolist(),
    }


def _without_breaks(heading: str) -> str:
    return heading.replace("W-F1", "W\N{NON-BREAKING HYPHEN}F1").replace(" − ", "\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}")


def _is_numeric(column: pd.Series, strings: pd.Series) -> bool:
    """Return whether to sort a column by number: numbers, or text that starts with one, such as an interval."""
    if pd.api.types.is_numeric_dtype(column):
        return True
    texts = [text for text in strings if text not in ("", "–")]
    return bool(texts) and all(re.match(r"[<+−]?\d", text) for text in texts)
