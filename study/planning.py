"""From flags to a plan, with every fault named at once."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from search_spaces import Space, SpaceMaker, space_maker, split_fixed
from study.checks import corpus_faults, knob_faults, reference_faults
from study.corpora import Corpus, CorpusError, load_corpus
from study.goals import SECONDS, Goals, goal_faults, read_goals
from study.groups import LANGUAGES, Cell, cells
from study.halving import Halving, read_rule
from study.machine import gpus
from study.records import StudyFolder, read_trials
from study.settings import Placement, Settings, SettingsError, config_id, context_faults, on_backbone, parse
from study.trackers import tracker_faults

SINGLE = "single"
"""What stands for the space of a study that is one configuration."""
NAMED = (SINGLE, "ablation", "confirm")
"""What stands for the space of a study of named configurations, which its script makes."""
SAMPLERS = ("tpe", "nsga2", "nsga3", "random", "grid")
GRID_POINTS = 3
GRID_LIMIT = 100_000


@dataclass(frozen=True)
class Draft:
    """What the flags say, before the corpus is read.

    Attributes:
        settings: the base configuration; a trial overrides some of it.
        space: name of what is searched.
        cache: where corpus, features and tiny backbone are kept, shared by studies.
        fixed: settings given by ``--fix``, which the space then does not search.
        held: those of ``--fix`` that only some configurations have, such as the ramp of a schedule that is searched.
        goals: what the search looks for.
        sampler: which of ``SAMPLERS`` proposes configurations.  sampler_seed: of it.
        retries: how often a trial that fails is tried again within one call.
        budget: worker-hours that the study may take, None for any.
        faults: what is wrong so far; ``complete`` adds to them and raises.
        trackers: where trials are sent besides the study's own records.
        early_stopping: the rule that stops trials early, None if every trial is trained to its end.
        profile: whether each trial leaves a profile of its first seed's steps.
    """

    folder: StudyFolder
    name: str
    settings: Settings
    placement: Placement
    space: str
    trials: int
    seeds: tuple[int, ...]
    cache: Path
    cores: int | None
    fixed: tuple[str, ...]
    faults: tuple[str, ...]
    held: dict[str, Any] = field(default_factory=dict)
    goals: Goals = Goals()
    sampler: str = "tpe"
    sampler_seed: int = 0
    retries: int = 1
    budget: float | None = None
    early_stopping: Halving | None = None
    trackers: tuple[str, ...] = ()
    profile: bool = False

    def for_labels(self, labels: tuple[str, ...]) -> Draft:
        """The draft of a study of named trials, which is to have these beside those that it has."""
        there = [t["label"] for t in read_trials(self.folder).values() if t["state"] == "finished"]
        return replace(self, trials=len(there) + len(set(labels) - set(there)))


@dataclass(frozen=True)
class StudyPlan:
    """A draft without faults, with its corpus and the space for that corpus."""

    draft: Draft
    corpus: Corpus
    languages: tuple[str, ...]
    space: Space

    def counts(self) -> dict[str, int]:
        """Utterances of each split."""
        return {split: int((self.corpus.utterances["split"] == split).sum()) for split in ("train", "dev", "test")}


def read_flags(flags: argparse.Namespace, cores: int | None, base: Settings | None = None) -> Draft:
    """What the flags say, every fault of theirs collected; nothing is read or written.

    Args:
        cores: cores, or GPUs where there are any, that workers can have; None if not known yet.
        base: settings of a file, which hold where a flag is None.
    """
    base = base or Settings()
    if flags.backbone is not None:
        base = on_backbone(base, resolved_backbone(flags.backbone))
    overrides, faults = _overrides(flags, base)
    held: dict[str, Any] = {}
    if flags.space not in NAMED:
        try:
            overrides, held = split_fixed(flags.space, base, overrides)
        except SettingsError as error:
            faults += error.faults
    settings, more = _tolerant(base, overrides)
    faults += more
    default = min(2, cores) if cores and not gpus() else 1  # of GPUs, trials at once make more (study.scaling)
    ranks = default if flags.ranks is None else flags.ranks
    try:
        placement = parse(Placement, {"ranks": ranks, "zero_stage": flags.zero_stage})
    except SettingsError as error:
        faults += [f"--{fault.replace('zero_stage', 'zero-stage')}" for fault in error.faults]
        placement = Placement(ranks=max(1, ranks))
    seeds = _integers(flags.seeds, "--seeds", faults)
    if flags.trials < 1:
        faults.append(f"--trials: {flags.trials} asked for; at least 1")
    name = flags.study or _study_name(flags.corpus or base.corpus.spec, flags.space)
    if not re.fullmatch(r"\w[\w.-]*", name):
        faults.append(f"--study: {name!r} may hold only letters, digits, dots, dashes and underscores")
    cache = flags.cache
    if cache and "://" in cache:
        faults.append(f"--cache {cache}: is read as memory-mapped files; give a folder that every machine sees")
        cache = None  # the corpus is read all the same, for its own faults
    storage = flags.storage or default_storage()
    default_cache = Path.home() / ".cache" / "fair-ser" if "://" in storage else Path(storage) / "cache"
    return Draft(
        folder=StudyFolder.at(storage, name),
        name=name,
        settings=settings,
        placement=placement,
        space=flags.space,
        trials=flags.trials,
        seeds=seeds,
        cache=Path(cache or default_cache).expanduser().resolve(),
        cores=cores,
        fixed=tuple(key for key, _, _ in (item.partition("=") for item in flags.fix) if key not in held),
        faults=tuple(faults),
        held=held,
        profile=flags.profile,
    )


def read_search(draft: Draft, flags: argparse.Namespace) -> Draft:
    """The draft with what the flags of a search say beside those of any study."""
    goals, faults = read_goals(flags.objectives, flags.require)
    if flags.sampler not in SAMPLERS:
        faults.append(f"--sampler: there is no {flags.sampler!r}; choose from {', '.join(SAMPLERS)}")
    if not 0 <= flags.sampler_seed < 2**32:
        faults.append(f"--sampler-seed: {flags.sampler_seed} must be from 0 to {2**32 - 1}")
    if flags.retries < 0:
        faults.append(f"--retries: {flags.retries} must be 0 or more")
    if flags.budget is not None and not 0 < flags.budget < math.inf:
        faults.append(f"--budget: {flags.budget:g} is no number of worker-hours; give one above 0")
    early_stopping = _early_stopping(flags.early_stopping, draft.settings, faults)
    if early_stopping and SECONDS in dict(goals.objectives):
        faults.append(
            f"--early-stopping: {SECONDS} are those of a whole run, so trials cannot be ranked by them after an epoch; "
            "search for figures of dev, or leave --early-stopping out"
        )
    trackers = tuple(flags.track.split(",")) if flags.track else ()
    faults += tracker_faults(trackers)
    read = {
        "goals": goals,
        "sampler": flags.sampler,
        "sampler_seed": flags.sampler_seed,
        "retries": flags.retries,
        "budget": flags.budget,
        "early_stopping": early_stopping,
        "trackers": trackers,
    }
    return replace(draft, **read, faults=(*draft.faults, *faults))


def complete(draft: Draft, make_space: SpaceMaker | None = None) -> StudyPlan:
    """The plan of a draft: its corpus read, everything checked against it.

    Args:
        make_space: what is run; None for the space that the draft names.

    Raises:
        SettingsError: every fault that was found, one a line; nothing has been written to the study folder.
    """
    faults, settings = list(draft.faults), draft.settings
    corpus = None
    if not any(fault.startswith(("corpus.", "corpus:")) for fault in faults):
        try:
            corpus = load_corpus(settings.corpus, draft.cache)
        except CorpusError as error:
            faults.append(f"--corpus {settings.corpus.spec}: {error}")
    languages: tuple[str, ...] = LANGUAGES
    if corpus is not None:
        languages = tuple(language for language in LANGUAGES if language in set(corpus.utterances["language"]))
        faults += corpus_faults(corpus, settings)
    faults += context_faults(settings, draft.placement, languages, draft.cores)
    space = Space(draft.space, (), ())
    try:
        space = (make_space or space_maker(draft.space, draft.fixed, draft.held))(languages, settings)
    except SettingsError as error:
        faults += [fault for fault in error.faults if fault not in faults]
    if draft.sampler == "grid" and space.knobs:
        space = space.on_grid(GRID_POINTS)
    faults += _size_faults(space, draft, cells(languages, settings.modalities))
    faults += _method_faults(draft.fixed, space)
    faults += knob_faults(space, settings, draft.placement, languages)
    faults += reference_faults(space, settings, draft.placement, languages)
    faults += goal_faults(draft.goals, cells(languages, settings.modalities))
    if not settings.optimisation.epochs and len(space.knobs) + len(space.references) > 1:
        faults.append("--epochs 0: untrained, all trials are the same; study/train.py scores the backbone as it is")
    if faults or corpus is None:
        raise SettingsError(faults)
    return StudyPlan(draft, corpus, languages, space)


def _method_faults(fixed: tuple[str, ...], space: Space) -> list[str]:
    """A space that compares methods sets the method itself."""
    key = "objective.method"
    if key in fixed and any(key in reference.fixed for reference in space.references):
        return [f"--fix {key}: the space {space.name} sets it (ERM is among its first trials)"]
    return []


def _size_faults(space: Space, draft: Draft, in_use: Sequence[Cell]) -> list[str]:
    """A grid, or a space of choices alone, has an end: no configuration is run twice."""
    if not (space.knobs and space.finite):
        return []
    grid = draft.sampler == "grid"
    if grid and sum(1 for _ in islice(space.points(), GRID_LIMIT + 1)) > GRID_LIMIT:  # it is queued whole
        return [f"--sampler grid: the space {space.name} has over {GRID_LIMIT:,} points; --fix some of its knobs"]
    named = ({**reference.knobs, **reference.fixed} for reference in space.references)
    different = {_identity(draft.settings, knobs, in_use) for knobs in named}
    size = 0
    for point in space.points():
        size += 1
        different.add(_identity(draft.settings, point, in_use))
        if len(different) >= draft.trials:
            return []
    what = "grid" if grid else f"space {space.name}"
    return [f"--trials: {draft.trials} asked for, the {what} has {size} points: at most {len(different)}"]


def _identity(settings: Settings, knobs: Mapping[str, Any], in_use: Sequence[Cell]) -> str:
    try:
        return config_id(settings.with_overrides(knobs), in_use, "", "")
    except ValueError:  # a knob out of range, which is named elsewhere
        return str(knobs)


def default_storage() -> str:
    """``results/`` of this checkout; in a Ray job the checkout is a copy that is thrown away, so the home folder."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return str(Path.home() / "fair-ser-results")
    return str(Path(__file__).resolve().parent.parent / "results")


