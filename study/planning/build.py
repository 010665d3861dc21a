"""From a draft to a checked plan: the corpus is read and everything is validated against it."""

from __future__ import annotations

from search_spaces import Space, SpaceMaker, space_maker
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, cells
from study.data.corpora import CorpusError, load_corpus
from study.data.corpus_checks import corpus_errors
from study.planning.plan import GRID_POINTS, Draft, StudyPlan
from study.planning.validation import baseline_errors, context_errors, hyperparameter_errors, method_errors, size_errors
from study.search.objectives import objective_errors


def complete(draft: Draft, make_space: SpaceMaker | None = None) -> StudyPlan:
    """The plan of a draft: its corpus read, everything checked against it.

    Args:
        make_space: what is run; None for the space that the draft names.

    Raises:
        SettingsError: every fault that was found, one a line; nothing has been written to the study folder.
    """
    errors, settings = list(draft.errors), draft.settings
    corpus = None
    if not any(message.startswith(("corpus.", "corpus:")) for message in errors):
        try:
            corpus = load_corpus(settings.corpus, draft.cache)
        except CorpusError as error:
            errors.append(f"--corpus {settings.corpus.spec}: {error}")
    languages: tuple[str, ...] = LANGUAGES
    if corpus is not None:
        languages = tuple(language for language in LANGUAGES if language in set(corpus.utterances["language"]))
        errors += corpus_errors(corpus, settings)
    errors += context_errors(settings, draft.parallelism, languages, draft.cores)
    space = Space(draft.space, (), ())
    try:
        space = (make_space or space_maker(draft.space, draft.fixed, draft.held))(languages, settings)
    except SettingsError as error:
        errors += [message for message in error.errors if message not in errors]
    if draft.sampler == "grid" and space.hyperparameters:
        space = space.on_grid(GRID_POINTS)
    errors += size_errors(space, draft, cells(languages, settings.modalities))
    errors += method_errors(draft.fixed, space)
    errors += hyperparameter_errors(space, settings, draft.parallelism, languages)
    errors += baseline_errors(space, settings, draft.parallelism, languages)
    errors += objective_errors(draft.search_objectives, cells(languages, settings.modalities))
    if not settings.optimisation.epochs and len(space.hyperparameters) + len(space.baselines) > 1:
        errors.append("--epochs 0: untrained, all trials are the same; study/train.py scores the backbone as it is")
    if errors or corpus is None:
        raise SettingsError(errors)
    return StudyPlan(draft, corpus, languages, space)
