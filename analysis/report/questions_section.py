"""The research questions of a study and their answers: ``python -m analysis questions STUDY_DIR``.

1. Do loss coefficients per language or modality help, compared with a fairness weight alone? Answered within one study,
   from two searches (``--tuned`` names the second one), or from the arms of an ablation that searches found.
2. Does the transcript reduce the gap?

The answers are computed in :mod:`analysis.comparison.questions`.
"""

from __future__ import annotations

import pandas as pd

from analysis.comparison.arms import adjusted, arms_table
from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.comparison.paired import QUANTITIES, Comparison, compare
from analysis.comparison.questions import coefficient_effect, transcript_effect
from analysis.formatting import POINTS, format_interval, format_p
from analysis.loading.study import Study
from analysis.report.context import RESAMPLES_PER_ARM, ReportContext
from analysis.report.html import Section, Table
from analysis.tables.comparison import comparison_table
from search_spaces.ablation_arms import TUNED, UNIFORM
from study.common.errors import RecordError

COEFFICIENTS = "Do loss coefficients help?"
TRANSCRIPT = "Does the transcript reduce the gap?"
VERDICT_NOTE = (
    "The verdict on a language or cell follows p adjusted by Holm's method over all of them; the verdict on their mean "
    "follows its raw p."
)


def coefficients_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the output of :func:`analysis.comparison.questions.coefficient_effect` in points, without the reasons."""
    rows = answers[answers["reason"].isna()]
    first = pd.DataFrame(
        {
            "coefficients": rows["coefficients"],
            "trials each": rows["budget"],
            "plain": rows["plain_name"],
            "tuned": rows["tuned_name"],
        }
    )
    halves = pd.DataFrame({"tuned better, % of halves": POINTS * rows["better_in_halves"].astype(float)})
    return pd.concat([first, _differences(rows, "scope", "plain value", "tuned value"), halves], axis=1)


def transcript_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the output of :func:`analysis.comparison.questions.transcript_effect` in points, without the reasons."""
    rows = answers[answers["reason"].isna()]
    first = pd.DataFrame({"configuration": rows["name"]})
    return pd.concat([first, _differences(rows, "language", "speech", "speech+text")], axis=1)


def _differences(rows: pd.DataFrame, scope: str, before: str, after: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "quantity": rows["quantity"].map(QUANTITIES),
            "of": rows[scope],
            before: POINTS * rows["reference"].astype(float),
            after: POINTS * rows["value"].astype(float),
            "difference": POINTS * rows["difference"].astype(float),
            "95 % interval": [format_interval(*ends) for ends in rows[["low", "high"]].astype(float).to_numpy()],
            "p": [format_p(value) for value in rows["p"].astype(float)],
            "Holm": [format_p(value) for value in rows["p_holm"].astype(float)],
            "verdict": rows["verdict"],
        }
    )


def unanswered(answers: pd.DataFrame, key: str) -> str:
    """Return why parts of a question have no answer, one sentence each; empty if all have one.

    Args:
        key: the column that names the part.
    """
    rows = answers[answers["reason"].notna()]
    return " ".join(
        f"No answer{f' for {name}' if isinstance(name, str) else ''}: {reason}."
        for name, reason in zip(rows[key], rows["reason"], strict=True)
    )


def compare_tuned_arms(study: Study, split: str, resamples: int, seed: int) -> Comparison | None:
    """Compare arms whose coefficients were found by searches with the arm of the search without coefficients.

    Args:
        study: an ablation (``--from``). Each arm is the choice on dev of its own search. All searches had the same
            number of trials, and the arms were trained again on the seeds of this study.
        resamples: at least; more if there are many arms.

    Returns:
        The comparison with p values adjusted over the arms; ``None`` without such arms or a common seed.
    """
    by_label = study.configurations.dropna(subset=["label"]).set_index("label")["config_id"]
    plain = [label for label in by_label.index if label.startswith(UNIFORM)]
    tuned = [str(by_label[label]) for label in by_label.index if label.startswith(TUNED)]
    if not plain or not tuned:
        return None
    enough = max(resamples, RESAMPLES_PER_ARM * len(tuned))
    try:
        return adjusted(compare(study, plain[0], split, None, enough, seed, tuned))
    except RecordError:
        return None


def tuned_arm_notes(study: Study) -> str:
    """Return how each arm that a search found was chosen, one sentence per arm."""
    references = study.plan.get("references", [])
    return " ".join(f"{arm['label']}: {arm['note']}." for arm in references if arm.get("note"))


def question_sections(context: ReportContext) -> list[Section]:
    """Return one section for each research question that the study can answer."""
    study = context.study
    resamples, seed = context.resamples, context.seed
    sections = []
    if any("coefficients" in hyperparameter["name"] for hyperparameter in study.plan.get("hyperparameters", [])):
        answers = coefficient_effect(study, resamples=resamples, seed=seed)
        text = (
            "The first n trials with equal coefficients are compared with the first n trials with unequal ones. A "
            "configuration of each kind is chosen on dev, and the two choices are compared on test, paired. Separate "
            "searches make a fairer comparison (python -m analysis questions PLAIN --tuned OTHER). "
            f"{VERDICT_NOTE} {unanswered(answers, 'coefficients')}"
        )
        sections.append(_section(COEFFICIENTS, text, coefficients_table(answers)))
    tuned = compare_tuned_arms(study, "test", resamples, seed)
    if tuned is not None:
        text = (
            "Each arm is the choice on dev of its own search; all searches had the same number of trials. The arms "
            f"were trained again on the seeds of this study and are compared with {tuned.reference} on test, paired. "
            "p is adjusted by Holm's method over the arms, or for a single cell over the cells of its arm. "
            f"{tuned_arm_notes(study)}"
        )
        blocks = (Table(arms_table(tuned)), Table(comparison_table(tuned), "By language and modality"))
        sections.append(Section(COEFFICIENTS, text, blocks))
    if len(study.plan["modalities"]) > 1:
        answers = transcript_effect(study, resamples=resamples, seed=seed)
        text = (
            "The same models predict the same test utterances from speech alone and from speech with its transcript. "
            f"A difference below 0 means a smaller gap with the transcript. {VERDICT_NOTE} "
            f"{unanswered(answers, 'language')}"
        )
        sections.append(_section(TRANSCRIPT, text, transcript_table(answers)))
    return sections


def confirmation_sections(context: ReportContext) -> list[Section]:
    """Return the front on the seeds of the search and on fresh seeds, if it was confirmed."""
    study, fresh = context.study, context.confirmation
    if fresh is None:
        return []
    text = (
        "Each cell shows the figure on the seeds of the search → the figure on fresh seeds. The figures of the best "
        "configurations of a search are optimistic, because they were chosen by them; those on fresh seeds are not."
    )
    rows = with_objectives(confirmation(study, fresh), study, fresh)
    return [_section("Confirmation on fresh seeds", text, confirmation_table(rows))]


def _section(title: str, text: str, table: pd.DataFrame) -> Section:
    return Section(title, text.rstrip(), () if table.empty else (Table(table),))
