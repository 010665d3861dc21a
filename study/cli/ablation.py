"""The command ``python study/ablation.py``: train named arms on the same seeds and compare each with ERM.

Every arm holds out half of dev as a control split, whether or not its loss uses it, so that all arms are selected on
the same utterances (``--set control.fraction=...`` changes the share).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from rich.console import Console

from analysis.comparison.arms import adjusted
from analysis.comparison.paired import compare
from analysis.formatting import as_text, format_hyperparameters
from analysis.loading.study import ERM, load_study
from analysis.tables.comparison import comparison_table
from search_spaces import Space, ablation
from search_spaces.ablation_arms import ARMS, FAMILIES, MODALITY_ARMS, arms_of
from study.cli.app import run_script
from study.cli.options import OptionParser, Seeds, StudyOptions, option
from study.cli.request import available_cores, study_request
from study.cli.run_study import StudyCommand, run_study
from study.common.errors import SettingsError
from study.config.settings import Settings
from study.planning.paths import find_study
from study.planning.request import StudyRequest
from study.planning.tuned_arms import TunedArm, read_tuned_arms
from study.storage.study_state import StudyState

CONTROL = "control.fraction"


class AblationOptions(StudyOptions):
    """The options of ``study/ablation.py``."""

    title: ClassVar[str] = "arms"

    seeds: Seeds = option((0, 1, 2, 3, 4), "seeds of every arm", "0,1,2")
    arms: str | None = option(
        None,
        f"arms or families of arms, separated by semicolons (default: all); families: {'; '.join(FAMILIES)}; arms: "
        f"{'; '.join(arm.label for arm in ARMS)}; with both modalities also: "
        f"{'; '.join(arm.label for arm in MODALITY_ARMS)}",
        "'A; B'",
    )
    searches: tuple[str, ...] = option(
        (),
        "a finished search with the same settings; its best configuration becomes an arm, named after the coefficients "
        "that were searched; with several searches, only the trials that all of them have count; repeatable",
        "STUDY",
        validation_alias="from",
    )


def make_parser() -> OptionParser[AblationOptions]:
    """Return the parser of ``study/ablation.py``."""
    return OptionParser(
        AblationOptions,
        prog="python study/ablation.py",
        description="Train the arms of an ablation on the same seeds and compare each with ERM.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 1 if fewer than two arms finished; 2 for an error that the user can fix; 130 or 143 if stopped.
    """
    options, errors = make_parser().read(arguments)
    if not any(item.startswith(CONTROL) for item in options.overrides):
        options = options.model_copy(update={"overrides": (f"{CONTROL}=0.5", *options.overrides)})
    console = Console(highlight=False, markup=False, soft_wrap=True)
    return run_script(partial(run, options, errors, console))


def run(options: AblationOptions, errors: list[str], console: Console) -> int:
    """Train the arms that are missing and print the comparison; return the exit status."""
    refuse_loss_settings(options.overrides)
    arms = choose_arms(options.arms, options.modalities or Settings().modalities)
    tuned = read_tuned_arms([find_study(study, options.storage) for study in options.searches])
    labels = (*arms, *(arm.baseline.label for arm in tuned))
    command = StudyCommand(
        partial(make_arms, names=arms, tuned=tuned), labels, format_hyperparameters, partial(show, console)
    )
    request = study_request(options, errors, space="ablation", trials=len(labels), cores=available_cores())
    return run_study(request, command, options.dry_run, console)


def refuse_loss_settings(overrides: Sequence[str]) -> None:
    """Refuse ``--set loss...``: each arm is the paper's setting except for what its name says.

    Args:
        overrides: KEY=VALUE items of ``--set``.

    Raises:
        SettingsError: an item would change the loss of all arms.
    """
    keys = [item.partition("=")[0] for item in overrides if item.split(".")[0].partition("=")[0] == "loss"]
    if keys:
        raise SettingsError(
            [f"--set {key}: the arms define the loss; use study/sweep.py or study/train.py to set it" for key in keys]
        )


def make_arms(languages: Sequence[str], settings: Settings, names: tuple[str, ...], tuned: Sequence[TunedArm]) -> Space:
    """Return the arms as a space.

    Raises:
        SettingsError: a search from which an arm is taken had other settings.
    """
    errors = [message for arm in tuned for message in arm.errors(settings)]
    if errors:
        raise SettingsError(errors)
    return ablation(languages, settings, names, [arm.arm(settings) for arm in tuned])


def choose_arms(text: str | None, modalities: Sequence[str] = Settings().modalities) -> tuple[str, ...]:
    """Return the labels of the chosen arms, ERM included, since the others are compared with it.

    Args:
        text: the value of ``--arms``; None chooses all.
        modalities: of the study.

    Raises:
        SettingsError: there is no such arm.
    """
    known = tuple(arm.label for arm in arms_of(modalities))
    labels = [label.strip() for label in text.split(";")] if text else list(known)
    labels = [member for label in labels for member in FAMILIES.get(label, (label,))]
    unknown = [label for label in labels if label not in known]
    if unknown:
        choices = "; ".join((*FAMILIES, *known))
        need_both = {arm.label for arm in MODALITY_ARMS}
        raise SettingsError(
            [
                f"--arms: {label!r} needs --modalities speech,speech+text"
                if label in need_both
                else f"--arms: there is no {label!r}; choose from: {choices}"
                for label in unknown
            ]
        )
    return tuple(label for label in known if label in labels or label == ERM)


def show(console: Console, request: StudyRequest, state: StudyState, write: bool) -> int:
    """Print the comparison of every arm with ERM on dev, and the path of the report.

    Args:
        console: where to print.
        request: of the ablation.
        state: records of the ablation.
        write: whether to write the report first.

    Returns:
        Exit status: 0, or 1 if fewer than two arms have finished.
    """
    study = load_study(state)
    for trial in study.failed.itertuples():
        console.print(f"arm {trial.label} failed: {trial.reason} (logs: {trial.log})")
    if study.configuration(ERM) is None or len(study.configurations) < 2:
        console.print("fewer than two arms have finished, so there is nothing to compare")
        return 1
    if write:
        from analysis.report.build import write_report  # imports Optuna and scikit-learn: not to show a report

        write_report(study)
    comparison = adjusted(compare(study, ERM))
    console.print(as_text(comparison_table(comparison, ("w_f1", "avg"), scope=comparison.overall)))
    console.print("dev, percentage points, paired by seed; a higher W-F1 and a lower AVG gap are better")
    for note in comparison.notes:
        console.print(f"note: {note}")
    console.print(f"{'cells':8}python -m analysis compare {request.folder.uri} --reference {ERM}")
    console.print(f"{'report':8}{request.folder.path('report', 'report.html')}")
    return 0
