"""The research questions of a study and their answers: ``python -m analysis questions STUDY_DIR``.

Did coefficients by language or modality earn anything over a plain fairness weight (``--tuned`` names a second search;
of an ablation, the arms that searches found), and does the transcript shrink the gap
(:mod:`analysis.comparison.questions`)? Also what a search's front did on fresh seeds.
"""

from __future__ import annotations

import pandas as pd

from analysis.comparison.arms import adjusted, arms_table
from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.comparison.paired import QUANTITIES, Comparison, compare
from analysis.comparison.questions import coefficients_earned, transcript_effect
from analysis.formatting import POINTS, format_interval, format_p
from analysis.loading.study import Study, load_study
from analysis.report.html import Section, Table
from analysis.report.sections import RESAMPLES_AN_ARM
from analysis.tables.comparison import comparison_table
from search_spaces.ablation_arms import TUNED, UNIFORM
from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder

EARNED = "Did the coefficients earn anything?"
TRANSCRIPT = "Does the transcript shrink the gap?"
VERDICT_NOTE = (
    "The verdict on a language or cell rests on p after Holm over all of them, that on their mean on p alone."
)
CONFIRM = "confirm"


def shown_coefficients(found: pd.DataFrame) -> pd.DataFrame:
    """Output of :func:`analysis.comparison.questions.coefficients_earned` in points; reasons are left to the words."""
    rows = found[found["reason"].isna()]
    first = pd.DataFrame(
        {
            "coefficients": rows["coefficients"],
            "trials each": rows["budget"],
            "plain": rows["plain_name"],
            "tuned": rows["tuned_name"],
        }
    )
    halves = pd.DataFrame({"better in % of halves": POINTS * rows["better_in_halves"].astype(float)})
    return pd.concat([first, _paired(rows, "scope", "plain value", "tuned value"), halves], axis=1)


def shown_transcript(found: pd.DataFrame) -> pd.DataFrame:
    """Output of :func:`analysis.comparison.questions.transcript_effect` in points."""
    rows = found[found["reason"].isna()]
    first = pd.DataFrame({"configuration": rows["name"]})
    return pd.concat([first, _paired(rows, "language", "speech", "speech+text")], axis=1)


def _paired(rows: pd.DataFrame, scope: str, before: str, after: str) -> pd.DataFrame:
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


def reasons(found: pd.DataFrame, what: str) -> str:
    """Why some of the question has no answer, as sentences; empty where all has one."""
    rows = found[found["reason"].notna()]
    return "".join(
        f" {f'{name}: ' if isinstance(name, str) else ''}no answer, {reason}."
        for name, reason in zip(rows[what], rows["reason"], strict=True)
    )


def found_by_searches(study: Study, split: str, resamples: int, seed: int) -> Comparison | None:
    """Arms with the coefficients that searches found, against the arm of the search that had none; adjusted over them.

    Args:
        study: an ablation (``--from``): each arm is the choice on dev of its own search, all of the same budget, and
            was trained again on the seeds of this study.
        resamples: at least; more where there are several arms.

    Returns:
        ``None`` where there are no such arms, or no seed in common.
    """
    by_label = study.configurations.dropna(subset=["label"]).set_index("label")["config_id"]
    plain = [label for label in by_label.index if label.startswith(UNIFORM)]
    tuned = [str(by_label[label]) for label in by_label.index if label.startswith(TUNED)]
    if not plain or not tuned:
        return None
    enough = max(resamples, RESAMPLES_AN_ARM * len(tuned))
    try:
        return adjusted(compare(study, plain[0], split, None, enough, seed, tuned))
    except RecordError:
        return None


def found_notes(study: Study) -> str:
    """How the arms that searches found were chosen, one sentence an arm."""
    references = study.plan.get("references", [])
    return " ".join(f"{arm['label']}: {arm['note']}." for arm in references if arm.get("note"))


def question_sections(study: Study, resamples: int, seed: int) -> list[Section]:
    """A section for each question that the study could answer, and one for its confirmation if it has one."""
    sections = []
    if any("coefficients" in hyperparameter["name"] for hyperparameter in study.plan.get("hyperparameters", [])):
        found = coefficients_earned(study, resamples=resamples, seed=seed)
        words = (
            "The first n searched trials with equal coefficients against the first n with unequal ones: each kind "
            "chooses on dev, the choices are compared on test, paired. A search of its own for each kind is the fairer "
            "comparison (python -m analysis questions PLAIN --tuned OTHER). "
            f"{VERDICT_NOTE}{reasons(found, 'coefficients')}"
        )
        sections.append(_section(EARNED, words, shown_coefficients(found)))
    searched = found_by_searches(study, "test", resamples, seed)
    if searched is not None:
        words = (
            f"Each arm is the choice on dev of its own search, within the same number of trials, trained again on the "
            f"seeds of this study and compared on test, paired, with {searched.reference}. Holm: over the arms; of a "
            f"cell, over the cells of its arm. {found_notes(study)}"
        )
        blocks = (Table(arms_table(searched)), Table(comparison_table(searched), "By language and modality"))
        sections.append(Section(EARNED, words, blocks))
    if len(study.plan["modalities"]) > 1:
        found = transcript_effect(study, resamples=resamples, seed=seed)
        words = (
            "The same models on the same utterances of test, with the transcript against speech alone; below 0 a gap "
            f"is smaller with it. {VERDICT_NOTE}{reasons(found, 'language')}"
        )
        sections.append(_section(TRANSCRIPT, words, shown_transcript(found)))
    if study.folder.exists(f"{CONFIRM}/study.json"):
        again = load_study(StudyFolder(study.folder.path(CONFIRM)), study.class_average)
        words = "As searched → on seeds that the search has not seen. A winner of a search is partly luck."
        rows = with_objectives(confirmation(study, again), study, again)
        sections.append(_section("On fresh seeds", words, confirmation_table(rows)))
    return sections


def _section(title: str, words: str, table: pd.DataFrame) -> Section:
    return Section(title, words, () if table.empty else (Table(table),))
