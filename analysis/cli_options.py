"""Flags that several commands of the analysis have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import get_args

from study.evaluation.metrics import ClassAverage


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """What argparse makes of a flag that is a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


DRAWS, SEED = whole_number(20, 100_000), whole_number(0, 2**32 - 1)


def add_class_average(parser: argparse.ArgumentParser) -> None:
    """``--class-average``, for :func:`analysis.loading.study.load_study`."""
    parser.add_argument(
        "--class-average",
        choices=get_args(ClassAverage),
        default="mean_of_gaps",
        help="how gaps of TPR and FPR by class become one number (default: %(default)s)",
    )
