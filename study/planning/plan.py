"""The checked plan of a study: the request, the corpus, and the search space for that corpus."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Space, SpaceMaker, space_maker
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, cells
from study.data.corpora import Corpus, CorpusError, load_corpus
from study.data.corpus_checks import corpus_errors
from study.planning.request import GRID_POINTS, StudyRequest
from study.planning.validation import baseline_errors, context_errors, hyperparameter_errors, method_errors, size_errors
from study.search.objectives import objective_errors


@dataclass(frozen=True)
class StudyPlan:
    """A request without errors, with its corpus and the search space for that corpus."""

    request: StudyRequest
    corpus: Corpus
    languages: tuple[str, ...]
    space: Space

    def counts(self) -> dict[str, int]:
        """Return the number of utterances in each split."""
        return {split: int((self.corpus.utterances["split"] == split).sum()) for split in ("train", "dev", "test")}


def build_plan(request: StudyRequest, make_space: SpaceMaker | None = None) -> StudyPlan:
    """Read the corpus and check the whole request against it. Nothing is written to the study folder.

    Args:
        request: the parsed options.
        make_space: makes the search space from languages and settings; None takes the space named in the request.

    Raises:
        SettingsError: lists every error found, one per line.
    """
    errors, settings = list(request.errors), request.settings
    corpus = None
    if not any(message.startswith(("corpus.", "corpus:")) for message in errors):
        try:
            corpus = load_corpus(settings.corpus, request.cache)
        except CorpusError as error:
            errors.append(f"--corpus {settings.corpus.spec}: {error}")
    languages: tuple[str, ...] = LANGUAGES
    if corpus is not None:
        spoken = set(corpus.utterances["language"])
        languages = tuple(language for language in LANGUAGES if language in spoken)
        errors += corpus_errors(corpus, settings)
    errors += context_errors(settings, request.parallelism, languages, request.cores)
    space = Space(request.space, (), ())
    try:
        space = (make_space or space_maker(request.space, request.fixed, request.pinned))(languages, settings)
    except SettingsError as error:
        errors += [message for message in error.errors if message not in errors]
    if request.sampler == "grid" and space.hyperparameters:
        space = space.on_grid(GRID_POINTS)
    errors += size_errors(space, request, cells(languages, settings.modalities))
    errors += method_errors(request.fixed, space)
    errors += hyperparameter_errors(space, settings, request.parallelism, languages)
    errors += baseline_errors(space, settings, request.parallelism, languages)
    errors += objective_errors(request.search_objectives, cells(languages, settings.modalities))
    if not settings.optimisation.epochs and len(space.hyperparameters) + len(space.baselines) > 1:
        errors.append(
            "--epochs 0: all trials would be the same untrained backbone; evaluate it once with study/train.py"
        )
    if errors or corpus is None:
        raise SettingsError(errors)
    return StudyPlan(request, corpus, languages, space)
