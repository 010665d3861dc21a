"""``python study/sweep.py status STUDY``: show the progress of a study."""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console

from analysis.formatting import as_text
from analysis.pareto.objectives_front import objectives_front, objectives_table
from study.cli.app import run_script
from study.common.errors import plural
from study.planning.confirmation import confirm_folder
from study.planning.paths import find_study
from study.storage.schemas import objectives_of
from study.storage.status import read_status
from study.storage.study_state import StudyState


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python study/sweep.py status``."""
    parser = argparse.ArgumentParser(prog="python study/sweep.py status", description="Show the progress of a study.")
    parser.add_argument("study", help="its folder or URL, or its name in the storage")
    parser.add_argument("--storage", default=None, help="folder or URL of the studies (default: results/)")
    return parser


def main(arguments: list[str], console: Console) -> int:
    """Run the subcommand; return the exit status."""
    options = make_parser().parse_args(arguments)
    state = StudyState(find_study(options.study, options.storage))
    return run_script(partial(show_status, console, state))


def show_status(console: Console, state: StudyState) -> int:
    """Print trials, writer, cost and front of a study."""
    state.folder.require_storage()
    status = read_status(state)
    plan, counts = status.plan, status.counts
    states = ", ".join(f"{counts.get(state, 0)} {state}" for state in ("finished", "failed", "pruned"))
    unfinished = f"{len(status.open)} {'running' if status.holder else 'interrupted'}"
    console.print(f"{'study':11}{plan['name']} in {state.folder.uri}")
    console.print(f"{'trials':11}{states}, {unfinished}; {plan['trials']} planned")
    for config_id, progress in status.open.items():
        console.print(f"{'':11}{config_id}: {progress}")
    if status.missing_runs:
        missing = plural(status.missing_runs, "run")
        console.print(f"{'seeds':11}finished trials lack {missing}: seeds were added to the study")
    console.print(f"{'writer':11}{status.holder or 'none; run the command of the study again to resume it'}")
    console.print(f"{'cost':11}{status.worker_hours:.3g} worker-hours so far, without unfinished trials")
    if status.remaining is not None:
        minutes = f"about {max(1, round(status.remaining / 60))} min" if status.remaining else "none"
        console.print(f"{'time left':11}{minutes}")
    if counts.get("finished"):
        show_objectives(console, state)
    confirmation = confirm_folder(state.folder)
    if confirmation.exists("study.json"):
        console.print(f"{'confirmed':11}python study/sweep.py status {confirmation.uri}")
    return 0


def show_objectives(console: Console, state: StudyState) -> None:
    """Print the front over the study's own search objectives, and how many configurations violate a constraint."""
    plan = state.plan
    points = objectives_front(plan, [*state.trials.values()])
    objectives = ", ".join(f"{metric} {mode}" for metric, mode in objectives_of(plan))
    console.print(f"\nPareto front on dev over {objectives} (rates and gaps in percentage points)")
    console.print(as_text(objectives_table(points, plan)))
    if plan.get("constraints"):
        missed = int(points["violations"].astype(bool).sum())
        console.print(f"{missed} of {len(points)} configurations violate {' or '.join(plan['constraints'])}")
