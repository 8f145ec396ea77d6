"""Profiles, projects and the server's configuration."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from core.errors import AlreadyExists, Forbidden, Invalid, NotFound, Stale, WrongState
from core.records import Instance, Network, Profile, Project
from core.state import keys
from core.state.store import Txn
from services.cluster.domain.rules import checked_profile
from tests.unit.cluster.conftest import Cluster


async def add_instance(cluster: Cluster, project: str, name: str, *profiles: str) -> None:
    record = Instance(id=f"id-{name}", project=project, name=name, profiles=profiles)
    revision = await cluster.memory.commit(Txn().put(keys.instance(project, name), record))
    await cluster.store.instances.wait_for(revision)


async def test_a_profile_lives_from_create_to_delete(cluster: Cluster) -> None:
    entry = await cluster.profiles.create(Profile("default", "web", "d", {"limits.cpu": "2", "user.a": ""}))
    assert entry.record.config == {"limits.cpu": "2"}
    more = Profile(
        "default", "web", "", {"limits.cpu": "", "user.b": "1"}, {"eth0": {"type": "nic", "network": "b"}}
    )
    merged = await cluster.profiles.update(more, merge=True, expected_revision=0)
    assert (merged.record.description, merged.record.config) == ("d", {"user.b": "1"})
    await cluster.profiles.rename("default", "web", "www")
    await cluster.profiles.delete("default", "www")
    with pytest.raises(NotFound):
        cluster.profiles.get("default", "www")


async def test_a_profile_in_use_stays(cluster: Cluster) -> None:
    await cluster.profiles.create(Profile("default", "web"))
    await add_instance(cluster, "default", "c1", "default", "web")
    assert cluster.profiles.users(cluster.profiles.get("default", "web").record) == ["instances/c1"]
    with pytest.raises(WrongState, match="Profile is currently in use"):
        await cluster.profiles.delete("default", "web")


ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}


@pytest.mark.parametrize("devices", [{}, {"root": {**ROOT["root"], "pool": "other"}}])
async def test_a_root_disk_stays_while_an_instance_has_it_from_the_profile(
    cluster: Cluster, devices: dict[str, dict[str, str]]
) -> None:
    """It would not start again; where a later profile or the instance itself has one, it may go."""
    await cluster.profiles.create(Profile("default", "one", devices=ROOT))
    await cluster.profiles.create(Profile("default", "two", devices=ROOT))
    await add_instance(cluster, "default", "c1", "one", "two")
    changed = Profile("default", "two", devices=devices)
    with pytest.raises(WrongState, match="At least one instance relies on this profile's root disk device"):
        await cluster.profiles.update(changed, merge=False, expected_revision=0)
    larger = {"root": {**ROOT["root"], "size": "5GiB"}}
    await cluster.profiles.update(Profile("default", "two", devices=larger), merge=False, expected_revision=0)
    await cluster.profiles.update(replace(changed, name="one"), merge=False, expected_revision=0)


async def test_an_instance_that_the_cache_has_not_seen_keeps_its_profile(cluster: Cluster) -> None:
    await cluster.profiles.create(Profile("default", "web"))
    record = Instance(id="i", project="default", name="c1", profiles=("web",))
    await cluster.memory.commit(Txn().put(keys.instance("default", "c1"), record))
    with pytest.raises((WrongState, Stale)):
        await cluster.profiles.delete("default", "web")


async def test_the_default_profile_and_project_are_protected(cluster: Cluster) -> None:
    with pytest.raises(Forbidden, match='The "default" profile cannot be deleted'):
        await cluster.profiles.delete("default", "default")
    with pytest.raises(Forbidden, match='The "default" profile cannot be renamed'):
        await cluster.profiles.rename("default", "default", "x")
    with pytest.raises(Forbidden):
        await cluster.projects.delete("default")


async def test_a_change_to_an_old_revision_is_stale(cluster: Cluster) -> None:
    first = await cluster.profiles.create(Profile("default", "web"))
    await cluster.profiles.update(Profile("default", "web", "2"), merge=False, expected_revision=0)
    with pytest.raises(Stale):
        await cluster.profiles.update(
            Profile("default", "web", "3"), merge=False, expected_revision=first.revision
        )


async def test_names_are_taken_once(cluster: Cluster) -> None:
    await cluster.profiles.create(Profile("default", "web"))
    await cluster.profiles.create(Profile("default", "www"))
    with pytest.raises(AlreadyExists):
        await cluster.profiles.create(Profile("default", "web"))
    with pytest.raises(AlreadyExists):
        await cluster.profiles.rename("default", "web", "www")


@pytest.mark.parametrize(
    "devices",
    [
        {"eth0": {}},
        {"eth0": {"type": "nic", "name": "x\nlxc.hook.start = /x"}},
        {"eth0": {"type": "nic", "a\nb": "x"}},
        {"../x": {"type": "nic"}},
        {f"d{i}": {"type": "disk"} for i in range(100)},
    ],
)
async def test_hostile_devices_are_refused(cluster: Cluster, devices: dict[str, dict[str, str]]) -> None:
    with pytest.raises(Invalid):
        await cluster.profiles.create(Profile("default", "bad", "", {}, devices))


async def test_a_project_goes_only_when_empty(cluster: Cluster) -> None:
    await cluster.projects.create(Project("p1"))
    await add_instance(cluster, "p1", "c1", "default")
    assert "instances/c1?project=p1" in cluster.projects.users("p1")
    with pytest.raises(WrongState, match="Only empty projects can be removed"):
        await cluster.projects.delete("p1")
    with pytest.raises(WrongState, match=r'"features.images" cannot be disabled on non-empty projects'):
        await cluster.projects.update(
            Project("p1", "", {"features.images": "false"}), merge=True, expected_revision=0
        )
    await cluster.projects.create(Project("p2"))
    await cluster.projects.delete("p2")
    with pytest.raises(NotFound):
        cluster.profiles.get("p2", "default")


async def test_two_creations_of_one_project_leave_one(cluster: Cluster) -> None:
    made = await asyncio.gather(
        *(cluster.projects.create(Project("p1")) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(m, AlreadyExists) for m in made) == 4


async def test_the_password_is_stored_hashed(cluster: Cluster) -> None:
    new = await cluster.server.update(
        {"core.trust_password": "secret"}, unchanged=[], merge=True, expected_revision=0
    )
    assert new.record.config["core.trust_password"].startswith("scrypt:") and "secret" not in str(new)
    kept = await cluster.server.update(
        {"user.a": "1"}, unchanged=["core.trust_password"], merge=False, expected_revision=0
    )
    assert kept.record.config == {**new.record.config, "user.a": "1"}
    assert not (await cluster.server.update({}, unchanged=[], merge=False, expected_revision=0)).record.config


async def test_what_is_too_large_for_the_store_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Invalid, match="larger than 1024 KiB"):
        await cluster.profiles.create(Profile("default", "big", "d" * 2_000_000))


async def test_a_profile_is_used_by_instances_of_projects_that_share_it(cluster: Cluster) -> None:
    """A project with features.profiles=false uses those of the default project."""
    await cluster.projects.create(Project("guest", "", {"features.profiles": "false"}))
    await cluster.projects.create(Project("own"))
    await cluster.profiles.create(Profile("default", "big"))
    for project in ("guest", "own"):
        instance = Instance(id=project, project=project, name="i", profiles=("big",))
        revision = await cluster.memory.commit(Txn().put(keys.instance(project, "i"), instance))
        await cluster.store.instances.wait_for(revision, timeout_s=5)

    assert cluster.profiles.users(Profile("default", "big")) == ["instances/i?project=guest"]
    with pytest.raises(WrongState, match="in use"):
        await cluster.profiles.delete("default", "big")


def test_a_static_address_of_a_profile_is_one_of_its_network() -> None:
    network = Network("br0", "default", "bridge", "", {"ipv4.address": "10.1.2.1/24"})
    nic = {"type": "nic", "network": "br0", "ipv4.address": "10.1.2.9"}
    checked_profile(Profile("default", "p", devices={"eth0": nic}), {"br0": network})
    nic["ipv4.address"] = "1.2.3.4"
    with pytest.raises(Invalid, match=r'Device IP address "1.2.3.4" not within network "br0" subnet'):
        checked_profile(Profile("default", "p", devices={"eth0": nic}), {"br0": network})


async def test_a_key_of_the_server_that_does_not_exist_cannot_be_unset(cluster: Cluster) -> None:
    """A typo in `lxc config unset` is told; known keys that have no value may be unset again and again."""
    with pytest.raises(Invalid, match="cannot set 'nosuch' to '': unknown key"):
        await cluster.server.update({"nosuch": ""}, unchanged=[], merge=False, expected_revision=0)
    unset = {"core.proxy_http": "", "images.auto_update_interval": "", "user.a": ""}
    assert not (
        await cluster.server.update(unset, unchanged=[], merge=True, expected_revision=0)
    ).record.config


async def _gone_unheard(cluster: Cluster, change: Txn) -> None:
    """Have somebody change the store, and hear of it a moment later than whoever asked for that."""
    cluster.memory.delay_s = 0.05
    await cluster.memory.commit(change)


async def test_a_project_is_empty_once_its_last_instance_is_gone(cluster: Cluster) -> None:
    """Who heard of that from another service asks at once."""
    await cluster.projects.create(Project("p1"))
    await add_instance(cluster, "p1", "c1", "default")
    await _gone_unheard(cluster, Txn().delete(keys.instance("p1", "c1")))
    await cluster.projects.delete("p1")


async def test_features_may_change_once_the_last_instance_is_gone(cluster: Cluster) -> None:
    await cluster.projects.create(Project("p1"))
    await add_instance(cluster, "p1", "c1", "default")
    await _gone_unheard(cluster, Txn().delete(keys.instance("p1", "c1")))
    wanted = Project("p1", "", {"features.images": "false"})
    changed = await cluster.projects.update(wanted, merge=True, expected_revision=0)
    assert changed.record.config["features.images"] == "false"


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_profile_goes_once_its_last_user_is_gone_or_has_another(
    cluster: Cluster, is_deleted: bool
) -> None:
    await cluster.profiles.create(Profile("default", "web"))
    await add_instance(cluster, "default", "c1", "web")
    key, other = keys.instance("default", "c1"), Instance(id="id-c1", project="default", name="c1")
    await _gone_unheard(cluster, Txn().delete(key) if is_deleted else Txn().put(key, other))
    await cluster.profiles.delete("default", "web")
    with pytest.raises(NotFound):
        cluster.profiles.get("default", "web")