def _study_name(corpus: str, space: str) -> str:
    kind, _, place = corpus.partition(":")
    stem = Path(place).absolute().parent.name if kind == "manifest" else Path(place).name
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in (kind, stem, space) if part))


def _overrides(flags: argparse.Namespace, base: Settings) -> tuple[dict[str, Any], list[str]]:
    """Dotted overrides of the base from the flags, and what cannot be read of them."""
    faults = []
    given = {
        "corpus.spec": flags.corpus and resolved(flags.corpus),
        "corpus.split": flags.split,
        "modalities": flags.modalities and flags.modalities.split(","),
    }
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if flags.plants is not None and (flags.corpus or base.corpus.spec) != "embedded":
        faults.append("--plants: only the embedded corpus has planted gaps")
    elif flags.plants is not None:
        overrides["corpus.plants"] = [] if flags.plants == "none" else flags.plants.split(",")
    if flags.epochs is not None:
        overrides["optimisation.epochs"] = flags.epochs
    for item in flags.fix:
        key, equals, value = item.partition("=")
        if not (key and equals):
            faults.append(f"--fix {item}: write it as KEY=VALUE")
        else:
            overrides[key] = _value(value)
    return overrides, faults


def resolved(spec: str, where: Path = Path()) -> str:
    """The corpus with the full path of its folder or file, if that is relative to ``where``."""
    kind, colon, place = spec.partition(":")
    return f"{kind}:{(where / Path(place).expanduser()).resolve()}" if colon and place else spec


