"""Optuna behind Ray: references first, nothing left running, nothing repeated."""

from __future__ import annotations

import json
import math

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search_spaces import Hyperparameter, Space, ablation, space_maker
from search_spaces.ablation_arms import arms_of
from study.common.groups import cells
from study.config.config_id import config_id
from study.config.presets import TINY
from study.config.settings import Parallelism, Settings
from study.planning.validation import context_errors
from study.ray_backend.searcher import Listed, make_searcher
from study.search.nsga import Nsga2
from study.search.objectives import Constraint, SearchObjectives
from study.search.optuna_study import SAMPLERS, Search, open_journal, open_study, reconcile
from study.search.random_sampler import RandomSearch

pytestmark = pytest.mark.filterwarnings("ignore:Define-by-run")  # Ray's, of a second that a loaded machine may need
SETTINGS = Settings().with_overrides(TINY)
SPACE = space_maker("fairness")(["en", "de"], SETTINGS)


@pytest.fixture
def journal(tmp_path):
    return open_journal(str(tmp_path / "journal.log"))


def searcher_of(journal, seed=0, records=None):
    search = Search("s", SPACE, SETTINGS)
    study = open_study(journal, search, records or {})
    return study, make_searcher(journal, search, seed)


def hyperparameters_of(suggestion):
    return {key: value for key, value in suggestion.items() if key not in ("number", "label")}


def test_erm_and_the_papers_setting_come_first_and_optuna_gets_their_values(journal):
    study, searcher = searcher_of(journal)
    first, second, third = (searcher.suggest(str(i)) for i in range(3))
    assert first["label"] == "ERM" and hyperparameters_of(first) == {"loss.method": "erm"}
    assert second["label"] == "paper's setting"
    assert hyperparameters_of(second)["loss.fairness_weight.schedule"] == "adaptive"
    assert hyperparameters_of(second)["loss.coefficients.languages.de"] == 1.0
    assert third["label"] == "ERM, balanced" and [first["number"], second["number"], third["number"]] == [0, 1, 2]
    for i in range(3):
        searcher.on_trial_complete(str(i), {"dev_w_f1": (0.4, 0.41, 0.42)[i], "dev_gap": 0.05, "complete": True})
    assert [trial.values for trial in study.trials] == [[0.4, 0.05], [0.41, 0.05], [0.42, 0.05]]


def test_coefficients_of_cells_keep_their_names(journal):
    """Ray takes names apart at a slash, and gave ``cells.de`` a dict."""
    both = SETTINGS.with_overrides({"modalities": ["speech", "speech+text"]})
    search = Search("s", space_maker("coefficients_per_cell")(["en", "de"], both), both)
    open_study(journal, search, {})
    searcher = make_searcher(journal, search, 0)
    made = [hyperparameters_of(searcher.suggest(str(i))) for i in range(4)][3]
    cells_of = [f"loss.coefficients.cells.{cell}" for cell in ("de/speech", "en/speech+text", "de/speech+text")]
    assert sorted(made) == sorted(cells_of)
    assert both.with_overrides(made).loss.coefficients.cells["de/speech"] == made[cells_of[0]]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (None, True),
        ({"dev_w_f1": math.nan, "dev_gap": 0.1, "complete": True}, False),
        ({"dev_w_f1": 0.4, "complete": True}, False),
        ({"dev_w_f1": 0.4, "dev_gap": 0.1, "complete": False}, False),  # cut off in the middle
    ],
)
def test_a_trial_without_objectives_is_failed_not_left_running(journal, result, error):
    study, searcher = searcher_of(journal)
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    assert study.trials[0].state == TrialState.FAIL


