"""What is wrong between the parts of a plan: settings against the corpus, named configurations against each other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from search_spaces import Knob, Space
from search_spaces.knobs import Choice, exists
from study.corpora import Corpus
from study.groups import GENDERS, Modality, cells
from study.settings import ControlSplit, Placement, Settings, SettingsError, config_id, context_faults
from study.splits import rows_of_splits


def corpus_faults(corpus: Corpus, settings: Settings) -> list[str]:
    """What the corpus lacks for these settings; empty when nothing."""
    faults = split_faults(corpus, settings.control) + transcript_faults(corpus, settings.modalities)
    examples = len(rows_of_splits(corpus.utterances, settings.control)["train"]) * len(settings.modalities)
    size = settings.optimisation.batch_size
    if settings.optimisation.epochs and size > examples:
        faults.append(f"optimisation.batch_size: {size} is more than the {examples} training examples; make it smaller")
    return faults


def split_faults(corpus: Corpus, control: ControlSplit) -> list[str]:
    """Every split needs both genders in some language, or there is no gap to train on or to measure; and the control
    split must leave, and have, both wherever its source has them."""
    table = corpus.utterances
    before, after = (
        {split: _with_both_genders(table.iloc[rows]) for split, rows in rows_of_splits(table, c).items()}
        for c in (ControlSplit(), control)
    )
    faults = [
        f"--corpus {corpus.name}: no language has both genders in {split}, so there is no gap to take"
        for split in ("train", "dev", "test")
        if not before[split]
    ]
    if control.fraction and not faults:
        for language in before[control.source]:
            lacking = [split for split in ("control", control.source) if language not in after[split]]
            if lacking:
                faults.append(
                    f"control.fraction: at {control.fraction} of {control.source}, {' and '.join(lacking)} would not "
                    f"have both genders in {language}; choose another fraction, or 0"
                )
    return faults


def _with_both_genders(part: pd.DataFrame) -> list[str]:
    """The languages in which both genders speak."""
    genders = part[part["gender"].isin(GENDERS)].groupby("language")["gender"].nunique()
    return [str(language) for language in genders.index[genders == 2]]


def transcript_faults(corpus: Corpus, modalities: tuple[str, ...]) -> list[str]:
    """A language without any transcript can be heard, but not read."""
    if Modality.SPEECH_TEXT not in modalities:
        return []
    silent = (corpus.utterances["transcript"] == "").groupby(corpus.utterances["language"]).all()
    return [
        f"--modalities speech+text: the corpus has no transcripts of language {language}; add a transcript column, or "
        "use --modalities speech"
        for language in silent.index[silent]
    ]


def knob_faults(space: Space, settings: Settings, placement: Placement, languages: tuple[str, ...]) -> list[str]:
    """Values of a space that are no settings: of each knob every choice, or both ends and, where these are settings,
    the first between them that is none. A fault is named once, at the value that shows it first."""
    known = set(context_faults(settings, placement, languages, None))
    faults: dict[str, str] = {}

    def look(knob: Knob, value: Choice) -> bool:
        try:
            chosen = settings.with_overrides(_beside(knob, value, space))
            found = [fault for fault in context_faults(chosen, placement, languages, None) if fault not in known]
        except SettingsError as error:
            found = list(error.faults)
        for fault in found:
            faults.setdefault(fault, f"--space: {knob.name} at {value}: {fault}")
        return bool(found)

    for knob in sorted(space.knobs, key=lambda knob: not knob.when):  # at what depends on others before these
        if not any([look(knob, value) for value in knob.ends()]):
            any(look(knob, value) for value in knob.between())
    return [*faults.values()]


def _beside(knob: Knob, value: Choice, space: Space) -> dict[str, Any]:
    """The value of a knob, what it depends on, and what depends on it at its default."""
    values = {parent: allowed[0] for parent, allowed in _conditions(knob, space).items()} | {knob.name: value}
    for other in space.knobs:
        if other.when and other.name not in values and exists(other, values):
            values[other.name] = other.default
    return values


def _conditions(knob: Knob, space: Space) -> dict[str, tuple[Any, ...]]:
    """What must hold for a knob to exist, its parents' own conditions included."""
    parents = {other.name: other for other in space.knobs}
    conditions: dict[str, tuple[Any, ...]] = {}
    for parent, allowed in knob.when.items():
        conditions |= _conditions(parents[parent], space) | {parent: allowed}
    return conditions


def reference_faults(space: Space, settings: Settings, placement: Placement, languages: tuple[str, ...]) -> list[str]:
    """Named configurations of a space that could not run with what is fixed, or that would be the same one."""
    known = set(context_faults(settings, placement, languages, None))
    in_use = cells(languages, settings.modalities)
    names: dict[str, str] = {}
    faults = []
    for reference in space.references:
        try:
            chosen = settings.with_overrides({**reference.knobs, **reference.fixed})
        except SettingsError as error:
            faults += [f"{reference.label}: {fault}" for fault in error.faults]
            continue
        found = [fault for fault in context_faults(chosen, placement, languages, None) if fault not in known]
        faults += [f"{reference.label}: {fault}" for fault in found]
        if not found and not known:
            twin = names.setdefault(config_id(chosen, in_use, "", ""), reference.label)
            if twin != reference.label:
                faults.append(f"--fix: with it, {reference.label!r} is the same configuration as {twin!r}")
    return faults
