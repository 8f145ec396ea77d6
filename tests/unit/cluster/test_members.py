"""Members as the cluster service shows them: what lives, and where it listens."""

from __future__ import annotations

from core.records import Member, Presence
from core.state import keys
from core.state.store import Txn
from services.cluster.servicer import convert
from services.cluster.usecases.members import Members
from tests.unit.cluster.conftest import Cluster


async def alive(cluster: Cluster, member: str, *services: str) -> None:
    for service in services:
        record = Presence(member, service, "x", f"{member}:1")
        revision = await cluster.memory.commit(Txn().put(keys.presence(member, service), record))
        await cluster.store.presence.wait_for(revision, timeout_s=5)


async def test_a_member_is_shown_with_its_living_services(cluster: Cluster) -> None:
    members = Members(cluster.store)
    for name in ("all", "none", "some"):
        await members.record(Member(name, "", "x86_64"))
    await alive(cluster, "all", "cluster", "image", "network", "runtime")
    await alive(cluster, "some", "cluster", "network", "runtime")

    shown = {m.name: m for m in map(convert.member, members.all())}

    assert {name: m.status for name, m in shown.items()} == {
        "all": "Online",
        "none": "Offline",
        "some": "Degraded",
    }
    assert shown["all"].services["image"] == "all:1"
    assert shown["some"].message == "No sign of life from image"


async def test_what_is_known_of_a_member_is_not_written_again(cluster: Cluster) -> None:
    """A restart must not wake everyone that follows the members."""
    members = Members(cluster.store)
    await members.record(Member("a", "", "x86_64"))
    before = (await cluster.memory.list(keys.MEMBERS)).kvs

    await members.record(Member("a", "", "x86_64"))

    assert (await cluster.memory.list(keys.MEMBERS)).kvs == before
