"""The command ``python study/evaluate.py``: evaluate an exported adapter on a corpus.

By default an utterance's predicted emotion is the most likely of the seven label words. With ``--generate`` it is the
emotion named in the generated answer; answers that name none count as invalid. The command is one process, on one GPU
or on the CPU.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from rich.console import Console

from analysis.formatting import as_text
from analysis.tables.configurations import groups_table
from study.cli.app import run_script
from study.cli.options import EvaluationOptions, OptionParser
from study.cli.run_evaluation import evaluate_adapter, write_predictions
from study.common.environment import quiet_libraries
from study.common.errors import SettingsError
from study.evaluation.metrics import evaluate


def make_parser() -> OptionParser[EvaluationOptions]:
    """Return the parser of ``study/evaluate.py``."""
    return OptionParser(
        EvaluationOptions,
        prog="python study/evaluate.py",
        description="Evaluate an exported adapter on a corpus, by label likelihoods or by generated answers.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status: 0, 2 for an error that the user can fix, 130 or 143 if stopped."""
    quiet_libraries()
    options, errors = make_parser().read(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    return run_script(partial(run, options, errors, console))


def run(options: EvaluationOptions, errors: list[str], console: Console) -> int:
    """Evaluate the adapter, print its metrics and write its predictions; return the exit status."""
    if errors:
        raise SettingsError(errors)
    if options.predictions:  # fail now rather than after hours of evaluation
        os.makedirs(os.path.dirname(os.path.abspath(os.path.expanduser(options.predictions))), exist_ok=True)
    evaluation = evaluate_adapter(options, console)
    metrics = evaluate(evaluation.predictions)
    console.print(as_text(groups_table(metrics)))
    method = "generated answers" if options.generate else "label likelihoods"
    console.print(
        f"{evaluation.subset} of {options.corpus}, {method}, percentage points; "
        f"{100 * metrics['invalid']:.1f} % of answers invalid"
    )
    for note in evaluation.notes:
        console.print(f"note: {note}")
    if options.predictions:
        write_predictions(Path(options.predictions).expanduser(), evaluation.predictions)
        console.print(f"{'predictions':12}{options.predictions}")
    return 0
