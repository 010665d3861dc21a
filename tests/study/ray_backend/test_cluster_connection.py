"""A Ray that cannot be had is told in a line, with the remedy."""

from __future__ import annotations

import json
import socket
from collections import Counter
from types import SimpleNamespace

import pytest
import ray
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.runtime_env.runtime_env import _merge_runtime_env

from study.common.errors import SettingsError
from study.config.settings import Parallelism
from study.ray_backend import cluster


@pytest.fixture
def closed_port():
    """A port of this machine at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://localhost:{}"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(monkeypatch, closed_port, form):
    monkeypatch.setenv("RAY_ADDRESS", form.format(closed_port))
    with pytest.raises(SettingsError, match=rf"RAY_ADDRESS: nothing answers at .*:{closed_port} \(.*\); start that"):
        cluster.require_reachable()


def test_a_cluster_that_answers_or_that_ray_looks_up_is_not_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        for address in (f"127.0.0.1:{server.getsockname()[1]}", "auto", "local", ""):
            monkeypatch.setenv("RAY_ADDRESS", address)
            cluster.require_reachable()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("auto", ConnectionError("Could not find any running Ray instance.\nMore"), "cluster at auto cannot be joined"),
        (None, Exception("The current node timed out during startup."), "Ray did not start on this machine"),
    ],
)
def test_what_ray_says_stands_in_one_line_with_the_remedy(monkeypatch, address, error, words):
    def init(**options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("os.environ", {"RAY_TMPDIR": "/tmp/x", **({"RAY_ADDRESS": address} if address else {})})
    with pytest.raises(SettingsError) as caught:
        cluster.connect()
    (said,) = caught.value.errors
    assert words in said and str(error).partition("\n")[0] in said and "More" not in said
    assert "unset it" in said if address else "/tmp/x/ray/session_latest/logs" in said


def test_a_wish_for_ray_train_reaches_a_cluster(monkeypatch):
    given = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(cluster, "capacity", dict)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "30")
    cluster.connect()
    variables = given["runtime_env"]["env_vars"]
    assert variables["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] == "30"
    assert variables["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "1800"


def test_what_a_job_has_been_given_is_not_given_again(monkeypatch):
    """Ray would refuse it."""
    job = {"runtime_env": {"env_vars": {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "10", "HF_HOME": "/shared"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "10")
    ours = {"env_vars": cluster._handed_on("/checkout")}
    merged = _merge_runtime_env(job["runtime_env"], ours)
    assert merged and merged["env_vars"]["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] == "10"
    assert merged["env_vars"]["HF_HUB_DISABLE_PROGRESS_BARS"] == "1" and "PYTHONPATH" not in merged["env_vars"]


def test_places_are_given_back_that_a_dead_actor_of_this_sweep_has_left(monkeypatch):
    dead = {"creator_actor_id": b"a" * 16, "creator_actor_dead": True, "creator_job_id": b"\1\0\0\0", "state": 2}
    groups = [
        dead,
        {**dead, "creator_actor_dead": False},
        {**dead, "creator_actor_id": b"\xff" * 16},  # of the script itself
        {**dead, "creator_job_id": b"\2\0\0\0"},  # of another sweep
        {**dead, "state": PlacementGroupTableData.REMOVED},
    ]
    ids = [bytes([65 + number]) * 18 for number in range(len(groups))]
    rows = [PlacementGroupTableData(placement_group_id=i, **g) for i, g in zip(ids, groups, strict=True)]
    table = SimpleNamespace(get_placement_group_table=lambda: [row.SerializeToString() for row in rows])
    monkeypatch.setattr(cluster, "ray_state", SimpleNamespace(_connect_and_get_accessor=lambda: table))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01000000"))
    removed = []
    monkeypatch.setattr(cluster, "remove_placement_group", lambda group: removed.append(group.id.binary()))
    cluster.give_back_places()
    assert removed == ids[:1]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([{"CPU": 1.0, "memory": 8e9}], "--num-workers: 2 workers asked for, the cluster has 0 GPUs and 1 cores"),
        ([{"CPU": 8.0, "memory": 8e8}, {"CPU": 8.0, "memory": 8e8}], "no node of Ray's has the 1 GiB of memory left"),
        ([{"CPU": 8.0, "memory": 8e8, "driver": 9.0}, {"CPU": 8.0, "memory": 8e9}], "no node of Ray's has the 1 GiB"),
    ],
)
def test_a_trial_that_could_never_be_placed_is_refused(monkeypatch, nodes, words):
    def there(*given):
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in given])
        monkeypatch.setattr(ray, "cluster_resources", lambda: dict(sum(map(Counter, given), Counter())))

    there(*nodes)
    with pytest.raises(SettingsError, match=words):
        cluster.require_capacity(Parallelism(num_workers=2))
    there({"CPU": 8.0, "memory": 8e9})
    cluster.require_capacity(Parallelism(num_workers=2))


def test_drivers_are_counted_by_the_memory_of_the_nodes_where_they_may_live(monkeypatch):
    nodes = [{"memory": 2.5 * 1024**3}, {"memory": 1.5 * 1024**3}, {"CPU": 1.0}]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert cluster.driver_slots() == 3
    nodes[1]["driver"] = 100.0  # the head's
    assert cluster.driver_slots() == 1
