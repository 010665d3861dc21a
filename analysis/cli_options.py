"""Command-line options that several commands of the analysis share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

CLASS_AVERAGES = ("mean_of_gaps", "gap_of_means")


def integer_between(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type that accepts an integer from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


RESAMPLE_COUNT, SEED = integer_between(20, 100_000), integer_between(0, 2**32 - 1)


def fraction(text: str) -> float:
    """Parse a number from 0 to 1 for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1; 0.05 is 5 points")
    return value


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the positional ``STUDY_DIR``."""
    parser.add_argument("study", metavar="STUDY_DIR", help="folder or URL of a study, which contains study.json")


def add_resampling(parser: argparse.ArgumentParser, resamples: int) -> None:
    """Add ``--resamples`` and ``--seed`` of bootstrap and permutation tests.

    Args:
        resamples: the default of ``--resamples``.
    """
    parser.add_argument(
        "--resamples", type=RESAMPLE_COUNT, default=resamples, metavar="B",
        help="number of bootstrap resamples and of permutations in each test (default: %(default)s)",
    )  # fmt: skip
    add_seed(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``, the seed of all random draws."""
    parser.add_argument("--seed", type=SEED, default=0, help="random seed of the analysis (default: %(default)s)")


def add_class_average(parser: argparse.ArgumentParser) -> None:
    """Add ``--class-average``; see :func:`analysis.loading.study.load_study`."""
    parser.add_argument(
        "--class-average", choices=CLASS_AVERAGES, default=CLASS_AVERAGES[0],
        help="how the TPR and FPR gaps of the emotion classes are averaged into one gap (default: %(default)s)",
    )  # fmt: skip


def add_csv(parser: argparse.ArgumentParser) -> None:
    """Add ``--csv``."""
    parser.add_argument("--csv", metavar="FILE", help="also write the full table to this CSV file, as fractions")
