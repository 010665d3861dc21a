"""What ``study.json`` holds, and how a study on disk differs from a plan of the same name."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from search_spaces import Knob
from study.goals import objectives_of
from study.planning import Draft, StudyPlan
from study.records import SCHEMA_VERSION, StudyFolder, begun_runs, read_study, read_trials
from study.settings import Settings, flatten, parse

VERSIONED = ("ray", "torch", "transformers", "peft", "deepspeed", "datasets", "optuna", "pandas", "scikit-learn")


def study_record(plan: StudyPlan, backbone_hash: str) -> dict[str, Any]:
    """What ``study.json`` holds."""
    draft, settings = plan.draft, plan.draft.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "name": draft.name,
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
        "objectives": [list(objective) for objective in draft.goals.objectives],
        "requirements": [str(requirement) for requirement in draft.goals.requirements],
        "sampler": draft.sampler,
        "sampler_seed": draft.sampler_seed,
        "trials": draft.trials,
        "early_stopping": draft.early_stopping and draft.early_stopping.model_dump(),
        "seeds": list(draft.seeds),
        "settings": settings.model_dump(mode="json"),
        "held": draft.held,
        "placement": draft.placement.model_dump(),
        "versions": {"python": sys.version.split()[0], **{package: version(package) for package in VERSIONED}},
        "command": shlex.join(["python", *sys.argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def begun_study(folder: StudyFolder) -> dict[str, Any] | None:
    """The ``study.json`` of a study that holds something. None for one in which nothing got as far as an epoch: what
    kept it from that, a broken backbone say, may be mended, and then settings and hashes are other ones."""
    if not folder.exists("study.json"):
        return None
    ended = any(trial["state"] != "failed" for trial in read_trials(folder).values())
    return read_study(folder) if ended or begun_runs(folder) else None


def conflicts(record: dict[str, Any], draft: Draft) -> list[str]:
    """How a study on disk differs from a draft of the same name; trials and seeds may grow, and how a step is computed
    may change."""
    now = {**_search_in_words(draft), **flatten(draft.settings.model_dump(mode="json")), **draft.held}
    try:  # a setting that is younger than the study has its default there
        settings = Settings.model_validate(record["settings"]).model_dump(mode="json")
    except ValidationError:
        settings = record["settings"]
    then = {
        "--objectives": ",".join(":".join(objective) for objective in objectives_of(record)),
        "--require": " ".join(record.get("requirements", [])),
        "--sampler-seed": record.get("sampler_seed", 0),
        **flatten(settings),
        **record.get("held", {}),
    }
    if not set(record["seeds"]) <= set(draft.seeds):
        then["--seeds"], now["--seeds"] = record["seeds"], list(draft.seeds)
    return [
        f"{key}: {then.get(key)!r} there, {now.get(key)!r} now"
        for key in now | then
        if now.get(key) != then.get(key) and not key.startswith("computation.")
    ]


def space_conflicts(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """How the space of a study on disk differs; knobs may be added and ranges may widen, nothing may go.

    A study of named configurations can have more of them, but no other kind of space.

    Args:
        there, here: ``space`` and ``knobs`` as in ``study.json``.
    """
    then, now = ({knob["name"]: parse(Knob, knob) for knob in record.get("knobs", [])} for record in (there, here))
    gone = [name for name in then if name not in now]
    if gone or (there["space"] != here["space"] and not (then and now)):
        what = f" (without {', '.join(gone)})" if gone else ""
        return [f"--space: {there['space']!r} there, {here['space']!r} now{what}"]
    return [
        f"{name}: {knob.range()} there, {now[name].range()} now, which does not hold it"
        for name, knob in then.items()
        if not now[name].contains(knob)
    ]


def space_record(plan: StudyPlan) -> dict[str, Any]:
    """What ``study.json`` holds of the space."""
    return {
        "space": plan.draft.space,
        "knobs": [knob.model_dump(mode="json") for knob in plan.space.knobs],
        "references": [{"label": each.label, "note": each.note} for each in plan.space.references],
    }


def _search_in_words(draft: Draft) -> dict[str, Any]:
    return {
        "--objectives": ",".join(":".join(objective) for objective in draft.goals.objectives),
        "--require": " ".join(map(str, draft.goals.requirements)),
        "--sampler-seed": draft.sampler_seed,
    }
