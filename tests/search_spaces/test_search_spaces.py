"""The declared spaces: what is in them, how they combine, what is left when a setting is fixed, and what is refused."""

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


def made(name, settings=BOTH, languages=LANGUAGES, fixed=()):
    return space_maker(name, fixed)(languages, settings)


def suggestions(space, count, seed=0):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", [*SPACES, "schedules+training", "penalty+coefficients_per_cell+schedules"])
def test_every_space_is_valid_and_its_suggestions_reach_their_settings(name):
    space = made(name)
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    assert baseline_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    assert [baseline.label for baseline in space.baselines] == ["ERM", "paper's setting", "ERM, balanced"]
    for hyperparameters in suggestions(space, 20):
        flat = flatten(BOTH.with_overrides(hyperparameters).model_dump(mode="json"))
        assert {key: flat[key] for key in hyperparameters} == hyperparameters
    assert len({hyperparameter.name for hyperparameter in space.hyperparameters}) == len(space.hyperparameters)


def test_coefficients_have_no_redundant_knob():
    names = {
        kind: [
            hyperparameter.name.rpartition(".")[2]
            for hyperparameter in made(f"coefficients_per_{kind}").hyperparameters
        ]
        for kind in ("language", "modality", "cell")
    }
    assert names["language"] == ["ja", "de"] and names["modality"] == ["speech+text"]  # the first is held at 1
    assert names["cell"] == ["ja/speech", "de/speech", "en/speech+text", "ja/speech+text", "de/speech+text"]
    in_use = cells(LANGUAGES, BOTH.modalities)
    ids = {config_id(BOTH.with_overrides(k), in_use, "", "") for k in suggestions(made("coefficients_per_cell"), 30)}
    assert len(ids) == 30


def test_the_step_schedule_is_searched_with_its_own_parameters():
    seen = {}
    for hyperparameters in suggestions(made("schedules"), 60):
        seen[hyperparameters[SCHEDULE]] = {key.rpartition(".")[2] for key in hyperparameters} - {"schedule"}
    assert seen == {
        "constant": {"weight"},
        "linear": {"weight", "ramp_fraction"},
        "cosine": {"weight", "ramp_fraction"},
        "step": {"weight", "start_fraction"},
        "adaptive": {"initial", "step_size"},
    }


def test_a_fixed_parent_prunes_its_children_and_frees_those_that_are_left():
    settings = BOTH.with_overrides({SCHEDULE: "step", WEIGHT: 0.5})
    space = made("schedules", settings, fixed=(SCHEDULE,))
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
    paper = space.baselines[1]  # it has another schedule, so it stands beside the space, as ERM does
    assert (
        not paper.hyperparameters and settings.with_overrides(paper.fixed).loss.fairness_weight.schedule == "adaptive"
    )
    with pytest.raises(SettingsError, match="nothing left to search"):
        made("schedules", settings, fixed=("loss.fairness_weight",))


def test_a_fixed_child_holds_where_its_schedule_is_chosen_and_nowhere_else():
    ramp = "loss.fairness_weight.ramp_fraction"
    space = space_maker("schedules", pinned={ramp: 0.25})(LANGUAGES, BOTH)
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    found = suggestions(space, 60)
    assert {hyperparameters[SCHEDULE] for hyperparameters in found} == {
        "constant",
        "linear",
        "cosine",
        "step",
        "adaptive",
    }
    assert all(
        hyperparameters.get(ramp) == (0.25 if hyperparameters[SCHEDULE] in ("linear", "cosine") else None)
        for hyperparameters in found
    )
    assert len(list(space.on_grid(3).points())) == 3 + 2 * 3 + 2 * 9  # linear and cosine: three weights each
    constant = BOTH.with_overrides({SCHEDULE: "constant", WEIGHT: 0.3})
    with pytest.raises(SettingsError, match="ramp_fraction: no configuration .* only where .* is linear or cosine"):
        space_maker("schedules", (SCHEDULE,), {ramp: 0.25})(LANGUAGES, constant)


