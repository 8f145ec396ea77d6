"""Instances that are for one program: keys of their images, the engine's file, and how they end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.applications import signal_number
from core.configkeys.instance import INSTANCE
from core.errors import Invalid
from services.runtime.domain import applications
from services.runtime.domain.applications import Application
from services.runtime.domain.idmaps import id_map
from services.runtime.engine import config as rendering
from services.runtime.ports import EnginePlan, Told
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.instances.create import Source, Wanted
from tests.unit.runtime.conftest import World

_APP = Application(("/bin/app", "two words", "it's"), "/srv", 33, 44, {"A": "1"}, "SIGQUIT")


def test_keys_and_application_say_the_same() -> None:
    keys = applications.keys_of(_APP)

    for name, value in keys.items():
        if not name.startswith("environment."):
            INSTANCE.check({name: value})
    assert keys["environment.A"] == "1"
    assert applications.of(keys) == Application(_APP.command, "/srv", 33, 44, stop_signal="SIGQUIT")


def test_without_a_command_there_is_no_application() -> None:
    keys = applications.keys_of(Application(()))

    assert "oci.entrypoint" not in keys and applications.of(keys) is None
    with pytest.raises(Invalid, match="names no command"):
        applications.need_command(keys)


def test_the_engine_is_given_words_as_they_are() -> None:
    """In its file they would be split by rules that no quoting covers."""
    plan = EnginePlan("id", "app", Path("/r"), id_map(1_000_000), application=_APP)

    text = rendering.render(plan, Path("/f"), seccomp=Path("/s"), hook=Path("/h/post-stop"), v2=True)

    assert rendering.command(plan) == ["--", "/dev/.init", "--", "/bin/app", "two words", "it's"]
    for line in ("lxc.init.uid = 33", "lxc.init.gid = 44", "lxc.init.cwd = /srv", "lxc.signal.halt = 3"):
        assert line in text.splitlines()
    assert "lxc.mount.entry = /h/init dev/.init none bind,create=file,ro 0 0" in text
    assert "two words" not in text


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("SIGRTMIN", 34)]
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIG", "0", "99", "SIGNOT", "SIGRTMIN+40", "SIG_DFL", "_IGN", "SIGTERM\n1"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown signal"):
        signal_number(text)


# --- how they live -----------------------------------------------------------------------------------


async def _made(world: World, application: Application | None = _APP, **config: str) -> str:
    world.host.images.application = application  # type: ignore[attr-defined]
    world.networks.told = Told("10.1.2.1", ("10.1.2.1", "fd42::1"), ("lxd",))
    wanted = Wanted("default", "web", Source(alias="debian/12"), config=config)
    await world.done(await world.create.accept(wanted))
    return world.host.store.instance("default", "web").record.id


def _config(world: World) -> dict[str, str]:
    return world.host.store.instance("default", "web").record.config


def _volatile(world: World) -> dict[str, str]:
    return world.host.store.observed_of(world.host.store.instance("default", "web").record).record.volatile


async def test_an_instance_is_told_by_its_image_and_by_who_makes_it(world: World) -> None:
    await _made(world, **{"oci.uid": "0", "environment.A": "2"})

    config = _config(world)
    assert (config["oci.uid"], config["oci.gid"], config["environment.A"]) == ("0", "44", "2")
    assert config["oci.entrypoint"] == "/bin/app 'two words' 'it'\"'\"'s'"


async def test_an_image_without_a_command_needs_one(world: World) -> None:
    with pytest.raises(Invalid, match="names no command"):
        await _made(world, Application(()))
    await _made(world, Application(()), **{"oci.entrypoint": "true"})


async def test_what_dhcp_would_tell_is_set_from_outside(world: World) -> None:
    """Address and router by the engine, servers of names in a file; IPv6 the kernel finds by itself."""
    await _made(world)
    await world.changed("start")

    (nic,) = world.engine.plans[-1].nics
    assert nic.is_fixed and nic.addresses == ("10.1.2.3/24",) and nic.gateways == {"ipv4": "10.1.2.1"}
    text = rendering.render(
        world.engine.plans[-1], Path("/f"), seccomp=Path("/s"), hook=Path("/h/post-stop"), v2=True
    )
    assert "lxc.net.0.ipv4.address = 10.1.2.3/24\nlxc.net.0.ipv4.gateway = 10.1.2.1\n" in text
    planted = world.power._templates._planting.files  # type: ignore[attr-defined]
    assert planted["/etc/resolv.conf"] == b"search lxd\nnameserver 10.1.2.1\nnameserver fd42::1\n"


async def test_a_system_sees_to_that_itself(world: World) -> None:
    await _made(world, None)
    await world.changed("start")

    plan = world.engine.plans[-1]
    assert plan.application is None and not plan.is_held and not plan.nics[0].is_fixed
    assert not world.power._templates._planting.files  # type: ignore[attr-defined]


async def test_a_nic_that_comes_later_has_its_address_too(world: World) -> None:
    await _made(world)
    await world.changed("start")
    wanted = Update(
        devices={"lan": {"type": "nic", "network": "b"}}, profiles=("default",), config=_config(world)
    )
    assert (
        await world.done(await world.changes.update("default", "web", wanted, expected_revision=0))
    ).error() is None

    assert world.host.guests.given == {"lan": (("10.1.2.3/24",), {"ipv4": "10.1.2.1"})}  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_asked", [True, False])
async def test_what_it_ended_with_is_kept_until_it_starts_again(world: World, is_asked: bool) -> None:
    id = await _made(world)
    await world.changed("start")
    world.engine.code = 7
    if is_asked:
        await world.changed("stop")
    else:
        world.engine.end(id)
        while world.status() != "stopped":
            await asyncio.sleep(0.001)

    assert _volatile(world)["volatile.last_state.exit_code"] == "7"
    await world.changed("start")
    assert "volatile.last_state.exit_code" not in _volatile(world)


def test_a_rebuilt_instance_runs_what_its_new_image_says() -> None:
    """What else was set stays, the environment too."""
    old = {**applications.keys_of(_APP), "environment.B": "mine", "user.x": "y"}
    new = Application(("/bin/new",), environment={"A": "new", "C": "3"})

    found = applications.replaced(old, new)

    assert found["oci.entrypoint"] == "/bin/new" and found["oci.uid"] == "0"
    assert [found[f"environment.{name}"] for name in "ABC"] == ["1", "mine", "3"]
    assert found["user.x"] == "y"
    assert not any(key.startswith("oci.") for key in applications.replaced(old, None))
