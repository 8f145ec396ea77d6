"""Which volatile keys a client may set, and which are the server's whatever it sends."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.create import Source, Wanted
from services.runtime.usecases.instances.volatile import asked
from tests.unit.runtime.conftest import World

NOW = {"volatile.idmap.base": "0", "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.uuid": "x"}


def test_what_a_client_sends_back_changes_nothing() -> None:
    assert asked({"user.a": "b", **NOW}, NOW, merge=False) == {}


def test_a_mac_and_the_last_state_can_be_set() -> None:
    wanted = {**NOW, "volatile.eth0.hwaddr": "00:16:3E:aa:bb:cc", "volatile.last_state.power": "STOPPED"}
    assert asked(wanted, NOW, merge=False) == {
        "volatile.eth0.hwaddr": "00:16:3e:aa:bb:cc",
        "volatile.last_state.power": "STOPPED",
    }


@pytest.mark.parametrize(
    "key",
    ["volatile.idmap.base", "volatile.idmap.next", "volatile.eth0.host_name", "volatile.last_state.idmap"],
)
def test_what_the_server_writes_stays_its_own(key: str) -> None:
    """LXD takes them, and a wrong id map costs the instance; here they are only sent back."""
    assert asked({**NOW, key: "5"}, NOW, merge=False) == {}


@pytest.mark.parametrize(
    ("wanted", "merge"), [({"volatile.uuid": "x"}, False), ({"volatile.idmap.base": ""}, True)]
)
def test_the_id_map_cannot_be_deleted(wanted: dict[str, str], merge: bool) -> None:
    with pytest.raises(Invalid, match="Volatile idmap keys can't be deleted by the user"):
        asked(wanted, NOW, merge=merge)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("volatile.foo", "bar", "Unknown configuration key: volatile.foo"),
        ("volatile.uuid", "foo", "Invalid UUID"),
        ("volatile.eth0.hwaddr", "x", "Invalid MAC address"),
    ],
)
def test_bad_volatile_keys_are_refused(key: str, value: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        asked({key: value}, {}, merge=True)


async def test_a_mac_that_was_set_is_the_one_of_the_next_start(world: World) -> None:
    await world.made()
    update = Update(config={"volatile.eth0.hwaddr": "00:16:3e:11:11:11"}, merge=True)
    await world.done(await world.changes.update("default", "web", update, expected_revision=0))
    store = world.host.store
    observed = store.observed_of(store.instance("default", "web").record).record
    assert observed.volatile["volatile.eth0.hwaddr"] == "00:16:3e:11:11:11"


async def test_a_new_instance_is_refused_with_a_mac_that_is_none(world: World) -> None:
    """Before there is anything to take back."""
    config = {"volatile.eth0.hwaddr": "00:16:3e:00:00:01 drop\nflush ruleset"}
    wanted = Wanted("default", "web", Source(alias="debian/12"), config=config)
    with pytest.raises(Invalid, match="Invalid MAC address"):
        await world.create.accept(wanted)
    assert not world.host.store.instances.entries()
