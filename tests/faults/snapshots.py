"""Snapshots and copies that can be broken at each failpoint; see stories.py."""

from __future__ import annotations

from tests.faults.harness import Victim
from tests.faults.stories import (
    ABSENT,
    CREATED,
    INSTANCE,
    NAME,
    RUNNING,
    STOPPED,
    Instance,
    Scenario,
    call,
    state_at,
)
from tests.faults.stories import _ask as ask

_ONE = f"/1.0/instances/{NAME}"
_FOLDER = f"{_ONE}/snapshots"
_NAMES = ("s", "t")
_LATER = {"expires_at": "2040-01-01T00:00:00Z"}


def _is_there(victim: Victim, name: str) -> bool:
    return state_at(victim, f"{_FOLDER}/{name}") != ABSENT


class Taken:
    """A snapshot "s" of a stopped instance; "t" is the name it may have been given."""

    def state(self, victim: Victim) -> str:
        there = [name for name in _NAMES if _is_there(victim, name)]
        assert len(there) < 2, "one snapshot has two names"
        return CREATED if there else ABSENT

    def reach(self, victim: Victim, state: str) -> None:
        INSTANCE.reach(victim, STOPPED)
        for name in _NAMES:
            if _is_there(victim, name):
                call(victim, "DELETE", f"{_FOLDER}/{name}")
        if state != ABSENT:
            call(victim, "POST", _FOLDER, {"name": "s"})

    def remove(self, victim: Victim) -> None:
        INSTANCE.remove(victim)


class Restorable(Instance):
    """An instance with a snapshot."""

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, state)
        if not _is_there(victim, "s"):
            call(victim, "POST", _FOLDER, {"name": "s"})


TAKEN, RESTORABLE = Taken(), Restorable()
SCENARIOS = (
    Scenario("snapshot.create", TAKEN, ABSENT, (ABSENT, CREATED), ask("POST", _FOLDER, {"name": "s"})),
    Scenario("snapshot.update", TAKEN, CREATED, (CREATED,), ask("PUT", f"{_FOLDER}/s", _LATER)),
    Scenario("snapshot.rename", TAKEN, CREATED, (CREATED,), ask("POST", f"{_FOLDER}/s", {"name": "t"})),
    Scenario("snapshot.delete", TAKEN, CREATED, (ABSENT, CREATED), ask("DELETE", f"{_FOLDER}/s")),
    Scenario("instance.restore", RESTORABLE, RUNNING, (RUNNING, STOPPED), ask("PUT", _ONE, {"restore": "s"})),
    Scenario(
        "instance.restore", RESTORABLE, STOPPED, (STOPPED,), ask("PUT", _ONE, {"restore": "s"}), "stopped"
    ),
)
