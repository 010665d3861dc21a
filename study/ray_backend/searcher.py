"""Ray Tune searchers: one on a ``Proposer``, one on a given list of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from optuna.trial import Trial
from ray.tune.search.searcher import Searcher

from study.search.optuna_study import Proposer


class _StatelessSearcher(Searcher):
    """A searcher that Tune does not save: a study resumes from its records, never from Tune's own checkpoints."""

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study resumes from its records")


class ProposerSearcher(_StatelessSearcher):
    """Runs what a ``Proposer`` proposes, and tells it the results.

    A trial that Tune's scheduler stopped counts as pruned: its last result is ``done`` but not ``complete``.

    Args:
        export: called after each trial.
    """

    def __init__(self, proposer: Proposer, export: Callable[[], None]):
        super().__init__()
        self.proposer, self.export = proposer, export
        self.running: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:  # Ray's annotation lacks FINISHED
        proposal = self.proposer.propose()
        if proposal is None:
            return Searcher.FINISHED
        self.running[trial_id] = proposal.trial
        return {**proposal.hyperparameters, "number": proposal.number, "label": proposal.label}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.running.pop(trial_id, None)
        if trial is None:  # Tune reports a stopped trial twice
            return
        if error or not result:
            self.proposer.fail(trial)
        elif result.get("complete"):
            self.proposer.finish(trial, result)
        elif result.get("done"):
            self.proposer.prune(trial)
        else:
            self.proposer.fail(trial)
        self.export()


class ListSearcher(_StatelessSearcher):
    """Runs given trials; used for finished trials that lack seeds.

    Args:
        suggestions: number, label and hyperparameters of each trial.
    """

    def __init__(self, suggestions: Iterable[dict[str, Any]]):
        super().__init__()
        self.remaining = list(suggestions)

    def suggest(self, trial_id: str) -> Any:  # Ray's annotation lacks FINISHED
        return self.remaining.pop(0) if self.remaining else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass
