"""Projects and profiles are changed only to what the instances that are there may be."""

from __future__ import annotations

import pytest

from core.errors import AlreadyExists, Forbidden, LimitReached, NotFound, PodiumError, WrongState
from core.operations.operation import Operation
from core.records import Instance, Profile, Project
from core.state import keys
from core.state.store import Txn
from tests.unit.cluster.conftest import Cluster

ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}


async def add_instance(cluster: Cluster, project: str, name: str = "c1", **config: str) -> None:
    own = {key.replace("_", "."): value for key, value in config.items()}
    record = Instance(id=f"id-{name}", project=project, name=name, profiles=("default",), config=own)
    revision = await cluster.memory.commit(Txn().put(keys.instance(project, name), record))
    await cluster.store.instances.wait_for(revision)


async def change(cluster: Cluster, **config: str) -> None:
    values = {key.replace("__", "-").replace("_", "."): value for key, value in config.items()}
    await cluster.projects.update(Project("p1", "", values), merge=True, expected_revision=0)


@pytest.fixture(autouse=True)
async def project(cluster: Cluster) -> None:
    await cluster.projects.create(Project("p1"))


async def test_a_project_is_not_restricted_below_what_it_holds(cluster: Cluster) -> None:
    """LXD lets "restricted" itself pass; then no instance of the project could be changed any more."""
    await add_instance(cluster, "p1", security_nesting="true")
    with pytest.raises(Forbidden, match="Container nesting is forbidden"):
        await change(cluster, restricted="true")
    await change(cluster, restricted="true", restricted_containers_nesting="allow")
    with pytest.raises(Forbidden, match=r'^Conflict detected when changing "restricted.containers'):
        await change(cluster, restricted_containers_nesting="block")
    with pytest.raises(Forbidden):
        await change(cluster, restricted_containers_nesting="")


async def test_a_profile_of_a_restricted_project_is_checked_with_its_instances(cluster: Cluster) -> None:
    await change(cluster, restricted="true")
    await add_instance(cluster, "p1")
    for config in ({"security.privileged": "true"}, {"raw.lxc": "x"}):
        with pytest.raises(Forbidden, match=r'^Failed checking if profile update .* container "c1"'):
            await cluster.profiles.update(
                Profile("p1", "default", "", config), merge=True, expected_revision=0
            )
        with pytest.raises(Forbidden, match='on profile "p2"'):
            await cluster.profiles.create(Profile("p1", "p2", "", config))
    assert not cluster.profiles.get("p1", "default").record.config


async def test_a_profile_edit_counts_for_all_that_use_it(cluster: Cluster) -> None:
    bounded = Profile("p1", "default", "", {"limits.memory": "512MiB"}, ROOT)
    await cluster.profiles.update(bounded, merge=False, expected_revision=0)
    await add_instance(cluster, "p1", "c1")
    await add_instance(cluster, "p1", "c2")
    await change(cluster, limits_memory="1GiB")
    with pytest.raises(LimitReached, match='aggregate value "1GiB" for '):
        await cluster.profiles.update(
            Profile("p1", "default", "", {"limits.memory": "513MiB"}), merge=True, expected_revision=0
        )
    with pytest.raises(LimitReached, match=r'"limits.memory" is too low: current total is "1.0GiB"'):
        await change(cluster, limits_memory="1023MiB")
    assert cluster.projects.usage("p1")["memory"] == (1 << 30, 1 << 30)


async def test_a_shared_profile_is_checked_for_every_project_that_shares_it(cluster: Cluster) -> None:
    """A project without profiles of its own has limits nevertheless."""
    await cluster.projects.create(Project("guest", "", {"features.profiles": "false"}))
    await cluster.projects.update(
        Project("guest", "", {"limits.memory": "1GiB"}), merge=True, expected_revision=0
    )
    bounded = Profile("default", "default", "", {"limits.memory": "512MiB"}, ROOT)
    await cluster.profiles.update(bounded, merge=False, expected_revision=0)
    await add_instance(cluster, "guest", limits_memory="512MiB")
    await add_instance(cluster, "guest", "c2")
    with pytest.raises(PodiumError, match='aggregate value "1GiB"'):
        await cluster.profiles.update(
            Profile("default", "default", "", {"limits.memory": "513MiB"}), merge=True, expected_revision=0
        )


async def test_a_project_that_an_unseen_instance_broke_is_not_changed(cluster: Cluster) -> None:
    """The transaction proves that the cache had seen all: here it has not, until the try after."""
    record = Instance(id="i", project="p1", name="c1", config={"security.nesting": "true"})
    await cluster.memory.commit(Txn().put(keys.instance("p1", "c1"), record))
    with pytest.raises(Forbidden):
        await change(cluster, restricted="true")


async def test_a_renamed_profile_is_used_by_whom_it_was(cluster: Cluster) -> None:
    await cluster.profiles.create(Profile("p1", "web"))
    record = Instance(id="i", project="p1", name="c1", profiles=("default", "web"))
    revision = await cluster.memory.commit(Txn().put(keys.instance("p1", "c1"), record))
    await cluster.store.instances.wait_for(revision)

    await cluster.profiles.rename("p1", "web", "www")

    found = await cluster.memory.get(keys.instance("p1", "c1"))
    assert found and b'"profiles":["default","www"]' in found.value
    await cluster.store.instances.wait_for(found.revision)
    assert cluster.profiles.users(cluster.profiles.get("p1", "www").record) == ["instances/c1?project=p1"]


async def renamed(cluster: Cluster, name: str, new_name: str) -> Operation:
    operation = await cluster.projects.accept_rename(name, new_name)
    return await cluster.runner.wait(operation.id)


async def test_an_empty_project_is_renamed_with_its_profile(cluster: Cluster) -> None:
    await cluster.profiles.update(
        Profile("p1", "default", "mine", {"user.a": "1"}), merge=False, expected_revision=0
    )
    await cluster.projects.create(Project("taken"))
    assert (await renamed(cluster, "p1", "p2")).state == "succeeded"
    assert cluster.profiles.get("p2", "default").record.config == {"user.a": "1"}
    with pytest.raises(NotFound):
        cluster.projects.get("p1")
    with pytest.raises(NotFound):
        cluster.profiles.get("p1", "default")
    with pytest.raises(AlreadyExists, match='A project named "taken" already exists'):
        await cluster.projects.accept_rename("p2", "taken")
    with pytest.raises(Forbidden, match="The 'default' project cannot be renamed"):
        await cluster.projects.accept_rename("default", "p3")
    await add_instance(cluster, "p2")
    with pytest.raises(WrongState, match="Only empty projects can be renamed"):
        await cluster.projects.accept_rename("p2", "p3")


async def test_a_project_has_a_default_profile_exactly_when_it_has_profiles(cluster: Cluster) -> None:
    await change(cluster, features_profiles="false")
    with pytest.raises(NotFound):
        cluster.profiles.get("p1", "default")
    assert cluster.projects.users("p1") == []
    await change(cluster, features_profiles="true")
    assert cluster.projects.users("p1") == ["profiles/default?project=p1"]
