"""The flags of the scripts that train: of any study, and those of a search beside them."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces import SPACES, split_fixed
from study.common.environment import gpus
from study.common.errors import SettingsError
from study.config.presets import on_backbone
from study.config.settings import Parallelism, Settings, parse
from study.planning.paths import default_storage, resolved, resolved_backbone
from study.planning.request import GRID_POINTS, NAMED_SPACES, SAMPLERS, StudyRequest
from study.ray_backend.loggers import TRACKERS, tracker_errors
from study.search.mo_asha import NAME, HalvingRule, read_rule
from study.search.objectives import SECONDS, parse_search_objectives
from study.storage.study_folder import StudyFolder


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is studied and where; other scripts build on their names."""
    what = parser.add_argument_group("what is studied")
    what.add_argument(
        "--corpus",
        default="synthetic",
        metavar="SPEC",
        help="synthetic | meld-st:DIR | manifest:FILE (default: synthetic)",
    )
    what.add_argument(
        "--split",
        default="parallel",
        metavar="NAME",
        help="parallel | official | speaker: the corpus's own split with parallel utterances on one side, the authors' "
        "as it is, or speakers held out (default: parallel)",
    )
    what.add_argument(
        "--planted-gaps",
        default=None,
        metavar="A,B",
        help="planted gaps of the synthetic corpus: scarcity,prior,cue or none (default: all three)",
    )
    what.add_argument(
        "--backbone",
        default="tiny",
        metavar="SPEC",
        help="tiny | HUB_ID | DIR of a Qwen2-Audio checkpoint (default: tiny)",
    )
    what.add_argument(
        "--modalities",
        default="speech+text",
        metavar="A,B",
        help="speech | speech+text | speech,speech+text (default: speech+text)",
    )
    what.add_argument("--seeds", default="0", metavar="0,1,2", help="of every configuration (default: %(default)s)")
    what.add_argument(
        "--epochs", default=None, type=int, metavar="N", help="at most so many epochs (default: 20; tiny: 3)"
    )
    what.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set any other setting by its dotted name, e.g. optimisation.learning_rate=1e-4; repeatable",
    )
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--study", default=None, metavar="NAME", help="name of the study (default: from corpus and space)"
    )
    where.add_argument(
        "--storage",
        default=None,
        metavar="DIR_OR_URL",
        help="where studies are kept (default: results/; inside a Ray job: ~/fair-ser-results)",
    )
    where.add_argument(
        "--cache",
        default=None,
        metavar="DIR",
        help="where what studies share is kept: the synthetic corpus, features, a frozen tower's states; a folder that "
        "every machine of a cluster sees (default: cache in --storage; ~/.cache/fair-ser if that is a URL)",
    )
    where.add_argument(
        "--num-workers",
        default=None,
        type=int,
        metavar="N",
        help="worker processes a trial (default: 1 on GPUs or a running cluster, else 2, or 1 on a single core)",
    )
    where.add_argument(
        "--zero-stage", default=2, type=int, metavar="0|1|2|3", help="what DeepSpeed shards over them (default: 2)"
    )
    where.add_argument(
        "--profile",
        action="store_true",
        help="each trial leaves torch's trace of a few training steps of its first seed, and a page on where their "
        "time goes, beside its records",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a search, beside those of any study."""
    search = parser.add_argument_group("the search")
    search.add_argument(
        "--space",
        default="fairness",
        metavar="A+B",
        help=f"search space: {' | '.join(SPACES)} | FILE.toml, or several joined with + (default: fairness; "
        "python -m search_spaces show NAME)",
    )
    search.add_argument("--trials", default=8, type=int, metavar="N", help="configurations in the study (default: 8)")
    search.add_argument(
        "--objectives",
        default="dev_w_f1:max,dev_gap:min",
        metavar="A:max,B:min",
        help="two or three recorded metrics, also of a language, modality or cell, e.g. dev_gap_tpr@de:min; a wrong "
        "name lists them all (default: dev_w_f1:max,dev_gap:min)",
    )
    search.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="'gap<=0.03'",
        help="a bound that the sampler should keep to, on any such metric; repeatable",
    )
    search.add_argument(
        "--sampler",
        default="tpe",
        metavar="NAME",
        help=f"{' | '.join(SAMPLERS)}: what proposes configurations; a grid has up to {GRID_POINTS} values a knob "
        "(default: tpe)",
    )
    search.add_argument(
        "--sampler-seed",
        default=0,
        type=int,
        metavar="N",
        help="of what the sampler draws; each call of a study draws anew from it (default: 0)",
    )
    search.add_argument(
        "--retries",
        default=1,
        type=int,
        metavar="N",
        help="how often a trial that fails is tried again at once, from its last epoch (default: 1); the next call "
        "tries it once more",
    )
    search.add_argument(
        "--budget",
        default=None,
        type=float,
        metavar="HOURS",
        help="worker-hours (a worker has a GPU, or a core where there is none): refuse a study that takes more by what "
        "earlier ones took, and say how many trials fit",
    )
    search.add_argument(
        "--early-stopping",
        default="none",
        metavar="RULE",
        help=f"none | {NAME}[:reduction_factor=3,grace_period=1]: after epochs grace_period, grace_period * "
        "reduction_factor, ... the best 1 in reduction_factor goes on (default: none)",
    )
    search.add_argument(
        "--report-to",
        default=None,
        metavar="A,B",
        help=f"{' | '.join(TRACKERS)}: send trials there too (TensorBoard's files are in STUDY/ray/tune anyway)",
    )


def read_flags(flags: argparse.Namespace, cores: int | None, base: Settings | None = None) -> StudyRequest:
    """What the flags say, every fault of theirs collected; nothing is read or written.

    Args:
        cores: cores, or GPUs where there are any, that workers can have; None if not known yet.
        base: settings of a file, which hold where a flag is None.
    """
    base = base or Settings()
    if flags.backbone is not None:
        base = on_backbone(base, resolved_backbone(flags.backbone))
    overrides, errors = _overrides(flags, base)
    held: dict[str, Any] = {}
    if flags.space not in NAMED_SPACES:
        try:
            overrides, held = split_fixed(flags.space, base, overrides)
        except SettingsError as error:
            errors += error.errors
    settings, more = _tolerant(base, overrides)
    errors += more
    default = min(2, cores) if cores and not gpus() else 1  # of GPUs, trials at once make more (cluster.scaling_model)
    num_workers = default if flags.num_workers is None else flags.num_workers
    try:
        parallelism = parse(Parallelism, {"num_workers": num_workers, "zero_stage": flags.zero_stage})
    except SettingsError as error:
        errors += [f"--{message.replace('zero_stage', 'zero-stage')}" for message in error.errors]
        parallelism = Parallelism(num_workers=max(1, num_workers))
    seeds = _integers(flags.seeds, "--seeds", errors)
    if flags.trials < 1:
        errors.append(f"--trials: {flags.trials} asked for; at least 1")
    name = flags.study or _study_name(flags.corpus or base.corpus.spec, flags.space)
    if not re.fullmatch(r"\w[\w.-]*", name):
        errors.append(f"--study: {name!r} may hold only letters, digits, dots, dashes and underscores")
    cache = flags.cache
    if cache and "://" in cache:
        errors.append(f"--cache {cache}: is read as memory-mapped files; give a folder that every machine sees")
        cache = None  # the corpus is read all the same, for its own faults
    storage = flags.storage or default_storage()
    default_cache = Path.home() / ".cache" / "fair-ser" if "://" in storage else Path(storage) / "cache"
    return StudyRequest(
        folder=StudyFolder.at(storage, name),
        name=name,
        settings=settings,
        parallelism=parallelism,
        space=flags.space,
        trials=flags.trials,
        seeds=seeds,
        cache=Path(cache or default_cache).expanduser().resolve(),
        cores=cores,
        fixed=tuple(key for key, _, _ in (item.partition("=") for item in flags.overrides) if key not in held),
        errors=tuple(errors),
        pinned=held,
        profile=flags.profile,
    )


def read_search(request: StudyRequest, flags: argparse.Namespace) -> StudyRequest:
    """The request with what the flags of a search say beside those of any study."""
    search_objectives, errors = parse_search_objectives(flags.objectives, flags.constraint)
    if flags.sampler not in SAMPLERS:
        errors.append(f"--sampler: there is no {flags.sampler!r}; choose from {', '.join(SAMPLERS)}")
    if not 0 <= flags.sampler_seed < 2**32:
        errors.append(f"--sampler-seed: {flags.sampler_seed} must be from 0 to {2**32 - 1}")
    if flags.retries < 0:
        errors.append(f"--retries: {flags.retries} must be 0 or more")
    if flags.budget is not None and not 0 < flags.budget < math.inf:
        errors.append(f"--budget: {flags.budget:g} is no number of worker-hours; give one above 0")
    early_stopping = _early_stopping(flags.early_stopping, request.settings, errors)
    if early_stopping and SECONDS in dict(search_objectives.objectives):
        errors.append(
            f"--early-stopping: {SECONDS} are those of a whole run, so trials cannot be ranked by them after an epoch; "
            "search for figures of dev, or leave --early-stopping out"
        )
    trackers = tuple(flags.report_to.split(",")) if flags.report_to else ()
    errors += tracker_errors(trackers)
    read = {
        "search_objectives": search_objectives,
        "sampler": flags.sampler,
        "sampler_seed": flags.sampler_seed,
        "retries": flags.retries,
        "budget": flags.budget,
        "early_stopping": early_stopping,
        "trackers": trackers,
    }
    return replace(request, **read, errors=(*request.errors, *errors))


def _study_name(corpus: str, space: str) -> str:
    kind, _, place = corpus.partition(":")
    stem = Path(place).absolute().parent.name if kind == "manifest" else Path(place).name
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in (kind, stem, space) if part))


def _overrides(flags: argparse.Namespace, base: Settings) -> tuple[dict[str, Any], list[str]]:
    """Dotted overrides of the base from the flags, and what cannot be read of them."""
    errors = []
    given = {
        "corpus.spec": flags.corpus and resolved(flags.corpus),
        "corpus.split": flags.split,
        "modalities": flags.modalities and flags.modalities.split(","),
    }
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if flags.planted_gaps is not None and (flags.corpus or base.corpus.spec) != "synthetic":
        errors.append("--planted-gaps: only the synthetic corpus has planted gaps")
    elif flags.planted_gaps is not None:
        overrides["corpus.planted_gaps"] = [] if flags.planted_gaps == "none" else flags.planted_gaps.split(",")
    if flags.epochs is not None:
        overrides["optimisation.epochs"] = flags.epochs
    for item in flags.overrides:
        key, equals, value = item.partition("=")
        if not (key and equals):
            errors.append(f"--set {item}: write it as KEY=VALUE")
        else:
            overrides[key] = _value(value)
    return overrides, errors


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tolerant(base: Settings, overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from those overrides that hold, and the faults of the others, so that later checks still run."""
    errors: list[str] = []
    kept = dict(overrides)
    while True:
        try:
            return base.with_overrides(kept), errors
        except SettingsError as error:
            errors += error.errors
            faulty = {message.split(": ")[0] for message in error.errors}
            remaining = {key: value for key, value in kept.items() if not _concerns(key, faulty)}
            if len(remaining) == len(kept):
                return base, errors
            kept = remaining


def _early_stopping(rule: str, settings: Settings, errors: list[str]) -> HalvingRule | None:
    try:
        halving = read_rule(rule)
    except SettingsError as error:
        errors += [f"--early-stopping: {message}" for message in error.errors]
        return None
    epochs = settings.optimisation.epochs
    if halving and not halving.rungs(epochs):
        errors.append(
            f"--early-stopping: nothing to stop, grace {halving.grace_period} is not before the last of {epochs} epochs"
        )
    return halving


def _concerns(key: str, faulty: set[str]) -> bool:
    if key.startswith("loss.fairness_weight."):
        return any(message.startswith("loss.fairness_weight") for message in faulty)
    return any(message == key or message.startswith(f"{key}.") or key.startswith(f"{message}.") for message in faulty)


def _integers(text: str, flag: str, errors: list[str]) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        errors.append(f"{flag}: {text!r} is not a list of whole numbers such as 0,1,2")
        return (0,)
    if len(set(values)) < len(values) or min(values) < 0 or max(values) >= 2**32:
        errors.append(f"{flag}: {text!r} must be different numbers from 0 to {2**32 - 1}")
    return values
