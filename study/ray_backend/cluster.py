"""Where a study runs: a running Ray cluster or a private one, what it offers, and what a trial asks for.

A trial's driver takes some memory and no core, so it can never hold the place that workers, its own or another
study's, wait for.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any

import ray
from ray._private.state import state as ray_state  # Ray has no public way to who made a placement group
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.tune.execution import class_cache
from ray.util.placement_group import PlacementGroup, remove_placement_group

from study.common.environment import LIBRARIES, REPO, gpus
from study.common.errors import SettingsError
from study.config.settings import Parallelism

DRIVER = {"CPU": 0, "memory": 1024**3}
"""A driver with the processes of Ray Train that live beside it: 412, 402, 107 and 60 MiB of their own, measured."""
DRIVER_PLACE = "driver"
"""A resource that a cluster offers where drivers should live: on its head, which is no spot instance."""
GPUS_AT_MOST = "gpus_at_most"
"""A resource by which a head says how many GPUs its autoscaler may bring: Ray's own autoscalers tell nobody."""
ENVIRONMENT = {
    **LIBRARIES,
    "RAY_AIR_NEW_OUTPUT": "0",  # no banners
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the script, which says what is kept
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch has not every objective; the end of a trial has
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon the controller sees a report and the end of a run
}
JOINED = {  # a machine that the autoscaler has to start, and to set up, takes minutes
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
}
ANSWER_SECONDS = 10.0
REMEDY = (
    "start that cluster, correct the variable (and RAY_AUTH_TOKEN, where it asks for one), or unset it to run on this "
    "machine alone"
)
ALONE = {  # processes of Ray Train that a private Ray on one machine has no use for; each costs seconds a trial
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


def set_environment() -> None:
    """Quiet the libraries in this process; to be called before they are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not gpus():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def connect() -> str:
    """Join the cluster of ``RAY_ADDRESS`` (Ray's jobs have it), or start a private local one, without a dashboard.

    Returns:
        Where the study runs, for the user.

    Raises:
        SettingsError: the cluster cannot be joined, or Ray does not start.
    """
    # Tune would copy variables, credentials among them, to its actors by a runtime environment: Ray logs these, and
    # lets no process that it has waiting take such an actor. The actors have those of their machine.
    class_cache.ENV_VARS_TO_PROPAGATE.clear()
    class_cache.DEFAULT_ENV_VARS.clear()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    root = str(REPO)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    if os.environ.get("RAY_ADDRESS"):
        _start(runtime_env={"env_vars": _handed_on(path)}, **quiet)
        where = "the Ray cluster"
    else:  # "auto" would also join the private Ray of another sweep, and die with it
        # By inheritance, not by a runtime_env: that would keep Ray from using the worker processes it has waiting.
        os.environ |= {**ALONE, "PYTHONPATH": path}
        _start(address="local", include_dashboard=False, **quiet)
        where = "this machine"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what failed is in the records; Tune would print it thrice
    have = capacity()
    return f"{where}: {have.get('CPU', 0):g} cores, {have.get('GPU', 0):g} GPUs"


def _handed_on(path: str) -> dict[str, str]:
    """Variables for the processes of a cluster; of a job's own, which they have, Ray takes none a second time."""
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    theirs = (json.loads(job).get("runtime_env") or {}).get("env_vars") or {} if job else {}
    own = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}
    variables = ENVIRONMENT | JOINED | own
    if not job:  # else its working_dir is on every node's path already
        variables["PYTHONPATH"] = path
    return {name: value for name, value in variables.items() if name not in theirs}


def leave() -> None:
    """Leave the cluster, and end a private one."""
    ray.shutdown()


def require_answer() -> None:
    """Refuse a ``RAY_ADDRESS`` at which nothing listens: Ray itself would try for minutes.

    Raises:
        SettingsError: with the address and the remedy.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto", which Ray looks up, or "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise SettingsError([f"RAY_ADDRESS: nothing answers at {address} ({error}); {REMEDY}"]) from error


def _start(**options: Any) -> None:
    """``ray.init``, whose failures are of many classes, ``Exception`` itself among them."""
    try:
        ray.init(**options)
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        address = os.environ.get("RAY_ADDRESS")
        if address:
            raise SettingsError(
                [f"RAY_ADDRESS: the cluster at {address} cannot be joined ({said}); {REMEDY}"]
            ) from error
        logs = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "session_latest", "logs")
        raise SettingsError(
            [
                f"Ray did not start on this machine ({said}); run the same command again when the machine is less "
                f"busy, with room in memory and on the disk; Ray's logs are in {logs}"
            ]
        ) from error


def capacity() -> dict[str, float]:
    """What the cluster has, or can grow to."""
    return grown(ray.cluster_resources())


def grown(resources: dict[str, float]) -> dict[str, float]:
    """The resources of a cluster once its autoscaler has brought the GPUs that its head announces.

    >>> grown({"CPU": 8.0, "gpus_at_most": 64.0})
    {'CPU': 8.0, 'gpus_at_most': 64.0, 'GPU': 64.0}
    """
    gpus = max(resources.get("GPU", 0.0), resources.get(GPUS_AT_MOST, 0.0))
    return {**resources, **({"GPU": gpus} if gpus else {})}


def has_gpus() -> bool:
    """Whether workers get a GPU each."""
    return capacity().get("GPU", 0) > 0


def driver_resources(resources: dict[str, float]) -> dict[str, float]:
    """What a trial's driver asks for: a ``DRIVER_PLACE`` where the cluster offers any."""
    return {**DRIVER, DRIVER_PLACE: 1} if resources.get(DRIVER_PLACE) else dict(DRIVER)


def worker_resources(use_gpu: bool) -> dict[str, float]:
    """What each rank of a trial asks for."""
    return {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}


def give_back_places() -> None:
    """Remove the placement groups that a dead actor of this sweep has left; called from one that lives.

    Ray Train (2.60) leaves a worker group's places taken if what removes them was killed with the workers, as Ray's
    memory monitor does: nothing could start any more.
    """
    job = ray.get_runtime_context().get_job_id()
    for row in map(
        PlacementGroupTableData.FromString, ray_state._connect_and_get_accessor().get_placement_group_table()
    ):
        made_by_an_actor = row.creator_actor_id.strip(b"\xff") != b""  # the script's own, Tune's, have no such maker
        left = made_by_an_actor and row.creator_actor_dead and row.state != PlacementGroupTableData.REMOVED
        if left and row.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(row.placement_group_id)))


