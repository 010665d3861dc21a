"""One self-contained page: sections of words, figures and tables, as HTML with everything inside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from analysis.formatting import formatted

LONG = 50
"""A table of more rows is folded away."""


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, with what it shows in words; folded away under ``fold`` if that is given."""

    svg: bytes
    alt: str
    fold: str = ""

    @property
    def uri(self) -> str:
        """As a document of its own inside the page, so that the ids of two figures cannot clash."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True)
class Table:
    """A table; its first column heads the rows. Columns of two levels become spanning headings."""

    frame: pd.DataFrame
    fold: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and what is below it."""

    title: str
    words: str = ""
    blocks: tuple[Picture | Table, ...] = ()


def render_page(
    title: str,
    answer: str,
    warnings: Sequence[str],
    sections: Sequence[Section],
    facts: Mapping[str, str],
    settings: str,
) -> str:
    """The page as HTML. Every word is escaped; nothing is loaded from elsewhere; without script it can be read too.

    Args:
        answer: the study in one sentence.
        warnings: what a reader must know first.
        facts: how it was made, by name.
        settings: shown as they are.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [(section, [_block(block) for block in section.blocks]) for section in sections]
    return environment.get_template("template.html.j2").render(
        title=title, answer=answer, warnings=warnings, sections=shown, facts=facts, settings=settings
    )


def _block(block: Picture | Table) -> dict[str, Any]:
    if isinstance(block, Picture):
        return {"fold": block.fold, "picture": block, "table": None}
    rows = len(block.frame)
    fold = block.fold or (f"All {rows:,} rows" if rows > LONG else "")
    return {"fold": fold, "picture": None, "table": _table(block.frame)}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Headings and rows of strings for the template, and which columns hold figures."""
    columns = [column if isinstance(column, tuple) else ("", column) for column in frame]
    groups: list[tuple[str, int]] = []
    for over, _ in columns:
        if groups and groups[-1][0] == over:
            groups[-1] = (over, groups[-1][1] + 1)
        else:
            groups.append((str(over), 1))
    shown = formatted(frame)
    return {
        "groups": groups if any(over for over, _ in groups) else [],
        "headings": [_unbroken(str(column)) for _, column in columns],
        "numeric": [_is_numeric(frame.iloc[:, i], shown.iloc[:, i]) for i in range(len(columns))],
        "rows": shown.to_numpy().tolist(),
    }


def _unbroken(heading: str) -> str:
    return heading.replace("W-F1", "W\N{NON-BREAKING HYPHEN}F1").replace(" − ", "\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}")


def _is_numeric(column: pd.Series, shown: pd.Series) -> bool:
    """Whether a column is to be sorted by number: figures, and words that begin with one, such as a range."""
    if pd.api.types.is_numeric_dtype(column):
        return True
    said = [text for text in shown if text not in ("", "–")]
    return bool(said) and all(re.match(r"[<+−]?\d", text) for text in said)