def test_an_interrupted_study_goes_on_with_what_was_running(journal):
    _, searcher = searcher_of(journal)
    for i in range(4):
        searcher.suggest(str(i))
    first = {"label": "ERM", "hyperparameters": {"loss.method": "erm"}}
    records = {0: {**first, "state": "finished", "values": [0.5, 0.04]}}  # written before the process died
    study, _ = searcher_of(journal, records=records)
    running = study.trials[3].params
    reconcile(study, records)
    assert study.trials[0].state == TrialState.COMPLETE and study.trials[0].values == [0.5, 0.04]
    assert [trial.state for trial in study.trials[1:4]] == [TrialState.FAIL] * 3
    _, resumed = searcher_of(journal, seed=4, records=records)
    again = [resumed.suggest(f"again{i}") for i in range(3)]
    assert [suggestion["label"] for suggestion in again] == ["paper's setting", "ERM, balanced", None]
    assert hyperparameters_of(again[2]) == running


def test_a_lost_journal_is_rebuilt_from_the_records(journal, tmp_path):
    study, searcher = searcher_of(journal)
    records = {}
    for i in range(5):
        suggestion = searcher.suggest(str(i))
        failed = i == 3
        searcher.on_trial_complete(str(i), {"dev_w_f1": 0.4, "dev_gap": i / 100, "complete": True}, error=failed)
        records[i] = {
            "label": suggestion["label"],
            "hyperparameters": hyperparameters_of(suggestion),
            "values": [0.4, i / 100],
        }
        records[i]["state"] = "failed" if failed else "finished"
    del records[0]  # cut off before it left one
    rebuilt, _ = searcher_of(open_journal(str(tmp_path / "new.log")), records=records)
    for before, after in zip(study.trials[1:], rebuilt.trials[1:5], strict=True):
        assert (after.number, after.state, after.values, after.params) == (
            before.number, before.state, before.values, before.params,
        )  # fmt: skip
    assert [trial.user_attrs["label"] for trial in rebuilt.trials[5:]] == ["ERM"]  # the reference that is missing


@pytest.mark.parametrize("after", [b"", b"\0" * 40, b'{"op_code":5,"worker_id":"x"}\n'], ids=["", "zeros", "joined"])
def test_a_journal_with_a_line_that_was_cut_off_goes_on(tmp_path, after):
    """A full disk leaves half of a line, to which the next may have been joined; a crash leaves zeros."""
    path, records = tmp_path / "journal.log", {}
    search = Search("s", SPACE, SETTINGS, sampler="random")
    first = played(open_journal(str(path)), search, 5, records)
    path.write_bytes(path.read_bytes()[:-9] + after)
    more = [
        hyperparameters for _ in range(2) for hyperparameters in played(open_journal(str(path)), search, 2, records)
    ]
    assert (
        sorted(records) == list(range(9))
        and [records[number]["hyperparameters"] for number in range(9)] == first + more
    )
    assert first + more == played(open_journal(str(tmp_path / "whole.log")), search, 9, {})


@pytest.mark.parametrize("lines_left", [1, 8, 20, 40])
def test_a_journal_that_lacks_trials_which_have_records_takes_none_of_their_numbers(tmp_path, lines_left):
    """It was cut off long before its end, or lies on a head while another one went on with the study."""
    path, records = tmp_path / "journal.log", {}
    search = Search("s", SPACE, SETTINGS)
    played(open_journal(str(path)), search, 8, records)
    kept, lines = dict(records), path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 45
    path.write_bytes(b"".join(lines[:lines_left]))
    played(open_journal(str(path)), search, 2, records)
    assert sorted(records) == list(range(10)) and kept.items() <= records.items()


@pytest.mark.parametrize("state", ["finished", "pruned"])
def test_what_has_no_record_any_more_is_redone(journal, state):
    """A damaged record is moved away, as its error says."""
    _, searcher = searcher_of(journal)
    records = {}
    for i in range(6):
        suggestion, complete = searcher.suggest(str(i)), i != 4 or state == "finished"
        result = {"dev_w_f1": 0.4, "dev_gap": i / 100, "complete": complete, "done": True}
        searcher.on_trial_complete(str(i), result)
        records[i] = {
            "label": suggestion["label"],
            "hyperparameters": hyperparameters_of(suggestion),
            "values": [0.4, i / 100],
        }
        records[i]["state"] = "finished"
    moved = {number: records.pop(number) for number in (0, 4)}
    study, again = searcher_of(journal, seed=6, records=records)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE if number in records else TrialState.FAIL for number in range(6)
    ] + [TrialState.WAITING] * 2
    suggestions = [again.suggest(f"again{i}") for i in range(2)]
    assert {hyperparameters["label"] for hyperparameters in suggestions} == {"ERM", None}
    assert all(
        hyperparameters_of(suggestion) in [m["hyperparameters"] for m in moved.values()] for suggestion in suggestions
    )


