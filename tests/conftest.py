"""What several tests share: a small synthetic corpus, its tiny backbone and its features, made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import REPO

settings.register_profile("loaded machine", deadline=None)  # an example may wait long for a core
settings.load_profile("loaded machine")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
PLANTED = {
    "HF_TOKEN": "hf_plantedplantedplantedplantedplan",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "planted/planted+planted/planted+planted0",
}
"""Credentials that every sweep finds in its environment; no file of it may hold one."""


def without_times(finished: dict[str, Any]) -> dict[str, Any]:
    """What of a ``finished.json`` must be the same whenever the same run is done."""
    return {key: value for key, value in finished.items() if key not in ("seconds", "startup")}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """A folder in MELD-ST's layout: the synthetic corpus with every plant, in its small size."""
    from study.data.corpora.synthetic.corpus import write_corpus
    from study.data.corpora.synthetic.dialogues import SMALL

    root = tmp_path_factory.mktemp("corpus") / "small"
    write_corpus(root, ("scarcity", "prior", "cue"), seed=0, size=SMALL)
    return root


@pytest.fixture(scope="session")
def small_study(small_corpus, tmp_path_factory):
    """(plan, prepared) of a study on the small corpus, ready to train."""

    from study.cli.request import search_request
    from study.cli.sweep import make_parser
    from study.planning.plan import build_plan
    from study.planning.prepare import prepare

    storage = tmp_path_factory.mktemp("storage")
    options = make_parser().read(
        ["--corpus", f"meld-st:{small_corpus}", "--storage", str(storage), "--num-workers", "1", "--epochs", "2"]
        + ["--set", "optimisation.batch_size=24"]
    )
    plan = build_plan(search_request(*options, cores=2))
    return plan, prepare(plan)


@pytest.fixture(scope="session")
def plan_in(small_study):
    """A ``RunPlan`` maker: ``plan_in(folder, {"loss.power": 1}, zero_stage=0)``."""
    from study.config.settings import Parallelism
    from study.storage.study_folder import StudyFolder
    from study.training.engine import join_process_group
    from study.training.run_plan import RunPlan

    join_process_group()
    plan, prepared = small_study

    def make(folder, overrides=None, **parallelism):
        return RunPlan(
            settings=plan.request.settings.with_overrides(overrides or {}),
            parallelism=Parallelism(**{"num_workers": 1, "zero_stage": 0, **parallelism}),
            config_id="abc",
            features=prepared.features,
            backbone=prepared.backbone,
            folder=StudyFolder.at(str(folder), "study"),
        )

    return make


@pytest.fixture
def run_plan(plan_in, tmp_path):
    """``plan_in`` a folder of the test's own: ``run_plan({"loss.power": 1}, zero_stage=0)``."""
    return partial(plan_in, tmp_path)


@pytest.fixture(scope="module")
def ray_directory():
    """A Ray of its own: other clusters on the machine are neither found nor disturbed (short, for its socket names)."""
    path = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def sweep(small_corpus, ray_directory, tmp_path_factory):
    """A function that starts a sweep on the small corpus and returns the finished process."""
    storage = tmp_path_factory.mktemp("sweeps")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": ray_directory, **PLANTED}

    def start(
        *flags: str,
        wait: bool = True,
        script: tuple[str, ...] = ("study/sweep.py",),
        storage: str = str(storage),
        variables: Mapping[str, str | None] | None = None,
    ):
        """``variables`` change the environment of this call; None takes one away."""
        given = environment | dict(variables or {})
        command = [sys.executable, *script, "--corpus", f"meld-st:{small_corpus}", "--storage", storage]
        command += ["--epochs", "1", "--set", "optimisation.batch_size=24", *flags]
        process = subprocess.Popen(
            command, cwd=REPO, env={key: value for key, value in given.items() if value is not None},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not wait:
            return process
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    start.storage = storage
    return start


@pytest.fixture
def begin(sweep):
    """Starts a sweep and returns while it runs; one that a failing test leaves is ended."""
    begun = []

    def start(*flags, **options):
        begun.append(sweep(*flags, wait=False, **options))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)
