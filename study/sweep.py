"""Search the fairness-weight schedules and MinMaxGAP coefficients of a speech LLM: the main job.

Without arguments it runs the default study, eight trials on the embedded corpus with the tiny backbone, and leaves a
report. Called again with the same arguments it goes on where it stopped, or shows what is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != ROOT:  # run as a script, Python puts study/ first: its modules must not shadow others
    sys.path[0] = ROOT

from rich.console import Console

from analysis.report import show_study, write_report
from study.planning import OBJECTIVES, StudyPlan, add_study_flags, make_plan
from study.records import RecordError, StudyFolder
from study.settings import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if no trial worked, 2 for unusable flags, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python study/sweep.py", description=__doc__.split("\n\n")[0])
    add_study_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    flags = parser.parse_args(arguments)
    return 0
