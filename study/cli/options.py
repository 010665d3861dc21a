"""The options of the commands, declared as pydantic models and parsed by pydantic-settings.

Each field of a model is one flag: its type, bounds and default validate the value, its description is the help text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    CliToggleFlag,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from search_spaces import SPACES
from study.config.settings import error_message
from study.planning.request import GRID_POINTS, SAMPLERS
from study.ray_backend.loggers import TRACKERS
from study.search.mo_asha import NAME


def option(default: Any, help: str, metavar: str | None = None, **constraints: Any) -> Any:
    """Declare a flag.

    Args:
        default: its value when the flag is absent; None is not shown in the help.
        help: help text, without the default.
        metavar: placeholder for the value; None derives it from the type.
        constraints: bounds and aliases, as for ``pydantic.Field``.
    """
    return Field(default, description=help, json_schema_extra={"metavar": metavar} if metavar else None, **constraints)


def _unique(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds must differ from each other")
    return seeds


Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1), AfterValidator(_unique)]


class Options(BaseSettings):
    """Base of all option models. ``title`` is the heading above the flags that a class declares."""

    title: ClassVar[str] = "options"
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", cli_kebab_case=True, cli_hide_none_type=True, cli_enforce_required=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read no environment variables: a variable ``SEEDS`` must not change a study."""
        return (init_settings,)


class DataOptions(Options):
    title: ClassVar[str] = "corpus, model and training"

    corpus: str | None = option(None, "synthetic | meld-st:DIR | manifest:FILE (default: synthetic)", "SPEC")
    split: Literal["parallel", "official", "speaker"] | None = option(
        None,
        "train/dev/test split: the corpus's own with parallel utterances on one side (parallel), the authors' own "
        "unchanged (official), or held-out speakers (speaker) (default: parallel)",
    )
    planted_gaps: tuple[Literal["scarcity", "prior", "cue", "none"], ...] | None = option(
        None, "planted gaps of the synthetic corpus: any of scarcity,prior,cue, or none (default: all three)", "A,B"
    )
    backbone: str | None = option(None, "tiny | HUB_ID | folder of a Qwen2-Audio checkpoint (default: tiny)", "SPEC")
    modalities: tuple[str, ...] | None = option(
        None, "speech | speech+text | speech,speech+text (default: speech+text)", "A,B"
    )
    seeds: Seeds = option((0,), "seeds of every configuration", "0,1,2")
    epochs: int | None = option(None, "maximum number of epochs (default: 20; 3 for the tiny backbone)", "N", ge=0)
    overrides: tuple[str, ...] = option(
        (),
        "set any other setting by its dotted name, e.g. optimisation.learning_rate=1e-4; repeatable",
        "KEY=VALUE",
        validation_alias="set",
    )


class StudyOptions(DataOptions):
    """The options of every command that trains."""

    title: ClassVar[str] = "storage and resources"

    study: str | None = option(None, "name of the study (default: derived from corpus and space)", "NAME")
    storage: str | None = option(
        None, "folder or URL of the studies (default: results/; in a Ray job ~/fair-ser-results)", "DIR_OR_URL"
    )
    cache: str | None = option(
        None,
        "folder of the data that studies share: the synthetic corpus, features, encoder states of a frozen audio "
        "encoder; every machine of a cluster must see it (default: cache in --storage, or ~/.cache/fair-ser if "
        "--storage is a URL)",
        "DIR",
    )
    num_workers: int | None = option(
        None,
        "worker processes per trial (default: 1 on GPUs or a running cluster; else 2, or 1 on a single core)",
        "N",
        ge=1,
    )
    zero_stage: int = option(2, "DeepSpeed ZeRO stage", "{0,1,2,3}", ge=0, le=3)
    profile: CliToggleFlag[bool] = option(
        False,
        "profile a few training steps of each trial's first seed: a PyTorch trace and a summary of where the time goes",
    )
    dry_run: CliToggleFlag[bool] = option(False, "print the plan and stop")


class SearchOptions(StudyOptions):
    """The options of a search."""

    title: ClassVar[str] = "search"

    space: str = option(
        "fairness",
        f"search space: {' | '.join(SPACES)} | FILE.toml, or several joined with + (python -m search_spaces show NAME)",
        "A+B",
    )
    trials: int = option(8, "total number of trials in the study", "N", ge=1)
    objectives: tuple[str, ...] = option(
        ("dev_w_f1:max", "dev_gap:min"),
        "two or three recorded metrics, also of one language, modality or cell, e.g. dev_gap_tpr@de:min; an unknown "
        "name lists them all",
        "A:max,B:min",
    )
    constraint: tuple[str, ...] = option(
        (), "bound on any such metric that the sampler respects; repeatable", "'gap<=0.03'"
    )
    sampler: Literal[SAMPLERS] = option(  # type: ignore[valid-type]
        "tpe", f"proposes configurations; grid takes up to {GRID_POINTS} values per hyperparameter"
    )
    sampler_seed: int = option(
        0, "seed of the sampler; each call of a study draws new proposals from it", "N", ge=0, lt=2**32
    )
    retries: int = option(
        1,
        "how often a failed trial is retried within this call, from its last epoch; the next call retries it once more",
        "N",
        ge=0,
    )
    budget: float | None = option(
        None,
        "refuse a study that would take more worker-hours than this, judged by finished studies, and print how many "
        "trials fit (a worker uses one GPU, or one core without GPUs)",
        "HOURS",
        gt=0,
        allow_inf_nan=False,
    )
    early_stopping: str = option(
        "none",
        f"none | {NAME}[:reduction_factor=3,grace_period=1]: after epochs grace_period, grace_period * "
        "reduction_factor, ... only the best 1 in reduction_factor trials continue",
        "RULE",
    )
    report_to: tuple[str, ...] = option(
        (),
        f"{' | '.join(TRACKERS)}: also log trials there (TensorBoard files are always in STUDY/ray/tune)",
        "A,B",
    )


