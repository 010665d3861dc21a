"""Loading a study; every expected number is written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.loading.study import (
    COMPARISON,
    ERM,
    PAPER,
    family_of,
    load_epochs,
    load_study,
    open_folder,
)
from analysis.stats.bootstrap import bootstrap
from analysis.stats.cluster_counts import counts_of
from analysis.stats.permutation import noise_floor
from study.common.errors import RecordError
from tests.analysis import studies


def test_figures_are_averaged_over_seeds(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    studies.write_trial(folder, 0, "aa", "ERM", {"loss.method": "erm"})
    studies.write_run(folder, "aa", 0, studies.figures(0.60, 0.10), studies.figures(0.50, 0.20))
    studies.write_run(folder, "aa", 1, studies.figures(0.70, 0.06), studies.figures(0.56, 0.10))

    study = load_study(folder)

    assert len(study.runs) == 2
    row = study.configurations.iloc[0]
    assert row["dev_w_f1"] == pytest.approx(0.65)
    assert row["dev_gap"] == pytest.approx(0.08)
    assert row["test_w_f1"] == pytest.approx(0.53)
    assert row["test_gap"] == pytest.approx(0.15)
    assert (row["n_seeds"], row["complete"], row["seconds"]) == (2, True, 20)
    assert (row["name"], row["family"]) == ("ERM", "ERM")
    assert len(study.cells) == 2 * 2  # seeds and splits of one cell
    assert study.configuration("ERM") is not None and study.configuration("paper's setting") is None


def test_missing_seeds_make_a_configuration_incomplete(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    studies.write_trial(folder, 0, "aa")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    studies.write_run(folder, "aa", 1, studies.figures(0.9, 0.0), studies.figures(0.9, 0.0), marker=False)

    row = load_study(folder).configurations.iloc[0]

    assert (row["n_seeds"], row["complete"], row["dev_w_f1"]) == (1, False, 0.6)


def test_planned_seeds_cannot_be_replaced_by_others(tmp_path: Path) -> None:
    """Two seeds are planned, 0 and 1, and two have finished, 0 and 7."""
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1, 7))
    studies.write_trial(folder, 0, "aa")
    for seed in (0, 7):
        studies.write_run(folder, "aa", seed, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    assert load_study(folder).configurations["complete"].tolist() == [False]
    studies.write_plan(tmp_path / "s", seeds=(0, 1))
    with pytest.raises(RecordError, match=r"runs/aa/7 has seed 7, .* its seeds are 0, 1\. Add it with --seeds"):
        load_study(folder)


PREDICTIONS, UTTERANCES = "runs/00abcdefabcd/0/predictions.parquet", "utterances.parquet"
RESTART = "start the study again"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (PREDICTIONS, None, f"is missing.*finished.json.*{RESTART}"),
        (PREDICTIONS, b"PAR1 and no more", f"cannot be read.*{RESTART}"),
        (PREDICTIONS, {"modality": None}, "lacks modality"),
        (PREDICTIONS, {"score_joy": np.nan}, f"score that is NaN.*{RESTART}"),
        (PREDICTIONS, {"split": "test"}, f"has no dev predictions.*{RESTART}"),
        (UTTERANCES, None, "is missing. Start the study again"),
        (UTTERANCES, b"", "cannot be read.*Start the study again"),
        (UTTERANCES, {"gender": None}, "lacks gender"),
        (UTTERANCES, {"utterance_id": "u0"}, "lists 'u0' twice"),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_damaged_tables_are_named(tmp_path: Path, name: str, damage: object, words: str, recompute: bool) -> None:
    """Both when predictions are read, and when figures are computed again from them."""
    folder = studies.write_whole_study(tmp_path / "s", per_cell=10, configurations=1)
    frame = folder.read_parquet(name)
    if isinstance(damage, dict):
        ((column, value),) = damage.items()
        folder.write_parquet(name, frame.drop(columns=column) if value is None else frame.assign(**{column: value}))
    elif isinstance(damage, bytes):
        folder.write_bytes(name, damage)
    else:
        folder.remove(name)
    with pytest.raises(RecordError, match=rf"{name}.*{words}"):
        if recompute:
            load_study(folder, "gap_of_means")
        study = load_study(folder)
        study.predictions("00abcdefabcd", 0, "dev")


def test_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=10, configurations=1)
    study, whole = load_study(folder), folder.read_bytes(PREDICTIONS)
    for length in np.linspace(0, len(whole) - 1, 30).astype(int):
        folder.write_bytes(PREDICTIONS, whole[:length])
        with pytest.raises(RecordError, match=f"{PREDICTIONS} cannot be read"):
            study.predictions("00abcdefabcd", 0, "dev")


@pytest.mark.parametrize(
    ("name", "lacks", "words"),
    [
        ("trials/00000.json", ["state"], "lacks state.*Move it away"),
        ("trials/00000.json", ["state", "config_id"], "lacks config_id, state"),
        ("runs/aa/0/finished.json", ["dev"], f"lacks dev.*Delete runs/aa/0/finished.json.*{RESTART}"),
        ("study.json", ["seeds"], "lacks seeds"),
    ],
)
def test_records_with_missing_fields_are_named(tmp_path: Path, name: str, lacks: list[str], words: str) -> None:
    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    folder.write_json(name, {key: value for key, value in folder.read_json(name).items() if key not in lacks})
    with pytest.raises(RecordError, match=rf"{name} {words}"):
        load_study(folder)
    for other in ({}, [], None):
        folder.write_json(name, other)
        with pytest.raises(RecordError, match=f"{name} (lacks|does not contain|holds no|has schema version None)"):
            load_study(folder)


def test_finished_record_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    folder.write_bytes("runs/aa/1/finished.json", folder.read_bytes("runs/aa/0/finished.json"))
    with pytest.raises(RecordError, match="runs/aa/1/finished.json belongs to configuration aa, seed 0"):
        load_study(folder)


def test_failed_trials_are_separate_even_with_finished_runs(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa")
    studies.write_trial(folder, 1, "bb", reason="loss is not finite")
    studies.write_trial(folder, 2, "cc", reason="a worker died")
    studies.write_trial(folder, 3, "cc")  # the same configuration, tried again
    for config_id in ("aa", "bb", "cc"):
        studies.write_run(folder, config_id, 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))

    study = load_study(folder)

    assert study.configurations["config_id"].tolist() == ["aa", "cc"]
    assert study.failed[["number", "reason"]].to_numpy().tolist() == [[1, "loss is not finite"]]


def test_configuration_proposed_twice_is_one_row_with_its_label(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 3, "aa")
    studies.write_trial(folder, 5, "aa", label="paper's setting")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))

    rows = load_study(folder).configurations

    assert rows[["number", "name"]].to_numpy().tolist() == [[3, "paper's setting"]]


def test_run_without_a_trial_record_is_named_by_its_id(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa")
    for config_id in ("aa", "0123456789ab"):
        studies.write_run(folder, config_id, 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))

    assert load_study(folder).configurations["name"].tolist() == ["trial 0", "run 012345"]


def test_one_undefined_gap_makes_the_mean_undefined(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    studies.write_trial(folder, 0, "aa")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, None), studies.figures(0.5, None))
    studies.write_run(folder, "aa", 1, studies.figures(0.6, 0.1), studies.figures(0.5, 0.1))

    assert np.isnan(load_study(folder).configurations["dev_gap"].iloc[0])


def test_epochs_and_predictions_are_joined_with_their_configuration_and_utterance(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", per_cell=10, configurations=2))
    epochs = load_epochs(study)
    assert epochs[["name", "epoch"]].to_numpy().tolist() == [
        ["ERM", 1],
        ["ERM", 2],
        ["paper's setting", 1],
        ["paper's setting", 2],
    ]

    config_id = study.configurations["config_id"].iloc[0]
    dev = study.predictions(config_id, 0, "dev")
    assert len(dev) == 3 * 2 * 10
    assert set(dev["split"]) == {"dev"}
    assert {"speaker", "gender", "emotion", "predicted", "modality"} <= set(dev)

    study.folder.write_parquet("utterances.parquet", study.records.utterances.drop(index=0))
    with pytest.raises(RecordError, match="1 dev predictions of utterances"):
        load_study(study.folder).predictions(config_id, 0, "dev")


def test_relative_paths_are_resolved_and_missing_studies_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies.write_plan(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    assert load_study("s/").plan["name"] == "s"
    assert open_folder("s3://bucket/s/").uri == "s3://bucket/s"
    with pytest.raises(RecordError, match="no study at .*elsewhere"):
        load_study("elsewhere")


@pytest.mark.parametrize(
    ("hyperparameters", "label", "family"),
    [
        ({"loss.fairness_weight.schedule": "cosine"}, None, "cosine"),
        ({"loss.method": "erm", "loss.sampling": "balanced"}, "ERM, balanced", COMPARISON),
        ({"loss.method": "v_rex", "loss.fairness_weight.schedule": "linear"}, None, COMPARISON),
        ({"loss.method": "erm"}, ERM, ERM),
        ({"loss.fairness_weight.schedule": "adaptive"}, PAPER, PAPER),
        ({"loss.power": 1}, None, "default"),
    ],
)
def test_family_of(hyperparameters: dict, label: str | None, family: str) -> None:
    assert family_of(hyperparameters, label) == family


def test_family_follows_the_settings_if_no_hyperparameter_names_it() -> None:
    settings = {"loss": {"method": "minmaxgap", "fairness_weight": {"schedule": "adaptive", "initial": 0.0}}}
    assert family_of({"loss.power": 1}, "power 1", settings) == "adaptive"
    assert family_of({"loss.fairness_weight.schedule": "linear"}, None, settings) == "linear"
    assert family_of({"loss.power": 1}, None, {"loss": {"method": "v_rex"}}) == COMPARISON


def test_class_average_applies_to_records_resamples_and_noise_floor(tmp_path: Path) -> None:
    """Gaps of opposite sign cancel in the gap of means, in records, resamples and noise floor."""
    folder = studies.write_whole_study(tmp_path / "s", per_cell=40, speakers=6, configurations=2)
    by_class, of_means = load_study(folder), load_study(folder, "gap_of_means")

    assert (of_means.runs["dev_gap_tpr"] < by_class.runs["dev_gap_tpr"]).all()
    assert of_means.runs["dev_w_f1"].tolist() == pytest.approx(by_class.runs["dev_w_f1"].tolist())
    cells = of_means.cells
    assert cells["absolute_tpr"].tolist() == pytest.approx(cells["signed_tpr"].abs().tolist())
    assert by_class.cells["signed_tpr"].tolist() == pytest.approx(cells["signed_tpr"].tolist())

    config_id = of_means.configurations["config_id"].iloc[0]
    counts = [counts_of(s, config_id, "dev", "speaker") for s in (by_class, of_means)]
    for study, made in zip((by_class, of_means), counts, strict=True):
        draws = bootstrap(made, ("avg",), 20)
        assert draws.of("avg", range(3))[0].mean() == pytest.approx(study.configurations["dev_gap"].iloc[0])
    by_class_mean, of_means_mean = (np.nanmean(bootstrap(made, ("avg",), 20).draws) for made in counts)
    assert of_means_mean < by_class_mean
    floors = [noise_floor(made, 20) for made in counts]
    assert floors[1].mean < floors[0].mean
    with pytest.raises(ValueError, match="class_average"):
        load_study(folder, "median")  # type: ignore[arg-type]


def test_tables_have_groups_and_gaps_at_common_priors(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", per_cell=40, speakers=6, configurations=1))
    finished = study.folder.read_json("runs/00abcdefabcd/0/finished.json")
    german = finished["test"]["cells"]["de/speech+text"]
    row = study.cells.query("split == 'test' and language == 'de'").iloc[0]

    assert row["standardised_w_f1"] == german["standardised"]["w_f1"] and row["invalid"] == 0.0
    assert row["w_f1_female"] == german["by_group"]["female"]["w_f1"] and row["invalid_male"] == 0.0
    run = study.runs.iloc[0]
    for figure in ("invalid", "gap_standardised", "worst_group_w_f1"):
        assert run[f"test_{figure}"] == pytest.approx(finished["test"][figure])
