"""`snapshot`, `restore`, `copy`, `move`, `rename` and `rebuild`: instances made of instances."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.creation import add_devices
from cli.images import fingerprint_of
from cli.kinds import KINDS, writable
from cli.server import url

_NEVER = "0001-01-01T00:00:00Z"
_VOLATILE = "volatile."


def snapshot(call: Call) -> None:
    instance, name = call.words[0], call.word(1)
    if call.on("reuse") and name and call.server.find(url("instances", instance, "snapshots", name)):
        call.server.send(
            "DELETE", url("instances", instance, "snapshots", name), doing=f"Deleting {instance}/{name}"
        )
    body: dict[str, Any] = {"name": name, "stateful": call.on("stateful")}
    if call.on("no-expiry"):
        body["expires_at"] = _NEVER
    call.server.send("POST", url("instances", instance, "snapshots"), body, doing=f"Snapshotting {instance}")


def restore(call: Call) -> None:
    instance, name = call.words
    body = {"restore": name, "stateful": call.on("stateful")}
    call.server.send("PUT", url("instances", instance), body, doing=f"Restoring {instance}")


def rename(call: Call) -> None:
    old, new = call.words
    if "/" in old:
        _rename_snapshot(call, old, new)
        return
    body = {"name": new, "migration": False}
    call.server.send("POST", url("instances", old), body, doing=f"Renaming {old}")


def _rename_snapshot(call: Call, old: str, new: str) -> None:
    instance, _, name = old.partition("/")
    owner, _, new_name = new.partition("/")
    if owner != instance or not new_name:
        raise call.misuse("a snapshot stays with its instance", f"the new name must read {instance}/NAME")
    place = url("instances", instance, "snapshots", name)
    call.server.send("POST", place, {"name": new_name}, doing=f"Renaming {old}")


def move(call: Call) -> None:
    old, new = call.words[0], call.word(1)
    pool, project = call.text("storage"), call.text("target-project")
    if not (pool or project):
        if not new:
            raise call.misuse("podium move needs NAME", "or --storage, or --target-project")
        rename(call)
        return
    body = {"name": new or old, "migration": True, "live": True, "instance_only": call.on("instance-only")}
    body |= {"pool": pool} if pool else {}
    body |= {"project": project} if project else {}
    call.server.send("POST", url("instances", old), body, doing=f"Moving {old}")


def copy(call: Call) -> None:
    source, name = call.words[0], call.word(1)
    instance, _, snapshot = source.partition("/")
    at = ("instances", instance, *(("snapshots", snapshot) if snapshot else ()))
    found = call.server.get(url(*at))
    body = copy_body(call, found, source, name)
    body["source"]["project"] = call.project or "default"
    to = {"project": call.text("target-project")} if call.text("target-project") else {}
    done = call.server.send("POST", url("instances"), body, doing=f"Copying {source}", **to)
    if call.on("refresh"):
        _take_over(call, name, body, to)
    elif not name:
        made = done["resources"]["instances"][0].partition("?")[0].rpartition("/")[2]
        call.say(f"Instance name is: {made}")


def copy_body(call: Call, found: dict[str, Any], source: str, name: str) -> dict[str, Any]:
    """Return what is posted for a copy of *found*; what it does not name, the server takes from there."""
    body: dict[str, Any] = {
        "name": name,
        "source": {
            "type": "copy",
            "source": source,
            "instance_only": call.on("instance-only"),
            "refresh": call.on("refresh"),
        },
        "config": _own(found["config"]) | call.pairs(call.texts("config")),
        "devices": dict(found["devices"]),
        "description": found.get("description", ""),
        "ephemeral": call.on("ephemeral") or found["ephemeral"],
        "profiles": found["profiles"],
    }
    if pool := call.text("storage"):
        body["devices"] |= {n: {**d, "pool": pool} for n, d in _roots(found).items()}
    add_devices(call, body["devices"], found["expanded_devices"])
    if call.on("no-profiles"):
        body["profiles"] = []
    elif call.texts("profile"):
        body["profiles"] = call.texts("profile")
    return body


def _own(config: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in config.items() if not key.startswith(_VOLATILE)}


def _roots(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    devices: dict[str, dict[str, str]] = found["expanded_devices"]
    return {n: d for n, d in devices.items() if d.get("type") == "disk" and d.get("path") == "/"}


def _take_over(call: Call, name: str, wanted: dict[str, Any], to: dict[str, str]) -> None:
    """Give a refreshed copy the configuration as well; devices and what is volatile stay its own."""
    found, etag = call.server.get_tagged(url("instances", name), **to)
    body = writable(KINDS["instance"], found)
    volatile = {key: value for key, value in body["config"].items() if key.startswith(_VOLATILE)}
    body["config"] = {**wanted["config"], **volatile}
    body |= {key: wanted[key] for key in ("profiles", "description", "ephemeral")}
    call.server.send("PUT", url("instances", name), body, etag=etag, doing=f"Updating {name}", **to)


def rebuild(call: Call) -> None:
    if call.on("empty"):
        if len(call.words) != 1:
            raise call.misuse("--empty needs no image", "it must read podium rebuild INSTANCE --empty")
        name, source = call.words[0], {"type": "none"}
    else:
        if len(call.words) != 2:
            raise call.misuse("podium rebuild needs IMAGE and INSTANCE", "or INSTANCE --empty")
        name = call.words[1]
        source = {"type": "image", "fingerprint": fingerprint_of(call.server, call.words[0])}
    was_up = call.on("force") and call.server.get(url("instances", name))["status"] == "Running"
    state = {"timeout": -1, "force": True, "stateful": False}
    if was_up:
        body = {**state, "action": "stop"}
        call.server.send("PUT", url("instances", name, "state"), body, doing=f"Stopping {name}")
    body = {"source": source}
    call.server.send("POST", url("instances", name, "rebuild"), body, doing=f"Rebuilding {name}")
    if was_up:
        body = {**state, "action": "start", "force": False}
        call.server.send("PUT", url("instances", name, "state"), body, doing=f"Starting {name}")
