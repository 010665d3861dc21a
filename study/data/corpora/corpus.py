"""From the rows that a reader lists to a checked corpus: one table of utterances and a hash of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from study.common.errors import CorpusError, capped, refuse
from study.common.groups import GENDERS
from study.config.settings import CorpusSettings
from study.data.corpora.audio import MAX_SECONDS, ClipInfo, inspect_clip
from study.data.corpora.clip_cache import ClipCache
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.splits import find_leaks

# The content hash covers these names.
CORPUS_COLUMNS = (
    "utterance_id", "path", "transcript", "emotion", "language", "gender", "speaker", "dialogue", "split", "samples",
    "sample_rate",
)  # fmt: skip
MAX_MISSING_SHARE = 0.05  # of the clips; MELD-ST lacks some wav files
MAX_UNUSABLE_SHARE = 0.01  # of the clips
MAX_TRANSCRIPT_LENGTH = 5_000  # characters; nobody says half as many in 30 s
LEVEL_DIFFERENCE_NOTED = 6.0  # dB between the median levels of two languages


@dataclass(frozen=True)
class Listing:
    """The tables of a corpus, before any clip is decoded.

    Attributes:
        name: of the corpus, such as ``meld-st``.
        root: the folder that contains the corpus.
        rows: one row for each row of each table. Columns: ``CORPUS_COLUMNS`` without ``samples`` and
            ``sample_rate``; ``location`` (``file, row n``); ``is_used`` (False if the row repeats another one);
            ``gender_source`` (how the gender is known); ``official_split`` (the authors' split, or empty); ``clip_key``
            and ``parallel_key`` (see ``splits.find_leaks``).
        notes: sentences that every report shows.
    """

    name: str
    root: str
    rows: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """A checked corpus.

    Attributes:
        name: such as ``meld-st``.
        utterances: one row per utterance, sorted by ``utterance_id``, columns ``CORPUS_COLUMNS``. ``samples`` counts
            the samples of the clip at its own ``sample_rate`` (Hz); ``transcript`` may be empty.
        skipped: ``file, row n: path: reason`` for each clip that is left out.
        shortened: ``file, row n: path: length`` for each clip of which only the first 30 s are used.
        notes: sentences that every report shows.
        content_hash: 12 hexadecimal digits. It depends on the data and the loudness setting, not on the folder.
    """

    name: str
    utterances: pd.DataFrame
    skipped: tuple[str, ...]
    shortened: tuple[str, ...]
    notes: tuple[str, ...]
    content_hash: str

    def clip_messages(self) -> list[str]:
        """Return lines for a terminal that name the first skipped and the first shortened clips."""
        kinds = {"skipped": self.skipped, "shortened": self.shortened}
        return [f"{kind:11}{clip}" for kind, clips in kinds.items() for clip in capped(clips)]


def inspect_clips(rows: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Decode every clip once, in threads.

    Args:
        rows: with ``path`` and ``location``.
        cache: folder for the results; a usable clip is not decoded again until it changes. None decodes all.

    Returns:
        ``rows`` with ``clip`` (a ``ClipInfo``, or None), ``error`` (``file, row n: path: reason``, or empty),
        ``is_missing`` (whether the error is an absent file) and ``digest`` (empty without a clip).
    """
    clip_cache = ClipCache(cache, rows["path"].tolist()) if cache else None
    cached = clip_cache.clips if clip_cache else {}
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        results = list(pool.map(lambda path: cached.get(path) or _clip_or_error(path), rows["path"]))
    clips = [result if isinstance(result, ClipInfo) else None for result in results]
    usable = {path: clip for path, clip in zip(rows["path"], clips, strict=True) if clip}
    if clip_cache and usable != clip_cache.clips:
        clip_cache.store(usable)
    return rows.assign(
        clip=pd.Series(clips, index=rows.index, dtype=object),
        error=[
            "" if isinstance(result, ClipInfo) else f"{location}: {result}"
            for location, result in zip(rows["location"], results, strict=True)
        ],
        is_missing=[clip is None and not os.path.isfile(path) for clip, path in zip(clips, rows["path"], strict=True)],
        digest=[clip.digest if clip else "" for clip in clips],
    )


def build_corpus(
    listing: Listing, settings: CorpusSettings, inspected: pd.DataFrame, required_splits: Sequence[str] = SPLITS
) -> Corpus:
    """Leave out unusable clips, check the whole table and hash it.

    Args:
        inspected: ``inspect_clips`` of the rows that are used.
        required_splits: the splits in which every language needs utterances.

    Raises:
        CorpusError: more than 5 % of the clips are missing, 1 % or more are unusable, a transcript is too long, or a
            split of a language is empty.
    """
    root = listing.root
    missing = inspected.loc[inspected["is_missing"], "error"].tolist()
    unusable = inspected.loc[(inspected["error"] != "") & ~inspected["is_missing"], "error"].tolist()
    if len(missing) > MAX_MISSING_SHARE * len(inspected):
        raise CorpusError(
            f"{root}: {len(missing)} of {len(inspected)} clips are missing, more than {MAX_MISSING_SHARE:.0%}. Check "
            f"that the archive was unpacked completely:\n" + "\n".join(capped(missing))
        )
    if unusable and len(unusable) >= MAX_UNUSABLE_SHARE * len(inspected):
        raise CorpusError(
            f"{root}: {len(unusable)} of {len(inspected)} clips are unusable; the limit is {MAX_UNUSABLE_SHARE:.0%}. "
            f"Repair these files, or remove their rows:\n" + "\n".join(capped(unusable))
        )
    usable = inspected[inspected["error"] == ""]
    shortened = shortened_clips(usable)
    notes = [*listing.notes, *_notes(usable, len(shortened), settings)]
    if missing:
        notes.append(f"{len(missing)} of {len(inspected)} utterances have no clip on disk and were skipped.")
    if unusable:
        notes.append(f"{len(unusable)} of {len(inspected)} clips are unusable and were skipped.")
    unknown = ~usable["gender"].isin(GENDERS)
    untrained = unknown & (usable["split"] == "train") & (settings.unknown_gender == "leave_out")
    if unknown.any():
        left_out = f"; the {untrained.sum()} of them in train were left out" if untrained.any() else ""
        notes.append(f"{unknown.sum()} of {len(usable)} utterances have no known gender and count in no gap{left_out}.")
        usable = usable[~untrained]
    refuse(
        [
            f"{location}: the transcript has {len(transcript)} characters, above the limit of {MAX_TRANSCRIPT_LENGTH}. "
            "Use the transcript of this clip alone."
            for location, transcript in zip(usable["location"], usable["transcript"], strict=True)
            if len(transcript) > MAX_TRANSCRIPT_LENGTH
        ]
    )
    utterances = usable.assign(
        samples=[clip.samples for clip in usable["clip"]],
        sample_rate=[clip.sample_rate for clip in usable["clip"]],
    ).sort_values("utterance_id", ignore_index=True)
    errors = _empty_splits(root, utterances, required_splits)
    if errors and untrained.any():
        errors.append(
            f"{root}: {untrained.sum()} utterances of train have no known gender and were left out. Name the genders, "
            "or train on them too with --set corpus.unknown_gender=train."
        )
    refuse(errors)
    return Corpus(
        name=listing.name,
        utterances=utterances[list(CORPUS_COLUMNS)],
        skipped=(*unusable, *missing),
        shortened=tuple(shortened),
        notes=tuple(notes),
        content_hash=_content_hash(root, utterances[[*CORPUS_COLUMNS, "digest"]], settings.loudness),
    )


def shortened_clips(usable: pd.DataFrame) -> list[str]:
    """Return ``file, row n: path: length`` of each clip that is longer than the part of it that is used.

    Args:
        usable: rows of ``inspect_clips`` without an error.
    """
    return [
        f"{location}: {path}: {clip.seconds:.2f} s long, only the first {MAX_SECONDS:.0f} s are used"
        for location, path, clip in zip(usable["location"], usable["path"], usable["clip"], strict=True)
        if clip.seconds > MAX_SECONDS
    ]


def relative_paths(root: str, paths: Iterable[str]) -> list[str]:
    """Return paths relative to the corpus, with slashes on every system."""
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]


