"""The reader of any collection of clips that is described by one CSV file."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pandas as pd

from study.corpora.corpus import (
    SPLITS,
    Corpus,
    build_corpus,
    check_emotion,
    check_gender,
    check_language,
    check_word,
    line,
    read_table,
    unknown_gender_note,
)
from study.corpora.errors import CorpusError
from study.groups import Gender

COLUMNS = ("path", "transcript", "emotion", "language", "speaker", "gender")
HELD_OUT = 0.2  # share of the speakers in dev, and again in test
SPEAKERS_NEEDED = 3  # one a split


def read_manifest(file: Path, seed: int = 0) -> Corpus:
    """Read a CSV with the columns ``COLUMNS`` and perhaps ``split`` (train, dev, test) and ``dialogue``.

    Paths are relative to the CSV. Without a split column the speakers of each language and gender are divided about
    60/20/20, at least one of them in dev and one in test. Without a dialogue column every clip is a dialogue of its
    own.

    Args:
        seed: of that division; the same seed gives the same one.

    Raises:
        CorpusError: the file or a row is faulty, too many clips are unreadable, or the speakers are too few to divide.
    """
    csv = os.path.abspath(file)
    root = os.path.dirname(csv)
    table = read_table(csv, COLUMNS, f"A manifest has the columns {', '.join(COLUMNS)}; see the README.")
    rows = pd.DataFrame(
        {
            "utterance_id": [_id(root, path) for path in table["path"]],
            "path": [os.path.normpath(os.path.join(root, path)) for path in table["path"]],
            "transcript": table["transcript"],
            "speaker": table["speaker"],
        }
    )
    for column, check in (("emotion", check_emotion), ("language", check_language), ("gender", check_gender)):
        rows[column] = [check(value, line(csv, row)) for row, value in enumerate(table[column])]
    if (rows["speaker"] == "").any():
        row = int((rows["speaker"] == "").to_numpy().argmax())
        raise CorpusError(f"{line(csv, row)}: the speaker is empty. Name the voice; intervals are drawn over speakers.")
    rows["dialogue"] = table["dialogue"] if "dialogue" in table.columns else rows["utterance_id"]
    notes: list[str] = []
    if "split" in table.columns:
        rows["split"] = [check_word(value, SPLITS, "split", line(csv, row)) for row, value in enumerate(table["split"])]
        shared = int((rows.groupby("speaker")["split"].nunique() > 1).sum())
        if shared:
            notes.append(f"{shared} speakers stand on several sides of the manifest's own split.")
    else:
        rows["split"] = rows["speaker"].map(_speaker_split(csv, rows, seed))
        notes.append("The manifest has no split: its speakers were divided into train, dev and test.")
    return build_corpus("manifest", root, rows, (*notes, *unknown_gender_note(rows)))


def _id(root: str, path: str) -> str:
    """The path relative to the CSV, without its ending."""
    return os.path.splitext(os.path.relpath(os.path.join(root, path), root))[0].replace(os.sep, "/")


def _speaker_split(csv: str, rows: pd.DataFrame, seed: int) -> dict[str, str]:
    """The side of every speaker; the speakers of a (language, gender) are spread over all three."""
    genders = rows.groupby("speaker")["gender"].nunique()
    if (genders > 1).any():
        speaker = str(genders.idxmax())
        raise CorpusError(f"{csv}: speaker {speaker!r} has rows of several genders. Give each voice a name of its own.")
    main_language = rows.groupby("speaker")["language"].agg(lambda languages: languages.mode()[0])
    speakers = rows.drop_duplicates("speaker").assign(language=lambda frame: frame["speaker"].map(main_language))
    sides: dict[str, str] = {}
    for (language, gender), group in speakers.groupby(["language", "gender"]):
        names = sorted(group["speaker"])
        if len(names) < SPEAKERS_NEEDED:
            if gender != Gender.UNKNOWN.value:
                raise CorpusError(
                    f"{csv}: {len(names)} {gender} speaker(s) of {language}, and a division into train, dev and test "
                    f"needs {SPEAKERS_NEEDED}. Add a split column (train, dev, test)."
                )
            sides.update(dict.fromkeys(names, "train"))  # enters no gap, so it need not be evaluated
            continue
        random.Random(f"{seed}/{language}/{gender}").shuffle(names)
        held_out = max(1, round(HELD_OUT * len(names)))
        for position, name in enumerate(names):
            sides[name] = "test" if position < held_out else "dev" if position < 2 * held_out else "train"
    return sides
