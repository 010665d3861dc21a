"""The corpora of the study: a name on the command line becomes one table of utterances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.common.errors import CorpusError, capped
from study.config.settings import CorpusSettings
from study.data.corpora.audio import SAMPLE_RATE, read_audio
from study.data.corpora.corpus import UTTERANCE, Corpus, Listing, build_corpus, inspect_clips
from study.data.corpora.label_maps import SPLITS

__all__ = [
    "SAMPLE_RATE",
    "SPLITS",
    "UTTERANCE",
    "Corpus",
    "CorpusError",
    "capped",
    "list_corpus",
    "load_corpus",
    "read_audio",
]


def load_corpus(settings: CorpusSettings, cache: Path, seed: int = 0, parts: Sequence[str] = SPLITS) -> Corpus:
    """Read a corpus.

    Args:
        cache: where the synthetic corpus is written once, and kept which clips are in order.
        seed: of the synthetic corpus, and of a manifest's division by speaker.
        parts: the splits in which every language needs utterances.

    Raises:
        CorpusError: the specification or the corpus is faulty; the message names file, row and remedy.
    """
    listing = list_corpus(settings, cache, seed)
    return build_corpus(listing, settings, inspect_clips(listing.rows[listing.rows["kept"]], cache), parts)


def list_corpus(settings: CorpusSettings, cache: Path, seed: int = 0) -> Listing:
    """What the tables of a corpus say, without decoding a clip; see ``load_corpus``."""
    # Readers are imported on use: a manifest needs neither the synthesiser nor its tables.
    kind, _, where = settings.spec.partition(":")
    if kind == "synthetic" and not where:
        from study.data.corpora.synthetic.corpus import list_synthetic

        return list_synthetic(Path(cache), settings.planted_gaps, seed)
    if kind == "meld-st" and where:
        from study.data.corpora.meld_st import list_meld_st

        return list_meld_st(Path(where), settings.split)
    if kind == "manifest" and where:
        from study.data.corpora.manifest import list_manifest

        return list_manifest(Path(where), settings.split, seed)
    raise CorpusError(f"corpus {settings.spec!r} is not known: use synthetic, meld-st:DIR or manifest:FILE.")
