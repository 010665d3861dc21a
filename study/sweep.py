"""Search the fairness-weight schedules and MinMaxGAP coefficients of a speech LLM: the main job.

Without arguments it runs the default study, eight trials on the synthetic corpus with the tiny backbone, and leaves a
report. Called again with the same arguments it goes on where it stopped, or shows what is there; with more trials,
more seeds or more knobs it runs what is missing. ``python study/sweep.py status STUDY`` says where a study stands.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd
from rich.console import Console

from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.formatting import as_text, format_hyperparameters
from analysis.loading.study import ERM, load_study
from analysis.loading.timing import summarise_time, time_spent
from analysis.pareto.front import front
from analysis.pareto.objectives_front import objectives_front, objectives_table
from analysis.report.build import write_report
from analysis.tables.configurations import front_table
from study.cli.app import run_script
from study.cli.options import add_search_flags, add_study_flags
from study.cli.run_study import Script, read_request, run_study
from study.common.errors import SettingsError
from study.planning.confirmation import confirm_folder, confirm_space, confirmation_request, confirmation_runs
from study.planning.paths import folder_of
from study.planning.request import StudyRequest
from study.search.objectives import SearchObjectives
from study.storage.records import read_study, read_trials, run_directory, trials_done
from study.storage.schemas import objectives_of
from study.storage.status import read_status
from study.storage.study_folder import StudyFolder

STATUS = "status"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if no trial worked, 2 for what the user can mend, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if arguments[:1] == [STATUS]:
        parser = argparse.ArgumentParser(prog="python study/sweep.py status", description="Where a study stands.")
        parser.add_argument("study", help="its folder or URL, or its name in the storage")
        parser.add_argument("--storage", default=None, help="where studies are kept (default: results/)")
        flags = parser.parse_args(arguments[1:])
        return run_script(partial(show_status, folder_of(flags.study, flags.storage), console))
    epilog = "python study/sweep.py status STUDY: what is done, running and failed, the front and the cost so far"
    parser = argparse.ArgumentParser(prog="python study/sweep.py", description=__doc__.split("\n\n")[0], epilog=epilog)
    add_study_flags(parser)
    add_search_flags(parser)
    parser.add_argument(
        "--confirm-seeds",
        default=None,
        metavar="10,11,12",
        help="run the front of the finished study, and ERM, again on these fresh seeds, and show both",
    )
    flags = parser.parse_args(arguments)
    return run_script(partial(run, flags, console))


def run(flags: argparse.Namespace, console: Console) -> int:
    request = read_request(flags)
    if flags.confirm_seeds is None:
        return run_study(
            request, Script(None, (), format_hyperparameters, partial(show, console)), flags.dry_run, console
        )
    folder = request.folder
    folder.require_storage()
    front_ids = [*_front_of(folder)["config_id"]]
    if not front_ids:
        raise SettingsError([f"--confirm-seeds: {folder.uri} has no front yet; run the search first"])
    trials = [*read_trials(folder).values()]
    chosen = dict.fromkeys([t["config_id"] for t in trials if t["label"] == ERM] + front_ids)
    baselines = confirmation_runs(trials, tuple(chosen))
    labels = tuple(baseline.label for baseline in baselines)
    script = Script(
        confirm_space(baselines), labels, format_hyperparameters, partial(show_confirmation, console, folder)
    )
    return run_study(confirmation_request(request, flags.confirm_seeds), script, flags.dry_run, console)


def show(console: Console, request: StudyRequest, write: bool) -> int:
    """Print the front and where the report is, writing it first if asked."""
    study = load_study(request.folder)
    done = trials_done(read_trials(request.folder).values())
    if done < request.trials:
        failed = f", {len(study.failed)} failed" if len(study.failed) else ""
        console.print(f"{done} of {request.trials} trials are done{failed}; the same command goes on with the others")
    if len(study.pruned):
        console.print(f"{len(study.pruned)} of {done} trials were stopped early and stand in no front")
    for trial in study.failed.itertuples():
        console.print(f"trial {trial.number} failed: {trial.reason} (logs: {trial.log})")
    for record in read_trials(request.folder).values():
        for seed, reason in record.get("failed_seeds", {}).items():
            console.print(f"trial {record['number']} is incomplete, seed {seed} failed: {reason}")
    if study.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    if write:
        write_report(request.folder)
    if request.search_objectives == SearchObjectives():
        console.print("\nPareto front on dev (percentage points; test beside it, not used to choose)")
        console.print(as_text(front_table(front(study.configurations))))
    else:
        show_objectives(console, request.folder)
    for note in study.plan["corpus"]["notes"]:
        console.print(f"note: {note}")
    spent = summarise_time(time_spent(study))
    if spent:
        console.print(f"{'time':8}{spent}")
    for name, file in (("report", "report.html"), ("figure", "pareto.png"), ("", "pareto.svg")):
        console.print(f"{name:8}{request.folder.path('report', file)}")
    if request.profile:
        show_profiles(console, request)
    return 0


def show_profiles(console: Console, request: StudyRequest) -> None:
    """Print where the pages of the profiled runs are."""
    from study.training.profiler import SUMMARY  # torch: not for --help

    name = "profile"
    for record in read_trials(request.folder).values():
        page = f"{run_directory(record['config_id'], request.seeds[0])}/{SUMMARY}"
        if request.folder.exists(page):
            console.print(f"{name:8}{request.folder.path(page)}")
            name = ""


def show_objectives(console: Console, folder: StudyFolder) -> None:
    """Print the front over the study's own objectives, and how many trials its requirements keep out."""
    plan = read_study(folder)
    points = objectives_front(plan, [*read_trials(folder).values()])
    words = ", ".join(f"{metric} {mode}" for metric, mode in objectives_of(plan))
    console.print(f"\nPareto front on dev over {words} (rates and gaps in percentage points)")
    console.print(as_text(objectives_table(points, plan)))
    if plan.get("constraints"):
        missed = int(points["missed"].astype(bool).sum())
        console.print(f"{missed} of {len(points)} configurations miss {' or '.join(plan['constraints'])}")


