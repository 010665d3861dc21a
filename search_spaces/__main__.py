"""``python -m search_spaces list|show NAME``: the spaces, and the knobs of one as a table."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Column, Table

from search_spaces.registry import SPACES, space_maker
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, MODALITIES
from study.config.presets import TINY
from study.config.settings import Settings

WHOLE = 200  # columns of a table that is not shown on a terminal


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m search_spaces``."""
    parser = argparse.ArgumentParser(
        prog="python -m search_spaces", description="Search spaces and their hyperparameters."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the spaces")
    show = commands.add_parser("show", help="the hyperparameters of one")
    show.add_argument("name", help="a space, several joined with +, or a TOML file")
    show.add_argument(
        "--languages", default=",".join(LANGUAGES), help=f"of the corpus (default: {','.join(LANGUAGES)})"
    )
    show.add_argument("--modalities", default=",".join(MODALITIES), help="of the study (default: both)")
    show.add_argument("--backbone", default="tiny", help="tiny, or another: learning rates are around its own")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0, or 2 for an error that the user can fix.
    """
    flags = make_parser().parse_args(arguments)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WHOLE
    try:
        console.print(_listed() if flags.command == "list" else _shown(flags))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _listed() -> Table:
    table = Table("space", "what it searches", box=None)
    for name, make in SPACES.items():
        table.add_row(name, (make.__doc__ or "").partition("\n")[0])
    return table


def _shown(flags: argparse.Namespace) -> Table:
    preset = TINY if flags.backbone == "tiny" else {"backbone.spec": flags.backbone}
    settings = Settings().with_overrides({**preset, "modalities": flags.modalities.split(",")})
    languages = flags.languages.split(",")
    if strangers := [name for name in languages if name not in LANGUAGES]:
        raise SettingsError(
            [f"--languages: there is no {name!r}; choose from {', '.join(LANGUAGES)}" for name in strangers]
        )
    space = space_maker(flags.name)(languages, settings)
    table = Table(
        *(Column(name, overflow="fold") for name in ("hyperparameter", "range", "default", "only if", "reason")),
        box=None,
    )
    for hyperparameter in space.hyperparameters:
        conditions = [f"{parent} is {' or '.join(map(str, values))}" for parent, values in hyperparameter.when.items()]
        default = (
            f"{hyperparameter.default:g}" if isinstance(hyperparameter.default, float) else str(hyperparameter.default)
        )
        table.add_row(
            hyperparameter.name, hyperparameter.range(), default, " and ".join(conditions), hyperparameter.reason
        )
    table.add_section()
    for baseline in space.baselines:
        values = ", ".join(f"{key}={value}" for key, value in {**baseline.hyperparameters, **baseline.fixed}.items())
        table.add_row("first trials", baseline.label, "", "", values)
    return table


if __name__ == "__main__":
    sys.exit(main())
