"""Search spaces: content, combination, fixed and pinned settings, files, grids and errors."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces import SPACES, Hyperparameter, Space, space_maker
from search_spaces.__main__ import main
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, cells
from study.config.config_id import config_id
from study.config.presets import TINY
from study.config.settings import Parallelism, Settings, flatten
from study.planning.validation import baseline_errors, hyperparameter_errors

BOTH = Settings().with_overrides({**TINY, "modalities": ["speech", "speech+text"]})
SCHEDULE = "loss.fairness_weight.schedule"
WEIGHT = "loss.fairness_weight.weight"
STEP = "loss.fairness_weight.step_size"


def make_space(name, settings=BOTH, languages=LANGUAGES, fixed=()):
    return space_maker(name, fixed)(languages, settings)


def suggestions(space, count, seed=0):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", [*SPACES, "schedules+training", "penalty+coefficients_per_cell+schedules"])
def test_every_space_is_valid_and_suggests_valid_settings(name):
    space = make_space(name)
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    assert baseline_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    assert [baseline.label for baseline in space.baselines] == ["ERM", "paper's setting", "ERM, balanced"]
    for hyperparameters in suggestions(space, 20):
        flat = flatten(BOTH.with_overrides(hyperparameters).model_dump(mode="json"))
        assert {key: flat[key] for key in hyperparameters} == hyperparameters
    assert len({hyperparameter.name for hyperparameter in space.hyperparameters}) == len(space.hyperparameters)


def test_coefficients_have_no_redundant_hyperparameter():
    names = {
        kind: [
            hyperparameter.name.rpartition(".")[2]
            for hyperparameter in make_space(f"coefficients_per_{kind}").hyperparameters
        ]
        for kind in ("language", "modality", "cell")
    }
    assert names["language"] == ["ja", "de"] and names["modality"] == ["speech+text"]  # the first is fixed to 1
    assert names["cell"] == ["ja/speech", "de/speech", "en/speech+text", "ja/speech+text", "de/speech+text"]
    in_use = cells(LANGUAGES, BOTH.modalities)
    ids = {
        config_id(BOTH.with_overrides(k), in_use, "", "") for k in suggestions(make_space("coefficients_per_cell"), 30)
    }
    assert len(ids) == 30


def test_each_schedule_is_searched_with_its_own_parameters():
    parameters = {}
    for hyperparameters in suggestions(make_space("schedules"), 60):
        parameters[hyperparameters[SCHEDULE]] = {key.rpartition(".")[2] for key in hyperparameters} - {"schedule"}
    assert parameters == {
        "constant": {"weight"},
        "linear": {"weight", "ramp_fraction"},
        "cosine": {"weight", "ramp_fraction"},
        "step": {"weight", "start_fraction"},
        "adaptive": {"initial", "step_size"},
    }


def test_fixed_parent_removes_or_frees_its_conditional_hyperparameters():
    settings = BOTH.with_overrides({SCHEDULE: "step", WEIGHT: 0.5})
    space = make_space("schedules", settings, fixed=(SCHEDULE,))
    assert [hyperparameter.name.rpartition(".")[2] for hyperparameter in space.hyperparameters] == [
        "weight",
        "start_fraction",
    ]
    assert all(not hyperparameter.when for hyperparameter in space.hyperparameters)
    assert hyperparameter_errors(space, settings, Parallelism(), LANGUAGES) == []
    assert all(
        hyperparameters.keys() == {WEIGHT, "loss.fairness_weight.start_fraction"}
        for hyperparameters in suggestions(space, 3)
    )
    paper = space.baselines[1]  # it has another schedule, so it consists of fixed settings, as ERM does
    assert (
        not paper.hyperparameters and settings.with_overrides(paper.fixed).loss.fairness_weight.schedule == "adaptive"
    )
    with pytest.raises(SettingsError, match="nothing left to search"):
        make_space("schedules", settings, fixed=("loss.fairness_weight",))


def test_pinned_value_is_used_only_where_its_condition_holds():
    ramp = "loss.fairness_weight.ramp_fraction"
    space = space_maker("schedules", pinned={ramp: 0.25})(LANGUAGES, BOTH)
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    suggested = suggestions(space, 60)
    assert {hyperparameters[SCHEDULE] for hyperparameters in suggested} == {
        "constant",
        "linear",
        "cosine",
        "step",
        "adaptive",
    }
    assert all(
        hyperparameters.get(ramp) == (0.25 if hyperparameters[SCHEDULE] in ("linear", "cosine") else None)
        for hyperparameters in suggested
    )
    assert len(list(space.on_grid(3).points())) == 3 + 2 * 3 + 2 * 9  # linear and cosine: three weights each
    constant = BOTH.with_overrides({SCHEDULE: "constant", WEIGHT: 0.3})
    with pytest.raises(
        SettingsError, match="ramp_fraction: applies to no configuration .* only if .* is linear or cosine"
    ):
        space_maker("schedules", (SCHEDULE,), {ramp: 0.25})(LANGUAGES, constant)


def test_paper_setting_keeps_its_coefficients_when_others_are_fixed():
    settings = BOTH.with_overrides({"loss.coefficients.languages.ja": 3.0})
    space = make_space("fairness", settings, fixed=("loss.coefficients.languages.ja",))
    assert "loss.coefficients.languages.ja" not in {hyperparameter.name for hyperparameter in space.hyperparameters}
    paper = settings.with_overrides(space.baselines[1].fixed)
    assert set(paper.loss.coefficients.kappa(cells(LANGUAGES, BOTH.modalities))) == {1.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("power", 1),
        ("reduction", "mean"),
        ("estimator.kind", "ema"),
        ("sampling", "natural"),
        ("min_sample_weight", 0.0),
        ("fairness_weight.schedule", "constant"),
        ("fairness_weight.driver", "loss_gap"),
    ],
)
@pytest.mark.parametrize("name", ["fairness", "coefficients_per_language"])
def test_paper_setting_keeps_its_loss_when_settings_are_fixed(name, key, value):
    more = {"loss.fairness_weight.weight": 0.3} if value == "constant" else {}
    settings = Settings().with_overrides({f"loss.{key}": value, **more})
    space = make_space(name, settings, fixed=(f"loss.{key}",))
    (paper,) = (each for each in space.baselines if each.label == "paper's setting")
    loss = settings.with_overrides({**paper.hyperparameters, **paper.fixed}).loss
    assert set(loss.coefficients.kappa(cells(LANGUAGES, BOTH.modalities))) == {1.0}
    plain = Settings().with_overrides({"loss.fairness_weight.schedule": "adaptive"}).loss
    assert loss.model_copy(update={"coefficients": plain.coefficients}) == plain
    assert plain.power == 2 and plain.reduction == "max" and plain.estimator.kind == "batch"


def test_training_is_searched_around_the_values_of_the_study():
    by_name = {
        hyperparameter.name: hyperparameter for hyperparameter in make_space("training", Settings()).hyperparameters
    }
    rate = by_name["optimisation.learning_rate"]
    assert (rate.low, rate.default, rate.high) == pytest.approx((1e-5, 5e-5, 2.5e-4))
    rank = by_name["backbone.lora_rank"]
    assert (rank.low, rank.default, rank.high, rank.integer) == (4, 16, 64, True)
    assert all(
        isinstance(hyperparameters["backbone.lora_rank"], int)
        for hyperparameters in suggestions(make_space("training"), 5)
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fairnes", "there is no 'fairnes'; choose from fairness, schedules"),
        ("schedules+none", "there is no 'none'"),
        ("coefficients_per_cell+coefficients_per_language", "leave one out"),
        ("none.toml", "No such file"),
    ],
)
def test_unknown_space_is_an_error(name, words):
    with pytest.raises(SettingsError, match=words):
        make_space(name)


def test_one_cell_has_no_coefficients_to_search():
    with pytest.raises(SettingsError, match="has nothing to search with de and speech"):
        make_space("coefficients_per_cell", BOTH.with_overrides({"modalities": ["speech"]}), ["de"])


FILE = """
[[hyperparameter]]
name = "optimisation.weight_decay"
reason = "a tenth to ten times the paper's"
default = 0.01
low = 0.001
high = 0.1
scale = "log"

