"""Score an exported adapter on another corpus: the figures that train.py prints, and what it answers freely.

By default an utterance's emotion is the most likely of the seven label words; with ``--generate`` it is what the model
writes, and answers that name no emotion are counted as invalid. One process on one GPU, or on the CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from analysis.formatting import as_text
from analysis.tables.configurations import groups_table
from study.cli.app import run_script
from study.cli.run_evaluation import score_adapter, write_predictions
from study.common.environment import quiet_libraries
from study.evaluation.metrics import evaluate
from study.planning.paths import default_storage


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for what the user can mend, 130 if interrupted."""
    quiet_libraries()
    parser = argparse.ArgumentParser(prog="python study/evaluate.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--adapter", required=True, metavar="DIR", help="the adapter folder that train.py named")
    parser.add_argument("--corpus", required=True, metavar="SPEC", help="synthetic | meld-st:DIR | manifest:FILE")
    parser.add_argument(
        "--subset",
        default=None,
        choices=("train", "dev", "test", "all"),
        help="default: test, or all of a corpus without a split",
    )
    parser.add_argument(
        "--split",
        default=None,
        choices=("parallel", "official", "speaker"),
        help="default: the adapter's on its own corpus, parallel on another",
    )
    parser.add_argument("--modalities", default=None, metavar="A,B", help="default: those that it was trained with")
    parser.add_argument("--generate", action="store_true", help="free answers instead of label likelihoods")
    parser.add_argument("--backbone", default=None, metavar="SPEC", help="if it is not where the adapter says")
    parser.add_argument("--batch-size", default=32, type=int, metavar="N", help="default: 32")
    parser.add_argument(
        "--storage", default=default_storage(), metavar="DIR", help="where features are kept (results/)"
    )
    parser.add_argument("--predictions", default=None, metavar="FILE", help="keep every prediction here, as Parquet")
    flags = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    return run_script(partial(run, flags, console))


def run(flags: argparse.Namespace, console: Console) -> int:
    if flags.predictions:  # before hours of scoring
        os.makedirs(os.path.dirname(os.path.abspath(os.path.expanduser(flags.predictions))), exist_ok=True)
    scored = score_adapter(flags, console)
    figures = evaluate(scored.predictions)
    console.print(as_text(groups_table(figures)))
    how = "free answers" if flags.generate else "label likelihoods"
    console.print(
        f"{scored.part} of {flags.corpus}, {how}, in points; {100 * figures['invalid']:.1f} % of answers invalid"
    )
    for note in scored.notes:
        console.print(f"note: {note}")
    if flags.predictions:
        write_predictions(Path(flags.predictions).expanduser(), scored.predictions)
        console.print(f"{'predictions':12}{flags.predictions}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
