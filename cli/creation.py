"""`launch` and `init`: create an instance, start it, and say how long it took and where it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from cli.call import Call
from cli.failure import CliError, Refused
from cli.images import fingerprint_of
from cli.server import url
from cli.texts import duration


def init(call: Call) -> None:
    name = _create(call)
    if not call.word(_name_index(call)):
        call.say(f"Instance name is: {name}")


def launch(call: Call) -> int | None:
    began = time.monotonic()
    name = _create(call)
    call.say(f"Starting {name}")
    body = {"action": "start", "timeout": -1, "force": False, "stateful": False}
    try:
        call.server.send("PUT", url("instances", name, "state"), body, doing=f"Starting {name}")
    except Refused as exc:
        next = f"podium info {name} --show-log; podium delete {name} removes it"
        raise CliError(f"{name} was created but did not start", exc.why, next) from exc
    took_s = time.monotonic() - began
    if not call.is_quiet:
        print(f"Launched {name} in {duration(took_s)}, {address_text(call, name)}")
    if call.on("console"):
        from cli.console import attach_to

        return attach_to(call, name)
    return None


def _name_index(call: Call) -> int:
    return 0 if call.on("empty") else 1


def _create(call: Call) -> str:
    """Create the instance and return its name, which the server chooses when none was given."""
    body = request_body(call, _from_stdin())
    name = body["name"]
    call.say(f"Creating {name}" if name else "Creating the instance")
    where = {"target": call.text("target")} if call.text("target") else {}
    doing = f"Creating {name or 'the instance'}"
    done = call.server.send("POST", url("instances"), body, doing=doing, **where)
    created: str = done["resources"]["instances"][0].partition("?")[0].rpartition("/")[2]
    return created


def _from_stdin() -> dict[str, Any]:
    if sys.stdin.isatty():
        return {}
    from cli.documents import load_map

    text = sys.stdin.read()
    return load_map(text) if text.strip() else {}


def request_body(call: Call, base: dict[str, Any]) -> dict[str, Any]:
    """Return what is posted: flags over *base*, the YAML that was piped in."""
    body: dict[str, Any] = {
        "name": call.word(_name_index(call)),
        "source": _source(call),
        "type": "virtual-machine" if call.on("vm") else "container",
        "config": {**(base.get("config") or {}), **call.pairs(call.texts("config"))},
        "devices": {**(base.get("devices") or {}), **_network(call), **_root(call)},
    }
    for key in ("profiles", "description", "ephemeral", "architecture"):
        if base.get(key) is not None:
            body[key] = base[key]
    _apply_flags(call, body)
    return body


def add_devices(call: Call, devices: dict[str, Any], inherited: Mapping[str, Any]) -> None:
    """Add what --device says to *devices*; one that profiles give is taken over with its other keys."""
    for text in call.texts("device"):
        device, _, pair = text.partition(",")
        key, equals, value = pair.partition("=")
        if not equals:
            raise call.misuse(f"--device {text!r} is not understood", "it must read DEVICE,KEY=VALUE")
        devices.setdefault(device, dict(inherited.get(device, {})))[key] = value


def _apply_flags(call: Call, body: dict[str, Any]) -> None:
    add_devices(call, body["devices"], {})
    if call.on("ephemeral"):
        body["ephemeral"] = True
    if call.on("no-profiles"):
        body["profiles"] = []
    elif call.texts("profile"):
        body["profiles"] = call.texts("profile")
    if call.text("type"):
        body["instance_type"] = call.text("type")


def _source(call: Call) -> dict[str, Any]:
    if call.on("empty"):
        return {"type": "none"}
    if not call.words:
        raise call.misuse(f"podium {call.path} needs IMAGE", "no image was named")
    image = call.word(0)
    if ":" in image:
        from cli.remotes import source_of

        if source := source_of(image):
            return source
        image = image.removeprefix("local:")
    return {"type": "image", "fingerprint": fingerprint_of(call.server, image)}


def _network(call: Call) -> dict[str, Any]:
    name = call.text("network")
    if not name:
        return {}
    network = call.server.get(url("networks", name))
    if network["managed"]:
        return {"eth0": {"type": "nic", "name": "eth0", "network": name}}
    kind = "bridged" if network["type"] == "bridge" else "macvlan"
    return {"eth0": {"type": "nic", "name": "eth0", "nictype": kind, "parent": name}}


def _root(call: Call) -> dict[str, Any]:
    pool = call.text("storage")
    return {"root": {"type": "disk", "path": "/", "pool": pool}} if pool else {}


def address_text(call: Call, name: str) -> str:
    """Return the IPv4 address that was decided for an instance, known before its DHCP lease is."""
    instance = call.server.get(url("instances", name))
    macs = {value for key, value in instance["config"].items() if key.endswith(".hwaddr")}
    for device in instance["expanded_devices"].values():
        if device.get("type") != "nic" or not device.get("network"):
            continue
        leases = call.server.find(url("networks", device["network"], "leases")) or []
        found = [lease["address"] for lease in leases if lease["hwaddr"] in macs]
        if found:
            return f"address {min(found, key=lambda text: str(text).count(chr(58)))}"
    return "no address"
