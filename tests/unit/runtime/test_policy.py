"""Every path that writes an instance meets the rules of its project, also at the same time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Forbidden, Invalid, LimitReached, PodiumError, Unsupported
from core.policy import limits, restrictions
from core.policy.subjects import Held, Subject
from core.records import Profile, Project
from core.state import keys
from core.state.store import Txn
from services.runtime.usecases import policy
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.create import Source, Wanted
from tests.unit.runtime.conftest import World

DEVICES = {"root": {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}}
OWN = {"features.profiles": "true", "features.images": "true"}


async def put_project(world: World, **rules: str) -> None:
    """Change project p1 as the cluster service does: by a record that the runtime only follows."""
    config = {**OWN, **{k.replace("__", "-").replace("_", "."): v for k, v in rules.items()}}
    txn = Txn().put(keys.project("p1"), Project("p1", "", config))
    revision = await world.late.commit(
        txn.put(keys.profile("p1", "default"), Profile("p1", "default", devices=DEVICES))
    )
    await world.host.store.projects.wait_for(revision)
    await world.host.store.profiles.wait_for(revision)


async def make(world: World, name: str, **config: str) -> None:
    own = {key.replace("_", "."): value for key, value in config.items()}
    wanted = Wanted("p1", name, Source(alias="debian/12"), profiles=("default",), config=own)
    await world.done(await world.create.accept(wanted))


async def change(world: World, name: str, **wanted: object) -> None:
    update = replace(Update(merge=True), **wanted)  # type: ignore[arg-type]
    await world.done(await world.changes.update("p1", name, update, expected_revision=0))


async def test_sixteen_at_once_against_a_limit_of_five_make_five(world: World) -> None:
    await put_project(world, limits_instances="5")
    found = await asyncio.gather(*(make(world, f"c{n}") for n in range(16)), return_exceptions=True)
    assert sum(f is None for f in found) == 5
    assert sum(isinstance(f, LimitReached) for f in found) == 11
    assert len(world.host.store.instances.entries(keys.instances("p1"))) == 5


async def test_many_creations_at_once_do_not_get_in_each_others_way(world: World) -> None:
    """They would all decide on the same free ids, and the last ones would give up."""
    await put_project(world)
    await asyncio.gather(*(make(world, f"c{n}") for n in range(60)))
    assert world.late.refused == 0


async def test_sums_hold_against_creates_and_updates_at_once(world: World) -> None:
    await put_project(world, limits_memory="1000")
    await asyncio.gather(*(make(world, f"c{n}", limits_memory="100") for n in range(4)))
    more = [change(world, f"c{n}", config={"limits.memory": "300"}) for n in range(4)]
    await asyncio.gather(
        *more, *(make(world, f"d{n}", limits_memory="100") for n in range(6)), return_exceptions=True
    )
    found = world.host.store.instances.entries(keys.instances("p1"))
    total = sum(int(entry.record.config["limits.memory"]) for entry in found)
    assert 700 < total <= 1000


async def test_who_decided_on_an_older_project_decides_again(world: World) -> None:
    """The project is restricted while a create is under way, which is then tried anew."""
    await put_project(world)
    config = {**OWN, "restricted": "true"}
    await world.late.commit(Txn().put(keys.project("p1"), Project("p1", "", config)))
    with pytest.raises(Forbidden, match=r"Failed checking if instance creation allowed: .* nesting"):
        await make(world, "c1", security_nesting="true")


async def test_an_update_counts_once(world: World) -> None:
    await put_project(world, limits_memory="1000")
    await make(world, "c1", limits_memory="600")
    await change(world, "c1", config={"limits.memory": "1000"})
    with pytest.raises(LimitReached, match=r"^Failed checking if instance update allowed: Reached maximum"):
        await change(world, "c1", config={"limits.memory": "1001"})
    with pytest.raises(Invalid, match=r'has no "limits.memory" config'):
        await change(world, "c1", config={"limits.memory": ""})


async def test_what_a_failed_update_gave_up_is_taken_back_only_if_nobody_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a change that is sure to fail would be a way past the limits of a project."""
    await put_project(world, limits_memory="1000")
    await make(world, "c1", limits_memory="900")
    others = ["c2"]

    async def refused_after_another_came(*what: object) -> None:
        if others:
            await make(world, others.pop(), limits_memory="800")
        raise Unsupported("NO_QUOTA", "The pool cannot bound sizes")

    monkeypatch.setattr(world.driver, "set_quota", refused_after_another_came)
    less = Update(config={"limits.memory": "100"}, merge=True)
    operation = await world.done(await world.changes.update("p1", "c1", less, expected_revision=0))

    assert operation.error_reason == "NO_QUOTA"
    found = {e.record.name: e.record.config for e in world.host.store.instances.entries(keys.instances("p1"))}
    assert [found[name]["limits.memory"] for name in ("c1", "c2")] == ["100", "800"]
    assert world.host.store.observed_of(world.host.store.instance("p1", "c1").record).record.operation == ""