def test_a_failed_trial_is_tried_again_once_a_call(journal):
    study, searcher = searcher_of(journal)
    searcher.suggest("a")
    searcher.on_trial_complete("a", None, error=True)
    failed = {0: {"label": "ERM", "state": "failed"}}
    study, _ = searcher_of(journal, records=failed)
    reconcile(study, failed)
    waiting = [trial for trial in study.trials if trial.state == TrialState.WAITING]
    assert [trial.user_attrs["label"] for trial in waiting] == ["ERM", "paper's setting", "ERM, balanced"]
    reconcile(study, {0: {"state": "failed", "retried": True}})
    assert len([trial for trial in study.trials if trial.state == TrialState.WAITING]) == 3


def test_a_continuation_does_not_repeat_its_suggestions(journal):
    _, first = searcher_of(journal, seed=0)
    one = [hyperparameters_of(first.suggest(str(i))) for i in range(5)][3:]
    _, second = searcher_of(journal, seed=4)
    two = [hyperparameters_of(second.suggest(f"b{i}")) for i in range(2)]
    assert not any(hyperparameters in one for hyperparameters in two)


def test_arms_can_be_added_and_those_of_another_call_are_not_run(journal):
    records = {}

    def study_of(*names):
        search = Search("arms", ablation(["en"], SETTINGS, names), SETTINGS)
        study = open_study(journal, search, records)
        return study, make_searcher(journal, search, 0)

    def finish(searcher, trial_id, suggestion):
        searcher.on_trial_complete(trial_id, {"dev_w_f1": 0.4, "dev_gap": 0.1, "complete": True})
        record = {"label": suggestion["label"], "state": "finished", "hyperparameters": hyperparameters_of(suggestion)}
        records[suggestion["number"]] = {**record, "values": [0.4, 0.1]}

    study, searcher = study_of("ERM", "minimax", "V-REx")
    suggestion = searcher.suggest("0")
    assert suggestion["label"] == "ERM"
    finish(searcher, "0", suggestion)
    _, searcher = study_of("ERM", "CVaR-DRO")  # the other two were still in the queue
    suggestion = searcher.suggest("1")
    assert suggestion["label"] == "CVaR-DRO" and suggestion["loss.method"] == "cvar_dro"
    finish(searcher, "1", suggestion)
    _, searcher = study_of("minimax")
    assert searcher.suggest("2")["label"] == "minimax"


def test_every_arm_is_a_configuration_of_its_own():
    plain = Settings().with_overrides({"control.fraction": 0.5, "modalities": ["speech", "speech+text"]})
    in_use = cells(["en", "de"], plain.modalities)
    arms = arms_of(plain.modalities)
    chosen = [plain.with_overrides(arm.fixed) for arm in arms]
    assert all(not context_errors(settings, Parallelism(), ["en", "de"], 2) for settings in chosen)
    ids = {config_id(settings, in_use, "corpus", "backbone") for settings in chosen}
    assert len(ids) == len(arms) == len({arm.label for arm in arms})


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
@pytest.mark.parametrize("killed", [False, True])
def test_references_that_failed_run_again_before_those_that_have_not_run(journal, killed, sampler):
    """Else a study of two trials, both of which failed or were cut off, would go on without the paper's setting."""
    space = space_maker("penalty", ("loss.estimator.kind",))(["en", "de"], SETTINGS)
    search, records = Search("s", space.on_grid(3) if sampler == "grid" else space, SETTINGS, sampler=sampler), {}
    open_study(journal, search, records)
    searcher = make_searcher(journal, search, seed=0)
    for i in range(2):
        suggestion = searcher.suggest(str(i))
        if not killed:
            searcher.on_trial_complete(str(i), None, error=True)
            hyperparameters = hyperparameters_of(suggestion)
            records[i] = {
                "label": suggestion["label"],
                "state": "failed",
                "hyperparameters": hyperparameters,
                "values": None,
            }
    reconcile(open_study(journal, search, records), records)
    searcher = make_searcher(journal, search, seed=3)
    labels = [searcher.suggest(f"again {i}")["label"] for i in range(3)]
    assert labels == ["ERM", "paper's setting", "ERM, balanced"]


