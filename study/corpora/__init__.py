"""The corpora of the study: a name on the command line becomes one table of utterances."""

from __future__ import annotations

from pathlib import Path

from study.corpora.audio import SAMPLE_RATE, read_audio
from study.corpora.corpus import SPLITS, UTTERANCE, Corpus
from study.corpora.errors import CorpusError

__all__ = ["SAMPLE_RATE", "SPLITS", "UTTERANCE", "Corpus", "CorpusError", "load_corpus", "read_audio"]


def load_corpus(spec: str, plants: tuple[str, ...], cache: Path, seed: int = 0) -> Corpus:
    """Read a corpus.

    Args:
        spec: ``embedded``, ``meld-st:DIR`` or ``manifest:FILE``.
        plants: names of the planted gaps that are on; the embedded corpus alone heeds them.
        cache: where the embedded corpus is written once.
        seed: of the embedded corpus, and of the split of a manifest that has none.

    Raises:
        CorpusError: the specification or the corpus is faulty; the message names file, row and remedy.
    """
    # Readers are imported on use: a manifest needs neither the synthesiser nor its tables.
    kind, _, where = spec.partition(":")
    if kind == "embedded" and not where:
        from study.corpora.embedded import load_embedded

        return load_embedded(Path(cache), tuple(plants), seed)
    if kind == "meld-st" and where:
        from study.corpora.meld_st import read_meld_st

        return read_meld_st(Path(where))
    if kind == "manifest" and where:
        from study.corpora.manifest import read_manifest

        return read_manifest(Path(where), seed)
    raise CorpusError(f"corpus {spec!r} is not known: use embedded, meld-st:DIR or manifest:FILE.")