def room_for_drivers() -> int:
    """How many drivers the nodes that are there have memory for, counting those alone where drivers should live."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = [node for node in nodes if node.get(DRIVER_PLACE)] or nodes
    return sum(int(node.get("memory", 0) // DRIVER["memory"]) for node in places)


def require_room(parallelism: Parallelism) -> None:
    """Refuse a trial that could never be placed, instead of waiting for ever.

    Raises:
        SettingsError: the cluster has fewer GPUs, or fewer cores, than ``--num-workers``, or no memory for a driver.
    """
    resources = capacity()
    if not room_for_drivers():
        need = DRIVER["memory"] / 1024**3
        raise SettingsError(
            [f"no node of Ray's has the {need:g} GiB of memory left that a trial's driver asks for; end other programs"]
        )
    if not concurrent_trials(parallelism, resources):
        have = f"{resources.get('GPU', 0):g} GPUs and {resources.get('CPU', 0):g} cores"
        raise SettingsError(
            [f"--num-workers: {parallelism.num_workers} workers asked for, the cluster has {have}; use fewer"]
        )


def concurrent_trials(parallelism: Parallelism, resources: dict[str, float]) -> int:
    """How many trials the cluster holds at once; 0 if not even one.

    Each rank takes a core, beside its GPU too; how many cores will come with an autoscaler's GPUs is not known, nor
    is it looked at how cores and GPUs are shared out among machines.

    >>> two = Parallelism(num_workers=2)
    >>> [concurrent_trials(two, {"CPU": 4.0, **more}) for more in ({}, {"GPU": 8.0}, {"GPU": 2.0})]
    [2, 2, 1]
    """
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    slots = gpus if GPUS_AT_MOST in resources else min(cores, gpus or cores)
    return int(slots // parallelism.num_workers)