def show_confirmation(console: Console, folder: StudyFolder, request: StudyRequest, write: bool) -> int:
    """Print what was found beside the same on fresh seeds; the study's own report shows both as well.

    Args:
        folder: of the study that was confirmed.
        request: of the confirmation.
        write: whether to write both reports.
    """
    again = load_study(request.folder)
    if again.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    if write:
        write_report(folder)  # first: where the other report stands, this one has the confirmation
        write_report(request.folder)
    console.print("\nas searched → on fresh seeds (percentage points); the front was chosen on the first of each pair")
    search = load_study(folder)
    console.print(as_text(confirmation_table(with_objectives(confirmation(search, again), search, again))))
    for place, words in ((folder, "both"), (request.folder, "fresh seeds alone")):
        console.print(f"{'report':8}{place.path('report', 'report.html')} ({words})")
    return 0


def show_status(folder: StudyFolder, console: Console) -> int:
    """Print where a study stands."""
    folder.require_storage()
    status = read_status(folder)
    plan, counts = status.plan, status.counts
    states = ", ".join(f"{counts.get(state, 0)} {state}" for state in ("finished", "failed", "pruned"))
    console.print(f"{'study':11}{plan['name']} in {folder.uri}")
    console.print(
        f"{'trials':11}{states}, {len(status.open)} {'running' if status.holder else 'cut off'}; of {plan['trials']}"
    )
    for config_id, progress in status.open.items():
        console.print(f"{'':11}{config_id}: {progress}")
    if status.seeds:
        console.print(
            f"{'seeds':11}{status.seeds} runs of finished trials are missing: the study has got more seeds since"
        )
    console.print(f"{'writer':11}{status.holder or 'none: the command of the study goes on with what is missing'}")
    console.print(f"{'cost':11}{status.worker_hours:.3g} worker-hours so far, unfinished trials apart")
    if status.left is not None:
        console.print(
            f"{'time left':11}{'none' if not status.left else f'about {max(1, round(status.left / 60))} min'}"
        )
    if counts.get("finished"):
        show_objectives(console, folder)
    if confirm_folder(folder).exists("study.json"):
        console.print(f"{'confirmed':11}python study/sweep.py status {confirm_folder(folder).uri}")
    return 0


def _front_of(folder: StudyFolder) -> pd.DataFrame:
    points = objectives_front(read_study(folder), [*read_trials(folder).values()])
    return points[points["on_front"]]


if __name__ == "__main__":
    sys.exit(main())
