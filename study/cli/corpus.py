"""Check a corpus before it is used: count its utterances, list what is missing and what leaks across its split."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.config.settings import ControlSplit, CorpusSettings
from study.data.corpora import CORPORA, CorpusError, list_corpus
from study.data.corpora.summary import as_text, summarise_corpus
from study.data.corpus_checks import split_errors


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m study.data.corpora``."""
    parser = argparse.ArgumentParser(prog="python -m study.data.corpora", description=__doc__)
    check = parser.add_subparsers(dest="command", required=True).add_parser(
        "check", help="print a summary of the corpus and every leak across its split"
    )
    check.add_argument("corpus", help="MELD-ST folder or manifest file; the prefix meld-st: or manifest: is optional")
    check.add_argument(
        "--split", default="parallel", choices=["parallel", "official", "speaker"], help="default: parallel"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 if a study can use the corpus and nothing leaks across its split, else 1."""
    options = make_parser().parse_args(arguments)
    settings = CorpusSettings(spec=_spec(options.corpus), split=options.split)
    try:
        summary = summarise_corpus(list_corpus(settings, Path()), settings)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_text(summary, options.split))
    errors = split_errors(summary.corpus, ControlSplit()) if summary.corpus else []
    for message in errors:
        print(f"\nA study would refuse this corpus\n  {message}")
    return 1 if summary.refusal or summary.leaks or errors else 0


def _spec(corpus: str) -> str:
    """Return the specification of a corpus for which the user typed it, or only a folder or file."""
    if corpus.partition(":")[0] in {form.partition(":")[0] for form in CORPORA if ":" in form}:
        return corpus
    path = Path(corpus)
    kind = "manifest" if path.is_file() or path.suffix and not path.is_dir() else "meld-st"
    return f"{kind}:{corpus}"
