"""Trial records: missing seeds, and trials without a record."""

from __future__ import annotations

import pytest

from study.config.settings import Parallelism
from study.search.optuna_study import Proposer
from study.search.trial_records import (
    TrialTemplate,
    read_finished_runs,
    result_record,
    trial_record,
    trials_with_missing_seeds,
    unfinished_seeds,
    unrecorded_points,
    update_trial_records,
)
from study.storage.records import write_trial
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies
from tests.study.search.test_proposer import SETTINGS, SPACE, search_of


@pytest.fixture
def template(tmp_path):
    return TrialTemplate(
        settings=SETTINGS,
        parallelism=Parallelism(),
        seeds=(0, 1),
        features=tmp_path,
        backbone="tiny",
        cells=search_of().cells,
        corpus_hash="c",
        backbone_hash="b",
        folder=StudyFolder(str(tmp_path / "s")),
        use_gpu=False,
    )


def begin_run(template, hyperparameters, seed=0):
    """Write what a run leaves when it begins; returns its config_id."""
    settings = template.settings.with_overrides(hyperparameters)
    config_id = template.config_id(hyperparameters)
    record = {"settings": settings.model_dump(mode="json"), "parallelism": {}, "seed": seed}
    template.folder.write_json(f"runs/{config_id}/{seed}/settings.json", record)
    return config_id


def finish_run(template, config_id, seed, w_f1):
    finished = {"seed": seed, "dev": studies.figures(w_f1, 0.1)}
    template.folder.write_json(f"runs/{config_id}/{seed}/finished.json", finished)


def proposals(count):
    proposer = Proposer(search_of(), {})
    return [proposer.propose() for _ in range(count)]


def write_record(template, proposal, state):
    suggestion = {**proposal.hyperparameters, "number": proposal.number, "label": proposal.label}
    record = {**trial_record(suggestion, template), "state": state, "seconds": 1.0}
    write_trial(template.folder, {**record, "values": [0.4, 0.1] if state == "finished" else None})


def test_runs_without_a_trial_record_are_points_to_run_again(template):
    trials = proposals(8)
    states = [None, None, "finished", "failed", "pruned", None, None, None]
    for proposal, state in zip(trials[:7], states, strict=False):  # the last one has not begun
        begin_run(template, proposal.hyperparameters)
        if state:
            write_record(template, proposal, state)
    points = unrecorded_points(template, search_of(), StudyState(template.folder))
    # ERM lies outside the space and is run again by its label
    expected = [trials[1].hyperparameters, trials[5].hyperparameters, trials[6].hyperparameters]
    assert sorted(points, key=str) == sorted(expected, key=str)


def test_interrupted_search_runs_its_trials_again(template):
    trials = proposals(6)
    for proposal in trials:
        begin_run(template, proposal.hyperparameters)
    for proposal in trials[:3]:
        write_record(template, proposal, "finished")
    state = StudyState(template.folder)
    resumed = Proposer(search_of(), state.trials, unrecorded_points(template, search_of(), state))
    again = [resumed.propose().hyperparameters for _ in range(3)]
    assert sorted(again, key=str) == sorted((proposal.hyperparameters for proposal in trials[3:]), key=str)


def test_run_of_other_settings_is_not_run_again(template):
    """Its settings are those of a point of the space except for one that is not searched."""
    begin_run(template, {**proposals(4)[3].hyperparameters, "optimisation.batch_size": 4})
    assert unrecorded_points(template, search_of(), StudyState(template.folder)) == []


def test_finished_trial_gets_its_missing_seeds_and_then_their_results(template):
    hyperparameters = dict(SPACE.baselines[1].hyperparameters)
    config_id = template.config_id(hyperparameters)
    finish_run(template, config_id, 0, 0.4)
    record = trial_record({**hyperparameters, "number": 1, "label": "paper's setting"}, template)
    result = result_record(template.search_objectives, [{"seed": 0, "dev": studies.figures(0.4, 0.1)}])
    for number in (1, 4):  # a configuration may have two records
        outcome = {"state": "finished", "seconds": 1.0, "failed_seeds": {"1": "killed"}, **result}
        write_trial(template.folder, {**record, "number": number, **outcome})
    state = StudyState(template.folder)
    assert [trial["number"] for trial in trials_with_missing_seeds(template, state)] == [4]
    assert unfinished_seeds(template, config_id) == [1]
    update_trial_records(template, state)
    assert state.trials[1]["by_seed"] == {"0": [0.4, 0.1]}

    finish_run(template, config_id, 1, 0.6)
    state.refresh()
    assert trials_with_missing_seeds(template, state) == []
    update_trial_records(template, state)
    for trial in StudyState(template.folder).trials.values():
        assert trial["by_seed"] == {"0": [0.4, 0.1], "1": [0.6, 0.1]} and "failed_seeds" not in trial
        assert trial["values"] == pytest.approx([0.5, 0.1])
    assert state.trials == StudyState(template.folder).trials
    assert len(read_finished_runs(template, config_id)) == 2
