"""Running what a search found again, on seeds that it has not used, in a study folder inside its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from search_spaces import NamedConfiguration, Space, SpaceMaker
from study.common.errors import SettingsError
from study.config.settings import Settings
from study.planning.request import StudyRequest
from study.planning.study_json import conflicts, refuse_conflicts
from study.storage.records import read_study
from study.storage.study_folder import StudyFolder

CONFIRM = "confirm"


def confirm_folder(folder: StudyFolder) -> StudyFolder:
    """Where the second runs of a study are; a study like any other."""
    return StudyFolder(folder.path(CONFIRM))


def confirmation_request(request: StudyRequest, seeds: str) -> StudyRequest:
    """The request of running a study's configurations again.

    Args:
        request: of the study, which has run.
        seeds: new ones, such as ``10,11``.

    Raises:
        SettingsError: they are no seeds, the search has used one of them, or the study has other settings.
    """
    plan = read_study(request.folder)
    refuse_conflicts(request, conflicts(plan, replace(request, seeds=tuple(plan["seeds"]))))
    try:
        fresh = tuple(int(part) for part in seeds.split(","))
    except ValueError:
        raise SettingsError([f"--confirm-seeds: {seeds!r} is not a list of whole numbers such as 10,11,12"]) from None
    used = sorted(set(fresh) & set(plan["seeds"]))
    if used or len(set(fresh)) < len(fresh) or min(fresh) < 0:
        words = f"the search has used {', '.join(map(str, used))}" if used else "they must differ and be 0 or more"
        raise SettingsError([f"--confirm-seeds: {seeds}: {words}; choose fresh seeds"])
    return replace(
        request,
        folder=confirm_folder(request.folder),
        name=f"{request.name}-{CONFIRM}",
        space=CONFIRM,
        seeds=fresh,
    )


def confirmation_runs(trials: Sequence[dict[str, Any]], chosen: Sequence[str]) -> tuple[NamedConfiguration, ...]:
    """The configurations to run again, under the names that they have.

    Args:
        trials: records of the search.
        chosen: config_ids, of which the first trial with a label, or else the first, gives the name.
    """
    found: dict[str, NamedConfiguration] = {}
    for trial in sorted(trials, key=lambda trial: (trial["label"] is None, trial["number"])):
        if trial["config_id"] in chosen and trial["state"] == "finished":
            name = trial["label"] or f"trial {trial['number']}"
            found.setdefault(trial["config_id"], NamedConfiguration(name, fixed=trial["hyperparameters"]))
    return tuple(found[config_id] for config_id in chosen if config_id in found)


def confirm_space(baselines: tuple[NamedConfiguration, ...]) -> SpaceMaker:
    """A space of these configurations alone."""
    return partial(_space, baselines)


def _space(baselines: tuple[NamedConfiguration, ...], languages: Sequence[str], settings: Settings) -> Space:
    return Space(CONFIRM, (), baselines)
