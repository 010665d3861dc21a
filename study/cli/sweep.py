"""The command ``python study/sweep.py``: run a search, show its front, confirm it on fresh seeds."""

from __future__ import annotations

import sys
from functools import partial

from rich.console import Console

from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.formatting import as_text, format_hyperparameters
from analysis.loading.study import ERM, load_study
from analysis.loading.timing import summarise_time, time_spent
from analysis.pareto.front import front
from analysis.pareto.objectives_front import objectives_front
from analysis.tables.configurations import front_table
from study.cli import status
from study.cli.app import run_script
from study.cli.options import OptionParser, SearchOptions, Seeds, option
from study.cli.request import available_cores, search_request
from study.cli.run_study import StudyCommand, run_study
from study.common.errors import SettingsError
from study.planning.confirmation import confirm_space, confirmation_request, confirmation_runs
from study.planning.request import StudyRequest
from study.search.objectives import SearchObjectives
from study.storage.records import run_directory
from study.storage.study_state import StudyState


class SweepOptions(SearchOptions):
    """The options of ``study/sweep.py``."""

    confirm_seeds: Seeds | None = option(
        None, "train the front of the finished study, and ERM, on these fresh seeds, and show both results", "10,11,12"
    )


def make_parser() -> OptionParser[SweepOptions]:
    """Return the parser of ``study/sweep.py``."""
    return OptionParser(
        SweepOptions,
        prog="python study/sweep.py",
        description="Search fairness-weight schedules and MinMaxGAP coefficients of a speech LLM. The same command "
        "resumes an interrupted study, extends one, or shows a finished one.",
        epilog="python study/sweep.py status STUDY shows finished, running and failed trials, the front and the cost.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 1 if no trial finished; 2 for an error that the user can fix; 130 or 143 if stopped.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if arguments[:1] == ["status"]:
        return status.main(arguments[1:], console)
    options, errors = make_parser().read(arguments)
    return run_script(partial(run, options, errors, console))


def run(options: SweepOptions, errors: list[str], console: Console) -> int:
    """Run the search, or with ``--confirm-seeds`` its confirmation; return the exit status."""
    request = search_request(options, errors, available_cores())
    if options.confirm_seeds is None:
        command = StudyCommand(None, (), format_hyperparameters, partial(show, console))
        return run_study(request, command, options.dry_run, console)
    folder = request.folder
    folder.require_storage()
    state = StudyState(folder)
    trials = [*state.trials.values()]
    points = objectives_front(state.plan, trials)
    front_ids = [*points.loc[points["on_front"], "config_id"]]
    if not front_ids:
        raise SettingsError([f"--confirm-seeds: {folder.uri} has no front yet; run the search first"])
    erm_ids = [trial["config_id"] for trial in trials if trial["label"] == ERM]
    configurations = confirmation_runs(trials, tuple(dict.fromkeys([*erm_ids, *front_ids])))
    command = StudyCommand(
        confirm_space(configurations),
        tuple(configuration.label for configuration in configurations),
        format_hyperparameters,
        partial(show_confirmation, console, state),
    )
    return run_study(confirmation_request(request, state, options.confirm_seeds), command, options.dry_run, console)


def show(console: Console, request: StudyRequest, state: StudyState, write: bool) -> int:
    """Print the front of a search and the paths of its report.

    Args:
        console: where to print.
        request: of the search.
        state: records of the search.
        write: whether to write the report first.

    Returns:
        Exit status: 0, or 1 if no run has finished.
    """
    study = load_study(state)
    done = state.trials_done
    if done < request.trials:
        failed = f", {len(study.failed)} failed" if len(study.failed) else ""
        console.print(f"{done} of {request.trials} trials are done{failed}; the same command runs the others")
    if len(study.pruned):
        console.print(f"{len(study.pruned)} of {done} trials were stopped early and are not on any front")
    for trial in study.failed.itertuples():
        console.print(f"trial {trial.number} failed: {trial.reason} (logs: {trial.log})")
    for record in state.trials.values():
        for seed, reason in record.get("failed_seeds", {}).items():
            console.print(f"trial {record['number']} is incomplete, seed {seed} failed: {reason}")
    if study.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    if write:
        from analysis.report.build import write_report  # imports Optuna and scikit-learn: not to show a report

        write_report(study)
    if request.search_objectives == SearchObjectives():
        console.print("\nPareto front on dev (percentage points; test is shown beside it and was not used to select)")
        console.print(as_text(front_table(front(study.configurations))))
    else:
        status.show_objectives(console, state)
    for note in study.plan["corpus"]["notes"]:
        console.print(f"note: {note}")
    spent = summarise_time(time_spent(study))
    if spent:
        console.print(f"{'time':8}{spent}")
    for name, file in (("report", "report.html"), ("figure", "pareto.png"), ("", "pareto.svg")):
        console.print(f"{name:8}{request.folder.path('report', file)}")
    if request.profile:
        _show_profiles(console, request, state)
    return 0


def _show_profiles(console: Console, request: StudyRequest, state: StudyState) -> None:
    from study.training.profiler import SUMMARY  # imports torch: not for --help

    name = "profile"
    for record in state.trials.values():
        summary = f"{run_directory(record['config_id'], request.seeds[0])}/{SUMMARY}"
        if request.folder.exists(summary):
            console.print(f"{name:8}{request.folder.path(summary)}")
            name = ""


def show_confirmation(
    console: Console, search_state: StudyState, request: StudyRequest, state: StudyState, write: bool
) -> int:
    """Print the results of the search beside those on fresh seeds.

    Args:
        console: where to print.
        search_state: records of the search that was confirmed.
        request: of the confirmation.
        state: records of the confirmation.
        write: whether to write both reports first.

    Returns:
        Exit status: 0, or 1 if no run of the confirmation has finished.
    """
    confirmed = load_study(state)
    if confirmed.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    search = load_study(search_state)
    if write:
        from analysis.report.build import write_report

        write_report(search, confirmation=confirmed)
        write_report(confirmed)
    console.print("\nin the search → on fresh seeds (percentage points); the front was selected on the search's seeds")
    table = confirmation_table(with_objectives(confirmation(search, confirmed), search, confirmed))
    console.print(as_text(table))
    for folder, content in ((search_state.folder, "search and fresh seeds"), (request.folder, "fresh seeds alone")):
        console.print(f"{'report':8}{folder.path('report', 'report.html')} ({content})")
    return 0
