"""The reader of any collection of clips that is described by one table."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from study.common.errors import CorpusError, refuse
from study.common.groups import GENDERS
from study.data.corpora.corpus import Listing
from study.data.corpora.label_maps import read_words, translated
from study.data.corpora.splits import by_speaker, gender_errors
from study.data.corpora.table_io import read_table

REQUIRED = ("path", "emotion", "language", "speaker", "gender")
OPTIONAL = ("transcript", "split", "dialogue")


def list_manifest(file: Path, split: str = "parallel", seed: int = 0) -> Listing:
    """Read a CSV, JSON lines or Parquet file with the columns ``REQUIRED`` and perhaps some of ``OPTIONAL``.

    Paths are relative to the file. Its own split column is kept, since nothing is known of parallel utterances here;
    without one, or with the split "speaker", the speakers are divided. Without a dialogue column every clip is
    a dialogue of its own. Case does not matter in the names of columns. Words of its own for emotions and so on are
    explained by a ``words.csv`` beside it (``vocabulary.read_words``).

    Args:
        split: ``parallel``, ``official``, ``speaker`` or ``none``, see ``study.config.settings.CorpusSettings``.
        seed: of the division by speaker.

    Raises:
        CorpusError: the file is faulty, rows are (all of them are named), or the speakers are too few to divide.
    """
    table_path = os.path.abspath(file)
    root = os.path.dirname(table_path)
    known = ", ".join(REQUIRED)
    table = read_table(table_path, REQUIRED, f"A manifest has the columns {known}; see the README.", OPTIONAL)
    blank = pd.Series("", index=table.index)
    rows = pd.DataFrame(
        {
            "where": table.index,
            "utterance_id": [_id(root, path) for path in table["path"]],
            "path": [os.path.normpath(os.path.join(root, path)) for path in table["path"]],
            "transcript": table.get("transcript", blank),
            "speaker": table["speaker"],
            "dialogue": table.get("dialogue", blank),
            "unit": table.get("dialogue", blank),
            "clip": "",
            "kept": True,
            "resolved": "manifest",
        },
        index=table.index,
    )
    words = read_words(root)
    errors = _row_errors(table, rows)
    for column in ("emotion", "language", "gender", *(["split"] if "split" in table.columns else [])):
        rows[column], more = translated(table, column, words.get(column, {}))
        errors += more
    errors += gender_errors(rows, GENDERS)  # one slip would move utterances between the genders of every gap
    refuse(errors)
    rows["official"] = rows["split"] if "split" in rows.columns else ""
    rows["dialogue"] = rows["dialogue"].where(rows["dialogue"] != "", rows["utterance_id"])
    rows = rows.reset_index(drop=True)
    if split == "official" and "split" not in table.columns:
        raise CorpusError(f"{table_path} has no split column to follow. Add one, or use --split speaker.")
    if split == "none":
        return Listing("manifest", root, rows.assign(split="test"), ())
    if split == "speaker" or "split" not in table.columns:
        rows["split"] = rows["speaker"].map(by_speaker(rows, table_path, seed))
        return Listing("manifest", root, rows, ("The manifest's speakers were divided into train, dev and test.",))
    shared = int((rows.groupby("speaker")["split"].nunique() > 1).sum())
    notes = (f"{shared} speakers stand on several sides of the manifest's own split.",) if shared else ()
    return Listing("manifest", root, rows, notes)


def _id(root: str, path: str) -> str:
    """The path relative to the manifest."""
    return os.path.relpath(os.path.join(root, path), root).replace(os.sep, "/")


def _row_errors(table: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    errors = [f"{where}: the path is empty. Name a clip." for where in table.index[table["path"] == ""]]
    errors += [
        f"{where}: the speaker is empty. Name the voice; intervals are drawn over speakers."
        for where in table.index[table["speaker"] == ""]
    ]
    ids = rows["utterance_id"]
    first = dict(zip(reversed(ids.tolist()), reversed(table.index.tolist()), strict=True))
    errors += [
        f"{where}: {name} stands in {first[name].rpartition(', ')[2]} too. Every row names a clip of its own."
        for where, name in ids[ids.duplicated()].items()
    ]
    return errors
