"""What every reader returns: one table of utterances, checked once, with a hash of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from study.corpora.audio import Clip, inspect_clip
from study.corpora.errors import CorpusError
from study.groups import EMOTIONS, GENDERS, LANGUAGES, Gender

UTTERANCE = (
    "utterance_id", "path", "transcript", "emotion", "language", "gender", "speaker", "dialogue", "split", "samples",
    "sample_rate",
)  # fmt: skip
SPLITS = ("train", "dev", "test")
UNREADABLE_TOLERATED = 0.01  # share of the rows
NAMED = 5  # how many faulty rows an error spells out


@dataclass(frozen=True)
class Corpus:
    """A corpus as the rest of the study sees it.

    Attributes:
        name: ``embedded``, ``meld-st`` or ``manifest``.
        utterances: one row an utterance, sorted by ``utterance_id``, columns ``UTTERANCE``. ``samples`` counts the
            samples of the clip at its own ``sample_rate`` (Hz); ``transcript`` may be empty.
        skipped: one ``path: reason`` for each clip left out.
        notes: sentences that every report must show.
        content_hash: 12 hexadecimal digits; the same data elsewhere on disk has the same hash.
    """

    name: str
    utterances: pd.DataFrame
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    content_hash: str


def check_word(value: str, allowed: Iterable[str], what: str, where: str) -> str:
    """The word in lower case, or a ``CorpusError`` that names the place and the words allowed."""
    word = value.strip().lower()
    if word not in allowed:
        raise CorpusError(f"{where}: {what} {value!r} is none of {', '.join(allowed)}. Correct the row or remove it.")
    return word


def check_emotion(value: str, where: str) -> str:
    """One of MELD's seven classes; ``where`` is the file and row for the message."""
    return check_word(value, EMOTIONS, "emotion", where)


def check_gender(value: str, where: str) -> str:
    """female, male or unknown; ``where`` is the file and row for the message."""
    return check_word(value, tuple(Gender), "gender", where)


def check_language(value: str, where: str) -> str:
    """One of the languages of the study; ``where`` is the file and row for the message."""
    return check_word(value, LANGUAGES, "language", where)


def read_table(path: str, required: Iterable[str], remedy: str) -> pd.DataFrame:
    """A CSV as strings, stripped of outer blanks; row 0 of the frame is line 2 of the file.

    Raises:
        CorpusError: no such file, not a CSV, columns missing, or no rows.
    """
    if not os.path.isfile(path):
        raise CorpusError(f"{path} does not exist. {remedy}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:  # an empty or undecodable file raises a ValueError too
        raise CorpusError(f"{path} cannot be read as a UTF-8 CSV file: {error}. {remedy}") from error
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise CorpusError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. {remedy}")
    if table.empty:
        raise CorpusError(f"{path} has no rows. {remedy}")
    return table.apply(lambda column: column.str.strip())


def line(path: str, row: int) -> str:
    """``file, row n`` as a spreadsheet numbers it: the header is row 1."""
    return f"{path}, row {row + 2}"


def build_corpus(
    name: str,
    root: str,
    rows: pd.DataFrame,
    notes: Iterable[str] = (),
    missing: Iterable[str] = (),
) -> Corpus:
    """Decode every clip once, leave the unreadable ones out, check the whole table, and hash it.

    Args:
        root: the folder that holds the corpus; the hash sees paths relative to it.
        rows: the columns ``UTTERANCE`` without ``samples`` and ``sample_rate``.
        missing: ``path: reason`` of clips that the reader has already left out and tolerated.

    Raises:
        CorpusError: 1 % of the clips or more are unreadable, an id occurs twice, or a split of a language is empty.
    """
    twice = rows.loc[rows["utterance_id"].duplicated(), "utterance_id"].unique().tolist()
    if twice:
        raise CorpusError(f"{root}: utterances occur twice: {_first(twice)}. Every utterance needs an id of its own.")
    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter free
        clips = list(pool.map(_clip_or_fault, rows["path"]))
    bad = [clip for clip in clips if isinstance(clip, str)]
    if bad and len(bad) >= UNREADABLE_TOLERATED * len(rows):
        raise CorpusError(
            f"{root}: {len(bad)} of {len(rows)} clips cannot be used, {UNREADABLE_TOLERATED:.0%} or more: "
            f"{_first(bad)}. Repair these files, or remove their rows."
        )
    readable = [clip for clip in clips if isinstance(clip, Clip)]
    kept = rows[[isinstance(clip, Clip) for clip in clips]].assign(
        samples=[clip.samples for clip in readable],
        sample_rate=[clip.sample_rate for clip in readable],
        digest=[clip.digest for clip in readable],
    )
    kept = kept.sort_values("utterance_id", ignore_index=True)
    content_hash = _content_hash(root, kept[[*UTTERANCE, "digest"]])
    kept = kept[list(UTTERANCE)]
    _check_splits(root, kept)
    return Corpus(
        name=name,
        utterances=kept,
        skipped=(*bad, *missing),
        notes=tuple(notes),
        content_hash=content_hash,
    )


def unknown_gender_note(rows: pd.DataFrame) -> list[str]:
    """A note with the number of utterances that enter no gap, or none where there is no such utterance."""
    count = int((~rows["gender"].isin(GENDERS)).sum())
    return [f"{count} of {len(rows)} utterances have no known gender and enter no gap."] if count else []


def _clip_or_fault(path: str) -> Clip | str:
    try:
        return inspect_clip(path)
    except CorpusError as error:
        return str(error)


def _first(faults: list[str]) -> str:
    rest = len(faults) - NAMED
    return "; ".join(faults[:NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _check_splits(root: str, utterances: pd.DataFrame) -> None:
    counts = utterances.groupby(["language", "split"]).size()
    for language in sorted(utterances["language"].unique()):
        for split in SPLITS:
            if (language, split) not in counts.index:
                raise CorpusError(
                    f"{root}: the {split} split of language {language} is empty. Every language needs utterances in "
                    f"{', '.join(SPLITS)}; add some, or remove that language."
                )


def _content_hash(root: str, utterances: pd.DataFrame) -> str:
    relative = utterances.assign(path=[os.path.relpath(path, root).replace(os.sep, "/") for path in utterances["path"]])
    table = relative.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(table.encode()).hexdigest()[:12]