[[hyperparameter]]
name = "loss.fairness_updates_per_epoch"
reason = "how often the weight moves"
default = 1
low = 1
high = 4
integer = true
when = {"loss.fairness_weight.schedule" = ["adaptive"]}
"""


def test_file_is_a_space_alone_or_combined(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    space = make_space(f"schedules+{path}")
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    for hyperparameters in suggestions(space, 20):
        assert ("loss.fairness_updates_per_epoch" in hyperparameters) == (hyperparameters[SCHEDULE] == "adaptive")
        assert 0.001 <= hyperparameters["optimisation.weight_decay"] <= 0.1
    assert len(make_space(str(path)).hyperparameters) == 2  # the schedule is not searched, and is adaptive
    constant = BOTH.with_overrides({SCHEDULE: "constant", WEIGHT: 0.5})
    assert [hyperparameter.name for hyperparameter in make_space(str(path), constant).hyperparameters] == [
        "optimisation.weight_decay"
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("high = 0.1", "high = 0.0001", "low below high"),
        ("default = 0.01", "default = 1.0", "default 1.0, which is outside its range"),
        ("low = 0.001", "low = 0.0", "low must be above 0"),
        ('reason = "how often the weight moves"', "", "reason: Field required"),
        ("integer = true", "whole = true", "there is no such setting"),
        ("[[hyperparameter]]", "[[hyperparameters]]", "hyperparameter: Field required"),
        ("default = 1", "default =", "Invalid value"),
        ("weight.schedule", "weight.shedule", "fairness_weight.shedule, which is neither a setting"),
        (
            '["adaptive"]',
            '["adaptiv"]',
            "fairness_updates_per_epoch depends on .*schedule being 'adaptiv', which is impossible",
        ),
        ("optimisation.weight_decay", "corpus.loudness", "corpus.loudness cannot be searched: the corpus is read"),
        ("optimisation.weight_decay", "backbone.spec", "backbone.spec cannot be searched: the backbone is loaded"),
        ("optimisation.weight_decay", "prompt.question", "prompt.question cannot be searched"),
        ("optimisation.weight_decay", "modalities", "modalities cannot be searched"),
        ("optimisation.weight_decay", "control.fraction", "control.fraction cannot be searched"),
        ("optimisation.weight_decay", "optimisation.epochs", "optimisation.epochs cannot be searched"),
        (
            "optimisation.weight_decay",
            "computation.length_buckets",
            "length_buckets cannot be searched: it changes no result",
        ),
        ('["adaptive"]', "[]", "fairness_updates_per_epoch has a condition on .*schedule without values"),
    ],
)
def test_invalid_file_is_an_error_that_names_the_file(tmp_path, old, new, words):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(SettingsError, match=words) as caught:
        make_space(f"schedules+{path}")
    assert "shedule" in new or "adaptiv" in new or str(path) in str(caught.value)


def test_condition_on_a_setting_needs_possible_values(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace('["adaptive"]', '["adaptive", "adaptiv"]'))
    with pytest.raises(
        SettingsError, match="fairness_updates_per_epoch depends on .*schedule being 'adaptiv', which is impossible"
    ):
        make_space(str(path))


def test_setting_that_trials_do_not_share_can_be_searched(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace("optimisation.weight_decay", "backbone.lora_dropout"))
    assert [hyperparameter.name for hyperparameter in make_space(str(path)).hyperparameters][
        0
    ] == "backbone.lora_dropout"


def test_values_outside_the_range_of_a_setting_are_errors():
    hyperparameters = (
        Hyperparameter(name="optimisation.learning_rat", reason="-", default=0.1, low=0.0, high=1.0),
        Hyperparameter(name="backbone.lora_dropout", reason="-", default=0.1, low=0.0, high=1.0),
        Hyperparameter(name="optimisation.batch_size", reason="-", default=24, choices=(24, 32, 63)),
    )
    errors = hyperparameter_errors(Space("mine", hyperparameters, ()), BOTH, Parallelism(), LANGUAGES)
    assert [message.split(":")[1] for message in errors] == [
        " optimisation.learning_rat at 0.0",
        " backbone.lora_dropout at 1.0",
        " optimisation.batch_size at 63",
    ]
    assert "there is no such setting" in errors[0] and "is not divisible by --num-workers 2" in errors[-1]


def test_values_inside_the_range_are_checked_too():
    share = {"low": 32, "high": 128, "reason": "-", "default": 64}
    hyperparameters = (
        Hyperparameter(name="optimisation.batch_size", **share),
        Hyperparameter(name="loss.fairness_updates_per_epoch", reason="-", default=1, low=1, high=4, integer=True),
    )
    (message,) = hyperparameter_errors(Space("mine", hyperparameters, ()), BOTH, Parallelism(num_workers=1), LANGUAGES)
    assert "batch_size at 91.3" in message and "valid integer" in message
    whole = Hyperparameter(name="optimisation.batch_size", integer=True, **share)
    assert hyperparameter_errors(Space("mine", (whole,), ()), BOTH, Parallelism(num_workers=1), LANGUAGES) == []
    (message,) = hyperparameter_errors(Space("mine", (whole,), ()), BOTH, Parallelism(num_workers=2), LANGUAGES)
    assert "batch_size at 33: " in message and "is not divisible by --num-workers 2" in message
    assert hyperparameters[0].contains(whole) and not whole.contains(hyperparameters[0])


def test_inconsistent_hyperparameter_is_an_error():
    for fields in (
        {"low": 1.0},
        {"choices": (1, 1)},
        {"choices": (1,), "low": 0.0, "high": 2.0},
        {"low": 2, "high": 1},
    ):
        with pytest.raises(ValidationError):
            Hyperparameter(name="a", reason="-", default=1, **fields)


@given(st.floats(1e-3, 1.0), st.floats(1.5, 100.0), st.sampled_from(["linear", "log"]), st.integers(2, 6))
def test_grid_keeps_both_ends_and_stays_in_the_range(low, ratio, scale, points):
    hyperparameter = Hyperparameter(name="a", reason="-", default=low, low=low, high=low * ratio, scale=scale)
    grid = hyperparameter.on_grid(points)
    assert (
        grid.choices[0] == hyperparameter.low
        and grid.choices[-1] == hyperparameter.high
        and len(grid.choices) == points
    )
    assert list(grid.choices) == sorted(grid.choices) and all(hyperparameter.allows(value) for value in grid.choices)
    assert grid.default == low


def test_grid_of_a_conditional_space_contains_each_configuration_once():
    space = make_space("schedules").on_grid(3)
    points = list(space.points())
    # constant 3, linear and cosine 3 x 3 each, step 3 x 3, adaptive 3 x 3
    assert len(points) == 3 + 4 * 9 == len({str(point) for point in points})
    paper = space.baselines[1]
    assert not paper.hyperparameters and paper.fixed[STEP] == 2.0  # not on the grid of 0.1, 1, 10


def test_list_and_show(capsys, monkeypatch):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in SPACES)
    assert main(["show", "schedules+coefficients_per_language", "--languages", "en,de"]) == 0
    out = capsys.readouterr().out
    for word in ("start_fraction", "0.03 … 3 (log) 1/nat", "languages.de", "paper's setting"):
        assert word in out
    assert main(["show", "nothing"]) == 2 and "choose from" in capsys.readouterr().err
    assert main(["show", "schedules", "--languages", "en,xx"]) == 2 and "no 'xx'" in capsys.readouterr().err


def test_narrow_terminal_truncates_no_name(capsys, monkeypatch):
    monkeypatch.setattr("search_spaces.__main__.WIDTH", 80)
    assert main(["show", "schedules"]) == 0
    rows = [line[:17].strip() for line in capsys.readouterr().out.splitlines()]
    assert STEP in "".join(rows)