def test_an_arm_that_failed_runs_again_whenever_it_is_asked_for_and_no_other_does(journal):
    records = {}

    def call(*names):
        """One call for some arms: what it is given to run, until there is nothing left."""
        search = Search("arms", ablation(["en"], SETTINGS, names), SETTINGS)
        study = open_study(journal, search, records)
        reconcile(study, records)
        for number, record in records.items():
            records[number] = {**record, "retried": True} if record["state"] == "failed" else record
        searcher = make_searcher(journal, search, 0)
        ran = []
        finished = {record["label"] for record in records.values() if record["state"] == "finished"}
        for _ in set(names) - finished:
            suggestion = searcher.suggest(str(len(records)))
            ran.append(suggestion["label"])
            fails = suggestion["label"] == "minimax" and len(records) < 4
            result = None if fails else {"dev_w_f1": 0.4, "dev_gap": 0.1, "complete": True}
            searcher.on_trial_complete(str(len(records)), result, error=fails)
            state = "failed" if fails else "finished"
            record = {"label": suggestion["label"], "state": state, "hyperparameters": hyperparameters_of(suggestion)}
            records[suggestion["number"]] = {**record, "values": [0.4, 0.1]}
        return ran

    assert call("ERM", "minimax") == ["ERM", "minimax"]  # and minimax fails
    assert call("ERM", "V-REx") == ["V-REx"]
    assert call("ERM", "CVaR-DRO") == ["CVaR-DRO"]
    assert call("ERM", "minimax") == ["minimax"]
    assert call("ERM", "minimax", "V-REx") == []
    with pytest.raises(ValueError, match="none of them is left"):
        make_searcher(journal, Search("arms", ablation(["en"], SETTINGS, ["ERM"]), SETTINGS), 0).suggest("x")


def played(journal, search, calls, records, metrics=lambda number: {"dev_w_f1": 0.4, "dev_gap": 0.01 * number}):
    """What a sweep would do for some trials, its records kept; returns the knobs that were suggested."""
    study = open_study(journal, search, records)
    searcher = make_searcher(journal, search, seed=len(study.trials))
    suggested = []
    for i in range(calls):
        suggestion = searcher.suggest(str(i))
        values = metrics(suggestion["number"])
        searcher.on_trial_complete(str(i), {**values, "complete": True})
        suggested.append(hyperparameters_of(suggestion))
        records[suggestion["number"]] = {
            "number": suggestion["number"],
            "label": suggestion["label"],
            "hyperparameters": suggested[-1],
            "state": "finished",
            "values": [values[metric] for metric, _ in search.search_objectives.objectives],
            "violations": search.search_objectives.violations(values),
        }
    return suggested


@pytest.mark.filterwarnings("ignore:NSGAIIISampler is experimental")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random"])
def test_a_continuation_of_any_sampler_repeats_nothing_and_a_repetition_everything(tmp_path, sampler):
    search = Search("s", SPACE, SETTINGS, sampler=sampler)

    def whole(name):
        journal, records = open_journal(str(tmp_path / name)), {}
        return [*played(journal, search, 8, records), *played(journal, search, 8, records)]

    one = whole("one.log")
    assert len({json.dumps(hyperparameters, sort_keys=True) for hyperparameters in one}) == 16
    assert whole("two.log") == one  # seeded


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_another_seed_of_the_sampler_proposes_others_and_the_same_one_the_same(tmp_path, sampler):
    def proposed(name, seed):
        search = Search("s", SPACE, SETTINGS, sampler=sampler, seed=seed)
        return played(open_journal(str(tmp_path / name)), search, 5, {})[3:]

    zero, one, again = (proposed(name, seed) for name, seed in (("a", 0), ("b", 1), ("c", 1)))
    assert one == again and not any(hyperparameters in zero for hyperparameters in one)


