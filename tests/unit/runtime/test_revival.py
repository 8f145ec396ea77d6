"""Instances that ended by themselves: when they come back, and what a health check makes of answers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import WrongState
from core.records import InstanceObserved
from services.runtime.domain import health
from services.runtime.domain.health import Check, Health, check_of
from services.runtime.domain.revival import ASKED, CLEAN, FAILED, UNHEALTHY, due, ended, policy
from services.runtime.kernel.endings import is_failure, wait_status
from services.runtime.kernel.probes import HostProbes
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.running.health import HealthChecks
from services.runtime.usecases.running.revive import Revive
from tests.unit.runtime.conftest import MEMBER, World

DOWN = InstanceObserved("i", status="stopped", ended=FAILED, ended_at=1000.0, last_used_at=990.0)


@pytest.mark.parametrize(
    ("mode", "how", "comes_back"),
    [
        ("no", FAILED, False),
        ("no", UNHEALTHY, True),
        ("on-failure", FAILED, True),
        ("on-failure", CLEAN, False),
        ("always", CLEAN, True),
        ("always", ASKED, False),
        ("always", "", False),
    ],
)
def test_the_policy_decides_who_comes_back(mode: str, how: str, comes_back: bool) -> None:
    found = due(policy({"restart.policy": mode}), replace(DOWN, ended=how))
    assert (found is not None) is comes_back


@pytest.mark.parametrize(("restarts", "pause_s"), [(0, 2), (1, 4), (2, 8), (3, 10), (10_000, 10)])
def test_the_pause_doubles_up_to_a_bound(restarts: int, pause_s: int) -> None:
    keys = {"restart.policy": "always", "restart.backoff.initial": "2", "restart.backoff.max": "10"}
    assert due(policy(keys), replace(DOWN, restarts=restarts)) == 1000.0 + pause_s


def test_attempts_are_bounded_when_asked() -> None:
    keys = {"restart.policy": "always", "restart.attempts": "3"}
    assert due(policy(keys), replace(DOWN, restarts=2)) is not None
    assert due(policy(keys), replace(DOWN, restarts=3)) is None


def test_what_ran_for_long_enough_begins_anew() -> None:
    wanted = policy({"restart.policy": "always", "restart.backoff.reset": "60"})
    assert ended(wanted, replace(DOWN, restarts=5), FAILED, 1000.0).restarts == 5
    assert ended(wanted, replace(DOWN, restarts=5), FAILED, 1050.0).restarts == 0


def test_what_runs_or_is_being_changed_is_left_alone() -> None:
    assert due(policy({"restart.policy": "always"}), replace(DOWN, status="starting")) is None


@pytest.mark.parametrize(
    ("config", "check"),
    [
        ({"health.exec": "sh -c 'exit 0'"}, Check(command=("sh", "-c", "exit 0"))),
        ({"health.tcp": "80", "health.retries": "5"}, Check(port=80, retries=5)),
        ({"health.http": "8080/healthz?x=1"}, Check(port=8080, path="/healthz?x=1")),
        ({"health.http": "8080", "health.action": "none"}, Check(port=8080, path="/", restarts=False)),
        ({"health.interval": "7"}, None),
    ],
)
def test_keys_say_what_is_checked(config: dict[str, str], check: Check | None) -> None:
    assert check_of(config) == check


def test_bad_answers_in_a_row_make_it_unhealthy() -> None:
    check, now = Check(port=80, retries=2, start_period_s=10), Health()
    now = health.after(check, now, is_good=False, age_s=5)
    assert now == Health()
    now = health.after(check, now, is_good=True, age_s=6)
    assert now == Health("healthy")
    now = health.after(check, now, is_good=False, age_s=7)
    assert now == Health("healthy", 1)
    assert health.after(check, now, is_good=True, age_s=8) == Health("healthy")
    assert health.after(check, now, is_good=False, age_s=8) == Health("unhealthy", 2)


@pytest.mark.parametrize(("command", "failed"), [("exit 0", False), ("exit 3", True), ("kill -9 $$", True)])
def test_how_a_process_ended_is_told_to_who_holds_it(command: str, failed: bool) -> None:
    """A monitor reaps a guest's init, not we; a guest that powers itself off ends by SIGINT of the kernel."""
    process = subprocess.Popen(["sh", "-c", command])
    fd = os.pidfd_open(process.pid)
    process.wait()
    if wait_status(fd) is None:
        pytest.skip("this kernel does not tell (before 6.15)")
    assert is_failure(wait_status(fd)) is failed
    os.close(fd)


def test_powering_off_is_no_failure() -> None:
    assert is_failure(2) is False
    assert is_failure(9) is True
    assert is_failure(None) is None


