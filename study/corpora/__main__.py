"""Look at a corpus before it is used: what it holds, what is missing, and what its split lets through."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.checks import split_faults
from study.corpora import CorpusError, list_corpus
from study.corpora.census import as_text, take_census
from study.settings import ControlSplit, CorpusSettings


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 where a study can use the corpus and its split lets nothing through, else 1."""
    parser = argparse.ArgumentParser(prog="python -m study.corpora", description=__doc__)
    check = parser.add_subparsers(dest="command", required=True).add_parser(
        "check", help="print a census and every leak"
    )
    check.add_argument("place", type=Path, help="a MELD-ST folder or a manifest file")
    check.add_argument(
        "--split", default="parallel", choices=["parallel", "official", "speaker"], help="default: parallel"
    )
    flags = parser.parse_args(arguments)
    kind = "manifest" if flags.place.is_file() or flags.place.suffix and not flags.place.is_dir() else "meld-st"
    settings = CorpusSettings(spec=f"{kind}:{flags.place}", split=flags.split)
    try:
        census = take_census(list_corpus(settings, Path()), settings)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_text(census, flags.split))
    lacking = split_faults(census.corpus, ControlSplit()) if census.corpus else []
    for fault in lacking:
        print(f"\nA study would refuse this corpus\n  {fault}")
    return 1 if census.refusal or census.leaks or lacking else 0


if __name__ == "__main__":
    sys.exit(main())
