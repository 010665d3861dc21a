"""What a search proposes, over one call and over several: nothing finished is lost or run twice."""

from __future__ import annotations

import json
import math

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search_spaces import Hyperparameter, Space, ablation, space_maker
from search_spaces.ablation_arms import arms_of
from study.common.groups import cells
from study.config.config_id import config_id
from study.config.presets import TINY
from study.config.settings import Parallelism, Settings
from study.planning import request
from study.planning.validation import context_errors
from study.search.objectives import Constraint, SearchObjectives
from study.search.optuna_study import SAMPLERS, Proposer, Search

pytestmark = pytest.mark.filterwarnings("ignore:Nsga. is experimental", "ignore:NSGAIIISampler is experimental")
SETTINGS = Settings().with_overrides(TINY)
SPACE = space_maker("fairness")(["en", "de"], SETTINGS)
BASELINES = ["ERM", "paper's setting", "ERM, balanced"]
SMALL_SPACE = space_maker("penalty", ("loss.estimator.kind",))(["en", "de"], SETTINGS)


class Sweep:
    """Calls of a sweep without training. ``records`` are the trial records; nothing else survives a call."""

    def __init__(self, search: Search, metrics=lambda number: {"dev_w_f1": 0.4, "dev_gap": 0.01 * number}):
        self.search, self.metrics, self.records = search, metrics, {}

    def start(self, unrecorded=()):
        """Start a call; returns its ``Proposer``."""
        return Proposer(self.search, self.records, unrecorded)

    def record(self, proposal, state="finished"):
        """Write the record of a trial that has ended, as its driver does before Optuna is told."""
        record = {"number": proposal.number, "label": proposal.label, "hyperparameters": proposal.hyperparameters}
        record |= {"state": state, "values": None}
        if state == "finished":
            metrics = self.metrics(proposal.number)
            record["values"] = [metrics[name] for name, _ in self.search.search_objectives.objectives]
            record["violations"] = self.search.search_objectives.violations(metrics)
        self.records[proposal.number] = record

    def run(self, trials, failing=lambda proposal: False, unrecorded=()):
        """Run a call to its end; returns the proposals."""
        proposer, proposals = self.start(unrecorded), []
        for _ in range(trials):
            proposals.append(proposer.propose())
            if failing(proposals[-1]):
                self.record(proposals[-1], "failed")
                proposer.fail(proposals[-1].trial)
            else:
                self.record(proposals[-1])
                proposer.finish(proposals[-1].trial, self.metrics(proposals[-1].number))
        return proposals


def search_of(sampler="tpe", space=SPACE, **options):
    return Search("s", space.on_grid(3) if sampler == "grid" else space, SETTINGS, sampler=sampler, **options)


def hyperparameters_of(proposals):
    return [proposal.hyperparameters for proposal in proposals]


def labels_of(proposals):
    return [proposal.label for proposal in proposals]


def as_text(hyperparameters):
    return json.dumps(hyperparameters, sort_keys=True)


def test_baselines_come_first():
    proposer = Sweep(search_of()).start()
    proposals = [proposer.propose() for _ in range(4)]
    assert labels_of(proposals) == [*BASELINES, None]
    assert [proposal.number for proposal in proposals] == [0, 1, 2, 3]
    assert proposals[0].hyperparameters == {"loss.method": "erm"}
    assert proposals[1].hyperparameters["loss.fairness_weight.schedule"] == "adaptive"
    assert proposals[1].hyperparameters["loss.coefficients.languages.de"] == 1.0


def test_optuna_is_told_the_objectives():
    proposer = Sweep(search_of()).start()
    for w_f1 in (0.4, 0.41):
        proposer.finish(proposer.propose().trial, {"dev_w_f1": w_f1, "dev_gap": 0.05})
    assert [trial.values for trial in proposer.study.trials] == [[0.4, 0.05], [0.41, 0.05]]