@pytest.mark.parametrize(
    ("answer", "is_good"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n", True),
        (b"HTTP/1.1 503 No\r\n", False),
        (b"x" * 100_000, False),
        (b"", False),
    ],
)
async def test_only_the_first_line_of_an_answer_counts(answer: bytes, is_good: bool) -> None:
    """It comes from a guest, and this service is root: it is matched, not parsed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await HostProbes().connects("127.0.0.1", port, 1)
        assert await HostProbes().answers("127.0.0.1", port, "/", 1) is is_good


async def test_a_command_that_hangs_is_killed_with_all_that_it_started() -> None:
    """Otherwise each check would leave a process in the guest."""
    began = time.monotonic()
    argv = ["sh", "-c", "sleep 4242 & sleep 4243"]
    assert not await HostProbes().run(argv, "", 0.2)
    assert time.monotonic() - began < 2
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 424" not in listed


class Answers:
    """A guest that answers as it is told."""

    def __init__(self) -> None:
        self.is_good = True
        self.asked = 0

    async def run(self, argv: list[str], program: str, timeout_s: float) -> bool:
        self.asked += 1
        return self.is_good

    async def connects(self, address: str, port: int, timeout_s: float) -> bool:
        return self.is_good

    async def answers(self, address: str, port: int, path: str, timeout_s: float) -> bool:
        return self.is_good


async def configure(world: World, **config: str) -> None:
    keys = {name.replace("__", "."): value for name, value in config.items()}
    update = Update(config=keys, merge=True)
    await world.done(await world.changes.update("default", "web", update, expected_revision=0))


async def until(world: World, status: str, count: int = 0) -> InstanceObserved:
    store = world.host.store
    async with asyncio.timeout(5):
        while True:
            observed = store.observed_of(store.instance("default", "web").record).record
            if observed.status == status and observed.restarts >= count and not observed.operation:
                return observed
            await asyncio.sleep(0.02)


@pytest.fixture
async def reviving(world: World) -> AsyncIterator[World]:
    part = Revive(world.host, world.power, MEMBER)
    await part.start()
    yield world
    await part.stop()


async def test_a_crashed_init_comes_back(reviving: World) -> None:
    world = reviving
    await world.made()
    await configure(world, restart__policy="on-failure", restart__backoff__initial="0")
    await world.changed("start")
    id = world.host.store.instance("default", "web").record.id
    for count in (1, 2):
        world.engine.end(id)
        await until(world, "running", count)
    await world.changed("stop")
    await asyncio.sleep(0.2)
    assert world.status() == "stopped"


async def test_one_that_waits_for_its_next_start_can_be_stopped(reviving: World) -> None:
    """A crash loop ends when somebody says stop, not when it happens to run."""
    world = reviving
    await world.made()
    await configure(world, restart__policy="always", restart__backoff__initial="60")
    await world.changed("start")
    world.engine.end(world.host.store.instance("default", "web").record.id)
    assert (await until(world, "stopped")).ended == FAILED
    await world.changed("stop")
    assert (await until(world, "stopped")).ended == ASKED
    with pytest.raises(WrongState, match="already stopped"):
        await world.changed("stop")


async def test_a_start_that_fails_is_tried_again_later(reviving: World) -> None:
    world = reviving
    await world.made()
    await configure(world, restart__policy="always", restart__backoff__initial="0")
    await world.changed("start")
    world.engine.fails = True
    world.engine.end(world.host.store.instance("default", "web").record.id)
    await until(world, "stopped", 2)
    world.engine.fails = False
    assert (await until(world, "running")).restarts >= 2


async def test_what_becomes_unhealthy_is_restarted(reviving: World) -> None:
    """And seen as such meanwhile: the record and an event tell of it."""
    world = reviving
    await world.made()
    await configure(
        world,
        health__exec="true",
        health__interval="1",
        health__retries="1",
        health__start_period="0",
        restart__backoff__initial="0",
    )
    guest = Answers()
    checks = HealthChecks(world.host, world.power, guest, MEMBER)
    await checks.start()
    await world.changed("start")
    store = world.host.store
    observed = store.observed_of(store.instance("default", "web").record)
    async with asyncio.timeout(5):
        while store.observed_of(store.instance("default", "web").record).record.health != "healthy":
            await asyncio.sleep(0.02)
    guest.is_good = False
    again = await until(world, "running", 1)
    assert again.last_used_at > observed.record.last_used_at
    await configure(world, health__exec="")
    async with asyncio.timeout(5):
        while store.observed_of(store.instance("default", "web").record).record.health:
            await asyncio.sleep(0.02)
    await checks.stop()
