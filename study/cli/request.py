"""From the options of a command to the request of a study. All errors are collected; nothing is read or written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces import split_overrides
from study.cli.options import DataOptions, SearchOptions, StudyOptions
from study.common.environment import gpus
from study.common.errors import SettingsError
from study.config.presets import on_backbone
from study.config.settings import Parallelism, Settings, parse
from study.planning.paths import absolute_backbone, absolute_corpus, default_storage
from study.planning.request import NAMED_SPACES, StudyRequest
from study.ray_backend.loggers import tracker_errors
from study.search.mo_asha import MoAshaConfig, parse_early_stopping
from study.search.objectives import SECONDS, parse_search_objectives
from study.storage.study_folder import StudyFolder


def available_cores() -> int | None:
    """Return the GPUs of this machine, or its CPU cores without GPUs; None if a running Ray cluster is used instead."""
    return None if os.environ.get("RAY_ADDRESS") else gpus() or os.cpu_count()


def study_request(
    options: StudyOptions,
    errors: Sequence[str],
    *,
    space: str,
    trials: int,
    cores: int | None,
    base: Settings | None = None,
) -> StudyRequest:
    """Return the request of a command that trains.

    Args:
        options: the parsed options.
        errors: errors of the options; they become part of the request.
        space: name of the search space.
        trials: number of trials.
        cores: CPU cores or GPUs available to workers; None if unknown.
        base: settings from a file; options override them.
    """
    all_errors = list(errors)
    backbone = options.backbone or (base.backbone.spec if base else "tiny")
    base = on_backbone(base or Settings(), absolute_backbone(backbone))
    overrides = read_overrides(options, base, all_errors)
    pinned: dict[str, Any] = {}
    if space not in NAMED_SPACES:
        try:
            overrides, pinned = split_overrides(space, base, overrides)
        except SettingsError as error:
            all_errors += error.errors
    settings, setting_errors = valid_settings(base, overrides)
    all_errors += setting_errors
    default_workers = min(2, cores) if cores and not gpus() else 1  # on GPUs, trials side by side are faster
    parallelism = {"num_workers": options.num_workers or default_workers, "zero_stage": options.zero_stage}
    name = options.study or default_name(options.corpus or base.corpus.spec, space)
    if not re.fullmatch(r"\w[\w.-]*", name):
        all_errors.append(f"--study: {name!r} may contain only letters, digits, dots, dashes and underscores")
    cache = options.cache
    if cache and "://" in cache:
        all_errors.append(f"--cache {cache}: must be a folder, since its files are memory-mapped; a URL cannot be")
        cache = None
    storage = options.storage or default_storage()
    default_cache = Path.home() / ".cache" / "fair-ser" if "://" in storage else Path(storage) / "cache"
    return StudyRequest(
        folder=StudyFolder.at(storage, name),
        name=name,
        settings=settings,
        parallelism=parse(Parallelism, parallelism),
        space=space,
        trials=trials,
        seeds=options.seeds,
        cache=Path(cache or default_cache).expanduser().resolve(),
        cores=cores,
        fixed=tuple(key for key in (item.partition("=")[0] for item in options.overrides) if key not in pinned),
        errors=tuple(all_errors),
        pinned=pinned,
        profile=options.profile,
    )


def search_request(options: SearchOptions, errors: Sequence[str], cores: int | None) -> StudyRequest:
    """Return the request of a search; arguments as for :func:`study_request`."""
    request = study_request(options, errors, space=options.space, trials=options.trials, cores=cores)
    search_objectives, search_errors = parse_search_objectives(",".join(options.objectives), options.constraint)
    early_stopping = _early_stopping(options.early_stopping, request.settings, search_errors)
    if early_stopping and SECONDS in dict(search_objectives.objectives):
        search_errors.append(
            f"--early-stopping: {SECONDS} is known only after a whole run, so it cannot rank trials after an epoch; "
            "choose dev metrics as --objectives, or leave --early-stopping out"
        )
    return replace(
        request,
        search_objectives=search_objectives,
        sampler=options.sampler,
        sampler_seed=options.sampler_seed,
        retries=options.retries,
        budget=options.budget,
        early_stopping=early_stopping,
        trackers=options.report_to,
        errors=(*request.errors, *search_errors, *tracker_errors(options.report_to)),
    )


def read_overrides(options: DataOptions, base: Settings, errors: list[str]) -> dict[str, Any]:
    """Return the settings that the options override, by dotted name; errors are appended to ``errors``."""
    given = {
        "corpus.spec": options.corpus and absolute_corpus(options.corpus),
        "corpus.split": options.split,
        "modalities": options.modalities,
        "optimisation.epochs": options.epochs,
    }
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if options.planted_gaps is not None:
        overrides["corpus.planted_gaps"] = [gap for gap in options.planted_gaps if gap != "none"]
        if overrides.get("corpus.spec", base.corpus.spec) != "synthetic":
            errors.append("--planted-gaps: only the synthetic corpus has planted gaps")
    for item in options.overrides:
        key, equals, text = item.partition("=")
        if not (key and equals):
            errors.append(f"--set {item}: write it as KEY=VALUE")
            continue
        try:
            overrides[key] = json.loads(text)
        except ValueError:
            overrides[key] = text
    return overrides


def valid_settings(base: Settings, overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Return the settings with all valid overrides, and an error for each invalid one, so that later checks still run.

    Where one value of a nested group such as ``loss.fairness_weight`` is invalid, the whole group is left out.
    """
    try:
        return base.with_overrides(overrides), []
    except SettingsError as error:
        names = [message.partition(":")[0] for message in error.errors]
        groups = {name.rpartition(".")[0] if name.count(".") > 1 else name for name in names}
        valid = {
            key: value
            for key, value in overrides.items()
            if not any(f"{key}.".startswith(f"{group}.") or group.startswith(f"{key}.") for group in groups)
        }
        if len(valid) == len(overrides):
            valid = {}
        settings, more = valid_settings(base, valid)
        return settings, [*error.errors, *more]


def default_name(corpus: str, space: str) -> str:
    """Return the name of a study for which none is given, such as ``meld-st-MELD-ST-fairness``."""
    kind, _, path = corpus.partition(":")
    stem = Path(path).absolute().parent.name if kind == "manifest" else Path(path).name
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in (kind, stem, space) if part))


def _early_stopping(text: str, settings: Settings, errors: list[str]) -> MoAshaConfig | None:
    try:
        rule = parse_early_stopping(text)
    except SettingsError as error:
        errors += [f"--early-stopping: {message}" for message in error.errors]
        return None
    epochs = settings.optimisation.epochs
    if rule and not rule.rungs(epochs):
        errors.append(
            f"--early-stopping: grace_period {rule.grace_period} must be less than the number of epochs ({epochs})"
        )
    return rule