@pytest.mark.parametrize(
    "metrics", [{"dev_w_f1": math.nan, "dev_gap": 0.1}, {"dev_w_f1": 0.4}, {"dev_w_f1": None, "dev_gap": 0.1}]
)
def test_trial_without_finite_objectives_fails(metrics):
    proposer = Sweep(search_of()).start()
    proposer.finish(proposer.propose().trial, metrics)
    assert proposer.study.trials[0].state == TrialState.FAIL


@pytest.mark.parametrize("sampler", request.SAMPLERS)
def test_every_sampler_option_proposes(sampler):
    assert sampler in {*SAMPLERS, "random", "grid"}
    assert {*SAMPLERS} <= {*request.SAMPLERS}
    proposer = Sweep(search_of(sampler)).start()
    proposals = [proposer.propose() for _ in range(4)]
    assert proposals[3].label is None and proposals[3].hyperparameters


def test_coefficients_of_cells_keep_their_names():
    settings = SETTINGS.with_overrides({"modalities": ["speech", "speech+text"]})
    space = space_maker("coefficients_per_cell")(["en", "de"], settings)
    proposer = Proposer(Search("s", space, settings), {})
    hyperparameters = [proposer.propose() for _ in range(4)][3].hyperparameters
    names = [f"loss.coefficients.cells.{cell}" for cell in ("de/speech", "en/speech+text", "de/speech+text")]
    assert sorted(hyperparameters) == sorted(names)
    coefficients = settings.with_overrides(hyperparameters).loss.coefficients.cells
    assert coefficients["de/speech"] == hyperparameters[names[0]]


def test_study_is_rebuilt_from_records():
    sweep = Sweep(search_of())
    proposer = sweep.start()
    for number in range(6):
        proposal = proposer.propose()
        if number == 3:
            sweep.record(proposal, "failed")
            proposer.fail(proposal.trial)
        elif number == 4:
            sweep.record(proposal, "pruned")
            proposer.prune(proposal.trial)
        else:
            sweep.record(proposal)
            proposer.finish(proposal.trial, sweep.metrics(number))
    rebuilt = sweep.start().study.trials
    assert len(rebuilt) == 6
    for before, after in zip(proposer.study.trials, rebuilt, strict=True):
        assert (after.number, after.state, after.values, after.params, after.distributions) == (
            before.number, before.state, before.values, before.params, before.distributions,
        )  # fmt: skip


def test_new_trials_are_numbered_after_the_last_record():
    sweep = Sweep(search_of())
    sweep.run(6)
    del sweep.records[1], sweep.records[4]
    kept = dict(sweep.records)
    assert [proposal.number for proposal in sweep.run(3)] == [6, 7, 8]
    assert kept.items() <= sweep.records.items()


def test_trial_that_was_recorded_before_the_process_died_is_not_run_again():
    """Its record is written before Optuna is told."""
    sweep = Sweep(search_of())
    proposer = sweep.start()
    proposals = [proposer.propose() for _ in range(4)]
    sweep.record(proposals[0])
    sweep.record(proposals[3], "pruned")
    resumed = sweep.start()
    assert [trial.state for trial in resumed.study.trials] == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL, TrialState.PRUNED,
    ]  # fmt: skip
    again = [resumed.propose() for _ in range(4)]
    assert labels_of(again) == [*BASELINES[1:], None, None]
    assert proposals[3].hyperparameters not in hyperparameters_of(again)


def test_trial_that_was_cut_off_is_run_again():
    sweep = Sweep(search_of())
    proposer = sweep.start()
    proposals = [proposer.propose() for _ in range(5)]
    for proposal in proposals[:3]:
        sweep.record(proposal)
    points = hyperparameters_of(proposals[3:])
    resumed = sweep.start(unrecorded=points)
    assert hyperparameters_of([resumed.propose(), resumed.propose()]) == points
    assert resumed.propose().hyperparameters not in points