async def test_a_count_that_is_reached_forbids_no_change(world: World) -> None:
    await put_project(world, limits_instances="1")
    await make(world, "c1")
    await change(world, "c1", config={"user.a": "1"})


async def test_volatile_keys_of_a_request_are_refused_where_they_are_blocked(world: World) -> None:
    await put_project(world, restricted="true")
    await make(world, "c1")
    with pytest.raises(Forbidden, match=r'Setting "volatile.x" on container "c1"'):
        await change(world, "c1", config={"volatile.x": "1"})


DANGEROUS: list[tuple[str, dict[str, str], dict[str, dict[str, str]]]] = [
    ("restricted.containers.nesting", {"security.nesting": "true"}, {}),
    ("restricted.containers.lowlevel", {"boot.host_shutdown_timeout": "5"}, {}),
    ("restricted.containers.interception", {"security.syscalls.intercept.mknod": "true"}, {}),
    ("restricted.devices.nic", {}, {"e": {"type": "nic", "nictype": "bridged", "parent": "b"}}),
    ("restricted.devices.gpu", {}, {"g": {"type": "gpu"}}),
    ("restricted.devices.unix-char", {}, {"n": {"type": "unix-char", "path": "/dev/null"}}),
]


@pytest.mark.parametrize("seed", range(25))
async def test_no_sequence_of_writes_leaves_a_project_broken(world: World, seed: int) -> None:
    """Random projects, random writes of all kinds: what is stored satisfies every rule after each."""
    choose = random.Random(seed)
    rules = {key: choose.choice(["allow", "block"]) for key, _, _ in DANGEROUS}
    rules["restricted"] = choose.choice(["true", "true", "false"])
    rules["limits.memory"] = choose.choice(["300", ""])
    rules["limits.instances"] = choose.choice(["3", ""])
    await put_project(world, **{k.replace("-", "__").replace(".", "_"): v for k, v in rules.items() if v})
    for n in range(12):
        _, config, devices = choose.choice(DANGEROUS)
        config = {**config, "limits.memory": choose.choice(["50", "200"])}
        name = f"c{choose.randrange(5)}"
        try:
            if choose.random() < 0.5:
                wanted = Wanted(
                    "p1", name, Source(alias="debian/12"), profiles=("default",), config=config,
                    devices=devices if n % 2 else {},
                )  # fmt: skip
                await world.done(await world.create.accept(wanted))
            else:
                await change(world, name, config=config, devices=devices)
        except PodiumError:
            pass
        _check_all(world)


def _check_all(world: World) -> None:
    store = world.host.store
    entry = store.projects.get(keys.project("p1"))
    assert entry
    found = [(e.record, world.host.expanded(e.record)) for e in store.instances.entries(keys.instances("p1"))]
    subjects = tuple(Subject("container", i.name, e.config, e.devices) for i, e in found)
    restrictions.check(entry.record, subjects)
    limits.check(entry.record, Held(subjects), is_new=True)


# Writers of records of instances that decide nothing which a project could forbid.
_OTHERS = {
    "ids.py": "gives ids",
    "refresh.py": "changes the image below, and takes snapshots that restore checks",
    "renew.py": "the same, from another server",
    "volumes.py": "follows the new name of a volume",
}


def test_whoever_writes_an_instance_asks_policy() -> None:
    """A new path that writes records of instances must pass the one door, or say here why not."""
    folder = Path(policy.__file__).parent
    writers = {p.name for p in folder.glob("*.py") if "put(keys.instance(" in p.read_text()}
    admits = {p.name for p in folder.glob("*.py") if ".admit(" in p.read_text()}
    assert writers - admits <= set(_OTHERS), "these write instances and ask nobody"


async def test_what_is_being_received_counts_until_it_is_recorded(world: World) -> None:
    """And its own record, when that comes, counts once."""
    await put_project(world, limits_disk="2GiB")
    door = policy.Policy(world.host, "m")
    await make(world, "c0")
    coming = replace(world.host.store.instance("p1", "c0").record, id="coming", name="c1")
    assert door.room("p1") == 1 << 30
    with door.expecting(coming):
        assert door.room("p1") == 0
        door.admit(Txn(), coming)
        with pytest.raises(LimitReached):
            door.admit(Txn(), replace(coming, id="other", name="c2"))
    assert door.room("p1") == 1 << 30
    assert door.room("default") is None
