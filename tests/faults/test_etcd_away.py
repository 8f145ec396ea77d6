"""etcd away for 20 s: guests are not touched, calls answer 503 at once, then all recovers by itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.faults.harness import Victim, halted, wait_for

AWAY_S = 20.0
AT_ONCE_S = 5.0
PREFIX = "fault-etcd-"
NEW_PROFILE = {"name": "fault-etcd", "config": {}, "devices": {}}


def write(victim: Victim) -> tuple[int, float]:
    """Try to write something; returns the answer's code and the seconds it took."""
    begun = time.monotonic()
    answer = victim.side.request("POST", "/1.0/profiles", NEW_PROFILE)
    code = answer.get("error_code") or answer.get("status_code")
    return int(code or 0), time.monotonic() - begun


def drop_profile(victim: Victim) -> None:
    victim.side.request("DELETE", "/1.0/profiles/fault-etcd")


def test_calls_answer_503_at_once_while_etcd_does_not_answer(victim: Victim, no_leaks: None) -> None:
    victim.side.lxc("launch", victim.image, f"{PREFIX}a")
    pids = victim.pids(PREFIX)
    try:
        with halted(victim.processes()["etcd"]):
            deadline = time.monotonic() + AWAY_S
            answers = []
            while time.monotonic() < deadline:
                answers.append(write(victim))
                time.sleep(1)
            assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
        assert {code for code, _ in answers} == {503}
        assert max(took for _, took in answers) < AT_ONCE_S
        # A write that timed out may yet be carried out when etcd wakes: only then is "exists" right.
        wait_for(lambda: write(victim)[0] in (200, 409), 30, "recovery")
        assert victim.pids(PREFIX) == pids
    finally:
        victim.wait_until_it_answers()
        drop_profile(victim)
        victim.side.delete_all(PREFIX)


def test_podium_recovers_after_etcd_is_killed_again_and_again(victim: Victim, no_leaks: None) -> None:
    victim.side.lxc("launch", victim.image, f"{PREFIX}b")
    pids = victim.pids(PREFIX)
    try:
        keep_down(victim, "etcd", AWAY_S)
        wait_for(lambda: write(victim)[0] in (200, 409), 60, "recovery")
        assert victim.pids(PREFIX) == pids
        victim.side.lxc("launch", victim.image, f"{PREFIX}c")
    finally:
        victim.wait_until_it_answers()
        drop_profile(victim)
        victim.side.delete_all(PREFIX)


def keep_down(victim: Victim, service: str, seconds: float) -> None:
    """Kill each incarnation of *service* that the supervisor starts, for a while."""
    deadline, last = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        pid = victim.processes().get(service, 0)
        if pid and pid != last:
            os.kill(pid, signal.SIGKILL)
            last = pid
        time.sleep(0.2)
