"""Every use of a private part of Ray, as read in ray 2.60.0.

The bounds of ``ray`` in ``pyproject.toml`` cover the releases with these parts.
``tests/study/ray_backend/test_ray_internals.py`` checks each of them against the installed Ray.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import state
from ray.air.execution._internal import actor_manager
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]  # generated code
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.tune.execution import class_cache, tune_controller
from ray.util.placement_group import PlacementGroup, remove_placement_group


def treat_out_of_memory_as_dead_actor() -> None:
    """Make Tune handle a driver that Ray's memory monitor has killed as a failed trial.

    Tune recognises dead actors by ``RayActorError``. Ray raises ``OutOfMemoryError`` here, which ends the whole sweep.
    """
    for module in (actor_manager, tune_controller):
        vars(module)["RayActorError"] = (RayActorError, OutOfMemoryError)


def stop_copying_environment() -> None:
    """Stop Tune from copying environment variables to its actors, which inherit those of their machine anyway.

    Tune copies them, credentials included, in a runtime environment. Ray logs runtime environments and does not start
    an actor that has one in an idle worker process.
    """
    class_cache.ENV_VARS_TO_PROPAGATE.clear()
    class_cache.DEFAULT_ENV_VARS.clear()


def remove_orphaned_placement_groups() -> None:
    """Remove the placement groups that dead actors of this job have left; to be called from a live actor.

    Ray Train removes the placement group of a worker group in its controller. If Ray's memory monitor kills the
    controller together with the workers, the group keeps its resources and no other worker can start.
    """
    job = ray.get_runtime_context().get_job_id()
    for serialised in state._connect_and_get_accessor().get_placement_group_table():
        row = PlacementGroupTableData.FromString(serialised)
        by_actor = row.creator_actor_id.strip(b"\xff") != b""  # Tune's own groups are created by the script
        orphaned = by_actor and row.creator_actor_dead and row.state != PlacementGroupTableData.REMOVED
        if orphaned and row.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(row.placement_group_id)))


class TorchTrainerWithoutCleaner(TorchTrainer):
    """``TorchTrainer`` without the process that removes a placement group after its controller was killed.

    That process delays every start and needs the dashboard. ``remove_orphaned_placement_groups`` replaces it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]