def test_trial_that_was_cut_off_is_not_run_twice_if_it_is_queued_anyway():
    sweep = Sweep(search_of())
    papers_setting = dict(SPACE.baselines[1].hyperparameters)
    failed = sweep.run(4, failing=lambda proposal: proposal.number == 3)[3].hyperparameters
    del sweep.records[1]
    resumed = sweep.start(unrecorded=[papers_setting, failed])
    assert hyperparameters_of([resumed.propose() for _ in range(3)])[:2] == [papers_setting, failed]
    assert len(resumed.study.trials) == 4 + 3


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
def test_failed_trial_is_retried_once_per_call(sampler):
    sweep = Sweep(search_of(sampler))
    failed = sweep.run(5, failing=lambda proposal: proposal.number == 3)[3].hyperparameters

    for _ in range(2):  # it fails again, under another number
        proposer = sweep.start()
        assert [record["hyperparameters"] for record in proposer.retried] == [failed] * (len(sweep.records) - 4)
        proposal = proposer.propose()
        assert proposal.hyperparameters == failed
        sweep.record(proposal, "failed")
        proposer.fail(proposal.trial)
        others = hyperparameters_of([proposer.propose() for _ in range(3)])
        assert failed not in others
    sweep.run(1)
    assert failed not in hyperparameters_of(sweep.run(3)) and not sweep.start().retried


def test_retry_that_was_cut_off_is_tried_again():
    sweep = Sweep(search_of())
    failed = sweep.run(4, failing=lambda proposal: proposal.number == 3)[3].hyperparameters
    sweep.start().propose()
    sweep.records[3]["retried"] = True
    assert sweep.start().propose().hyperparameters == failed


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
@pytest.mark.parametrize("recorded", [True, False])
def test_baselines_that_failed_or_were_cut_off_come_first_again(sampler, recorded):
    sweep = Sweep(search_of(sampler, SMALL_SPACE))
    proposer = sweep.start()
    proposals = [proposer.propose(), proposer.propose()]
    for proposal in proposals if recorded else ():
        sweep.record(proposal, "failed")
    resumed = sweep.start()
    assert labels_of([resumed.propose() for _ in range(4)]) == [*BASELINES, None]


def test_baselines_come_before_retries_and_trials_that_were_cut_off():
    sweep = Sweep(search_of())
    failed = sweep.run(5, failing=lambda proposal: proposal.number in (1, 3))[3].hyperparameters
    cut_off = sweep.records.pop(4)["hyperparameters"]
    resumed = sweep.start(unrecorded=[cut_off])
    proposals = [resumed.propose() for _ in range(3)]
    assert labels_of(proposals) == ["paper's setting", None, None]
    assert hyperparameters_of(proposals)[1:] == [failed, cut_off]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random", "grid"])
def test_resumed_search_repeats_nothing_and_is_reproducible(sampler):
    def two_calls():
        sweep = Sweep(search_of(sampler))
        return hyperparameters_of([*sweep.run(8), *sweep.run(8)])

    proposals = two_calls()
    assert len(set(map(as_text, proposals))) == 16
    assert two_calls() == proposals


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
def test_sampler_seed_changes_the_proposals(sampler):
    def proposed(seed):
        return hyperparameters_of(Sweep(search_of(sampler, seed=seed)).run(6)[3:])

    zero, one, again = (proposed(seed) for seed in (0, 1, 1))
    assert one == again and zero != one


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_interrupted_random_and_grid_search_run_the_same_points(sampler):
    space = space_maker("schedules")(["en", "de"], SETTINGS)
    space = space.on_grid(2) if sampler == "grid" else space
    uninterrupted = hyperparameters_of(Sweep(Search("s", space, SETTINGS, sampler=sampler)).run(12))

    sweep = Sweep(Search("s", space, SETTINGS, sampler=sampler))
    run = []
    for _ in range(4):
        run += sweep.run(3)
        sweep.start().propose()  # and is killed
    assert hyperparameters_of(run) == uninterrupted


