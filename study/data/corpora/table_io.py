"""Read CSV, JSON lines and Parquet tables as strings; each row is indexed by its location in the file.

``pandas.read_csv`` is not used: it neither reports every faulty row nor knows the row numbers of a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.common.errors import CorpusError, refuse

DELIMITERS = ",;\t"


def read_table(path: str, required: Sequence[str], remedy: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of stripped strings; absent cells are empty, and whole numbers have no ``.0``.

    Args:
        path: ``.csv`` (also with semicolons or tabs, a byte order mark, CRLF, or Excel's line ``sep=;``), ``.jsonl`` or
            ``.parquet``; any other extension is read as CSV.
        required: columns that the file needs; others are returned too.
        optional: columns that the file may have. The names of required and optional columns are case-insensitive.
        remedy: sentence for error messages.

    Returns:
        The rows, indexed by ``file, row n``. CSV rows are numbered as in a spreadsheet (the header is row 1), JSON rows
        by line, Parquet rows from 1.

    Raises:
        CorpusError: the file does not exist, is a folder, is not of its format or not UTF-8, lacks columns, has rows of
            another width than the header (all of them are named), or has no rows.
    """
    if os.path.isdir(path):
        raise CorpusError(f"{path} is a folder. Name the CSV, JSON lines or Parquet file itself. {remedy}")
    if not os.path.isfile(path):
        raise CorpusError(f"{path} does not exist. {remedy}")
    file_format, read = _FORMATS.get(os.path.splitext(path)[1].lower(), _FORMATS[".csv"])
    try:
        raw = read(path)
    except CorpusError:
        raise
    except (ValueError, csv.Error, pa.ArrowException) as error:
        raise CorpusError(f"{path} cannot be read as a {file_format} file: {error}. {remedy}") from error
    names = _canonical_names(path, list(raw.columns), (*required, *optional))
    missing = [column for column in required if column not in names.values()]
    if missing:
        raise CorpusError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. {remedy}")
    if raw.empty:
        raise CorpusError(f"{path} has no rows. {remedy}")
    cells = [[_text(value) for value in row] for row in raw.itertuples(index=False, name=None)]
    refuse(
        [
            f"{location}: contains a lone surrogate (half a character), which no file can store. Correct the row."
            for location, texts in zip(raw.index, cells, strict=True)
            if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
        ]
    )
    return pd.DataFrame(cells, index=raw.index, columns=list(names.values()), dtype=str)


def _canonical_names(path: str, columns: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return column of the file -> our name for it: ``Path`` -> ``path`` if ``path`` is known."""
    by_folded = {name.casefold(): name for name in known}
    names = {column: by_folded.get(column.casefold(), column) for column in columns}
    for name in set(names.values()):
        same = [column for column in columns if names[column] == name]
        if len(same) > 1:
            raise CorpusError(f"{path} has the columns {' and '.join(same)}, which mean the same. Remove one of them.")
    return names


def _open_text(path: str) -> io.StringIO:
    """Return the text of a file without its byte order mark, with its own line ends."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b"?").splitlines())
        raise CorpusError(
            f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error


def _read_csv(path: str) -> pd.DataFrame:
    with _open_text(path) as file:
        first_line = file.readline()
        first_row = 1
        if separator := re.fullmatch(r'"?sep=(.)"?\s*', first_line):  # written by Excel
            first_row = 2
        else:
            file.seek(0)
        delimiter = separator[1] if separator else max(DELIMITERS, key=first_line.count)
        rows: dict[int, list[str]] = {}
        number = first_row - 1
        try:
            for number, cells in enumerate(csv.reader(file, delimiter=delimiter, strict=True), first_row):
                if cells:
                    rows[number] = cells
        except csv.Error as error:
            raise CorpusError(
                f"{path}, row {number + 1}: {error}. Close every quote, and double quotes inside a cell."
            ) from error
    if not rows:
        raise ValueError("it is empty")
    columns = [column.strip() for column in rows.pop(min(rows))]
    duplicates = {column for column in columns if columns.count(column) > 1}
    if duplicates:
        raise ValueError(f"the column {min(duplicates)!r} occurs twice")
    refuse(
        [
            f"{path}, row {number}: {len(cells)} cells, but the header has {len(columns)}. Quote cells that contain a "
            "delimiter, or correct the row."
            for number, cells in rows.items()
            if len(cells) != len(columns)
        ]
    )
    locations = [f"{path}, row {number}" for number in rows]
    return pd.DataFrame(list(rows.values()), index=locations, columns=columns, dtype=object)


def _read_json_lines(path: str) -> pd.DataFrame:
    rows: dict[str, dict[str, Any]] = {}
    errors = []
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            location = f"{path}, row {number}"
            try:
                cells = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                errors.append(f"{location}: not JSON ({error}). Write one object per line.")
                continue
            if not isinstance(cells, dict):
                errors.append(f"{location}: {type(cells).__name__} instead of an object. Write one object per line.")
            elif cells:
                rows[location] = cells
    refuse(errors)
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)


def _read_parquet(path: str) -> pd.DataFrame:
    table = pq.read_table(path)
    locations = [f"{path}, row {number}" for number in range(1, len(table) + 1)]
    return pd.DataFrame(table.to_pylist(), index=locations, columns=table.column_names, dtype=object)


def _text(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with absent cells
        return str(int(value))
    return str(value).strip()


_FORMATS: dict[str, tuple[str, Callable[[str], pd.DataFrame]]] = {
    ".csv": ("UTF-8 CSV", _read_csv),
    ".parquet": ("Parquet", _read_parquet),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), ("JSON lines", _read_json_lines)),
}
