"""Training configurations of a search again on fresh seeds, in a study folder inside the search's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search_spaces import NamedConfiguration, Space, SpaceMaker
from study.common.errors import SettingsError
from study.planning.request import StudyRequest
from study.planning.study_json import conflicts, refuse_conflicts
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

CONFIRM = "confirm"


def confirm_folder(folder: StudyFolder) -> StudyFolder:
    """Return the folder of a study's confirmation, which is a study itself."""
    return StudyFolder(folder.path(CONFIRM))


def confirmation_request(request: StudyRequest, state: StudyState, seeds: tuple[int, ...]) -> StudyRequest:
    """Return the request of a confirmation.

    Args:
        request: of the search, which has run.
        state: records of the search.
        seeds: fresh seeds.

    Raises:
        SettingsError: the search has used one of the seeds, or was made with other settings.
    """
    plan = state.plan
    refuse_conflicts(request, conflicts(plan, replace(request, seeds=tuple(plan["seeds"]))))
    used = sorted(set(seeds) & set(plan["seeds"]))
    if used:
        raise SettingsError(
            [f"--confirm-seeds: the search has used {', '.join(map(str, used))} already; choose fresh seeds"]
        )
    return replace(
        request, folder=confirm_folder(request.folder), name=f"{request.name}-{CONFIRM}", space=CONFIRM, seeds=seeds
    )


def confirmation_runs(trials: Sequence[dict[str, Any]], config_ids: Sequence[str]) -> tuple[NamedConfiguration, ...]:
    """Return the configurations to train again.

    Args:
        trials: records of the search.
        config_ids: of the configurations. Each takes the label of its first labelled trial, or else the number of its
            first trial.
    """
    configurations: dict[str, NamedConfiguration] = {}
    for trial in sorted(trials, key=lambda trial: (trial["label"] is None, trial["number"])):
        if trial["config_id"] in config_ids and trial["state"] == "finished":
            label = trial["label"] or f"trial {trial['number']}"
            configurations.setdefault(trial["config_id"], NamedConfiguration(label, fixed=trial["hyperparameters"]))
    return tuple(configurations[config_id] for config_id in config_ids if config_id in configurations)


def confirm_space(configurations: tuple[NamedConfiguration, ...]) -> SpaceMaker:
    """Return the maker of a space that consists of these configurations."""
    return lambda languages, settings: Space(CONFIRM, (), configurations)
