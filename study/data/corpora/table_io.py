"""Tables on disk as strings: CSV, JSON lines and Parquet, each row with the place where a person finds it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.common.errors import CorpusError, refuse

DELIMITERS = ",;\t"
_JSON = dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON lines")
_KINDS = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", **_JSON}

Rows = list[tuple[str, dict[str, Any]]]  # (``file, row n``, the cells of that row)


def read_table(path: str, required: Sequence[str], remedy: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """A table of strings, stripped of outer blanks; absent cells are empty, and whole numbers have no ``.0``.

    Args:
        path: ``.csv`` (also with semicolons or tabs, a byte order mark, CRLF, or Excel's line ``sep=;``), ``.jsonl`` or
            ``.parquet``; any other ending is read as CSV.
        required: columns that must be there; the others come along.
        optional: columns that may be there. Of these two kinds, names in another case are understood.

    Returns:
        One row a row, indexed by ``file, row n``. A CSV counts as a spreadsheet does, its header being row 1; JSON
        lines count lines, and Parquet counts its rows from 1.

    Raises:
        CorpusError: no such file, or a folder; not of that kind, no UTF-8, columns missing, rows of another width than
            the header (all of them are named), or no rows.
    """
    if os.path.isdir(path):
        raise CorpusError(f"{path} is a folder. Name the CSV, JSON lines or Parquet file itself. {remedy}")
    if not os.path.isfile(path):
        raise CorpusError(f"{path} does not exist. {remedy}")
    kind = _KINDS.get(os.path.splitext(path)[1].lower(), "CSV")
    try:
        columns, rows = {"CSV": _csv, "JSON lines": _json_lines, "Parquet": _parquet}[kind](path)
    except CorpusError:
        raise
    except (ValueError, csv.Error, pa.ArrowException) as error:
        text = "UTF-8 CSV" if kind == "CSV" else kind
        raise CorpusError(f"{path} cannot be read as a {text} file: {error}. {remedy}") from error
    names = _in_our_case(path, columns, (*required, *optional))
    missing = [column for column in required if column not in names.values()]
    if missing:
        raise CorpusError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. {remedy}")
    if not rows:
        raise CorpusError(f"{path} has no rows. {remedy}")
    cells = [[_text(row.get(column)) for column in columns] for _, row in rows]
    refuse(
        [
            f"{where}: holds half a character (a lone surrogate), which no file can keep. Correct the row."
            for (where, _), texts in zip(rows, cells, strict=True)
            if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
        ]
    )
    return pd.DataFrame(cells, index=[where for where, _ in rows], columns=list(names.values()), dtype=str)


def _in_our_case(path: str, columns: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """What each column of a file is called here: ``Path`` is ``path`` where that is known."""
    ours = {name.casefold(): name for name in known}
    names = {column: ours.get(column.casefold(), column) for column in columns}
    for name in set(names.values()):
        alike = [column for column in columns if names[column] == name]
        if len(alike) > 1:
            raise CorpusError(f"{path} has the columns {' and '.join(alike)}, which are one. Rename or remove one.")
    return names


def _lines(path: str) -> io.StringIO:
    """The text of a file without its byte order mark, line ends as they are."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b"?").splitlines())
        raise CorpusError(
            f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is no UTF-8. Save the file as UTF-8."
        ) from error


def _csv(path: str) -> tuple[list[str], Rows]:
    with _lines(path) as file:
        header = file.readline()
        first = 1
        if separator := re.fullmatch(r'"?sep=(.)"?\s*', header):  # Excel's own
            first = 2
        else:
            file.seek(0)
        delimiter = separator[1] if separator else max(DELIMITERS, key=header.count)
        lines = []
        number = first - 1
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for number, cells in enumerate(reader, first):
                if cells:
                    lines.append((number, cells))
        except csv.Error as error:
            raise CorpusError(
                f"{path}, row {number + 1}: {error}. Close every quote, and double those inside a cell."
            ) from error
    if not lines:
        raise ValueError("it is empty")
    columns = [column.strip() for column in lines[0][1]]
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise ValueError(f"the column {min(twice)!r} stands there twice")
    refuse(
        [
            f"{path}, row {number}: {len(cells)} cells under a header of {len(columns)}. Quote cells that hold a "
            f"delimiter, or correct the row."
            for number, cells in lines[1:]
            if len(cells) != len(columns)
        ]
    )
    return columns, [(f"{path}, row {number}", dict(zip(columns, cells, strict=True))) for number, cells in lines[1:]]


def _json_lines(path: str) -> tuple[list[str], Rows]:
    rows: Rows = []
    errors = []
    with _lines(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, row {number}"
            try:
                cells = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                errors.append(f"{where}: no JSON ({error}). Write one object a line.")
                continue
            if not isinstance(cells, dict):
                errors.append(f"{where}: {type(cells).__name__} instead of an object. Write one object a line.")
            elif cells:
                rows.append((where, cells))
    refuse(errors)
    return list(dict.fromkeys(column for _, cells in rows for column in cells)), rows


def _parquet(path: str) -> tuple[list[str], Rows]:
    table = pq.read_table(path)
    rows = [(f"{path}, row {number}", cells) for number, cells in enumerate(table.to_pylist(), 1)]
    return table.column_names, rows


def _text(value: Any) -> str:
    if value is None or value != value:  # JSON and Parquet may hold NaN
        return ""
    if isinstance(value, float) and value.is_integer():  # whole numbers with a gap among them become floats
        return str(int(value))
    return str(value).strip()
