"""The command ``python -m analysis``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from analysis.__main__ import main
from analysis.cli_options import CLASS_AVERAGES
from study.evaluation.metrics import ClassAverage

COMMANDS = ("report", "compare", "select", "importance", "questions", "studies")


def test_help_lists_the_commands_and_loads_no_library() -> None:
    code = (
        "import sys; from analysis.__main__ import make_parser; text = make_parser().format_help();"
        "assert not {'numpy', 'pandas', 'matplotlib', 'torch', 'ray'} & set(sys.modules); print(text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert set(COMMANDS) <= set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_study_is_an_error_with_exit_status_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: no study at {tmp_path}")


def test_class_averages_are_those_of_the_metrics() -> None:
    assert get_args(ClassAverage) == CLASS_AVERAGES
