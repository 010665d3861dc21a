"""The Ray cluster of a study: connection, resources, and how many trials run at once.

A trial's driver requests memory but no core, so it never takes a core that the workers of a trial wait for.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any

import ray

from study.common.environment import LIBRARIES, REPO, gpus
from study.common.errors import SettingsError
from study.config.settings import Parallelism
from study.ray_backend.ray_internals import stop_copying_environment

DRIVER = {"CPU": 0, "memory": 1024**3}
"""The request of a driver with the Ray Train processes beside it, measured at 412, 402, 107 and 60 MiB."""
DRIVER_RESOURCE = "driver"
"""Custom resource of the nodes where drivers run: the head of a cluster, which is not a spot instance."""
MAX_GPUS_RESOURCE = "gpus_at_most"
"""Custom resource by which a head declares how many GPUs its autoscaler can start; Ray itself does not report this."""
ENVIRONMENT = {
    **LIBRARIES,
    "RAY_AIR_NEW_OUTPUT": "0",  # no banners
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the script
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # only the last result of a trial has every objective
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon the controller notices a report or the end of a run
}
CLUSTER_ENVIRONMENT = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # an autoscaler may need minutes to start a machine
}
LOCAL_ENVIRONMENT = {  # Ray Train processes that cost seconds per trial and are useless on a single machine
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
CONNECT_SECONDS = 10.0
REMEDY = (
    "start that cluster, correct the variable (and RAY_AUTH_TOKEN if the cluster needs one), or unset it to run on "
    "this machine alone"
)


def set_environment() -> None:
    """Set environment variables for Ray and other libraries. Call this before they are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not gpus():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def connect() -> str:
    """Connect to the cluster at ``RAY_ADDRESS`` (set in Ray jobs), or start a private Ray without a dashboard.

    Returns:
        A description of the resources for the user.

    Raises:
        SettingsError: the cluster cannot be joined, or Ray does not start.
    """
    stop_copying_environment()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    python_path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    if os.environ.get("RAY_ADDRESS"):
        _init(runtime_env={"env_vars": _cluster_variables(python_path)}, **quiet)
        location = "the Ray cluster"
    else:
        # Workers inherit these. Ray would not reuse its idle worker processes if they were given as a runtime_env.
        os.environ |= {**LOCAL_ENVIRONMENT, "PYTHONPATH": python_path}
        # The address "auto" would also join the private Ray of another sweep, and end with it.
        _init(address="local", include_dashboard=False, **quiet)
        location = "this machine"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # errors are in the records; Tune would print them three times
    resources = capacity()
    return f"{location}: {resources.get('CPU', 0):g} cores, {resources.get('GPU', 0):g} GPUs"


def _cluster_variables(python_path: str) -> dict[str, str]:
    """Return the environment variables for the processes of a cluster.

    Variables of the Ray job are left out: its processes have them, and Ray refuses to set one twice.
    """
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    job_variables = (json.loads(job).get("runtime_env") or {}).get("env_vars") or {} if job else {}
    from_user = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}
    variables = ENVIRONMENT | CLUSTER_ENVIRONMENT | from_user
    if not job:  # the working_dir of a job is already on the path of every node
        variables["PYTHONPATH"] = python_path
    return {name: value for name, value in variables.items() if name not in job_variables}


def disconnect() -> None:
    """Disconnect from the cluster; a private Ray ends."""
    ray.shutdown()


def require_reachable() -> None:
    """Check that something listens at ``RAY_ADDRESS``; Ray itself would retry for minutes.

    Raises:
        SettingsError: nothing listens there.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto" or "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise SettingsError([f"RAY_ADDRESS: nothing answers at {address} ({error}); {REMEDY}"]) from error


def _init(**options: Any) -> None:
    """Call ``ray.init`` and turn its exceptions into ``SettingsError``."""
    try:
        ray.init(**options)
    except Exception as error:  # of many classes, including Exception itself
        message = str(error).strip().partition("\n")[0]
        address = os.environ.get("RAY_ADDRESS")
        if address:
            raise SettingsError([f"RAY_ADDRESS: cannot join the cluster at {address} ({message}); {REMEDY}"]) from error
        logs = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "session_latest", "logs")
        raise SettingsError(
            [
                f"Ray did not start on this machine ({message}); run the same command again when the machine is less "
                f"busy and has free memory and disk space; Ray's logs are in {logs}"
            ]
        ) from error


def capacity() -> dict[str, float]:
    """Return the resources that the cluster has or can scale up to."""
    return with_autoscaled_gpus(ray.cluster_resources())


def with_autoscaled_gpus(resources: dict[str, float]) -> dict[str, float]:
    """Return the resources of a cluster with the GPUs that its autoscaler can start.

    >>> with_autoscaled_gpus({"CPU": 8.0, "gpus_at_most": 64.0})
    {'CPU': 8.0, 'gpus_at_most': 64.0, 'GPU': 64.0}
    """
    gpus = max(resources.get("GPU", 0.0), resources.get(MAX_GPUS_RESOURCE, 0.0))
    return {**resources, **({"GPU": gpus} if gpus else {})}


def has_gpus() -> bool:
    """Return whether each worker gets a GPU."""
    return capacity().get("GPU", 0) > 0


def driver_resources(resources: dict[str, float]) -> dict[str, float]:
    """Return the resource request of a trial driver, with ``DRIVER_RESOURCE`` if the cluster has it."""
    return {**DRIVER, DRIVER_RESOURCE: 1} if resources.get(DRIVER_RESOURCE) else dict(DRIVER)


def worker_resources(use_gpu: bool) -> dict[str, float]:
    """Return the resource request of one worker."""
    return {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}


def driver_slots() -> int:
    """Return how many drivers fit into the memory of the current nodes (of those with ``DRIVER_RESOURCE``, if any)."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    driver_nodes = [node for node in nodes if node.get(DRIVER_RESOURCE)] or nodes
    return sum(int(node.get("memory", 0) // DRIVER["memory"]) for node in driver_nodes)


def require_capacity(parallelism: Parallelism) -> None:
    """Check that a trial can be placed; Ray would wait for ever.

    Raises:
        SettingsError: the cluster has fewer GPUs or cores than ``--num-workers``, or no memory for a driver.
    """
    resources = capacity()
    if not driver_slots():
        memory = DRIVER["memory"] / 1024**3
        raise SettingsError(
            [f"no Ray node has the {memory:g} GiB of free memory that a trial's driver needs; end other programs"]
        )
    if not max_concurrent_trials(parallelism, resources):
        available = f"{resources.get('GPU', 0):g} GPUs and {resources.get('CPU', 0):g} cores"
        raise SettingsError(
            [f"--num-workers: {parallelism.num_workers} workers requested, but the cluster has {available}; use fewer"]
        )


def max_concurrent_trials(parallelism: Parallelism, resources: dict[str, float]) -> int:
    """Return how many trials the cluster can run at once; 0 if it cannot run one.

    A worker needs a core, also if it has a GPU. The cores of machines that an autoscaler will start are unknown, so
    there only GPUs count. How cores and GPUs are distributed over machines is ignored.

    >>> two = Parallelism(num_workers=2)
    >>> [max_concurrent_trials(two, {"CPU": 4.0, **more}) for more in ({}, {"GPU": 8.0}, {"GPU": 2.0})]
    [2, 2, 1]
    """
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    slots = gpus if MAX_GPUS_RESOURCE in resources else min(cores, gpus or cores)
    return int(slots // parallelism.num_workers)