def _clip_or_error(path: str) -> ClipInfo | str:
    try:
        return inspect_clip(path)
    except CorpusError as error:
        return str(error)


def _notes(usable: pd.DataFrame, num_shortened: int, settings: CorpusSettings) -> list[str]:
    """Return what a reader of the results must know about the usable clips and transcripts."""
    notes = []
    num_leaks = len(find_leaks(usable))
    if num_leaks:
        notes.append(
            f"{num_leaks} clips or parallel utterances are in several splits, so dev and test figures are too good: "
            "python -m study.data.corpora check lists them."
        )
    if num_shortened:
        notes.append(
            f"{num_shortened} clips are longer than {MAX_SECONDS:.0f} s; only their first {MAX_SECONDS:.0f} s are used."
        )
    without_transcript = int((usable["transcript"] == "").sum())
    if 0 < without_transcript < len(usable):
        notes.append(f"{without_transcript} of {len(usable)} utterances have no transcript.")
    levels = pd.Series([clip.level for clip in usable["clip"]], dtype=float)
    medians = levels.groupby(usable["language"].to_numpy()).median()
    if settings.loudness == "as_recorded" and medians.max() - medians.min() > LEVEL_DIFFERENCE_NOTED:
        notes.append(
            f"{medians.idxmax()} is {medians.max() - medians.min():.0f} dB louder than {medians.idxmin()}; "
            "--set corpus.loudness=rms removes the difference."
        )
    return notes


def _empty_splits(root: str, utterances: pd.DataFrame, required_splits: Sequence[str]) -> list[str]:
    counts = utterances.groupby(["language", "split"]).size()
    return [
        f"{root}: the {split} split of language {language} is empty. Every language needs utterances in "
        f"{', '.join(required_splits)}; add some, or remove that language."
        for language in sorted(utterances["language"].unique())
        for split in required_splits
        if (language, split) not in counts.index
    ]


def _content_hash(root: str, utterances: pd.DataFrame, loudness: str) -> str:
    relative = utterances.assign(path=relative_paths(root, utterances["path"]))
    table = relative.to_csv(index=False, lineterminator="\n")
    suffix = "" if loudness == "as_recorded" else loudness
    return hashlib.sha256((table + suffix).encode()).hexdigest()[:12]