def test_a_grid_is_run_whole_and_once_however_often_it_is_cut(journal):
    space = space_maker("penalty", ("loss.estimator.kind",))(["en", "de"], SETTINGS).on_grid(3)
    search, records = Search("s", space, SETTINGS, sampler="grid"), {}
    suggested = [hyperparameters for calls in (4, 2, 5) for hyperparameters in played(journal, search, calls, records)]
    # power 1 or 2, reduction max, mean or softmax at 3 temperatures: 10 points, the paper's among them, and two of ERM
    points = [hyperparameters for hyperparameters in suggested if "loss.method" not in hyperparameters]
    assert len(points) == 9 and len({json.dumps(hyperparameters, sort_keys=True) for hyperparameters in points}) == 9
    (last,) = played(journal, search, 1, records)
    assert sorted([*points, last], key=str) == sorted(space.points(), key=str)


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_a_new_head_at_every_call_leaves_grid_and_random_search_their_configurations(tmp_path, sampler):
    space = space_maker("schedules")(["en", "de"], SETTINGS)
    search = Search("s", space.on_grid(2) if sampler == "grid" else space, SETTINGS, sampler=sampler)
    undisturbed = played(open_journal(str(tmp_path / "whole.log")), search, 12, {})
    records = {}
    for head in range(4):  # the journal of each is lost with it
        played(open_journal(str(tmp_path / f"{head}.log")), search, 3, records)
    assert [records[number]["hyperparameters"] for number in range(12)] == undisturbed


@pytest.mark.filterwarnings("ignore:NSGAIIISampler is experimental", "ignore:Nsga3 is experimental")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random"])
def test_a_repeated_configuration_takes_no_trial_and_a_small_space_comes_to_its_end(journal, sampler):
    fixed = ("loss.estimator.kind", "loss.temperature")
    space = space_maker("penalty", fixed)(["en", "de"], SETTINGS)
    search, records = Search("s", space, SETTINGS, sampler=sampler), {}
    # power 1 or 2, reduction max, mean or softmax: 6 configurations, the paper's among them, and ERM twice
    suggested = [*played(journal, search, 5, records), *played(journal, search, 3, records)]
    assert len({search.identity(hyperparameters) for hyperparameters in suggested}) == 8
    searcher = make_searcher(journal, search, seed=9)
    assert searcher.suggest("x") == searcher.FINISHED
    assert all(trial.state != TrialState.RUNNING for trial in open_study(journal, search, records).trials)


def test_a_point_of_a_grid_that_failed_runs_once_more_and_not_twice(journal):
    space = space_maker("penalty", ("loss.estimator.kind",))(["en", "de"], SETTINGS).on_grid(3)
    search = Search("s", space, SETTINGS, sampler="grid")
    open_study(journal, search, {})
    searcher = make_searcher(journal, search, seed=0)
    records = {}
    for i in range(4):
        suggestion = searcher.suggest(str(i))
        failed = hyperparameters_of(suggestion)
        searcher.on_trial_complete(str(i), {"dev_w_f1": 0.4, "dev_gap": 0.1, "complete": True}, error=i == 3)
        records[i] = {
            "label": suggestion["label"],
            "state": "failed" if i == 3 else "finished",
            "hyperparameters": failed,
        }
        records[i] |= {"values": None if i == 3 else [0.4, 0.1]}
    study = open_study(journal, search, records)
    reconcile(study, records)
    waiting = [trial.system_attrs["fixed_params"] for trial in study.trials if trial.state == TrialState.WAITING]
    assert waiting.count(failed) == 1 and len(waiting) == 9  # of 10 points, the paper's has run


