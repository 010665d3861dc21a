"""What several tests share: a small embedded corpus, its tiny backbone and its features, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """A folder in MELD-ST's layout: the embedded corpus with every plant, in its small size."""
    from study.corpora.embedded import write
    from study.corpora.scenes import SMALL

    root = tmp_path_factory.mktemp("corpus") / "small"
    write(root, ("scarcity", "prior", "cue"), seed=0, size=SMALL)
    return root


@pytest.fixture(scope="session")
def small_study(small_corpus, tmp_path_factory):
    """(plan, prepared) of a study on the small corpus, ready to train."""
    import argparse

    from study.planning import add_search_flags, add_study_flags, complete, read_flags
    from study.preparation import prepare

    storage = tmp_path_factory.mktemp("storage")
    parser = argparse.ArgumentParser()
    add_study_flags(parser)
    add_search_flags(parser)
    flags = parser.parse_args(
        ["--corpus", f"meld-st:{small_corpus}", "--storage", str(storage), "--ranks", "1", "--epochs", "2"]
        + ["--fix", "optimisation.batch_size=24"]
    )
    plan = complete(read_flags(flags, cores=2))
    return plan, prepare(plan)


@pytest.fixture
def run_plan(small_study, tmp_path):
    """A ``RunPlan`` maker: ``run_plan({"objective.power": 1}, zero_stage=0)``."""
    from study.records import StudyFolder
    from study.settings import Placement
    from study.trainer import RunPlan, join_process_group

    join_process_group()
    plan, prepared = small_study

    def make(overrides=None, **placement):
        return RunPlan(
            settings=plan.draft.settings.with_overrides(overrides or {}),
            placement=Placement(**{"ranks": 1, "zero_stage": 0, **placement}),
            config_id="abc",
            features=prepared.features,
            backbone=prepared.backbone,
            folder=StudyFolder.at(str(tmp_path), "study"),
        )

    return make
