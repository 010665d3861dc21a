"""From a draft to a checked plan: the corpus is read and everything is validated against it."""

from __future__ import annotations

from search_spaces import Space, SpaceMaker, space_maker
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, cells
from study.data.corpora import CorpusError, load_corpus
from study.data.corpus_checks import corpus_faults
from study.planning.plan import GRID_POINTS, Draft, StudyPlan
from study.planning.validation import context_faults, knob_faults, method_faults, reference_faults, size_faults
from study.search.objectives import goal_faults


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
    faults += size_faults(space, draft, cells(languages, settings.modalities))
    faults += method_faults(draft.fixed, space)
    faults += knob_faults(space, settings, draft.placement, languages)
    faults += reference_faults(space, settings, draft.placement, languages)
    faults += goal_faults(draft.goals, cells(languages, settings.modalities))
    if not settings.optimisation.epochs and len(space.knobs) + len(space.references) > 1:
        faults.append("--epochs 0: untrained, all trials are the same; study/train.py scores the backbone as it is")
    if faults or corpus is None:
        raise SettingsError(faults)
    return StudyPlan(draft, corpus, languages, space)
