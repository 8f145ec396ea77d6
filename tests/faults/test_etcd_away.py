"""etcd away for 20 s: guests are not touched, calls answer 503 at once, then all recovers by itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.faults.harness import Victim, halted, wait_for, without

AWAY_S = 20.0
PREFIX = "fault-etcd-"
NEW_PROFILE = {"name": "fault-etcd", "config": {}, "devices": {}}
Outage = Callable[[Victim], AbstractContextManager[None]]


def dead(victim: Victim) -> AbstractContextManager[None]:
    return without(victim, "etcd")


def frozen(victim: Victim) -> AbstractContextManager[None]:
    return halted(victim.processes()["etcd"])


def write(victim: Victim) -> tuple[int, float]:
    """Try to write something; returns the answer's code and the seconds it took."""
    begun = time.monotonic()
    answer = victim.side.request("POST", "/1.0/profiles", NEW_PROFILE)
    code = answer.get("error_code") or answer.get("status_code")
    return int(code or 0), time.monotonic() - begun


def launches(victim: Victim) -> bool:
    return victim.side.try_lxc("launch", victim.image, f"{PREFIX}c").returncode == 0


# A dead etcd refuses the connection; a frozen one does not even answer from memory, as a slow one would.
@pytest.mark.parametrize(("outage", "at_once_s"), [(dead, 1.0), (frozen, 1.5)], ids=["dead", "frozen"])
def test_calls_answer_503_at_once_while_etcd_is_away(
    victim: Victim, no_leaks: None, outage: Outage, at_once_s: float
) -> None:
    victim.side.lxc("launch", victim.image, f"{PREFIX}a")
    pids = victim.pids(PREFIX)
    try:
        with outage(victim):
            answers, deadline = [write(victim)], time.monotonic() + AWAY_S
            while time.monotonic() < deadline:
                answers.append(write(victim))
                assert victim.answers(), "what is known can be read all the time"
                time.sleep(1)
            assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
        assert {code for code, _ in answers} == {503}
        assert max(seconds for _, seconds in answers) < at_once_s
        # A write that timed out may yet be carried out when etcd wakes: only then is "exists" right.
        wait_for(lambda: write(victim)[0] in (200, 409), 15, "recovery")
        assert victim.pids(PREFIX) == pids
        # Each service finds etcd again by itself, within its own second.
        wait_for(lambda: launches(victim), 10, "a launch")
    finally:
        victim.wait_until_it_answers()
        with contextlib.suppress(OSError):
            victim.side.request("DELETE", "/1.0/profiles/fault-etcd")
        victim.side.delete_all(PREFIX)