def test_the_papers_setting_has_its_coefficients_whatever_is_fixed():
    settings = BOTH.with_overrides({"loss.coefficients.languages.ja": 3.0})
    space = made("fairness", settings, fixed=("loss.coefficients.languages.ja",))
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
def test_the_papers_setting_has_the_papers_objective_whatever_is_fixed(name, key, value):
    more = {"loss.fairness_weight.weight": 0.3} if value == "constant" else {}
    settings = Settings().with_overrides({f"loss.{key}": value, **more})
    space = made(name, settings, fixed=(f"loss.{key}",))
    (paper,) = (each for each in space.baselines if each.label == "paper's setting")
    told = settings.with_overrides({**paper.hyperparameters, **paper.fixed}).loss
    assert set(told.coefficients.kappa(cells(LANGUAGES, BOTH.modalities))) == {1.0}
    plain = Settings().with_overrides({"loss.fairness_weight.schedule": "adaptive"}).loss
    assert told.model_copy(update={"coefficients": plain.coefficients}) == plain
    assert plain.power == 2 and plain.reduction == "max" and plain.estimator.kind == "batch"


def test_training_is_searched_around_the_studys_own_values():
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in made("training", Settings()).hyperparameters}
    rate = by_name["optimisation.learning_rate"]
    assert (rate.low, rate.default, rate.high) == pytest.approx((1e-5, 5e-5, 2.5e-4))
    rank = by_name["backbone.lora_rank"]
    assert (rank.low, rank.default, rank.high, rank.integer) == (4, 16, 64, True)
    assert all(
        isinstance(hyperparameters["backbone.lora_rank"], int) for hyperparameters in suggestions(made("training"), 5)
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
def test_what_is_no_space_is_refused(name, words):
    with pytest.raises(SettingsError, match=words):
        made(name)


def test_one_language_or_modality_has_no_coefficients_to_search():
    with pytest.raises(SettingsError, match="with de and speech it has nothing to search"):
        made("coefficients_per_cell", BOTH.with_overrides({"modalities": ["speech"]}), ["de"])


FILE = """
[[hyperparameter]]
name = "optimisation.weight_decay"
reason = "the paper's, and more or less"
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


def test_a_file_of_ones_own_is_a_space_alone_or_with_others(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    space = made(f"schedules+{path}")
    assert hyperparameter_errors(space, BOTH, Parallelism(), LANGUAGES) == []
    for hyperparameters in suggestions(space, 20):
        assert ("loss.fairness_updates_per_epoch" in hyperparameters) == (hyperparameters[SCHEDULE] == "adaptive")
        assert 0.001 <= hyperparameters["optimisation.weight_decay"] <= 0.1
    assert len(made(str(path)).hyperparameters) == 2  # the schedule is not searched, and is adaptive
    constant = BOTH.with_overrides({SCHEDULE: "constant", WEIGHT: 0.5})
    assert [hyperparameter.name for hyperparameter in made(str(path), constant).hyperparameters] == [
        "optimisation.weight_decay"
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("high = 0.1", "high = 0.0001", "low below its high"),
        ("default = 0.01", "default = 1.0", "default 1.0, which is not in its own range"),
        ("low = 0.001", "low = 0.0", "its low must be above 0"),
        ('reason = "how often the weight moves"', "", "reason: Field required"),
        ("integer = true", "whole = true", "there is no such setting"),
        ("[[hyperparameter]]", "[[hyperparameters]]", "hyperparameter: Field required"),
        ("default = 1", "default =", "Invalid value"),
        ("weight.schedule", "weight.shedule", "fairness_weight.shedule, which is no setting"),
        (
            '["adaptive"]',
            '["adaptiv"]',
            "fairness_updates_per_epoch depends on .*schedule being 'adaptiv', which it cannot be",
        ),
        ("optimisation.weight_decay", "corpus.loudness", "corpus.loudness cannot be searched: the corpus is read"),
        ("optimisation.weight_decay", "backbone.spec", "backbone.spec cannot be searched: the backbone is loaded"),
        ("optimisation.weight_decay", "prompt.question", "prompt.question cannot be searched"),
        ("optimisation.weight_decay", "modalities", "modalities cannot be searched"),
        ("optimisation.weight_decay", "control.fraction", "control.fraction cannot be searched"),
        ("optimisation.weight_decay", "optimisation.epochs", "optimisation.epochs cannot be searched"),
        ("optimisation.weight_decay", "computation.length_buckets", "length_buckets cannot be searched: how a step"),
        ('["adaptive"]', "[]", "fairness_updates_per_epoch names no value of .*schedule in its condition"),
    ],
)
def test_a_faulty_file_is_refused_with_its_name(tmp_path, old, new, words):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(SettingsError, match=words) as caught:
        made(f"schedules+{path}")
    assert "shedule" in new or "adaptiv" in new or str(path) in str(caught.value)


def test_a_condition_on_a_setting_that_is_not_searched_needs_a_value_that_it_can_have(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace('["adaptive"]', '["adaptive", "adaptiv"]'))
    with pytest.raises(
        SettingsError, match="fairness_updates_per_epoch depends on .*schedule being 'adaptiv', which it cannot be"
    ):
        made(str(path))


def test_what_a_trial_can_have_of_its_own_can_be_searched(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace("optimisation.weight_decay", "backbone.lora_dropout"))
    assert [hyperparameter.name for hyperparameter in made(str(path)).hyperparameters][0] == "backbone.lora_dropout"


def test_a_knob_out_of_its_settings_range_is_named_before_the_start():
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
    assert "there is no such setting" in errors[0] and "cannot be shared evenly by --num-workers 2" in errors[-1]


def test_values_between_the_ends_are_settings_too():
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
    assert "batch_size at 33: " in message and "cannot be shared evenly by --num-workers 2" in message
    assert hyperparameters[0].contains(whole) and not whole.contains(hyperparameters[0])


def test_a_knob_is_sound():
    for fields in (
        {"low": 1.0},
        {"choices": (1, 1)},
        {"choices": (1,), "low": 0.0, "high": 2.0},
        {"low": 2, "high": 1},
    ):
        with pytest.raises(ValidationError):
            Hyperparameter(name="a", reason="-", default=1, **fields)


@given(st.floats(1e-3, 1.0), st.floats(1.5, 100.0), st.sampled_from(["linear", "log"]), st.integers(2, 6))
def test_a_grid_keeps_both_ends_and_lies_in_the_range(low, ratio, scale, points):
    hyperparameter = Hyperparameter(name="a", reason="-", default=low, low=low, high=low * ratio, scale=scale)
    grid = hyperparameter.on_grid(points)
    assert (
        grid.choices[0] == hyperparameter.low
        and grid.choices[-1] == hyperparameter.high
        and len(grid.choices) == points
    )
    assert list(grid.choices) == sorted(grid.choices) and all(hyperparameter.holds(value) for value in grid.choices)
    assert grid.default == low


def test_the_grid_of_a_conditional_space_lists_each_configuration_once():
    space = made("schedules").on_grid(3)
    points = list(space.points())
    # constant 3, linear and cosine 3 x 3 each, step 3 x 3, adaptive 3 x 3
    assert len(points) == 3 + 4 * 9 == len({str(point) for point in points})
    paper = space.baselines[1]
    assert not paper.hyperparameters and paper.fixed[STEP] == 2.0  # not on the grid of 0.1, 1, 10


def test_knobs_are_listed_and_shown(capsys, monkeypatch):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in SPACES)
    assert main(["show", "schedules+coefficients_per_language", "--languages", "en,de"]) == 0
    out = capsys.readouterr().out
    for word in ("start_fraction", "0.03 … 3 (log) 1/nat", "languages.de", "paper's setting"):
        assert word in out
    assert main(["show", "nothing"]) == 2 and "choose from" in capsys.readouterr().err
    assert main(["show", "schedules", "--languages", "en,xx"]) == 2 and "no 'xx'" in capsys.readouterr().err


def test_on_a_narrow_terminal_no_name_is_cut(capsys, monkeypatch):
    monkeypatch.setattr("search_spaces.__main__.WHOLE", 80)
    assert main(["show", "schedules"]) == 0
    rows = [line[:17].strip() for line in capsys.readouterr().out.splitlines()]
    assert STEP in "".join(rows)
