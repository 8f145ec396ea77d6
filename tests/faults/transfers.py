"""Backups that can be broken at each failpoint; see stories.py."""

from __future__ import annotations

import json
from typing import Any

from tests.archives import archive, entry, index
from tests.faults.harness import Victim
from tests.faults.stories import ABSENT, CREATED, INSTANCE, NAME, STOPPED, Scenario, call, state_at
from tests.faults.stories import _ask as ask
from tests.relay import Place, Twist, as_lxd, relay

# That of test_every_step.py, which runs meanwhile.
SOURCE = "fault-witness"

_FOLDER = f"/1.0/instances/{NAME}/backups"
_NEW = {"name": "b", "instance_only": True, "compression_algorithm": "none"}


class Kept:
    """A backup "b" of a stopped instance."""

    def state(self, victim: Victim) -> str:
        found = state_at(victim, f"{_FOLDER}/b", field="name")
        return ABSENT if found == ABSENT else CREATED

    def reach(self, victim: Victim, state: str) -> None:
        INSTANCE.reach(victim, STOPPED)
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", f"{_FOLDER}/b")
        if state != ABSENT:
            call(victim, "POST", _FOLDER, _NEW)

    def remove(self, victim: Victim) -> None:
        INSTANCE.remove(victim)


def bring(victim: Victim) -> dict[str, Any]:
    """Import a backup with a snapshot."""
    body = archive(index(NAME, snapshots=(entry("s"),)))
    connection = victim.side.connect()
    try:
        connection.request("POST", "/1.0/instances", body, {"Content-Type": "application/octet-stream"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if answer["type"] == "async":
        answer = victim.side.request("GET", f"{answer['operation']}/wait?timeout=30")
    error = answer.get("error") or (answer.get("metadata") or {}).get("err")
    assert not error, error
    return answer


def renew(victim: Victim) -> dict[str, Any]:
    """Refresh an instance from a server that is this one, and from an instance that is itself."""
    body = {"migration": True, "live": False}
    going = victim.side.request("POST", f"/1.0/instances/{NAME}", body)["metadata"]
    source = {
        "type": "migration",
        "mode": "pull",
        "refresh": True,
        "operation": f"https://{victim.settings().https_address}/1.0/operations/{going['id']}",
        "secrets": going["metadata"],
        "certificate": victim.side.request("GET", "/1.0")["metadata"]["environment"]["certificate"],
    }
    return call(victim, "POST", "/1.0/instances", {"name": NAME, "source": source})


def land(victim: Victim) -> dict[str, Any]:
    """Bring an instance as from a LXD, which sends by rsync alone."""
    there = Place(
        victim.state_dir / "unix.socket", f"/1.0/instances/{SOURCE}", {"migration": True, "live": False}
    )
    source = {"type": "migration", "mode": "push"}
    here = Place(there.socket, "/1.0/instances", {"name": NAME, "source": source})
    carried = relay(there, here, Twist(header=as_lxd))
    assert not carried.target["err"], carried.target["err"]
    return carried.target


KEPT = Kept()
SCENARIOS = (
    Scenario("backup.create", KEPT, ABSENT, (ABSENT, CREATED), ask("POST", _FOLDER, _NEW)),
    Scenario("instance.import", INSTANCE, ABSENT, (ABSENT, STOPPED), bring),
    Scenario("instance.land", INSTANCE, ABSENT, (ABSENT, STOPPED), land),
    Scenario("instance.renew", INSTANCE, STOPPED, (STOPPED,), renew),
    Scenario("backup.delete", KEPT, CREATED, (ABSENT, CREATED), ask("DELETE", f"{_FOLDER}/b")),
)