def test_random_search_runs_a_point_that_was_cut_off_while_later_ones_finished():
    uninterrupted = hyperparameters_of(Sweep(search_of("random")).run(8))
    sweep = Sweep(search_of("random"))
    proposer = sweep.start()
    proposals = [proposer.propose() for _ in range(6)]
    for number in (0, 1, 2, 4):
        sweep.record(proposals[number])
    assert hyperparameters_of(sweep.run(4)) == [uninterrupted[i] for i in (3, 5, 6, 7)]


def test_grid_runs_every_point_once():
    sweep = Sweep(search_of("grid", SMALL_SPACE))
    space = sweep.search.space
    # power 1 or 2; reduction max, mean, or softmax at 3 temperatures: 10 points, one of them the paper's setting
    assert len(list(space.points())) == 10
    run = [*sweep.run(4), *sweep.run(2, failing=lambda proposal: True), *sweep.run(6)]
    points = [as_text(p.hyperparameters) for p in run if sweep.records[p.number]["state"] == "finished"]
    points = [point for point in points if "loss.method" not in point]
    assert len(points) == 8 and len(set(points)) == 8
    proposer = sweep.start()
    rest = [proposer.propose() for _ in range(3)]
    assert rest[2] is None
    points += [as_text(proposal.hyperparameters) for proposal in rest[:2]]
    assert sorted(points) == sorted(map(as_text, space.points()))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "random"])
def test_small_space_is_run_whole_without_repeats(sampler):
    fixed = ("loss.estimator.kind", "loss.temperature")
    sweep = Sweep(search_of(sampler, space_maker("penalty", fixed)(["en", "de"], SETTINGS)))
    # power 1 or 2; reduction max, mean or softmax: 6 configurations, one of them the paper's, and ERM twice
    run = [*sweep.run(5), *sweep.run(3)]
    assert len({sweep.search.config_key(proposal.hyperparameters) for proposal in run}) == 8
    proposer = sweep.start()
    assert proposer.propose() is None
    assert all(trial.state.is_finished() for trial in proposer.study.trials)


def test_arms_can_be_added_and_arms_of_other_calls_are_not_run():
    records = {}

    def call(*names):
        sweep = Sweep(Search("arms", ablation(["en"], SETTINGS, names), SETTINGS))
        sweep.records = records
        return sweep

    assert labels_of(call("ERM", "minimax", "V-REx").run(1)) == ["ERM"]
    (proposal,) = call("ERM", "CVaR-DRO").run(1)
    assert proposal.label == "CVaR-DRO" and proposal.hyperparameters["loss.method"] == "cvar_dro"
    assert labels_of(call("minimax").run(1, failing=lambda proposal: True)) == ["minimax"]
    assert not call("ERM", "V-REx").start().retried  # minimax failed, but is not asked for
    assert labels_of(call("ERM", "V-REx").run(1)) == ["V-REx"]
    (record,) = call("ERM", "minimax").start().retried
    assert record["label"] == "minimax"
    assert labels_of(call("ERM", "minimax").run(1)) == ["minimax"]
    with pytest.raises(ValueError, match="only named configurations"):
        call("ERM", "minimax").start().propose()


def test_every_arm_is_a_configuration_of_its_own():
    plain = Settings().with_overrides({"control.fraction": 0.5, "modalities": ["speech", "speech+text"]})
    in_use = cells(["en", "de"], plain.modalities)
    arms = arms_of(plain.modalities)
    chosen = [plain.with_overrides(arm.fixed) for arm in arms]
    assert all(not context_errors(settings, Parallelism(), ["en", "de"], 2) for settings in chosen)
    ids = {config_id(settings, in_use, "corpus", "backbone") for settings in chosen}
    assert len(ids) == len(arms) == len({arm.label for arm in arms})


