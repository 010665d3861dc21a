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
from study.planning.plan import StudyPlan
from study.planning.request import StudyRequest
from study.storage.records import begun_runs, finished_runs, read_study, read_trials, trials_done
from study.storage.schemas import SCHEMA_VERSION, objectives_of
from study.storage.study_folder import StudyFolder

VERSIONED = ("ray", "torch", "transformers", "peft", "deepspeed", "datasets", "optuna", "pandas", "scikit-learn")


def study_record(plan: StudyPlan, backbone_hash: str) -> dict[str, Any]:
    """What ``study.json`` holds."""
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


def begun_study(folder: StudyFolder) -> dict[str, Any] | None:
    """The ``study.json`` of a study that holds something. None for one in which nothing got as far as an epoch: what
    kept it from that, a broken backbone say, may be mended, and then settings and hashes are other ones."""
    if not folder.exists("study.json"):
        return None
    ended = any(trial["state"] != "failed" for trial in read_trials(folder).values())
    return read_study(folder) if ended or begun_runs(folder) else None


def conflicts(record: dict[str, Any], request: StudyRequest) -> list[str]:
    """List how a study on disk differs from a request of the same name. Trials, seeds and ``computation`` settings may
    differ."""
    now = {**_search_in_words(request), **flatten(request.settings.model_dump(mode="json")), **request.pinned}
    try:  # a setting that is younger than the study has its default there
        settings = Settings.model_validate(record["settings"]).model_dump(mode="json")
    except ValidationError:
        settings = record["settings"]
    then = {
        "--objectives": ",".join(":".join(objective) for objective in objectives_of(record)),
        "--constraint": " ".join(record.get("constraints", [])),
        "--sampler-seed": record.get("sampler_seed", 0),
        **flatten(settings),
        **record.get("pinned", {}),
    }
    if not set(record["seeds"]) <= set(request.seeds):
        then["--seeds"], now["--seeds"] = record["seeds"], list(request.seeds)
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
        "space": plan.request.space,
        "hyperparameters": [hyperparameter.model_dump(mode="json") for hyperparameter in plan.space.hyperparameters],
        "baselines": [{"label": each.label, "note": each.note} for each in plan.space.baselines],
    }


def _search_in_words(request: StudyRequest) -> dict[str, Any]:
    return {
        "--objectives": ",".join(":".join(objective) for objective in request.search_objectives.objectives),
        "--constraint": " ".join(map(str, request.search_objectives.constraints)),
        "--sampler-seed": request.sampler_seed,
    }


def is_complete(request: StudyRequest) -> bool:
    """Whether the study of this name has all its trials and was made with these settings."""
    if not request.folder.exists("study.json"):
        return False
    record = read_study(request.folder)
    if conflicts(record, request) or record["space"] != request.space or set(record["seeds"]) != set(request.seeds):
        return False
    trials = read_trials(request.folder).values()
    finished = [trial for trial in trials if trial["state"] == "finished"]
    runs = set(finished_runs(request.folder))
    whole = all((trial["config_id"], seed) in runs for trial in finished for seed in request.seeds)
    return whole and trials_done(trials) >= request.trials


def keep_plan(request: StudyRequest, record: dict) -> None:
    """Write ``study.json``, or check it against this call's corpus and backbone; trials, seeds and knobs may grow."""
    there = begun_study(request.folder)
    if there is None:
        request.folder.write_json("study.json", record)
        return
    errors = [
        f"{part}: content {there[part]['hash']} there, {record[part]['hash']} now"
        for part in ("corpus", "backbone")
        if there[part]["hash"] != record[part]["hash"]
    ]
    refuse_conflicts(request, errors + space_conflicts(there, record))
    grown = {key: record[key] for key in ("space", "hyperparameters", "seeds")}
    others = {each["label"]: each for each in there.get("baselines", [])}
    grown["baselines"] = list({**others, **{each["label"]: each for each in record["baselines"]}}.values())
    grown |= {"trials": max(there["trials"], request.trials)}
    grown |= {key: record[key] for key in ("sampler", "early_stopping")}  # of the latest call
    request.folder.write_json("study.json", {**there, **grown})


def refuse_conflicts(request: StudyRequest, errors: list[str]) -> None:
    """Do not mix two corpora, backbones, spaces or settings in one folder."""
    if errors:
        raise SettingsError(
            [f"{request.folder.uri} holds a study made with other settings; choose another --study NAME:", *errors]
        )