def test_optuna_knows_what_a_requirement_lacks(journal, tmp_path):
    search_objectives = SearchObjectives(
        objectives=(("dev_uar", "max"), ("seconds", "min"), ("dev_gap@de", "min")),
        constraints=(Constraint("dev_worst_gap", "<=", 0.1),),
    )
    search, records = Search("s", SPACE, SETTINGS, search_objectives), {}

    def metrics(number):
        return {"dev_uar": 0.4, "seconds": 9.0, "dev_gap@de": 0.02, "dev_worst_gap": 0.1 + 0.01 * (number - 2)}

    played(journal, search, 4, records, metrics)
    expected = [{"dev_worst_gap<=0.1": pytest.approx(0.01 * (number - 2))} for number in range(4)]
    trials = open_study(journal, search, records).trials[:4]
    assert [dict(trial.constraints) for trial in trials] == expected
    assert trials[0].values == [0.4, 9.0, 0.02]
    rebuilt = open_study(open_journal(str(tmp_path / "new.log")), search, records).trials[:4]
    assert [dict(trial.constraints) for trial in rebuilt] == expected
    best = open_study(journal, search, records).best_trials
    assert {trial.number for trial in best} == {0, 1, 2}  # all have the same values; the last does not meet it


def test_a_study_with_more_knobs_keeps_its_trials_where_they_ran(journal):
    narrow = Search("s", space_maker("schedules")(["en", "de"], SETTINGS), SETTINGS)
    records = {}
    played(journal, narrow, 6, records)
    wide = Search("s", space_maker("schedules+training")(["en", "de"], SETTINGS), SETTINGS)
    study = open_study(journal, wide, records)
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in done] == list(range(6))
    assert [trial.values for trial in done] == [record["values"] for record in records.values()]
    for trial in done:
        if "fixed" not in trial.user_attrs:  # the value that they ran with, though nobody searched it then
            assert trial.params["optimisation.learning_rate"] == SETTINGS.optimisation.learning_rate
            assert (
                trial.params["loss.fairness_weight.schedule"]
                == (records[trial.number]["hyperparameters"]["loss.fairness_weight.schedule"])
            )
    (new,) = played(journal, wide, 1, records)
    assert "optimisation.learning_rate" in new and max(records) == 6


def test_more_seeds_change_the_values_that_optuna_has(journal):
    search, records = Search("s", SPACE, SETTINGS), {}
    played(journal, search, 4, records)
    records[3]["values"] = [0.45, 0.02]  # the mean over one seed more
    study = open_study(journal, search, records)
    assert study.trials[3].values == [0.45, 0.02] and study.trials[2].values == records[2]["values"]
    assert study.trials[3].params == records[3]["hyperparameters"]
    again = open_study(journal, search, records)
    assert [trial.number for trial in again.trials] == [trial.number for trial in study.trials]


def test_a_trial_that_ended_badly_after_its_record_was_written_has_finished(journal):
    search = Search("s", SPACE, SETTINGS)
    open_study(journal, search, {})
    searcher = make_searcher(journal, search, 0)
    hyperparameters = hyperparameters_of(searcher.suggest("0"))
    searcher.on_trial_complete("0", None, error=True)
    records = {0: {"label": "ERM", "state": "finished", "hyperparameters": hyperparameters, "values": [0.4, 0.1]}}
    study = open_study(journal, search, records)
    reconcile(study, records)
    assert study.trials[0].values == [0.4, 0.1]
    assert [trial.user_attrs["label"] for trial in study.trials[1:]] == ["paper's setting", "ERM, balanced"]


def test_trials_that_lack_seeds_are_given_as_they_are_and_no_others():
    given = Listed([{"number": 3, "label": None, "loss.power": 1}])
    assert given.suggest("a") == {"number": 3, "label": None, "loss.power": 1}
    assert given.suggest("b") == Listed.FINISHED