def test_optuna_knows_several_objectives_and_constraint_violations():
    search_objectives = SearchObjectives(
        objectives=(("dev_uar", "max"), ("seconds", "min"), ("dev_gap@de", "min")),
        constraints=(Constraint("dev_worst_gap", "<=", 0.1),),
    )

    def metrics(number):
        return {"dev_uar": 0.4, "seconds": 9.0, "dev_gap@de": 0.02, "dev_worst_gap": 0.1 + 0.01 * (number - 2)}

    sweep = Sweep(search_of(search_objectives=search_objectives), metrics)
    proposer = sweep.start()
    for _ in range(4):
        proposal = proposer.propose()
        sweep.record(proposal)
        proposer.finish(proposal.trial, metrics(proposal.number))
    for study in (proposer.study, sweep.start().study):
        violations = [{"dev_worst_gap<=0.1": pytest.approx(0.01 * (number - 2))} for number in range(4)]
        assert [dict(trial.constraints) for trial in study.trials] == violations
        assert study.trials[0].values == [0.4, 9.0, 0.02]
        assert {trial.number for trial in study.best_trials} == {0, 1, 2}  # equal values; trial 3 violates


def test_trials_inform_a_space_with_more_hyperparameters():
    sweep = Sweep(search_of(space=space_maker("schedules")(["en", "de"], SETTINGS)))
    sweep.run(6)
    sweep.search = search_of(space=space_maker("schedules+training")(["en", "de"], SETTINGS))
    trials = sweep.start().study.trials
    assert [trial.values for trial in trials] == [record["values"] for record in sweep.records.values()]
    inside = [trial for trial in trials if trial.params]
    assert len(inside) >= 4
    schedule = "loss.fairness_weight.schedule"
    for trial in inside:  # the new hyperparameter has the value that the trials ran with
        assert trial.params["optimisation.learning_rate"] == SETTINGS.optimisation.learning_rate
        assert trial.params[schedule] == sweep.records[trial.number]["hyperparameters"][schedule]
    (proposal,) = sweep.run(1)
    assert "optimisation.learning_rate" in proposal.hyperparameters and proposal.number == 6


def test_trials_inform_a_space_with_other_ranges_where_they_lie_inside():
    name = "optimisation.weight_decay"

    def space(low, high):
        return Space("decay", (Hyperparameter(name=name, reason="-", default=high, low=low, high=high),), ())

    sweep = Sweep(search_of("random", space(0.1, 1.0)))
    values = [hyperparameters[name] for hyperparameters in hyperparameters_of(sweep.run(8))]
    for low, high in ((0.01, 1.0), (0.4, 1.0)):
        sweep.search = search_of("tpe", space(low, high))
        proposer = sweep.start()
        assert [trial.params.get(name) for trial in proposer.study.trials] == [
            value if low <= value <= high else None for value in values
        ]
        assert all(trial.state == TrialState.COMPLETE for trial in proposer.study.trials)
        assert low <= proposer.propose().hyperparameters[name] <= high


def test_more_seeds_change_the_values_that_optuna_has():
    sweep = Sweep(search_of())
    sweep.run(4)
    sweep.records[3]["values"] = [0.45, 0.02]
    assert [trial.values for trial in sweep.start().study.trials] == [
        record["values"] for record in sweep.records.values()
    ]


def test_finished_trial_with_an_undefined_objective_fails_and_is_not_run_again():
    sweep = Sweep(search_of("random"))
    hyperparameters = sweep.run(4)[3].hyperparameters
    sweep.records[3]["values"] = [0.4, None]
    proposer = sweep.start()
    assert [trial.state for trial in proposer.study.trials] == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]
    assert proposer.propose().hyperparameters != hyperparameters


def test_journal_can_be_loaded_by_optuna(tmp_path):
    sweep = Sweep(search_of())
    sweep.run(5)
    proposer = sweep.start()
    proposer.finish(proposer.propose().trial, sweep.metrics(5))
    path = tmp_path / "journal.log"
    path.write_bytes(proposer.journal())
    loaded = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert len(loaded.trials) == 6
    for exported, trial in zip(loaded.trials, proposer.study.trials, strict=True):
        assert (exported.number, exported.state, exported.values, exported.params, exported.user_attrs) == (
            trial.number, trial.state, trial.values, trial.params, trial.user_attrs,
        )  # fmt: skip
