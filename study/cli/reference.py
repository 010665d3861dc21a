"""Write docs/cli.md from the parsers of the commands: ``python -m study.cli.reference``."""

from __future__ import annotations

import argparse
from typing import Any

from analysis.__main__ import make_parser as analysis_parser
from search_spaces.__main__ import make_parser as search_spaces_parser
from study.cli import ablation, corpus, evaluate, status, sweep, train
from study.common.environment import REPO

TARGET = REPO / "docs/cli.md"


def parsers() -> list[argparse.ArgumentParser]:
    """Return the parser of every command, in the order of the page."""
    scripts = [sweep, status, ablation, train, evaluate, corpus]
    return [*(script.make_parser() for script in scripts), search_spaces_parser(), analysis_parser()]


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the subcommands of a parser, or the parser itself if it has none."""
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [leaf for child in action.choices.values() for leaf in leaves(child)]
    return found or [parser]


def rows(parser: argparse.ArgumentParser) -> list[str]:
    """Return one table row per option, except ``--help``."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        lines.append(f"| `{_name(action)}` | {_cell(_help(action, parser))} |")
    return lines


def page() -> str:
    """Return docs/cli.md."""
    lines = [
        "# Command line",
        "",
        "Generated from the parsers by `python -m study.cli.reference`; a test compares this page with them.",
    ]
    for parser in (leaf for root in parsers() for leaf in leaves(root)):
        lines += ["", f"## `{parser.prog}`", "", *([_cell(parser.description), ""] if parser.description else [])]
        table = rows(parser)
        lines += ["| option | meaning |", "|---|---|", *table] if table else ["No options."]
    return "\n".join(lines) + "\n"


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest).upper()
    value: Any = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}")


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    values = {**vars(action), "prog": parser.prog}
    return (action.help or "") % values


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
