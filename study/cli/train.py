"""The command ``python study/train.py``: train one configuration, print its metrics and export its adapter."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from analysis.formatting import as_text
from analysis.tables.configurations import groups_table
from study.cli.app import run_script
from study.cli.options import OptionParser, TrainOptions
from study.cli.run_single import SingleRun, run_single
from study.common.environment import quiet_libraries, rank_and_world_size


def make_parser() -> OptionParser[TrainOptions]:
    """Return the parser of ``study/train.py``."""
    return OptionParser(
        TrainOptions,
        prog="python study/train.py",
        description="Train one configuration, print its metrics and export its adapter. The same command resumes an "
        "interrupted run or shows a finished one.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 1 if training diverged; 2 for an error that the user can fix; 130 or 143 if stopped.
    """
    quiet_libraries()
    options, errors = make_parser().read(arguments)
    rank, _ = rank_and_world_size()
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=rank > 0)
    return run_script(partial(run, options, errors, console))


def run(options: TrainOptions, errors: list[str], console: Console) -> int:
    """Train the configuration and print its metrics; return the exit status."""
    finished = run_single(options, errors, console)
    if finished is not None:
        show(finished, console)
    return 0


def show(run: SingleRun, console: Console) -> None:
    """Print the metrics and paths of a finished run; write the model card of its adapter."""
    folder = run.request.folder
    tables = {split: as_text(groups_table(run.finished[split])) for split in ("dev", "test")}
    for split, text in tables.items():
        selected = f" (epoch {run.finished['epoch']} was selected on it)" if run.finished["epoch"] else ""
        console.print(f"\n{split}, percentage points{selected if split == 'dev' else ''}")
        console.print(text)
    from study.training.profiler import SUMMARY  # imports torch: not for --help

    if rank_and_world_size()[0] == 0:
        from study.models.adapter import CARD
        from study.models.model_card import card

        text = card(run.request.settings, run.finished, run.state.plan, run.backbone, tables)
        folder.write_bytes(f"{run.directory}/adapter/{CARD}", text.encode())
    console.print(f"\n{'adapter':11}{folder.path(run.directory, 'adapter')}")
    console.print(f"{'records':11}{folder.path(run.directory)}")
    if folder.exists(f"{run.directory}/{SUMMARY}"):
        console.print(f"{'profile':11}{folder.path(run.directory, SUMMARY)}")
