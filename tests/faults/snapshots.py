"""Snapshots and copies that can be broken at each failpoint; see stories.py."""

from __future__ import annotations

import time

from tests.faults.harness import Victim
from tests.faults.stories import (
    ABSENT,
    CREATED,
    INSTANCE,
    NAME,
    RUNNING,
    STOPPED,
    Answer,
    Instance,
    Scenario,
    call,
    state_at,
)
from tests.faults.stories import _ask as ask

_ONE = f"/1.0/instances/{NAME}"
_FOLDER = f"{_ONE}/snapshots"
_NAMES = ("s", "t")
_COPY = "/1.0/instances/step-copy"
_POOL = "step-pool"
_COPIED = {"name": "step-copy", "source": {"type": "copy", "source": NAME}}
_REFRESHED = {"name": "step-copy", "source": {"type": "copy", "source": NAME, "refresh": True}}
_MOVED = {"migration": True, "pool": _POOL, "name": f"{NAME}-renamed"}
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


class Copied:
    """What becomes of a copy "step-copy" of an instance with a snapshot."""

    def state(self, victim: Victim) -> str:
        return state_at(victim, _COPY)

    def reach(self, victim: Victim, state: str) -> None:
        RESTORABLE.reach(victim, STOPPED)
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", _COPY)
        if state != ABSENT:
            call(victim, "POST", "/1.0/instances", {**_COPIED, "name": "step-copy"})
            call(victim, "POST", _FOLDER, {"name": f"r{time.monotonic_ns()}"})

    def remove(self, victim: Victim) -> None:
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", _COPY)
        INSTANCE.remove(victim)


class Movable(Instance):
    """An instance with a snapshot, and a second pool to which it may be moved."""

    def reach(self, victim: Victim, state: str) -> None:
        if state_at(victim, f"/1.0/storage-pools/{_POOL}") == ABSENT:
            call(victim, "POST", "/1.0/storage-pools", {"name": _POOL, "driver": "dir"})
        super().remove(victim)
        RESTORABLE.reach(victim, state)

    def remove(self, victim: Victim) -> None:
        super().remove(victim)
        if state_at(victim, f"/1.0/storage-pools/{_POOL}") != ABSENT:
            call(victim, "DELETE", f"/1.0/storage-pools/{_POOL}")


def _rebuild(victim: Victim) -> Answer:
    source = {"type": "image", "alias": victim.image}
    return call(victim, "POST", f"{_ONE}/rebuild", {"source": source})


TAKEN, RESTORABLE, COPIED, MOVABLE = Taken(), Restorable(), Copied(), Movable()
SCENARIOS = (
    Scenario("snapshot.create", TAKEN, ABSENT, (ABSENT, CREATED), ask("POST", _FOLDER, {"name": "s"})),
    Scenario("snapshot.update", TAKEN, CREATED, (CREATED,), ask("PUT", f"{_FOLDER}/s", _LATER)),
    Scenario("snapshot.rename", TAKEN, CREATED, (CREATED,), ask("POST", f"{_FOLDER}/s", {"name": "t"})),
    Scenario("snapshot.delete", TAKEN, CREATED, (ABSENT, CREATED), ask("DELETE", f"{_FOLDER}/s")),
    Scenario("instance.restore", RESTORABLE, RUNNING, (RUNNING, STOPPED), ask("PUT", _ONE, {"restore": "s"})),
    Scenario(
        "instance.restore", RESTORABLE, STOPPED, (STOPPED,), ask("PUT", _ONE, {"restore": "s"}), "stopped"
    ),
    Scenario("instance.copy", COPIED, ABSENT, (ABSENT, STOPPED), ask("POST", "/1.0/instances", _COPIED)),
    Scenario("instance.refresh", COPIED, STOPPED, (STOPPED,), ask("POST", "/1.0/instances", _REFRESHED)),
    Scenario("instance.move", MOVABLE, STOPPED, (STOPPED,), ask("POST", _ONE, _MOVED)),
    Scenario("instance.rebuild", INSTANCE, STOPPED, (STOPPED,), _rebuild),
)
