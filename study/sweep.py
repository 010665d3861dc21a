"""Search the fairness-weight schedules and MinMaxGAP coefficients of a speech LLM: the main job.

Without arguments it runs the default study, eight trials on the embedded corpus with the tiny backbone, and leaves a
report. Called again with the same arguments it goes on where it stopped, or shows what is there.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from analysis.load import load_study
from analysis.pareto import front
from analysis.report import write_report
from analysis.tables import as_text, front_table, knobs_in_words
from search_spaces import SPACES
from study.planning import Draft, add_search_flags, add_study_flags
from study.records import read_trials, trials_done
from study.session import Script, run_script, run_study


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if no trial worked, 2 for what the user can mend, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python study/sweep.py", description=__doc__.split("\n\n")[0])
    add_study_flags(parser)
    add_search_flags(parser)
    flags = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    make_space = SPACES.get(flags.space, SPACES["fairness"])  # an unknown one is among the faults of the plan
    script = Script(make_space, (), knobs_in_words, partial(show, console))
    return run_script(partial(run_study, flags, script, console))


def show(console: Console, draft: Draft, write: bool) -> int:
    """Print the front and where the report is, writing it first if asked."""
    study = load_study(draft.folder)
    done = trials_done(read_trials(draft.folder).values())
    if done < draft.trials:
        console.print(f"{done} of {draft.trials} trials are done; the same command goes on with the others")
    if len(study.pruned):
        console.print(f"{len(study.pruned)} of {done} trials were stopped early and stand in no front")
    for trial in study.failed.itertuples():
        console.print(
            f"trial {trial.number} failed: {trial.reason} (logs: {draft.folder.path('runs', str(trial.config_id))})"
        )
    if study.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    if write:
        write_report(draft.folder)
    console.print("\nPareto front on dev (percentage points; test beside it, not used to choose)")
    console.print(as_text(front_table(front(study.configurations))))
    for note in study.plan["corpus"]["notes"]:
        console.print(f"note: {note}")
    for name, file in (("report", "report.html"), ("figure", "pareto.png"), ("", "pareto.svg")):
        console.print(f"{name:8}{draft.folder.path('report', file)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
