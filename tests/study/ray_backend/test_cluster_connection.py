"""Connecting to Ray: errors in one line with a remedy, environment variables, and capacity."""

from __future__ import annotations

import json
import socket
from collections import Counter

import pytest
import ray
from ray.runtime_env.runtime_env import _merge_runtime_env

from study.common.errors import SettingsError
from study.config.settings import Parallelism
from study.ray_backend import cluster


@pytest.fixture
def closed_port():
    """A local port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://localhost:{}"])
def test_unreachable_cluster_is_an_error_at_once(monkeypatch, closed_port, form):
    monkeypatch.setenv("RAY_ADDRESS", form.format(closed_port))
    with pytest.raises(SettingsError, match=rf"RAY_ADDRESS: nothing answers at .*:{closed_port} \(.*\); start that"):
        cluster.require_reachable()


def test_reachable_or_automatic_address_is_accepted(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        for address in (f"127.0.0.1:{server.getsockname()[1]}", "auto", "local", ""):
            monkeypatch.setenv("RAY_ADDRESS", address)
            cluster.require_reachable()


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("auto", ConnectionError("Could not find any running Ray instance.\nMore"), "cannot join the cluster at auto"),
        (None, Exception("The current node timed out during startup."), "Ray did not start on this machine"),
    ],
)
def test_errors_of_ray_init_are_one_line_with_a_remedy(monkeypatch, address, error, message):
    def init(**options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("os.environ", {"RAY_TMPDIR": "/tmp/x", **({"RAY_ADDRESS": address} if address else {})})
    with pytest.raises(SettingsError) as caught:
        cluster.connect()
    (line,) = caught.value.errors
    assert message in line and str(error).partition("\n")[0] in line and "More" not in line
    assert ("unset it" if address else "/tmp/x/ray/session_latest/logs") in line


def test_ray_train_variables_of_the_user_reach_the_cluster(monkeypatch):
    options = {}
    monkeypatch.setattr(ray, "init", lambda **given: options.update(given))
    monkeypatch.setattr(cluster, "capacity", dict)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "30")
    cluster.connect()
    variables = options["runtime_env"]["env_vars"]
    assert variables["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] == "30"
    assert variables["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "1800"


def test_variables_of_a_job_are_not_set_twice(monkeypatch):
    """Ray refuses to merge two values."""
    job = {"runtime_env": {"env_vars": {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "10", "HF_HOME": "/shared"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "10")
    ours = {"env_vars": cluster._cluster_variables("/checkout")}
    merged = _merge_runtime_env(job["runtime_env"], ours)
    assert merged and merged["env_vars"]["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] == "10"
    assert merged["env_vars"]["HF_HUB_DISABLE_PROGRESS_BARS"] == "1" and "PYTHONPATH" not in merged["env_vars"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([{"CPU": 1.0, "memory": 8e9}], "--num-workers: 2 workers requested, but the cluster has 0 GPUs and 1 cores"),
        ([{"CPU": 8.0, "memory": 8e8}, {"CPU": 8.0, "memory": 8e8}], "no Ray node has the 1 GiB of free memory"),
        ([{"CPU": 8.0, "memory": 8e8, "driver": 9.0}, {"CPU": 8.0, "memory": 8e9}], "no Ray node has the 1 GiB"),
    ],
)
def test_trial_that_cannot_be_placed_is_an_error(monkeypatch, nodes, message):
    def set_nodes(*nodes):
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
        monkeypatch.setattr(ray, "cluster_resources", lambda: dict(sum(map(Counter, nodes), Counter())))

    set_nodes(*nodes)
    with pytest.raises(SettingsError, match=message):
        cluster.require_capacity(Parallelism(num_workers=2))
    set_nodes({"CPU": 8.0, "memory": 8e9})
    cluster.require_capacity(Parallelism(num_workers=2))


def test_driver_slots_depend_on_the_memory_of_driver_nodes(monkeypatch):
    nodes = [{"memory": 2.5 * 1024**3}, {"memory": 1.5 * 1024**3}, {"CPU": 1.0}]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert cluster.driver_slots() == 3
    nodes[1]["driver"] = 100.0  # the head
    assert cluster.driver_slots() == 1
