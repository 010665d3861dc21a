"""What ``study.json`` holds, and how a study on disk differs from a plan of the same name."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from search_spaces import Hyperparameter
from study.common.errors import SettingsError
from study.config.settings import Settings, flatten, parse
from study.planning.plan import Draft, StudyPlan
from study.storage.records import (
    SCHEMA_VERSION,
    begun_runs,
    finished_runs,
    objectives_of,
    read_study,
    read_trials,
    trials_done,
)
from study.storage.study_folder import StudyFolder

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
        "objectives": [list(objective) for objective in draft.search_objectives.objectives],
        "constraints": [str(constraint) for constraint in draft.search_objectives.constraints],
        "sampler": draft.sampler,
        "sampler_seed": draft.sampler_seed,
        "trials": draft.trials,
        "early_stopping": draft.early_stopping and draft.early_stopping.model_dump(),
        "seeds": list(draft.seeds),
        "settings": settings.model_dump(mode="json"),
        "held": draft.held,
        "parallelism": draft.parallelism.model_dump(),
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
        "--constraint": " ".join(record.get("constraints", [])),
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
    then, now = (
        {
            hyperparameter["name"]: parse(Hyperparameter, hyperparameter)
            for hyperparameter in record.get("hyperparameters", [])
        }
        for record in (there, here)
    )
    gone = [name for name in then if name not in now]
    if gone or (there["space"] != here["space"] and not (then and now)):
        what = f" (without {', '.join(gone)})" if gone else ""
        return [f"--space: {there['space']!r} there, {here['space']!r} now{what}"]
    return [
        f"{name}: {hyperparameter.range()} there, {now[name].range()} now, which does not hold it"
        for name, hyperparameter in then.items()
        if not now[name].contains(hyperparameter)
    ]


def space_record(plan: StudyPlan) -> dict[str, Any]:
    """What ``study.json`` holds of the space."""
    return {
        "space": plan.draft.space,
        "hyperparameters": [hyperparameter.model_dump(mode="json") for hyperparameter in plan.space.hyperparameters],
        "baselines": [{"label": each.label, "note": each.note} for each in plan.space.baselines],
    }


def _search_in_words(draft: Draft) -> dict[str, Any]:
    return {
        "--objectives": ",".join(":".join(objective) for objective in draft.search_objectives.objectives),
        "--constraint": " ".join(map(str, draft.search_objectives.constraints)),
        "--sampler-seed": draft.sampler_seed,
    }


def is_complete(draft: Draft) -> bool:
    """Whether the study of this name has all its trials and was made with these settings."""
    if not draft.folder.exists("study.json"):
        return False
    record = read_study(draft.folder)
    if conflicts(record, draft) or record["space"] != draft.space or set(record["seeds"]) != set(draft.seeds):
        return False
    trials = read_trials(draft.folder).values()
    finished = [trial for trial in trials if trial["state"] == "finished"]
    runs = set(finished_runs(draft.folder))
    whole = all((trial["config_id"], seed) in runs for trial in finished for seed in draft.seeds)
    return whole and trials_done(trials) >= draft.trials


def keep_plan(draft: Draft, record: dict) -> None:
    """Write ``study.json``, or check it against this call's corpus and backbone; trials, seeds and knobs may grow."""
    there = begun_study(draft.folder)
    if there is None:
        draft.folder.write_json("study.json", record)
        return
    errors = [
        f"{part}: content {there[part]['hash']} there, {record[part]['hash']} now"
        for part in ("corpus", "backbone")
        if there[part]["hash"] != record[part]["hash"]
    ]
    refuse_conflicts(draft, errors + space_conflicts(there, record))
    grown = {key: record[key] for key in ("space", "hyperparameters", "seeds")}
    others = {each["label"]: each for each in there.get("baselines", [])}
    grown["baselines"] = list({**others, **{each["label"]: each for each in record["baselines"]}}.values())
    grown |= {"trials": max(there["trials"], draft.trials)}
    grown |= {key: record[key] for key in ("sampler", "early_stopping")}  # of the latest call
    draft.folder.write_json("study.json", {**there, **grown})


def refuse_conflicts(draft: Draft, errors: list[str]) -> None:
    """Do not mix two corpora, backbones, spaces or settings in one folder."""
    if errors:
        raise SettingsError(
            [f"{draft.folder.uri} holds a study made with other settings; choose another --study NAME:", *errors]
        )
