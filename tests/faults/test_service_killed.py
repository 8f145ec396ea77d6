"""kill -9 and halts amid launches, commands, pushes, stops and deletes: guests live on, nothing leaks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.harness import SERVICES, Victim, halted, wait_for, working

PREFIX = "fault-"
HALT_S = 15.0


def hurt_amid_work(victim: Victim, hurt: Callable[[], None], *, times: int = 2) -> None:
    """Do *hurt* amid work, then hold Podium to its promises."""
    victim.side.lxc("launch", victim.image, f"{PREFIX}old")
    old = victim.pids(f"{PREFIX}old")
    try:
        with working(victim, f"{PREFIX}new-") as seen:
            for _ in range(times):
                time.sleep(1.2)
                hurt()
            victim.wait_until_it_answers()
            time.sleep(1.5)
        assert victim.pids(f"{PREFIX}old") == old, "a running container did not keep its process"
        wait_for(lambda: not victim.unfinished_operations(), 60, "the end of all operations")
        assert seen.wrong == []
        assert_each_is_whole_or_gone(victim, seen.launched, seen.used)
    finally:
        victim.wait_until_it_answers()
        victim.side.delete_all(PREFIX)
    assert seen.launched or seen.used, f"nothing worked at all: {seen.failed}"


def assert_each_is_whole_or_gone(victim: Victim, launched: list[str], deleted: list[str]) -> None:
    """What was called launched runs, what was called deleted is gone; the rest can be used or deleted."""
    there = victim.instances(f"{PREFIX}new-")
    broken = {n: there[n]["status"] if n in there else "gone" for n in launched}
    assert {n: s for n, s in broken.items() if s != "Running"} == {}
    assert [n for n in deleted if n in there] == []
    half_done = {
        n: item["status"] for n, item in there.items() if item["status"] not in ("Running", "Stopped")
    }
    assert half_done == {}


@contextlib.contextmanager
def all_halted(victim: Victim, *services: str) -> Iterator[None]:
    processes = victim.processes()
    with contextlib.ExitStack() as stack:
        for service in services:
            stack.enter_context(halted(processes[service]))
        yield


@pytest.mark.parametrize("service", (*SERVICES, "etcd"))
def test_killing_one_process_amid_work_harms_nothing(victim: Victim, no_leaks: None, service: str) -> None:
    hurt_amid_work(victim, lambda: victim.kill(service))


def test_killing_all_services_at_once_harms_nothing(victim: Victim, no_leaks: None) -> None:
    hurt_amid_work(victim, lambda: victim.kill(*SERVICES))


def test_a_service_that_stands_still_harms_nothing(victim: Victim, no_leaks: None) -> None:
    """As on a host that swaps or a paused machine: longer than any lease, and then it goes on."""

    def halt() -> None:
        with all_halted(victim, "runtime", "network"):
            time.sleep(HALT_S)

    hurt_amid_work(victim, halt, times=1)


def test_an_etcd_that_hangs_amid_work_leaves_nothing_half_accepted(victim: Victim, no_leaks: None) -> None:
    """A write whose answer came too late may have happened; what was recorded is carried out."""

    def hang() -> None:
        with all_halted(victim, "etcd"):
            time.sleep(5)

    hurt_amid_work(victim, hang)


def test_a_container_launched_before_the_kill_still_takes_commands(victim: Victim, no_leaks: None) -> None:
    victim.side.lxc("launch", victim.image, f"{PREFIX}exec")
    try:
        victim.kill(*SERVICES)
        victim.wait_until_it_answers()
        assert victim.side.lxc("exec", f"{PREFIX}exec", "--", "echo", "still here") == "still here\n"
        victim.side.lxc("stop", "--force", f"{PREFIX}exec")
    finally:
        victim.side.delete_all(PREFIX)
