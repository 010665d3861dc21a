"""Look at a corpus before it is used: what it holds, what is missing, and what its split lets through."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.config.settings import ControlSplit, CorpusSettings
from study.data.corpora import CorpusError, list_corpus
from study.data.corpora.summary import as_text, summarise_corpus
from study.data.corpus_checks import split_errors


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 where a study can use the corpus and its split lets nothing through, else 1."""
    parser = argparse.ArgumentParser(prog="python -m study.data.corpora", description=__doc__)
    check = parser.add_subparsers(dest="command", required=True).add_parser(
        "check", help="print a census and every leak"
    )
    check.add_argument(
        "place", help="a MELD-ST folder or a manifest file, with or without meld-st: or manifest: before it"
    )
    check.add_argument(
        "--split", default="parallel", choices=["parallel", "official", "speaker"], help="default: parallel"
    )
    flags = parser.parse_args(arguments)
    settings = CorpusSettings(spec=_spec(flags.place), split=flags.split)
    try:
        summary = summarise_corpus(list_corpus(settings, Path()), settings)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_text(summary, flags.split))
    lacking = split_errors(summary.corpus, ControlSplit()) if summary.corpus else []
    for message in lacking:
        print(f"\nA study would refuse this corpus\n  {message}")
    return 1 if summary.refusal or summary.leaks or lacking else 0


def _spec(place: str) -> str:
    if place.startswith(("meld-st:", "manifest:")):
        return place
    path = Path(place)
    kind = "manifest" if path.is_file() or path.suffix and not path.is_dir() else "meld-st"
    return f"{kind}:{place}"


if __name__ == "__main__":
    sys.exit(main())
