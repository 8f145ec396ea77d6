"""kill -9 of services during a loop of launches: guests live on, operations end, nothing leaks."""

from __future__ import annotations

import time

import pytest

from tests.faults.harness import SERVICES, Victim, launching, wait_for

PREFIX = "fault-"


def hurt_while_launching(victim: Victim, *services: str) -> None:
    """Kill *services* twice amid launches, then hold Podium to its promises."""
    victim.side.lxc("launch", victim.image, f"{PREFIX}old")
    old = victim.pids(f"{PREFIX}old")
    try:
        with launching(victim, f"{PREFIX}new-") as seen:
            for _ in range(2):
                time.sleep(1.5)
                victim.kill(*services)
            victim.wait_until_it_answers()
            time.sleep(2)
        assert victim.pids(f"{PREFIX}old") == old, "a running container did not keep its process"
        wait_for(lambda: not victim.unfinished_operations(), 60, "the end of all operations")
        assert_each_is_whole_or_gone(victim, seen.launched)
    finally:
        victim.wait_until_it_answers()
        victim.side.delete_all(PREFIX)
    assert seen.launched, f"nothing was launched at all: {seen.failed}"


def assert_each_is_whole_or_gone(victim: Victim, launched: list[str]) -> None:
    """What was called launched runs; what is there beside it can be used or deleted."""
    there = victim.instances(f"{PREFIX}new-")
    broken = {n: there[n]["status"] if n in there else "gone" for n in launched}
    assert {n: s for n, s in broken.items() if s != "Running"} == {}
    half_done = {
        n: item["status"] for n, item in there.items() if item["status"] not in ("Running", "Stopped")
    }
    assert half_done == {}


@pytest.mark.parametrize("service", SERVICES)
def test_killing_one_service_amid_launches_harms_nothing(
    victim: Victim, no_leaks: None, service: str
) -> None:
    hurt_while_launching(victim, service)


def test_killing_all_services_at_once_harms_nothing(victim: Victim, no_leaks: None) -> None:
    hurt_while_launching(victim, *SERVICES)


def test_a_container_launched_before_the_kill_still_takes_commands(victim: Victim, no_leaks: None) -> None:
    victim.side.lxc("launch", victim.image, f"{PREFIX}exec")
    try:
        victim.kill(*SERVICES)
        victim.wait_until_it_answers()
        assert victim.side.lxc("exec", f"{PREFIX}exec", "--", "echo", "still here") == "still here\n"
        victim.side.lxc("stop", "--force", f"{PREFIX}exec")
    finally:
        victim.side.delete_all(PREFIX)
