"""Analyse finished studies from the command line::

    python -m analysis report STUDY_DIR        # one HTML page with figures and tables
    python -m analysis compare STUDY_DIR       # paired comparisons with a reference configuration
    python -m analysis select STUDY_DIR        # choose a configuration on dev, look it up on test
    python -m analysis importance STUDY_DIR    # importance of each hyperparameter
    python -m analysis questions STUDY_DIR     # do coefficients help, does the transcript help
    python -m analysis studies STUDY_DIR ...   # the configurations of several studies in one table

Each command imports its libraries when it runs, so that ``--help`` needs none of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analysis.cli_options import (
    RESAMPLE_COUNT,
    add_class_average,
    add_csv,
    add_resampling,
    add_seed,
    add_study,
    fraction,
)
from analysis.constants import ERM, MAX_GAP, MAX_W_F1_LOSS, SPLITS
from study.common.errors import RecordError


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``run`` of the parsed options is the function of the command."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Analyse finished studies.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    report = commands.add_parser(
        "report", help="write the report of a study", description="Write the report of a study into its folder."
    )
    add_study(report)
    report.add_argument(
        "--permutations", type=RESAMPLE_COUNT, default=200, metavar="N",
        help="number of permutations for each noise floor (default: %(default)s)",
    )  # fmt: skip
    add_resampling(report, 300)
    add_class_average(report)
    report.set_defaults(run=write_report)

    compare = commands.add_parser(
        "compare", help="compare configurations with a reference",
        description="Compare the configurations of a study with a reference, paired over utterances and seeds.",
    )  # fmt: skip
    add_study(compare)
    compare.add_argument(
        "--reference", default=ERM, help="label, name or config_id of the reference (default: %(default)s)"
    )
    compare.add_argument("--split", choices=SPLITS, default="dev", help="default: %(default)s")
    compare.add_argument(
        "--by", choices=("dialogue", "speaker"),
        help="the cluster that is resampled as a whole (default: dialogue for MELD-ST, else speaker)",
    )  # fmt: skip
    add_resampling(compare, 2000)
    add_class_average(compare)
    compare.add_argument(
        "--scope", help="show this language, modality or mean only, such as de/speech or multilingual/speech+text"
    )
    compare.add_argument("--configuration", help="show this configuration only: its name or config_id")
    compare.add_argument("--all", action="store_true", help="show every quantity")
    add_csv(compare)
    compare.add_argument("--figure", metavar="STEM", help="also draw a forest plot to STEM.png and STEM.svg")
    compare.set_defaults(run=print_comparison)

    select = commands.add_parser(
        "select", help="choose a configuration by several rules",
        description="Choose a configuration on dev by each of several rules and report its test figures.",
    )  # fmt: skip
    add_study(select)
    select.add_argument(
        "--within-gap", type=fraction, default=MAX_GAP, metavar="E",
        help="largest gap of the rule that maximises W-F1, a fraction (default: %(default)s)",
    )  # fmt: skip
    select.add_argument(
        "--within-accuracy", type=fraction, default=MAX_W_F1_LOSS, metavar="D",
        help="largest loss of W-F1 against ERM of the rule that minimises the gap, a fraction (default: %(default)s)",
    )  # fmt: skip
    add_class_average(select)
    select.set_defaults(run=print_selection)

    importance = commands.add_parser(
        "importance", help="rank hyperparameters by importance",
        description="Estimate the importance of each hyperparameter for each search objective.",
    )  # fmt: skip
    add_study(importance)
    add_seed(importance)
    add_class_average(importance)
    importance.set_defaults(run=print_importance)

    questions = commands.add_parser(
        "questions", help="answer the research questions of the study",
        description="Test whether loss coefficients per language or modality help, and whether the transcript helps.",
    )  # fmt: skip
    add_study(questions)
    questions.add_argument(
        "--tuned", metavar="STUDY_DIR", help="the study that searched the coefficients (default: the same study)"
    )
    questions.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    add_resampling(questions, 2000)
    add_class_average(questions)
    questions.set_defaults(run=print_answers)

    studies = commands.add_parser(
        "studies", help="list the configurations of several studies",
        description="List the configurations of several studies in one table, and how the studies differ.",
    )  # fmt: skip
    studies.add_argument("studies", metavar="STUDY_DIR", nargs="+", help="folders or URLs of studies")
    add_csv(studies)
    add_class_average(studies)
    studies.set_defaults(run=print_studies)
    return parser


def write_report(options: argparse.Namespace) -> None:
    """Write the report of a study and print where it is."""
    from analysis.loading.study import load_study
    from analysis.report.build import write_report

    study = load_study(options.study, options.class_average)
    paths = write_report(study, options.permutations, options.resamples, options.seed)
    print(f"report  {paths.html}\nfigure  {paths.png}\n        {paths.svg}\nfront   {paths.csv}")
    print(f"tables  {paths.html.removesuffix('report.html')}*.tex, *.csv")


def print_comparison(options: argparse.Namespace) -> None:
    """Print every comparison with the reference; write CSV and figure where asked."""
    from analysis.comparison.paired import QUANTITIES, compare
    from analysis.comparison.verdict import SIGN_UNCERTAIN_NOTE
    from analysis.formatting import as_text
    from analysis.loading.study import load_study
    from analysis.tables.comparison import MAIN, comparison_table

    study = load_study(options.study, options.class_average)
    comparison = compare(study, options.reference, options.split, options.by, options.resamples, options.seed)
    table = comparison_table(
        comparison, tuple(QUANTITIES) if options.all else MAIN, options.scope, options.configuration
    )
    if options.csv:
        comparison.table.to_csv(options.csv, index=False)
    if options.figure:
        from analysis.plots.forest import draw_forest

        draw_forest(comparison, options.figure)
    print(as_text(table))
    print(
        f"\nOn {options.split}, in points, compared with {comparison.reference}; {comparison.resamples} bootstrap "
        f"resamples of whole {comparison.by}s. The difference of a signed gap is the change of its size: below 0 the "
        "gap shrinks. The verdict on a cell follows p adjusted by Holm's method over the cells of its configuration; "
        f"the verdict on a mean over cells follows its raw p. {SIGN_UNCERTAIN_NOTE}"
    )
    _print_notes(comparison.notes)


def print_selection(options: argparse.Namespace) -> None:
    """Print the choice of each selection rule."""
    from analysis.formatting import as_text
    from analysis.loading.study import load_study
    from analysis.pareto.selection import (
        HypervolumeContribution,
        Knee,
        WithinAccuracy,
        WithinGap,
        choose,
        selection_table,
    )

    rules = (WithinGap(options.within_gap), WithinAccuracy(options.within_accuracy), Knee(), HypervolumeContribution())
    study = load_study(options.study, options.class_average)
    print(as_text(selection_table(choose(study, rules))))
    print(
        "\nIn points. Each rule chooses on dev only; test figures are looked up once. Picking the best row by its test "
        "figures would be selection on test."
    )
    _print_notes(study.notes)


def print_importance(options: argparse.Namespace) -> None:
    """Print the importance of each hyperparameter, and why some have none."""
    from analysis.formatting import as_text
    from analysis.loading.study import load_study
    from analysis.pareto.importance import OBJECTIVE_NAMES, importance, importance_table

    study = load_study(options.study, options.class_average)
    shares = importance(study, options.seed)
    table = importance_table(shares)
    if not table.empty:
        print(as_text(table))
        print(
            "\nIn %: share of the variance over trials (fANOVA), share of the difference between the best tenth of the "
            "trials and all trials (PED-ANOVA). Shares rank hyperparameters; they do not show that any of them "
            "matters. n is the number of trials that have the hyperparameter."
        )
    unknown = shares[shares["reason"].notna()].fillna({"hyperparameter": "", "objective": ""})
    for (hyperparameter, reason), rows in unknown.groupby(["hyperparameter", "reason"], sort=False):
        objectives = ", ".join(rows["objective"].replace(OBJECTIVE_NAMES).unique())
        print(f"· {f'{hyperparameter} ({objectives}): ' if hyperparameter else ''}{reason}")
    _print_notes(study.notes)


def print_answers(options: argparse.Namespace) -> None:
    """Print the answers to the research questions."""
    from analysis.comparison.questions import coefficient_effect, transcript_effect
    from analysis.formatting import as_text
    from analysis.loading.study import load_study
    from analysis.report import questions_section as questions
    from analysis.tables.comparison import comparison_table

    plain = load_study(options.study, options.class_average)
    tuned = load_study(options.tuned, options.class_average) if options.tuned else None
    resampling = {"split": options.split, "resamples": options.resamples, "seed": options.seed}
    coefficients = coefficient_effect(plain, tuned, **resampling)
    transcript = transcript_effect(plain, **resampling)
    tuned_arms = questions.compare_tuned_arms(plain, **resampling)
    for title, answers, table, key in (
        (questions.COEFFICIENTS, coefficients, questions.coefficients_table(coefficients), "coefficients"),
        (questions.TRANSCRIPT, transcript, questions.transcript_table(transcript), "language"),
    ):
        print(f"{title} {questions.unanswered(answers, key)}".rstrip())
        if not table.empty:
            print(as_text(table))
        print()
    if tuned_arms is not None:
        print(
            f"{questions.COEFFICIENTS} The choices of finished searches, compared with {tuned_arms.reference}. "
            f"{questions.tuned_arm_notes(plain)}"
        )
        print(as_text(comparison_table(tuned_arms, ("w_f1", "avg"), scope=tuned_arms.overall)), end="\n\n")
    print(
        f"On {options.split}, in points, paired over utterances and seeds. A difference below 0 means a smaller gap. "
        f"{questions.VERDICT_NOTE}"
    )
    _print_notes(plain.notes)


def print_studies(options: argparse.Namespace) -> None:
    """Print the configurations of several studies, and how the studies differ."""
    from analysis.comparison.studies import differences, side_by_side
    from analysis.formatting import as_text
    from analysis.loading.study import load_study
    from analysis.tables.studies import studies_table

    studies = [load_study(folder, options.class_average) for folder in options.studies]
    table = side_by_side(studies)
    if options.csv:
        table.to_csv(options.csv, index=False)
    print(as_text(studies_table(table)))
    print(
        "\nIn points. Rows with the same number under “dev set” or “test set” were evaluated on the same utterances of "
        "that split; only such rows may be compared."
    )
    _print_notes([*differences(studies), *dict.fromkeys(note for study in studies for note in study.notes)])


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"· {note}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit status: 0, or 2 where a study cannot be read or a file cannot be written.
    """
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
