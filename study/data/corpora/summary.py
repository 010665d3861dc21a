"""Summarise a corpus: count utterances, clips and genders; list missing and unusable clips, and leaks across splits."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from study.common.errors import CorpusError, capped
from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, Gender
from study.config.settings import CorpusSettings
from study.data.corpora.audio import MAX_SECONDS
from study.data.corpora.corpus import Corpus, Listing, build_corpus, inspect_clips, relative_paths, shortened_clips
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.splits import find_leaks


@dataclass(frozen=True)
class CorpusSummary:
    """What ``python -m study.data.corpora check`` prints.

    Attributes:
        utterances: counts, one row per (language, gender, emotion), one column per split; repeated rows count once.
        lengths: one row per language: clips, shortest, median, longest (seconds), over_30_s (clips), and level (median
            RMS in dB of full scale).
        missing, unusable: ``file, row n: path: reason`` of every row of every table.
        shortened: ``file, row n: path: length`` of every clip of which only the first 30 s are used.
        genders: one row per speaker and gender, indexed by speaker: gender, source, rows; most rows first. A speaker
            has two genders if one is unknown.
        leaks: of the split in use, one line each.
        official_leaks: of the authors' split, one line each; empty if the corpus has none.
        corpus: the corpus that a study would get, or None.
        refusal: why a study would refuse the corpus, or empty.
    """

    utterances: pd.DataFrame
    lengths: pd.DataFrame
    missing: tuple[str, ...]
    unusable: tuple[str, ...]
    shortened: tuple[str, ...]
    genders: pd.DataFrame
    leaks: tuple[str, ...]
    official_leaks: tuple[str, ...]
    corpus: Corpus | None
    refusal: str


def summarise_corpus(listing: Listing, settings: CorpusSettings) -> CorpusSummary:
    """Decode the clips of all rows, including those that a study would not use, and count."""
    rows = inspect_clips(listing.rows)
    corpus, refusal = None, ""
    try:
        corpus = build_corpus(listing, settings, rows[rows["is_used"]])
    except CorpusError as error:
        refusal = str(error)
    has_error = rows["error"] != ""
    relative = rows.assign(path=relative_paths(listing.root, rows["path"]))
    official = relative[relative["official_split"] != ""]
    usable = rows[rows["is_used"] & ~has_error]
    genders = rows.groupby(["speaker", "gender"]).agg(source=("gender_source", "first"), rows=("location", "size"))
    return CorpusSummary(
        utterances=_count_utterances(usable),
        lengths=_summarise_lengths(usable),
        missing=tuple(rows.loc[rows["is_missing"], "error"]),
        unusable=tuple(rows.loc[has_error & ~rows["is_missing"], "error"]),
        shortened=tuple(shortened_clips(usable)),
        genders=genders.reset_index("gender").sort_values("rows", ascending=False, kind="stable"),
        leaks=tuple(find_leaks(relative)),
        official_leaks=tuple(find_leaks(official.assign(split=official["official_split"]))),
        corpus=corpus,
        refusal=refusal,
    )


def _count_utterances(rows: pd.DataFrame) -> pd.DataFrame:
    counts = rows.groupby(["language", "gender", "emotion", "split"]).size().unstack("split", fill_value=0)
    orders = (LANGUAGES, tuple(Gender), EMOTIONS)
    index = [key for key in pd.MultiIndex.from_product(orders, names=counts.index.names) if key in counts.index]
    return counts.reindex(index=index, columns=list(SPLITS), fill_value=0)


def _summarise_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    clips = pd.DataFrame(
        {
            "language": rows["language"],
            "seconds": [clip.seconds for clip in rows["clip"]],
            "level": [clip.level for clip in rows["clip"]],
        }
    )
    return clips.groupby("language").agg(
        clips=("seconds", "size"),
        shortest=("seconds", "min"),
        median=("seconds", "median"),
        longest=("seconds", "max"),
        over_30_s=("seconds", lambda seconds: int((seconds > MAX_SECONDS).sum())),
        level=("level", "median"),
    )


def as_text(summary: CorpusSummary, split: str) -> str:
    """Return the summary as text for a terminal; every leak and every error is one line."""
    genders = summary.genders
    unknown = genders[~genders["gender"].isin(GENDERS)]
    by_source = genders.groupby(["source", "gender"])["rows"].agg(["size", "sum"])
    sections = [
        _section("Utterances", summary.utterances.to_string()),
        _section("Clips: length in seconds, level in dB of full scale", summary.lengths.round(2).to_string()),
        _section(f"Missing clips: {len(summary.missing)}", *summary.missing),
        _section(f"Unusable clips: {len(summary.unusable)}", *summary.unusable),
        _section(f"Clips longer than {MAX_SECONDS:.0f} s: {len(summary.shortened)}", *capped(summary.shortened)),
        _section(
            "Genders by source",
            *(
                f"{row['source']}: {row['size']} {row['gender']} speakers, {row['sum']} rows"
                for _, row in by_source.reset_index().iterrows()
            ),
        ),
        _section("Genders derived from names", *_gender_lines(genders[genders["source"].isin(["table", "rule"])])),
        _section(f"Unknown genders: {unknown['rows'].sum()} of {genders['rows'].sum()} rows", *_gender_lines(unknown)),
    ]
    if summary.official_leaks != summary.leaks:
        sections.append(
            _section(f"Leaks of the authors' split: {len(summary.official_leaks)}", *summary.official_leaks)
        )
    sections.append(_section(f"Leaks of the split in use ({split}): {len(summary.leaks)}", *summary.leaks))
    if summary.corpus is None:
        sections.append(_section("A study would refuse this corpus", summary.refusal))
    else:
        counts = summary.corpus.utterances["split"].value_counts()
        used = ", ".join(f"{name} {counts.get(name, 0):,}" for name in SPLITS)
        sections.append(_section(f"A study would use {used}", *summary.corpus.notes))
    return "\n\n".join(sections)


def _gender_lines(genders: pd.DataFrame) -> list[str]:
    return [f"{name}: {row['gender']} ({row['source']}), {row['rows']} rows" for name, row in genders.iterrows()]


def _section(title: str, *lines: str) -> str:
    return "\n".join([title, *(f"  {line}" for text in lines for line in text.splitlines())])