@pytest.mark.filterwarnings("ignore:NSGAIIISampler is experimental", "ignore:Nsga3 is experimental")
def test_nsga_converges_where_random_does_not_with_references_outside_the_space():
    hyperparameters = tuple(
        Hyperparameter(name=f"optimisation.{name}", reason="-", default=1.0, low=0.0, high=1.0)
        for name in ("warmup_fraction", "weight_decay", "gradient_clipping")
    )
    space = Space(
        "box", hyperparameters, SPACE.baselines[::2]
    )  # ERM, with and without balanced batches: no knob of the space

    def missed(sampler):
        """How far the last 20 of 200 trials lie from the front, on which the last two knobs are 0."""
        storage, search = InMemoryStorage(), Search("s", space, SETTINGS, sampler=sampler)
        study, searcher = open_study(storage, search, {}), make_searcher(storage, search, seed=0)
        far = []
        for i in range(200):
            suggestion = searcher.suggest(str(i))
            first, *others = (suggestion.get(hyperparameter.name, 1.0) for hyperparameter in hyperparameters)
            far.append(sum(others))
            values = {"dev_w_f1": first - far[-1], "dev_gap": first + far[-1]}
            searcher.on_trial_complete(str(i), {**values, "complete": True})
        assert [t.user_attrs.get("label") for t in study.trials[:3]] == ["ERM", "ERM, balanced", None]
        return sum(far[-20:]) / 20

    found = {sampler: missed(sampler) for sampler in ("random", "nsga2", "nsga3")}
    assert found["random"] > 0.8 and max(found["nsga2"], found["nsga3"]) < 0.7, found  # none repeats its best


@pytest.mark.parametrize("rebuilt", [False, True])
def test_nsga2_crosses_conditional_knobs_also_from_a_journal_written_anew(tmp_path, rebuilt):
    journal, records = open_journal(str(tmp_path / "one.log")), {}
    search = Search("s", SPACE, SETTINGS, sampler="nsga2")

    def metrics(number):
        return {"dev_w_f1": 0.4, "dev_gap": 0.01}

    played(journal, search, 24, records, metrics)
    journal = open_journal(str(tmp_path / "two.log")) if rebuilt else journal
    suggested = played(journal, search, 10, records, metrics)
    known = {(name, value) for number in range(24) for name, value in records[number]["hyperparameters"].items()}
    handed_on = [
        sum((name, value) in known for name, value in hyperparameters.items() if "." in str(value))
        for hyperparameters in suggested
    ]
    assert sum(handed_on) >= 10  # numbers that a parent had; random ones would have none


def test_a_trial_that_another_head_ran_with_other_knobs_is_not_told_to_this_heads_proposal(journal):
    search, records = Search("s", SPACE, SETTINGS), {}
    open_study(journal, search, records)
    searcher = make_searcher(journal, search, seed=0)
    suggestions = [searcher.suggest(str(i)) for i in range(4)]
    for suggestion in suggestions:
        values = {"state": "finished", "values": [0.5, 0.1]}
        records[suggestion["number"]] = {
            "label": suggestion["label"],
            "hyperparameters": hyperparameters_of(suggestion),
            **values,
        }
    weight = "loss.fairness_weight.schedule"
    other = {**dict(SPACE.baselines[1].hyperparameters), weight: "constant", "loss.fairness_weight.weight": 0.25}
    records[3]["hyperparameters"] = {
        k: v for k, v in other.items() if k.endswith((".schedule", ".weight")) or "coeff" in k
    }
    study = open_study(journal, search, records)
    reconcile(study, records)
    assert study.trials[3].state == TrialState.COMPLETE
    assert search.identity(study.trials[3].params) == search.identity(records[3]["hyperparameters"])


