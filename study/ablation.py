"""Run the arms of an ablation, every one over the same seeds, and compare them with ERM.

The engine, the records and the resume are those of a sweep; the arms are in ``search_spaces/ablation_arms.py``. Half of
dev is set aside as a control split in every arm (``--set control.fraction=...`` for another share). ``--from`` adds
what finished searches found (``study.planning.tuned_arms``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from analysis.comparison.arms import adjusted
from analysis.comparison.paired import compare
from analysis.formatting import as_text, format_hyperparameters
from analysis.loading.study import ERM, load_study
from analysis.report.build import write_report
from analysis.tables.comparison import comparison_table
from search_spaces import Space, ablation
from search_spaces.ablation_arms import ARMS, FAMILIES, MODALITY_ARMS, arms_of
from study.cli.app import run_script
from study.cli.options import add_study_flags
from study.cli.run_study import Script, read_request, run_study
from study.common.errors import SettingsError
from study.common.groups import Modality
from study.config.settings import Settings
from study.planning.paths import folder_of
from study.planning.request import StudyRequest
from study.planning.tuned_arms import TunedArm, read_tuned_arms

CONTROL = "control.fraction"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if no arm worked, 2 for what the user can mend, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python study/ablation.py", description=__doc__.split("\n\n")[0])
    add_study_flags(parser)
    names = "; ".join(arm.label for arm in ARMS)
    parser.add_argument(
        "--arms",
        default=None,
        metavar="'A; B'",
        help=f"separated by semicolons (default: all); a family: {'; '.join(FAMILIES)}; or an arm: {names}; with both "
        f"modalities also: {'; '.join(arm.label for arm in MODALITY_ARMS)}",
    )
    parser.add_argument(
        "--from",
        dest="found",
        action="append",
        default=[],
        metavar="STUDY",
        help="a finished search of the same settings: the configuration that it found is an arm, named after the "
        "coefficients that it searched; with several, each within the trials that all of them have; repeatable",
    )
    parser.set_defaults(space="ablation", trials=len(ARMS), seeds="0,1,2,3,4")
    flags = parser.parse_args(arguments)
    if not any(item.startswith(CONTROL) for item in flags.overrides):
        flags.overrides = [f"{CONTROL}=0.5", *flags.overrides]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    return run_script(partial(run, flags, console))


def run(flags: argparse.Namespace, console: Console) -> int:
    refuse_objectives(flags.overrides)
    arms = chosen(flags.arms, flags.modalities.split(","))
    found = read_tuned_arms([folder_of(study, flags.storage) for study in flags.found])
    make_space = partial(make_arms, names=arms, found=found)
    labels = (*arms, *(arm.baseline.label for arm in found))
    script = Script(make_space, labels, format_hyperparameters, partial(show, console))
    return run_study(read_request(flags), script, flags.dry_run, console)


def refuse_objectives(fixed: Sequence[str]) -> None:
    """Each arm is the paper's setting but for what its name says.

    Raises:
        SettingsError: a ``--set`` would change the objective of all arms, and so what their names mean.
    """
    keys = [item.partition("=")[0] for item in fixed if item.split(".")[0].partition("=")[0] == "loss"]
    if keys:
        raise SettingsError(
            [f"--set {key}: the arms set the objective; try it by study/sweep.py or study/train.py" for key in keys]
        )


def make_arms(languages: Sequence[str], settings: Settings, names: tuple[str, ...], found: Sequence[TunedArm]) -> Space:
    """The arms of this call.

    Raises:
        SettingsError: a search that an arm is taken from had other settings.
    """
    errors = [message for arm in found for message in arm.errors(settings)]
    if errors:
        raise SettingsError(errors)
    return ablation(languages, settings, names, [arm.arm(settings) for arm in found])


def chosen(text: str | None, modalities: Sequence[str] = (Modality.SPEECH_TEXT.value,)) -> tuple[str, ...]:
    """The names of the arms asked for; ERM is always among them, since the others are compared with it.

    Raises:
        SettingsError: there is no such arm.
    """
    known = tuple(arm.label for arm in arms_of(modalities))
    asked = [name.strip() for name in text.split(";")] if text else list(known)
    asked = [name for item in asked for name in FAMILIES.get(item, (item,))]
    strangers = [name for name in asked if name not in known]
    if strangers:
        every = "; ".join((*FAMILIES, *known))
        heard = {arm.label for arm in MODALITY_ARMS}
        raise SettingsError(
            [
                f"--arms: {name!r} needs --modalities speech,speech+text"
                if name in heard
                else f"--arms: there is no {name!r}; choose from: {every}"
                for name in strangers
            ]
        )
    return tuple(name for name in known if name in asked or name == ERM)


def show(console: Console, request: StudyRequest, write: bool) -> int:
    """Print every arm against ERM on dev, and where the report is, writing it first if asked."""
    study = load_study(request.folder)
    for trial in study.failed.itertuples():
        console.print(f"arm {trial.label} failed: {trial.reason} (logs: {trial.log})")
    if study.configuration(ERM) is None or len(study.configurations) < 2:
        console.print("fewer than two arms have finished, so there is nothing to compare")
        return 1
    if write:
        write_report(request.folder)
    comparison = adjusted(compare(study, ERM))
    console.print(as_text(comparison_table(comparison, ("w_f1", "avg"), scope=comparison.overall)))
    console.print("dev, in points, paired over seeds; W-F1 up and the AVG gap down are better")
    for note in comparison.notes:
        console.print(f"note: {note}")
    console.print(f"{'cells':8}python -m analysis compare {request.folder.uri} --reference {ERM}")
    console.print(f"{'report':8}{request.folder.path('report', 'report.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
