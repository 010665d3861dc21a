"""Faults of a Ray cluster of several nodes: a node goes or is slow, workers cannot start, a job is stopped.

The sweep must end with the metrics of a sweep without faults, without repeating a finished trial.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests import REPO
from tests.conftest import PATIENCE, sweep_flags
from tests.study.ray_backend.sweeps import (
    advanced,
    assert_nothing_lost,
    epochs_of,
    markers_of,
    output_of,
    unfinished,
    values_of,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(4 * PATIENCE)]
SEARCH = ("--sampler", "random", "--space", "schedules", "--num-workers", "1", "--trials", "4")
SEARCH += ("--epochs", "20", "--set", "optimisation.patience=20")  # long enough for a fault in the middle
SLOW_SECONDS = 20.0

NODES = """
import json, sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 1024**2}
head = {"num_cpus": 0, "resources": {"driver": 100}, "include_dashboard": True, "dashboard_port": int(sys.argv[1])}
head["dashboard_agent_listen_port"] = int(sys.argv[2])  # jobs need it
cluster = Cluster(initialize_head=True, head_node_args={**head, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
def report():
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
report()
for line in sys.stdin:
    cluster.remove_node(nodes.pop(int(line)), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1, **small))
    report()
cluster.shutdown()
"""
"""Start a head for drivers and two nodes with a core each. A line of input names the node to replace by a new one."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(ray_directory):
    """Return a running cluster: the environment of its clients, its nodes' raylets (pids) and ``replace(index)``."""
    variables = {"RAY_TMPDIR": ray_directory, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # for jobs too
    dashboard = free_port()
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES, str(dashboard), str(free_port())],
        env={key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def next_report():
        return json.loads(next(line for line in nodes.stdout if line.startswith("{")))

    first = next_report()

    def replace(index):
        nodes.stdin.write(f"{index}\n")
        nodes.stdin.flush()
        return next_report()["raylets"]

    yield SimpleNamespace(
        variables=variables,
        address=first["address"],
        jobs=f"http://127.0.0.1:{dashboard}",
        raylets=first["raylets"],
        replace=replace,
    )
    nodes.stdin.close()
    nodes.wait(timeout=PATIENCE)
    nodes.stdout.close()


@pytest.fixture(scope="module")
def jobs(cluster, small_corpus, run_sweep):
    """Return ``job(command, *arguments)``, which runs ``ray job``, and ``submit(name, *flags)`` for a sweep."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | cluster.variables

    def job(command, *arguments):
        ray_job = ["ray", "job", command, "--address", cluster.jobs, *arguments]
        done = subprocess.run(ray_job, cwd=REPO, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def submit(name, *flags):
        sweep = ("python", "study/sweep.py", *sweep_flags(small_corpus, str(run_sweep.storage)), *flags)
        job("submit", "--working-dir", ".", "--submission-id", name, "--no-wait", "--", *sweep)

    return SimpleNamespace(job=job, submit=submit)


def wait_for_job(jobs, name):
    """Wait for a job to succeed and return its output."""
    end = wait_for(lambda: next((w for w in ("succeeded", "failed", "stopped") if w in jobs.job("status", name)), None))
    output = jobs.job("logs", name)
    assert end == "succeeded", output
    return output


@pytest.fixture(scope="module")
def expected(run_sweep):
    """Return the values of each configuration of a sweep without faults."""
    done = run_sweep(*SEARCH, "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    return values_of(StudyFolder.at(str(run_sweep.storage), "undisturbed"))


def trained_under(raylet):
    """Return the configuration that a node is training, from the log file of its worker; None if there is none."""
    for worker in psutil.Process(raylet).children(recursive=True):
        try:
            path = Path(os.readlink(f"/proc/{worker.pid}/fd/1"))
        except OSError:  # it has just exited
            continue
        if path.name == "worker-0.log":
            return path.parent.name
    return None


def test_removed_node_is_replaced(run_sweep, start_sweep, expected, cluster):
    folder = StudyFolder.at(str(run_sweep.storage), "nodes")
    process = start_sweep(*SEARCH, "--study", "nodes", variables={**cluster.variables, "RAY_ADDRESS": cluster.address})

    def on_the_first_node():
        name = trained_under(cluster.raylets[0])
        return name if name in unfinished(folder, finished=1) else None

    config_id = wait_for(on_the_first_node, process)
    kept, epochs = markers_of(folder), epochs_of(folder, config_id)
    began = time.monotonic()
    cluster.raylets = cluster.replace(0)
    assert (config_id, 0) not in StudyState(folder).finished_runs
    wait_for(lambda: advanced(folder, config_id, epochs), process)
    print(f"seconds to recover: {round(time.monotonic() - began, 1)} s")
    assert "the Ray cluster: 2 cores" in output_of(process)
    assert_nothing_lost(folder, kept, expected)


OTHER_USER = """
import sys, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
ray.get(ray.util.placement_group([{"CPU": 1}]).ready())
print("reserved", flush=True)
sys.stdin.read()
"""
"""Another user of the cluster, who reserves one of its two cores."""


def test_trial_whose_workers_never_start_fails_with_the_reason(run_sweep, cluster):
    variables = {**cluster.variables, "RAY_ADDRESS": cluster.address}
    limit = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3"}
    flags = ("--study", "never", "--trials", "1", "--retries", "0", "--num-workers", "2", "--space", "schedules")
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_USER], env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert b"reserved" in other.stdout.readline()
        done = run_sweep(*flags, variables=variables | limit)
        other.stdin.close()
    (trial,) = StudyState(StudyFolder.at(str(run_sweep.storage), "never")).trials.values()
    assert done.returncode == 1 and "no run has finished" in done.stdout and "Traceback" not in done.stderr
    assert trial["state"] == "failed" and "timed out" in trial["reason"] and trial["reason"] in done.stdout


def slow_down(processes, seconds):
    """Let processes run a tenth of the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for signal, pause in (("suspend", 0.9), ("resume", 0.1)):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    getattr(process, signal)()
            time.sleep(pause)


def test_node_may_be_ten_times_slower_for_a_while(run_sweep, start_sweep, expected, cluster):
    folder = StudyFolder.at(str(run_sweep.storage), "slow")
    process = start_sweep(*SEARCH, "--study", "slow", variables={**cluster.variables, "RAY_ADDRESS": cluster.address})
    wait_for(lambda: unfinished(folder, finished=1), process)
    kept = markers_of(folder)
    raylet = psutil.Process(cluster.raylets[0])
    slow_down([raylet, *raylet.children(recursive=True)], SLOW_SECONDS)
    output_of(process)
    assert_nothing_lost(folder, kept, expected)


def test_stopped_job_resumes_when_submitted_again(run_sweep, jobs, expected):
    folder = StudyFolder.at(str(run_sweep.storage), "job")
    jobs.submit("first", *SEARCH, "--study", "job")
    open_runs = wait_for(lambda: unfinished(folder, finished=1))
    began = time.monotonic()
    jobs.job("stop", "first")
    print(f"seconds to stop: {round(time.monotonic() - began, 1)} s")
    assert "was stopped" in jobs.job("status", "first")
    kept, epochs = markers_of(folder), {name: epochs_of(folder, name) for name in open_runs}
    assert len(kept) < 4
    jobs.submit("second", *SEARCH, "--study", "job")
    began = time.monotonic()
    wait_for(lambda: all(advanced(folder, name, epochs[name]) for name in open_runs))
    print(f"seconds to recover: {round(time.monotonic() - began, 1)} s")
    wait_for_job(jobs, "second")
    assert_nothing_lost(folder, kept, expected)
