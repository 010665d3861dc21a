"""What a corpus holds and what its split lets through, computed and then written as text."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from study.common.errors import CorpusError, capped
from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, Gender
from study.config.settings import CorpusSettings
from study.data.corpora.audio import LONGEST
from study.data.corpora.corpus import Corpus, Listing, build_corpus, inspect_clips, relative_paths, too_long
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.splits import leaks


@dataclass(frozen=True)
class CorpusSummary:
    """What ``python -m study.data.corpora check`` prints.

    Attributes:
        utterances: of one row a (language, gender, emotion) and one column a split, counts; parallel rows once.
        lengths: of one row a language: clips, shortest, median, longest (seconds), over 30 s, and level (median RMS in
            dB of full scale).
        missing, unusable: ``file, row n: path: reason`` of every row of every table.
        shortened: ``file, row n: path: length`` of every clip of which only the first 30 s are heard.
        genders: of one row a speaker and gender, indexed by speaker: gender, by (what it is known), rows; the most rows
            first. A speaker has two where some of its rows say nothing.
        leaks: of the split that the settings name, a line each.
        official: leaks of the authors' split, a line each; empty where the corpus has none.
        corpus: the corpus that a study would get, or None.
        refusal: why it would get none, or empty.
    """

    utterances: pd.DataFrame
    lengths: pd.DataFrame
    missing: tuple[str, ...]
    unusable: tuple[str, ...]
    shortened: tuple[str, ...]
    genders: pd.DataFrame
    leaks: tuple[str, ...]
    official: tuple[str, ...]
    corpus: Corpus | None
    refusal: str


def summarise_corpus(listing: Listing, settings: CorpusSettings) -> CorpusSummary:
    """Decode every clip of every row, also of those that a study would not use, and count."""
    rows = inspect_clips(listing.rows)
    corpus, refusal = None, ""
    try:
        corpus = build_corpus(listing, settings, rows[rows["kept"]])
    except CorpusError as error:
        refusal = str(error)
    faulty = rows["fault"] != ""
    shown = rows.assign(path=relative_paths(listing.root, rows["path"]))
    authors = shown[shown["official"] != ""]
    usable = rows[rows["kept"] & ~faulty]
    voices = rows.groupby(["speaker", "gender"])
    speakers = voices.agg(by=("resolved", "first"), rows=("where", "size")).reset_index("gender")
    return CorpusSummary(
        utterances=_utterances(usable),
        lengths=_lengths(usable),
        missing=tuple(rows.loc[rows["missing"], "fault"]),
        unusable=tuple(rows.loc[faulty & ~rows["missing"], "fault"]),
        shortened=tuple(too_long(usable)),
        genders=speakers.sort_values("rows", ascending=False, kind="stable"),
        leaks=tuple(leaks(shown)),
        official=tuple(leaks(authors.assign(split=authors["official"]))),
        corpus=corpus,
        refusal=refusal,
    )


def _utterances(rows: pd.DataFrame) -> pd.DataFrame:
    counts = rows.groupby(["language", "gender", "emotion", "split"]).size().unstack("split", fill_value=0)
    orders = (LANGUAGES, tuple(Gender), EMOTIONS)
    index = [key for key in pd.MultiIndex.from_product(orders, names=counts.index.names) if key in counts.index]
    return counts.reindex(index=index, columns=list(SPLITS), fill_value=0)


def _lengths(rows: pd.DataFrame) -> pd.DataFrame:
    clips = pd.DataFrame(
        {
            "language": rows["language"],
            "seconds": [clip.seconds for clip in rows["clip_found"]],
            "level": [clip.level for clip in rows["clip_found"]],
        }
    )
    return clips.groupby("language").agg(
        clips=("seconds", "size"),
        shortest=("seconds", "min"),
        median=("seconds", "median"),
        longest=("seconds", "max"),
        over_30_s=("seconds", lambda seconds: int((seconds > LONGEST).sum())),
        level=("level", "median"),
    )


def as_text(summary: CorpusSummary, split: str) -> str:
    """The census as the lines of a terminal; every leak and every fault has one."""
    genders = summary.genders
    unknown = genders[~genders["gender"].isin(GENDERS)]
    by = genders.groupby(["by", "gender"])["rows"].agg(["size", "sum"])
    parts = [
        _titled("Utterances", summary.utterances.to_string()),
        _titled("Clips: lengths in seconds, level in dB of full scale", summary.lengths.round(2).to_string()),
        _titled(f"Missing clips: {len(summary.missing)}", *summary.missing),
        _titled(f"Clips that cannot be used: {len(summary.unusable)}", *summary.unusable),
        _titled(f"Clips longer than {LONGEST:.0f} s: {len(summary.shortened)}", *capped(summary.shortened)),
        _titled(
            "Genders, by what they are known",
            *(f"{what}: {row['size']} {gender} speakers, {row['sum']} rows" for (what, gender), row in by.iterrows()),
        ),
        _titled("Genders that come from a name", *_speakers(genders[genders["by"].isin(["table", "rule"])])),
        _titled(f"Unknown genders: {unknown['rows'].sum()} of {genders['rows'].sum()} rows", *_speakers(unknown)),
    ]
    if summary.official != summary.leaks:
        parts.append(_titled(f"Leaks of the authors' split: {len(summary.official)}", *summary.official))
    parts.append(_titled(f"Leaks of the split in use ({split}): {len(summary.leaks)}", *summary.leaks))
    if summary.corpus is None:
        parts.append(_titled("A study would refuse this corpus", summary.refusal))
    else:
        counts = summary.corpus.utterances["split"].value_counts()
        used = ", ".join(f"{side} {counts.get(side, 0):,}" for side in SPLITS)
        parts.append(_titled(f"A study would use {used}", *summary.corpus.notes))
    return "\n\n".join(parts)


def _speakers(genders: pd.DataFrame) -> list[str]:
    return [f"{name}: {row['gender']} ({row['by']}), {row['rows']} rows" for name, row in genders.iterrows()]


def _titled(title: str, *lines: str) -> str:
    return "\n".join([title, *(f"  {line}" for text in lines for line in text.splitlines())])
