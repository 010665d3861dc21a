"""What every reader lists and what becomes of it: one table of utterances, checked once, with a hash of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from study.common.errors import CorpusError, capped, refuse
from study.common.groups import GENDERS
from study.config.settings import CorpusSettings
from study.data.corpora.audio import LONGEST, Clip, inspect_clip
from study.data.corpora.clip_cache import KnownClips
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.splits import leaks

UTTERANCE = (
    "utterance_id", "path", "transcript", "emotion", "language", "gender", "speaker", "dialogue", "split", "samples",
    "sample_rate",
)  # fmt: skip
MISSING_TOLERATED = 0.05  # share of the clips; some wavs of MELD-ST are absent
UNUSABLE_TOLERATED = 0.01  # share of the clips
LONGEST_TEXT = 5_000  # characters; nobody says half as many in the 30 s that are heard
LEVELS_APART = 6.0  # dB between the medians of two languages, from which a note is due


@dataclass(frozen=True)
class Listing:
    """What the tables of a corpus say, before any clip is decoded.

    Attributes:
        name: ``embedded``, ``meld-st`` or ``manifest``.
        root: the folder that holds the corpus.
        rows: every row of every table: the columns ``UTTERANCE`` without ``samples`` and ``sample_rate``, and ``where``
            (file and row), ``kept`` (False where it repeats another row), ``resolved`` (by what its gender is known),
            ``official`` (its side by the authors, or empty), ``clip`` and ``unit`` (see ``divisions.leaks``).
        notes: sentences that every report must show.
    """

    name: str
    root: str
    rows: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """A corpus as the rest of the study sees it.

    Attributes:
        name: ``embedded``, ``meld-st`` or ``manifest``.
        utterances: one row an utterance, sorted by ``utterance_id``, columns ``UTTERANCE``. ``samples`` counts the
            samples of the clip at its own ``sample_rate`` (Hz); ``transcript`` may be empty.
        skipped: one ``file, row n: path: reason`` for each clip left out.
        shortened: one ``file, row n: path: length`` for each clip of which only the first 30 s are heard.
        notes: sentences that every report must show.
        content_hash: 12 hexadecimal digits; the same data, heard at the same loudness, has the same hash wherever it
            lies.
    """

    name: str
    utterances: pd.DataFrame
    skipped: tuple[str, ...]
    shortened: tuple[str, ...]
    notes: tuple[str, ...]
    content_hash: str

    def clips_in_words(self) -> list[str]:
        """Lines for a terminal that name the clips left out, and those heard in part; the first ones of each kind."""
        kinds = {"skipped": self.skipped, "shortened": self.shortened}
        return [f"{kind:11}{clip}" for kind, clips in kinds.items() for clip in capped(clips)]


def inspect_clips(rows: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Decode every clip once, in threads.

    Args:
        cache: where it is kept which clips are in order; these are not decoded again until they change. None: all are.

    Returns:
        ``rows`` with ``clip_found`` (a ``Clip`` or None), ``fault`` (``file, row n: path: reason``, or empty),
        ``missing`` (whether that fault is an absent file) and ``digest`` (empty where there is no clip).
    """
    known = KnownClips(cache, rows["path"].tolist()) if cache else None
    clips_before = known.clips if known else {}
    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter free
        found = list(pool.map(lambda path: clips_before.get(path) or _clip_or_fault(path), rows["path"]))
    clips = [clip if isinstance(clip, Clip) else None for clip in found]
    in_order = {path: clip for path, clip in zip(rows["path"], clips, strict=True) if clip}
    if known and in_order != known.clips:
        known.keep(in_order)
    return rows.assign(
        clip_found=pd.Series(clips, index=rows.index, dtype=object),
        fault=[
            "" if isinstance(clip, Clip) else f"{where}: {clip}"
            for where, clip in zip(rows["where"], found, strict=True)
        ],
        missing=[clip is None and not os.path.isfile(path) for clip, path in zip(clips, rows["path"], strict=True)],
        digest=[clip.digest if clip else "" for clip in clips],
    )


