"""Fixtures of several test files: a small synthetic corpus with its features, and sweeps on it.

Session fixtures are made once in each process of pytest-xdist.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

from tests import REPO

settings.register_profile("no deadline", deadline=None)  # an example may wait long for a core
settings.load_profile("no deadline")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

CREDENTIALS = {
    "HF_TOKEN": "hf_plantedplantedplantedplantedplan",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "planted/planted+planted/planted+planted0",
}
"""Credentials in the environment of every sweep; no file may contain one."""

OBJECT_STORE = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
"""Settings of S3 clients for a server on this machine."""

PATIENCE = 1000.0
"""Seconds to wait for a process. Only a process that hangs takes as long, on whatever machine."""

LONGEST = ("cli/test_sweep.py", "ray_backend/test_object_store.py", "ray_backend/test_fault_tolerance.py")
LONGEST += ("cli/test_ablation.py", "training/test_gradients.py", "cli/test_train.py")
"""Files that run first, so that no process of pytest-xdist is left with a long one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {f"tests/study/{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.location[0], len(ranks)))


def without_times(finished: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a ``finished.json`` that is the same in every repetition of a run."""
    return {key: value for key, value in finished.items() if key not in ("seconds", "startup")}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """Return a folder in MELD-ST's layout: the synthetic corpus in its small size, with all planted gaps."""
    from study.data.corpora.synthetic.corpus import write_corpus
    from study.data.corpora.synthetic.dialogues import SMALL

    root = tmp_path_factory.mktemp("corpus") / "small"
    write_corpus(root, ("scarcity", "prior", "cue"), seed=0, size=SMALL)
    return root


@pytest.fixture(scope="session")
def small_study(small_corpus, tmp_path_factory):
    """Return (plan, prepared) of a study on the small corpus, ready to train."""
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
    """Return a function that makes a ``RunPlan``: ``plan_in(folder, {"loss.power": 1}, zero_stage=0)``."""
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
    """Return ``plan_in`` for a folder of the test: ``run_plan({"loss.power": 1}, zero_stage=0)``."""
    return partial(plan_in, tmp_path)


@pytest.fixture(scope="module")
def ray_directory():
    """Return a short path (Ray's sockets lie below it) for a Ray that neither finds nor disturbs others."""
    path = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def run_sweep(small_corpus, ray_directory, tmp_path_factory):
    """Return a function that runs a sweep on the small corpus in a process of its own, with a private Ray.

    ``run_sweep.storage`` is its default storage.
    """
    default_storage = tmp_path_factory.mktemp("sweeps")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": ray_directory, **CREDENTIALS}

    def run(
        *flags: str,
        wait: bool = True,
        script: tuple[str, ...] = ("study/sweep.py",),
        storage: str = str(default_storage),
        variables: Mapping[str, str | None] | None = None,
    ):
        """Return the finished process, or the running one without ``wait``."""
        process = subprocess.Popen(
            [sys.executable, *script, *sweep_flags(small_corpus, storage), *flags],
            cwd=REPO,
            env=updated(environment, variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    run.storage = default_storage
    return run


@pytest.fixture
def start_sweep(run_sweep):
    """Return a function that starts a sweep and returns its running process, which is ended with the test."""
    processes = []

    def start(*flags, **options):
        processes.append(run_sweep(*flags, wait=False, **options))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="session")
def run_here(small_corpus, tmp_path_factory):
    """Return a function that runs a command on the small corpus in this process.

    The first command that needs Ray starts a private one with a single core, which the following commands share. This
    is several times cheaper than ``run_sweep``. ``run_here.storage`` is the storage.
    """
    default_storage = tmp_path_factory.mktemp("here")
    ray_directory = tempfile.mkdtemp(prefix="r", dir="/tmp")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": ray_directory, **CREDENTIALS, **OBJECT_STORE}

    def run(
        main: Callable[[list[str]], int],
        *flags: str,
        storage: str = str(default_storage),
        variables: Mapping[str, str | None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        import ray

        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, updated(environment, variables), clear=True),
            mock.patch("ray.init", partial(ray.init, num_cpus=1, ignore_reinit_error=True)),
            mock.patch("study.ray_backend.cluster.disconnect"),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = main([*sweep_flags(small_corpus, storage), *flags])
        return subprocess.CompletedProcess(flags, status, out.getvalue(), err.getvalue())

    run.storage = default_storage
    yield run
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    shutil.rmtree(ray_directory, ignore_errors=True)


def updated(environment: dict[str, str], variables: Mapping[str, str | None] | None) -> dict[str, str]:
    """Return an environment with variables set, or removed if they are None."""
    return {key: value for key, value in {**environment, **(variables or {})}.items() if value is not None}


def sweep_flags(corpus: Path, storage: str) -> tuple[str, ...]:
    """Return the flags of a small study: an epoch of a few steps."""
    return (
        *("--corpus", f"meld-st:{corpus}", "--storage", storage),
        *("--epochs", "1", "--set", "optimisation.batch_size=24"),
    )
