"""The gradients of a step do not depend on the split of the global batch into workers, micro-batches and buckets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from study.config.settings import Settings
from tests import REPO
from tests.study.training.worker_gradient import second_step_gradients

LOSSES = {
    "paper": {"method": "minmaxgap"},
    "softmax-ema-p1": {
        "method": "minmaxgap",
        "power": 1,
        "reduction": "softmax",
        "estimator": {"kind": "ema", "decay": 0.9},
        "coefficients": {"languages": {"de": 3.0}},
    },
    "held-out-floor": {"method": "minmaxgap", "estimator": {"kind": "held_out"}, "min_sample_weight": 0.0},
    "per-cell": {"method": "minmaxgap", "fairness_weight": {"schedule": "adaptive", "per_cell": True}},
    "group-dro": {"method": "group_dro", "step_size": 1.0},
    "v-rex": {"method": "v_rex"},
    "cvar": {"method": "cvar_dro"},
    "mmd": {"method": "min_diff"},
}


@dataclass(frozen=True)
class Case:
    """How the global batch is split.

    Attributes:
        micro_batch_size: the most utterances of a micro-batch; None for no limit.
        order: by what the batch is sorted before it is split.
        tokens: the most tokens of a micro-batch; None for no limit.
        buckets: whether micro-batches are split into buckets of similar length.
    """

    zero_stage: int = 0
    micro_batch_size: int | None = None
    order: str = "drawn"
    tokens: int | None = None
    buckets: bool = False


TWO_WORKERS = {
    "zero-0": Case(),
    "zero-2": Case(2),
    "a gender each, with accumulation": Case(2, micro_batch_size=6, order="gender"),
    "buckets and tokens, zero-2": Case(2, tokens=400, buckets=True),
}
TWO_WORKERS_SLOW = {
    "zero-1": Case(1),
    "zero-3": Case(3),
    "accumulation, zero-1": Case(1, micro_batch_size=4),
    "accumulation, zero-3": Case(3, micro_batch_size=4),
    "a cell a micro-batch, the last one smaller": Case(2, micro_batch_size=5, order="cell"),
    "buckets, zero-3": Case(3, buckets=True),
    "buckets and tokens, zero-1": Case(1, tokens=400, buckets=True),
    "buckets and tokens, zero-3": Case(3, tokens=400, buckets=True),
}
ONE_WORKER = {"buckets": Case(buckets=True), "a cell a micro-batch": Case(micro_batch_size=8, order="cell")}


@pytest.fixture(scope="module")
def settings_of(small_study):
    """Return a function from a case to its settings."""
    plan, _ = small_study

    def settings(case: Case) -> Settings:
        return plan.request.settings.with_overrides(
            {
                "optimisation.micro_batch_size": case.micro_batch_size,
                "computation.micro_batch_tokens": case.tokens,
                "computation.length_buckets": case.buckets,
                "optimisation.gradient_clipping": 1e9,
                "optimisation.learning_rate": 1e-12,  # steps do not change the weights
                "control.fraction": 0.5,
            }
        )

    return settings


@pytest.fixture(scope="module")
def one_worker(plan_in, settings_of, tmp_path_factory):
    """Return a function from a case to the gradients of one worker, computed in this process."""

    def gradients(case: Case) -> dict[str, np.ndarray]:
        plan = plan_in(tmp_path_factory.mktemp("one"), zero_stage=case.zero_stage)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("study.training.train_step.OVERHEAD", 20)  # as in worker_gradient.py
            return second_step_gradients(replace(plan, settings=settings_of(case)), LOSSES, case.order)

    return gradients


@pytest.fixture(scope="module")
def expected(one_worker):
    """Return the gradients of one worker that sees the global batch at once."""
    return one_worker(Case())


@pytest.fixture(scope="module")
def two_workers(request, small_study, settings_of, tmp_path_factory):
    """Return the gradients of two workers by case: of the selected cases, all computed under one torchrun."""
    _, prepared = small_study
    folder = tmp_path_factory.mktemp("two")
    selected = [item.callspec.params for item in request.session.items if "two_workers" in item.fixturenames]
    paths = {}
    for case in (params["case"] for params in selected):
        spec = {
            "settings": settings_of(case).model_dump(mode="json"),
            "losses": LOSSES,
            "parallelism": {"num_workers": 2, "zero_stage": case.zero_stage},
            "features": str(prepared.features),
            "backbone": prepared.backbone,
            "folder": str(folder / "study"),
            "order": case.order,
        }
        paths[case] = folder / f"{len(paths)}.json"
        paths[case].write_text(json.dumps(spec))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(REPO / "tests/study/training/worker_gradient.py"), *map(str, paths.values())]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr[-3000:]
    return {case: dict(np.load(path.with_suffix(".npz"))) for case, path in paths.items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    directions = []
    for loss, tree in LOSSES.items():
        part, other_part = (
            {key.split(":")[1]: value for key, value in gradients.items() if key.startswith(f"{loss}:")}
            for gradients in (one, other)
        )
        if tree["method"] in ("minmaxgap", "v_rex", "min_diff"):
            assert part["penalty"] > 0, loss  # so the gradient of the penalty is tested too
        assert other_part["total"] == pytest.approx(part["total"], rel=1e-5), loss
        names = [name for name in part if name not in ("penalty", "total")]
        flat, flat_other = (np.concatenate([p[name].ravel() for name in names]) for p in (part, other_part))
        assert len(names) > 10 and np.linalg.norm(flat) > 1e-3, loss
        assert np.linalg.norm(flat - flat_other) <= 1e-5 * np.linalg.norm(flat), loss
        directions.append(flat / np.linalg.norm(flat))
    similar = np.array(directions) @ np.array(directions).T - np.eye(len(directions))
    assert similar.max() < 1 - 1e-6  # the losses have different gradients


def cases(by_name: dict[str, Case], **options):
    return [pytest.param(case, id=name, **options) for name, case in by_name.items()]


@pytest.mark.parametrize("case", cases(TWO_WORKERS) + cases(TWO_WORKERS_SLOW, marks=pytest.mark.slow))
def test_two_workers_have_the_gradients_of_one(expected, two_workers, case):
    assert_same(expected, two_workers[case])


@pytest.mark.parametrize("case", cases(ONE_WORKER))
def test_micro_batches_and_buckets_have_the_gradients_of_the_global_batch(expected, one_worker, case):
    assert_same(expected, one_worker(case))