def resolved_backbone(spec: str) -> str:
    """A folder's full path, since an adapter keeps it; a hub id as it is."""
    place = Path(spec).expanduser()
    return str(place.resolve()) if spec != "tiny" and place.is_dir() else spec


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tolerant(base: Settings, overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from those overrides that hold, and the faults of the others, so that later checks still run."""
    faults: list[str] = []
    kept = dict(overrides)
    while True:
        try:
            return base.with_overrides(kept), faults
        except SettingsError as error:
            faults += error.faults
            faulty = {fault.split(": ")[0] for fault in error.faults}
            remaining = {key: value for key, value in kept.items() if not _concerns(key, faulty)}
            if len(remaining) == len(kept):
                return base, faults
            kept = remaining


def _early_stopping(rule: str, settings: Settings, faults: list[str]) -> Halving | None:
    try:
        halving = read_rule(rule)
    except SettingsError as error:
        faults += [f"--early-stopping: {fault}" for fault in error.faults]
        return None
    epochs = settings.optimisation.epochs
    if halving and not halving.rungs(epochs):
        faults.append(
            f"--early-stopping: nothing to stop, grace {halving.grace} is not before the last of {epochs} epochs"
        )
    return halving


def _concerns(key: str, faulty: set[str]) -> bool:
    if key.startswith("objective.fairness_weight."):
        return any(fault.startswith("objective.fairness_weight") for fault in faulty)
    return any(fault == key or fault.startswith(f"{key}.") or key.startswith(f"{fault}.") for fault in faulty)


def _integers(text: str, flag: str, faults: list[str]) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        faults.append(f"{flag}: {text!r} is not a list of whole numbers such as 0,1,2")
        return (0,)
    if len(set(values)) < len(values) or min(values) < 0 or max(values) >= 2**32:
        faults.append(f"{flag}: {text!r} must be different numbers from 0 to {2**32 - 1}")
    return values
