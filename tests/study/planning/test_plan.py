"""From options and a corpus to a plan; invalid requests are refused before anything is written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from study.cli.describe import describe_data
from study.cli.request import search_request
from study.cli.sweep import make_parser
from study.common.errors import SettingsError
from study.planning.plan import build_plan
from study.planning.study_json import conflicts, save_plan, space_conflicts, space_record, study_record
from study.storage.records import read_study
from study.storage.study_state import StudyState
from tests.study.data.corpora.builders import write_csv, write_wav


@pytest.fixture
def manifest(tmp_path):
    """A function that writes a manifest of ten German speakers without a surprised clip and returns its flag."""

    def write(**columns):
        rows = []
        for i in range(20):
            row = {"path": f"{i}.wav", "emotion": "joy" if i % 2 else "sad", "language": "de", "speaker": i // 2}
            rows.append({**row, "gender": "female" if i < 10 else "male", **columns})
            write_wav(tmp_path / f"{i}.wav")
        write_csv(tmp_path / "m.csv", rows)
        return f"manifest:{tmp_path / 'm.csv'}"

    return write


def plan(tmp_path, *flags):
    options = [
        "--storage",
        str(tmp_path / "results"),
        "--set",
        "optimisation.batch_size=8",
        "--num-workers",
        "1",
        *flags,
    ]
    return build_plan(search_request(*make_parser().read(options), cores=2))


def test_corpus_without_transcripts_is_used_for_speech_only(tmp_path, manifest):
    spec = manifest()
    planned = plan(tmp_path, "--corpus", spec, "--modalities", "speech")
    assert planned.counts() == {"train": 12, "dev": 4, "test": 4}
    assert planned.languages == ("de",)
    with pytest.raises(SettingsError, match=r"--modalities speech\+text: the corpus has no transcripts of language de"):
        plan(tmp_path, "--corpus", spec, "--modalities", "speech,speech+text")
    assert plan(tmp_path, "--corpus", manifest(transcript="Ja."), "--modalities", "speech+text")


def test_plan_names_truncated_clips(tmp_path, manifest):
    spec = manifest(transcript="Ja.")
    write_wav(tmp_path / "3.wav", 90 * 16_000)
    lines = []
    describe_data(plan(tmp_path, "--corpus", spec), SimpleNamespace(print=lines.append))
    message = f"{tmp_path / 'm.csv'}, row 5: {tmp_path / '3.wav'}: 90.00 s long, only the first 30 s are used"
    assert lines[-1] == f"shortened  {message}"


def test_split_option_decides_the_split(tmp_path, manifest):
    spec = manifest(transcript="Ja.")
    with pytest.raises(SettingsError, match="has no split column"):
        plan(tmp_path, "--corpus", spec, "--split", "official")
    with pytest.raises(SettingsError, match="--split: .*'parallel', 'official' or 'speaker'"):
        plan(tmp_path, "--corpus", spec, "--split", "random")
    assert plan(tmp_path, "--corpus", spec, "--split", "speaker").request.settings.corpus.split == "speaker"


def test_loudness_changes_the_content_hash(tmp_path, manifest):
    spec = manifest(transcript="Ja.")
    recorded, level = (
        plan(tmp_path, "--corpus", spec, "--set", f"corpus.loudness={how}") for how in ("as_recorded", "rms")
    )
    assert recorded.corpus.content_hash != level.corpus.content_hash


def test_every_invalid_row_is_reported_and_nothing_is_written(tmp_path, manifest):
    spec = manifest(transcript="Ja.", gender="x")
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, "--corpus", spec)
    assert "20 errors:" in str(caught.value) and "m.csv, row 21: unknown gender 'x'" in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_objectives_sampler_and_grid_are_checked_before_the_start(tmp_path, manifest, monkeypatch):
    options = ("--corpus", manifest(transcript="Ja."), "--space", "schedules")
    grid = plan(tmp_path, *options, "--sampler", "grid", "--trials", "42", "--objectives", "uar@de:max,seconds:min")
    assert grid.request.search_objectives.objectives == (("dev_uar@de", "max"), ("seconds", "min"))
    assert all(hyperparameter.choices for hyperparameter in grid.space.hyperparameters)
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, *options, "--sampler", "grid", "--trials", "43", "--objectives", "gap@ja:min,w_f1:max")
    # 39 points (tests/search_spaces/test_search_spaces.py) and three baseline configurations
    assert "--trials: 43 requested, but the grid has 39 points, with the baseline configurations 42" in str(
        caught.value
    )
    assert "there is no metric dev_gap@ja; choose from dev_w_f1" in str(caught.value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("study.planning.validation.GRID_LIMIT", 38)
    with pytest.raises(
        SettingsError, match="the space schedules has over 38 points; --set some of its hyperparameters"
    ):
        plan(tmp_path, *options, "--sampler", "grid")
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, *options, "--sampler", "gp", "--budget", "0", "--constraint", "gap", "--cache", "s3://b/c")
    assert len(
        caught.value.errors
    ) == 4 and "--cache s3://b/c: must be a folder, since its files are memory-mapped" in str(caught.value)
    assert not (tmp_path / "s3:").exists()


def test_space_of_choices_limits_the_number_of_trials(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."), "--space", "penalty", "--set", "loss.estimator.kind=batch")
    options = (*options, "--set", "loss.temperature=0.1", "--trials")
    assert plan(tmp_path, *options, "8").space.finite  # two powers, three reductions, and ERM with and without balance
    with pytest.raises(
        SettingsError, match="--trials: 9 requested, but the space penalty has 6 points, .*; use at most 8"
    ):
        plan(tmp_path, *options, "9")


def test_fixed_settings_are_not_searched(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."), "--space", "schedules")
    fixed = plan(tmp_path, *options, "--set", "loss.fairness_weight.step_size=1.0")
    assert "loss.fairness_weight.step_size" not in {
        hyperparameter.name for hyperparameter in fixed.space.hyperparameters
    }
    with pytest.raises(SettingsError, match="--set loss.method: the space schedules sets it"):
        plan(tmp_path, *options, "--set", "loss.method=group_dro")


@pytest.mark.parametrize(
    ("schedule", "children"),
    [
        ("constant", ["weight"]),
        ("cosine", ["weight", "ramp_fraction"]),
        ("step", ["weight", "start_fraction"]),
        ("adaptive", ["initial", "step_size"]),
    ],
)
def test_fixed_schedule_leaves_its_own_hyperparameters_to_search(tmp_path, manifest, schedule, children):
    options = ("--corpus", manifest(transcript="Ja."), "--space", "schedules")
    planned = plan(tmp_path, *options, "--set", f"loss.fairness_weight.schedule={schedule}")
    assert [hyperparameter.name.rpartition(".")[2] for hyperparameter in planned.space.hyperparameters] == children
    assert planned.request.settings.loss.fairness_weight.schedule == schedule


def test_pinned_hyperparameter_is_part_of_the_study(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."), "--space", "schedules+penalty")
    ramp, decay = "loss.fairness_weight.ramp_fraction", "loss.estimator.decay"
    planned = plan(tmp_path, *options, "--set", f"{ramp}=0.25", "--set", f"{decay}=0.8")
    choices = {hyperparameter.name: hyperparameter.choices for hyperparameter in planned.space.hyperparameters}
    assert choices[ramp] == (0.25,) and choices[decay] == (0.8,)
    record = study_record(planned, "hash")
    assert conflicts(record, planned.request) == []
    assert conflicts(record, plan(tmp_path, *options, "--set", f"{ramp}=0.25").request) == [
        f"{decay}: 0.8 in the study, None in this call"
    ]
    with pytest.raises(SettingsError, match="ramp_fraction at 7: .*less than or equal to 1"):
        plan(tmp_path, *options, "--set", f"{ramp}=7")
    with pytest.raises(SettingsError, match="loss.estimator.decay: there is no such setting"):
        plan(tmp_path, *options[:3], "schedules", "--set", f"{decay}=0.8")


def test_study_may_grow_in_trials_seeds_and_hyperparameters_only(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."))
    narrow = plan(tmp_path, *options, "--space", "schedules", "--seeds", "0,1")
    record = study_record(narrow, "hash")
    grown = plan(tmp_path, *options, "--space", "schedules+training", "--seeds", "0,1,2", "--trials", "50")
    assert conflicts(record, grown.request) == [] == space_conflicts(record, space_record(grown))
    (gone,) = space_conflicts(study_record(grown, "hash"), space_record(narrow))
    assert gone.startswith(
        "--space: 'schedules+training' in the study, 'schedules' in this call (without optimisation.learning_rate"
    )
    fewer = plan(tmp_path, *options, "--space", "schedules", "--seeds", "1", "--objectives", "uar:max,gap:min")
    assert conflicts(record, fewer.request) == [
        "--objectives: 'dev_w_f1:max,dev_gap:min' in the study, 'dev_uar:max,dev_gap:min' in this call",
        "--seeds: [0, 1] in the study, [1] in this call",
    ]
    shorter = {**record, "hyperparameters": [dict(hyperparameter) for hyperparameter in record["hyperparameters"]]}
    shorter["hyperparameters"][1]["high"] = 5.0
    (narrower,) = space_conflicts(shorter, space_record(narrow))
    assert "fairness_weight.weight: 0.03 … 5 (log) 1/nat in the study, 0.03 … 3 (log) 1/nat in this call" in narrower


def test_study_json_records_the_search_of_the_latest_call(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."), "--study", "s", "--epochs", "9")
    first = plan(tmp_path, *options, "--trials", "9", "--space", "schedules")
    save_plan(first.request, study_record(first, "hash"), StudyState(first.request.folder))
    first.request.folder.write_jsonl("runs/abc/0/epochs.jsonl", [])  # a run has started
    more = ("--trials", "5", "--space", "schedules+training", "--sampler", "nsga2", "--early-stopping", "mo-asha")
    second = plan(tmp_path, *options, *more)
    save_plan(second.request, study_record(second, "hash"), StudyState(second.request.folder))
    record = read_study(second.request.folder)
    assert (record["sampler"], record["space"], record["trials"]) == ("nsga2", "schedules+training", 9)
    assert record["early_stopping"] == {"reduction_factor": 3, "grace_period": 1}


def test_sampler_seed_and_retries_are_options_of_a_search(tmp_path, manifest):
    options = ("--corpus", manifest(transcript="Ja."))
    planned = plan(tmp_path, *options, "--sampler-seed", "3", "--retries", "2")
    assert (planned.request.sampler_seed, planned.request.retries) == (3, 2)
    record = study_record(planned, "hash")
    assert record["sampler_seed"] == 3
    assert conflicts(record, plan(tmp_path, *options).request) == ["--sampler-seed: 3 in the study, 0 in this call"]
    del record["sampler_seed"]  # a study from before there was one
    assert conflicts(record, plan(tmp_path, *options).request) == []
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, *options, "--sampler-seed", "-1", "--retries", "-1")
    assert [message.split(":")[0] for message in caught.value.errors] == ["--sampler-seed", "--retries"]


def test_early_stopping_needs_a_rung_before_the_last_epoch(tmp_path, manifest):
    flags = ("--corpus", manifest(), "--modalities", "speech", "--early-stopping")
    assert plan(tmp_path, *flags, "mo-asha:grace_period=2").request.early_stopping.rungs(3) == (2,)
    assert plan(tmp_path, *flags, "none").request.early_stopping is None
    with pytest.raises(
        SettingsError, match=r"--early-stopping: grace_period 3 must be less than the number of epochs \(3\)"
    ):
        plan(tmp_path, *flags, "mo-asha:grace_period=3")
    with pytest.raises(SettingsError, match="--early-stopping: reduction_factor: "):
        plan(tmp_path, *flags, "mo-asha:reduction_factor=1")


def test_early_stopping_ranks_by_dev_metrics_but_not_by_seconds(tmp_path, manifest):
    flags = ("--corpus", manifest(), "--modalities", "speech", "--early-stopping", "mo-asha", "--objectives")
    assert plan(tmp_path, *flags, "worst_group_w_f1:max,gap_tpr@de:min").request.early_stopping
    with pytest.raises(SettingsError, match="--early-stopping: seconds is known only after a whole run"):
        plan(tmp_path, *flags, "uar:max,gap:min,seconds:min")


def test_trackers_must_be_known_and_installed(tmp_path, manifest, monkeypatch):
    options = ("--corpus", manifest(transcript="Ja."), "--report-to")
    monkeypatch.setattr("study.ray_backend.loggers.find_spec", lambda name: None if name == "wandb" else object())
    assert plan(tmp_path, *options, "mlflow").request.trackers == ("mlflow",)
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, *options, "wandb,tape")
    unknown, absent = caught.value.errors
    assert unknown == "--report-to: there is no 'tape'; choose from mlflow, wandb"
    assert absent == "--report-to: wandb is not installed; pip install wandb"
