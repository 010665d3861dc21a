"""The documentation agrees with the code: links, commands, the generated page and the examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.__main__ import make_parser as analysis_parser
from search_spaces.__main__ import make_parser as search_spaces_parser
from study.cli import ablation, corpus, evaluate, status, sweep, train
from study.cli.reference import TARGET, page
from tests import REPO

PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md")), REPO / "cluster/README.md"]
PARSERS = {
    "study/sweep.py status": status.make_parser,
    "study/sweep.py": sweep.make_parser,
    "study/ablation.py": ablation.make_parser,
    "study/train.py": train.make_parser,
    "study/evaluate.py": evaluate.make_parser,
    "-m study.data.corpora": corpus.make_parser,
    "-m search_spaces": search_spaces_parser,
    "-m analysis": analysis_parser,
}


def commands(path: Path) -> Iterator[str]:
    """Yield the command lines of the ``sh`` blocks of a page, continued lines joined."""
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        joined = block.replace("\\\n", " ")
        yield from re.sub(r"python -c \".*?\"", "", joined, flags=re.DOTALL).splitlines()


def options_of(line: str) -> tuple[str, list[str]] | None:
    """Return the command of ours in a line and its arguments; None if there is none."""
    words = shlex.split(line, comments=True)
    for name in PARSERS:
        parts = name.split()
        for start in range(len(words) - len(parts) + 1):
            if words[start : start + len(parts)] == parts:
                return name, words[start + len(parts) :]
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_and_picture_exists(path):
    targets = re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


def test_every_command_is_understood_by_its_parser():
    seen = set()
    for path in PAGES:
        for line in commands(path):
            command = options_of(line)
            if command and not {"...", "$C", "$S", "--help"} & set(command[1]):
                PARSERS[command[0]]().parse_args(command[1])  # argparse exits at an unknown option
                seen.add(command[0])
    assert seen == set(PARSERS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_named_module_exists(path):
    for name in re.findall(r"python -m ((?:study|analysis|search_spaces|tests|cluster)[\w.]*)", path.read_text()):
        place = REPO / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name


def test_the_command_line_page_is_that_of_the_parsers():
    assert TARGET.read_text(encoding="utf-8") == page(), "run python -m study.cli.reference"


def test_the_readme_is_short():
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
