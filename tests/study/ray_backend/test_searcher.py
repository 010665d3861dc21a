"""The searchers that Ray Tune calls."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

from search_spaces import Hyperparameter, Space
from study.ray_backend.searcher import ListSearcher, ProposerSearcher
from tests.study.search.test_proposer import Sweep, search_of

METRICS = {"dev_w_f1": 0.4, "dev_gap": 0.1}


def searcher_of(exports=None):
    exports = [] if exports is None else exports
    proposer = Sweep(search_of()).start()
    return ProposerSearcher(proposer, lambda: exports.append(len(proposer.study.trials)))


def test_suggestion_has_number_label_and_hyperparameters():
    searcher = searcher_of()
    assert searcher.suggest("a") == {"number": 0, "label": "ERM", "loss.method": "erm"}


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        ({**METRICS, "complete": True, "done": True}, False, TrialState.COMPLETE),
        ({**METRICS, "complete": False, "done": True}, False, TrialState.PRUNED),
        ({**METRICS, "complete": False}, False, TrialState.FAIL),  # interrupted
        ({**METRICS, "complete": True}, True, TrialState.FAIL),
        (None, True, TrialState.FAIL),
    ],
)
def test_end_of_a_trial_sets_its_state_once_and_is_exported(result, error, state):
    exports = []
    searcher = searcher_of(exports)
    searcher.suggest("a")
    for _ in range(2):  # Tune reports a stopped trial twice
        searcher.on_trial_complete("a", result, error)
    assert searcher.proposer.study.trials[0].state == state and exports == [1]


def test_search_ends_with_the_space():
    power = Hyperparameter(name="loss.power", reason="-", default=1, choices=(1, 2))
    searcher = ProposerSearcher(Sweep(search_of("random", Space("powers", (power,), ()))).start(), lambda: None)
    assert {searcher.suggest(trial_id)["loss.power"] for trial_id in "ab"} == {1, 2}
    assert searcher.suggest("c") == ProposerSearcher.FINISHED


def test_list_searcher_returns_its_suggestions():
    searcher = ListSearcher([{"number": 3, "label": None, "loss.power": 1}])
    assert searcher.suggest("a") == {"number": 3, "label": None, "loss.power": 1}
    assert searcher.suggest("b") == ListSearcher.FINISHED