def test_a_random_search_that_is_interrupted_proposes_what_it_would_have_proposed(tmp_path):
    search = Search("s", SPACE, SETTINGS, sampler="random")
    baselines = len(SPACE.baselines)

    def proposals(name, cuts):
        """Knobs of the trials that finish; at each of ``cuts`` the process dies with a trial under way."""
        records, journal = {}, tmp_path / f"{name}.log"
        for cut in (*cuts, baselines + 6):
            storage = open_journal(str(journal))
            study = open_study(storage, search, records)
            reconcile(study, records)
            searcher = make_searcher(storage, search, len(study.get_trials(deepcopy=False)))
            while len(records) < cut:
                suggestion = searcher.suggest(str(len(records)))
                hyperparameters = {key: value for key, value in suggestion.items() if key not in ("number", "label")}
                number = suggestion["number"]
                records[number] = {"number": number, "label": suggestion["label"], "hyperparameters": hyperparameters}
                records[number] |= {"state": "finished", "values": [0.5, 0.1]}
                told = {"dev_w_f1": 0.5, "dev_gap": 0.1, "complete": True}
                searcher.on_trial_complete(str(len(records) - 1), told)
            if cut < baselines + 6:
                searcher.suggest("cut off")
            if name == "new head":
                journal.unlink()
        return [record["hyperparameters"] for record in records.values() if not record["label"]]

    whole = proposals("whole", ())
    assert len({str(hyperparameters) for hyperparameters in whole}) == 6
    assert proposals("cut", (baselines + 1, baselines + 4)) == whole
    assert sorted(map(str, proposals("new head", (baselines + 2,)))) == sorted(map(str, whole))


def test_nsga2_takes_over_a_study_of_more_generations_than_python_calls_deep():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=Nsga2(seed=0, population_size=2))
    hyperparameter = optuna.distributions.FloatDistribution(0.0, 1.0)
    values = [[i / 1200, 1 - i / 1200] for i in range(1200)]
    study.add_trials(
        [optuna.trial.create_trial(values=v, params={"x": v[0]}, distributions={"x": hyperparameter}) for v in values]
    )
    assert 0 <= study.ask({"x": hyperparameter}).params["x"] <= 1


def test_a_random_search_counts_its_proposals_in_any_order():
    study = optuna.create_study(sampler=RandomSearch(1))
    for _ in range(6):
        study.ask()
    assert [study.sampler._proposals_before(study, number) for number in (3, 5, 2, 4)] == [3, 5, 2, 4]


@pytest.mark.filterwarnings("ignore:Nsga2 is experimental")
@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_a_proposal_looks_at_the_trials_before_it_as_often_with_many_knobs_as_with_few(monkeypatch, sampler):
    looks = []
    of_study = optuna.Study.get_trials
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *a, **k: looks.append(1) or of_study(*a, **k))

    def looked(hyperparameters):
        study = optuna.create_study(directions=["minimize"] * 2, sampler=SAMPLERS[sampler](0))
        distributions = {f"x{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(hyperparameters)}
        for _ in range(45):
            study.tell(study.ask(distributions), [0.1, 0.2])
        before = len(looks)
        study.ask(distributions)
        return len(looks) - before

    assert looked(1) == looked(6) == 1


def test_a_journal_written_anew_has_a_line_a_trial(tmp_path):
    search, records = Search("s", SPACE, SETTINGS), {}
    played(open_journal(str(tmp_path / "old.log")), search, 12, records)

    def lines(count):
        path = tmp_path / f"{count}.log"
        open_study(open_journal(str(path)), search, {number: records[number] for number in range(count)})
        return len(path.read_text().splitlines())

    assert lines(12) - lines(5) == 7


def test_a_finished_trial_without_an_objective_is_failed_and_its_journal_kept(tmp_path):
    search, records = Search("s", SPACE, SETTINGS), {}
    played(open_journal(str(tmp_path / "old.log")), search, 4, records)
    records[3]["values"] = [0.4, None]  # a gap that no cell defines
    path = tmp_path / "new.log"
    study = open_study(open_journal(str(path)), search, records)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]
    again = open_study(open_journal(str(path)), search, records)
    assert again._study_id == study._study_id  # another one, if it had been written anew
