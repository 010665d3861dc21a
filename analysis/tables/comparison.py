"""The command: ``python -m analysis.tables.comparison STUDY --reference ERM --split dev``.

What its rows are: :mod:`analysis.comparison.paired`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from analysis.cli_options import DRAWS, SEED, add_class_average
from analysis.comparison.paired import OTHER_SIDE_MEANS, QUANTITIES, Comparison, compare
from analysis.formatting import POINTS, as_text, in_words, p_in_words
from analysis.loading.study import ERM, SPLITS, load_study
from analysis.plots.forest import draw_forest
from study.common.errors import RecordError

MAIN = (
    "w_f1",
    "w_f1_female",
    "w_f1_male",
    "signed_tpr",
    "signed_fpr",
    "standardised_w_f1",
    "standardised_accuracy",
    "avg",
)
"""What is shown unless asked otherwise: of the gaps that class priors touch, those at common priors."""


def shown(
    comparison: Comparison, quantities: Sequence[str] = MAIN, scope: str | None = None, configuration: str | None = None
) -> pd.DataFrame:
    """The comparison as a reader wants it: figures in points, fewer columns, words for names.

    Args:
        quantities: of ``QUANTITIES``, shown in this order.
        scope, configuration: only rows of this one.

    Raises:
        RecordError: there are none; the message says what there is.
    """
    table = comparison.table[comparison.table["quantity"].isin(quantities)]
    if scope is not None:
        _require_one_of("scope", scope, comparison.table["scope"])
        table = table[table["scope"] == scope]
    if configuration is not None:
        _require_one_of("configuration", configuration, comparison.table["name"], comparison.table["config_id"])
        table = table[(table["name"] == configuration) | (table["config_id"] == configuration)]
    order = {name: i for i, name in enumerate(quantities)}
    table = table.sort_values("quantity", key=lambda names: names.map(order), kind="stable")
    table = table.sort_values("config_id", key=lambda ids: ids.map(_first_places(comparison.table)), kind="stable")
    return pd.DataFrame(
        {
            "configuration": table["name"],
            "seeds": table["n_seeds"],
            "quantity": table["quantity"].map(QUANTITIES),
            "of": table["scope"],
            "F/M": [f"{f}/{m}" for f, m in zip(table["n_female"], table["n_male"], strict=True)],
            comparison.reference: POINTS * table["reference"],
            "value": POINTS * table["value"],
            "difference": POINTS * table["difference"],
            "95 % interval": [in_words(low, high) for low, high in zip(table["low"], table["high"], strict=True)],
            "p": [p_in_words(value) for value in table["p"]],
            "Holm": [p_in_words(value) for value in table["p_holm"]],
            "says": table["says"],
        }
    ).reset_index(drop=True)


def _require_one_of(what: str, asked: str, known: pd.Series, *others: pd.Series) -> None:
    if not any((names == asked).any() for names in (known, *others)):
        raise RecordError(f"--{what} {asked}: no such {what} was compared; there is {'; '.join(known.unique())}.")


def _first_places(table: pd.DataFrame) -> dict[str, int]:
    return {config_id: i for i, config_id in enumerate(table["config_id"].unique())}


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.tables.comparison",
        description="Compare every configuration of a study with a reference.",
    )
    parser.add_argument("study", metavar="STUDY_DIR", help="folder or URL of a study: what holds study.json")
    parser.add_argument("--reference", default=ERM, help="label, name or config_id (default: %(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="dev", help="default: %(default)s")
    parser.add_argument("--by", choices=("dialogue", "speaker"), help="what is resampled (default: as the corpus asks)")
    parser.add_argument("--resamples", type=DRAWS, default=2000, help="default: %(default)s")
    parser.add_argument("--seed", type=SEED, default=0, help="of the resamples (default: %(default)s)")
    add_class_average(parser)
    parser.add_argument("--scope", help="only this one, such as de/speech or multilingual/speech+text")
    parser.add_argument("--configuration", help="only this one: its name or config_id")
    parser.add_argument("--all", action="store_true", help="show every quantity")
    parser.add_argument("--csv", metavar="FILE", help="write the whole table there as well, as fractions")
    parser.add_argument("--figure", metavar="STEM", help="draw a forest plot as STEM.png and STEM.svg")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(
            load_study(options.study, options.class_average),
            options.reference,
            options.split,
            options.by,
            options.resamples,
            options.seed,
        )
        quantities = tuple(QUANTITIES) if options.all else MAIN
        table = shown(comparison, quantities, options.scope, options.configuration)
        if options.csv:
            comparison.table.to_csv(options.csv, index=False)
        if options.figure:
            draw_forest(comparison, options.figure)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_text(table))
    print(
        f"\n{options.split}, in points, against {comparison.reference}; {comparison.resamples} resamples of whole "
        f"{comparison.by}s. The difference of a signed gap is the change of its size: below 0 it shrinks. A cell is "
        "told apart by Holm over the cells of its configuration, a mean over cells by p alone. " + OTHER_SIDE_MEANS
    )
    for note in comparison.notes:
        print(f"· {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
