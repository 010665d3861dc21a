"""``python -m search_spaces list|show NAME``: list the search spaces, or show the hyperparameters of one."""

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

WIDTH = 200
"""Columns of a table that is not printed to a terminal."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m search_spaces``."""
    parser = argparse.ArgumentParser(
        prog="python -m search_spaces", description="List the search spaces, or show the hyperparameters of one."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the search spaces")
    show = commands.add_parser("show", help="show the hyperparameters of a search space")
    show.add_argument("name", help="a space, several joined with +, or a TOML file")
    show.add_argument(
        "--languages", default=",".join(LANGUAGES), help=f"languages of the corpus (default: {','.join(LANGUAGES)})"
    )
    show.add_argument("--modalities", default=",".join(MODALITIES), help="modalities of the study (default: both)")
    show.add_argument(
        "--backbone", default="tiny", help="backbone; its learning rate is the centre of the range (default: tiny)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 0 or 2 for an error that the user can fix."""
    options = make_parser().parse_args(arguments)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    try:
        console.print(_list_table() if options.command == "list" else _space_table(options))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _list_table() -> Table:
    table = Table("space", "hyperparameters", box=None)
    for name, make in SPACES.items():
        table.add_row(name, (make.__doc__ or "").partition("\n")[0])
    return table


def _space_table(options: argparse.Namespace) -> Table:
    preset = TINY if options.backbone == "tiny" else {"backbone.spec": options.backbone}
    settings = Settings().with_overrides({**preset, "modalities": options.modalities.split(",")})
    languages = options.languages.split(",")
    if unknown := [name for name in languages if name not in LANGUAGES]:
        raise SettingsError(
            [f"--languages: there is no {name!r}; choose from {', '.join(LANGUAGES)}" for name in unknown]
        )
    space = space_maker(options.name)(languages, settings)
    titles = ("hyperparameter", "range", "default", "only if", "reason")
    table = Table(*(Column(title, overflow="fold") for title in titles), box=None)
    for hyperparameter in space.hyperparameters:
        conditions = [f"{parent} is {' or '.join(map(str, values))}" for parent, values in hyperparameter.when.items()]
        default = hyperparameter.default
        table.add_row(
            hyperparameter.name,
            hyperparameter.range(),
            f"{default:g}" if isinstance(default, float) else str(default),
            " and ".join(conditions),
            hyperparameter.reason,
        )
    table.add_section()
    for baseline in space.baselines:
        values = ", ".join(f"{key}={value}" for key, value in {**baseline.hyperparameters, **baseline.fixed}.items())
        table.add_row("baseline configuration", baseline.label, "", "", values)
    return table


if __name__ == "__main__":
    sys.exit(main())
