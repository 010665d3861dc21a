"""Read any collection of clips that one table, the manifest, describes."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from study.common.errors import CorpusError, refuse
from study.common.groups import GENDERS
from study.data.corpora.corpus import Listing, relative_paths
from study.data.corpora.label_maps import read_labels_file, translate_column
from study.data.corpora.splits import gender_errors, split_by_speaker
from study.data.corpora.table_io import read_table

REQUIRED = ("path", "emotion", "language", "speaker", "gender")
OPTIONAL = ("transcript", "split", "dialogue")


def list_manifest(file: Path, split: str = "parallel", seed: int = 0) -> Listing:
    """Read a CSV, JSON lines or Parquet file with the columns ``REQUIRED`` and optionally those of ``OPTIONAL``.

    Paths are relative to the file. The file's own split column is used as it is, since a manifest does not say which
    utterances are parallel. Without a split column, or with ``split="speaker"``, speakers are split. Without a dialogue
    column every clip is a dialogue of its own. Column names are case-insensitive. A ``words.csv`` beside the file maps
    other labels of emotions, languages, genders and splits (``label_maps.read_labels_file``).

    Args:
        split: ``parallel``, ``official``, ``speaker`` or ``none``, see ``study.config.settings.CorpusSettings``.
        seed: of the split by speaker.

    Raises:
        CorpusError: the file is faulty, rows are faulty (all of them are named), or there are too few speakers.
    """
    table_path = os.path.abspath(file)
    root = os.path.dirname(table_path)
    remedy = f"A manifest has the columns {', '.join(REQUIRED)}; see docs/corpora.md."
    table = read_table(table_path, REQUIRED, remedy, OPTIONAL)
    has_split = "split" in table.columns
    empty = pd.Series("", index=table.index)
    paths = [os.path.normpath(os.path.join(root, path)) for path in table["path"]]
    dialogues = table.get("dialogue", empty)
    rows = pd.DataFrame(
        {
            "location": table.index,
            "utterance_id": relative_paths(root, paths),
            "path": paths,
            "transcript": table.get("transcript", empty),
            "speaker": table["speaker"],
            "dialogue": dialogues,
            "parallel_key": dialogues,
            "clip_key": "",
            "is_used": True,
            "gender_source": "manifest",
        },
        index=table.index,
    )
    labels = read_labels_file(root)
    errors = _row_errors(table, rows)
    for column in ("emotion", "language", "gender", *(["split"] if has_split else [])):
        rows[column], column_errors = translate_column(table, column, labels.get(column, {}))
        errors += column_errors
    errors += gender_errors(rows, GENDERS)  # a typing error would change the gender of utterances in every gap
    refuse(errors)
    rows["official_split"] = rows["split"] if has_split else ""
    rows["dialogue"] = rows["dialogue"].where(rows["dialogue"] != "", rows["utterance_id"])
    rows = rows.reset_index(drop=True)
    if split == "official" and not has_split:
        raise CorpusError(f"{table_path} has no split column, which --split official needs. Add one, or use speaker.")
    notes: tuple[str, ...] = ()
    if split == "none":
        rows["split"] = "test"
    elif split == "speaker" or not has_split:
        rows["split"] = rows["speaker"].map(split_by_speaker(rows, table_path, seed))
        notes = ("The manifest's speakers were divided into train, dev and test.",)
    elif shared := int((rows.groupby("speaker")["split"].nunique() > 1).sum()):
        notes = (f"{shared} speakers are in several splits of the manifest.",)
    return Listing("manifest", root, rows, notes)


def _row_errors(table: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    errors = [f"{location}: the path is empty. Name a clip." for location in table.index[table["path"] == ""]]
    errors += [
        f"{location}: the speaker is empty. Name the speaker; confidence intervals resample speakers."
        for location in table.index[table["speaker"] == ""]
    ]
    ids = rows["utterance_id"]
    first = dict(zip(reversed(ids.tolist()), reversed(table.index.tolist()), strict=True))
    errors += [
        f"{location}: {name} is in {first[name].rpartition(', ')[2]} too. Give every row a clip of its own."
        for location, name in ids[ids.duplicated()].items()
    ]
    return errors
