"""The corpora that a study can use. Adding one takes a module with its reader, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study.common.errors import CorpusError
from study.config.settings import CorpusSettings
from study.data.corpora.corpus import Listing
from study.data.corpora.manifest import list_manifest
from study.data.corpora.meld_st import list_meld_st
from study.data.corpora.synthetic.corpus import list_synthetic

Reader = Callable[[str, CorpusSettings, Path, int], Listing]
"""Lists a corpus. Takes the part of the specification behind the colon, the settings, the cache folder and the seed."""

# what the user types -> its reader
CORPORA: dict[str, Reader] = {
    "synthetic": lambda _, settings, cache, seed: list_synthetic(cache, settings.planted_gaps, seed),
    "meld-st:DIR": lambda folder, settings, cache, seed: list_meld_st(Path(folder), settings.split),
    "manifest:FILE": lambda file, settings, cache, seed: list_manifest(Path(file), settings.split, seed),
}


def find_reader(spec: str) -> tuple[Reader, str]:
    """Return the reader of a corpus specification, and the part behind its colon.

    Raises:
        CorpusError: no corpus is specified in this way; the message lists the possible ones.
    """
    name, _, location = spec.partition(":")
    for form, reader in CORPORA.items():
        form_name, _, form_location = form.partition(":")
        if name == form_name and bool(location) == bool(form_location):
            return reader, location
    raise CorpusError(f"unknown corpus {spec!r}; use one of {', '.join(CORPORA)}.")
