"""Build ``study.json``, and compare a study on disk with a request or plan of the same name."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from search_spaces import Hyperparameter
from study.common.errors import SettingsError
from study.config.settings import Settings, flatten, parse
from study.planning.request import StudyRequest
from study.storage.schemas import SCHEMA_VERSION, objectives_of
from study.storage.study_state import StudyState

if TYPE_CHECKING:
    from study.planning.plan import StudyPlan

VERSIONED = ("ray", "torch", "transformers", "peft", "deepspeed", "datasets", "optuna", "pandas", "scikit-learn")


def study_record(plan: StudyPlan, backbone_hash: str) -> dict[str, Any]:
    """Return the content of ``study.json`` for a plan."""
    request, settings = plan.request, plan.request.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "name": request.name,
        "corpus": {
            "spec": settings.corpus.spec,
            "name": plan.corpus.name,
            "hash": plan.corpus.content_hash,
            "counts": plan.counts(),
            "skipped": len(plan.corpus.skipped),
            "skipped_clips": list(plan.corpus.skipped),
            "notes": list(plan.corpus.notes),
        },
        "backbone": {"spec": settings.backbone.spec, "hash": backbone_hash},
        "languages": list(plan.languages),
        "modalities": list(settings.modalities),
        **space_record(plan),
        "objectives": [list(objective) for objective in request.search_objectives.objectives],
        "constraints": [str(constraint) for constraint in request.search_objectives.constraints],
        "sampler": request.sampler,
        "sampler_seed": request.sampler_seed,
        "trials": request.trials,
        "early_stopping": request.early_stopping and request.early_stopping.model_dump(),
        "seeds": list(request.seeds),
        "settings": settings.model_dump(mode="json"),
        "pinned": request.pinned,
        "parallelism": request.parallelism.model_dump(),
        "versions": {"python": sys.version.split()[0], **{package: version(package) for package in VERSIONED}},
        "command": shlex.join(["python", *sys.argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def space_record(plan: StudyPlan) -> dict[str, Any]:
    """Return the part of ``study.json`` that describes the search space."""
    return {
        "space": plan.request.space,
        "hyperparameters": [hyperparameter.model_dump(mode="json") for hyperparameter in plan.space.hyperparameters],
        "baselines": [{"label": each.label, "note": each.note} for each in plan.space.baselines],
    }


def plan_with_results(state: StudyState) -> dict[str, Any] | None:
    """Return the ``study.json`` of a study that has results; None if it may be replaced.

    A study in which every trial failed before the end of its first epoch may be replaced: the cause, such as a broken
    backbone, may have been repaired, which changes settings and hashes.
    """
    has_results = any(trial["state"] != "failed" for trial in state.trials.values()) or state.started_runs
    return state.plan_if_any if has_results else None


def conflicts(record: dict[str, Any], request: StudyRequest) -> list[str]:
    """List how a study on disk differs from a request of the same name.

    The request may have more trials and seeds, and other ``computation`` settings.
    """
    objectives = request.search_objectives
    requested = {
        "--objectives": ",".join(":".join(objective) for objective in objectives.objectives),
        "--constraint": " ".join(map(str, objectives.constraints)),
        "--sampler-seed": request.sampler_seed,
        **flatten(request.settings.model_dump(mode="json")),
        **request.pinned,
    }
    try:  # settings that were introduced after the study was made get their defaults
        settings = Settings.model_validate(record["settings"]).model_dump(mode="json")
    except ValidationError:
        settings = record["settings"]
    existing = {
        "--objectives": ",".join(":".join(objective) for objective in objectives_of(record)),
        "--constraint": " ".join(record.get("constraints", [])),
        "--sampler-seed": record.get("sampler_seed", 0),
        **flatten(settings),
        **record.get("pinned", {}),
    }
    if not set(record["seeds"]) <= set(request.seeds):
        existing["--seeds"], requested["--seeds"] = record["seeds"], list(request.seeds)
    return [
        _difference(key, repr(existing.get(key)), repr(requested.get(key)))
        for key in requested | existing
        if requested.get(key) != existing.get(key) and not key.startswith("computation.")
    ]


def space_conflicts(existing: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """List how the search space of a study on disk differs from a requested one.

    Hyperparameters may be added and ranges may widen, but none may be removed or narrowed. A study of named
    configurations may get more of them, but no other kind of space.

    Args:
        existing: ``space`` and ``hyperparameters`` as in ``study.json``.
        requested: the same for this call.
    """
    before, after = (
        {each["name"]: parse(Hyperparameter, each) for each in record.get("hyperparameters", [])}
        for record in (existing, requested)
    )
    removed = [name for name in before if name not in after]
    if removed or (existing["space"] != requested["space"] and not (before and after)):
        without = f" (without {', '.join(removed)})" if removed else ""
        return [_difference("--space", repr(existing["space"]), repr(requested["space"])) + without]
    return [
        _difference(name, hyperparameter.range(), after[name].range()) + ", which does not contain it"
        for name, hyperparameter in before.items()
        if not after[name].contains(hyperparameter)
    ]


def _difference(name: str, existing: str, requested: str) -> str:
    return f"{name}: {existing} in the study, {requested} in this call"


def is_complete(request: StudyRequest, state: StudyState) -> bool:
    """Return whether a study on disk was made with these settings and has all requested trials and seeds."""
    record = state.plan_if_any
    if record is None or conflicts(record, request):
        return False
    if record["space"] != request.space or set(record["seeds"]) != set(request.seeds):
        return False
    return not state.missing_seeds(request.seeds) and state.trials_done >= request.trials


def save_plan(request: StudyRequest, record: dict[str, Any], state: StudyState) -> None:
    """Write ``study.json``, or extend the existing one with more trials, seeds and hyperparameters.

    Raises:
        SettingsError: the existing study has another corpus, backbone or search space.
    """
    existing = plan_with_results(state)
    if existing is None:
        state.write_plan(record)
        return
    errors = [
        _difference(part, f"content {existing[part]['hash']}", record[part]["hash"])
        for part in ("corpus", "backbone")
        if existing[part]["hash"] != record[part]["hash"]
    ]
    refuse_conflicts(request, errors + space_conflicts(existing, record))
    baselines = {each["label"]: each for each in [*existing.get("baselines", []), *record["baselines"]]}
    latest = ("space", "hyperparameters", "seeds", "sampler", "early_stopping")
    extended = {key: record[key] for key in latest} | {"baselines": list(baselines.values())}
    state.write_plan({**existing, **extended, "trials": max(existing["trials"], request.trials)})


def refuse_conflicts(request: StudyRequest, errors: list[str]) -> None:
    """Refuse to mix two corpora, backbones, search spaces or settings in one study.

    Raises:
        SettingsError: there is a conflict.
    """
    if errors:
        raise SettingsError(
            [
                f"{request.folder.uri} contains a study with other settings; choose another --study NAME:",
                *errors,
            ]
        )
