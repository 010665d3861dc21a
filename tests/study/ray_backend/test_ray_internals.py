"""The private parts of Ray that the project uses; these tests fail when another release of Ray changes them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
import ray.train
from ray.air.execution._internal import RayActorManager, actor_manager
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.tune.execution import class_cache, tune_controller

from study.ray_backend import ray_internals


def test_driver_killed_for_memory_counts_as_dead_actor(monkeypatch):
    def failed_actors():
        manager, failed = RayActorManager(SimpleNamespace()), []
        monkeypatch.setattr(manager, "_cleanup_actor", lambda tracked_actor: None)
        actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, exception: failed.append(exception))
        manager._actor_task_failed(SimpleNamespace(_tracked_actor=actor, _on_error=None), OutOfMemoryError("killed"))
        return failed

    for module in (actor_manager, tune_controller):
        monkeypatch.setattr(module, "RayActorError", RayActorError)
    with pytest.raises(RuntimeError, match="unexpected exception"):  # which would end the sweep
        failed_actors()
    ray_internals.treat_out_of_memory_as_dead_actor()
    assert len(failed_actors()) == 1
    assert isinstance(OutOfMemoryError("killed"), tune_controller.RayActorError)


def test_tune_copies_no_environment_variables(monkeypatch):
    def copied_variables():
        options = {}
        monkeypatch.setattr(ray, "remote", lambda **given: options.update(given) or (lambda cls: cls))
        class_cache._ActorClassCache().get(object)
        return options["runtime_env"]["env_vars"]

    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", set(class_cache.ENV_VARS_TO_PROPAGATE) | {"SECRET"})
    monkeypatch.setattr(class_cache, "DEFAULT_ENV_VARS", {"PL_DISABLE_FORK": "1"})
    monkeypatch.setenv("SECRET", "planted")
    assert copied_variables()["SECRET"] == "planted"
    ray_internals.stop_copying_environment()
    assert copied_variables() == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Data's own defaults
def test_trainer_has_no_placement_group_cleaner():
    def callbacks(trainer_class):
        trainer = trainer_class(lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=1))
        return [type(callback) for callback in trainer._create_default_callbacks()]

    ours = callbacks(ray_internals.TorchTrainerWithoutCleaner)
    assert callbacks(TorchTrainer) == ours[:2] + [PlacementGroupCleanerCallback] + ours[2:]


def test_orphaned_placement_groups_of_this_job_are_removed(monkeypatch):
    orphaned = {"creator_actor_id": b"a" * 16, "creator_actor_dead": True, "creator_job_id": b"\1\0\0\0", "state": 2}
    groups = [
        orphaned,
        {**orphaned, "creator_actor_dead": False},
        {**orphaned, "creator_actor_id": b"\xff" * 16},  # created by the script itself
        {**orphaned, "creator_job_id": b"\2\0\0\0"},  # of another sweep
        {**orphaned, "state": PlacementGroupTableData.REMOVED},
    ]
    ids = [bytes([65 + number]) * 18 for number in range(len(groups))]
    rows = [PlacementGroupTableData(placement_group_id=i, **group) for i, group in zip(ids, groups, strict=True)]
    accessor = SimpleNamespace(get_placement_group_table=lambda: [row.SerializeToString() for row in rows])
    monkeypatch.setattr(ray_internals, "state", SimpleNamespace(_connect_and_get_accessor=lambda: accessor))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01000000"))
    removed = []
    monkeypatch.setattr(ray_internals, "remove_placement_group", lambda group: removed.append(group.id.binary()))
    ray_internals.remove_orphaned_placement_groups()
    assert removed == ids[:1]
