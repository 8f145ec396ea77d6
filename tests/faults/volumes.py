"""Backups of custom volumes that can be broken at each failpoint; see stories.py."""

from __future__ import annotations

import json
from typing import Any

from tests.archives import tarball
from tests.faults.harness import Victim
from tests.faults.stories import ABSENT, COPY, CREATED, CUSTOM, Custom, Scenario, call, state_at
from tests.faults.stories import _ask as ask
from tests.relay import Place, Twist, as_lxd, relay

_FOLDER = f"{CUSTOM.folder}/{CUSTOM.names[0]}/backups"
_NEW = {"name": "b0", "compression_algorithm": "none"}


class Kept(Custom):
    """A backup of a custom volume."""

    def state(self, victim: Victim) -> str:
        found = state_at(victim, f"{_FOLDER}/b0", field="name")
        return ABSENT if found == ABSENT else CREATED

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, CREATED)
        if state != ABSENT:
            call(victim, "POST", _FOLDER, _NEW)


def volume_archive(name: str, snapshots: tuple[str, ...] = (), **changes: Any) -> bytes:
    """The archive of a volume as LXD makes it."""
    about = {
        "name": name,
        "backend": "dir",
        "pool": "default",
        "type": "custom",
        "snapshots": list(snapshots),
        "config": {
            "volume": {"name": name, "config": {}, "content_type": "filesystem", **changes},
            "volume_snapshots": [{"name": snapshot, "config": {}} for snapshot in snapshots],
        },
    }
    entries: dict[str, bytes | str | None] = {
        "backup": None,
        "backup/index.yaml": json.dumps(about).encode(),
        "backup/volume": None,
        "backup/volume/f": b"content",
    }
    for snapshot in snapshots:
        entries[f"backup/volume-snapshots/{snapshot}"] = None
    return tarball(entries)


def bring(victim: Victim) -> dict[str, Any]:
    """Import a volume with a snapshot."""
    connection = victim.side.connect()
    try:
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", CUSTOM.folder, volume_archive(CUSTOM.names[0], ("s0",)), headers)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if answer["type"] == "async":
        answer = victim.side.request("GET", f"{answer['operation']}/wait?timeout=30")
    error = answer.get("error") or (answer.get("metadata") or {}).get("err")
    assert not error, error
    return answer


def renew(victim: Victim) -> dict[str, Any]:
    """Refresh a volume from a server that is this one, and from a volume that is itself."""
    path = f"{CUSTOM.folder}/{CUSTOM.names[0]}"
    going = victim.side.request("POST", path, {"name": CUSTOM.names[0], "migration": True})["metadata"]
    source = {
        "type": "migration",
        "mode": "pull",
        "refresh": True,
        "operation": f"https://{victim.settings().https_address}/1.0/operations/{going['id']}",
        "secrets": going["metadata"],
        "certificate": victim.side.request("GET", "/1.0")["metadata"]["environment"]["certificate"],
    }
    return call(victim, "POST", CUSTOM.folder, {"name": CUSTOM.names[0], "source": source})


def land(victim: Victim) -> dict[str, Any]:
    """Bring a volume with a snapshot as from a LXD, which sends by rsync alone."""
    original, copy = COPY.names
    there = Place(victim.state_dir / "unix.socket", f"{COPY.folder}/{original}", {"migration": True})
    source = {"type": "migration", "mode": "push"}
    here = Place(there.socket, COPY.folder, {"name": copy, "source": source})
    carried = relay(there, here, Twist(header=as_lxd))
    assert not carried.target["err"], carried.target["err"]
    return carried.target


KEPT = Kept()
SCENARIOS = (
    Scenario("volumebackup.create", KEPT, ABSENT, (ABSENT, CREATED), ask("POST", _FOLDER, _NEW)),
    Scenario("volumebackup.delete", KEPT, CREATED, (ABSENT, CREATED), ask("DELETE", f"{_FOLDER}/b0")),
    Scenario("volume.import", CUSTOM, ABSENT, (ABSENT, CREATED), bring),
    Scenario("volume.land", COPY, ABSENT, (ABSENT, CREATED), land),
    Scenario("volume.renew", CUSTOM, CREATED, (CREATED,), renew),
)