class TrainOptions(StudyOptions):
    """The options of ``study/train.py``."""

    title: ClassVar[str] = "configuration"

    config: str | None = option(
        None,
        "settings in JSON or TOML, the settings.json of a run or an adapter, or a trial of a study, such as "
        "results/STUDY/trials/00004.json; the other flags override them",
        "FILE",
    )


class EvaluationOptions(Options):
    """The options of ``study/evaluate.py``."""

    title: ClassVar[str] = "adapter and corpus"

    adapter: str = option(..., "adapter folder, as printed by study/train.py", "DIR")
    corpus: str = option(..., "synthetic | meld-st:DIR | manifest:FILE", "SPEC")
    subset: Literal["train", "dev", "test", "all"] | None = option(
        None, "part of the corpus (default: test, or all of a corpus without a split)"
    )
    split: Literal["parallel", "official", "speaker"] | None = option(
        None, "train/dev/test split (default: the adapter's on its own corpus, parallel on others)"
    )
    modalities: tuple[str, ...] | None = option(None, "modalities (default: those of the adapter's training)", "A,B")
    generate: CliToggleFlag[bool] = option(False, "generate answers instead of comparing label likelihoods")
    backbone: str | None = option(None, "backbone, if it is not where the adapter recorded it", "SPEC")
    batch_size: int = option(32, "utterances per batch", "N", ge=1)
    storage: str | None = option(None, "folder whose cache holds the features (default: results/)", "DIR")
    predictions: str | None = option(None, "write every prediction to this Parquet file", "FILE")


Model = TypeVar("Model", bound=Options)


class OptionParser(argparse.ArgumentParser, Generic[Model]):
    """An argument parser whose flags are the fields of an option model."""

    def __init__(self, model: type[Model], prog: str, description: str, epilog: str | None = None):
        super().__init__(prog=prog, description=description, epilog=epilog)
        self._model = model
        self._headings: dict[str, argparse._ArgumentGroup] = {}
        self._source: CliSettingsSource[OptionParser[Model]] = CliSettingsSource(
            model,
            root_parser=self,
            add_argument_method=self._add_option,
        )

    def _add_option(self, parser: argparse.ArgumentParser, *names: str, dest: str, **kwargs: Any) -> argparse.Action:
        """Add a flag under the heading of the class that declares it, with the help text of its field."""
        name, field = next(
            (name, field) for name, field in self._model.model_fields.items() if dest in (name, field.validation_alias)
        )
        parents = [cls for cls in reversed(self._model.__mro__) if issubclass(cls, Options)]
        title = next(cls.title for cls in parents if name in cls.model_fields)
        if title not in self._headings:
            self._headings[title] = parser.add_argument_group(title)
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        no_default = field.is_required() or default is None or default is False or default == ""
        kwargs["help"] = f"{field.description}{'' if no_default else f' (default: {default})'}".replace("%", "%%")
        if isinstance(field.json_schema_extra, dict):
            kwargs["metavar"] = field.json_schema_extra["metavar"]
        return self._headings[title].add_argument(*names, dest=dest, **kwargs)

    def read(self, arguments: Sequence[str] | None = None) -> tuple[Model, list[str]]:
        """Parse the command line.

        Args:
            arguments: without the name of the program; None takes those of this process.

        Returns:
            The options, with defaults in place of invalid values, and an error for each invalid value.
        """
        given = vars(self.parse_args(arguments))
        # pydantic-settings splits lists at commas, but these values may contain commas
        verbatim = {name: value for name, value in given.items() if name in ("set", "constraint", "from")}
        try:
            values: dict[str, Any] = self._source(parsed_args={k: v for k, v in given.items() if k not in verbatim})()
            values |= verbatim
        except SettingsError as error:  # unbalanced brackets in a list
            self.error(str(error))
        try:
            return self._model.model_validate(values), []
        except ValidationError as error:
            first = {detail["loc"][0]: detail for detail in reversed(error.errors())}  # the first error of each option
            errors = [f"--{str(name).replace('_', '-')}: {error_message(first[name])}" for name in reversed(first)]
            valid = {name: value for name, value in values.items() if name not in first}
            return self._model.model_validate(valid), errors