def build_corpus(
    listing: Listing, settings: CorpusSettings, inspected: pd.DataFrame, parts: Sequence[str] = SPLITS
) -> Corpus:
    """Leave out the clips that cannot be used, check the whole table, and hash it.

    Args:
        inspected: ``inspect_clips`` of the rows that are kept.
        parts: the splits in which every language needs utterances.

    Raises:
        CorpusError: more than 5 % of the clips are missing, 1 % or more cannot be used, or a split of a language is
            empty.
    """
    root = listing.root
    absent = inspected.loc[inspected["missing"], "fault"].tolist()
    unusable = inspected.loc[(inspected["fault"] != "") & ~inspected["missing"], "fault"].tolist()
    if len(absent) > MISSING_TOLERATED * len(inspected):
        raise CorpusError(
            f"{root}: {len(absent)} of {len(inspected)} clips are missing, more than {MISSING_TOLERATED:.0%}. Check "
            f"that the archive was unpacked completely:\n" + "\n".join(capped(absent))
        )
    if unusable and len(unusable) >= UNUSABLE_TOLERATED * len(inspected):
        raise CorpusError(
            f"{root}: {len(unusable)} of {len(inspected)} clips cannot be used, {UNUSABLE_TOLERATED:.0%} or more. "
            f"Repair these files, or remove their rows:\n" + "\n".join(capped(unusable))
        )
    usable = inspected[inspected["fault"] == ""]
    shortened = too_long(usable)
    notes = [*listing.notes, *_notes_on_rows(usable, len(shortened), settings)]
    if absent:
        notes.append(f"{len(absent)} of {len(inspected)} utterances have no clip on disk and were skipped.")
    if unusable:
        notes.append(f"{len(unusable)} of {len(inspected)} clips cannot be used and were skipped.")
    unknown = ~usable["gender"].isin(GENDERS)
    if unknown.any():
        untrained = unknown & (usable["split"] == "train") & (settings.unknown_gender == "leave_out")
        left_out = f"; the {untrained.sum()} of them in train were left out" if untrained.any() else ""
        notes.append(f"{unknown.sum()} of {len(usable)} utterances have no known gender and enter no gap{left_out}.")
        usable = usable[~untrained]
    refuse(
        [
            f"{row.where}: a transcript of {len(row.transcript)} characters for one clip. Give the words of the clip."
            for row in usable.itertuples()
            if len(row.transcript) > LONGEST_TEXT
        ]
    )
    utterances = usable.assign(
        samples=[clip.samples for clip in usable["clip_found"]],
        sample_rate=[clip.sample_rate for clip in usable["clip_found"]],
    ).sort_values("utterance_id", ignore_index=True)
    missing = _empty_splits(root, utterances, parts)
    if missing and unknown.any() and settings.unknown_gender == "leave_out":
        missing.append(
            f"{root}: {untrained.sum()} utterances of train have no known gender and were left out. Name the genders, "
            "or train on them too with --set corpus.unknown_gender=train."
        )
    refuse(missing)
    return Corpus(
        name=listing.name,
        utterances=utterances[list(UTTERANCE)],
        skipped=(*unusable, *absent),
        shortened=tuple(shortened),
        notes=tuple(notes),
        content_hash=_content_hash(root, utterances[[*UTTERANCE, "digest"]], settings.loudness),
    )


def too_long(usable: pd.DataFrame) -> list[str]:
    """``file, row n: path: length`` of each clip that is longer than what is heard of it.

    Args:
        usable: rows of ``inspect_clips`` without a fault.
    """
    return [
        f"{row.where}: {row.path}: {row.clip_found.seconds:.2f} s long, only the first {LONGEST:.0f} s are heard"
        for row in usable.itertuples()
        if row.clip_found.seconds > LONGEST
    ]


def _clip_or_fault(path: str) -> Clip | str:
    try:
        return inspect_clip(path)
    except CorpusError as error:
        return str(error)


def _notes_on_rows(usable: pd.DataFrame, long: int, settings: CorpusSettings) -> list[str]:
    """What a reader of the results must know of the clips and texts that are used."""
    notes = []
    torn = len(leaks(usable))
    if torn:
        notes.append(
            f"The split lets {torn} clips or parallel utterances stand on several sides, so dev and test flatter: "
            "python -m study.data.corpora check lists them."
        )
    if long:
        notes.append(f"{long} clips are longer than {LONGEST:.0f} s; only their first {LONGEST:.0f} s are heard.")
    wordless = int((usable["transcript"] == "").sum())
    if 0 < wordless < len(usable):
        notes.append(f"{wordless} of {len(usable)} utterances have no transcript.")
    levels = pd.Series([clip.level for clip in usable["clip_found"]], dtype=float)
    medians = levels.groupby(usable["language"].to_numpy()).median()
    if settings.loudness == "as_recorded" and medians.max() - medians.min() > LEVELS_APART:
        notes.append(
            f"{medians.idxmax()} is {medians.max() - medians.min():.0f} dB louder than {medians.idxmin()}; "
            "--set corpus.loudness=rms takes loudness out."
        )
    return notes


def _empty_splits(root: str, utterances: pd.DataFrame, parts: Sequence[str]) -> list[str]:
    counts = utterances.groupby(["language", "split"]).size()
    return [
        f"{root}: the {split} split of language {language} is empty. Every language needs utterances in "
        f"{', '.join(parts)}; add some, or remove that language."
        for language in sorted(utterances["language"].unique())
        for split in parts
        if (language, split) not in counts.index
    ]


def _content_hash(root: str, utterances: pd.DataFrame, loudness: str) -> str:
    relative = utterances.assign(path=relative_paths(root, utterances["path"]))
    table = relative.to_csv(index=False, lineterminator="\n")
    heard = "" if loudness == "as_recorded" else loudness
    return hashlib.sha256((table + heard).encode()).hexdigest()[:12]


def relative_paths(root: str, paths: Sequence[str] | pd.Series) -> list[str]:
    """Paths relative to the corpus, with slashes on every system."""
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
