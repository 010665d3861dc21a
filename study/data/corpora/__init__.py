"""Corpora: a specification such as ``meld-st:DIR`` becomes one table of utterances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.common.errors import CorpusError
from study.config.settings import CorpusSettings
from study.data.corpora.audio import SAMPLE_RATE, read_audio
from study.data.corpora.corpus import CORPUS_COLUMNS, Corpus, Listing, build_corpus, inspect_clips
from study.data.corpora.label_maps import SPLITS
from study.data.corpora.registry import CORPORA, find_reader

__all__ = [
    "CORPORA",
    "SAMPLE_RATE",
    "SPLITS",
    "CORPUS_COLUMNS",
    "Corpus",
    "CorpusError",
    "list_corpus",
    "load_corpus",
    "read_audio",
]


def load_corpus(
    settings: CorpusSettings, cache: Path, seed: int = 0, required_splits: Sequence[str] = SPLITS
) -> Corpus:
    """Read a corpus and check its clips.

    Args:
        cache: folder for the synthetic corpus and for the results of checking clips.
        seed: of the synthetic corpus, and of a manifest's split by speaker.
        required_splits: the splits in which every language needs utterances.

    Raises:
        CorpusError: the specification or the corpus is faulty; the message names file, row and remedy.
    """
    listing = list_corpus(settings, cache, seed)
    clips = inspect_clips(listing.rows[listing.rows["is_used"]], cache)
    return build_corpus(listing, settings, clips, required_splits)


def list_corpus(settings: CorpusSettings, cache: Path, seed: int = 0) -> Listing:
    """Read the tables of a corpus without decoding a clip; see ``load_corpus``."""
    reader, location = find_reader(settings.spec)
    return reader(location, settings, cache, seed)
