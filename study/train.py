"""Train one configuration, print its figures and export its adapter.

``--config FILE`` holds settings (JSON or TOML) or is a trial of a finished study, ``results/STUDY/trials/00004.json``;
flags go before it. With ``--epochs 0`` the backbone is scored as it is. Under ``torchrun --nproc-per-node N`` it is a
run of N ranks, alone a run of one. The same command goes on after a kill, and shows a finished run again.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from analysis.formatting import as_text
from analysis.tables.configurations import groups_table
from study.cli.app import run_script
from study.cli.options import add_study_flags
from study.cli.run_single import SingleRun, run_single
from study.common.environment import quiet_libraries, rank_and_world_size
from study.planning.request import SINGLE
from study.storage.records import read_study


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if training diverged, 2 for what the user can mend, 130 if interrupted."""
    quiet_libraries()
    parser = argparse.ArgumentParser(prog="python study/train.py", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--config",
        default=None,
        metavar="FILE",
        help="settings, or a trial, but its seeds: results/STUDY/trials/00004.json",
    )
    add_study_flags(parser)
    parser.set_defaults(space=SINGLE, trials=1)
    if parser.parse_args(arguments).config:  # what no flag says is the file's
        parser.set_defaults(corpus=None, split=None, backbone=None, modalities=None)
    flags = parser.parse_args(arguments)
    rank, _ = rank_and_world_size()
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=rank > 0)
    return run_script(partial(run, flags, console))


def run(flags: argparse.Namespace, console: Console) -> int:
    done = run_single(flags, console)
    if done is not None:
        show(done, console)
    return 0


def show(done: SingleRun, console: Console) -> None:
    """Print the figures and where everything is; write the adapter's card."""
    folder = done.request.folder
    tables = {split: as_text(groups_table(done.finished[split])) for split in ("dev", "test")}
    for split, text in tables.items():
        console.print(f"\n{split}, in points" + (f" (epoch {done.finished['epoch']} was chosen on it)"
                                                 if split == "dev" and done.finished["epoch"] else ""))  # fmt: skip
        console.print(text)
    from study.training.profiler import SUMMARY  # torch: not for --help

    if rank_and_world_size()[0] == 0:
        from study.models.adapter import CARD
        from study.models.model_card import card

        text = card(done.request.settings, done.finished, read_study(folder), done.backbone, tables)
        folder.write_bytes(f"{done.directory}/adapter/{CARD}", text.encode())
    console.print(f"\n{'adapter':11}{folder.path(done.directory, 'adapter')}")
    console.print(f"{'records':11}{folder.path(done.directory)}")
    if folder.exists(f"{done.directory}/{SUMMARY}"):
        console.print(f"{'profile':11}{folder.path(done.directory, SUMMARY)}")


if __name__ == "__main__":
    sys.exit(main())
